//! What the host, the installer and the build itself need, whatever the site: the fixed package lists.

use std::collections::BTreeMap;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{SET_EXTRA, SET_HOST, SET_INSTALLER, SET_MACHINE, SET_TOOLS, Site};

/// A lean host: it boots, is reached by ssh, makes filesystems, bridges and filters, signs its pool (`sqop`), makes the
/// Grid authority (`openssl`), serves machines that start from the network (dnsmasq), mirrors its disks (mdadm), encrypts
/// its own backups (`age`), and takes its site by `git push`. The same for sites with and without such machines or mirrors, which may share a medium. Without
/// libpam-systemd a login starts no service manager of its own, which takes an emulated machine 20 s each time.
const HOST: [&str; 27] = [
    "age",
    "chrony",
    "dbus",
    "dnsmasq-base",
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
    "mdadm",
    "nano",
    "nftables",
    "openssh-server",
    "openssl",
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

/// What a host needs to run nodes under QEMU; `setpriv`, which gives each a user of its own, every Debian has.
const HOST_KVM: [&str; 1] = ["qemu-system-x86"];

/// The installer: unpacked without maintainer scripts, so nothing that needs configuring. A kernel comes with it.
const INSTALLER: [&str; 12] = [
    "base-files",
    "coreutils",
    "dosfstools",
    "dash",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "kmod",
    "libc-bin",
    "mount",
    "util-linux",
    "xfsprogs",
];

/// The installer's kernel in VMs, and on machines of their own.
const KERNEL_OF_VMS: &str = "linux-image-cloud-amd64";
const KERNEL_OF_MACHINES: &str = "linux-image-amd64";

/// Programs that make images, the kernel of User Mode Linux, and what a trial without a host makes its keys and signs its
/// pool with.
const TOOLS: [&str; 9] = [
    "base-files",
    "erofs-utils",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "libc-bin",
    "openssl",
    "sqop",
    "user-mode-linux",
];

/// The wishes of every set that does not come from a node's package list.
pub fn of_host(site: &Site) -> BTreeMap<String, Vec<String>> {
    let mut host: Vec<String> = HOST.iter().map(ToString::to_string).collect();
    let of_vmm: &[&str] = match site.host.vmm {
        VmmKind::Xen => &HOST_XEN,
        VmmKind::Kvm => &HOST_KVM,
        VmmKind::Uml => &[],
    };
    host.extend(of_vmm.iter().map(ToString::to_string));
    let has_machines = site.machines().next().is_some();
    host.extend(site.packages.host.iter().cloned());
    host.extend(site.packages.firmware.iter().cloned());
    host.sort();
    host.dedup();
    let fixed = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let installer = |kernel: &str, firmware: &[String]| {
        let mut all = [fixed(&INSTALLER), vec![kernel.to_owned()], firmware.to_vec()].concat();
        all.sort();
        all
    };
    let mut sets = BTreeMap::from([
        (SET_HOST.to_owned(), host),
        (SET_INSTALLER.to_owned(), installer(KERNEL_OF_VMS, &[])),
        (SET_TOOLS.to_owned(), fixed(&TOOLS)),
    ]);
    if has_machines {
        sets.insert(SET_MACHINE.to_owned(), installer(KERNEL_OF_MACHINES, &site.packages.firmware));
    }
    if !site.packages.extra.is_empty() {
        sets.insert(SET_EXTRA.to_owned(), site.packages.extra.clone());
    }
    sets
}
