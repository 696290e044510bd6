//! Takes up a changed site while the machine runs: looked at as a whole, then made the truth, then carried out.
//!
//! ```text
//! files ─► check ─► state/site, at once ─► Current ─► /etc, nodes' lives, profiles ─► a commit in site.git
//! ```
//! Power may fail at any arrow. What state/site holds counts at the next start; a push whose import was cut off is
//! found there by its commit, which is not the one that was taken up last.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gatehouse_model::site::{Settings, edit_node};
use gatehouse_model::{Doing as _, Exit, Fault, NodeName, Problem, Site, State};
use nix::sys::statvfs::statvfs;

use super::change::Change;
use super::facts::round;
use super::git::Repository;
use super::import::{self, SiteFiles};
use super::lifecycle::Lifecycle;
use super::plan::{plan, stores};
use super::proposal::{Against, Proposal, check};
use super::{command, etc, survey};
use crate::control::Changes;
use crate::control::board::Board;
use crate::current::Current;
use crate::paths::Paths;
use crate::server::closure::Closures;
use crate::vmm::console;

/// What a keeper works with.
#[derive(Debug)]
pub struct KeeperMeans {
    /// The site.
    pub current: Arc<Current>,
    /// Where things are.
    pub paths: Paths,
    /// Where it is told.
    pub board: Arc<Board>,
    /// Finds packages that site.lock does not have.
    pub closures: Arc<Closures>,
    /// The nodes' lives.
    pub lifecycle: Arc<Lifecycle>,
    /// The agent's own file, which git starts for every push.
    pub agent: PathBuf,
}

/// Keeps the site that counts.
#[derive(Debug)]
pub struct Keeper {
    current: Arc<Current>,
    paths: Paths,
    board: Arc<Board>,
    closures: Arc<Closures>,
    lifecycle: Arc<Lifecycle>,
    /// None where it cannot be kept, which the board has told.
    history: Option<Repository>,
    /// One change at a time.
    taking: Mutex<()>,
}

impl Keeper {
    /// Opens the history, and takes up a push that an earlier agent did not get to.
    pub fn open(means: KeeperMeans) -> Self {
        let KeeperMeans { current, paths, board, closures, lifecycle, agent } = means;
        let site = &current.get().site;
        let history = Repository::open(&paths, &format!("{}.{}", site.name, site.domain), &agent);
        let say = |fault: &Fault| {
            board.say("site", "opening the site's history", State::Failed, fault.to_string());
        };
        let history = history.inspect_err(say).ok();
        let keeper = Self { current, paths, board, closures, lifecycle, history, taking: Mutex::default() };
        if let Err(fault) = keeper.catch_up() {
            keeper.board.say("site", "opening the site's history", State::Failed, fault.to_string());
        }
        keeper
    }

    fn catch_up(&self) -> Result<(), Fault> {
        let Some(history) = &self.history else { return Ok(()) };
        let (newest, taken_up) = (history.newest(), history.taken_up());
        if let Some(newest) = newest.filter(|newest| taken_up.is_some_and(|taken_up| taken_up != *newest)) {
            return self.take(history.files(&newest)?, &history.author(&newest)?, Some(&newest)).map(drop);
        }
        self.enter("the site as it is on this machine")
    }

    /// Enters what the site directory holds into the history, if that does not have it.
    fn enter(&self, message: &str) -> Result<(), Fault> {
        let Some(history) = &self.history else { return Ok(()) };
        let commit = history.commit(&self.paths.site(), message)?;
        history.set_taken_up(&commit)
    }

    /// Refuses a push that comes after another commit than the newest. What somebody has edited in the site directory is
    /// entered first, so that no push undoes it unseen.
    fn follows(&self, after: &str) -> Result<(), Fault> {
        self.enter("edited on the host")?;
        let newest = self.history.as_ref().and_then(Repository::newest);
        if newest.is_none_or(|newest| newest == after) {
            return Ok(());
        }
        let help = "`git pull --rebase … main` first, then push again";
        Err(Fault::new(format!("the site has changes here that this push would undo: {help}"))
            .exit(Exit::Problem))
    }

    /// The files that the site was made from: those of the last commit, for somebody may be working in the directory.
    fn files(&self) -> Result<SiteFiles, Fault> {
        let taken_up = self.history.as_ref().and_then(|history| Some((history, history.taken_up()?)));
        match taken_up {
            Some((history, commit)) => history.files(&commit),
            None => import::read(&self.paths.site()),
        }
    }

    fn check(&self, files: SiteFiles) -> Result<Proposal, Fault> {
        let now = self.current.get();
        let old = self.files()?;
        let against =
            Against { now: &now, files: &old, closures: &self.closures, lifecycle: &self.lifecycle };
        let proposal = check(files, against).map_err(Fault::of_problems)?;
        // A trial's machine is somebody's workstation, which no site needs to fit.
        if self.paths.trial.is_none() {
            fits(&proposal.site, &self.paths)?;
        }
        Ok(proposal)
    }

    /// What follows from a site that counts already: a fault here is told, and stops nothing of the rest.
    fn carry_out(&self, old: &Site, by: &str, change: &Change) {
        let told = |what: &str, result: Result<(), Fault>| {
            if let Err(fault) = result {
                self.board.say("site", what, State::Failed, fault.to_string());
            }
        };
        let now = self.current.get();
        if let Some(etc) = &self.paths.etc {
            told("renewing the host's files", etc::renew(old, &now.site, etc));
        }
        let concerned: Vec<String> = change.nodes.iter().map(|(node, _)| node.to_string()).collect();
        let what = if concerned.is_empty() { "no node".to_owned() } else { concerned.join(", ") };
        self.board.say("site", "taking up a change", State::Succeeded, format!("by {by}; concerns {what}"));
    }

