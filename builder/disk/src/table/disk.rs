//! Partition tables on a disk: written so that a cut at any point leaves one good copy, read with suspicion.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use gatehouse_model::{Doing, Fault};
use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, HeaderBuilder, HeaderError, read_header_from_arbitrary_device};
use gpt::mbr::ProtectiveMBR;
use gpt::partition::{Partition, file_read_partitions};
use gpt::partition_types::Type;
use uuid::Uuid;

use super::{CheckedTable, ENTRY_BYTES, Part, PartKind, SLOTS, block_size};
use crate::{Device, Window};

const MBR_RECORDS: usize = 446;
/// More entries than this are damage or an attack, not a table.
const MOST_ENTRIES: u32 = 1024;

/// How well the two copies of a table on a disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Both copies are good and say the same.
    Whole,
    /// The table was read from the backup at the disk's end.
    PrimaryLost,
    /// The backup is missing, damaged or says something else.
    BackupLost,
    /// The backup is not at the disk's end: the disk was smaller when the table was written.
    DiskGrew,
}

/// A table as found on a disk: its checksums are right, nothing else was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID in RFC byte order.
    pub disk_guid: [u8; 16],
    /// The partitions, by number.
    pub parts: Vec<Part>,
    /// The size of the disk now.
    pub disk_bytes: u64,
    /// The size of a sector that the table counts in.
    pub sector_size: u64,
    /// How well the copies are.
    pub health: Health,
}

/// Writes a table: protective MBR, backup copy, primary entries and, last of all, the primary header.
///
/// Boot code and everything else in the first 446 bytes stay. The device is flushed between the steps; give
/// a `Synced` file where their order must survive a power cut. The device must have the size that was checked.
pub fn write_table<D: Device>(table: &CheckedTable, device: &mut D) -> Result<(), Fault> {
    let bytes = device.seek(SeekFrom::End(0)).doing(|| "measuring the disk")?;
    let sector = table.sector;
    if bytes / sector.as_u64() != table.disk_bytes / sector.as_u64() {
        let wanted = table.disk_bytes;
        return Err(Fault::new(format!("the disk has {bytes} bytes, the partition table is for {wanted}")));
    }
    let entries = entries(table).doing(|| "encoding the partition entries")?;
    let mut primary = header(table, true).doing(|| "encoding the partition table")?;
    let mut backup = header(table, false).doing(|| "encoding the backup partition table")?;

    let sectors = u32::try_from(table.disk_bytes / sector.as_u64() - 1).unwrap_or(u32::MAX);
    let records = ProtectiveMBR::with_lb_size(sectors).to_bytes();
    put(device, MBR_RECORDS as u64, &records[MBR_RECORDS..]).doing(|| "writing the protective MBR")?;

    put(device, backup.part_start * sector.as_u64(), &entries)
        .doing(|| "writing the backup partition entries")?;
    backup.write_backup(device, sector).doing(|| "writing the backup partition table")?;
    device.flush().doing(|| "writing the backup partition table")?;

    put(device, primary.part_start * sector.as_u64(), &entries).doing(|| "writing the partition entries")?;
    device.flush().doing(|| "writing the partition entries")?;
    primary.write_primary(device, sector).doing(|| "writing the partition table")?;
    device.flush().doing(|| "writing the partition table")
}

fn put<D: Write + Seek>(device: &mut D, at: u64, bytes: &[u8]) -> io::Result<()> {
    device.seek(SeekFrom::Start(at))?;
    device.write_all(bytes)
}

fn header(table: &CheckedTable, primary: bool) -> Result<Header, HeaderError> {
    HeaderBuilder::new()
        .disk_guid(Uuid::from_bytes(table.disk_guid))
        .num_parts(SLOTS)
        .backup_lba(table.disk_bytes / table.sector.as_u64() - 1)
        .primary(primary)
        .build(table.sector)
}

fn entries(table: &CheckedTable) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(vec![0; SLOTS as usize * ENTRY_BYTES as usize]);
    for part in &table.parts {
        let entry = Partition {
            part_type_guid: Type::from(Uuid::from_bytes(part.kind.guid())),
            part_guid: Uuid::from_bytes(part.guid),
            first_lba: part.first_lba,
            last_lba: part.last_lba,
            flags: 0,
            name: part.name.clone(),
        };
        entry.write_to_device(&mut bytes, u64::from(part.number - 1), 0, table.sector, ENTRY_BYTES)?;
    }
    Ok(bytes.into_inner())
}

