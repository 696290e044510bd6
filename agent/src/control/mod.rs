//! What people and programs see and say: the board of states and events, the socket, `gatectl`.

mod backup;
pub mod board;
mod console;
pub mod ctl;
mod diagnose;
mod evaluate;
pub mod keeping;
pub mod render;
mod report;
pub mod request;
mod resources;
mod site;
pub mod socket;
mod terminal;
mod top;
pub mod usage;

use gatehouse_model::evaluation::{Counts, Evaluation};
use gatehouse_model::site::Settings;
use gatehouse_model::{Event, Fault, NodeName};

use self::usage::SiteUsage;
use crate::host::backup::desk::{Reception, Taken};
use crate::host::backup::manifest::Manifest;
use crate::host::change::Change;
use crate::host::import::SiteFiles;

/// Who carries out what is asked over the control socket; the host's lifecycle is one.
///
/// Every call returns as soon as the thing is on its way: the board says how it goes on.
pub trait Steward: Send + Sync {
    /// Starts a node from its own disk.
    ///
    /// # Errors
    /// It is not installed, or its vmm will not start it.
    fn start_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Stops a node; it stays stopped until it is started by command or with the host.
    ///
    /// # Errors
    /// Its vmm cannot stop it.
    fn stop_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Stops a node and starts it again.
    ///
    /// # Errors
    /// As stopping and starting.
    fn restart_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Installs a node anew; what is on its disk is lost.
    ///
    /// # Errors
    /// It is being installed already.
    fn install_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Lets a machine in that asks to be a node: the only one, or the one with this fingerprint. Answers in a line for
    /// people.
    ///
    /// # Errors
    /// None asks, or several do, or the node is no machine of its own.
    fn approve_node(&self, node: &NodeName, fingerprint: &str) -> Result<String, Fault>;

    /// What would be done now, in lines for people; touches nothing.
    fn plan(&self) -> String;

    /// What host and nodes use now.
    fn usage(&self) -> SiteUsage;
}

/// Who sends the machine's reports; the host's outbox is one.
pub trait Reports: Send + Sync {
    /// Tries every report that waits or was refused, now. Answers what came of it, in a line for people.
    ///
    /// # Errors
    /// The site does not say where to, or the queue cannot be read.
    fn send(&self) -> Result<String, Fault>;
}

/// Who has the site evaluated when that is asked over the control socket; the host's evaluator is one.
pub trait Evaluations: Send + Sync {
    /// Has a node measure how long the site's commands take, and waits for it. `tell` is given what is heard of it,
    /// or nothing while nothing is; it says whether anybody still listens.
    ///
    /// # Errors
    /// No node's profile names tests, or several do and none was asked for; the node is not running, fails, or is
    /// not heard of; nobody listens any longer.
    fn evaluate(
        &self,
        node: Option<&NodeName>,
        counts: Counts,
        tell: &mut dyn FnMut(Option<&Event>) -> bool,
    ) -> Result<Evaluation, Fault>;
}

/// Who has nodes backed up and restored when that is asked over the control socket; the host's desk is one.
pub trait Backups: Send + Sync {
    /// Takes a snapshot of a node's stores, which is there as long as what is answered; with `torn` also one of a node
    /// that goes on writing meanwhile.
    ///
    /// # Errors
    /// It is not installed, or no machine's disks can be had of it; it would be torn; the disk is full.
    fn snapshot(&self, node: &NodeName, torn: bool) -> Result<Taken, Fault>;

    /// Makes a place for the disks of a node's backup; with `replace` also where the node has disks.
    ///
    /// # Errors
    /// It is no backup of the node, or does not fit this host; the node has disks.
    fn receive(&self, node: &NodeName, manifest: &Manifest, replace: bool) -> Result<Reception, Fault>;

    /// Puts disks in place that have come in whole and are synced, and starts the node from them.
    ///
    /// # Errors
    /// The disk is full, with nothing changed; or the node does not stop, and they are put in place when it does.
    fn put(&self, reception: Reception) -> Result<(), Fault>;
}

/// Who changes the site when that is asked over the control socket; the host's keeper is one.
pub trait Changes: Send + Sync {
    /// What taking up the files of a site directory would do; changes nothing. Given the commit that they come after,
    /// they are refused if another one counts meanwhile.
    ///
    /// # Errors
    /// All problems of the files, with what this machine cannot do.
    fn look(&self, files: SiteFiles, after: Option<&str>) -> Result<Change, Fault>;

    /// Takes up the files of a site directory, and says what that does; `commit` is theirs, if they were pushed.
    ///
    /// # Errors
    /// As [`Changes::look`], with nothing changed; or the disk is full.
    fn take(&self, files: SiteFiles, by: &str, commit: Option<&str>) -> Result<Change, Fault>;

    /// Sets keys of a node in site.toml and takes that up. What needs another start of the node waits for its next one,
    /// unless `restart` asks for it now.
    ///
    /// # Errors
    /// As [`Changes::take`], and what was edited on the host is not taken up yet.
    fn set(&self, node: &NodeName, settings: &Settings, by: &str, restart: bool) -> Result<Change, Fault>;

    /// The site's history, in lines for people.
    ///
    /// # Errors
    /// There is none.
    fn log(&self) -> Result<String, Fault>;

    /// Throws away the disks of a node that the site no longer has.
    ///
    /// # Errors
    /// The site has it, or it is not off yet, or there is nothing of it.
    fn purge(&self, node: &NodeName) -> Result<(), Fault>;
}
