//! Looks at the machine: /sys, /proc and /dev below a root directory, and the first and last bytes of every
//! disk and partition. Changes nothing.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatehouse_disk::{Health, Part, guid_text, read_table};
use gatehouse_model::{Doing as _, Fault, Mac};

use super::args::KernelArgs;
use super::claim::{BLOCK, CLAIM_AT, Claim};
use super::facts::{DiskFact, Dmi, Facts, Firmware, LinkFact, PartFact};
use super::md::{MEMBER_AT, MEMBER_BYTES, Member};
use super::{by_path, signature};
use crate::node::component::program::watched;

/// Block devices that are no disks of the machine.
const NOT_DISKS: [&str; 9] = ["dm-", "fd", "loop", "md", "nbd", "ram", "sr", "zd", "zram"];
/// /sys counts sizes in these, whatever the disk's own sectors are.
const SYS_SECTOR: u64 = 512;
/// Where every Debian has it, and the initramfs of the host and of a node's installer.
const BLKID: &str = "/usr/sbin/blkid";
/// How long it may take for one disk: as long as a kernel waits for a disk that does not answer.
const BLKID_LIMIT: Duration = Duration::from_secs(30);

/// Looks at the machine whose /sys, /proc and /dev are below `root`.
pub fn survey(root: &Path, args: &KernelArgs) -> Facts {
    let disks = disks(root);
    let boot_disk = args
        .boot
        .as_deref()
        .and_then(|uuid| disks.iter().find(|disk| disk.partitions.iter().any(|part| part.partuuid == uuid)));
    let hypervisor = text(&root.join("sys/hypervisor/type"));
    let cpuinfo = text(&root.join("proc/cpuinfo")).unwrap_or_default();
    let uefi = root.join("sys/firmware/efi").is_dir();
    Facts {
        boot_disk: boot_disk.map(|disk| disk.name.clone()),
        disks,
        links: links(root),
        memory: memory(root, hypervisor.is_some()),
        cpus: count_cpus(&cpuinfo),
        firmware: if uefi { Firmware::Uefi } else { Firmware::Bios },
        virtualisation: virtualisation(root, &cpuinfo),
        hypervisor,
        boot_id: text(&root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default(),
        dmi: dmi(root),
    }
}

/// A file's text without blanks around it; none if it is empty or not there.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    // User Mode Linux's disks have this as their serial number.
    (!text.is_empty() && text != "(null)").then(|| text.to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn disks(root: &Path) -> Vec<DiskFact> {
    names(&root.join("sys/block"))
        .iter()
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(|name| disk(root, name))
        .collect()
}

/// One disk; none if it has no medium, or if the kernel hides it: one of several paths to one of `nvme`.
fn disk(root: &Path, name: &str) -> Option<DiskFact> {
    let sys = root.join("sys/block").join(name);
    let bytes = number(&sys.join("size"))? * SYS_SECTOR;
    if bytes == 0 || number(&sys.join("hidden")) == Some(1) {
        return None;
    }
    let place = fs::canonicalize(&sys).unwrap_or_else(|_| sys.clone());
    let device = sys.join("device");
    let mut fact = DiskFact {
        name: name.to_owned(),
        bytes,
        sector_size: number(&sys.join("queue/logical_block_size")).unwrap_or(SYS_SECTOR),
        serial: text(&sys.join("serial"))
            .or_else(|| text(&device.join("serial")))
            .or_else(|| vpd_serial(&device)),
        model: text(&device.join("model")).or_else(|| text(&device.join("name"))),
        vendor: text(&device.join("vendor")).filter(|vendor| !vendor.starts_with("0x")),
        wwn: text(&sys.join("wwid")).or_else(|| text(&device.join("wwid"))),
        bus: bus(name, &place).map(str::to_owned),
        paths: paths(root, name, &place),
        ssd: number(&sys.join("queue/rotational")) == Some(0),
        removable: number(&sys.join("removable")) == Some(1),
        read_only: number(&sys.join("ro")) == Some(1),
        used_by: holders(&sys, name),
        ..DiskFact::default()
    };
    if let Err(fault) = probe(root, &mut fact) {
        fact.trouble = Some(fault.to_string());
    }
    Some(fact)
}

/// Reads the table and looks for signatures on the disk and on every partition.
pub(super) fn probe(root: &Path, fact: &mut DiskFact) -> Result<(), Fault> {
    let path = root.join("dev").join(&fact.name);
    let mut device = File::open(&path)?;
    fact.holds = signature::find(&mut device, fact.bytes)?;
    fact.claim = claim(&mut device)?;
    // What is known to hold something is not asked after again: most disks cost no process.
    if fact.holds.iter().all(|kind| kind == signature::PROTECTIVE_MBR) {
        fact.holds.extend(by_blkid(&path)?);
    }
    let Some(table) = read_table(&mut device, fact.sector_size)? else { return Ok(()) };
    (fact.id, fact.primary_lost) = (Some(guid_text(&table.disk_guid)), table.health == Health::PrimaryLost);
    for part in &table.parts {
        let bytes = part.bytes(fact.sector_size);
        let mut window = part.window(&mut device, fact.sector_size);
        let holds = signature::find(&mut window, bytes)?;
        let member = member(&mut window)?;
        fact.partitions.push(part_fact(part, fact.sector_size, holds, member));
    }
    fact.partitions.sort_by_key(|part| part.number);
    Ok(())
}

/// What libblkid knows of a disk that looks blank. Where there is no blkid, our own table of signatures has to do.
fn by_blkid(device: &Path) -> Result<Vec<String>, Fault> {
    let mut command = Command::new(BLKID);
    command.args(["-p", "-o", "export"]).arg(device).env("LC_ALL", "C");
    let output = match watched(command, BLKID_LIMIT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("starting {BLKID}"))?,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    signature::of_blkid(output.status.code(), &said)
        .ok_or_else(|| Fault::new(format!("blkid ended with {}: {}", output.status, said.trim())))
}

/// The claim on a disk; one that is too small has none.
fn claim(device: &mut File) -> io::Result<Option<Claim>> {
    Ok(Claim::from_block(&block(device, CLAIM_AT, BLOCK)?))
}

/// What a partition says of its RAID.
fn member(part: &mut (impl Read + Seek)) -> io::Result<Option<Member>> {
    Ok(Member::from_block(&block(part, MEMBER_AT, MEMBER_BYTES)?))
}

/// Bytes from somewhere on; fewer where it ends before.
fn block(device: &mut (impl Read + Seek), at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    device.seek(SeekFrom::Start(at))?;
    device.take(bytes as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// What the kernel has built on a disk and its partitions, by its own names.
fn holders(sys: &Path, disk: &str) -> Vec<String> {
    let parts = names(sys).into_iter().filter(|name| name.starts_with(disk)).map(|name| sys.join(name));
    let holders =
        std::iter::once(sys.to_owned()).chain(parts).flat_map(|place| names(&place.join("holders")));
    let called = |name: String| {
        let by_mapper = sys.parent().and_then(|block| text(&block.join(&name).join("dm/name")));
        by_mapper.map_or(name.clone(), |called| format!("{name} ({called})"))
    };
    let mut all: Vec<String> = holders.map(called).collect();
    all.sort();
    all.dedup();
    all
}

/// What makers write where they have nothing to say.
const JUNK: [&str; 10] = [
    "0",
    "default string",
    "empty",
    "n/a",
    "none",
    "not applicable",
    "not available",
    "not specified",
    "system serial number",
    "to be filled by o.e.m.",
];

fn dmi(root: &Path) -> Dmi {
    let word = |name: &str| {
        let said = text(&root.join("sys/class/dmi/id").join(name))?;
        let plain = said.to_lowercase();
        let nothing = JUNK.contains(&plain.as_str()) || plain.chars().all(|c| "0.-x ".contains(c));
        (!nothing).then_some(said)
    };
    Dmi { serial: word("product_serial"), product: word("product_name"), vendor: word("sys_vendor") }
}

fn part_fact(part: &Part, sector_size: u64, holds: Vec<String>, member: Option<Member>) -> PartFact {
    PartFact {
        number: part.number,
        name: part.name.clone(),
        partuuid: part.partuuid(),
        start: part.start(sector_size),
        bytes: part.bytes(sector_size),
        holds,
        member,
    }
}

/// A SCSI disk's serial number: page 0x80 of its vital product data, behind a header of four bytes.
fn vpd_serial(device: &Path) -> Option<String> {
    let page = fs::read(device.join("vpd_pg80")).ok()?;
    let serial = String::from_utf8_lossy(page.get(4..)?).trim_matches(['\0', ' ']).to_owned();
    (!serial.is_empty()).then_some(serial)
}

/// What a disk hangs on, from its name and its place in /sys/devices.
fn bus(name: &str, place: &Path) -> Option<&'static str> {
    let place = place.to_string_lossy();
    let hints = [
        ("/usb", "usb"),
        ("/nvme", "nvme"),
        ("/virtio", "virtio"),
        ("/vbd-", "xen"),
        ("/ata", "sata"),
        ("/mmc", "mmc"),
        ("/host", "scsi"),
    ];
    let by_name = [("nvme", "nvme"), ("vd", "virtio"), ("xvd", "xen"), ("mmcblk", "mmc"), ("sd", "scsi")];
    hints
        .iter()
        .find(|(hint, _)| place.contains(hint))
        .or_else(|| by_name.iter().find(|(prefix, _)| name.starts_with(prefix)))
        .map(|(_, bus)| *bus)
}

/// A disk's names under /dev/disk/by-path; where there is no udev, those that it would give.
fn paths(root: &Path, name: &str, place: &Path) -> Vec<String> {
    let dir = root.join("dev/disk/by-path");
    let leads_here = |link: &String| {
        fs::read_link(dir.join(link)).is_ok_and(|to| to.file_name().is_some_and(|last| last == name))
    };
    let links: Vec<String> = names(&dir).into_iter().filter(leads_here).collect();
    if links.is_empty() { by_path::names(root, name, place) } else { links }
}

/// The network interfaces with hardware behind them.
pub fn links(root: &Path) -> Vec<LinkFact> {
    let net = root.join("sys/class/net");
    names(&net).into_iter().filter_map(|name| link(&net.join(&name), name)).collect()
}

/// The host's end of a node's interface under Xen: it has a device, and no cable.
const NODES_END: &str = "vif";

/// One interface; none if there is no hardware behind it.
fn link(sys: &Path, name: String) -> Option<LinkFact> {
    let device = fs::canonicalize(sys.join("device")).ok()?;
    let mac: Mac = text(&sys.join("address"))?.parse().ok()?;
    let driver = fs::canonicalize(sys.join("device/driver")).ok();
    let driver = driver.and_then(|driver| Some(driver.file_name()?.to_string_lossy().into_owned()));
    if driver.as_deref() == Some(NODES_END) {
        return None;
    }
    Some(LinkFact {
        name,
        mac,
        driver,
        // Reading it of an interface that is down is an error.
        carrier: text(&sys.join("carrier")).map(|carrier| carrier == "1"),
        speed: text(&sys.join("speed")).and_then(|speed| speed.parse().ok()),
        path: pci_path(&device),
    })
}

/// `pci-0000:00:03.0`: the last PCI address on the way to a device.
fn pci_path(device: &Path) -> Option<String> {
    let parts: Vec<String> =
        device.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    parts.iter().rfind(|part| by_path::is_pci(part)).map(|part| format!("pci-{part}"))
}

/// Bytes of memory in the machine. Under a hypervisor /proc/meminfo tells only what this system got of it.
fn memory(root: &Path, shared: bool) -> Option<u64> {
    let modules =
        fs::read(root.join("sys/firmware/dmi/tables/DMI")).ok().and_then(|table| dmi_memory(&table));
    // What the kernel keeps for itself is missing there, so the modules go first.
    modules.or_else(|| if shared { None } else { meminfo(&text(&root.join("proc/meminfo"))?) })
}

/// The memory modules in a DMI table: structures of type 17 (SMBIOS, section 7.18).
fn dmi_memory(mut table: &[u8]) -> Option<u64> {
    let mut total: u64 = 0;
    while let [kind, length, ..] = *table {
        let structure = table.get(..usize::from(length))?;
        let word = |at: usize| Some(u16::from_le_bytes(structure.get(at..at + 2)?.try_into().ok()?));
        let extended = || Some(u32::from_le_bytes(structure.get(0x1c..0x20)?.try_into().ok()?));
        if kind == 17 {
            total += match word(0x0c)? {
                0 | 0xffff => 0,
                0x7fff => u64::from(extended()?) << 20,
                kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) << 10,
                mib => u64::from(mib) << 20,
            };
        }
        let strings = table.get(usize::from(length)..)?;
        let Some(end) = strings.windows(2).position(|pair| pair == [0, 0]) else { break };
        if length < 4 {
            break;
        }
        table = &strings[end + 2..];
    }
    (total > 0).then_some(total)
}

/// The memory that this kernel can give away.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

fn count_cpus(cpuinfo: &str) -> u32 {
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn virtualisation(root: &Path, cpuinfo: &str) -> Vec<String> {
    if let Some(capabilities) = text(&root.join("sys/hypervisor/properties/capabilities")) {
        return capabilities.split_whitespace().map(str::to_owned).collect();
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let flag = |flag: &&str| flags.split_whitespace().any(|word| word == *flag);
    ["vmx", "svm"].iter().filter(|name| flag(name)).map(ToString::to_string).collect()
}

/// The survey of the machine that this runs on.
pub fn of_this_machine(args: &KernelArgs) -> Facts {
    survey(&PathBuf::from("/"), args)
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
