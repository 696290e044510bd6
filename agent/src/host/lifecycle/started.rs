//! What a node's VM was started with: up to that it can be changed while it runs, and more waits for its next start.

use std::path::PathBuf;

use gatehouse_model::site::Node;
use gatehouse_model::{Fault, NodeName, Size};
use serde::{Deserialize, Serialize};

use super::Lifecycle;
use crate::host::change::resized;
use crate::host::files::write_whole;
use crate::paths::Paths;
use crate::vmm::Power;

/// `conf/started.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Memory.
    pub memory: Size,
    /// Processors.
    pub vcpus: u32,
    /// The size of its disk.
    pub disk: Size,
}

impl Started {
    /// What a VM of this node is started with.
    pub fn of(node: &Node) -> Self {
        Self { memory: node.memory, vcpus: node.vcpus, disk: node.disk }
    }

    fn path(paths: &Paths, node: &NodeName) -> PathBuf {
        paths.conf(node).join("started.json")
    }

    pub(super) fn save(self, paths: &Paths, node: &NodeName) -> Result<(), Fault> {
        write_whole(&Self::path(paths, node), &serde_json::to_vec_pretty(&self)?, 0o644)
    }
}

impl Lifecycle {
    /// What a node that runs was started with; none where it does not run, or nobody knows.
    pub fn started(&self, node: &NodeName) -> Option<Started> {
        if self.means.driver.power(node).ok()? == Power::Off {
            return None;
        }
        let bytes = std::fs::read(Started::path(&self.means.paths, node)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// What waits for a node's next start, each with the old and the new value.
    pub fn waiting(&self, node: &NodeName) -> Vec<String> {
        let (Some(now), Some(started)) = (self.node(node), self.started(node)) else { return Vec::new() };
        let Started { memory, vcpus, disk } = started;
        let as_started = Node { memory, vcpus, disk, ..now.clone() };
        resized(&as_started, &now, Some(started), self.means.driver.capabilities()).0
    }
}
