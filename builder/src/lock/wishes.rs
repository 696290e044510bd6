//! What the host, the installer and the build itself need, whatever the site: the fixed package lists.

use std::collections::BTreeMap;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{SET_EXTRA, SET_HOST, SET_INSTALLER, SET_TOOLS, Site};

/// A lean host: it boots, is reached by ssh, makes filesystems, bridges and filters, signs its pool (`sqop`), and takes
/// its site by `git push`. Without libpam-systemd a login starts no service manager of its own, which takes an emulated
/// machine 20 s each time.
const HOST: [&str; 23] = [
    "chrony",
    "dbus",
    "e2fsprogs",
    "efibootmgr",
    "erofs-utils",
    "fdisk",
    "git",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "linux-image-amd64",
    "nano",
    "nftables",
    "openssh-server",
    "procps",
    "sqop",
    "systemd",
    "systemd-sysv",
    "udev",
    "xfsprogs",
    "zstd",
];

/// What a host needs to run nodes under Xen; `grub-xen-host` lets a node start its own kernel.
const HOST_XEN: [&str; 3] = ["grub-xen-host", "xen-system-amd64", "xen-utils-common"];

/// The installer: unpacked without maintainer scripts, so nothing that needs configuring.
const INSTALLER: [&str; 13] = [
    "base-files",
    "coreutils",
    "dosfstools",
    "dash",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "kmod",
    "libc-bin",
    "linux-image-cloud-amd64",
    "mount",
    "util-linux",
    "xfsprogs",
];

/// Programs that make images, the kernel of User Mode Linux, and what a trial without a host signs its pool with.
const TOOLS: [&str; 8] = [
    "base-files",
    "erofs-utils",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "libc-bin",
    "sqop",
    "user-mode-linux",
];

/// The wishes of every set that does not come from a node's package list.
pub fn of_host(site: &Site) -> BTreeMap<String, Vec<String>> {
    let mut host: Vec<String> = HOST.iter().map(ToString::to_string).collect();
    if site.host.vmm == VmmKind::Xen {
        host.extend(HOST_XEN.iter().map(ToString::to_string));
    }
    host.extend(site.packages.host.iter().cloned());
    host.extend(site.packages.firmware.iter().cloned());
    host.sort();
    host.dedup();
    let fixed = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut sets = BTreeMap::from([
        (SET_HOST.to_owned(), host),
        (SET_INSTALLER.to_owned(), fixed(&INSTALLER)),
        (SET_TOOLS.to_owned(), fixed(&TOOLS)),
    ]);
    if !site.packages.extra.is_empty() {
        sets.insert(SET_EXTRA.to_owned(), site.packages.extra.clone());
    }
    sets
}
