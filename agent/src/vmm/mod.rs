//! Drivers for the virtual machine monitors under the nodes: one trait, small values, no decisions.
//!
//! The lifecycle (`host/lifecycle.rs`) decides what is to run; a driver renders that into a [`Launch`]
//! (pure, shown and tested as text) and acts on it. Every verb may be called twice.

pub mod console;
pub mod initrd;
pub mod kvm;
mod pipes;
mod process;
pub mod store;
pub mod uml;
pub mod xen;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_model::site::{Node, VmmKind};
use gatehouse_model::{Fault, NodeName};

/// What a driver can do; `check` refuses what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The most virtual processors a node may have; none: no limit of the driver's own.
    pub max_vcpus: Option<u32>,
    /// Memory can change while the node runs.
    pub memory_while_running: bool,
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
}

/// What a node asks of a driver that it lacks; one sentence each.
pub fn check(capabilities: Capabilities, kind: VmmKind, node: &Node) -> Vec<String> {
    let mut lacks = Vec::new();
    if let Some(max) = capabilities.max_vcpus
        && node.vcpus > max
    {
        lacks.push(format!("node {} asks for {} vcpus; {kind} gives at most {max}", node.name, node.vcpus));
    }
    lacks
}
