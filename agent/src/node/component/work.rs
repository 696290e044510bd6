//! One component at work: its resources, and the root that it changes.

use std::collections::BTreeSet;
use std::fs;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};

use super::Means;
use crate::host::run::Outcome;
use crate::node::client::Home;
use crate::node::keep::journal::Journal;
use crate::node::target::Target;

/// One component at work.
#[derive(Debug)]
pub struct Work<'a> {
    pub(super) profile: &'a Profile,
    pub(super) home: &'a Home,
    pub(super) target: &'a Target,
    component: &'a str,
    journal: &'a mut Journal,
    changed: Vec<String>,
    files: BTreeSet<String>,
    units: BTreeSet<String>,
}

impl<'a> Work<'a> {
    pub(super) fn new(means: &'a Means<'a>, journal: &'a mut Journal, component: &'a str) -> Self {
        let Means { profile, home, target, .. } = means;
        let (changed, files, units) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { profile, home, target, component, journal, changed, files, units }
    }

    /// A resource of this component; empty where it has no value.
    pub(super) fn get(&self, resource: &str) -> &'a str {
        self.profile.get(self.component, resource).unwrap_or_default()
    }

    /// A resource of one tag.
    pub(super) fn of(&self, resource: &str, tag: &str) -> &'a str {
        self.get(&format!("{resource}_{tag}"))
    }

    /// The same, or something else where it has no value.
    pub(super) fn of_or(&self, resource: &str, tag: &str, otherwise: &str) -> String {
        match self.of(resource, tag) {
            "" => otherwise.to_owned(),
            given => given.to_owned(),
        }
    }

    /// The words of a resource, or the tags of a list.
    pub(super) fn words(&self, resource: &str) -> Vec<&'a str> {
        self.get(resource).split_whitespace().collect()
    }

    /// A fault that quotes a resource of one tag.
    pub(super) fn wrong(&self, resource: &str, tag: &str, help: &str) -> Fault {
        let value = self.of(resource, tag);
        Fault::new(format!("{}.{resource}_{tag} is {value:?}", self.component)).help(help.to_owned())
    }

    /// Whether services run in this root.
    pub(super) fn is_running(&self) -> bool {
        self.target.is_running()
    }

    /// Takes note of what was done to a path.
    pub(super) fn note(&mut self, path: &str, outcome: Outcome) {
        if outcome == Outcome::Changed {
            self.changed.push(path.to_owned());
        }
    }

    /// Writes a file that every node has.
    pub(super) fn write(&mut self, path: &str, mode: u32, text: &str) -> Result<(), Fault> {
        let outcome = self.target.write(path, mode, text.as_bytes())?;
        self.note(path, outcome);
        Ok(())
    }

    /// Writes a file that is there only as long as the profile wants it.
    pub(super) fn write_own(&mut self, path: &str, mode: u32, text: &str) -> Result<(), Fault> {
        self.own(path)?;
        self.write(path, mode, text)
    }

    /// Writes a file, or has none where it would say nothing.
    pub(super) fn write_some(&mut self, path: &str, mode: u32, text: &str) -> Result<(), Fault> {
        if text.is_empty() { Ok(()) } else { self.write_own(path, mode, text) }
    }

    /// Changes a text file of the system's own.
    pub(super) fn edit(&mut self, path: &str, change: impl FnOnce(&str) -> String) -> Result<(), Fault> {
        let outcome = self.target.edit(path, change)?;
        self.note(path, outcome);
        Ok(())
    }

    /// Has a unit started at boot whose package does not say so itself.
    pub(super) fn enable(&mut self, unit: &str, wanted_by: &str) -> Result<(), Fault> {
        let outcome = self.target.enable(unit, wanted_by)?;
        self.note(unit, outcome);
        Ok(())
    }

    /// Claims a path that this component is about to make, if there is nothing yet. It is written down before, so
    /// that a power cut behind it leaves no file that nobody removes.
    pub(super) fn own(&mut self, path: &str) -> Result<(), Fault> {
        if !self.journal.record(self.component).files.contains(path) {
            if fs::symlink_metadata(self.target.at(path)).is_ok() {
                return Ok(());
            }
            self.journal.note(self.component, |record| {
                record.files.insert(path.to_owned());
            })?;
        }
        self.files.insert(path.to_owned());
        Ok(())
    }

    /// Claims a unit that this component is about to enable.
    pub(super) fn own_unit(&mut self, unit: &str) -> Result<(), Fault> {
        self.journal.note(self.component, |record| {
            record.units.insert(unit.to_owned());
        })?;
        self.units.insert(unit.to_owned());
        Ok(())
    }

    /// Whether this component enabled the unit, now or earlier.
    pub(super) fn owns_unit(&self, unit: &str) -> bool {
        self.journal.record(self.component).units.contains(unit)
    }

    /// Keeps a unit that this component enabled earlier.
    pub(super) fn keep_unit(&mut self, unit: &str) {
        self.units.insert(unit.to_owned());
    }

    /// Removes what this component made earlier and the profile no longer wants. Whether anything has changed since
    /// the beginning.
    pub(super) fn settle(&mut self) -> Result<bool, Fault> {
        let before = self.journal.record(self.component);
        // What lies in a directory goes before it.
        let stale: Vec<String> = before.files.difference(&self.files).cloned().collect();
        for path in stale.iter().rev() {
            self.remove(path)?;
        }
        for unit in before.units.difference(&self.units) {
            self.target.run("systemctl", &["--quiet", "disable", unit])?;
            if self.is_running() {
                self.systemctl(&["stop", unit])?;
            }
            self.changed.push(unit.clone());
        }
        let (files, units) = (self.files.clone(), self.units.clone());
        if (&before.files, &before.units) != (&files, &units) {
            self.journal.note(self.component, |record| (record.files, record.units) = (files, units))?;
        }
        Ok(!self.changed.is_empty())
    }

    fn remove(&mut self, path: &str) -> Result<(), Fault> {
        let place = self.target.at(path);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            // What others have put into it keeps it.
            if fs::remove_dir(&place).is_ok() {
                self.changed.push(path.to_owned());
            }
            return Ok(());
        }
        let outcome = self.target.remove(path)?;
        self.note(path, outcome);
        Ok(())
    }

    /// Whether one of the changed paths is this or lies below it.
    pub(super) fn has_changed(&self, path: &str) -> bool {
        self.changed.iter().any(|changed| changed.starts_with(path))
    }

    /// Has a service read its files again, if it runs.
    pub(super) fn reload(&self, unit: &str) -> Result<(), Fault> {
        if self.is_running() { self.systemctl(&["try-reload-or-restart", unit]) } else { Ok(()) }
    }

    /// Has a service start anew, if it runs.
    pub(super) fn restart(&self, unit: &str) -> Result<(), Fault> {
        if self.is_running() { self.systemctl(&["try-restart", unit]) } else { Ok(()) }
    }

    /// Asks systemd for something.
    pub(super) fn systemctl(&self, args: &[&str]) -> Result<(), Fault> {
        let all: Vec<&str> = ["--quiet", "--no-ask-password"].iter().chain(args).copied().collect();
        self.target.run("systemctl", &all).doing(|| format!("asking systemd to {}", args.join(" "))).map(drop)
    }
}
