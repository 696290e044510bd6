//! The installer that runs as PID 1 in a node's initramfs, and the client on the installed node.

use std::ffi::OsStr;
use std::path::Path;

use clap::Subcommand;
use gatehouse_model::Fault;

mod apt;
pub mod client;
pub(crate) mod component;
mod configure;
mod disks;
pub mod download;
pub mod evaluate;
mod freeze;
mod grants;
pub mod install;
mod keep;
mod layer;
pub(crate) mod machine;
mod method;
mod overlay;
mod own_disk;
mod packages;
pub(crate) mod partitions;
mod progress;
mod render;
mod target;
mod unpack;

use self::keep::commands::KeepCommand;

/// What the agent does on a node.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// Those about the profile that the node has
    #[command(flatten)]
    Keep(KeepCommand),
    /// Hold this node's filesystems still until standard input ends (called for a backup)
    #[command(hide = true)]
    Freeze(freeze::FreezeOptions),
    /// Unpack this node's kernels for PV-GRUB (called when a kernel is installed or removed)
    Kernels,
}

/// Runs one of the node's commands.
///
/// # Errors
/// Whatever the command ends with.
pub fn run(command: &NodeCommand) -> Result<(), Fault> {
    match command {
        NodeCommand::Keep(command) => keep::commands::run(command),
        NodeCommand::Freeze(options) => freeze::run(*options),
        NodeCommand::Kernels => gatehouse_deb::kernel::sync(Path::new("/")),
    }
}

/// Whether this process is the installer: the first process, or called `init`.
pub fn is_init() -> bool {
    let called = std::env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_name);
    std::process::id() == 1 || name == Some(OsStr::new("init"))
}

/// The installer; ends by powering the VM off, or starting the machine anew.
pub fn init() -> ! {
    install::init()
}
