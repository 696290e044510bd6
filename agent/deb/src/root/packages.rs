//! Gets packages into a tree, stage by stage: unpacked here, several at a time, or by dpkg itself where that would
//! give another tree; then configured by dpkg.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use nix::sys::stat::{Mode, umask};

use super::{Recipe, Stage, Told, empty, hold_back, stages, system};
use crate::{Control, Unpacked, controls, listed, order, redirects, unpack_all, with_preinst, write};

/// Where dpkg has a package's control files while it runs the package's `preinst`.
const CONTROL: &str = "var/lib/dpkg/tmp.ci";

/// Unpacks packages as they are, for a tree in which nothing is configured.
///
/// # Errors
/// A package is damaged; two packages want the same path in a way that only dpkg can decide.
pub fn plain(root: &Path, recipe: &Recipe<'_>) -> Result<Vec<Unpacked>, Fault> {
    let unpacked = unpack(root, recipe, recipe.debs)?;
    match undecided(&unpacked, &BTreeSet::new()) {
        None => Ok(unpacked),
        Some(why) => Err(Fault::new(format!("{why}, and this root has no dpkg to decide it"))),
    }
}

/// Makes the tree that several roots begin with; the recipe's packages are those of their first stage. Answers why
/// there can be none: dpkg must unpack these packages itself, and then it unpacks all of a root's.
///
/// # Errors
/// A package is damaged or a script fails.
pub fn base(root: &Path, recipe: &Recipe<'_>) -> Result<Option<String>, Fault> {
    let before = umask(Mode::from_bits_truncate(0o022));
    let result = by_us(root, recipe, &[Stage { packages: (0..recipe.debs.len()).collect() }]);
    system::unmount(root);
    umask(before);
    result
}

/// Unpacks and configures a recipe's packages; nothing is mounted in the tree afterwards.
///
/// # Errors
/// A package is damaged, a script fails, or dpkg refuses a package.
pub(super) fn put(root: &Path, recipe: &Recipe<'_>) -> Result<(), Fault> {
    let controls = controls(recipe.debs, threads())?;
    let controls: Vec<&Control> = controls.iter().collect();
    let stages = stages(&controls);
    let Some(why) = by_us(root, recipe, &stages)? else { return Ok(()) };
    (recipe.told)(Told::Aside(&format!("{why}: dpkg unpacks this root")));
    system::unmount(root);
    empty(root, recipe.debs)?;
    by_dpkg(root, recipe, &controls, &stages)
}

/// Goes through the stages without dpkg's `--unpack`; answers why that would give another tree than dpkg's.
fn by_us(root: &Path, recipe: &Recipe<'_>, stages: &[Stage]) -> Result<Option<String>, Fault> {
    let (mut before, stages) = match (recipe.base, stages) {
        (Some(base), [_, rest @ ..]) => {
            system::copy(base, root)?;
            (listed(root)?, rest)
        }
        _ => (BTreeSet::new(), stages),
    };
    for stage in stages {
        let unpacked = unpack(root, recipe, &of(stage, recipe.debs))?;
        if let Some(why) = undecided(&unpacked, &before) {
            return Ok(Some(why));
        }
        write(root, &unpacked, recipe.epoch)?;
        system::mount(root)?;
        run_preinsts(root, recipe.epoch, &unpacked)?;
        if let Some(why) = redirected(root, &unpacked)? {
            return Ok(Some(why));
        }
        configure(root, recipe, stage)?;
        system::unmount(root);
        before.extend(unpacked.into_iter().flat_map(|package| package.files));
    }
    Ok(None)
}

/// Configures all that is unpacked. A kernel's script would make an initramfs before everything is in place.
fn configure(root: &Path, recipe: &Recipe<'_>, stage: &Stage) -> Result<(), Fault> {
    (recipe.told)(Told::Configuring(stage.packages.len()));
    hold_back(root)?;
    let args = ["env", "INITRD=No", "dpkg", "--force-confold", "--force-unsafe-io", "--configure", "-a"];
    system::chroot_heard(root, recipe.epoch, &args, &|line| {
        if let Some(name) = set_up(line) {
            (recipe.told)(Told::Configured(name));
        }
    })
}

/// The package that a line of dpkg's is about.
fn set_up(line: &str) -> Option<&str> {
    line.strip_prefix("Setting up ")?.split(' ').next()
}

