//! `grub`: what the GRUB of a hypervisor, or of a machine of its own, reads from the node's own disk.

use std::fs;

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;
use crate::host::machines::menu::CONSOLES;
use crate::node::render::{self, BootEntry};

/// What the kernel is told in a VM under Xen.
const XEN: &str = "console=hvc0";
/// What it is told in one that QEMU runs, where a kernel that panics would stand still and not end the machine.
const KVM: &str = "console=ttyS0 panic=5";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let table = render::read_fstab(&work.target.read("/etc/fstab"));
    let root =
        table.iter().find(|mount| mount.point == "/").and_then(|mount| mount.device.strip_prefix("UUID="));
    let root = root
        .ok_or_else(|| {
            Fault::new("/etc/fstab names no root file system by its UUID")
                .help("run fstab preparedisks before")
        })?
        .to_owned();
    let own_boot = table.iter().any(|mount| mount.point == "/boot");
    let Found { kernel, unpacked, initrd } = find(work, own_boot)?;
    let timeout = work.get("timeout").parse().unwrap_or(0);
    let cmdline = work.get("cmdline").to_owned();
    let (consoles, xen) = if work.home.machine { (CONSOLES, None) } else { (KVM, Some((unpacked, XEN))) };
    let entry = BootEntry { kernel, initrd, root, consoles, xen, cmdline, timeout };
    work.write("/boot/grub/grub.cfg", 0o644, &render::grub_cfg(&entry))
}

/// What is started, as a boot loader names it.
struct Found {
    /// The kernel as Debian has it.
    kernel: String,
    /// The same, unpacked for PV-GRUB.
    unpacked: String,
    initrd: Option<String>,
}

/// The links follow a kernel upgrade; they are of no use where `/boot` is a file system of its own, on which they do not
/// lie.
fn find(work: &Work<'_>, own_boot: bool) -> Result<Found, Fault> {
    gatehouse_deb::kernel::sync(&work.target.at("/"))?;
    let there = |path: &str| fs::metadata(work.target.at(path)).is_ok();
    let (link, unpacked) = ("/vmlinuz".to_owned(), format!("/{}", gatehouse_deb::kernel::LINK));
    if !own_boot && there(&link) && there(&unpacked) {
        let initrd = there("/initrd.img").then(|| "/initrd.img".into());
        return Ok(Found { kernel: link, unpacked, initrd });
    }
    let mut versions = Vec::new();
    for entry in fs::read_dir(work.target.at("/boot")).doing(|| "reading /boot")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        versions.extend(name.strip_prefix("vmlinuz-").map(str::to_owned));
    }
    versions.sort_by_cached_key(|version| version_key(version));
    let newest = versions.pop().ok_or_else(|| {
        Fault::new("there is no kernel in /boot")
            .help("add a linux-image package to the node's list, or leave grub out of its components")
    })?;
    let above = if own_boot { "" } else { "/boot" };
    let initrd = there(&format!("/boot/initrd.img-{newest}"));
    Ok(Found {
        kernel: format!("{above}/vmlinuz-{newest}"),
        unpacked: format!("{above}/vmlinux-{newest}.gz"),
        initrd: initrd.then(|| format!("{above}/initrd.img-{newest}")),
    })
}

/// Orders kernel releases by their numbers: 6.12.100 is newer than 6.12.48.
fn version_key(version: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(word);
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (number, behind) = behind.split_at(digits);
        key.push((number.parse().unwrap_or(0), text.to_owned()));
        rest = behind;
    }
    key
}
