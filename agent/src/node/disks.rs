//! `fstab preparedisks`: from the profile's disks to a mounted new root. The node's own disk is started from
//! zero each time, so an interrupted install leaves nothing behind that matters.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MsFlags, mount};

use crate::node::render;
use crate::tool;

/// Partitions begin and end at multiples of this many sectors of 512 bytes: 1 MiB.
const ALIGNMENT: u64 = 2048;
/// Sectors at the end that hold the second partition table.
const TABLE_SECTORS: u64 = 33;
/// How long a disk or a partition's node may take to appear.
const NODE_WAIT: Duration = Duration::from_secs(10);

/// What is made on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// FAT32.
    Vfat,
    /// Swap space.
    Swap,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs, Self::Vfat, Self::Swap].into_iter().find(|kind| kind.name() == text)
    }

    /// The name in profiles, in `/etc/fstab` and for mounting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Vfat => "vfat",
            Self::Swap => "swap",
        }
    }

    /// The partition type in a GPT.
    fn guid(self, point: &str) -> &'static str {
        match self {
            Self::Vfat if point == "/boot/efi" => "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            Self::Vfat => "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
            Self::Swap => "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
            Self::Ext4 | Self::Xfs => "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        }
    }
}

/// A partition as the profile wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its tag, which becomes its name in the table.
    pub tag: String,
    /// Size in MiB; none is the rest of the disk.
    pub mib: Option<u64>,
    /// What is made on it.
    pub kind: Kind,
    /// Where it is mounted; empty for nowhere.
    pub point: String,
    /// Mount options of the installed node.
    pub options: String,
}

/// A partition with its place, in sectors of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is for.
    pub wanted: Wanted,
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub sectors: u64,
}

/// A partition on the disk, formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is for.
    pub wanted: Wanted,
    /// Its device node.
    pub node: PathBuf,
    /// Its id in the partition table.
    pub part_uuid: String,
    /// Its file system's id, as `/etc/fstab` writes it.
    pub fs_uuid: String,
}

/// The disks an installer may write to, in order. Only virtual disks: what a hypervisor gave this node is its
/// own, while a disk of a physical machine must be claimed first.
pub fn virtual_disks(names: &[String]) -> Vec<String> {
    let virtual_name = |name: &&String| {
        ["ubd", "xvd", "vd"].iter().any(|start| {
            name.strip_prefix(start)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase()))
        })
    };
    let mut disks: Vec<String> = names.iter().filter(virtual_name).cloned().collect();
    disks.sort_by_key(|name| (name.len(), name.clone()));
    disks
}

/// The node of a disk's partition.
pub fn partition_node(disk: &str, number: usize) -> PathBuf {
    let between = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    Path::new("/dev").join(format!("{disk}{between}{number}"))
}

/// The partitions that a profile wants on one of its disks.
///
/// # Errors
/// The label is not GPT, or a size or type is not one of those known.
pub fn wanted(profile: &Profile, disk: &str) -> Result<Vec<Wanted>, Fault> {
    let get = |name: &str, tag: &str| profile.get("fstab", &format!("{name}_{tag}")).unwrap_or_default();
    let label = get("label", disk);
    if !matches!(label, "" | "gpt") {
        return Err(Fault::new(format!("fstab.label_{disk} is {label:?}")).help("write gpt"));
    }
    let partitions = profile.tags("fstab", &format!("partitions_{disk}"));
    partitions
        .into_iter()
        .map(|tag| {
            let size = get("size", tag);
            let mib = match (size, size.parse()) {
                ("free", _) => None,
                (_, Ok(mib)) if mib > 0 => Some(mib),
                _ => {
                    return Err(Fault::new(format!("fstab.size_{tag} is {size:?}"))
                        .help("write a number of megabytes above 0, or free"));
                }
            };
            let kind = Kind::parse(get("type", tag)).ok_or_else(|| {
                Fault::new(format!("fstab.type_{tag} is {:?}", get("type", tag)))
                    .help("write ext4, xfs, vfat or swap")
            })?;
            let (point, options) = (get("mpt", tag).to_owned(), get("mntopts", tag).to_owned());
            Ok(Wanted { tag: tag.to_owned(), mib, kind, point, options })
        })
        .collect()
}

