//! Applies the profile that is kept: packages first, so that what the components configure is there, then the
//! components that differ. What fails is written down and holds nothing else up.

use gatehouse_lcfg::Profile;
use gatehouse_model::Fault;

use super::journal::seconds;
use super::{Keeper, failure, plan};
use crate::node::apt;
use crate::node::component::{self, Means, program};
use crate::wire::PackageCounts;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The components that were run with success, in order.
    pub(super) changed: Vec<String>,
    /// Those that failed.
    pub(super) failed: Vec<String>,
    /// What became of the packages.
    pub(super) packages: PackageCounts,
    /// Whether changing the packages failed.
    pub(super) packages_failed: bool,
}

impl Done {
    /// Whether there was nothing to do.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that was done succeeded.
    pub(super) fn is_good(&self) -> bool {
        self.failed.is_empty() && !self.packages_failed
    }
}

impl Keeper<'_> {
    /// Does what the profile says; `say` is told each thing before it is done and how it ended.
    ///
    /// # Errors
    /// What was done cannot be written down.
    pub(super) fn apply(&mut self, profile: &Profile, say: &mut dyn FnMut(&str)) -> Result<Done, Fault> {
        let mut done = Done::default();
        // In a root that does not run, packages were put down by the installer.
        if self.node.target.is_running() {
            self.packages(profile, say, &mut done)?;
        }
        self.journal.forget_others(&plan::order(profile))?;
        let mut names = plan::plan(profile, &self.journal.state().components);
        // The boot loader's file may name a kernel.
        let kernels = !done.packages.is_none() && plan::order(profile).contains(&"grub");
        if kernels && !names.iter().any(|name| name == "grub") {
            names.push("grub".to_owned());
        }
        for name in names {
            self.component(profile, &name, say, &mut done)?;
        }
        program::tidy(&self.node.target, profile)?;
        Ok(done)
    }

    fn component(
        &mut self,
        profile: &Profile,
        name: &str,
        say: &mut dyn FnMut(&str),
        done: &mut Done,
    ) -> Result<(), Fault> {
        let node = self.node;
        let means = Means { profile, home: &node.home, target: &node.target, client: &node.client };
        let acts = component::doer(profile, name).is_some();
        match component::run(&means, &mut self.journal, name, "configure") {
            Ok(()) if acts => {
                say(&format!("{name}: configured"));
                done.changed.push(name.to_owned());
            }
            // It only carries values.
            Ok(()) => {}
            Err(fault) => {
                say(&format!("{name}: {fault}"));
                self.journal.failed(name, failure(name, "configure", &fault))?;
                done.failed.push(name.to_owned());
            }
        }
        Ok(())
    }

    fn packages(
        &mut self,
        profile: &Profile,
        say: &mut dyn FnMut(&str),
        done: &mut Done,
    ) -> Result<(), Fault> {
        let boot = apt::boot_id()?;
        let at_boot = self.journal.state().packages.boot != boot;
        let looked = apt::look(&self.node.target, profile, at_boot);
        let outcome = looked.and_then(|plan| {
            if plan.is_done() || apt::only_told(profile) {
                return Ok(PackageCounts::default());
            }
            for item in &plan.now {
                say(&format!("packages: {item}"));
            }
            apt::carry_out(&self.node.client, &self.node.target, profile, &plan, at_boot)?;
            Ok(plan.counts())
        });
        match outcome {
            Ok(counts) => {
                done.packages = counts;
                self.journal.change(|state| {
                    state.packages.boot = boot;
                    state.packages.failed = None;
                    if !counts.is_none() {
                        (state.packages.at, state.packages.counts) = (seconds(), counts);
                    }
                })
            }
            Err(fault) => {
                say(&format!("packages: {fault}"));
                done.packages_failed = true;
                let failure = failure("packages", "change", &fault);
                self.journal.change(|state| state.packages.failed = Some(failure))
            }
        }
    }
}
