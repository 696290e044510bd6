//! `fstab preparedisks`: from the profile's disks to a mounted new root. The node's own disk is started from
//! zero each time, so an interrupted install leaves nothing behind that matters.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::mount::{MsFlags, mount};

use crate::node::own_disk;
use crate::node::partitions::{Kind, Wanted, place, script, wanted};
use crate::node::render;
use crate::tool;

/// How long a disk or a partition's node may take to appear.
const NODE_WAIT: Duration = Duration::from_secs(10);

/// A partition on the disk, formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is for.
    pub wanted: Wanted,
    /// Its number in the partition table.
    pub number: usize,
    /// Its device node.
    pub node: PathBuf,
    /// Its id in the partition table.
    pub part_uuid: String,
    /// Its file system's id, as `/etc/fstab` writes it.
    pub fs_uuid: String,
}

/// The disks that a node is put on.
#[derive(Clone, Copy, Debug)]
pub enum Disks<'a> {
    /// Those that its hypervisor gave it.
    Virtual,
    /// The one of a machine that was chosen for the node.
    Machine(&'a str, &'a NodeName),
}

/// The disks an installer may write to, in order. Only virtual disks: what a hypervisor gave this node is its
/// own, while that of a machine must be chosen.
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
pub fn prepare(profile: &Profile, target: &Path, on: Disks<'_>) -> Result<Vec<Made>, Fault> {
    let tags = profile.tags("fstab", "disks");
    let disks = match on {
        Disks::Virtual => await_virtual(&tags)?,
        Disks::Machine(..) if tags.len() > 1 => {
            let what = format!("the profile has the disks {} and a machine's node is on one", tags.join(" "));
            return Err(Fault::new(what).help("name one disk in fstab.disks of the node's source"));
        }
        Disks::Machine(disk, _) => vec![disk.to_owned()],
    };
    let mut made = Vec::new();
    for (tag, disk) in tags.into_iter().zip(&disks) {
        if profile.get("fstab", &format!("dopartition_{tag}")) == Some("yes") {
            let mut parts = wanted(profile, tag)?;
            if let Disks::Machine(_, node) = on {
                parts.splice(0..0, own_disk::loaders_parts(node));
            }
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

/// As many virtual disks as a profile has: a paravirtual one is negotiated with the host after its module is loaded.
fn await_virtual(tags: &[&str]) -> Result<Vec<String>, Fault> {
    let begun = Instant::now();
    let mut names = block_devices()?;
    while virtual_disks(&names).len() < tags.len() && begun.elapsed() < NODE_WAIT {
        sleep(Duration::from_millis(50));
        names = block_devices()?;
    }
    let disks = virtual_disks(&names);
    if tags.len() <= disks.len() {
        return Ok(disks);
    }
    Err(Fault::new(format!(
        "the profile has the disks {} and this machine the virtual disks {} (of the block devices {})",
        tags.join(" "),
        if disks.is_empty() { "none".to_owned() } else { disks.join(" ") },
        names.join(" ")
    )))
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
    let block = format!("/sys/block/{disk}/queue/logical_block_size");
    let block = fs::read_to_string(&block).doing(|| format!("reading {block}"))?;
    let table = script(&random_uuid()?, &placed, block.trim().parse().unwrap_or(512));
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
            Ok(Made { wanted: part.wanted, number: index + 1, node, part_uuid, fs_uuid })
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
        Kind::Vfat | Kind::Esp => ("mkfs.vfat", vec!["-F", "32", "-i", &serial, &device]),
        Kind::BiosBoot => return Ok(String::new()),
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
        _ => None,
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
            grows: part.wanted.grows(),
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
    fn fstab_names_file_systems_by_uuid() {
        let made = |wanted: Wanted| Made {
            number: 1,
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
