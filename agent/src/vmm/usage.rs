//! What a node has used since its VM was started, as the host sees it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Counters from the start of a VM on, and its memory now. What a driver cannot know is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// Processor time, in seconds of one processor.
    pub cpu_seconds: f64,
    /// Memory that it takes of the host's now, in bytes.
    pub memory: u64,
    /// Bytes that it has received over its NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Bytes that it has sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Bytes read of its disks: under Xen those that it asked for, else those that the host's disks had to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Bytes written to its disks, counted in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
}

/// What has passed the host's end of a node's NIC: what the node has received, and what it has sent. `net` is
/// `/sys/class/net`.
pub(super) fn traffic(net: &Path, interface: &str) -> (Option<u64>, Option<u64>) {
    let count = |name| number(&net.join(interface).join("statistics").join(name));
    // The host's end sends what the node receives.
    (count("tx_bytes"), count("rx_bytes"))
}

/// The number that a file of the kernel's holds.
pub(super) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
