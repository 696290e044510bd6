//! Keeps a running node true to its profile.
//!
//! ```text
//!   told or due ─► fetch ─► readable? ─no─► keep the last good one, say so
//!                    │ 304      │ yes
//!                    └──────────┴─► packages ─► components that differ, in order ─► acknowledge ─► wait
//! ```
//! What differs is seen from the journal, not from the old profile: so what a power cut, a failure or a server that
//! was away left undone is done at the next look.

mod apply;
pub mod commands;
pub mod contexts;
mod credentials;
mod daemon;
mod errands;
mod health;
pub mod journal;
pub mod plan;
mod poll;
mod status;
#[cfg(test)]
mod tests;

use std::fs::{self, File};

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};
use nix::fcntl::{Flock, FlockArg};

use self::journal::{Journal, PROFILE};
use super::client::{Client, Credentials, Home};
use super::configure::{CERTIFICATE, HOME, KEY};
use super::target::Target;
use crate::wire::{Ack, Failure, Milestone, Sign};

pub use daemon::run;

/// One at a time applies a profile: the daemon, or a command.
const LOCK: &str = "/run/gatehouse/client.lock";

/// A node and the server that it listens to.
#[derive(Debug)]
struct Node {
    home: Home,
    client: Client,
    target: Target,
}

/// Whether there was something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// The profile is the one that is kept, or the one that was refused before.
    None,
    /// There is a new one, and it is kept.
    Profile,
    /// There is a new one, and it cannot be read: the last good one counts on.
    Refused,
}

impl Node {
    /// What the installer left on this node.
    fn open(target: Target) -> Result<Self, Fault> {
        let read = |path: &str| fs::read_to_string(target.at(path)).doing(|| format!("reading {path}"));
        let text = read(HOME)
            .map_err(|fault| fault.help("this is a command for a node that was installed by Gatehouse"))?;
        let home: Home = serde_json::from_str(&text).doing(|| format!("reading {HOME}"))?;
        let own = Credentials { certificate: read(CERTIFICATE)?, key: read(KEY)? };
        let client = Client::new(&home, Some(&own))?;
        Ok(Self { home, client, target })
    }

    /// Waits until nobody else applies a profile here.
    fn keeper(&self) -> Result<Keeper<'_>, Fault> {
        let path = self.target.at(LOCK);
        let open = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            File::create(&path)
        };
        let file = open().doing(|| format!("opening {LOCK}"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
        let lock = lock.doing(|| format!("locking {LOCK}"))?;
        Ok(Keeper { node: self, journal: Journal::open(&self.target), _lock: lock })
    }

    /// The profile that is kept, as it holds in the contexts that are active.
    fn profile(&self) -> Result<Profile, Fault> {
        let text = fs::read_to_string(self.target.at(PROFILE)).doing(|| format!("reading {PROFILE}"))?;
        self.read_profile(&text).doing(|| format!("reading {PROFILE}"))
    }

    /// Reads a profile; one of another node is as wrong as one that is none.
    fn read_profile(&self, xml: &str) -> Result<Profile, Fault> {
        let profile = Profile::from_xml(xml).map_err(Fault::of_problems)?;
        let contexts = contexts::read(&self.target)?;
        let profile = profile.in_contexts(&contexts).map_err(Fault::of_problems)?;
        let name = profile.get("profile", "node").unwrap_or_default();
        if name == self.home.node.as_str() {
            return Ok(profile);
        }
        Err(Fault::new(format!("this is the profile of {name:?}, and this node is {}", self.home.node)))
    }
}

/// A node while its profile is applied; nobody else does meanwhile.
#[derive(Debug)]
struct Keeper<'a> {
    node: &'a Node,
    journal: Journal,
    _lock: Flock<File>,
}

impl Keeper<'_> {
    /// Asks the server for a newer profile and keeps it if it can be read.
    fn fetch(&mut self) -> Result<News, Fault> {
        let state = self.journal.state();
        let refused = state.refused.as_ref().map(|(etag, _)| etag.as_str());
        let known = if self.node.target.has(PROFILE) { refused.unwrap_or(&state.etag) } else { "" };
        let Some(fetched) = self.node.client.newer_profile(known)? else { return Ok(News::None) };
        match self.node.read_profile(&fetched.xml) {
            Ok(_) => {
                self.journal.keep_profile(&fetched.etag, &fetched.xml)?;
                Ok(News::Profile)
            }
            Err(fault) => {
                let failure = failure("profile", "read", &fault);
                self.journal.change(|state| state.refused = Some((fetched.etag, failure)))?;
                Ok(News::Refused)
            }
        }
    }

    /// What is told the server of how the profile was applied.
    fn ack(&self, done: &apply::Done) -> Ack {
        let state = self.journal.state();
        Ack {
            changed: done.changed.clone(),
            failed: state.failures(),
            packages: done.packages,
            ..Ack::new(Milestone::Applied, &state.etag)
        }
    }

    /// The sign of life that goes beside it.
    fn sign(&self, profile: &Profile) -> Sign {
        let etag = self.journal.state().etag.clone();
        Sign { node: self.node.home.node.clone(), published: profile.published.at, etag }
    }
}

fn failure(component: &str, method: &str, fault: &Fault) -> Failure {
    Failure { component: component.to_owned(), method: method.to_owned(), output: fault.to_string() }
}
