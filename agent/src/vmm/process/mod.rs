//! Nodes that are processes of the host: how they start and end, what they may take, and what they have used. For every
//! vmm but Xen.

mod cgroup;
mod identity;
mod life;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;

use gatehouse_model::{Digest, Fault, NodeName};
use nix::unistd::Pid;

use self::cgroup::Groups;
pub(super) use self::identity::tap;
use self::identity::{FIRST_UID, may_change_user};
pub(super) use self::life::{has_arguments, wait_off};
use super::console::Consoles;
use super::usage::{self, Usage};
use super::{Vm, traffic};
use crate::paths::Paths;

/// Starts, holds and counts the processes of nodes.
#[derive(Debug)]
pub struct Processes {
    paths: Paths,
    consoles: Consoles,
    /// Those that this agent has started; an earlier one's are found by their drivers.
    children: Mutex<BTreeMap<NodeName, Child>>,
    groups: Groups,
    own_user: bool,
}

impl Processes {
    /// For the nodes below these paths: a trial's have groups of their own, beside those of the host and other trials.
    pub fn new(paths: Paths) -> Self {
        Self::of(paths, may_change_user())
    }

    fn of(paths: Paths, own_user: bool) -> Self {
        let name = match &paths.trial {
            None => "gatehouse".to_owned(),
            Some(dir) => {
                let digest = Digest::of(dir.as_os_str().as_encoded_bytes()).to_string();
                format!("gatehouse-{}", &digest[..8])
            }
        };
        let groups = Groups::new(PathBuf::from("/sys/fs/cgroup"), name);
        let consoles = Consoles::new(paths.clone());
        Self { paths, consoles, children: Mutex::default(), groups, own_user }
    }

    /// Whether every node's process has a user of its own.
    pub fn own_user(&self) -> bool {
        self.own_user
    }

    /// The user of a node's process; none where it has the agent's.
    pub fn uid(&self, vm: &Vm<'_>) -> Option<u32> {
        self.own_user.then_some(FIRST_UID + vm.index)
    }

    /// Makes a node, whose first process is given where it is on, have what its limits say; answers what of them cannot be
    /// held here, a sentence each. May be repeated: also a process that was started meanwhile is then held.
    ///
    /// # Errors
    /// A group that is there cannot be written.
    pub fn limit(&self, vm: &Vm<'_>, process: Option<Pid>) -> Result<Vec<String>, Fault> {
        let Some(pid) = number(process) else { return Ok(Vec::new()) };
        let limits = &vm.node.limits;
        let disk = vm.stores.first().and_then(|store| disk_of(store, Path::new("/sys/dev/block")));
        let pids = || tree::of(Path::new("/proc"), pid).iter().map(|process| process.pid).collect();
        let held = self.groups.hold(&vm.node.name, limits, disk.as_deref(), &pids);
        let slowed = traffic::hold(&tap(vm.index), vm.index, limits.network_rate);
        Ok(held?.into_iter().chain(slowed).collect())
    }

    /// What a node, whose first process is given where it is on, has used.
    pub fn usage(&self, vm: &Vm<'_>, process: Option<Pid>) -> Option<Usage> {
        let pid = number(process)?;
        let tree = tree::of(Path::new("/proc"), pid);
        let (received, sent) = usage::traffic(Path::new("/sys/class/net"), &tap(vm.index));
        let mut usage = tree::usage(Path::new("/proc"), pid, &tree);
        if let Some(seconds) = self.groups.seconds(&vm.node.name) {
            usage.cpu_seconds = seconds;
        }
        Some(Usage { received, sent, ..usage })
    }
}

fn number(process: Option<Pid>) -> Option<u32> {
    u32::try_from(process?.as_raw()).ok()
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
pub(super) mod tests {
    use std::io::Read as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// For a test of a driver.
    pub fn processes(paths: Paths, own_user: bool) -> Processes {
        Processes::of(paths, own_user)
    }

    /// A process with these arguments that does nothing until its input ends. It has said that it runs: before that, its
    /// arguments need not be seen yet (`execve` lets the parent go on before it sets them).
    pub fn idle(args: &[&str]) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read -r line", "sh"]).args(args).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it runs");
        child
    }

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
