//! What lies over every node's packages: the files of `overlays/node`, carried in the program.
//!
//! A layer has them already, since its initramfs is made with them; a node installed package by package gets them
//! from here, and both are the same in the end.

use gatehouse_model::Fault;

use super::target::Target;

/// Files: path, mode, text.
const FILES: [(&str, u32, &str); 7] = [
    (
        "/etc/initramfs-tools/conf.d/gatehouse",
        0o644,
        include_str!("../../../overlays/node/etc/initramfs-tools/conf.d/gatehouse"),
    ),
    (
        "/etc/initramfs-tools/hooks/gatehouse",
        0o755,
        include_str!("../../../overlays/node/etc/initramfs-tools/hooks/gatehouse"),
    ),
    (
        "/etc/kernel/postinst.d/zz-gatehouse",
        0o755,
        include_str!("../../../overlays/node/etc/kernel/postinst.d/zz-gatehouse"),
    ),
    (
        "/etc/kernel/postrm.d/zz-gatehouse",
        0o755,
        include_str!("../../../overlays/node/etc/kernel/postrm.d/zz-gatehouse"),
    ),
    (
        "/etc/systemd/system/gatehouse-client.service",
        0o644,
        include_str!("../../../overlays/node/etc/systemd/system/gatehouse-client.service"),
    ),
    (
        "/etc/systemd/system/systemd-udev-trigger.service.d/gatehouse.conf",
        0o644,
        include_str!(
            "../../../overlays/node/etc/systemd/system/systemd-udev-trigger.service.d/gatehouse.conf"
        ),
    ),
    (
        "/etc/systemd/system/getty@tty0.service.d/gatehouse.conf",
        0o644,
        include_str!("../../../overlays/node/etc/systemd/system/getty@tty0.service.d/gatehouse.conf"),
    ),
];

/// Units that do nothing on a node: for hardware that no virtual machine has, for file systems that nobody mounts,
/// and apt's own upgrades, where a profile says which versions a node has. In an emulated machine each unit takes
/// a second of every start.
const MASKED: [&str; 13] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-pstore.service",
];

/// Lays it all over a root.
///
/// # Errors
/// What the file system says.
pub fn lay_over(target: &Target) -> Result<(), Fault> {
    for (path, mode, text) in FILES {
        target.write(path, mode, text.as_bytes())?;
    }
    for unit in MASKED {
        target.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn below(dir: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(dir).expect("there").flatten() {
            if entry.file_type().expect("known").is_dir() {
                below(&entry.path(), found);
            } else {
                found.insert(entry.path());
            }
        }
    }

    #[test]
    fn nothing_of_the_overlay_is_left_out() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays/node");
        let mut there = BTreeSet::new();
        below(&top, &mut there);
        let files = FILES.iter().map(|(path, ..)| top.join(path.trim_start_matches('/')));
        let units = MASKED.iter().map(|unit| top.join("etc/systemd/system").join(unit));
        assert_eq!(files.chain(units).collect::<BTreeSet<_>>(), there);
    }
}
