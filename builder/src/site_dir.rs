//! A site directory on disk: the only place where the builder reads one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use gatehouse_lcfg::{Fleet, Sources, publish};
use gatehouse_model::{Digest, Doing as _, Fault, Problem, Site};

use crate::parallel;

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
    /// It cannot be read, is larger than any file of a site, or is not UTF-8.
    pub fn read(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.open_file(name)? {
            Some(file) => text(name, all_of(name, file)?).map(Some),
            None => Ok(None),
        }
    }

    /// What is in a file that is there.
    ///
    /// # Errors
    /// It cannot be read, or is larger than any file of a site.
    pub fn content(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let path = self.path.join(name);
        all_of(name, File::open(&path).doing(|| format!("opening {}", path.display()))?)
    }

    /// A file, for whoever needs only its beginning; none if there is no such file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, Fault> {
        let path = self.path.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("opening {}", path.display())),
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

    /// The path of every file below the directory, sorted; editors' leavings and hidden files are passed over.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn files(&self) -> Result<Vec<String>, Fault> {
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
        Ok(self.sources()?.into_fleet(site))
    }

    /// What the site says, and its nodes ready to be compiled; the files are read while `site.toml` is.
    ///
    /// # Errors
    /// All problems of `site.toml`; a file cannot be read.
    pub fn site_and_fleet(&self) -> Result<(Site, Fleet), Fault> {
        let (site, sources) = parallel::both(|| self.site(), || self.sources())?;
        let fleet = sources.into_fleet(&site);
        Ok((site, fleet))
    }

    /// All that nodes are compiled from, but `site.toml`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sources(&self) -> Result<NodeSources, Fault> {
        let (mut sources, mut programs) = (Sources::new(), BTreeMap::new());
        for path in self.files()? {
            if let Some(name) = path.strip_prefix("lcfg/") {
                sources.insert(name, text(&path, self.content(&path)?)?);
            } else if let Some(name) = path.strip_prefix("components/").filter(|name| !name.contains('/')) {
                programs.insert(name.to_owned(), Digest::of(&self.content(&path)?).to_string());
            }
        }
        Ok(NodeSources { sources, programs })
    }
}

/// All that nodes are compiled from, but `site.toml`.
#[derive(Debug)]
pub struct NodeSources {
    sources: Sources,
    programs: BTreeMap<String, String>,
}

impl NodeSources {
    /// The site's nodes, ready to be compiled.
    pub fn into_fleet(self, site: &Site) -> Fleet {
        let mut fleet = publish::fleet(site, self.sources);
        fleet.set_programs(self.programs);
        fleet
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

/// All bytes of a file, unless it is too large for a site.
fn all_of(name: &str, file: File) -> Result<Vec<u8>, Fault> {
    // Most sources are shorter: one read gets them.
    let mut bytes = Vec::with_capacity(2048);
    file.take(LARGEST + 1).read_to_end(&mut bytes).doing(|| format!("reading {name}"))?;
    if bytes.len() as u64 <= LARGEST {
        return Ok(bytes);
    }
    let what = format!("is larger than {} MiB, which no file of a site is; move it elsewhere", LARGEST >> 20);
    Err(Fault::of_problems(vec![Problem::at(name, 0, what)]))
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<(), Fault> {
    let doing = || format!("reading {}", dir.display());
    for entry in fs::read_dir(dir).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') || name.ends_with(".partial") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().doing(doing)?;
        let is_dir = kind.is_dir() || (kind.is_symlink() && path.is_dir());
        let full = format!("{prefix}{name}");
        if is_dir {
            walk(&path, &format!("{full}/"), found)?;
        } else {
            found.push(full);
        }
    }
    Ok(())
}
