//! The programs that make images, from the site's locked `tools` packages: the same bytes on every machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use gatehouse_model::{Fault, Lock, PackageSet};

use crate::cache::Cache;
use crate::root::{Finish, Wanted, ensure};
use crate::tool;

/// The unpacked tools.
#[derive(Clone, Debug)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Unpacks the tools into the cache if they are not there.
    ///
    /// # Errors
    /// A package cannot be unpacked.
    pub fn open(set: &PackageSet, lock: &Lock, cache: &Cache) -> Result<Self, Fault> {
        Ok(Self { root: ensure(&Self::wanted(set), lock, cache)?.join("tree") })
    }

    /// The root that they are in.
    pub fn wanted(set: &PackageSet) -> Wanted<'_> {
        Wanted { finish: Finish::Tools, set, overlays: Vec::new(), files: Vec::new(), epoch: 0 }
    }

    /// Where a file of the tools is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs one of the programs, through the tools' own loader and libraries.
    ///
    /// # Errors
    /// As [`tool::run_alone`].
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: &[S]) -> Result<String, Fault> {
        let loader = self.root.join("usr/lib64/ld-linux-x86-64.so.2");
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let program = self.root.join(program);
        let mut all: Vec<&OsStr> =
            vec![OsStr::new("--library-path"), libraries.as_os_str(), program.as_os_str()];
        all.extend(args.iter().map(AsRef::as_ref));
        tool::run_alone(path_str(&loader)?, &all)
    }
}

fn path_str(path: &Path) -> Result<&str, Fault> {
    path.to_str().ok_or_else(|| Fault::new(format!("{} is not UTF-8", path.display())).help("move the cache"))
}
