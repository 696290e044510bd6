//! A site that somebody proposes for this machine: its files read and checked as a whole, every node compiled, before
//! anything of it counts.

use gatehouse_lcfg::publish::{self, Made};
use gatehouse_lcfg::{Profile, Published, Round, Sources, told_once};
use gatehouse_model::{Digest, Lock, NodeName, Problem, Site};

use super::change::{Change, ProfilesOf, compare};
use super::import::SiteFiles;
use super::lifecycle::Lifecycle;
use crate::current::SiteState;
use crate::server::closure::Closures;
use crate::server::is_component;
use crate::vmm;

/// A site that can be taken up.
#[derive(Debug)]
pub struct Proposal {
    /// Its files; with the lock that counts, if it brings none of its own.
    pub files: SiteFiles,
    /// site.toml.
    pub site: Site,
    /// site.lock.
    pub lock: Lock,
    /// What it would do.
    pub change: Change,
}

/// What a proposal is held against.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// The site that counts, with its files.
    pub now: &'a SiteState,
    /// The files that it was made from.
    pub files: &'a SiteFiles,
    /// Finds packages that no lock names.
    pub closures: &'a Closures,
    /// Runs the nodes.
    pub lifecycle: &'a Lifecycle,
}

/// Checks the files of a site directory.
///
/// # Errors
/// All that is wrong with it, or that this machine cannot do, in the order of the files.
pub fn check(mut files: SiteFiles, against: Against<'_>) -> Result<Proposal, Vec<Problem>> {
    let (site, lock) = (read_site(&files), read_lock(&mut files, against));
    let sources = read_sources(&files);
    let (site, lock, sources) = match (site, lock, sources) {
        (Ok(site), Ok(lock), Ok(sources)) => (site, lock, sources),
        (site, lock, sources) => {
            let all = [site.err(), lock.err(), sources.err()];
            return Err(all.into_iter().flatten().flatten().collect());
        }
    };
    let driver = against.lifecycle.driver();
    let mut problems: Vec<Problem> = site
        .vms()
        .flat_map(|node| vmm::check(driver.capabilities(), driver.kind(), node))
        .map(|lack| Problem::at("site.toml", 0, lack))
        .collect();
    if site.machines().next().is_some() && !against.lifecycle.takes_machines() {
        let what =
            "the image was built without what nodes on machines of their own need; build and install it anew";
        problems.push(Problem::at("site.toml", 0, what));
    }
    let new = compile_all(&site, &lock, &files, sources, against.closures);
    problems.extend(told_once(
        new.iter().filter_map(|(node, made)| Some((&**node, made.as_ref().err()?.as_slice()))),
    ));
    // What does not compile any more was told when it was changed; here it is as good as empty.
    let old_sources = read_sources(against.files).unwrap_or_default();
    let old = compile_all(&against.now.site, &against.now.lock, against.files, old_sources, against.closures);
    let (old, new) = differing(&old, &new);
    let kept = |node: &NodeName| against.lifecycle.has_disks(node);
    let started = |node: &NodeName| against.lifecycle.started(node);
    match compare((&against.now.site, &old), (&site, &new), driver.capabilities(), kept, started) {
        Ok(change) if problems.is_empty() => Ok(Proposal { files, site, lock, change }),
        Ok(_) => Err(sorted(problems)),
        Err(more) => {
            problems.extend(more);
            Err(sorted(problems))
        }
    }
}

/// A problem of a header that many nodes include is told once.
fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    problems
}

fn read_site(files: &SiteFiles) -> Result<Site, Vec<Problem>> {
    let what = "there is no site.toml; name a site directory";
    let bytes = files.get("site.toml").ok_or_else(|| vec![Problem::at("site.toml", 0, what)])?;
    Site::parse(text("site.toml", bytes)?)
}

/// Whoever keeps the site elsewhere need not keep its lock: the one that counts belongs to this machine's image.
fn read_lock(files: &mut SiteFiles, against: Against<'_>) -> Result<Lock, Vec<Problem>> {
    if let Some(bytes) = files.get("site.lock") {
        return Lock::parse(text("site.lock", bytes)?);
    }
    if let Some(bytes) = against.files.get("site.lock") {
        files.insert("site.lock".to_owned(), bytes.clone());
    }
    Ok(against.now.lock.clone())
}

fn read_sources(files: &SiteFiles) -> Result<Sources, Vec<Problem>> {
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    for (name, bytes) in files {
        let Some(path) = name.strip_prefix("lcfg/").filter(|path| publish::is_source(path)) else { continue };
        match text(name, bytes) {
            Ok(text) => texts.push((path, text)),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(Sources::from_files(texts)) } else { Err(problems) }
}

fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Problem>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        vec![Problem::at(name, line, "not UTF-8 text; save the file as UTF-8")]
    })
}

/// Compiles all nodes as the install server does.
fn compile_all(
    site: &Site,
    lock: &Lock,
    files: &SiteFiles,
    sources: Sources,
    closures: &Closures,
) -> Round<Made> {
    let mut fleet = publish::fleet(site, sources);
    let program = |(name, bytes): (&String, &Vec<u8>)| {
        Some((is_component(name)?.to_owned(), Digest::of(bytes).to_string()))
    };
    fleet.set_programs(files.iter().filter_map(program).collect());
    let solve = |wishes: &[String]| publish::locked(lock, wishes).or_else(|_| closures.of(wishes));
    let sections = publish::Closures::default();
    fleet.compile(|_, compiled| publish::make(compiled, &sections, &solve))
}

/// The profiles of the nodes that differ, before and after: a site has a thousand nodes, and a change reaches a few.
fn differing(old: &Round<Made>, new: &Round<Made>) -> (ProfilesOf, ProfilesOf) {
    let (mut before, mut after) = (ProfilesOf::new(), ProfilesOf::new());
    for (name, now) in new {
        let (Ok(node), Ok(now)) = (name.parse::<NodeName>(), now) else { continue };
        let was = old.get(name).and_then(|made| made.as_ref().ok());
        if was.is_some_and(|was| was.components == now.components && was.packages == now.packages) {
            continue;
        }
        before.extend(was.and_then(profile).map(|profile| (node.clone(), profile)));
        after.extend(profile(now).map(|profile| (node, profile)));
    }
    (before, after)
}

fn profile(made: &Made) -> Option<Profile> {
    let (front, tail) = publish::envelope(&Published::default());
    Profile::from_xml(&[&front, &*made.components, &made.packages.xml, &tail].concat()).ok()
}
