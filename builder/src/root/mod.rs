//! Roots: configured Debian trees, made from a package set and overlays, cached under the digest of all of it.
//!
//! The recipe is `gatehouse_deb::root`, which nodes follow too. The work is done by this same program started again
//! inside namespaces (`inside.rs`), as root or as an ordinary user; what comes out is a sorted tar stream in which no clock, user or order of the machine shows.

mod base;
mod cpio;
pub mod inside;
mod installer;
mod modules;
mod namespace;
mod pack;
pub mod tree;

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Doing as _, Fault, Lock, PackageSet};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, settle};
use crate::{parallel, term};

/// Changes whenever this code makes other bytes of the same inputs, so that old caches are not used.
const RECIPE: &str = "9";

/// Begins a line of the process inside the namespaces that people must see.
const ASIDE: &str = "note: ";

/// What is to become of the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// A configured tree as `root.tar`, with the kernel's files beside it: the host.
    Host,
    /// A configured tree as `layer.tar.zst`: a node.
    Layer,
    /// A tree as it is after the first stage, in `tree/`: what several hosts and nodes begin with. Nothing where dpkg
    /// must unpack those packages, because it then unpacks all of a root's.
    Base,
    /// A few programs and modules of an unpacked tree as `base.cpio.zst` and `modules.cpio.zst`: the installer.
    Installer,
    /// An unpacked tree as it is, in `tree/`: programs for the build itself.
    Tools,
    /// What nodes need of the modules of User Mode Linux, as `layer.tar.zst`.
    Modules,
}

impl Finish {
    /// Whether maintainer scripts are run.
    fn is_configured(self) -> bool {
        match self {
            Self::Host | Self::Layer | Self::Base => true,
            Self::Installer | Self::Tools | Self::Modules => false,
        }
    }

    /// How many lines the process that makes the root prints of so many packages.
    fn steps(self, packages: u64) -> u64 {
        match self {
            // Unpacked and configured; the initramfs, packing.
            Self::Host | Self::Layer => 2 * packages + 2,
            Self::Base => 2 * packages,
            // Choosing, packing.
            Self::Installer | Self::Modules => packages + 2,
            Self::Tools => packages,
        }
    }
}

/// One root to make; handed to the process inside the namespaces as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// What to make.
    pub finish: Finish,
    /// The packages' files in the cache, in the set's order.
    pub debs: Vec<PathBuf>,
    /// The tree that it begins with, if it was made already.
    pub base: Option<PathBuf>,
    /// Directories laid over the tree, in order.
    pub overlays: Vec<PathBuf>,
    /// Files laid over the tree: source, path in the tree, mode.
    pub files: Vec<(PathBuf, String, u32)>,
    /// Seconds since 1970: no file is dated later.
    pub epoch: u64,
    /// A directory of this build's own on the cache's filesystem.
    pub scratch: PathBuf,
    /// Directories that dead builds have left; only root in their namespace can remove them.
    pub stale: Vec<PathBuf>,
    /// Where the results go.
    pub out: PathBuf,
}

/// A root to make, as the rest of the builder sees it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What to make.
    pub finish: Finish,
    /// Its packages.
    pub set: &'a PackageSet,
    /// As in [`Spec`].
    pub overlays: Vec<PathBuf>,
    /// As in [`Spec`].
    pub files: Vec<(PathBuf, String, u32)>,
    /// As in [`Spec`].
    pub epoch: u64,
}

/// Makes those of several roots that are not in the cache, as many at a time as there are processors: most of the
/// time goes into scripts, which run one after the other. What several begin with is made first, and once; of the
/// others the largest come first, so that none is waited for long.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_all(wanted: &[Wanted<'_>], lock: &Lock, cache: &Cache) -> Result<(), Fault> {
    let mut missing = Vec::new();
    for wanted in wanted {
        if !cache.root(&inputs(wanted)?).is_dir() {
            missing.push(wanted);
        }
    }
    missing.sort_by_key(|wanted| Reverse(wanted.set.packages.len()));
    let bases = base::shared(&missing, lock, cache)?;
    let made: Vec<Wanted<'_>> = bases.iter().map(base::Base::wanted).collect();
    let (configured, plain): (Vec<&Wanted<'_>>, Vec<_>) =
        missing.into_iter().partition(|wanted| wanted.finish.is_configured());
    let first: Vec<&Wanted<'_>> = made.iter().chain(plain).collect();
    let threads = parallel::processors();
    parallel::each(&first, threads, |wanted| ensure(wanted, lock, cache))?;
    parallel::each(&configured, threads, |wanted| {
        let base = base::of(&bases, wanted).map(|base| ensure(&base.wanted(), lock, cache)).transpose()?;
        let tree = base.map(|dir| dir.join("tree")).filter(|tree| tree.is_dir());
        ensure_from(wanted, tree, lock, cache)
    })
    .map(drop)
}

