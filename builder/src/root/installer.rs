//! Packs the installer's initramfs: a few programs with the libraries they load, and the modules for any vmm.
//!
//! Whole packages would be three times as much (ICU and Python come along with mkfs.xfs), and every node's install
//! begins with unpacking it all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};

use gatehouse_model::{Doing as _, Fault};

use super::modules::closure;
use super::tree::{Entry, Kind, walk};
use super::{Spec, cpio, overlay_files};

/// Modules that the installer may need under any vmm, with what they depend on.
const MODULES: [&str; 16] = [
    "xen-blkfront",
    "xen-netfront",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "virtio_scsi",
    "sd_mod",
    "ext4",
    // What ext4 asks for by its algorithm's name; where it is not built in.
    "crc32c_generic",
    "crc32c-intel",
    "xfs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859-1",
    "erofs",
];

/// Where the kernel for any machine has the modules that an install there may need: disks, networks, and what those
/// are attached to. A kernel for VMs has few of them.
const MODULES_OF_MACHINES: [&str; 17] = [
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/dca/",
    "kernel/drivers/hid/",
    "kernel/drivers/i2c/",
    "kernel/drivers/message/",
    "kernel/drivers/mmc/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/mdio/",
    "kernel/drivers/net/phy/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/nvme/",
    "kernel/drivers/pci/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/host/",
    "kernel/drivers/usb/storage/",
    "kernel/drivers/virtio/",
];
/// Marks the kernel for VMs in its release.
const CLOUD: &str = "cloud";
/// What drivers load into their devices.
const FIRMWARE: &str = "usr/lib/firmware";

/// The programs that the installer runs, and those that a person needs to look around in it.
const PROGRAMS: [&str; 29] = [
    "usr/bin/cat",
    "usr/bin/chmod",
    "usr/bin/cp",
    "usr/bin/dmesg",
    "usr/bin/ip",
    "usr/bin/ln",
    "usr/bin/ls",
    "usr/bin/lsblk",
    "usr/bin/mkdir",
    "usr/bin/more",
    "usr/bin/mount",
    "usr/bin/mv",
    "usr/bin/rm",
    "usr/bin/sh",
    "usr/bin/sync",
    "usr/bin/umount",
    "usr/bin/uname",
    "usr/sbin/blkid",
    "usr/sbin/blockdev",
    "usr/sbin/chroot",
    "usr/sbin/e2fsck",
    "usr/sbin/insmod",
    "usr/sbin/lsmod",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/mkfs.vfat",
    "usr/sbin/mkfs.xfs",
    "usr/sbin/mkswap",
    "usr/sbin/modprobe",
    "usr/sbin/sfdisk",
];
/// What those programs read: the loader is named by every program, the other by mkfs.ext4.
const FILES: [&str; 2] = ["usr/lib64/ld-linux-x86-64.so.2", "etc/mke2fs.conf"];
/// Directories that the installer mounts on, and the links of a merged /usr.
const TOP: [&str; 11] =
    ["bin", "dev", "gatehouse", "lib", "lib64", "proc", "run", "sbin", "sys", "target", "tmp"];

/// The installer: `base.cpio.zst`, `modules.cpio.zst` and `vmlinuz`.
pub fn pack(root: &Path, spec: &Spec) -> Result<(), Fault> {
    for dir in ["proc", "sys", "dev", "run", "tmp", "target", "gatehouse"] {
        fs::create_dir_all(root.join(dir)).doing(|| format!("making /{dir}"))?;
    }
    let kernel = kernel_release(root)?;
    let image = root.join("boot").join(format!("vmlinuz-{kernel}"));
    fs::copy(&image, spec.out.join("vmlinuz")).doing(|| format!("copying {}", image.display()))?;
    println!("choosing modules and programs");
    let modules = above(choose_modules(root, &kernel)?);
    let programs = above(choose_programs(root, spec)?);
    println!("packing");
    let entries = walk(root, spec.epoch)?;
    for (name, kept) in [("modules", modules), ("base", programs)] {
        let wanted = |entry: &&Entry| kept.contains(&entry.name);
        let to = spec.out.join(format!("{name}.cpio.zst"));
        cpio::write(root, entries.iter().filter(wanted), spec.epoch, &to)?;
    }
    Ok(())
}

/// Paths with every directory above them.
fn above(paths: BTreeSet<String>) -> BTreeSet<String> {
    let dirs: Vec<String> = paths
        .iter()
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .map(|dir| dir.display().to_string())
        .collect();
    paths.into_iter().chain(dirs).collect()
}

/// The programs, what they load, and what was laid over the tree.
fn choose_programs(root: &Path, spec: &Spec) -> Result<BTreeSet<String>, Fault> {
    let mut kept: BTreeSet<String> = TOP.map(str::to_owned).into();
    for name in PROGRAMS.iter().chain(&FILES) {
        keep(root, name, &mut kept)?;
    }
    for name in PROGRAMS {
        for library in libraries(root, name)? {
            keep(root, &library, &mut kept)?;
        }
    }
    for dir in &spec.overlays {
        kept.extend(overlay_files(dir)?.into_iter().map(|(name, ..)| name));
    }
    kept.extend(spec.files.iter().map(|(_, name, _)| name.clone()));
    Ok(kept.into_iter().map(|name| name.trim_start_matches('/').to_owned()).collect())
}

