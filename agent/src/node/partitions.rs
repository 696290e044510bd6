//! The partitions of a node's disk: what a profile wants, and where each comes to lie.

use std::fmt::Write as _;

use gatehouse_lcfg::Profile;
use gatehouse_model::Fault;

/// Partitions begin and end at multiples of this many sectors of 512 bytes: 1 MiB.
const ALIGNMENT: u64 = 2048;
/// Sectors at the end that hold the second partition table.
const TABLE_SECTORS: u64 = 33;

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
    /// GRUB's own partition on a machine with a BIOS; without a file system.
    BiosBoot,
    /// The EFI system partition of a machine.
    Esp,
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
            Self::Vfat | Self::Esp => "vfat",
            Self::Swap => "swap",
            Self::BiosBoot => "none",
        }
    }

    /// The partition type in a GPT.
    pub fn guid(self, point: &str) -> &'static str {
        match self {
            Self::BiosBoot => "21686148-6449-6E6F-744E-656564454649",
            Self::Esp => "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
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

impl Wanted {
    /// Whether its file system is enlarged when it finds more room: what has the rest of the disk has it also when the
    /// disk is made larger. The host enlarges the partition.
    pub fn grows(&self) -> bool {
        self.mib.is_none() && matches!(self.kind, Kind::Ext4 | Kind::Xfs)
    }
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

/// The table as sfdisk reads it, which counts in the disk's own sectors of so many bytes.
pub fn script(disk_id: &str, parts: &[(Placed, String)], sector_size: u64) -> String {
    let ratio = (sector_size / 512).max(1);
    let mut out = format!("label: gpt\nlabel-id: {disk_id}\nunit: sectors\n\n");
    for (part, id) in parts {
        let Placed { wanted, start, sectors } = part;
        let (start, sectors) = (start / ratio, sectors / ratio);
        let guid = wanted.kind.guid(&wanted.point);
        let name = &wanted.tag;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "start={start}, size={sectors}, type={guid}, uuid={id}, name=\"{name}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(tag: &str, mib: Option<u64>, kind: Kind, point: &str) -> Wanted {
        Wanted { tag: tag.into(), mib, kind, point: point.into(), options: String::new() }
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
            script("d-id", &parts, 512),
            "label: gpt\nlabel-id: d-id\nunit: sectors\n\nstart=2048, size=8384512, \
             type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=p-id, name=\"root\"\n"
        );
        assert!(script("d-id", &parts, 4096).contains("\nstart=256, size=1048064, "));
    }
}
