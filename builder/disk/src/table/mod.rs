//! GUID partition tables: what a partition is, and the checks that every table passes before it is written.

mod disk;
mod plan;

pub use disk::{Health, Table, read_table, write_table};
pub use plan::{NewPart, Planned, Room, grown, layout};

use std::collections::BTreeMap;

use gpt::disk::LogicalBlockSize;
use uuid::{Uuid, uuid};

use crate::Window;

/// Every partition starts at a multiple of this many bytes.
pub const ALIGNMENT: u64 = 1 << 20;
/// A table has room for this many partitions; numbers go from 1 to this.
pub const SLOTS: u32 = 128;
const ENTRY_BYTES: u32 = 128;
const NAME_UNITS: usize = 36;

/// What a partition is for; decides its type GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// GRUB's core image for BIOS machines.
    BiosBoot,
    /// The EFI system partition.
    Esp,
    /// A FAT that every desktop system shows (Microsoft basic data).
    BasicData,
    /// Any filesystem of Linux (Linux filesystem data).
    LinuxData,
    /// A type this program does not make, in RFC byte order.
    Other([u8; 16]),
}

const KINDS: [(PartKind, Uuid); 4] = [
    (PartKind::BiosBoot, uuid!("21686148-6449-6e6f-744e-656564454649")),
    (PartKind::Esp, uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")),
    (PartKind::BasicData, uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")),
    (PartKind::LinuxData, uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4")),
];

impl PartKind {
    /// The type GUID in RFC byte order.
    pub fn guid(self) -> [u8; 16] {
        if let Self::Other(guid) = self {
            return guid;
        }
        KINDS.iter().find(|(kind, _)| *kind == self).map_or([0; 16], |(_, guid)| guid.into_bytes())
    }

    /// The kind that a type GUID in RFC byte order stands for.
    pub fn of(guid: [u8; 16]) -> Self {
        KINDS.iter().find(|(_, known)| *known.as_bytes() == guid).map_or(Self::Other(guid), |(kind, _)| *kind)
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1; the N of `/dev/sdaN`.
    pub number: u32,
    /// Its name, at most 36 UTF-16 units.
    pub name: String,
    /// What it is for.
    pub kind: PartKind,
    /// Its own GUID in RFC byte order: the PARTUUID.
    pub guid: [u8; 16],
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector, inclusive.
    pub last_lba: u64,
}

impl Part {
    /// Where it starts, in bytes.
    pub fn start(&self, sector_size: u64) -> u64 {
        self.first_lba.saturating_mul(sector_size)
    }

    /// How many bytes it has.
    pub fn bytes(&self, sector_size: u64) -> u64 {
        self.last_lba.saturating_add(1).saturating_sub(self.first_lba).saturating_mul(sector_size)
    }

    /// The PARTUUID as `root=PARTUUID=` takes it.
    pub fn partuuid(&self) -> String {
        Uuid::from_bytes(self.guid).to_string()
    }

    /// Opens the partition on its disk.
    pub fn window<D>(&self, disk: D, sector_size: u64) -> Window<D> {
        Window::new(disk, self.to_string(), self.start(sector_size), self.bytes(sector_size))
    }
}

/// A GUID in RFC byte order as text in lower case.
pub fn guid_text(guid: &[u8; 16]) -> String {
    Uuid::from_bytes(*guid).to_string()
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} ({})", self.number, self.name)
    }
}

/// Which sectors of a disk partitions may use; both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usable {
    first: u64,
    last: u64,
}

impl Usable {
    fn of(disk_bytes: u64, sector: LogicalBlockSize) -> Result<Self, String> {
        let entries = (u64::from(SLOTS) * u64::from(ENTRY_BYTES)).div_ceil(sector.as_u64());
        let first = 2 + entries;
        (disk_bytes / sector.as_u64())
            .checked_sub(2 + entries)
            .filter(|last| *last >= first)
            .map(|last| Self { first, last })
            .ok_or_else(|| format!("a disk of {disk_bytes} bytes is too small for a partition table"))
    }
}

fn block_size(sector_size: u64) -> Result<LogicalBlockSize, String> {
    LogicalBlockSize::try_from(sector_size)
        .map_err(|_| format!("a sector size of {sector_size} bytes is not known; 512 and 4096 are"))
}

/// A partition table that fits its disk: the only kind that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTable {
    parts: Vec<Part>,
    disk_guid: [u8; 16],
    disk_bytes: u64,
    sector: LogicalBlockSize,
}

