//! The life of a node's process: its directory and interface, its console, its end.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::Processes;
use super::identity::make_tap;
use crate::vmm::{Launch, pipes};

/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(10);

impl Processes {
    /// A node's process: this agent's own child, or what `find` finds of an earlier agent's.
    ///
    /// # Errors
    /// As `find`.
    pub fn of_node(
        &self,
        node: &NodeName,
        find: impl FnOnce() -> Result<Option<Pid>, Fault>,
    ) -> Result<Option<Pid>, Fault> {
        if let Some(child) = self.children.lock().unwrap_or_else(PoisonError::into_inner).get_mut(node) {
            let alive = matches!(child.try_wait(), Ok(None));
            return Ok(alive.then(|| i32::try_from(child.id()).ok().map(Pid::from_raw)).flatten());
        }
        find()
    }

    /// Starts a node's process, with a fresh directory and interface, and keeps its console; `adapt` has the last word on
    /// the command.
    ///
    /// # Errors
    /// What it needs cannot be made or given to its user; the program cannot be started.
    pub fn start(&self, launch: &Launch, dir: &Path, adapt: impl FnOnce(&mut Command)) -> Result<(), Fault> {
        // Counts from this start on.
        self.groups.forget(&launch.node);
        if let Some((tap, bridge)) = &launch.config {
            make_tap(&tap.display().to_string(), bridge, launch.uid)?;
        }
        make_anew(dir)?;
        for path in launch.owned.iter().map(AsRef::as_ref).chain([dir]).filter(|_| launch.uid.is_some()) {
            chown(path, launch.uid, launch.uid).doing(|| format!("giving {} to its node", path.display()))?;
        }
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| Fault::new("there is nothing to start"))?;
        let (theirs, ours) = pipes::make(&self.paths, &launch.node)?;
        let mut command = Command::new(program);
        // What the program itself has to say is seen on the console as well.
        let said = theirs.1.try_clone().doing(|| "sharing the console")?;
        command.args(args).stdin(theirs.0).stdout(theirs.1).stderr(said);
        adapt(&mut command);
        let child = command.spawn().doing(|| format!("starting {program}"))?;
        // Its ends of the pipes are closed here, so that they end with it.
        drop(command);
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(launch.node.clone(), child);
        self.consoles.keep(&launch.node, launch.install, ours.output, ours.input)
    }

    /// Keeps the console of a node that an earlier agent has started.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn adopt(&self, node: &NodeName) -> Result<(), Fault> {
        if self.consoles.has(node) {
            return Ok(());
        }
        let Some(ours) = pipes::reopen(&self.paths, node)? else { return Ok(()) };
        self.consoles.keep(node, false, ours.output, ours.input)
    }

    /// Waits for the end of a node that was killed, and removes what it leaves.
    ///
    /// # Errors
    /// It goes on, or cannot be looked for.
    pub fn bury(&self, node: &NodeName, find: impl Fn() -> Result<Option<Pid>, Fault>) -> Result<(), Fault> {
        if wait_off(&find, KILLED) {
            self.groups.forget(node);
            return Ok(());
        }
        let process = find()?.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        Err(Fault::new(format!("node {node} runs on{process} after SIGKILL")))
    }
}

/// Whether a process was started with all of these arguments. One that is gone was not, nor one that this user may not
/// look at.
///
/// # Errors
/// `/proc` cannot be read: a node may be there all the same.
pub(in crate::vmm) fn has_arguments(pid: i32, marks: &[String]) -> Result<bool, Fault> {
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            return fs::metadata("/proc/self").map(|_| false).doing(|| "looking into /proc");
        }
        Err(error) => return Err(error).doing(|| format!("reading the arguments of process {pid}")),
    };
    let has = |mark: &String| line.split(|byte| *byte == 0).any(|arg| arg == mark.as_bytes());
    Ok(marks.iter().all(has))
}

/// Waits until there is no process; false if there still is one after that time, or it cannot be looked for.
pub(in crate::vmm) fn wait_off(find: impl Fn() -> Result<Option<Pid>, Fault>, at_most: Duration) -> bool {
    let begun = Instant::now();
    while !matches!(find(), Ok(None)) {
        if begun.elapsed() >= at_most {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

/// An empty directory: what a killed process leaves in its own disturbs the next one.
fn make_anew(dir: &Path) -> Result<(), Fault> {
    if dir.exists() {
        fs::remove_dir_all(dir).doing(|| format!("removing {}", dir.display()))?;
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.doing(|| format!("making {}", dir.display()))
}