enum Copy {
    Good { header: Header, parts: Vec<Part> },
    Bad(String),
    Absent,
}

/// Reads the table of a disk, from its backup if need be; `None` if there is no trace of one.
///
/// A table of which no copy is good is a fault, so that it is never mistaken for an empty disk.
pub fn read_table<D: Read + Seek>(device: &mut D, sector_size: u64) -> Result<Option<Table>, Fault> {
    let sector = block_size(sector_size).map_err(Fault::new)?;
    let disk_bytes = device.seek(SeekFrom::End(0)).doing(|| "measuring the disk")?;
    let last = (disk_bytes / sector_size).saturating_sub(1);
    let table = |header: &Header, parts, health| {
        let disk_guid = header.disk_guid.into_bytes();
        Ok(Some(Table { disk_guid, parts, disk_bytes, sector_size, health }))
    };
    if last < 2 {
        return Ok(None);
    }
    let backup = read_copy(device, last, sector);
    match (read_copy(device, 1, sector), backup) {
        (Copy::Good { header, parts }, _) if header.backup_lba < last => {
            table(&header, parts, Health::DiskGrew)
        }
        (Copy::Good { header, parts }, Copy::Good { header: other, parts: others })
            if parts == others && header.disk_guid == other.disk_guid =>
        {
            table(&header, parts, Health::Whole)
        }
        (Copy::Good { header, parts }, _) => table(&header, parts, Health::BackupLost),
        (_, Copy::Good { header, parts }) => table(&header, parts, Health::PrimaryLost),
        (Copy::Absent, Copy::Absent) => Ok(None),
        (Copy::Bad(why), _) | (Copy::Absent, Copy::Bad(why)) => {
            Err(Fault::new(why)).doing(|| "reading the partition table")
        }
    }
}

fn read_copy<D: Read + Seek>(device: &mut D, lba: u64, sector: LogicalBlockSize) -> Copy {
    // The crate reads a header from the second sector of what it is given.
    let two = Window::new(&mut *device, "the header", (lba - 1) * sector.as_u64(), 2 * sector.as_u64());
    let header = match read_header_from_arbitrary_device(&mut { two }, sector) {
        Ok(header) => header,
        Err(HeaderError::InvalidGptSignature) => return Copy::Absent,
        Err(error) => return Copy::Bad(format!("the copy at sector {lba}: {error}")),
    };
    if header.current_lba != lba || header.part_size != ENTRY_BYTES || header.num_parts > MOST_ENTRIES {
        return Copy::Bad(format!("the copy at sector {lba} has impossible values in its header"));
    }
    match file_read_partitions(device, &header, sector) {
        Ok(found) => {
            let parts = found.into_iter().filter(|(_, entry)| entry.is_used()).map(from_entry).collect();
            Copy::Good { header, parts }
        }
        Err(error) => Copy::Bad(format!("the copy at sector {lba}: {error}")),
    }
}

