//! The processes of a trial that runs natively on this machine, as its kernel shows them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its user's.
    pub uid: u32,
}

/// The process that is a node's VM, if there is one: the vmm's, which has the node's store as an argument.
pub fn of_node(trial: &Path, node: &str) -> Option<Process> {
    let store = trial.join("vms").join(node).join("fs/disk0").display().to_string();
    first(&|args| args.contains(&store) && !args.contains("\0confine\0"))
}

/// The trial's agent, if there is one.
pub fn of_agent(trial: &Path) -> Option<Process> {
    let dir = format!("--dir\0{}\0", trial.display());
    first(&|args| args.contains(&dir) && args.contains("\0trial\0") && args.ends_with("\0--serve\0"))
}

/// Of those whose arguments fit, the one that has started the others.
fn first(fits: &dyn Fn(&str) -> bool) -> Option<Process> {
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let fitting = |pid: &u32| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        fits(&String::from_utf8_lossy(&args))
    };
    let all: Vec<u32> = pids.filter(fitting).collect();
    let pid = *all.iter().find(|pid| parent(**pid).is_none_or(|parent| !all.contains(&parent)))?;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(Process { pid, uid })
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

impl Process {
    /// Sends a signal, such as `KILL`.
    ///
    /// # Panics
    /// It cannot be sent.
    pub fn signal(self, name: &str) {
        let sent = run(Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]));
        assert_eq!(sent.code, 0, "{sent:?}");
    }

    /// What the kernel shows of it under some name.
    pub fn file(self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }

    /// Whether its user can read the beginning of a file.
    pub fn can_read(self, path: &Path) -> bool {
        let id = self.uid.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "head", "-c", "1"]).arg(path);
        let ended = run(&mut command);
        assert!(!ended.stderr.contains("setpriv"), "{ended:?}");
        ended.code == 0
    }
}