/// Gives partitions their places on a disk of so many sectors, in order.
///
/// # Errors
/// They do not fit, or more than one wants the rest.
pub fn place(sectors: u64, wanted: Vec<Wanted>) -> Result<Vec<Placed>, Fault> {
    let end = sectors.saturating_sub(TABLE_SECTORS + 1) / ALIGNMENT * ALIGNMENT;
    let fixed: u64 = wanted.iter().filter_map(|part| part.mib).map(|mib| mib.saturating_mul(ALIGNMENT)).sum();
    let free = wanted.iter().filter(|part| part.mib.is_none()).count();
    let room = end.saturating_sub(ALIGNMENT);
    if free > 1 {
        return Err(Fault::new(format!("{free} partitions want the rest of the disk"))
            .help("write free for one partition of a disk at most"));
    }
    let rest = room.checked_sub(fixed).filter(|rest| free == 0 || *rest >= ALIGNMENT);
    let Some(rest) = rest else {
        let (needed, there) = (fixed / ALIGNMENT, room / ALIGNMENT);
        return Err(Fault::new(format!(
            "the partitions need {needed} MiB and the disk has room for {there} MiB"
        ))
        .help("make the partitions smaller in the profile, or the node's disk larger in site.toml"));
    };
    let mut start = ALIGNMENT;
    Ok(wanted
        .into_iter()
        .map(|part| {
            let sectors = part.mib.map_or(rest, |mib| mib * ALIGNMENT);
            let placed = Placed { wanted: part, start, sectors };
            start += sectors;
            placed
        })
        .collect())
}

/// The table as sfdisk reads it.
fn script(disk_id: &str, parts: &[(Placed, String)]) -> String {
    let mut out = format!("label: gpt\nlabel-id: {disk_id}\nunit: sectors\n\n");
    for (part, id) in parts {
        let Placed { wanted, start, sectors } = part;
        let guid = wanted.kind.guid(&wanted.point);
        let name = &wanted.tag;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "start={start}, size={sectors}, type={guid}, uuid={id}, name=\"{name}\"");
    }
    out
}

/// A new random id from the kernel.
///
/// # Errors
/// `/proc` is not mounted.
pub fn random_uuid() -> Result<String, Fault> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

/// Partitions, formats and mounts the disks of a profile under a directory.
///
/// # Errors
/// The machine has too few disks, or a program fails; the disks are then of no use.
pub fn prepare(profile: &Profile, target: &Path) -> Result<Vec<Made>, Fault> {
    let tags = profile.tags("fstab", "disks");
    let begun = Instant::now();
    let mut names = block_devices()?;
    // A paravirtual disk is negotiated with the host after its module is loaded.
    while virtual_disks(&names).len() < tags.len() && begun.elapsed() < NODE_WAIT {
        sleep(Duration::from_millis(50));
        names = block_devices()?;
    }
    let disks = virtual_disks(&names);
    if tags.len() > disks.len() {
        return Err(Fault::new(format!(
            "the profile has the disks {} and this machine the virtual disks {} (of the block devices {})",
            tags.join(" "),
            if disks.is_empty() { "none".to_owned() } else { disks.join(" ") },
            names.join(" ")
        )));
    }
    let mut made = Vec::new();
    for (tag, disk) in tags.into_iter().zip(&disks) {
        if profile.get("fstab", &format!("dopartition_{tag}")) == Some("yes") {
            let parts = wanted(profile, tag)?;
            made.extend(partition(disk, parts).doing(|| format!("preparing {tag} (/dev/{disk})"))?);
        }
    }
    if !made.iter().any(|part| part.wanted.point == "/") {
        return Err(Fault::new("no partition is mounted on /")
            .help("write fstab.dopartition_… yes and fstab.mpt_… / in the node's source"));
    }
    // Mount points in order of depth: what is above is there first.
    made.sort_by_key(|part| (depth(&part.wanted.point), part.wanted.point.clone()));
    for part in made.iter().filter(|part| part.wanted.kind != Kind::Swap && !part.wanted.point.is_empty()) {
        mount_part(part, target).doing(|| format!("mounting {}", part.wanted.point))?;
    }
    Ok(made)
}

