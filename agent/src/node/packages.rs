//! `updaterpms install`: puts a node's packages down, as the layer of exactly this closure where the depot has one, else
//! one by one from the pool, by the recipe that layers are made by. Both ways give the same tree.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use gatehouse_deb::root::{self, Recipe, Told};
use gatehouse_lcfg::PackageSpec;
use gatehouse_model::{
    Closure, Depot, Doing as _, Fault, FileRef, Layer, PackageId, PackageSet, Pool, State,
};

use crate::node::apt::sources;
use crate::node::client::Client;
use crate::node::download::{DepotFile, fetch};
use crate::node::layer::{TELL_EVERY, put_down};
use crate::node::overlay;
use crate::node::progress::Teller;
use crate::node::target::Target;

/// Where packages wait on the new root's own disk: a node's memory does not hold them. Gone afterwards.
const WAITING: &str = ".gatehouse-packages";

/// Puts a profile's packages down.
///
/// # Errors
/// The depot has neither layer nor packages of this closure; fetching, unpacking or configuring fails.
pub fn put(
    client: &Client,
    packages: &[PackageSpec],
    target: &Target,
    teller: &mut Teller,
) -> Result<(), Fault> {
    let mut ids = packages.iter().map(exact).collect::<Result<Vec<_>, Fault>>()?;
    // The order of closures.
    ids.sort();
    let depot = client.depot()?;
    match choose(&depot, &ids)? {
        Way::Layer(layer) => by_layer(client, layer, target, teller)?,
        Way::Pool(files) => one_by_one(client, &depot.pool, &files, target, teller)?,
    }
    lay_modules(client, &depot, target, teller)?;
    name_pool(client, &depot.pool.suite, target, teller)
}

/// Puts the modules of this host's kernels onto a node that was installed on a host with others.
///
/// # Errors
/// They cannot be fetched or unpacked.
pub fn put_modules(client: &Client, target: &Target, teller: &mut Teller) -> Result<(), Fault> {
    lay_modules(client, &client.depot()?, target, teller)
}

/// Those of every kernel that brings some, so that a node's disk may move to another vmm.
fn lay_modules(client: &Client, depot: &Depot, target: &Target, teller: &mut Teller) -> Result<(), Fault> {
    for modules in depot.kernels.values().filter_map(|kernel| kernel.modules.as_ref()) {
        by_layer(client, modules, target, teller)
            .doing(|| "laying the kernel's modules over the packages")?;
    }
    Ok(())
}

/// Names the pool as the node's source of packages, with the key that it is signed with.
fn name_pool(client: &Client, suite: &str, target: &Target, teller: &mut Teller) -> Result<(), Fault> {
    let Some(key) = client.pool_key()? else {
        // The node has all its packages; what it is changed to later comes through its profile.
        teller.say("naming the pool", State::Failed, None, "the server has not signed it; apt has no source");
        return Ok(());
    };
    target.write(sources::KEYRING, 0o644, key.as_bytes())?;
    target.write(sources::SOURCE, 0o644, sources::pool(client.server(), suite).as_bytes())?;
    Ok(())
}

/// How packages get onto a node.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    /// As one configured tree.
    Layer(&'a Layer),
    /// From these files, in the closure's order.
    Pool(Vec<&'a FileRef>),
}

fn choose<'a>(depot: &'a Depot, ids: &[PackageId]) -> Result<Way<'a>, Fault> {
    let closure = closure(ids);
    if let Some(layer) = depot.layers.get(&closure) {
        return Ok(Way::Layer(layer));
    }
    let missing: Vec<String> =
        ids.iter().filter(|id| !depot.pool.packages.contains_key(id)).map(ToString::to_string).collect();
    if let Some(first) = missing.first() {
        let (count, closure) = (missing.len(), closure.short());
        return Err(Fault::new(format!(
            "the depot has no layer for closure {closure}, and its pool lacks {first} ({count} of {} packages)",
            ids.len()
        ))
        .help("lock and build the site again, so that its depot has the packages of its profiles"));
    }
    Ok(Way::Pool(ids.iter().filter_map(|id| depot.pool.packages.get(id)).collect()))
}

fn by_layer(client: &Client, layer: &Layer, target: &Target, teller: &mut Teller) -> Result<(), Fault> {
    let source = DepotFile { client: client.clone(), path: layer.file.path.clone() };
    let mut told = |percent: u8, rate: f64| {
        teller.say("unpacking layer", State::Progress, Some(percent), &format!("{rate:.1} MiB/s"));
    };
    let done = put_down(source, layer, target.root(), &mut told)?;
    if done.entries != layer.entries {
        let (is, should) = (done.entries, layer.entries);
        return Err(Fault::new(format!("the layer has {is} entries, and the depot's list says {should}")));
    }
    let (entries, mib) = (done.entries, done.bytes >> 20);
    teller.say("unpacking layer", State::Succeeded, None, &format!("{entries} entries, {mib} MiB"));
    Ok(())
}

