//! What several roots have in common: the packages of their first stage, made into a tree once and copied into each.

use std::collections::BTreeMap;

use gatehouse_deb::Control;
use gatehouse_deb::root::stages;
use gatehouse_model::{Closure, Fault, Lock, PackageId, PackageSet};

use super::{Finish, Wanted};
use crate::cache::Cache;
use crate::parallel::processors;

/// A tree that several roots begin with.
#[derive(Debug)]
pub struct Base {
    set: PackageSet,
    epoch: u64,
    /// The closures of the roots that begin with it.
    roots: Vec<Closure>,
}

impl Base {
    /// The tree as a root to make.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            finish: Finish::Base,
            set: &self.set,
            overlays: Vec::new(),
            files: Vec::new(),
            epoch: self.epoch,
        }
    }
}

/// The base of a root, if it shares one.
pub fn of<'a>(bases: &'a [Base], wanted: &Wanted<'_>) -> Option<&'a Base> {
    let closure = wanted.set.closure();
    bases.iter().find(|base| base.epoch == wanted.epoch && base.roots.contains(&closure))
}

/// The bases that more than one of these roots begin with. Copying one costs a tenth of making it, so that one that
/// only a single root needs is not worth its place in the cache.
///
/// # Errors
/// A package cannot be read.
pub fn shared(missing: &[&Wanted<'_>], lock: &Lock, cache: &Cache) -> Result<Vec<Base>, Fault> {
    let configured: Vec<&Wanted<'_>> =
        missing.iter().copied().filter(|wanted| wanted.finish.is_configured()).collect();
    if configured.len() < 2 {
        return Ok(Vec::new());
    }
    let controls = controls(&configured, lock, cache)?;
    let mut bases: Vec<Base> = Vec::new();
    for wanted in configured {
        let packages = first_stage(&wanted.set.packages, &controls);
        let closure = wanted.set.closure();
        match bases.iter_mut().find(|base| base.epoch == wanted.epoch && base.set.packages == packages) {
            Some(base) => base.roots.push(closure),
            None => bases.push(Base {
                set: PackageSet { name: "base".to_owned(), wishes: Vec::new(), packages },
                epoch: wanted.epoch,
                roots: vec![closure],
            }),
        }
    }
    bases.retain(|base| base.roots.len() > 1);
    Ok(bases)
}

type Controls = BTreeMap<PackageId, Control>;

/// What the packages of some roots say of themselves, each read once.
fn controls(roots: &[&Wanted<'_>], lock: &Lock, cache: &Cache) -> Result<Controls, Fault> {
    let known = lock.by_id();
    let all: BTreeMap<&PackageId, _> = roots
        .iter()
        .flat_map(|wanted| &wanted.set.packages)
        .filter_map(|id| Some((id, cache.deb(&known.get(id)?.sha256))))
        .collect();
    let debs: Vec<_> = all.values().cloned().collect();
    let controls = gatehouse_deb::controls(&debs, processors())?;
    Ok(all.into_keys().cloned().zip(controls).collect())
}

fn first_stage(packages: &[PackageId], controls: &Controls) -> Vec<PackageId> {
    let known: Vec<(&PackageId, &Control)> =
        packages.iter().filter_map(|id| Some((id, controls.get(id)?))).collect();
    let all: Vec<&Control> = known.iter().map(|(_, control)| *control).collect();
    let first = stages(&all).into_iter().next();
    first.map_or_else(Vec::new, |stage| stage.packages.iter().map(|index| known[*index].0.clone()).collect())
}
