//! `gatehouse lock`: wishes become exact packages. apt is the solver, in private directories.

mod apt;
mod archive;
mod wishes;

use std::collections::BTreeMap;
use std::path::Path;

use gatehouse_lcfg::publish;
use gatehouse_model::{Digest, Doing as _, Fault, Lock, LockedPackage, PackageSet, Site};

use crate::cache::Cache;
use crate::site_dir::SiteDir;
use crate::{parallel, term};

pub use archive::Archives;
pub use wishes::of_host;

/// Sets that are unpacked and never configured: they need not have what every Debian has.
const UNCONFIGURED: [&str; 2] = [gatehouse_model::SET_INSTALLER, gatehouse_model::SET_MACHINE];

/// What is asked of the solver: names of sets with their wishes.
type Request = BTreeMap<String, Vec<String>>;

/// The lock of a site: the one on disk if it still answers what the site asks, else a new one, written there.
///
/// # Errors
/// Problems of the site's sources or of `site.lock`; a fault of apt.
pub fn ensure(dir: &SiteDir, site: &Site, agent: &Path, cache: &Cache) -> Result<Lock, Fault> {
    let request = request(dir, site)?;
    let agent = agent_digest(agent)?;
    if let Some(text) = dir.read("site.lock")? {
        let mut lock = Lock::parse(&text).map_err(Fault::of_problems)?;
        if lock.request == request_digest(site, &request) {
            if lock.agent != agent {
                term::say("site.lock names another agent binary; writing this builder's into it");
                lock.agent = agent;
                dir.write("site.lock", &lock.to_text())?;
            }
            return Ok(lock);
        }
        term::say("site.lock does not answer what the site now asks for; making a new one");
    } else {
        term::say("the site has no site.lock; making one");
    }
    make(dir, site, agent, cache)
}

/// Makes a new lock and writes it into the site directory.
///
/// # Errors
/// Problems of the site's sources; a fault of apt.
pub fn renew(dir: &SiteDir, site: &Site, agent: &Path, cache: &Cache) -> Result<Lock, Fault> {
    make(dir, site, agent_digest(agent)?, cache)
}

fn agent_digest(agent: &Path) -> Result<Digest, Fault> {
    let (digest, _) = crate::cache::digest_file(agent).doing(|| format!("reading {}", agent.display()))?;
    Ok(digest)
}

fn make(dir: &SiteDir, site: &Site, agent: Digest, cache: &Cache) -> Result<Lock, Fault> {
    let request = request(dir, site)?;
    let archives = Archives::of(site)?;
    let bar = term::bar("choosing packages", term::Unit::Items, request.len() as u64);
    let solver = apt::Solver::open(site, &archives, cache)?;
    let wanted: Vec<_> = request.iter().collect();
    let answers = parallel::each(&wanted, parallel::processors(), |(name, wishes)| {
        let chosen = solver.solve(wishes, !UNCONFIGURED.contains(&name.as_str())).doing(|| {
            let of = if name.starts_with("node-") { "a node's package list" } else { name };
            format!("choosing the packages of {of}")
        });
        bar.add(1);
        chosen
    })?;
    let mut sets = Vec::new();
    let mut packages: BTreeMap<String, LockedPackage> = BTreeMap::new();
    for ((name, wishes), chosen) in request.iter().zip(answers) {
        sets.push(PackageSet {
            name: name.clone(),
            wishes: wishes.clone(),
            packages: chosen.iter().map(LockedPackage::id).collect(),
        });
        packages.extend(chosen.into_iter().map(|package| (package.id().to_string(), package)));
    }
    bar.finish();
    let request = request_digest(site, &request);
    let lock = Lock { schema: 1, agent, request, sets, packages: packages.into_values().collect() };
    dir.write("site.lock", &lock.to_text())?;
    Ok(lock)
}

fn request(dir: &SiteDir, site: &Site) -> Result<Request, Fault> {
    let mut request = wishes::of_host(site);
    let mut fleet = dir.fleet(site)?;
    let round = fleet.compile(|_, compiled| Ok(publish::wishes(compiled)));
    for wishes in crate::commands::all_good(&fleet, round)?.into_values() {
        request.insert(PackageSet::name_for(&wishes), wishes);
    }
    Ok(request)
}

/// The digest of all that the solver's answer depends on, but the archive's state.
fn request_digest(site: &Site, request: &Request) -> Digest {
    let text = format!("{}\n{:?}\n{request:?}", site.packages.suite, site.packages.components);
    Digest::of(text.as_bytes())
}