impl CheckedTable {
    /// Checks a table for a disk of `disk_bytes`; says everything that is wrong with it.
    ///
    /// Partitions are listed in the order of the disk; their numbers need not be in that order.
    pub fn new(
        parts: Vec<Part>,
        disk_guid: [u8; 16],
        disk_bytes: u64,
        sector_size: u64,
    ) -> Result<Self, Vec<String>> {
        let sector = block_size(sector_size).map_err(|wrong| vec![wrong])?;
        let usable = Usable::of(disk_bytes, sector).map_err(|wrong| vec![wrong])?;
        let mut wrong = Vec::new();
        if disk_guid == [0; 16] {
            wrong.push("the disk has no GUID".to_owned());
        }
        for part in &parts {
            check_alone(part, usable, sector_size, &mut wrong);
        }
        check_places(&parts, &mut wrong);
        check_unique(&parts, disk_guid, &mut wrong);
        if wrong.is_empty() { Ok(Self { parts, disk_guid, disk_bytes, sector }) } else { Err(wrong) }
    }

    /// The partitions in the order of the disk.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The partition of a number.
    pub fn part(&self, number: u32) -> Option<&Part> {
        self.parts.iter().find(|part| part.number == number)
    }

    /// The disk's GUID in RFC byte order.
    pub fn disk_guid(&self) -> [u8; 16] {
        self.disk_guid
    }

    /// The size of the disk that the table was checked for.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// The size of a sector: 512 or 4096.
    pub fn sector_size(&self) -> u64 {
        self.sector.as_u64()
    }
}

fn check_alone(part: &Part, usable: Usable, sector_size: u64, wrong: &mut Vec<String>) {
    let Part { number, name, first_lba, last_lba, .. } = part;
    if *number == 0 || *number > SLOTS {
        wrong.push(format!("{part} has a number that is not between 1 and {SLOTS}"));
    }
    let units = name.encode_utf16().count();
    if units > NAME_UNITS {
        wrong.push(format!("{part} has a name of {units} UTF-16 units; {NAME_UNITS} fit"));
    }
    if name.chars().any(|c| c == '\0') {
        wrong.push(format!("partition {number} has a name with a zero character"));
    }
    if part.guid == [0; 16] || part.kind.guid() == [0; 16] {
        wrong.push(format!("{part} has no GUID or no type GUID"));
    }
    if last_lba < first_lba {
        wrong.push(format!("{part} ends at sector {last_lba}, before its start at sector {first_lba}"));
    }
    if first_lba % (ALIGNMENT / sector_size) != 0 {
        wrong.push(format!("{part} starts at sector {first_lba}, which is not a multiple of 1 MiB"));
    }
    for (edge, lba) in [("starts", first_lba), ("ends", last_lba)] {
        if *lba < usable.first || *lba > usable.last {
            let Usable { first, last } = usable;
            wrong
                .push(format!("{part} {edge} at sector {lba}, outside the usable sectors {first} to {last}"));
        }
    }
}

fn check_places(parts: &[Part], wrong: &mut Vec<String>) {
    for (index, part) in parts.iter().enumerate() {
        for earlier in &parts[..index] {
            if part.first_lba <= earlier.last_lba && earlier.first_lba <= part.last_lba {
                wrong.push(format!("{part} overlaps {earlier}"));
            } else if part.first_lba < earlier.first_lba {
                wrong.push(format!("{part} is listed after {earlier} but lies before it"));
            }
        }
    }
}