fn from_entry((number, entry): (u32, Partition)) -> Part {
    Part {
        number,
        name: entry.name,
        kind: PartKind::of(entry.part_type_guid.guid.into_bytes()),
        guid: entry.part_guid.into_bytes(),
        first_lba: entry.first_lba,
        last_lba: entry.last_lba,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(disk_bytes: u64, sector_size: u64) -> CheckedTable {
        let part = |number: u32, name: &str, kind, mib: u64| Part {
            number,
            name: name.into(),
            kind,
            guid: [u8::try_from(number).unwrap() + 16; 16],
            first_lba: (mib << 20) / sector_size,
            last_lba: ((mib + 1) << 20) / sector_size - 1,
        };
        let parts = vec![part(1, "gh-bios", PartKind::BiosBoot, 1), part(3, "größer", PartKind::Esp, 2)];
        CheckedTable::new(parts, [5; 16], disk_bytes, sector_size).unwrap()
    }

    fn written(sector_size: u64) -> Cursor<Vec<u8>> {
        let mut disk = Cursor::new(vec![0xc3; 4 << 20]);
        write_table(&table(4 << 20, sector_size), &mut disk).unwrap();
        disk
    }

    fn health(disk: &mut Cursor<Vec<u8>>, sector_size: u64) -> Option<Health> {
        read_table(disk, sector_size).unwrap().map(|table| table.health)
    }

    #[test]
    fn the_bytes_are_those_of_the_standard() {
        for sector_size in [512_usize, 4096] {
            let disk = written(sector_size as u64).into_inner();
            let word = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_le_bytes(disk[at..at + 8].try_into().unwrap());
            let last = disk.len() / sector_size - 1;
            assert!(disk[..446].iter().all(|byte| *byte == 0xc3), "boot code stays");
            assert_eq!(
                (disk[450], word(454), word(458), disk[510..512].to_vec()),
                (0xee, 1, u32::try_from(last).unwrap(), vec![0x55, 0xaa])
            );
            for (at, mine, other, entries) in [(1, 1, last, 2), (last, last, 1, last - 16384 / sector_size)] {
                let at = at * sector_size;
                assert_eq!(disk[at..at + 12], *b"EFI PART\0\0\x01\0");
                let mut head = disk[at..at + 92].to_vec();
                head[16..20].fill(0);
                assert_eq!(word(at + 16), crc32fast::hash(&head));
                assert_eq!((long(at + 24), long(at + 32)), (mine as u64, other as u64));
                assert_eq!(long(at + 72), entries as u64);
                let entries = &disk[entries * sector_size..][..16384];
                assert_eq!(word(at + 88), crc32fast::hash(entries));
                assert_eq!(
                    entries[..16],
                    *b"\x48\x61\x68\x21\x49\x64\x6f\x6e\x74\x4e\x65\x65\x64\x45\x46\x49"
                );
                assert!(disk[at + 92..at + sector_size].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for sector_size in [512, 4096] {
            let checked = table(4 << 20, sector_size);
            let read = read_table(&mut written(sector_size), sector_size).unwrap().unwrap();
            assert_eq!((read.parts.as_slice(), read.disk_guid), (checked.parts(), [5; 16]));
            assert_eq!(read.health, Health::Whole);
            assert_eq!(health(&mut written(sector_size), 4608 - sector_size), None);
        }
    }

    #[test]
    fn one_lost_copy_is_survived_and_two_are_a_fault() {
        let mut disk = written(512);
        disk.get_mut()[2 * 512 + 60] ^= 1;
        assert_eq!(health(&mut disk, 512), Some(Health::PrimaryLost));
        let end = disk.get_ref().len();
        disk.get_mut()[end - 500] ^= 1;
        let fault = read_table(&mut disk, 512).unwrap_err().to_string();
        assert!(fault.starts_with("reading the partition table: the copy at sector 1: "), "{fault}");

        let mut disk = written(512);
        disk.get_mut()[end - 512..].fill(0);
        assert_eq!(health(&mut disk, 512), Some(Health::BackupLost));
        assert_eq!(health(&mut Cursor::new(vec![0; 4 << 20]), 512), None);
        assert_eq!(health(&mut Cursor::new(vec![]), 512), None);
    }

    #[test]
    fn a_disk_that_grew_is_seen_and_its_size_is_checked() {
        let mut disk = written(512);
        disk.get_mut().resize(6 << 20, 0);
        assert_eq!(health(&mut disk, 512), Some(Health::DiskGrew));
        let fault = write_table(&table(4 << 20, 512), &mut disk).unwrap_err().to_string();
        assert_eq!(fault, "the disk has 6291456 bytes, the partition table is for 4194304");
    }

    /// A disk that loses power after so many bytes.
    struct Cut<'a>(&'a mut Cursor<Vec<u8>>, usize);

    impl Read for Cut<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Cut<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let take = bytes.len().min(self.1);
            self.1 -= take;
            self.0.write(&bytes[..take])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Cut<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn a_cut_anywhere_leaves_the_old_table_or_the_new_one() {
        let old = table(4 << 20, 512);
        let mut parts = old.parts().to_vec();
        parts.push(Part { number: 9, guid: [99; 16], first_lba: 8192, last_lba: 8200, ..parts[0].clone() });
        for grow in [false, true] {
            let bytes = if grow { 8 << 20 } else { 4 << 20 };
            let parts = if grow { parts.clone() } else { parts[..1].to_vec() };
            let new = CheckedTable::new(parts, [5; 16], bytes, 512).unwrap();
            for cut in (0..34_000).step_by(487) {
                let mut disk = written(512);
                disk.get_mut().resize(usize::try_from(bytes).unwrap(), 0);
                let done = write_table(&new, &mut Cut(&mut disk, cut)).is_ok();
                let found = read_table(&mut disk, 512).unwrap().unwrap();
                let is_new = found.parts == new.parts();
                assert!(is_new || found.parts == old.parts(), "cut at {cut}");
                assert!(!done || (is_new && found.health == Health::Whole), "cut at {cut}");
            }
        }
    }
}