/// The directory with the results of a root, made now or found in the cache.
///
/// # Errors
/// A maintainer script fails, the disk is full, namespaces cannot be had.
pub fn ensure(wanted: &Wanted<'_>, lock: &Lock, cache: &Cache) -> Result<PathBuf, Fault> {
    ensure_from(wanted, None, lock, cache)
}

/// As [`ensure`], from a tree that was made already: what comes out is the same, which is why it is no input.
fn ensure_from(
    wanted: &Wanted<'_>,
    base: Option<PathBuf>,
    lock: &Lock,
    cache: &Cache,
) -> Result<PathBuf, Fault> {
    let inputs = inputs(wanted)?;
    let done = cache.root(&inputs);
    if done.is_dir() {
        return Ok(done);
    }
    let known = lock.by_id();
    let debs = wanted.set.packages.iter().filter_map(|id| known.get(id)).map(|p| cache.deb(&p.sha256));
    let out = cache.scratch(&format!("out-{}", inputs.short()))?;
    let scratch = cache.scratch(&format!("root-{}", inputs.short()))?;
    let spec = Spec {
        finish: wanted.finish,
        debs: debs.collect(),
        base,
        overlays: wanted.overlays.clone(),
        files: wanted.files.clone(),
        epoch: wanted.epoch,
        scratch,
        stale: cache.stale(),
        out: out.clone(),
    };
    let name = &wanted.set.name;
    let steps = spec.finish.steps(spec.debs.len() as u64);
    let bar = term::bar(format!("building root {name}"), term::Unit::Items, steps);
    namespace::run(&spec, &out.join("spec.json"), &bar).doing(|| format!("building root {name}"))?;
    bar.finish();
    fs::remove_file(out.join("spec.json")).doing(|| "removing the build's specification")?;
    match settle(&out, &done) {
        // Another build was faster with the same root: the same inputs gave the same bytes.
        Err(_) if done.is_dir() => {
            fs::remove_dir_all(&out).doing(|| format!("removing {}", out.display()))?;
        }
        settled => settled?,
    }
    Ok(done)
}

/// The digest of everything that the results depend on.
fn inputs(wanted: &Wanted<'_>) -> Result<Digest, Fault> {
    let mut lines = vec![format!("{RECIPE} {:?} {} {}", wanted.finish, wanted.epoch, wanted.set.closure())];
    for dir in &wanted.overlays {
        for (name, path, mode) in overlay_files(dir)? {
            lines.push(format!("{name} {mode:o} {}", contents(&path)?));
        }
    }
    for (path, name, mode) in &wanted.files {
        lines.push(format!("{name} {mode:o} {}", contents(path)?));
    }
    Ok(Digest::of(lines.join("\n").as_bytes()))
}

/// The digest of a file's contents, or of where a symbolic link leads.
fn contents(path: &Path) -> Result<Digest, Fault> {
    let doing = || format!("reading {}", path.display());
    if fs::symlink_metadata(path).doing(doing)?.is_symlink() {
        let target = fs::read_link(path).doing(doing)?;
        return Ok(Digest::of(format!("-> {}", target.display()).as_bytes()));
    }
    Ok(crate::cache::digest_file(path).doing(doing)?.0)
}

/// The files of an overlay: path in the tree, path here, mode. Modes are 0755 for what is executable here,
/// else 0644, so that a umask cannot show. Symbolic links are kept as links (mode 0777).
fn overlay_files(dir: &Path) -> Result<Vec<(String, PathBuf, u32)>, Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = Vec::new();
    let mut queue = vec![(dir.to_owned(), String::new())];
    while let Some((at, prefix)) = queue.pop() {
        for entry in fs::read_dir(&at).doing(|| format!("reading {}", at.display()))? {
            let path = entry.doing(|| format!("reading {}", at.display()))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let full = format!("{prefix}/{name}");
            let meta = fs::symlink_metadata(&path).doing(|| format!("reading {}", path.display()))?;
            if meta.is_dir() {
                queue.push((path, full));
            } else if !name.starts_with(".git") {
                let executable = meta.permissions().mode() & 0o100 != 0;
                let mode = if meta.is_symlink() {
                    0o777
                } else if executable {
                    0o755
                } else {
                    0o644
                };
                found.push((full, path, mode));
            }
        }
    }
    found.sort();
    Ok(found)
}
