//! Makes one root; runs as root of its namespaces, alone with a tree and no network.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MsFlags, mount};

use super::{Finish, Spec, clean, installer, overlay_files, pack};

/// Device files that maintainer scripts use; bound from outside because a user namespace may not make any.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

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
    unmount(&root);
    fs::remove_dir_all(&spec.scratch).doing(|| format!("removing {}", spec.scratch.display()))?;
    result
}

fn fill(spec: &Spec, root: &Path) -> Result<(), Fault> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let told = |_: usize, name: &str| println!("unpacking {name}");
    let unpacked = gatehouse_deb::unpack_all(&spec.debs, root, threads, &told)?;
    if spec.finish == Finish::Tools {
        return fs::rename(root, spec.out.join("tree")).doing(|| "moving the tools");
    }
    if spec.finish == Finish::Installer {
        settle_conffiles(root, &unpacked)?;
        lay_over(spec, root)?;
        return installer::pack(root, spec);
    }
    gatehouse_deb::write(root, &unpacked, spec.epoch)?;
    mount_system(root)?;
    println!("configuring");
    hold_back(root)?;
    configure(root, spec)?;
    lay_over(spec, root)?;
    release(root)?;
    println!("making the initramfs");
    chroot(root, spec, &["update-initramfs", "-c", "-k", "all"])?;
    unmount(root);
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

fn mount_system(root: &Path) -> Result<(), Fault> {
    let bind = |from: &str, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .doing(|| format!("binding {from} to {}", to.display()))
    };
    let fresh = |kind: &str, to: &Path, options: Option<&str>| {
        fs::create_dir_all(to).doing(|| format!("making {}", to.display()))?;
        mount(Some(kind), to, Some(kind), MsFlags::empty(), options)
            .doing(|| format!("mounting {kind} on {}", to.display()))
    };
    fresh("proc", &root.join("proc"), None)?;
    // In a sticky directory that everyone may write, the kernel lets nobody open another's device for creating.
    for (dir, mode) in [("run", "mode=0755"), ("tmp", "mode=1777"), ("dev", "mode=0755")] {
        fresh("tmpfs", &root.join(dir), Some(mode))?;
    }
    for name in DEVICES {
        let at = root.join("dev").join(name);
        fs::write(&at, "").doing(|| format!("making {}", at.display()))?;
        bind(&format!("/dev/{name}"), &at)?;
    }
    for (to, at) in [("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout")] {
        symlink(to, root.join("dev").join(at)).doing(|| format!("making /dev/{at}"))?;
    }
    fs::create_dir_all(root.join("dev/shm")).doing(|| "making /dev/shm")
}

fn unmount(root: &Path) {
    for dir in ["proc", "run", "tmp", "dev"] {
        // Not mounted is what is wanted.
        let _ = nix::mount::umount2(&root.join(dir), nix::mount::MntFlags::MNT_DETACH);
    }
}

const POLICY: &str = "usr/sbin/policy-rc.d";
const INITRAMFS_CONF: &str = "etc/initramfs-tools/update-initramfs.conf";
const INITRAMFS_HOOK: &str = "etc/kernel/postinst.d/initramfs-tools";

/// Keeps services from starting, and the initramfs from being made before everything is in place.
fn hold_back(root: &Path) -> Result<(), Fault> {
    let policy = root.join(POLICY);
    fs::write(&policy, "#!/bin/sh\nexit 101\n").doing(|| format!("writing {}", policy.display()))?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
    if root.join(INITRAMFS_HOOK).exists() {
        fs::set_permissions(root.join(INITRAMFS_HOOK), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn release(root: &Path) -> Result<(), Fault> {
    fs::remove_file(root.join(POLICY)).doing(|| "removing policy-rc.d")?;
    if root.join(INITRAMFS_HOOK).exists() {
        fs::set_permissions(root.join(INITRAMFS_HOOK), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn configure(root: &Path, spec: &Spec) -> Result<(), Fault> {
    run_preinsts(root, spec)?;
    // update_initramfs=no makes the package's trigger do nothing; the configuration file is put back below.
    let conf = root.join(INITRAMFS_CONF);
    let kept = fs::read(&conf).ok();
    if kept.is_some() {
        fs::write(&conf, "update_initramfs=no\n").doing(|| "holding the initramfs back")?;
    }
    let done = chroot(root, spec, &["dpkg", "--configure", "-a", "--force-confold", "--force-unsafe-io"]);
    if let Some(bytes) = kept {
        fs::write(&conf, bytes).doing(|| "putting update-initramfs.conf back")?;
    }
    done
}

/// Runs what dpkg would have run before it unpacked each package.
fn run_preinsts(root: &Path, spec: &Spec) -> Result<(), Fault> {
    let info = root.join("var/lib/dpkg/info");
    let mut scripts: Vec<_> = fs::read_dir(&info)
        .doing(|| "reading dpkg's database")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".preinst"))
        .collect();
    // base-passwd makes /etc/passwd, which every other script relies on.
    scripts.sort_by_key(|name| (!name.starts_with("base-passwd."), name.clone()));
    for script in scripts {
        let package = script.trim_end_matches(".preinst").split(':').next().unwrap_or_default();
        let path = format!("/var/lib/dpkg/info/{script}");
        let env = format!("DPKG_MAINTSCRIPT_PACKAGE={package}");
        chroot(root, spec, &["env", &env, "DPKG_MAINTSCRIPT_NAME=preinst", &path, "install"])
            .doing(|| format!("running the preinst of {package}"))?;
    }
    Ok(())
}

/// Runs a program in the tree with the same few variables everywhere.
fn chroot(root: &Path, spec: &Spec, args: &[&str]) -> Result<(), Fault> {
    let output = Command::new("chroot")
        .arg(root)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("DPKG_MAINTSCRIPT_ARCH", "amd64")
        .env("DPKG_ADMINDIR", "/var/lib/dpkg")
        .env("DPKG_ROOT", "")
        .env("SYSTEMD_OFFLINE", "1")
        .env("SOURCE_DATE_EPOCH", spec.epoch.to_string())
        .stdin(Stdio::null())
        .output()
        .doing(|| "starting chroot")?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    let tail: Vec<&str> = words.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Fault::new(format!("{} ended with {}:\n{}", args[0], output.status, tail.join("\n"))))
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
