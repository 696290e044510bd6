//! `gatectl`: the control socket's commands for people, and as JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use gatehouse_model::{Doing as _, Fault, NodeName};
use serde_json::json;

use super::backup::{self, BackupOptions, NodeBackupControl, NodeRestoreControl, RestoreOptions};
use super::board::Status;
use super::console::{self, ConsoleOptions, LogOptions};
use super::diagnose::{self, DiagnoseOptions};
use super::evaluate::{self, EvaluateControl};
use super::render::{render_event, render_nodes, render_status};
use super::report::{self, ReportControl};
use super::request::{Answer, Request};
use super::resources::{self, ResizeControl, SetControl};
use super::site::{self, SiteControl};
use super::socket::Asker;
use super::top;
use crate::host::command::read_site;
use crate::paths::Paths;
use crate::server::view::ViewKey;

/// How often `status --watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// Asks the agent how it stands and what to do.
#[derive(Args, Clone, Debug)]
pub struct ControlOptions {
    /// Ask the agent of the trial in this directory instead of the machine's own
    #[arg(long, global = true, value_name = "DIR")]
    pub trial: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: ControlCommand,
}

/// The commands of `gatectl`.
#[derive(Clone, Debug, Subcommand)]
pub enum ControlCommand {
    /// How host and nodes stand
    Status {
        /// Show it again whenever it changes
        #[arg(long)]
        watch: bool,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
        /// Print the address of the live page with all details; whoever has it may look
        #[arg(long, conflicts_with_all = ["watch", "json"])]
        url: bool,
    },
    /// What would be done now; changes nothing
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What host and nodes use, each second: processors, memory, disks, network
    Top {
        /// Show it once
        #[arg(long)]
        once: bool,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Nodes: list, start, stop, restart, set, resize, console, log, install, backup, restore, approve, purge
    #[command(subcommand)]
    Node(NodeControl),
    /// The site: what a change would do, taking it up, its history
    #[command(subcommand)]
    Site(SiteControl),
    /// What became of this machine's install: the reports, and whether they were sent
    #[command(args_conflicts_with_subcommands = true)]
    Report {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// What to do; without it they are listed
        #[command(subcommand)]
        command: Option<ReportControl>,
    },
    /// Back up the host, or all of the site; say what a backup is, and whether it is whole
    Backup(BackupOptions),
    /// Make this machine the host of a backup, or bring a whole site back
    Restore(RestoreOptions),
    /// Measure how long the site's commands take (evaluate.tests in a node's profile)
    Evaluate(EvaluateControl),
    /// Put what is needed to find out what is wrong into one file, without secrets
    ///
    /// It needs no agent that answers: what cannot be had is left out and named. Says what is inside.
    Diagnose(DiagnoseOptions),
    /// The newest events
    Log {
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
        /// As JSON, one event a line
        #[arg(long)]
        json: bool,
    },
}

/// The commands of `gatectl node`.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeControl {
    /// The site's nodes
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Start a node from its own disk
    Start {
        /// The node's name
        node: NodeName,
    },
    /// Stop a node; it stays stopped
    Stop {
        /// The node's name
        node: NodeName,
    },
    /// Stop a node and start it again
    Restart {
        /// The node's name
        node: NodeName,
    },
    /// Change what a node may take of the host: in site.toml, and at once as far as that goes while it runs
    Set(SetControl),
    /// Give a node a larger disk: it is started again, and its last file system gets the room
    Resize(ResizeControl),
    /// Use a node's console from this terminal, with what was on it before; Ctrl-] leaves it
    ///
    /// Several may look at the same time, and one types: whoever does so first, until they leave or another takes
    /// the keyboard with --take. A node that is stopped and started again stays in view.
    Console(ConsoleOptions),
    /// What a node has written to its console, oldest first
    Log(LogOptions),
    /// Install a node anew: everything on its disk is lost
    Install {
        /// The node's name
        node: NodeName,
    },
    /// Back up a node, which goes on running: its disk as it is at one instant, with what it is configured by
    Backup(NodeBackupControl),
    /// Bring a node's disk back from a backup, and start it from that
    Restore(NodeRestoreControl),
    /// Let a machine be installed that asks to be a node: its disk is then written
    Approve {
        /// The node's name
        node: NodeName,
        /// What the machine's console shows, or the beginning of it; needed where several machines ask
        fingerprint: Option<String>,
    },
    /// Throw away the disks of a node that was removed from the site
    Purge {
        /// The node's name
        node: NodeName,
    },
}

/// Does what the command says.
///
/// # Errors
/// No agent answers, or it refuses.
pub fn run(options: ControlOptions) -> Result<(), Fault> {
    // The agent is told paths below it, and works elsewhere.
    let trial =
        options.trial.map(std::path::absolute).transpose().doing(|| "finding the trial's directory")?;
    let paths = trial.as_ref().map_or_else(Paths::host, |dir| Paths::trial(dir, dir));
    match options.command {
        ControlCommand::Status { url: true, .. } => show_address(&paths),
        ControlCommand::Status { watch, json, .. } => show_status(&paths, watch, json),
        ControlCommand::Plan { json } => show_plan(&paths, json),
        ControlCommand::Top { once, json } => top::run(&paths, once, json),
        ControlCommand::Node(command) => run_node(&paths, command),
        ControlCommand::Site(command) => site::run(&paths, command),
        ControlCommand::Report { json, command } => report::run(&paths, command.as_ref(), json),
        ControlCommand::Evaluate(options) => evaluate::run(&paths, &options),
        ControlCommand::Backup(options) => backup::run(&paths, &options),
        ControlCommand::Restore(options) => backup::restore(&paths, &options),
        ControlCommand::Diagnose(options) => diagnose::run(&paths, &options),
        ControlCommand::Log { follow, json } => show_events(&paths, follow, json),
    }
}