fn one_by_one(
    client: &Client,
    pool: &Pool,
    files: &[&FileRef],
    target: &Target,
    teller: &mut Teller,
) -> Result<(), Fault> {
    let dir = target.root().join(WAITING);
    fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
    let debs = fetch_all(client, files, &dir, teller)?;
    let count = debs.len();
    let heard = Heard { inner: Mutex::new((&mut *teller, 0, Instant::now())), count };
    let recipe = Recipe {
        debs: &debs,
        base: None,
        epoch: pool.epoch,
        pv_grub: true,
        lay_over: &|| overlay::lay_over(target),
        told: &|told| heard.hear(told),
    };
    root::make(target.root(), &recipe)?;
    fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
    teller.say("installing packages", State::Succeeded, None, &format!("{count} packages"));
    Ok(())
}

/// Fetches packages into a directory, each believed by the digest in the depot's list, which came over TLS.
fn fetch_all(
    client: &Client,
    files: &[&FileRef],
    dir: &Path,
    teller: &mut Teller,
) -> Result<Vec<PathBuf>, Fault> {
    let of: u64 = files.iter().map(|file| file.size).sum();
    let (mut bytes, mut last) = (0, Instant::now());
    let mut debs = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        let path = dir.join(format!("{index:05}.deb"));
        let mut out = File::create(&path).doing(|| format!("making {}", path.display()))?;
        let source = DepotFile { client: client.clone(), path: file.path.clone() };
        fetch(&source, file, &mut |piece| {
            out.write_all(&piece).doing(|| format!("writing {}", path.display()))?;
            bytes += piece.len() as u64;
            if last.elapsed() >= TELL_EVERY {
                last = Instant::now();
                teller.say("fetching packages", State::Progress, Some(percent(bytes, of)), "");
            }
            Ok(())
        })?;
        debs.push(path);
    }
    teller.say("fetching packages", State::Succeeded, None, &format!("{} MiB", of >> 20));
    Ok(debs)
}

fn percent(done: u64, of: u64) -> u8 {
    u8::try_from(done.saturating_mul(100).checked_div(of).unwrap_or(0).min(100)).unwrap_or(100)
}

/// Tells what the recipe does; of the packages every few seconds how many there are.
struct Heard<'a> {
    inner: Mutex<(&'a mut Teller, usize, Instant)>,
    count: usize,
}

impl Heard<'_> {
    fn hear(&self, told: Told<'_>) {
        // A thread that panicked while it told something has ended the install anyway.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (teller, done, last) = &mut *inner;
        let mut say = |percent, text: &str| teller.say("installing packages", State::Progress, percent, text);
        match told {
            Told::Unpacked(_) => {
                *done += 1;
                if last.elapsed() >= TELL_EVERY {
                    *last = Instant::now();
                    say(Some(percent(*done as u64, self.count as u64)), "unpacked");
                }
            }
            Told::Configured(_) => {}
            Told::Configuring(count) => say(None, &format!("configuring {count} packages")),
            Told::Initramfs => say(None, "making the initramfs"),
            Told::Aside(text) => say(None, text),
        }
    }
}

/// One of a profile's packages as the lock names it.
///
/// # Errors
/// It has no exact version or architecture.
pub fn exact(spec: &PackageSpec) -> Result<PackageId, Fault> {
    let given = |part: &Option<String>| part.clone().filter(|text| text != "*");
    let inexact = || Fault::new(format!("the package {spec} has no exact version and architecture"));
    let mut version = given(&spec.version).ok_or_else(inexact)?;
    if let Some(release) = given(&spec.release) {
        version = format!("{version}-{release}");
    }
    let architecture = given(&spec.arch).ok_or_else(inexact)?;
    Ok(PackageId { name: spec.name.clone(), version, architecture })
}

/// The digest that names the layer of exactly these packages.
fn closure(ids: &[PackageId]) -> Closure {
    PackageSet { name: String::new(), wishes: Vec::new(), packages: ids.to_vec() }.closure()
}

#[cfg(test)]
mod tests {
    use gatehouse_model::Digest;

    use super::*;

    fn depot(ids: &[PackageId], pool: &[PackageId]) -> Depot {
        let file = |path: &str| FileRef { path: path.into(), size: 1, sha256: Digest::of(path.as_bytes()) };
        let layer = Layer { file: file("layer"), unpacked: 1, entries: 1 };
        Depot {
            schema: 1,
            agent: file("agent"),
            kernels: [].into(),
            machine: None,
            layers: [(closure(ids), layer)].into(),
            pool: Pool {
                suite: "trixie".into(),
                epoch: 0,
                index: Vec::new(),
                packages: pool.iter().map(|id| (id.clone(), file(&id.name))).collect(),
            },
        }
    }

    #[test]
    fn a_layer_goes_before_the_pool_and_the_pool_must_have_all() {
        let ids: Vec<PackageId> =
            ["a=1/all", "b=1:2-3/amd64"].iter().map(|id| id.parse().expect("an id")).collect();
        let with_layer = depot(&ids, &ids);
        assert!(matches!(choose(&with_layer, &ids), Ok(Way::Layer(_))));
        let without = depot(&[], &ids);
        let Ok(Way::Pool(files)) = choose(&without, &ids) else { panic!("the pool has them") };
        assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let fault = choose(&depot(&[], &ids[..1]), &ids).expect_err("b is nowhere");
        assert!(fault.to_string().contains("its pool lacks b=1:2-3/amd64 (1 of 2 packages)"), "{fault}");
    }
}
