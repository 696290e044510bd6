//! `fstab` on a node that is installed: the table of mounts. Partitions are made by the installer and never again.

use std::path::Path;

use gatehouse_lcfg::Profile;
use gatehouse_model::Fault;

use super::work::Work;
use crate::node::partitions::{self, Wanted};
use crate::node::render::{self, Mount};

const TABLE: &str = "/etc/fstab";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let before = render::read_fstab(&work.target.read(TABLE));
    let mut table = mounts(work.profile, &before)?;
    for tag in work.words("entries") {
        let line = work.of("entry", tag);
        let [entry] = &render::read_fstab(line)[..] else {
            return Err(work.wrong(
                "entry",
                tag,
                "write one line as fstab(5) has it: device, path, type and options",
            ));
        };
        table.push(entry.clone());
    }
    work.write(TABLE, 0o644, &render::fstab(&table))?;
    if !work.is_running() || !work.settle()? {
        return Ok(());
    }
    work.systemctl(&["daemon-reload"])?;
    for mount in table.iter().filter(|mount| mount.point.starts_with('/')) {
        let old = before.iter().find(|old| old.point == mount.point);
        if old.is_some_and(|old| old.options != render::options(mount)) {
            work.target.run("mount", &["-o", "remount", &mount.point])?;
        }
    }
    // What has left the table stays mounted until the next boot: it may be in use.
    work.target.run("mount", &["-a"])?;
    work.target.run("swapon", &["-a"]).map(drop)
}

/// The lines of the profile's partitions, each with the file system that the installer made for it.
fn mounts(profile: &Profile, before: &[Mount]) -> Result<Vec<Mount>, Fault> {
    let mut swaps = before.iter().filter(|mount| mount.kind == "swap");
    let mut table = Vec::new();
    for disk in profile.tags("fstab", "disks") {
        if profile.get("fstab", &format!("dopartition_{disk}")) != Some("yes") {
            continue;
        }
        for wanted in partitions::wanted(profile, disk)? {
            let grows = wanted.grows();
            let Wanted { tag, kind, point, options, .. } = wanted;
            let swap = kind == partitions::Kind::Swap;
            if point.is_empty() && !swap {
                continue;
            }
            let made = if swap { swaps.next() } else { before.iter().find(|mount| mount.point == point) };
            let made = made.ok_or_else(|| {
                Fault::new(format!(
                    "fstab.partitions_{disk} has {tag}, for which this node has no file system"
                ))
                .help("partitions are made when a node is installed; install it anew, or take it out")
            })?;
            table.push(Mount { options, grows, ..made.clone() });
        }
    }
    // As the installer sorts them: swap space, then by depth.
    table.sort_by_key(|mount| {
        let depth = if mount.kind == "swap" { 0 } else { Path::new(&mount.point).components().count() };
        (depth, mount.point.clone())
    });
    Ok(table)
}