/// Keeps a file and, where it is a link, all that it leads to.
fn keep(root: &Path, name: &str, kept: &mut BTreeSet<String>) -> Result<(), Fault> {
    let mut at = PathBuf::from(name);
    loop {
        let meta = fs::symlink_metadata(root.join(&at));
        let meta = meta.doing(|| format!("looking for /{} in the installer's packages", at.display()))?;
        kept.insert(at.display().to_string());
        if !meta.is_symlink() {
            return Ok(());
        }
        let target = fs::read_link(root.join(&at)).doing(|| format!("reading /{}", at.display()))?;
        at = merged(&at.parent().unwrap_or(Path::new("")).join(target));
    }
}

/// A path without `..`, as it is in a tree whose `/lib` and the like are links into `/usr`.
fn merged(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir => out.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if ["bin", "lib", "lib64", "sbin"].iter().any(|top| out.starts_with(top)) {
        return Path::new("usr").join(out);
    }
    out
}

/// The libraries that a program loads, by the tree's own dynamic loader.
fn libraries(root: &Path, program: &str) -> Result<Vec<String>, Fault> {
    let output = inside(root, &["/lib64/ld-linux-x86-64.so.2", "--list", &format!("/{program}")])?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Fault::new(format!("the loader does not take {program}: {}", words.trim())));
    }
    listed(&String::from_utf8_lossy(&output.stdout))
}

/// Runs a program of the tree.
fn inside(root: &Path, args: &[&str]) -> Result<Output, Fault> {
    let mut command = Command::new("chroot");
    command.arg(root).args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin");
    command.output().doing(|| "starting chroot")
}

/// Reads `ld.so --list`: `name => path (address)`, `path (address)` for the loader itself.
fn listed(text: &str) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains("not found") {
            return Err(Fault::new(format!("a library is missing from the installer's packages: {line}")));
        }
        let path =
            line.split_once("=> ").map_or(line, |(_, path)| path).split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(merged(Path::new(path)).display().to_string());
        }
    }
    Ok(found)
}

fn kernel_release(root: &Path) -> Result<String, Fault> {
    let dir = root.join("usr/lib/modules");
    let entries = fs::read_dir(&dir).doing(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.pop().ok_or_else(|| Fault::new("the installer's packages hold no kernel"))
}

/// The paths of the wanted modules and of those they depend on; the rest is removed, so that depmod's
/// tables name only what is there.
fn choose_modules(root: &Path, kernel: &str) -> Result<BTreeSet<String>, Fault> {
    depmod(root, kernel)?;
    let dir = root.join("usr/lib/modules").join(kernel);
    let text = fs::read_to_string(dir.join("modules.dep")).doing(|| "reading modules.dep")?;
    let everywhere: &[&str] = if kernel.contains(CLOUD) { &[] } else { &MODULES_OF_MACHINES };
    let mut kept = closure(&text, &MODULES, everywhere);
    let prefix = format!("usr/lib/modules/{kernel}/");
    for entry in walk(&dir, u64::MAX)? {
        if entry.kind == Kind::File && entry.name.contains(".ko") && !kept.contains(&entry.name) {
            fs::remove_file(dir.join(&entry.name)).doing(|| format!("removing {}", entry.name))?;
        }
    }
    depmod(root, kernel)?;
    let tables = [
        "dep",
        "dep.bin",
        "alias",
        "alias.bin",
        "symbols.bin",
        "softdep",
        "builtin.bin",
        "builtin.alias.bin",
        "devname",
    ];
    let tables = tables.iter().map(|name| format!("{prefix}modules.{name}"));
    kept = kept.iter().map(|name| format!("{prefix}{name}")).chain(tables).collect();
    if root.join(FIRMWARE).is_dir() {
        let files = walk(&root.join(FIRMWARE), u64::MAX)?.into_iter().filter(|entry| entry.kind != Kind::Dir);
        kept.extend(files.map(|entry| format!("{FIRMWARE}/{}", entry.name)));
    }
    Ok(kept)
}

fn depmod(root: &Path, kernel: &str) -> Result<(), Fault> {
    let output = inside(root, &["depmod", kernel])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(Fault::new(format!("depmod: {}", words.trim()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_loader_lists() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f0)\n";
        let found = listed(text).expect("nothing is missing");
        assert_eq!(found, ["usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib64/ld-linux-x86-64.so.2"]);
        assert!(listed("\tlibx.so.1 => not found\n").is_err());
        assert_eq!(merged(Path::new("usr/sbin/../bin/kmod")), Path::new("usr/bin/kmod"));
    }
}
