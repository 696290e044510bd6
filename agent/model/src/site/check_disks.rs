//! `[[disk]]`: which disks the site takes.

use super::read::{Reader, Section};
use super::values;
use super::{DiskRule, DiskSort, Erase, InstallTo};
use crate::Size;

pub(super) const DISK: &[&str] = &[
    "role", "serial", "model", "vendor", "path", "wwn", "bus", "ssd", "min-size", "max-size", "sort",
    "count", "mirror", "erase",
];

const BUSES: &[(&str, &str)] = &[
    ("nvme", "nvme"),
    ("sata", "sata"),
    ("scsi", "scsi"),
    ("usb", "usb"),
    ("virtio", "virtio"),
    ("xen", "xen"),
    ("mmc", "mmc"),
];

/// The rule for the disk, or for both disks of a mirror.
pub(super) fn disks(r: &mut Reader, top: &Section<'_>, to: Option<InstallTo>) -> Option<DiskRule> {
    let sections = top.sections(r, "disk");
    if !top.has("disk") {
        r.missing(1, "disk: not given; write [[disk]], with min-size = \"8GiB\" if any disk will do");
        return None;
    }
    let mut rules = Vec::new();
    for section in &sections {
        section.only(r, DISK);
        if section.has("role") {
            let what = "disk.role: the nodes' disks are always on the system's disk; remove role, and the [[disk]] for \
                        the other one";
            r.problem(section.line_of(r, "role"), what);
        } else if section.line != sections[0].line {
            let what =
                "disk: a second one; one [[disk]] names the disk, or both disks of a mirror; remove this one";
            r.problem(section.line, what);
        }
        let rule = disk(r, section);
        mirror(r, section, &rule, to);
        rules.push(rule);
    }
    rules.into_iter().next()
}

/// The rule that a section has for a disk.
pub(super) fn disk(r: &mut Reader, section: &Section<'_>) -> DiskRule {
    let min_size = section.parsed::<Size>(r, "min-size").map(|at| at.value);
    let max = section.parsed::<Size>(r, "max-size");
    if let (Some(min), Some(max)) = (min_size, &max)
        && min > max.value
    {
        let what =
            format!("{}: {} is less than min-size, {min}; write more", section.path("max-size"), max.value);
        r.problem(max.line, what);
    }
    let mut glob = |key| section.read(r, key, values::glob).map(|at| at.value);
    let (serial, model, vendor) = (glob("serial"), glob("model"), glob("vendor"));
    let (path, wwn) = (glob("path"), glob("wwn"));
    let sorts = [("smallest", DiskSort::Smallest), ("largest", DiskSort::Largest)];
    let erases = [("if-blank", Erase::IfBlank), ("always", Erase::Always)];
    let mirror = section.flag(r, "mirror").unwrap_or(false);
    DiskRule {
        serial,
        model,
        vendor,
        path,
        wwn,
        bus: section.word(r, "bus", BUSES).map(|at| at.value.to_owned()),
        ssd: section.flag(r, "ssd"),
        min_size,
        max_size: max.map(|at| at.value),
        sort: section.word(r, "sort", &sorts).map(|at| at.value),
        count: section.number(r, "count", 1, 64).unwrap_or(if mirror { 2 } else { 1 }),
        mirror,
        erase: section.word(r, "erase", &erases).map_or(Erase::IfBlank, |at| at.value),
    }
}

/// A mirror is of two disks, and of disks that the rule names.
fn mirror(r: &mut Reader, section: &Section<'_>, rule: &DiskRule, to: Option<InstallTo>) {
    if !rule.mirror {
        return;
    }
    if rule.count != 2 {
        let what = "disk.count: a mirror is of 2 disks; write count = 2, or remove it";
        r.problem(section.line_of(r, "count"), what);
    }
    if to == Some(InstallTo::SelfDisk) {
        let what = "disk.mirror: install.to = \"self\" means one disk, and a mirror is of two that the rule names; write \
                    to = \"rule\" under [install], or remove mirror";
        r.problem(section.line_of(r, "mirror"), what);
    }
}
