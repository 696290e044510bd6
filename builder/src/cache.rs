//! The content-addressed cache: what was fetched and built once is found again by digest, or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Doing as _, Fault, Hasher};

/// The cache directory and its parts.
#[derive(Clone, Debug)]
pub struct Cache {
    top: PathBuf,
}

impl Cache {
    /// Opens the cache below a directory, or `$XDG_CACHE_HOME/gatehouse`, or `~/.cache/gatehouse`.
    ///
    /// # Errors
    /// Neither variable is set, or the directories cannot be made.
    pub fn open(at: Option<&Path>) -> Result<Self, Fault> {
        let top = match at {
            // apt wants whole paths.
            Some(dir) => std::path::absolute(dir).doing(|| format!("finding {}", dir.display()))?,
            None => default_dir().ok_or_else(|| {
                Fault::new("neither XDG_CACHE_HOME nor HOME is set").help("set one, or give --cache DIR")
            })?,
        };
        for part in ["deb", "apt", "root", "file", "sites", "tmp"] {
            let dir = top.join(part);
            fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        }
        Ok(Self { top })
    }

    /// The file of a fetched package.
    pub fn deb(&self, digest: &Digest) -> PathBuf {
        self.top.join("deb").join(digest.to_string())
    }

    /// The solver's private directories for one set of archives.
    pub fn apt(&self, archives: &Digest) -> PathBuf {
        self.top.join("apt").join(archives.short())
    }

    /// What building a root gave, by the digest of its inputs.
    pub fn root(&self, inputs: &Digest) -> PathBuf {
        self.top.join("root").join(inputs.to_string())
    }

    /// A made file (filesystem, boot loader, archive), by the digest of its inputs.
    pub fn file(&self, inputs: &Digest) -> PathBuf {
        self.top.join("file").join(inputs.to_string())
    }

    /// What is remembered of a site, by the digest of where it lies.
    pub fn remembered(&self, site: &Digest) -> PathBuf {
        self.top.join("sites").join(format!("{}.json", site.short()))
    }

    /// A new directory for work in progress, named after this process.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self, name: &str) -> Result<PathBuf, Fault> {
        let dir = self.top.join("tmp").join(format!("{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    /// The scratch directories that processes now gone have left.
    pub fn stale(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.top.join("tmp")).into_iter().flatten().flatten();
        let gone = |path: &PathBuf| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let pid = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
            pid.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        };
        entries.map(|entry| entry.path()).filter(gone).collect()
    }
}

fn default_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|dir| dir.join("gatehouse"))
}

/// The digest and size of a file.
///
/// # Errors
/// It cannot be read.
pub fn digest_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..count]);
        size += u64::try_from(count).unwrap_or(0);
    }
}

/// Moves a finished file or directory into its place: synced first, so that a name always means whole contents.
///
/// # Errors
/// Syncing or renaming fails.
pub fn settle(from: &Path, to: &Path) -> Result<(), Fault> {
    let doing = || format!("moving {} to {}", from.display(), to.display());
    if from.is_file() {
        File::open(from).and_then(|file| file.sync_all()).doing(doing)?;
    }
    fs::rename(from, to).doing(doing)
}
