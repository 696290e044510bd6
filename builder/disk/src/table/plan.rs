//! Where partitions go, decided without a disk: a new image, or an old table on a disk that is larger now.

use gatehouse_model::Size;

use super::{ALIGNMENT, CheckedTable, ENTRY_BYTES, Part, PartKind, SLOTS, Table, Usable, block_size};

/// A partition of an image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: PartKind,
    /// Its own GUID in RFC byte order.
    pub guid: [u8; 16],
    /// How much it must hold.
    pub size: Size,
}

/// How much room a new partition takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So much, rounded up to whole sectors.
    Exactly(Size),
    /// All that is left, down to the last whole MiB; only for the last one.
    Rest,
}

/// A partition to be added to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: PartKind,
    /// Its own GUID in RFC byte order.
    pub guid: [u8; 16],
    /// How much room it takes.
    pub room: Room,
}

/// Places partitions one behind the other from `first_mib` on, numbered from 1, and says how many bytes the
/// smallest disk needs for them and both copies of the table; a whole number of MiB.
pub fn layout(parts: &[Planned], first_mib: u64, sector_size: u64) -> (Vec<Part>, u64) {
    let mut next = first_mib * ALIGNMENT;
    let placed = (1..)
        .zip(parts)
        .map(|(number, part)| {
            let sectors = part.size.as_bytes().div_ceil(sector_size);
            let first_lba = next / sector_size;
            let last_lba = (first_lba + sectors).saturating_sub(1);
            next = (next + sectors * sector_size).next_multiple_of(ALIGNMENT);
            let Planned { name, kind, guid, .. } = part.clone();
            Part { number, name, kind, guid, first_lba, last_lba }
        })
        .collect::<Vec<_>>();
    let used = placed.last().map_or(next, |part| (part.last_lba + 1) * sector_size);
    let backup = u64::from(SLOTS) * u64::from(ENTRY_BYTES) + sector_size;
    (placed, (used + backup).next_multiple_of(ALIGNMENT))
}

/// Keeps every partition where it is and adds new ones behind the last, for a disk of `disk_bytes`.
pub fn grown(table: &Table, disk_bytes: u64, wanted: &[NewPart]) -> Result<CheckedTable, Vec<String>> {
    let sector_size = table.sector_size;
    let sector = block_size(sector_size).map_err(|wrong| vec![wrong])?;
    let usable = Usable::of(disk_bytes, sector).map_err(|wrong| vec![wrong])?;
    let per_unit = ALIGNMENT / sector_size;
    let end_of_rest = (usable.last + 1) / per_unit * per_unit;

    let mut parts = table.parts.clone();
    parts.sort_by_key(|part| part.first_lba);
    let mut next = parts.iter().map(|part| part.last_lba.saturating_add(1)).max().unwrap_or(per_unit);
    for (index, new) in wanted.iter().enumerate() {
        let NewPart { number, name, kind, guid, room } = new.clone();
        let first_lba = next.checked_next_multiple_of(per_unit).unwrap_or(next);
        next = match room {
            Room::Exactly(size) => first_lba.saturating_add(size.as_bytes().div_ceil(sector_size)),
            Room::Rest if index + 1 == wanted.len() => end_of_rest,
            Room::Rest => {
                return Err(vec![format!(
                    "partition {number} ({name}) takes the rest but is not the last one"
                )]);
            }
        };
        if next <= first_lba {
            return Err(vec![format!(
                "partition {number} ({name}) has no room: a disk of {disk_bytes} bytes is full at sector {first_lba}"
            )]);
        }
        parts.push(Part { number, name, kind, guid, first_lba, last_lba: next - 1 });
    }
    CheckedTable::new(parts, table.disk_guid, disk_bytes, sector_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Health;

    fn planned(name: &str, byte: u8, size: Size) -> Planned {
        Planned { name: name.into(), kind: PartKind::LinuxData, guid: [byte; 16], size }
    }

    fn new(number: u32, room: Room) -> NewPart {
        let guid = [u8::try_from(number).unwrap() + 100; 16];
        NewPart { number, name: format!("new{number}"), kind: PartKind::LinuxData, guid, room }
    }

    fn table(sector_size: u64) -> Table {
        let (parts, disk_bytes) =
            layout(&[planned("a", 2, Size::mib(1)), planned("b", 3, Size::bytes(5000))], 1, sector_size);
        Table { disk_guid: [1; 16], parts, disk_bytes, sector_size, health: Health::Whole }
    }

    #[test]
    fn an_image_is_as_small_as_it_can_be() {
        let ends = table(512).parts.iter().map(|part| (part.first_lba, part.last_lba)).collect::<Vec<_>>();
        assert_eq!(ends, [(2048, 4095), (4096, 4105)]);
        for sector_size in [512, 4096] {
            let Table { parts, disk_bytes, .. } = table(sector_size);
            assert_eq!(disk_bytes, 3 << 20);
            CheckedTable::new(parts.clone(), [1; 16], disk_bytes, sector_size).unwrap();
            CheckedTable::new(parts, [1; 16], disk_bytes - (1 << 20), sector_size).unwrap_err();
        }
    }

    #[test]
    fn new_partitions_stand_behind_the_old_ones() {
        let old = table(512);
        let wanted = [new(8, Room::Exactly(Size::mib(2))), new(9, Room::Rest)];
        let grown = grown(&old, 16 << 20, &wanted).unwrap();
        assert_eq!(grown.parts()[..2], old.parts[..]);
        let places = grown.parts()[2..].iter().map(|part| (part.start(512) >> 20, part.bytes(512) >> 20));
        assert_eq!(places.collect::<Vec<_>>(), [(3, 2), (5, 10)]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let old = table(512);
        let rest_first = [new(8, Room::Rest), new(9, Room::Rest)];
        assert_eq!(
            grown(&old, 16 << 20, &rest_first).unwrap_err(),
            ["partition 8 (new8) takes the rest but is not the last one"]
        );
        assert_eq!(
            grown(&old, 4 << 20, &[new(8, Room::Rest)]).unwrap_err(),
            ["partition 8 (new8) has no room: a disk of 4194304 bytes is full at sector 6144"]
        );
        assert_eq!(grown(&old, 4 << 20, &[new(8, Room::Exactly(Size::mib(9)))]).unwrap_err().len(), 1);
        assert_eq!(grown(&old, 2 << 20, &[]).unwrap_err().len(), 3);
    }
}