fn run_node(paths: &Paths, command: NodeControl) -> Result<(), Fault> {
    let order = |request| Asker::connect(paths)?.ask(&request).map(drop);
    match command {
        NodeControl::List { json } => {
            let status = ask_status(&mut Asker::connect(paths)?)?;
            print(&if json { json!(status.nodes).to_string() + "\n" } else { render_nodes(&status.nodes) })
        }
        NodeControl::Start { node } => order(Request::Start { node }),
        NodeControl::Stop { node } => order(Request::Stop { node }),
        NodeControl::Restart { node } => order(Request::Restart { node }),
        NodeControl::Install { node } => order(Request::Install { node }),
        NodeControl::Purge { node } => order(Request::Purge { node }),
        NodeControl::Backup(options) => backup::back_up_node(paths, &options),
        NodeControl::Restore(options) => backup::restore_node(paths, &options),
        NodeControl::Approve { node, fingerprint } => approve(paths, node, fingerprint.unwrap_or_default()),
        NodeControl::Set(options) => resources::set(paths, options),
        NodeControl::Resize(options) => resources::resize(paths, options),
        NodeControl::Console(options) => console::attach(paths, &options),
        NodeControl::Log(options) => console::show_log(paths, &options),
    }
}

fn approve(paths: &Paths, node: NodeName, fingerprint: String) -> Result<(), Fault> {
    match Asker::connect(paths)?.ask(&Request::Approve { node, fingerprint })? {
        Answer::Text(text) => print(&text),
        _ => Err(other_answer()),
    }
}

fn ask_status(asker: &mut Asker) -> Result<Status, Fault> {
    match asker.ask(&Request::Status)? {
        Answer::Status(status) => Ok(status),
        _ => Err(other_answer()),
    }
}

pub(super) fn other_answer() -> Fault {
    Fault::new("the agent answers something else than was asked")
        .help("use the gatectl of the agent's own version: /usr/bin/gatectl on the host")
}

fn show_status(paths: &Paths, watch: bool, json: bool) -> Result<(), Fault> {
    let mut asker = Asker::connect(paths)?;
    let mut last = String::new();
    loop {
        let status = ask_status(&mut asker)?;
        let text = if json { json!(status).to_string() + "\n" } else { render_status(&status) };
        if text != last {
            // Home and clear to the end: no flicker, and no escape codes into a file.
            let clear = if watch && !json && io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
            print(&format!("{clear}{text}"))?;
            last = text;
        }
        if !watch {
            return Ok(());
        }
        thread::sleep(WATCH);
    }
}

fn show_address(paths: &Paths) -> Result<(), Fault> {
    let site = read_site(&paths.site())?;
    let key = ViewKey::read(paths)?;
    let key =
        key.ok_or_else(|| Fault::new("there is no key of the page yet").help("start the agent first"))?;
    print(&format!("https://{}/status?key={key}\n", site.network.host))
}

fn show_plan(paths: &Paths, json: bool) -> Result<(), Fault> {
    match Asker::connect(paths)?.ask(&Request::Plan)? {
        Answer::Plan(text) if json => {
            print(&format!("{}\n", json!({ "plan": text.lines().collect::<Vec<_>>() })))
        }
        Answer::Plan(text) => print(&text),
        _ => Err(other_answer()),
    }
}

fn show_events(paths: &Paths, follow: bool, json: bool) -> Result<(), Fault> {
    let mut asker = Asker::connect(paths)?;
    let mut answer = asker.ask(&Request::Events { follow })?;
    while let Answer::Event(event) = answer {
        print(&if json { event.to_line() + "\n" } else { render_event(&event) })?;
        answer = asker.more()?;
    }
    Ok(())
}

/// Prints to stdout; whoever closes it early (`head`) ends the program quietly.
pub(super) fn print(text: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.doing(|| "writing to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: ControlOptions,
    }

    #[test]
    fn the_commands_are_read() {
        use clap::CommandFactory as _;
        Program::command().debug_assert();
        let program =
            Program::try_parse_from(["gatectl", "node", "start", "ce", "--trial", "t"]).expect("read");
        assert_eq!(program.options.trial, Some("t".into()));
        assert!(Program::try_parse_from(["gatectl", "node", "start", "C E"]).is_err());
        for (line, good) in [
            ("set ce --weight 64 --cap none", true),
            ("set ce --cap much", false),
            ("resize ce --disk 30GiB", true),
            ("resize ce --disk 30", false),
            ("resize ce", false),
        ] {
            let words = ["gatectl", "node"].into_iter().chain(line.split(' '));
            assert_eq!(Program::try_parse_from(words).is_ok(), good, "{line}");
        }
    }
}
