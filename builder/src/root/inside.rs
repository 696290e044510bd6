//! Makes one root; runs as root of its namespaces, alone with a tree and no network.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use super::{Finish, Spec, clean, installer, overlay_files, pack, packages, system};

/// Makes the root that a specification file describes; prints a line as each part is done.
///
/// # Errors
/// A package cannot be unpacked or configured; the message quotes the script's output.
pub fn make(spec: &Path) -> Result<(), Fault> {
    let text = fs::read_to_string(spec).doing(|| format!("reading {}", spec.display()))?;
    let spec: Spec = serde_json::from_str(&text).doing(|| format!("reading {}", spec.display()))?;
    // The umask would otherwise show in every directory that a maintainer script makes.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for dir in &spec.stale {
        // Left by a build that died; if it cannot go now, the next build tries again.
        let _ = fs::remove_dir_all(dir);
    }
    let root = spec.scratch.join("root");
    fs::create_dir_all(&root).doing(|| format!("making {}", root.display()))?;
    let result = fill(&spec, &root);
    system::unmount(&root);
    fs::remove_dir_all(&spec.scratch).doing(|| format!("removing {}", spec.scratch.display()))?;
    result
}

fn fill(spec: &Spec, root: &Path) -> Result<(), Fault> {
    if spec.finish == Finish::Tools {
        packages::plain(root, spec)?;
        return fs::rename(root, spec.out.join("tree")).doing(|| "moving the tools");
    }
    if spec.finish == Finish::Installer {
        settle_conffiles(root, &packages::plain(root, spec)?)?;
        lay_over(spec, root)?;
        return installer::pack(root, spec);
    }
    let unpacked = packages::ready(root, spec)?;
    println!("configuring");
    hold_back(root)?;
    configure(root, spec, &unpacked)?;
    lay_over(spec, root)?;
    release(root)?;
    // A set without a kernel has nothing to make one for.
    if root.join("usr/sbin/update-initramfs").exists() {
        println!("making the initramfs");
        make_initramfs(root, spec.epoch)?;
    }
    system::unmount(root);
    if spec.finish == Finish::Layer {
        gatehouse_deb::kernel::sync(root)?;
    }
    clean::clean(root)?;
    println!("packing");
    match spec.finish {
        Finish::Host => pack::host(root, spec),
        Finish::Layer => pack::layer(root, spec),
        Finish::Installer | Finish::Tools => Ok(()),
    }
}

/// Puts configuration files where `dpkg --configure` would, for a tree that is not configured.
fn settle_conffiles(root: &Path, unpacked: &[gatehouse_deb::Unpacked]) -> Result<(), Fault> {
    for conffile in unpacked.iter().flat_map(|package| package.control.conffiles()) {
        let to = root.join(conffile.path.trim_start_matches('/'));
        let waiting = root.join(format!("{}.dpkg-new", conffile.path.trim_start_matches('/')));
        if waiting.exists() {
            fs::rename(&waiting, &to).doing(|| format!("putting {} in place", conffile.path))?;
        }
    }
    Ok(())
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

/// Configures what every Debian has before the rest: scripts use it (adduser, say) without saying so, because on
/// every system that a package is added to it is there already. A kernel's script would make an initramfs before
/// everything is in place.
fn configure(root: &Path, spec: &Spec, unpacked: &[gatehouse_deb::Unpacked]) -> Result<(), Fault> {
    let controls: Vec<_> = unpacked.iter().map(|package| &package.control).collect();
    let first = gatehouse_deb::everywhere(&controls);
    let names: Vec<&str> = first.into_iter().map(|index| controls[index].name()).collect();
    for what in [names.as_slice(), &["-a"]] {
        if !what.is_empty() {
            let args = ["env", "INITRD=No", "dpkg", "--force-confold", "--force-unsafe-io", "--configure"];
            system::chroot(root, spec.epoch, &[&args, what].concat())?;
        }
    }
    Ok(())
}

fn lay_over(spec: &Spec, root: &Path) -> Result<(), Fault> {
    for dir in &spec.overlays {
        for (name, from, mode) in overlay_files(dir)? {
            put(&from, &root.join(name.trim_start_matches('/')), mode)?;
        }
    }
    for (from, name, mode) in &spec.files {
        put(from, &root.join(name.trim_start_matches('/')), *mode)?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<(), Fault> {
    let doing = || format!("laying {} over the tree", to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).doing(doing)?;
    }
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_file(to).doing(doing)?;
    }
    if fs::symlink_metadata(from).doing(doing)?.is_symlink() {
        return symlink(fs::read_link(from).doing(doing)?, to).doing(doing);
    }
    fs::copy(from, to).doing(doing)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).doing(doing)?;
    chown(to, Some(0), Some(0)).doing(doing)
}
