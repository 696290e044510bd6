//! Which bytes of an image count: what must be right on a device, whatever it held before.

use std::io::{self, Read, Seek, SeekFrom};
use std::iter;
use std::ops::Range;

use gatehouse_disk::{Part, Window};
use gatehouse_model::{Doing as _, Fault};

use super::SECTOR;
use super::layout::{BIOS, ESP, SITE};

/// Ranges begin and end at multiples of this: the blocks that bmap files count in.
pub const BLOCK: u64 = 4096;
/// Fields of a FAT32's first sector (Microsoft's "FAT: General Overview of On-Disk Format").
const SECTORS_PER_CLUSTER: usize = 13;
const RESERVED_SECTORS: usize = 14;
const FATS: usize = 16;
const SECTORS: usize = 32;
const SECTORS_PER_FAT: usize = 36;
const BYTES_PER_SECTOR: usize = 11;
/// The bits of a FAT32's entry that name a cluster.
const CLUSTER: u32 = 0x0fff_ffff;
/// An erofs's first block, block size and number of blocks (Linux, `erofs_super_block`).
const EROFS_MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const EROFS_AT: u64 = 1024;

/// The ranges of one partition, counted from the image's start, in order.
///
/// # Errors
/// It cannot be read, or holds no file system that the builder makes.
pub fn of_part(image: &mut (impl Read + Seek), part: &Part) -> Result<Vec<Range<u64>>, Fault> {
    let (start, bytes) = (part.start(SECTOR), part.bytes(SECTOR));
    of_window(&mut Window::new(image, part.to_string(), start, bytes), part)
}

/// The same of a partition's bytes wherever they are.
///
/// # Errors
/// As [`of_part`].
pub fn of_window(window: &mut (impl Read + Seek), part: &Part) -> Result<Vec<Range<u64>>, Fault> {
    let (start, bytes) = (part.start(SECTOR), part.bytes(SECTOR));
    let ranges = match part.name.as_str() {
        BIOS => Ok(iter::once(0..bytes).collect()),
        ESP | SITE => fat(window),
        _ => erofs(window).map(|end| iter::once(0..end).collect()),
    };
    let ranges = ranges.doing(|| format!("reading {part}"))?;
    let whole = ranges.into_iter().map(|range| {
        let end = range.end.next_multiple_of(BLOCK).min(bytes);
        start + range.start / BLOCK * BLOCK..start + end
    });
    Ok(joined(whole.collect()))
}

/// Ranges that touch become one.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_at(from: &mut (impl Read + Seek), at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    from.seek(SeekFrom::Start(at))?;
    from.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// Everything before the first cluster, and the clusters that are taken.
fn fat(window: &mut (impl Read + Seek)) -> io::Result<Vec<Range<u64>>> {
    let first = read_at(window, 0, 512)?;
    let half = |at: usize| u64::from(u16::from_le_bytes([first[at], first[at + 1]]));
    let word = |at: usize| u32::from_le_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]]);
    let (sector, per_fat) = (half(BYTES_PER_SECTOR), u64::from(word(SECTORS_PER_FAT)));
    let (reserved, cluster) = (half(RESERVED_SECTORS), u64::from(first[SECTORS_PER_CLUSTER]) * sector);
    if first[510..] != [0x55, 0xaa] || sector != SECTOR || per_fat == 0 || cluster == 0 {
        return Err(damaged("it is no FAT32 of the builder's"));
    }
    let table = usize::try_from(per_fat * sector).map_err(|_| damaged("its table is too large"))?;
    let table = read_at(window, reserved * sector, table)?;
    let data = (reserved + u64::from(first[FATS]) * per_fat) * sector;
    let mut ranges: Vec<Range<u64>> = iter::once(0..data).collect();
    let entries =
        table.chunks_exact(4).map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
    // The table's last sector has entries for clusters that are not there.
    let end = u64::from(word(SECTORS)) * sector;
    for (number, _) in (0_u64..).zip(entries).skip(2).filter(|(_, entry)| entry & CLUSTER != 0) {
        let at = data + (number - 2) * cluster;
        if at + cluster <= end {
            ranges.push(at..at + cluster);
        }
    }
    Ok(joined(ranges))
}

/// How far an erofs reaches.
fn erofs(window: &mut (impl Read + Seek)) -> io::Result<u64> {
    let super_block = read_at(window, EROFS_AT, 128)?;
    if super_block[..4] != EROFS_MAGIC {
        return Err(damaged("it is no erofs"));
    }
    let blocks = u32::from_le_bytes([super_block[36], super_block[37], super_block[38], super_block[39]]);
    Ok(u64::from(blocks) << super_block[12])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use gatehouse_disk::{FatFile, FatSpec, write_fat};

    use super::*;

    #[test]
    fn a_fat_counts_up_to_its_last_file() {
        let mut disk = Cursor::new(vec![0; 64 << 20]);
        let spec = FatSpec { label: "X".into(), volume_id: 7, epoch: 1 << 30, sector_size: 512 };
        let files = vec![FatFile::bytes("a", vec![1; 100_000]), FatFile::bytes("d/b", "x")];
        write_fat(&mut disk, &spec, files).expect("made");
        let ranges = fat(&mut disk).expect("read");
        let counted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert!(ranges.iter().all(|range| range.end < 32 << 20), "{ranges:?}");
        assert!(ranges[0].start == 0 && (1_000_000..2_000_000).contains(&counted), "{ranges:?}");
        // What does not count may hold anything.
        let mut old = vec![0xa5; 64 << 20];
        for range in &ranges {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            old[range.clone()].copy_from_slice(&disk.get_ref()[range]);
        }
        let files =
            gatehouse_disk::read_fat(Cursor::new(old), gatehouse_disk::FatLimits::default()).expect("read");
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].1, vec![1; 100_000]);
        assert!(fat(&mut Cursor::new(vec![0; 1024])).is_err());
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(joined(vec![0..4, 4..8, 12..16]), [0..8, 12..16]);
    }
}
