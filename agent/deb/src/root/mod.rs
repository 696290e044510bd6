//! Roots: one recipe by which a set of packages becomes a configured tree, the same tree wherever it is followed.
//!
//! The builder follows it for hosts and layers, the installer for a node whose closure has no layer. A recipe has
//! stages; each unpacks some packages, runs what dpkg runs before that, and configures them.

mod clean;
mod packages;
mod stages;
mod system;

use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use nix::sys::stat::{Mode, umask};

pub use packages::{base, plain};
pub use stages::{Stage, stages};

/// What a root is made of.
pub struct Recipe<'a> {
    /// The packages' files; of several that bring one path the last wins.
    pub debs: &'a [PathBuf],
    /// A tree that [`base`] has made of the packages of the first stage: it is copied instead of made anew.
    pub base: Option<&'a Path>,
    /// Seconds since 1970: the time by which scripts go.
    pub epoch: u64,
    /// Whether kernels are also left in a form that PV-GRUB can read.
    pub pv_grub: bool,
    /// Lays files over the tree when all is configured, before the initramfs is made.
    pub lay_over: &'a dyn Fn() -> Result<(), Fault>,
    /// Hears what is being done.
    pub told: &'a (dyn Fn(Told<'_>) + Sync),
}

impl fmt::Debug for Recipe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe").field("debs", &self.debs).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// A package has been unpacked.
    Unpacked(&'a str),
    /// So many packages are being configured.
    Configuring(usize),
    /// The next of them is.
    Configured(&'a str),
    /// The initramfs is being made.
    Initramfs,
    /// Something that people should know of.
    Aside(&'a str),
}

/// Fills an empty root: unpacked, configured, laid over, cleaned.
///
/// The caller is root of the mounts that the root lies in; services are kept from starting.
///
/// # Errors
/// A package is damaged, a maintainer script fails (the fault quotes it), or dpkg refuses a package.
pub fn make(root: &Path, recipe: &Recipe<'_>) -> Result<(), Fault> {
    // It would otherwise show in every directory that a maintainer script makes.
    let before = umask(Mode::from_bits_truncate(0o022));
    let result = work(root, recipe);
    system::unmount(root);
    umask(before);
    result
}

fn work(root: &Path, recipe: &Recipe<'_>) -> Result<(), Fault> {
    packages::put(root, recipe)?;
    (recipe.lay_over)()?;
    release(root)?;
    // A set without a kernel has nothing to make one for.
    if root.join("usr/sbin/update-initramfs").exists() {
        (recipe.told)(Told::Initramfs);
        system::mount(root)?;
        make_initramfs(root, recipe.epoch)?;
        system::unmount(root);
    }
    if recipe.pv_grub {
        crate::kernel::sync(root)?;
    }
    clean::clean(root)
}

const POLICY: &str = "usr/sbin/policy-rc.d";

/// Keeps services from starting.
fn hold_back(root: &Path) -> Result<(), Fault> {
    let policy = root.join(POLICY);
    fs::write(&policy, "#!/bin/sh\nexit 101\n").doing(|| format!("writing {}", policy.display()))?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).doing(|| "making policy-rc.d executable")
}

fn release(root: &Path) -> Result<(), Fault> {
    fs::remove_file(root.join(POLICY)).doing(|| "removing policy-rc.d")
}

/// Makes every kernel's initramfs, and the links to kernel and initramfs that boot loaders know: a kernel's own
/// script was told that there would be none.
fn make_initramfs(root: &Path, epoch: u64) -> Result<(), Fault> {
    system::chroot(root, epoch, &["update-initramfs", "-c", "-k", "all"])?;
    let boot = root.join("boot");
    let mut names = Vec::new();
    for entry in fs::read_dir(&boot).doing(|| format!("reading {}", boot.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            let image = format!("/boot/{name}");
            system::chroot(root, epoch, &["linux-update-symlinks", "install", version, &image])?;
        }
    }
    Ok(())
}

/// Empties a root to start again; what is mounted in it stays, and so do the packages where they lie in it.
fn empty(root: &Path, debs: &[PathBuf]) -> Result<(), Fault> {
    let doing = || format!("emptying {}", root.display());
    let device = fs::symlink_metadata(root).doing(doing)?.dev();
    for entry in fs::read_dir(root).doing(doing)? {
        let path = entry.doing(doing)?.path();
        let meta = fs::symlink_metadata(&path).doing(doing)?;
        if debs.iter().any(|deb| deb.starts_with(&path)) {
            continue;
        }
        if !meta.is_dir() {
            fs::remove_file(&path).doing(doing)?;
            continue;
        }
        empty(&path, debs)?;
        if meta.dev() == device {
            // A directory with a mount point in it stays, and the next unpacking takes it as it is.
            let _ = fs::remove_dir(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptying_spares_the_packages() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("usr/lib")).expect("made");
        fs::create_dir(at(".packages")).expect("made");
        for name in ["usr/lib/x", "top", ".packages/a.deb"] {
            fs::write(at(name), "").expect("written");
        }
        std::os::unix::fs::symlink("usr/lib", at("lib")).expect("linked");
        empty(dir.path(), &[at(".packages/a.deb")]).expect("emptied");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".packages"]);
        assert!(at(".packages/a.deb").exists());
    }
}
