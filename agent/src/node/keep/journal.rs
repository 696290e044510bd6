//! What has been applied on this node, component by component: written after each, so that after a power cut the
//! next start goes on where this one ended.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_model::{Digest, Doing as _, Fault};
use serde::{Deserialize, Serialize};

use crate::control::board::now_millis;
use crate::node::target::Target;
use crate::wire::{Failure, PackageCounts};

/// Where the client keeps its things: for root alone, because profiles hold password hashes.
pub const DIRECTORY: &str = "/var/lib/gatehouse/client";
/// The newest profile that could be read.
pub const PROFILE: &str = "/var/lib/gatehouse/client/profile.xml";
const STATE: &str = "/var/lib/gatehouse/client/state.json";

/// One component on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Digest of the resources that it was last configured by with success.
    pub applied: Option<Digest>,
    /// When it was last run, in seconds since 1970.
    pub at: u64,
    /// What it said when it was last run, if it failed.
    pub failed: Option<Failure>,
    /// Files that it made where there was nothing before: what leaves its lists is removed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub files: BTreeSet<String>,
    /// Units that it enabled.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub units: BTreeSet<String>,
}

/// The packages on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackagesRecord {
    /// When they were last changed, in seconds since 1970.
    pub at: u64,
    /// What was changed then.
    pub counts: PackageCounts,
    /// What apt said when it was last run, if it failed.
    pub failed: Option<Failure>,
    /// The boot in which those that are changed only at boot had their turn.
    pub boot: String,
}

/// Everything that the client remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// ETag of the profile that is kept, without quotation marks.
    pub etag: String,
    /// When that profile was fetched, in seconds since 1970.
    pub fetched: u64,
    /// The newest profile, if it could not be read: its ETag and why. The one that is kept counts on.
    pub refused: Option<(String, Failure)>,
    /// The components by name.
    pub components: BTreeMap<String, Record>,
    /// The packages.
    pub packages: PackagesRecord,
}

impl State {
    /// Everything that was last run without success.
    pub fn failures(&self) -> Vec<Failure> {
        let refused = self.refused.iter().map(|(_, failure)| failure);
        let components = self.components.values().filter_map(|record| record.failed.as_ref());
        refused.chain(&self.packages.failed).chain(components).cloned().collect()
    }
}

/// The state with the file it is kept in.
#[derive(Debug)]
pub struct Journal {
    target: Target,
    state: State,
}

impl Journal {
    /// What is remembered on a node. A file that cannot be read is one of another version: everything is looked at
    /// again then, which changes nothing that is right.
    pub fn open(target: &Target) -> Self {
        let state = serde_json::from_str(&target.read(STATE)).unwrap_or_default();
        Self { target: target.clone(), state }
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// One component's part of it.
    pub fn record(&self, component: &str) -> Record {
        self.state.components.get(component).cloned().unwrap_or_default()
    }

    /// Changes what is remembered; it is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<(), Fault> {
        change(&mut self.state);
        self.target.directory(DIRECTORY, 0o700)?;
        let text = serde_json::to_string_pretty(&self.state).doing(|| "writing the client's journal")?;
        self.target.write(STATE, 0o600, text.as_bytes()).map(drop)
    }

    /// Changes one component's part.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&mut self, component: &str, change: impl FnOnce(&mut Record)) -> Result<(), Fault> {
        self.change(|state| change(state.components.entry(component.to_owned()).or_default()))
    }

    /// A component is about to be run: until it has succeeded it counts as not applied, whatever the profile says by
    /// then, for nobody knows how far it came.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(&mut self, component: &str) -> Result<(), Fault> {
        if self.record(component).applied.is_none() {
            return Ok(());
        }
        self.note(component, |record| record.applied = None)
    }

    /// Forgets what became of components that the profile no longer has. What they made stays, and stays theirs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget_others(&mut self, components: &[&str]) -> Result<(), Fault> {
        let other = |name: &str| !components.contains(&name);
        let known = |record: &Record| record.applied.is_some() || record.failed.is_some();
        if !self.state.components.iter().any(|(name, record)| other(name) && known(record)) {
            return Ok(());
        }
        self.change(|state| {
            for (_, record) in state.components.iter_mut().filter(|(name, _)| other(name)) {
                (record.applied, record.failed) = (None, None);
            }
        })
    }

    /// A component was configured by resources of this digest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn applied(&mut self, component: &str, digest: Digest) -> Result<(), Fault> {
        self.note(component, |record| {
            record.applied = Some(digest);
            record.at = seconds();
            record.failed = None;
        })
    }

    /// A component could not be configured.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn failed(&mut self, component: &str, failure: Failure) -> Result<(), Fault> {
        self.note(component, |record| {
            record.at = seconds();
            record.failed = Some(failure);
        })
    }

    /// A profile that could be read is kept from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_profile(&mut self, etag: &str, xml: &str) -> Result<(), Fault> {
        self.target.directory(DIRECTORY, 0o700)?;
        self.target.write(PROFILE, 0o600, xml.as_bytes())?;
        // Behind the file: after a power cut in between it is fetched again.
        self.change(|state| {
            etag.clone_into(&mut state.etag);
            state.fetched = seconds();
            state.refused = None;
        })
    }
}

/// Seconds since 1970 by the node's clock.
pub fn seconds() -> u64 {
    now_millis() / 1000
}
