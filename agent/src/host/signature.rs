//! What lies on a disk or partition, by the magic bytes at well-known places. Never says "blank" of what it
//! could not read: that is an error.

use std::io::{self, Read, Seek, SeekFrom};

/// Filesystem of state.
pub const EXT4: &str = "ext4";
/// Filesystem of the stores.
pub const XFS: &str = "xfs";

/// A protective MBR whose GPT is gone, or not there yet.
pub const PROTECTIVE_MBR: &str = "protective mbr";
/// The kind of its only entry (UEFI, section 5.2.3).
const PROTECTIVE: u8 = 0xee;

/// Magic bytes counted from the start.
const AT_START: [(u64, &[u8], &str); 27] = [
    (0x438, b"\x53\xef", EXT4),
    (0, b"XFSB", XFS),
    (0x36, b"FAT1", "vfat"),
    (0x52, b"FAT32   ", "vfat"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0x400, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0, b"hsqs", "squashfs"),
    (0x8001, b"CD001", "iso9660"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
    (4086, b"SWAPSPACE2", "swap"),
    (65526, b"SWAPSPACE2", "swap"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"LABELONE", "lvm"),
    (512, b"LABELONE", "lvm"),
    (1024, b"LABELONE", "lvm"),
    (1536, b"LABELONE", "lvm"),
    (0, b"\xfc\x4e\x2b\xa9", "raid"),
    (4096, b"\xfc\x4e\x2b\xa9", "raid"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcache"),
    (0x2_0000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "zfs"),
    (0x2_0400, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "zfs"),
    (0x2_1000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "zfs"),
    (0x2_2000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "zfs"),
    (512, b"EFI PART", "partition table"),
    (4096, b"EFI PART", "partition table"),
];

/// How far the table above reaches.
const HEAD: u64 = 0x2_2008;

/// Partition tables of which blkid tells and which are read here: it counts one without an entry, too, which is no more
/// than the mark in the first sector.
const TABLES: [&str; 3] = ["dos", "gpt", "PMBR"];
/// What blkid ends with: something was found, nothing was, several things that exclude each other were.
const FOUND: i32 = 0;
const NOTHING: i32 = 2;
const SEVERAL: i32 = 8;

/// What `blkid -p -o export` says of a whole disk, beyond its partition table: libblkid knows far more kinds than the
/// table above. None if it has failed.
pub fn of_blkid(code: Option<i32>, said: &str) -> Option<Vec<String>> {
    match code {
        Some(FOUND) => {
            let value = |line: &str| {
                let (key, value) = line.split_once('=')?;
                let counts = key == "TYPE" || (key == "PTTYPE" && !TABLES.contains(&value));
                counts.then(|| value.to_owned())
            };
            Some(said.lines().filter_map(value).collect())
        }
        Some(NOTHING) => Some(Vec::new()),
        Some(SEVERAL) => Some(vec!["data of several kinds".to_owned()]),
        _ => None,
    }
}

/// The signatures on a device of so many bytes, each once, in the order of the tables.
///
/// # Errors
/// The device cannot be read.
pub fn find<D: Read + Seek>(device: &mut D, bytes: u64) -> io::Result<Vec<String>> {
    let head = read(device, 0, HEAD.min(bytes))?;
    let mut found: Vec<&str> = AT_START
        .iter()
        .filter(|(at, magic, _)| starts(&head, *at, magic))
        .map(|(_, _, name)| *name)
        .collect();
    // xfs is magic from its first write on, and says here that mkfs has not come to its end.
    if starts(&head, 126, b"\x01") {
        found.retain(|name| *name != XFS);
    }
    if found.is_empty() && is_mbr(&head) {
        let protective =
            head.get(450) == Some(&PROTECTIVE) && [466, 482, 498].iter().all(|at| head[*at] == 0);
        found.push(if protective { PROTECTIVE_MBR } else { "partition table" });
    }
    found.extend(at_end(device, bytes)?);
    let mut all: Vec<String> = Vec::new();
    for name in found {
        if !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    Ok(all)
}

fn starts(bytes: &[u8], at: u64, magic: &[u8]) -> bool {
    usize::try_from(at).ok().and_then(|at| bytes.get(at..)).is_some_and(|rest| rest.starts_with(magic))
}

/// A PC partition table with at least one entry: the mark alone is also that of a FAT without partitions.
fn is_mbr(head: &[u8]) -> bool {
    let Some(entries) = head.get(446..510) else { return false };
    let used =
        |entry: &[u8]| matches!(entry.first(), Some(0 | 0x80)) && entry.get(4).is_some_and(|kind| *kind != 0);
    head.get(510..512) == Some(b"\x55\xaa") && entries.chunks(16).any(used)
}

/// RAID of the kinds that leave their mark at the end.
fn at_end<D: Read + Seek>(device: &mut D, bytes: u64) -> io::Result<Vec<&'static str>> {
    let places: [(u64, &[u8]); 5] = [
        ((bytes.saturating_sub(8 << 10)) & !4095, b"\xfc\x4e\x2b\xa9"),
        ((bytes & !0xffff).saturating_sub(1 << 16), b"\xfc\x4e\x2b\xa9"),
        (bytes.saturating_sub(1024), b"Intel Raid ISM Cfg Sig. "),
        (bytes.saturating_sub(512), b"\xde\x11\xde\x11"),
        (bytes.saturating_sub(512), b"$XIDE$"),
    ];
    let mut found = Vec::new();
    for (at, magic) in places {
        let here = read(device, at, (magic.len() as u64).min(bytes - at))?;
        if here == magic {
            found.push("raid");
        }
    }
    Ok(found)
}

fn read<D: Read + Seek>(device: &mut D, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    device.seek(SeekFrom::Start(at))?;
    device.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::process::Command;

    fn found(bytes: Vec<u8>) -> String {
        let length = bytes.len() as u64;
        find(&mut Cursor::new(bytes), length).unwrap().join(" ")
    }

    fn with(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn every_magic_is_found_alone() {
        for (at, magic, name) in AT_START {
            assert_eq!(found(with(usize::try_from(at).unwrap(), magic)), name, "{name} at {at}");
        }
        assert_eq!(found(with((1 << 20) - (8 << 10), b"\xfc\x4e\x2b\xa9")), "raid");
        assert_eq!(found(with((1 << 20) - 1024, b"Intel Raid ISM Cfg Sig. ")), "raid");
        assert_eq!(found(vec![0; 1 << 20]), "");
        assert_eq!(found(vec![]), "");
        assert_eq!(found(vec![0; 700]), "");
    }

    #[test]
    fn an_old_table_counts_only_with_an_entry() {
        let mut bytes = with(510, b"\x55\xaa");
        assert_eq!(found(bytes.clone()), "");
        bytes[450] = 0x83;
        assert_eq!(found(bytes.clone()), "partition table");
        bytes[450] = 0xee;
        assert_eq!(found(bytes.clone()), "protective mbr");
        bytes[466] = 0x83;
        assert_eq!(found(bytes), "partition table");
    }

    #[test]
    fn an_unfinished_xfs_is_none() {
        let mut bytes = with(0, b"XFSB");
        bytes[126] = 1;
        assert_eq!(found(bytes), "");
    }

    #[test]
    fn what_blkid_says_counts_beyond_tables() {
        let said = |code, text: &str| of_blkid(Some(code), text).map(|kinds| kinds.join(" "));
        let bluestore = "DEVNAME=/dev/sdb\nTYPE=ceph_bluestore\nUSAGE=other\n";
        assert_eq!(said(0, bluestore).as_deref(), Some("ceph_bluestore"));
        assert_eq!(said(0, "DEVNAME=/dev/sdb\nPTUUID=01\nPTTYPE=sun\n").as_deref(), Some("sun"));
        for table in TABLES {
            assert_eq!(said(0, &format!("PTUUID=TYPE=x\nPTTYPE={table}\n")).as_deref(), Some(""));
        }
        assert_eq!(said(2, "").as_deref(), Some(""));
        assert_eq!(said(8, "").as_deref(), Some("data of several kinds"));
        assert_eq!((said(4, bluestore), of_blkid(None, bluestore)), (None, None));
    }

    #[test]
    fn real_filesystems_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for (program, args, name) in [
            ("mkfs.ext4", vec!["-q", "-F"], EXT4),
            ("mkfs.xfs", vec!["-q", "-f"], XFS),
            ("mkfs.vfat", vec![], "vfat"),
            ("mkswap", vec![], "swap"),
        ] {
            let path = dir.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(320 << 20).unwrap();
            let path_env = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            match Command::new(program).env("PATH", path_env).args(args).arg(&path).output() {
                Ok(output) => assert!(output.status.success(), "{program}"),
                Err(error) if std::env::var_os("CI").is_none() => {
                    println!("skipped, because {program}: {error}");
                    continue;
                }
                Err(error) => panic!("{program}: {error}"),
            }
            let mut file = std::fs::File::open(&path).unwrap();
            assert_eq!(find(&mut file, 320 << 20).unwrap(), [name]);
        }
    }
}
