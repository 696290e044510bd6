//! Drivers for the virtual machine monitors under the nodes: one trait, small values, no decisions.
//!
//! The lifecycle (`host/lifecycle.rs`) decides what is to run; a driver renders that into a [`Launch`]
//! (pure, shown and tested as text) and acts on it. Every verb may be called twice.

pub mod confine;
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
///
/// # Who calls what, and when
/// Each node has one thread in the lifecycle (`host/lifecycle/`), which alone calls `start` and `adopt` for it. `stop`
/// may come at any moment from another thread: from a person's command, a changed site, or the end of the host. `power`
/// is asked every second or two by each thread, and by `gatectl plan`; it must be cheap. Calls for different nodes come
/// at the same time and must not wait for each other longer than the vmm itself makes them.
///
/// A node's life is `render`, `start`, `power` until it is off, and so on anew; after the agent itself was started anew,
/// `power` first, and then `adopt` for a node that runs from its own disk, or `stop` without grace for an installer.
///
/// # What a driver keeps to
/// - Every verb may be called twice, and again after it failed: it looks at what is there.
/// - A node's VM outlives the agent, whatever ends that: nothing is inherited that ends with it.
/// - A VM ends when its node powers off, starts anew, or its kernel panics: the lifecycle starts nodes, never the vmm.
/// - What ends one VM touches no other.
/// - No process of a node can read another node's stores, initramfs, console or memory.
/// - Nothing is decided: no retries, no limits in time but for the vmm's own programs.
///
/// `tests/tests/contract.rs` checks this list on a running site, for whichever vmm it is pointed at.
pub trait Vmm: Send + Sync {
    /// Which one.
    fn kind(&self) -> VmmKind;

    /// What it can do; the same for as long as the agent runs. Asked before a site is taken up, so that what is lacking
    /// is refused ([`check`]) and never found out at a start.
    fn capabilities(&self) -> Capabilities;

    /// What will be started, as text. Pure: nothing is looked at, and the same arguments give the same text.
    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch;

    /// Starts a node's VM; its console is kept from the first byte. Returns when the VM is there, not when the node is
    /// up. A node that runs already is left alone.
    ///
    /// # Errors
    /// The vmm's own words. The VM may then be there or not: `power` tells.
    fn start(&self, launch: &Launch) -> Result<(), Fault>;

    /// Keeps the console of a running node that an earlier agent has started, from where that one left off as far as the
    /// vmm has kept it; one that is kept already is left alone. A node that has ended meanwhile is no fault. What of its
    /// start that agent did not come to is done.
    ///
    /// # Errors
    /// The console cannot be had, or the start not be ended. A node that runs goes on.
    fn adopt(&self, node: &NodeName) -> Result<(), Fault>;

    /// Whether a node's VM is there, whichever agent has started it. That one has ended is known within seconds.
    ///
    /// # Errors
    /// The vmm cannot be asked. Nothing follows from that: it is told once and asked again, and a node that runs goes on.
    fn power(&self, node: &NodeName) -> Result<Power, Fault>;

    /// Asks a node to shut down, waits so long, then ends it; without grace it is ended at once. Returns when it is off
    /// and nothing is left of it that a new start would meet. A node that is off is no fault.
    ///
    /// # Errors
    /// It cannot even be ended.
    fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Fault>;

    /// Makes a running node have what its [`Node`] says of memory, processors and limits, as far as that can change while
    /// it runs; what only a start can change is left for the next one. Answers a sentence for each limit that this host
    /// cannot hold it to, which keeps none of the others from being held. Called after every start, when a node that runs is adopted, and when the site changes; may be
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
