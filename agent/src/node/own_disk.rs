//! The disk of a machine that a node is on: which it is, and what makes the machine start from it.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use gatehouse_disk::{Synced, embed_grub};
use gatehouse_model::site::{DiskRule, Erase};
use gatehouse_model::{Doing as _, Fault, FileRef, MachineBoot, NodeName, Refusal};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::host::args::KernelArgs;
use crate::host::choose;
use crate::host::facts::{DiskFact, Facts, list};
use crate::host::late::{self, Watch};
use crate::host::machines::menu::{self, MARK};
use crate::node::client::Client;
use crate::node::disks::Made;
use crate::node::download::{DepotFile, fetch};
use crate::node::partitions::{Kind, Wanted};

/// Sizes of what is before the profile's own partitions: GRUB for a BIOS, and room for FAT32 on any sector size.
const BIOS_MIB: u64 = 1;
const ESP_MIB: u64 = 320;
/// GRUB for a BIOS knows no other sectors.
const BIOS_SECTOR: u64 = 512;

/// The name of the boot partition by which a node's disk is known again; it fits into a GPT with any node's name.
fn label(node: &NodeName) -> String {
    format!("gh:{node}")
}

/// What comes before the profile's partitions.
pub(super) fn loaders_parts(node: &NodeName) -> [Wanted; 2] {
    let part = |tag: &str, mib, kind| Wanted {
        tag: tag.to_owned(),
        mib: Some(mib),
        kind,
        point: String::new(),
        options: String::new(),
    };
    [part("gh:bios", BIOS_MIB, Kind::BiosBoot), part(&label(node), ESP_MIB, Kind::Esp)]
}

/// Looks at the machine and chooses, once the disks that show late are there, too; `waits` hears what is waited for.
///
/// # Errors
/// As [`choose()`].
pub(super) fn of_this_machine(
    rule: &DiskRule,
    node: &NodeName,
    waits: &mut dyn FnMut(&str),
) -> Result<String, Fault> {
    let args = KernelArgs::default();
    let mut machine = Watch::of_this_machine(&args);
    // Enrolling has taken as long as most disks need.
    Ok(machine.decide(late::quiet(rule, Duration::ZERO), |facts| choose(rule, facts, node), waits)?)
}

/// The disk that a node is put on: of those that the rule names the one that it was on before, else the one there is, if
/// it is blank. What is left of the node elsewhere does not count: the rule says where it belongs now.
///
/// # Errors
/// The rule does not name just one, or something is on it; every disk is listed.
fn choose(rule: &DiskRule, facts: &Facts, node: &NodeName) -> Result<String, Refusal> {
    let named = |disk: &&DiskFact| choose::against(rule, disk, facts).is_empty();
    let own = |disk: &&DiskFact| disk.part(&label(node)).is_some() && named(disk);
    match facts.disks.iter().filter(own).collect::<Vec<_>>().as_slice() {
        [] => {}
        [disk] => return Ok(disk.name.clone()),
        several => {
            let seen = list(several.iter().copied());
            let what =
                format!("{node} was on each of these disks before, and the rule names all of them:{seen}");
            return Err(Refusal::new(
                what,
                "pull out those that are not meant, or name the disk by serial, wwn or path in the node's machine = { … }",
            ));
        }
    }
    let help =
        "change the keys of the node's machine = { … } in site.toml so that they name the disk, or add sort";
    let disk = choose::disks(rule, facts).map_err(|refusal| Refusal::new(refusal.what, help))?[0];
    let blank = disk.holds.is_empty() && disk.partitions.is_empty() && disk.trouble.is_none();
    let host = disk.partitions.iter().any(|part| part.name.starts_with("gh-"));
    if blank || (rule.erase == Erase::Always && !host) {
        return Ok(disk.name.clone());
    }
    Err(Refusal::new(
        format!("the disk that would be {node}'s is not blank: {disk}{}", facts.beside(disk)),
        "take another disk, or write erase = \"always\" into the node's machine = { … } if all of that may go; \
         a host's disk is never erased by a rule",
    ))
}

/// Makes a disk with a finished node on it one that the machine starts from: the last thing that is written.
///
/// # Errors
/// The server does not have the loaders; the disk cannot be written.
pub(super) fn make_bootable(
    disk: &str,
    node: &NodeName,
    made: &[Made],
    client: &Client,
    boot: &MachineBoot,
) -> Result<(), Fault> {
    let part = |kind: Kind| made.iter().find(|part| part.wanted.kind == kind);
    let at = |point: &str| made.iter().find(|part| part.wanted.point == point);
    let (own_boot, root) = (at("/boot"), at("/"));
    let (Some(esp), Some(bios), Some(start)) = (part(Kind::Esp), part(Kind::BiosBoot), own_boot.or(root))
    else {
        return Err(Fault::new("the disk lacks a partition that it is started from"));
    };
    let menu = menu::on_disk(start.number, own_boot.is_some());
    let files = [
        ("EFI/BOOT/BOOTX64.EFI".to_owned(), download(client, &boot.efi)?),
        ("grub/grub.cfg".to_owned(), menu.into_bytes()),
        (format!("{}/{node}", MARK.trim_start_matches('/')), b"\n".to_vec()),
    ];
    put_files(&esp.node, &files).doing(|| format!("writing {}", esp.node.display()))?;
    let (core, first) = (download(client, &boot.core)?, download(client, &boot.boot)?);
    embed(disk, bios, &first, &core).doing(|| format!("making /dev/{disk} bootable"))
}

