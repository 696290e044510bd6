//! What host and nodes use, at one moment.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use gatehouse_model::site::{Limits, Node};
use gatehouse_model::{NodeName, Size};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::board::{NodeState, NodeStatus};
use crate::vmm::usage::Usage;

/// Host and nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SiteUsage {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The host.
    pub host: HostUsage,
    /// The nodes that are VMs, in the order of site.toml.
    pub nodes: Vec<NodeUsage>,
}

/// The host; under Xen that is the domain with the drivers, not the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostUsage {
    /// How many processes wanted to run, on average over the last minute.
    pub load: f64,
    /// How many processors there are for them.
    pub processors: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// What of it is free, or would be at once.
    pub memory_available: u64,
    /// The filesystems of stores and state.
    pub disks: Vec<Room>,
}

/// A filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Room {
    /// A directory on it.
    pub dir: PathBuf,
    /// Its size, in bytes.
    pub size: u64,
    /// What is free of it.
    pub free: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeUsage {
    /// Its name.
    pub name: NodeName,
    /// Where it stands.
    pub state: NodeState,
    /// Its processors.
    pub vcpus: u32,
    /// Its memory, as site.toml has it.
    pub memory: Size,
    /// The size of its disks.
    pub disk: Size,
    /// What else it may take.
    pub limits: Limits,
    /// What of that is not held, a sentence each.
    pub not_held: Vec<String>,
    /// Bytes that its disks take of the host's.
    pub allocated: Option<u64>,
    /// What it has used since its start; none while it is off.
    pub usage: Option<Usage>,
}

impl NodeUsage {
    /// A node as it stands.
    pub fn of(node: &Node, status: Option<NodeStatus>, usage: Option<Usage>, allocated: Option<u64>) -> Self {
        Self {
            name: node.name.clone(),
            state: status.as_ref().map_or(NodeState::Absent, |status| status.state),
            vcpus: node.vcpus,
            memory: node.memory,
            disk: node.disk,
            limits: node.limits,
            not_held: status.map(|status| status.not_held).unwrap_or_default(),
            allocated,
            usage,
        }
    }
}

impl HostUsage {
    /// This host, with the filesystems of some directories, each once. What cannot be read is zero or left out.
    pub fn of_this(dirs: &[&PathBuf]) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (memory, memory_available) = memory(&text("/proc/meminfo"));
        let mut seen = Vec::new();
        let mut disks = Vec::new();
        for dir in dirs {
            let (Ok(meta), Ok(room)) = (fs::metadata(dir), statvfs(dir.as_path())) else { continue };
            if !seen.contains(&meta.dev()) {
                seen.push(meta.dev());
                let bytes = |blocks: u64| blocks * room.fragment_size();
                let (size, free) = (bytes(room.blocks()), bytes(room.blocks_available()));
                disks.push(Room { dir: (*dir).clone(), size, free });
            }
        }
        Self {
            load: text("/proc/loadavg").split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
            processors: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            memory,
            memory_available,
            disks,
        }
    }
}

/// All memory and what is available, from `/proc/meminfo`.
fn memory(text: &str) -> (u64, u64) {
    let kib = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    (kib("MemTotal:").unwrap_or(0) << 10, kib("MemAvailable:").unwrap_or(0) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_the_kernel_says() {
        let text = "MemTotal:        2048 kB\nMemFree: 5 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(memory(text), (2 << 20, 1 << 20));
        let root = PathBuf::from("/");
        let host = HostUsage::of_this(&[&root, &root]);
        assert_eq!(host.disks.len(), 1, "one filesystem is one line");
        assert!(
            host.processors > 0 && host.memory > host.memory_available && host.disks[0].size > 0,
            "{host:?}"
        );
    }
}
