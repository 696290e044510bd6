//! Gets packages into a tree up to where `dpkg --configure` goes on: unpacked here, several at a time, or by dpkg
//! itself where that would give another tree.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_deb::{Control, Unpacked};
use gatehouse_model::{Doing as _, Fault};

use super::{ASIDE, Spec, system};

/// Where dpkg has a package's control files while it runs the package's `preinst`.
const CONTROL: &str = "var/lib/dpkg/tmp.ci";

/// Unpacks a specification's packages as they are, for a tree in which nothing is configured.
///
/// # Errors
/// A package is damaged; two packages want the same path in a way that only dpkg can decide.
pub fn plain(root: &Path, spec: &Spec) -> Result<Vec<Unpacked>, Fault> {
    let unpacked = unpack(root, &spec.debs)?;
    match undecided(&unpacked) {
        None => Ok(unpacked),
        Some(why) => Err(Fault::new(format!("{why}, and this root has no dpkg to decide it"))),
    }
}

/// Unpacks a specification's packages, enters them into dpkg's database, and runs what dpkg runs before it
/// configures; leaves the kernel's filesystems mounted.
///
/// # Errors
/// A package is damaged, a `preinst` fails, or dpkg refuses a package.
pub fn ready(root: &Path, spec: &Spec) -> Result<Vec<Unpacked>, Fault> {
    let unpacked = unpack(root, &spec.debs)?;
    let mut why = undecided(&unpacked);
    if why.is_none() {
        gatehouse_deb::write(root, &unpacked, spec.epoch)?;
        system::mount(root)?;
        run_preinsts(root, spec.epoch, &unpacked)?;
        why = redirected(root, &unpacked)?;
    }
    let Some(why) = why else { return Ok(unpacked) };
    println!("{ASIDE}{why}: dpkg unpacks this root");
    system::unmount(root);
    fs::remove_dir_all(root).and_then(|()| fs::create_dir(root)).doing(|| "emptying the tree")?;
    by_dpkg(root, spec, &unpacked)?;
    Ok(unpacked)
}

fn unpack(root: &Path, debs: &[PathBuf]) -> Result<Vec<Unpacked>, Fault> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    gatehouse_deb::unpack_all(debs, root, threads, &|_, name| println!("unpacking {name}"))
}

/// Says where the tree would depend on which of two packages was faster.
fn undecided(unpacked: &[Unpacked]) -> Option<String> {
    let overlaps = unpacked.iter().flat_map(|package| package.overlaps.iter().map(move |o| (package, o)));
    let (package, overlap) = overlaps.into_iter().find(|(_, overlap)| overlap.undecided)?;
    let other = overlap.other.as_deref().unwrap_or("an earlier package");
    Some(format!("{} is another thing in {} than in {other}", overlap.path, package.control.name()))
}

/// Says which of the packages' paths a `preinst` has redirected: dpkg would have heeded it while unpacking. Debian's
/// own packages divert old names of /usr's directories, which no package brings: those change nothing.
fn redirected(root: &Path, unpacked: &[Unpacked]) -> Result<Option<String>, Fault> {
    let redirects: BTreeSet<String> = gatehouse_deb::redirects(root)?.into_iter().collect();
    let mut brought = unpacked.iter().flat_map(|p| p.files.iter().map(move |path| (p.control.name(), path)));
    let found = brought.find(|(_, path)| redirects.contains(*path));
    Ok(found.map(|(name, path)| format!("{path} of {name} is redirected by a preinst")))
}

/// Runs what dpkg would have run before it unpacked each package, from where dpkg runs it: debconf looks there
/// for the package's name and templates.
fn run_preinsts(root: &Path, epoch: u64, unpacked: &[Unpacked]) -> Result<(), Fault> {
    let mut packages = gatehouse_deb::with_preinst(unpacked);
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
fn by_dpkg(root: &Path, spec: &Spec, unpacked: &[Unpacked]) -> Result<(), Fault> {
    let controls: Vec<&Control> = unpacked.iter().map(|package| &package.control).collect();
    let order = gatehouse_deb::order(&controls);
    let base: Vec<PathBuf> = order.base.iter().map(|index| spec.debs[*index].clone()).collect();
    unpack(root, &base)?;
    gatehouse_deb::write(root, &[], spec.epoch)?;
    system::mount(root)?;
    let dir = root.join("run/packages");
    fs::create_dir(&dir).doing(|| "making a place for the packages")?;
    let mut args = vec!["dpkg".to_owned(), "--unpack".to_owned()];
    // Nothing is configured yet, so no dependency is met; there is no tree to save from a power cut.
    args.extend(["--force-depends", "--force-unsafe-io"].map(str::to_owned));
    for (at, index) in order.base.iter().chain(&order.rest).enumerate() {
        let name = format!("{at:05}.deb");
        system::bind(&spec.debs[*index], &dir.join(&name))?;
        args.push(format!("/run/packages/{name}"));
    }
    println!("unpacking with dpkg");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    system::chroot(root, spec.epoch, &args)
}
