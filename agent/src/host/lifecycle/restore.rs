//! A node whose disks come from a backup.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, NodeName, State};

use super::record::Record;
use super::{Lifecycle, STOP_GRACE, Wanted, phase};
use crate::host::backup::swap::Places;
use crate::paths::Paths;

/// How long a node's thread may take to end what it does once the VM is off.
const AT_REST: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// What is shown of a node that waits.
pub(super) const AWAITS: &str =
    "waits for its backup: `gatectl node restore`, or `gatectl node install` without one";

/// A node that came to this machine with its host's backup: it is not installed anew before somebody says so.
pub fn awaits(paths: &Paths, node: &NodeName) -> PathBuf {
    paths.conf(node).join("awaits-restore")
}

impl Lifecycle {
    /// The places of a node's disks, where it can have any here.
    ///
    /// # Errors
    /// The site has no such node, or it is a machine of its own.
    pub fn places(&self, node: &NodeName) -> Result<(Node, Places), Fault> {
        self.known_vm(node)?;
        let known = self.node(node).ok_or_else(|| Fault::new(format!("there is no node {node}")))?;
        Ok((known, Places::of(&self.means.paths, node)))
    }

    /// What a node's install has left; none before it has ended.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn record(&self, node: &NodeName) -> Result<Option<Record>, Fault> {
        Record::load(&self.means.paths, node)
    }

    /// Stops a node, whose thread then puts in place what was restored, and starts it from that.
    ///
    /// # Errors
    /// It does not stop.
    pub fn start_restored(&self, node: &NodeName) -> Result<(), Fault> {
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        let begun = Instant::now();
        while !self.rests(node) {
            if begun.elapsed() > AT_REST {
                return Err(Fault::new(format!("node {node} does not come to rest")).help(format!(
                    "what was restored takes its place when it does; see `gatectl node log {node}`"
                )));
            }
            std::thread::sleep(LOOK);
        }
        self.want(node, Wanted::Running);
        Ok(())
    }

    pub(super) fn swap(&self, node: &Node) -> Result<(), Fault> {
        Places::of(&self.means.paths, &node.name).take_up()?;
        self.stop_awaiting(&node.name)?;
        self.means.board.say(&phase(&node.name), "restoring", State::Succeeded, "its disks are in place");
        Ok(())
    }

    /// A node is up: what its disks were before they were restored is not needed any more.
    pub(super) fn settle(&self, node: &NodeName) {
        let settled = Places::of(&self.means.paths, node).settle();
        let (state, words) = match settled {
            Ok(false) => return,
            Ok(true) => (State::Succeeded, "it runs; what its disks were before is removed".to_owned()),
            Err(fault) => (State::Failed, fault.to_string()),
        };
        self.means.board.say(&phase(node), "restoring", state, words);
    }

    pub(super) fn awaits(&self, node: &NodeName) -> bool {
        awaits(&self.means.paths, node).exists()
    }

    pub(super) fn stop_awaiting(&self, node: &NodeName) -> Result<(), Fault> {
        let path = awaits(&self.means.paths, node);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
