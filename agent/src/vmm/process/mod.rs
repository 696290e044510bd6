//! Nodes that are processes of the host: what they may take, and what they have used. For every vmm but Xen.

mod cgroup;
mod identity;
mod tree;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Fault, NodeName};

use self::cgroup::Groups;
pub(super) use self::identity::{FIRST_UID, make_tap, may_change_user, tap};
use super::usage::{self, Usage};
use super::{Vm, traffic};
use crate::paths::Paths;

/// Holds and counts the processes of nodes.
#[derive(Debug)]
pub struct Processes {
    groups: Groups,
}

/// A node whose VM is a process, and the interface that is the host's end of its NIC.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// The node.
    pub vm: &'a Vm<'a>,
    /// Its first process.
    pub pid: u32,
    /// The interface.
    pub interface: &'a str,
}

impl Processes {
    /// For the nodes below these paths: a trial's have groups of their own, beside those of the host and other trials.
    pub fn new(paths: &Paths) -> Self {
        let name = match &paths.trial {
            None => "gatehouse".to_owned(),
            Some(dir) => {
                let digest = Digest::of(dir.as_os_str().as_encoded_bytes()).to_string();
                format!("gatehouse-{}", &digest[..8])
            }
        };
        Self { groups: Groups::new(PathBuf::from("/sys/fs/cgroup"), name) }
    }

    /// Makes a running node have what its limits say; answers what of them cannot be held here, a sentence each. May be
    /// repeated: also a process that was started meanwhile is then held.
    ///
    /// # Errors
    /// A group that is there cannot be written.
    pub fn limit(&self, node: Running<'_>) -> Result<Vec<String>, Fault> {
        let limits = &node.vm.node.limits;
        let disk = node.vm.stores.first().and_then(|store| disk_of(store, Path::new("/sys/dev/block")));
        let pids = || tree::of(Path::new("/proc"), node.pid).iter().map(|process| process.pid).collect();
        let mut lacks = self.groups.hold(&node.vm.node.name, limits, disk.as_deref(), &pids)?;
        lacks.extend(traffic::hold(node.interface, node.vm.index, limits.network_rate));
        Ok(lacks)
    }

    /// What a running node has used.
    pub fn usage(&self, node: Running<'_>) -> Usage {
        let tree = tree::of(Path::new("/proc"), node.pid);
        let (received, sent) = usage::traffic(Path::new("/sys/class/net"), node.interface);
        let mut usage = tree::usage(Path::new("/proc"), node.pid, &tree);
        if let Some(seconds) = self.groups.seconds(&node.vm.node.name) {
            usage.cpu_seconds = seconds;
        }
        Usage { received, sent, ..usage }
    }

    /// Removes what a node that is off leaves.
    pub fn forget(&self, node: &NodeName) {
        self.groups.forget(node);
    }
}

/// The number of the whole disk below a file, as `io.max` wants it; none where the filesystem is on no disk of its own.
fn disk_of(file: &Path, block: &Path) -> Option<String> {
    let device = fs::metadata(file).ok()?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let dir = fs::canonicalize(block.join(&device)).ok()?;
    if dir.join("partition").exists() {
        return Some(fs::read_to_string(dir.parent()?.join("dev")).ok()?.trim().to_owned());
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_held_by_its_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("disk0");
        fs::write(&file, "").expect("written");
        let device = fs::metadata(&file).expect("there").dev();
        let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let block = dir.path().join("block");
        assert_eq!(disk_of(&file, &block), None, "an overlay, for example");
        let (disk, part) = (dir.path().join("vda"), dir.path().join("vda/vda9"));
        fs::create_dir_all(&part).expect("made");
        fs::create_dir_all(&block).expect("made");
        std::os::unix::fs::symlink(&part, block.join(&device)).expect("linked");
        assert_eq!(disk_of(&file, &block), Some(device));
        fs::write(disk.join("dev"), "254:0\n").expect("written");
        fs::write(part.join("partition"), "9\n").expect("written");
        assert_eq!(disk_of(&file, &block).as_deref(), Some("254:0"));
    }
}