/// The files of a stage's packages.
fn of(stage: &Stage, debs: &[PathBuf]) -> Vec<PathBuf> {
    stage.packages.iter().map(|index| debs[*index].clone()).collect()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn unpack(root: &Path, recipe: &Recipe<'_>, debs: &[PathBuf]) -> Result<Vec<Unpacked>, Fault> {
    unpack_all(debs, root, threads(), &|_, name| (recipe.told)(Told::Unpacked(name)))
}

/// Says where the tree would depend on which of two packages was faster, or a package takes a file from one that
/// is configured already: whether it may, and whose the file then is, is for dpkg to say.
fn undecided(unpacked: &[Unpacked], before: &BTreeSet<String>) -> Option<String> {
    let overlaps = unpacked.iter().flat_map(|package| package.overlaps.iter().map(move |o| (package, o)));
    let taken = |path: &str| {
        before.contains(path) || path.strip_prefix("/usr").is_some_and(|old| before.contains(old))
    };
    let (package, overlap) = overlaps
        .into_iter()
        .find(|(_, overlap)| overlap.undecided || (overlap.other.is_none() && taken(&overlap.path)))?;
    let other = overlap.other.as_deref().unwrap_or("an earlier package");
    Some(format!("{} is another thing in {} than in {other}", overlap.path, package.control.name()))
}

/// Says which of the packages' paths a `preinst` has redirected: dpkg would have heeded it while unpacking. Debian's
/// own packages divert old names of /usr's directories, which no package brings: those change nothing.
fn redirected(root: &Path, unpacked: &[Unpacked]) -> Result<Option<String>, Fault> {
    let redirects: BTreeSet<String> = redirects(root)?.into_iter().collect();
    let mut brought = unpacked.iter().flat_map(|p| p.files.iter().map(move |path| (p.control.name(), path)));
    let found = brought.find(|(_, path)| redirects.contains(*path));
    Ok(found.map(|(name, path)| format!("{path} of {name} is redirected by a preinst")))
}

/// Runs what dpkg would have run before it unpacked each package, from where dpkg runs it: debconf looks there
/// for the package's name and templates.
fn run_preinsts(root: &Path, epoch: u64, unpacked: &[Unpacked]) -> Result<(), Fault> {
    let mut packages = with_preinst(unpacked);
    // base-passwd makes /etc/passwd, which every other script relies on.
    packages
        .sort_by_key(|package| (package.control.name() != "base-passwd", package.control.database_name()));
    for package in packages {
        let name = package.control.name();
        put_control(root, &package.control).doing(|| format!("preparing the preinst of {name}"))?;
        let package_is = format!("DPKG_MAINTSCRIPT_PACKAGE={name}");
        let path = format!("/{CONTROL}/preinst");
        system::chroot(root, epoch, &["env", &package_is, "DPKG_MAINTSCRIPT_NAME=preinst", &path, "install"])
            .doing(|| format!("running the preinst of {name}"))?;
        fs::remove_dir_all(root.join(CONTROL)).doing(|| format!("clearing up after {name}"))?;
    }
    Ok(())
}

fn put_control(root: &Path, control: &Control) -> io::Result<()> {
    let dir = root.join(CONTROL);
    fs::create_dir(&dir)?;
    fs::write(dir.join("control"), control.fields().to_string())?;
    for (name, file) in control.files() {
        fs::write(dir.join(name), &file.data)?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// Has dpkg unpack everything into an empty tree. What dpkg itself needs is put there first, as every tool that
/// makes a Debian root does; dpkg then unpacks it again, and knows whose it is.
fn by_dpkg(root: &Path, recipe: &Recipe<'_>, controls: &[&Control], stages: &[Stage]) -> Result<(), Fault> {
    let order = order(controls);
    let base: Vec<PathBuf> = order.base.iter().map(|index| recipe.debs[*index].clone()).collect();
    unpack(root, recipe, &base)?;
    write(root, &[], recipe.epoch)?;
    for stage in stages {
        let all = order.base.iter().chain(&order.rest).filter(|index| stage.packages.contains(index));
        let debs: Vec<&PathBuf> = all.map(|index| &recipe.debs[*index]).collect();
        system::mount(root)?;
        dpkg_unpack(root, recipe.epoch, &debs)?;
        configure(root, recipe, stage)?;
        system::unmount(root);
    }
    Ok(())
}

fn dpkg_unpack(root: &Path, epoch: u64, debs: &[&PathBuf]) -> Result<(), Fault> {
    let dir = root.join("run/packages");
    fs::create_dir(&dir).doing(|| "making a place for the packages")?;
    let mut args = vec!["dpkg".to_owned(), "--unpack".to_owned()];
    // Nothing is configured yet, so no dependency is met; there is no tree to save from a power cut.
    args.extend(["--force-depends", "--force-unsafe-io"].map(str::to_owned));
    for (at, deb) in debs.iter().enumerate() {
        let name = format!("{at:05}.deb");
        system::bind(deb, &dir.join(&name))?;
        args.push(format!("/run/packages/{name}"));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    system::chroot(root, epoch, &args)
}
