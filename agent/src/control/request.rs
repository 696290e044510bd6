//! What is said over the control socket: requests and answers, each one line of JSON.

use std::path::PathBuf;

use gatehouse_model::evaluation::{Counts, Evaluation};
use gatehouse_model::site::Settings;
use gatehouse_model::{Event, Exit, Fault, NodeName, Problem};
use serde::{Deserialize, Serialize};

use super::board::Status;
use super::usage::SiteUsage;
use crate::host::backup::manifest::Manifest;
use crate::host::change::Change;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// The whole board.
    Status,
    /// What would be done now.
    Plan,
    /// The remembered events; with `follow` also those to come, until the asker hangs up.
    Events {
        /// Go on with what comes.
        follow: bool,
    },
    /// Start a node.
    Start {
        /// Which.
        node: NodeName,
    },
    /// Stop a node.
    Stop {
        /// Which.
        node: NodeName,
    },
    /// Stop and start a node.
    Restart {
        /// Which.
        node: NodeName,
    },
    /// Install a node anew.
    Install {
        /// Which.
        node: NodeName,
    },
    /// Let a machine in that asks to be a node.
    Approve {
        /// Which.
        node: NodeName,
        /// What its console shows, or the beginning of that; empty for the only one that asks.
        fingerprint: String,
    },
    /// Throw away the disks of a node that was removed.
    Purge {
        /// Which.
        node: NodeName,
    },
    /// Set keys of a node in site.toml.
    Set {
        /// Which.
        node: NodeName,
        /// The keys.
        settings: Settings,
        /// Who sets them, for the history.
        by: String,
        /// Start the node again if that is needed.
        restart: bool,
    },
    /// What host and nodes use.
    Usage,
    /// What a site directory would change; changes nothing.
    SiteDiff {
        /// The directory.
        dir: PathBuf,
        /// The commit that it comes after, if it is pushed.
        after: Option<String>,
    },
    /// Take up a site directory.
    SiteImport {
        /// The directory.
        dir: PathBuf,
        /// Who brings it, for the history.
        by: String,
        /// Its commit, if it was pushed.
        commit: Option<String>,
    },
    /// The site's history.
    SiteLog,
    /// Send the reports that wait.
    SendReports,
    /// Measure how long the site's commands take.
    Evaluate {
        /// The node that runs them; none for the one whose profile names tests.
        node: Option<NodeName>,
        /// How often.
        counts: Counts,
    },
    /// Take a snapshot of a node's stores; it is there until the asker hangs up.
    Snapshot {
        /// Which node.
        node: NodeName,
        /// Also if it is written to meanwhile.
        torn: bool,
    },
    /// Make a place for a node's disks; they are thrown away if the asker hangs up before `put`.
    Receive {
        /// Which node.
        node: NodeName,
        /// What its backup says of itself.
        manifest: Box<Manifest>,
        /// Also where it has disks.
        replace: bool,
    },
    /// Behind `receive`: the disks are there, whole and synced.
    Put,
}

/// What is answered: one line, but for events, which are a line each and then `done`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `status`.
    Status(Status),
    /// To `plan`.
    Plan(String),
    /// To `set`, `site-diff` and `site-import`.
    Change(Change),
    /// To `usage`.
    Usage(SiteUsage),
    /// To `approve`, `site-log` and `send-reports`.
    Text(String),
    /// To `events`, and on the way to an evaluation.
    Event(Event),
    /// To `evaluate`.
    Evaluation(Evaluation),
    /// To `snapshot`.
    Snapshot {
        /// Where the stores are, as files of their names.
        dir: PathBuf,
        /// What a backup of them begins with.
        manifest: Box<Manifest>,
    },
    /// To `receive`: where the stores go, as files of their names.
    Place(PathBuf),
    /// It is done, or on its way.
    Done,
    /// It is not, or it will not be done as things are, or the request itself is wrong.
    Fault {
        /// The message.
        what: String,
        /// What to do, if there is something.
        help: Option<String>,
        /// What the asking program ends with.
        exit: Exit,
    },
    /// What is wrong with the files that were brought.
    Problems(Vec<Problem>),
}

impl Answer {
    /// The fault that a refused request ends the asking program with.
    ///
    /// # Errors
    /// The answer is one.
    pub fn into_result(self) -> Result<Self, Fault> {
        match self {
            Self::Fault { what, help, exit } => {
                let fault = Fault::new(what).exit(exit);
                Err(match help {
                    Some(help) => fault.help(help),
                    None => fault,
                })
            }
            Self::Problems(all) => Err(Fault::of_problems(all)),
            good => Ok(good),
        }
    }
}
