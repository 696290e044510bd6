//! The installer that runs as PID 1 in a node's initramfs, and the client on the installed node.

use std::ffi::OsStr;
use std::path::Path;

use clap::Subcommand;
use gatehouse_model::Fault;

pub mod client;
mod configure;
mod disks;
mod download;
pub mod install;
mod layer;
mod machine;
mod method;
mod overlay;
mod packages;
mod progress;
mod render;
mod report;
mod target;
mod unpack;

/// What the agent does on a node.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum NodeCommand {
    /// Tell the install server that this node is up.
    Report,
    /// Unpack this node's kernels for PV-GRUB (called when a kernel is installed or removed)
    Kernels,
}

/// Runs one of the node's commands.
///
/// # Errors
/// Whatever the command ends with.
pub fn run(command: NodeCommand) -> Result<(), Fault> {
    match command {
        NodeCommand::Report => report::report(),
        NodeCommand::Kernels => gatehouse_deb::kernel::sync(Path::new("/")),
    }
}

/// Whether this process is the installer: the first process, or called `init`.
pub fn is_init() -> bool {
    let called = std::env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_name);
    std::process::id() == 1 || name == Some(OsStr::new("init"))
}

/// The installer; ends by powering the machine off.
pub fn init() -> ! {
    install::init()
}