fn put_files(esp: &Path, files: &[(String, Vec<u8>)]) -> Result<(), Fault> {
    let point = Path::new("/run/esp");
    fs::create_dir_all(point)?;
    mount(Some(esp), point, Some("vfat"), MsFlags::empty(), None::<&str>)?;
    let put = |(path, bytes): &(String, Vec<u8>)| {
        let to = point.join(path);
        to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&to, bytes))
    };
    let put = files.iter().try_for_each(put);
    // Unmounting writes everything out.
    umount2(point, MntFlags::empty())?;
    Ok(put?)
}

fn embed(disk: &str, bios: &Made, first: &[u8], core: &[u8]) -> Result<(), Fault> {
    let number = |path: String| {
        let text = fs::read_to_string(&path).doing(|| format!("reading {path}"))?;
        text.trim().parse::<u64>().doing(|| format!("reading {path}"))
    };
    if number(format!("/sys/block/{disk}/queue/logical_block_size"))? != BIOS_SECTOR {
        return Ok(());
    }
    let part = bios.node.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (start, sectors) = (
        number(format!("/sys/block/{disk}/{part}/start"))?,
        number(format!("/sys/block/{disk}/{part}/size"))?,
    );
    let device = OpenOptions::new().read(true).write(true).open(format!("/dev/{disk}"))?;
    embed_grub(&mut Synced(&device), first, core, start, sectors)?;
    Ok(device.sync_all()?)
}

fn download(client: &Client, file: &FileRef) -> Result<Vec<u8>, Fault> {
    let source = DepotFile { client: client.clone(), path: file.path.clone() };
    let mut bytes = Vec::new();
    fetch(&source, file, &mut |piece| {
        bytes.extend(piece);
        Ok(())
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::{Firmware, PartFact};

    fn disk(name: &str, parts: &[&str]) -> DiskFact {
        let part = |name: &&str| PartFact { number: 2, name: (*name).to_owned(), ..PartFact::default() };
        let partitions: Vec<_> = parts.iter().map(part).collect();
        let holds = if parts.is_empty() { Vec::new() } else { vec!["partition table".to_owned()] };
        let (bytes, sector_size) = (8 << 30, 512);
        DiskFact { name: name.into(), bytes, sector_size, partitions, holds, ..DiskFact::default() }
    }

    fn chosen(disks: Vec<DiskFact>, erase: Erase) -> Result<String, String> {
        chosen_by(&DiskRule { count: 1, erase, ..DiskRule::default() }, disks)
    }

    fn chosen_by(rule: &DiskRule, disks: Vec<DiskFact>) -> Result<String, String> {
        let facts = Facts {
            disks,
            links: Vec::new(),
            memory: None,
            cpus: 1,
            firmware: Firmware::Bios,
            hypervisor: None,
            virtualisation: Vec::new(),
            boot_disk: None,
            boot_id: String::new(),
            dmi: crate::host::facts::Dmi::default(),
        };
        choose(rule, &facts, &"wn".parse().expect("a name")).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_node_gets_the_blank_disk_or_the_one_that_it_had() {
        use Erase::{Always, IfBlank};
        assert_eq!(chosen(vec![disk("sda", &[])], IfBlank), Ok("sda".into()));
        assert_eq!(
            chosen(vec![disk("sda", &[]), disk("sdb", &["gh:wn", "root"])], IfBlank),
            Ok("sdb".into())
        );
        assert_eq!(chosen(vec![disk("sda", &["data"])], Always), Ok("sda".into()));
        for (disks, erase) in [
            (vec![disk("sda", &["data"])], IfBlank),
            (vec![disk("sda", &["gh:other", "root"])], IfBlank),
            (vec![disk("sda", &["gh-esp", "gh-state"])], Always),
            (vec![disk("sda", &[]), disk("sdb", &[])], IfBlank),
            (vec![disk("sda", &["gh:wn", "root"]), disk("sdb", &["gh:wn", "root"])], Always),
            (Vec::new(), Always),
        ] {
            let refused = chosen(disks.clone(), erase).expect_err("refused");
            for disk in disks {
                assert!(refused.contains(&disk.name), "{refused}");
            }
        }
    }

    /// A disk that the node has left, and that somebody may need, is not taken back for its old label.
    #[test]
    fn the_rule_goes_before_an_old_label() {
        let path = |path: &str| DiskRule { count: 1, path: Some(path.into()), ..DiskRule::default() };
        let disks = || vec![disk("sda", &["gh:wn", "root"]), disk("sdb", &[])];
        assert_eq!(chosen_by(&path("sdb"), disks()), Ok("sdb".into()));
        assert_eq!(chosen_by(&path("sda"), disks()), Ok("sda".into()));
        let refused = chosen_by(&path("sdc"), disks()).expect_err("refused");
        assert!(refused.contains("sda: ") && refused.contains("path is not \"sdc\""), "{refused}");
        let left = vec![disk("sda", &["gh:wn", "root"]), disk("sdb", &["data"])];
        let refused = chosen_by(&path("sdb"), left).expect_err("refused");
        assert!(refused.contains("not blank: sdb: ") && refused.contains("beside it:\n  sda: "), "{refused}");
    }
}