fn check_unique(parts: &[Part], disk_guid: [u8; 16], wrong: &mut Vec<String>) {
    let mut numbers = BTreeMap::new();
    let mut guids = BTreeMap::from([(disk_guid, "the disk".to_owned())]);
    for part in parts {
        if let Some(other) = numbers.insert(part.number, &part.name) {
            wrong.push(format!("{part} has the number of {other:?}"));
        }
        if let Some(other) = guids.insert(part.guid, part.to_string()) {
            wrong.push(format!("{part} has the GUID of {other}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, first_mib: u64, last_lba: u64) -> Part {
        Part {
            number,
            name: format!("p{number}"),
            kind: PartKind::LinuxData,
            guid: [u8::try_from(number).unwrap() + 2; 16],
            first_lba: first_mib * 2048,
            last_lba,
        }
    }

    fn wrongs(parts: Vec<Part>) -> Vec<String> {
        CheckedTable::new(parts, [1; 16], 8 << 20, 512).expect_err("made wrong")
    }

    #[test]
    fn kinds_have_one_guid_each() {
        for (kind, guid) in KINDS {
            assert_eq!(kind.guid(), *guid.as_bytes());
            assert_eq!(PartKind::of(kind.guid()), kind);
        }
        assert_eq!(PartKind::of([7; 16]).guid(), [7; 16]);
    }

    #[test]
    fn a_good_table_passes_up_to_the_last_usable_sector() {
        let last = (8 << 20) / 512 - 34;
        let parts = vec![part(2, 1, 4095), part(1, 2, last)];
        let table = CheckedTable::new(parts.clone(), [1; 16], 8 << 20, 512).unwrap();
        assert_eq!(table.parts(), parts);
        assert_eq!(table.part(1), parts.get(1));
        assert_eq!(parts[1].start(512), 2 << 20);
        assert_eq!(parts[0].bytes(512), 1 << 20);
        assert_eq!(
            wrongs(vec![part(1, 2, last + 1)]),
            ["partition 1 (p1) ends at sector 16351, outside the usable sectors 34 to 16350"]
        );
    }

    #[test]
    fn each_fault_has_its_words() {
        let long = Part { name: "n".repeat(37), ..part(1, 1, 4095) };
        let table: [(Vec<Part>, &str); 9] = [
            (vec![part(0, 1, 4095)], "partition 0 (p0) has a number that is not between 1 and 128"),
            (vec![long], "has a name of 37 UTF-16 units; 36 fit"),
            (
                vec![Part { guid: [0; 16], ..part(1, 1, 4095) }],
                "partition 1 (p1) has no GUID or no type GUID",
            ),
            (vec![part(1, 1, 2047)], "partition 1 (p1) ends at sector 2047, before its start at sector 2048"),
            (
                vec![Part { first_lba: 2049, ..part(1, 1, 4095) }],
                "sector 2049, which is not a multiple of 1 MiB",
            ),
            (vec![part(1, 0, 4095)], "starts at sector 0, outside the usable sectors 34 to 16350"),
            (vec![part(1, 1, 4096), part(2, 2, 6143)], "partition 2 (p2) overlaps partition 1 (p1)"),
            (
                vec![part(1, 2, 6143), part(2, 1, 4095)],
                "partition 2 (p2) is listed after partition 1 (p1) but lies before it",
            ),
            (
                vec![part(1, 1, 4095), Part { guid: [3; 16], ..part(2, 2, 6143) }],
                "partition 2 (p2) has the GUID of partition 1 (p1)",
            ),
        ];
        for (parts, text) in table {
            let all = wrongs(parts);
            assert_eq!(all.len(), 1, "{all:?}");
            assert!(all[0].ends_with(text), "{all:?}");
        }
        assert_eq!(wrongs(vec![part(1, 1, 4095), part(1, 2, 6143)]).len(), 2);
        assert!(CheckedTable::new(vec![], [1; 16], 8 << 20, 1024).is_err());
        assert!(CheckedTable::new(vec![], [1; 16], 20 << 10, 512).is_err());
    }
}
