//! A site directory on disk: the only place where the builder reads one.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gatehouse_lcfg::{Fleet, Sources, publish};
use gatehouse_model::{Doing as _, Fault, Problem, Site};

/// How large a file of a site directory may be; more is a mistake, such as an image copied into it.
const LARGEST: u64 = 16 << 20;

/// A site directory.
#[derive(Clone, Debug)]
pub struct SiteDir {
    path: PathBuf,
}

impl SiteDir {
    /// Names a site directory; it must hold a `site.toml`.
    ///
    /// # Errors
    /// A problem if there is none.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        if path.join("site.toml").is_file() {
            return Ok(Self { path: path.to_owned() });
        }
        let what = "there is no site.toml; name a site directory, or make one with `gatehouse new DIR`";
        Err(Fault::of_problems(vec![Problem::at(path.display().to_string(), 0, what)]))
    }

    /// Where it lies.
    ///
    /// # Errors
    /// It does not, any more.
    pub fn absolute(&self) -> Result<PathBuf, Fault> {
        fs::canonicalize(&self.path).doing(|| format!("finding {}", self.path.display()))
    }

    /// Reads and checks `site.toml`.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn site(&self) -> Result<Site, Fault> {
        let text = self.read("site.toml")?.unwrap_or_default();
        Site::parse(&text).map_err(Fault::of_problems)
    }

    /// A file's text; none if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn read(&self, name: &str) -> Result<Option<String>, Fault> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => text(name, bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
        }
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Fault> {
        let path = self.path.join(name);
        let partial = self.path.join(format!("{name}.partial"));
        fs::write(&partial, text).doing(|| format!("writing {}", partial.display()))?;
        crate::cache::settle(&partial, &path)
    }

    /// Every file below the directory with its path, sorted; editors' leavings and hidden files are passed over.
    ///
    /// # Errors
    /// A directory cannot be read, or a file is larger than any file of a site.
    pub fn files(&self) -> Result<Vec<(String, PathBuf)>, Fault> {
        let mut found = Vec::new();
        walk(&self.path, "", &mut found)?;
        found.sort();
        Ok(found)
    }

    /// The site's nodes with their sources (everything below `lcfg/` that is text) and the site's own components, ready
    /// to be compiled.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fleet(&self, site: &Site) -> Result<Fleet, Fault> {
        let (mut sources, mut programs) = (Sources::new(), BTreeMap::new());
        for (name, path) in self.files()? {
            let doing = || format!("reading {}", path.display());
            if let Some(name) = name.strip_prefix("lcfg/") {
                let bytes = fs::read(&path).doing(doing)?;
                sources.insert(name, text(&format!("lcfg/{name}"), bytes)?);
            } else if let Some(name) = name.strip_prefix("components/").filter(|name| !name.contains('/')) {
                let (digest, _) = crate::cache::digest_file(&path).doing(doing)?;
                programs.insert(name.to_owned(), digest.to_string());
            }
        }
        let mut fleet = publish::fleet(site, sources);
        fleet.set_programs(programs);
        Ok(fleet)
    }
}

/// A file's bytes as text; a problem with the first line that is none.
fn text(name: &str, bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        let right = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = right.split(|byte| *byte == b'\n').count();
        let what = "is not UTF-8 text from here on; save the file as UTF-8";
        Fault::of_problems(vec![Problem::at(name, line, what)])
    })
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) -> Result<(), Fault> {
    let doing = || format!("reading {}", dir.display());
    for entry in fs::read_dir(dir).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') || name.ends_with(".partial") {
            continue;
        }
        let path = entry.path();
        let meta = fs::metadata(&path).doing(|| format!("reading {}", path.display()))?;
        let full = format!("{prefix}{name}");
        if meta.is_dir() {
            walk(&path, &format!("{full}/"), found)?;
        } else if meta.len() > LARGEST {
            let what = format!(
                "is larger than {} MiB, which no file of a site is; move it elsewhere",
                LARGEST >> 20
            );
            return Err(Fault::of_problems(vec![Problem::at(full, 0, what)]));
        } else {
            found.push((full, path));
        }
    }
    Ok(())
}
