//! The command line: which program this binary is called as, and what it then does.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};
use gatehouse_model::Fault;

use crate::control::ctl::{self, ControlOptions};
use crate::host::{boot, bring, command, daemon, trial};
use crate::node;
use crate::vmm::confine::{self, ConfineOptions};

/// Runs on a Gatehouse host and on every node of its site.
#[derive(Debug, Parser)]
#[command(name = "gatehouse-agent", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Shows and changes what a Gatehouse host does.
#[derive(Debug, Parser)]
#[command(name = "gatectl", version, arg_required_else_help = true)]
struct Gatectl {
    #[command(flatten)]
    options: ControlOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the install server and keep every node going (started by systemd)
    Daemon,
    /// Start the host: first boot and every other (called in its initramfs)
    Boot(boot::BootOptions),
    /// Install onto the disk that the site's rule names, then reset (called in the initramfs of a medium)
    Bring,
    /// Show what the survey sees of this machine
    Survey(command::SurveyOptions),
    /// Show what first boot does on this machine; nothing is touched
    Plan(command::PlanOptions),
    /// Run a whole site on this machine in namespaces (started by `gatehouse try`)
    Trial(trial::TrialOptions),
    /// Become a program that sees its own files only (how nodes of User Mode Linux are started)
    Confine(ConfineOptions),
    /// The same as gatectl
    Ctl(ControlOptions),
    /// What the agent does on a node
    #[command(subcommand)]
    Node(node::NodeCommand),
}

/// Parses the command line and does what it says.
///
/// # Errors
/// Whatever the command ends with; `main` turns it into the exit status.
pub fn main() -> Result<(), Fault> {
    if called_as("gatectl") {
        return ctl::run(Gatectl::parse().options);
    }
    // The kernel starts the installer with arguments of its own.
    if called_as("init") {
        node::init();
    }
    dispatch(Cli::parse().command)
}

fn called_as(name: &str) -> bool {
    let called: Option<OsString> = std::env::args_os().next();
    called.as_deref().map(Path::new).and_then(Path::file_name).is_some_and(|file| file == name)
}

fn dispatch(command: Command) -> Result<(), Fault> {
    match command {
        Command::Daemon => daemon::run(),
        Command::Boot(options) => boot::run_boot(&options),
        Command::Bring => bring::run_bring(),
        Command::Survey(options) => command::run_survey(options),
        Command::Plan(options) => command::run_plan(&options),
        Command::Trial(options) => trial::run(&options),
        Command::Confine(options) => confine::run(&options),
        Command::Ctl(options) => ctl::run(options),
        Command::Node(command) => node::run(&command),
    }
}