    /// Checks the files of a site directory, makes them the site that counts, and carries that out. Nodes that must be
    /// started again for it are, where `restart` says so.
    fn make_true(
        &self,
        files: SiteFiles,
        by: &str,
        commit: Option<&str>,
        restart: bool,
    ) -> Result<Change, Fault> {
        let Proposal { files, site, lock, change } = self.check(files)?;
        let old = self.current.get();
        {
            let _moving = self.current.moving();
            import::write(&files, &self.paths.site()).doing(|| "making the new site the one that counts")?;
            self.current.replace(site, lock);
        }
        self.carry_out(&old.site, by, &change);
        self.lifecycle.take_up(&old.site, &self.current.get().site, restart);
        // Last: until then a start finds this push, and takes it up once more.
        self.note(by, commit).doing(|| "noting the change in the site's history")?;
        Ok(change)
    }

    fn note(&self, by: &str, commit: Option<&str>) -> Result<(), Fault> {
        match (&self.history, commit) {
            (Some(history), Some(commit)) => history.set_taken_up(commit),
            _ => self.enter(&format!("imported by {by}")),
        }
    }
}

/// Whether the machine carries a site: else the next start would refuse it, and nobody would be there to see.
///
/// # Errors
/// It does not; all reasons.
pub fn fits(site: &Site, paths: &Paths) -> Result<(), Fault> {
    let args = command::kernel_args()?;
    let mut problems: Vec<Problem> = plan(site, &survey::of_this_machine(&args), &args)
        .err()
        .map(|refusal| Problem::at("site.toml", 0, format!("{refusal}; {}", refusal.help)))
        .into_iter()
        .collect();
    let room = statvfs(&paths.vms).doing(|| format!("asking how large {} is", paths.vms.display()))?;
    let (has, needs) = (room.blocks() * room.fragment_size(), stores(site));
    if needs > has {
        let (has, needs) = (round(has), round(needs));
        let what = format!("the nodes' disks may come to need {needs}; {} has {has}", paths.vms.display());
        problems.push(Problem::at("site.toml", 0, format!("{what}; give the nodes smaller disks")));
    }
    if problems.is_empty() { Ok(()) } else { Err(Fault::of_problems(problems)) }
}

impl Changes for Keeper {
    fn look(&self, files: SiteFiles, after: Option<&str>) -> Result<Change, Fault> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        after.map_or(Ok(()), |after| self.follows(after))?;
        self.check(files).map(|proposal| proposal.change)
    }

    fn take(&self, files: SiteFiles, by: &str, commit: Option<&str>) -> Result<Change, Fault> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_true(files, by, commit, true)
    }

    fn set(&self, node: &NodeName, settings: &Settings, by: &str, restart: bool) -> Result<Change, Fault> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = import::read(&self.paths.site())?;
        if import::differences(&files, &self.files()?).iter().any(|name| name == "site.toml") {
            let what =
                format!("{}/site.toml was edited and is not taken up yet", self.paths.site().display());
            let help = "`gatectl site diff` says what it changes; import it or undo it first";
            return Err(Fault::new(format!("{what}: {help}")).exit(Exit::Problem));
        }
        let text = files.get("site.toml").map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
        let text = edit_node(&text, node, settings).map_err(|problem| Fault::of_problems(vec![problem]))?;
        files.insert("site.toml".to_owned(), text.into_bytes());
        let keys = settings.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let waited = self.lifecycle.waiting(node);
        let mut change = self.make_true(files, &format!("{by}, who set {keys} of {node}"), None, restart)?;
        let waiting = self.lifecycle.waiting(node);
        if !restart {
            change.postpone();
        } else if !waiting.is_empty() && waiting == waited {
            // What was set before, and was to wait for a start.
            change.restart_too(node, waiting);
            self.lifecycle.start_again(node);
        }
        Ok(change)
    }

    fn log(&self) -> Result<String, Fault> {
        let none = || Fault::new("this machine keeps no history of its site; `gatectl log` says why");
        self.history.as_ref().ok_or_else(none)?.log()
    }

    fn purge(&self, node: &NodeName) -> Result<(), Fault> {
        let wrong = |what: String| Err(Fault::new(what).exit(Exit::Problem));
        let dir = self.paths.vms.join(node.as_str());
        if self.current.get().site.node(node.as_str()).is_some() {
            return wrong(format!("the site has the node {node}; take it out of site.toml first"));
        }
        if !dir.is_dir() {
            return wrong(format!("there is nothing of a node {node} on this machine"));
        }
        if self.lifecycle.lives(node) {
            return wrong(format!("the node {node} is still being stopped; try again when it is off"));
        }
        fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
        let logs = [self.paths.console_log(node), self.paths.install_log(node)];
        let aside = logs.each_ref().map(|log| console::aside(log));
        for file in [self.paths.profile(node)].into_iter().chain(logs).chain(aside) {
            if file.exists() {
                fs::remove_file(&file).doing(|| format!("removing {}", file.display()))?;
            }
        }
        self.board.say("site", "purging a node", State::Succeeded, format!("removed {}", dir.display()));
        Ok(())
    }
}
