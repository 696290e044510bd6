//! Drivers for the virtual machine monitors under the nodes: one trait, small values, no decisions.
//!
//! The lifecycle (`host/lifecycle.rs`) decides what is to run; a driver renders that into a [`Launch`]
//! (pure, shown and tested as text) and acts on it. Every verb may be called twice.

pub mod console;
pub mod initrd;
pub mod kvm;
mod pipes;
pub mod process;
pub mod store;
pub mod traffic;
pub mod uml;
pub mod usage;
pub mod xen;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_model::site::{Node, VmmKind};
use gatehouse_model::{Fault, NodeName};

use self::usage::Usage;

/// What a driver can do; `check` refuses what it lacks. That a host may lack what a driver needs for it is said by
/// [`Vmm::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each stands for itself, in a table for people")]
pub struct Capabilities {
    /// The most virtual processors a node may have; none: no limit of the driver's own.
    pub max_vcpus: Option<u32>,
    /// Memory can change while the node runs: less than it was started with, and up to that again.
    pub memory_while_running: bool,
    /// So can the number of processors.
    pub vcpus_while_running: bool,
    /// A node can be held to `disk-rate` and `disk-iops`. To weight, cap and network-rate every driver holds it.
    pub disk_rate: bool,
    /// The node boots the kernel on its own disk.
    pub own_kernel: bool,
    /// Each node's process runs as a user of its own (where the agent is root).
    pub own_user: bool,
}

/// A node as a driver sees it.
#[derive(Clone, Debug)]
pub struct Vm<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its place in the site, from 0: for what must be numbered.
    pub index: u32,
    /// Its disks' stores, in order.
    pub stores: Vec<PathBuf>,
    /// The bridge its NIC is on.
    pub bridge: &'a str,
}

/// What a node boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot<'a> {
    /// The installer.
    Install {
        /// The kernel.
        kernel: &'a Path,
        /// Its initramfs, passport included.
        initrd: &'a Path,
    },
    /// Its own disk.
    Disk {
        /// The kernel, for a vmm whose nodes do not boot their own, or what loads theirs.
        kernel: &'a Path,
        /// The root filesystem as a kernel argument: `PARTUUID=…`.
        root: &'a str,
    },
}

impl Boot<'_> {
    /// Whether it is the installer.
    pub fn is_install(&self) -> bool {
        matches!(self, Self::Install { .. })
    }
}

/// What a driver will start: programs' arguments and configuration as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The node.
    pub node: NodeName,
    /// Whether it is the installer that starts: what its console shows is then kept apart, too.
    pub install: bool,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The content of the configuration file that the arguments name, if there is one.
    pub config: Option<(PathBuf, String)>,
    /// The user to run as, where the driver gives each node one.
    pub uid: Option<u32>,
    /// Files that this user must own.
    pub owned: Vec<PathBuf>,
}

/// Whether a node's VM is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It does not.
    Off,
}

/// One virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// Which one.
    fn kind(&self) -> VmmKind;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// What will be started, as text. Pure.
    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch;

    /// Starts a node; its console is kept from the first byte.
    ///
    /// # Errors
    /// The vmm's own words.
    fn start(&self, launch: &Launch) -> Result<(), Fault>;

    /// Keeps the console of a running node that an earlier agent has started, as far as it can still be read.
    ///
    /// # Errors
    /// The console cannot be had.
    fn adopt(&self, node: &NodeName) -> Result<(), Fault>;

    /// Whether a node runs, started by this agent or an earlier one.
    ///
    /// # Errors
    /// The vmm cannot be asked.
    fn power(&self, node: &NodeName) -> Result<Power, Fault>;

    /// Asks a node to shut down, waits so long, then ends it.
    ///
    /// # Errors
    /// It cannot even be ended.
    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault>;

    /// Makes a running node have what its [`Node`] says of memory, processors and limits, as far as that can change while
    /// it runs; what only a start can change is left for the next one. Answers a sentence for each limit that this host
    /// cannot hold it to. Called after every start, when a node that runs is adopted, and when the site changes; may be
    /// called again at any time, and does nothing for a node that is off.
    ///
    /// # Errors
    /// The vmm's own words. The node runs on as it did.
    fn limit(&self, vm: &Vm<'_>) -> Result<Vec<String>, Fault>;

    /// What a node has used since its start; none where it is off. Called for all nodes each minute, and each second
    /// while somebody looks: it waits for nothing, and a driver may answer with what it knew a second ago.
    ///
    /// # Errors
    /// The vmm cannot be asked.
    fn usage(&self, vm: &Vm<'_>) -> Result<Option<Usage>, Fault>;
}

/// What a node asks of a driver that it lacks; one sentence each.
pub fn check(capabilities: Capabilities, kind: VmmKind, node: &Node) -> Vec<String> {
    let mut lacks = Vec::new();
    if let Some(max) = capabilities.max_vcpus
        && node.vcpus > max
    {
        lacks.push(format!("node {} asks for {} vcpus; {kind} gives at most {max}", node.name, node.vcpus));
    }
    for (key, asked) in
        [("disk-rate", node.limits.disk_rate.is_some()), ("disk-iops", node.limits.disk_iops.is_some())]
    {
        if asked && !capabilities.disk_rate {
            lacks.push(format!("node {} asks for {key}; {kind} can hold no node to one", node.name));
        }
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_lacks_is_refused() {
        let mut node = crate::server::sample_site().nodes[0].clone();
        let all = Capabilities {
            max_vcpus: None,
            memory_while_running: true,
            vcpus_while_running: true,
            disk_rate: true,
            own_kernel: true,
            own_user: true,
        };
        let few = Capabilities { max_vcpus: Some(1), disk_rate: false, ..all };
        assert_eq!(check(few, VmmKind::Uml, &node), [""; 0]);
        (node.vcpus, node.limits.disk_iops) = (2, Some(100));
        node.limits.disk_rate = "1MiB/s".parse().ok();
        assert_eq!(check(all, VmmKind::Uml, &node), [""; 0]);
        assert_eq!(
            check(few, VmmKind::Uml, &node),
            [
                "node node1 asks for 2 vcpus; uml gives at most 1",
                "node node1 asks for disk-rate; uml can hold no node to one",
                "node node1 asks for disk-iops; uml can hold no node to one",
            ]
        );
    }
}
