//! QEMU where all nodes have one user, which is where the agent is not root: confined, as User Mode Linux always is. With
//! users of their own nodes are kept apart by those.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};

use super::QEMU;
use super::probe::{Accelerator, KVM};
use crate::paths::Paths;
use crate::vmm::confine::{AGENT, ConfineOptions};

/// Programs and libraries of the machine, with QEMU's firmware; what it lacks is left out.
const SYSTEM: [&str; 4] = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache"];

/// What a confined QEMU needs of the machine.
#[derive(Clone, Debug)]
pub(super) struct Confined {
    /// An empty directory, in which each node's process makes its own root.
    pub root: PathBuf,
    /// The program by its whole name: without `/proc` it finds its firmware by that.
    pub program: PathBuf,
    /// What it may read.
    pub system: Vec<PathBuf>,
}

impl Confined {
    /// Looks for it on this machine.
    ///
    /// # Errors
    /// QEMU is missing; the directory cannot be made.
    pub fn find(paths: &Paths) -> Result<Self, Fault> {
        let root = paths.run.join("kvm-root");
        fs::create_dir_all(&root).doing(|| format!("making {}", root.display()))?;
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path).find_map(|dir| fs::canonicalize(dir.join(QEMU)).ok());
        let program = program
            .ok_or_else(|| Fault::new(format!("there is no {QEMU}")).help("install qemu-system-x86"))?;
        let mut system: Vec<PathBuf> =
            SYSTEM.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect();
        // One that was built here and stands elsewhere brings what is beside it.
        system
            .extend(program.ancestors().nth(2).filter(|home| !home.starts_with("/usr")).map(Path::to_owned));
        Ok(Self { root, program, system })
    }

    /// The words before the program's own: it has these files of its node, and the processor's help.
    pub fn words(&self, read: &[&Path], write: &[&Path], accelerator: Accelerator) -> Vec<String> {
        let read: Vec<&Path> = self.system.iter().map(PathBuf::as_path).chain(read.iter().copied()).collect();
        let mut write = write.to_vec();
        if let Accelerator::Kvm { .. } = accelerator {
            write.push(Path::new(KVM));
        }
        let mut words = vec![AGENT.to_owned()];
        words.extend(ConfineOptions::of(&self.root, &read, &write, None));
        words
    }
}