fn depth(point: &str) -> usize {
    Path::new(point).components().count()
}

fn block_devices() -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").doing(|| "reading /sys/block")? {
        let name = entry.doing(|| "reading /sys/block")?.file_name().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(format!("/sys/block/{name}/{file}")).unwrap_or_default();
        // A read-only disk or an empty drive cannot be meant.
        if read("ro").trim() == "0" && read("size").trim() != "0" {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn partition(disk: &str, parts: Vec<Wanted>) -> Result<Vec<Made>, Fault> {
    let device = format!("/dev/{disk}");
    let size = fs::read_to_string(format!("/sys/block/{disk}/size")).doing(|| "reading its size")?;
    let sectors = size.trim().parse().doing(|| format!("reading its size {size:?}"))?;
    let mut placed = Vec::new();
    for part in place(sectors, parts)? {
        placed.push((part, random_uuid()?));
    }
    let table = script(&random_uuid()?, &placed);
    let args = ["--quiet", "--wipe", "always", "--wipe-partitions", "always", "--no-tell-kernel", &device];
    tool::run_with_input("sfdisk", &args, &table)?;
    tool::run("blockdev", &["--rereadpt", &device])?;
    placed
        .into_iter()
        .enumerate()
        .map(|(index, (part, part_uuid))| {
            let node = partition_node(disk, index + 1);
            wait_for(&node)?;
            let fs_uuid = format(&node, &part.wanted).doing(|| format!("formatting {}", node.display()))?;
            Ok(Made { wanted: part.wanted, node, part_uuid, fs_uuid })
        })
        .collect()
}

fn wait_for(node: &Path) -> Result<(), Fault> {
    let begun = Instant::now();
    while !node.exists() {
        if begun.elapsed() > NODE_WAIT {
            return Err(Fault::new(format!("{} does not appear", node.display())));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn format(node: &Path, part: &Wanted) -> Result<String, Fault> {
    let uuid = random_uuid()?;
    let device = node.display().to_string();
    let xfs_id = format!("uuid={uuid}");
    // FAT has a serial number of 32 bits instead of a UUID.
    let serial = uuid.get(..8).unwrap_or_default().to_uppercase();
    let (program, args): (_, Vec<&str>) = match part.kind {
        Kind::Ext4 => {
            // Inode tables are zeroed by the kernel later: a store's empty blocks read as zero anyway.
            ("mkfs.ext4", vec!["-q", "-F", "-U", &uuid, "-E", "lazy_itable_init=1", &device])
        }
        Kind::Xfs => ("mkfs.xfs", vec!["-q", "-f", "-m", &xfs_id, &device]),
        Kind::Vfat => ("mkfs.vfat", vec!["-F", "32", "-i", &serial, &device]),
        Kind::Swap => ("mkswap", vec!["-q", "-U", &uuid, &device]),
    };
    tool::run(program, &args)?;
    Ok(if part.kind == Kind::Vfat { format!("{}-{}", &serial[..4], &serial[4..]) } else { uuid })
}

fn mount_part(part: &Made, target: &Path) -> Result<(), Fault> {
    let point = target.join(part.wanted.point.trim_start_matches('/'));
    fs::create_dir_all(&point)?;
    // Until it is done an install is worth nothing, so nothing waits for the disk before the final sync.
    let options = match part.wanted.kind {
        Kind::Ext4 => Some("nobarrier,noinit_itable,commit=300"),
        Kind::Xfs | Kind::Vfat | Kind::Swap => None,
    };
    let kind = Some(part.wanted.kind.name());
    mount(Some(&part.node), &point, kind, MsFlags::MS_NOATIME, options)?;
    Ok(())
}

/// The lines of the installed node's `/etc/fstab`.
pub fn mounts(made: &[Made]) -> Vec<render::Mount> {
    made.iter()
        .filter(|part| part.wanted.kind == Kind::Swap || !part.wanted.point.is_empty())
        .map(|part| render::Mount {
            device: format!("UUID={}", part.fs_uuid),
            point: if part.wanted.kind == Kind::Swap { "none".into() } else { part.wanted.point.clone() },
            kind: part.wanted.kind.name().to_owned(),
            options: part.wanted.options.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(tag: &str, mib: Option<u64>, kind: Kind, point: &str) -> Wanted {
        Wanted { tag: tag.into(), mib, kind, point: point.into(), options: String::new() }
    }

    #[test]
    fn takes_only_virtual_disks() {
        let names =
            ["loop0", "xvdb", "sda", "xvda", "sr0", "vdaa", "vdb", "ubda", "ram0", "vd", "xvda1", "nvme0n1"];
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(virtual_disks(&names), ["vdb", "ubda", "vdaa", "xvda", "xvdb"]);
        assert_eq!(partition_node("xvda", 1), Path::new("/dev/xvda1"));
        assert_eq!(partition_node("nvme0n1", 2), Path::new("/dev/nvme0n1p2"));
    }

    #[test]
    fn places_partitions_one_after_the_other() {
        let wanted = || {
            vec![
                part("boot", Some(512), Kind::Ext4, "/boot"),
                part("root", None, Kind::Ext4, "/"),
                part("swap", Some(256), Kind::Swap, ""),
            ]
        };
        let placed = place(4 << 21, wanted()).expect("fits into 4 GiB");
        let at: Vec<(u64, u64)> =
            placed.iter().map(|part| (part.start / 2048, part.sectors / 2048)).collect();
        assert_eq!(at, [(1, 512), (513, 4096 - 2 - 768), (4096 - 1 - 256, 256)]);
        let fault = place(769 * 2048, wanted()).expect_err("does not fit");
        assert_eq!(fault.to_string(), "the partitions need 768 MiB and the disk has room for 767 MiB");
        let two = vec![part("a", None, Kind::Ext4, "/"), part("b", None, Kind::Ext4, "/b")];
        assert!(place(4 << 21, two).is_err());
        assert!(place(0, wanted()).is_err());
    }

    #[test]
    fn the_table_as_sfdisk_reads_it() {
        let placed = place(4 << 21, vec![part("root", None, Kind::Ext4, "/")]).expect("fits");
        let parts: Vec<(Placed, String)> = placed.into_iter().map(|part| (part, "p-id".to_owned())).collect();
        assert_eq!(
            script("d-id", &parts),
            "label: gpt\nlabel-id: d-id\nunit: sectors\n\nstart=2048, size=8384512, \
             type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=p-id, name=\"root\"\n"
        );
    }

    #[test]
    fn fstab_names_file_systems_by_uuid() {
        let made = |wanted: Wanted| Made {
            wanted,
            node: "/dev/xvda1".into(),
            part_uuid: "p".into(),
            fs_uuid: "f".into(),
        };
        let lines = mounts(&[
            made(part("root", None, Kind::Ext4, "/")),
            made(part("swap", None, Kind::Swap, "")),
            made(part("spare", None, Kind::Xfs, "")),
        ]);
        let lines: Vec<_> = lines.iter().map(|line| (line.device.as_str(), line.point.as_str())).collect();
        assert_eq!(lines, [("UUID=f", "/"), ("UUID=f", "none")]);
    }
}
