//! What fatfs 0.3.6 leaves wrong or undated in a fresh FAT32, put right in its directories:
//! a long-name slot stands before "." and before "..", ".." of a top-level directory holds the root's cluster
//! number where the format wants 0, and times are empty.

use std::io::{self, Read, Seek, SeekFrom};

use crate::Device;

const SLOT: usize = 32;
const ATTRIBUTES: usize = 11;
const LONG_NAME: u8 = 0x0f;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const DELETED: u8 = 0xe5;
const DOT: &[u8; 11] = b".          ";
const DOT_DOT: &[u8; 11] = b"..         ";

/// A time as FAT writes it: UTC, two-second steps, years 1980 to 2107.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    date: u16,
    time: u16,
    hundredths: u8,
}

impl Stamp {
    /// The nearest time to so many seconds after 1970.
    pub fn of(epoch: u64) -> Self {
        const FIRST: u64 = 315_532_800; // 1980-01-01
        const LAST: u64 = 4_354_819_199; // 2107-12-31 23:59:59
        let epoch = epoch.clamp(FIRST, LAST);
        let (year, month, day) = civil(epoch / 86_400);
        let second = epoch % 86_400;
        let low =
            |number: u64| u16::try_from(number).expect("the clamp keeps dates and times within 16 bits");
        let date = low((year - 1980) * 512 + month * 32 + day);
        let time = low(second / 3600 * 2048 + second / 60 % 60 * 32 + second % 60 / 2);
        Self { date, time, hundredths: if second % 2 == 1 { 100 } else { 0 } }
    }

    fn put(self, slot: &mut [u8]) {
        let (date, time) = (self.date.to_le_bytes(), self.time.to_le_bytes());
        slot[22..24].copy_from_slice(&time);
        slot[24..26].copy_from_slice(&date);
        if slot[ATTRIBUTES] & LABEL == 0 {
            slot[13] = self.hundredths;
            slot[14..16].copy_from_slice(&time);
            slot[16..18].copy_from_slice(&date);
            slot[18..20].copy_from_slice(&date);
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01 (the days of a year counted from March on).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, after) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + after, month, date)
}

struct Geometry {
    cluster: u64,
    fat: u64,
    data: u64,
    root: u32,
}

impl Geometry {
    fn read<D: Read + Seek>(disk: &mut D) -> io::Result<Self> {
        let mut boot = [0; 64];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut boot)?;
        let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let word = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
        let sector = half(11);
        let fat = half(14) * sector;
        let data = fat + u64::from(boot[16]) * u64::from(word(36)) * sector;
        Ok(Self { cluster: u64::from(boot[13]) * sector, fat, data, root: word(44) })
    }

    fn offset(&self, cluster: u32) -> io::Result<u64> {
        let index = cluster.checked_sub(2).ok_or_else(|| unexpected("a cluster number below 2"))?;
        Ok(self.data + u64::from(index) * self.cluster)
    }

    fn next<D: Read + Seek>(&self, disk: &mut D, cluster: u32) -> io::Result<Option<u32>> {
        let mut entry = [0; 4];
        disk.seek(SeekFrom::Start(self.fat + u64::from(cluster) * 4))?;
        disk.read_exact(&mut entry)?;
        let next = u32::from_le_bytes(entry) & 0x0fff_ffff;
        Ok((next < 0x0fff_fff8).then_some(next))
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::other(format!("the FAT just made has {what}"))
}

/// Repairs and dates every directory of a FAT32 that fatfs has just made.
pub fn repair<D: Device>(disk: &mut D, stamp: Stamp) -> io::Result<()> {
    let fat = Geometry::read(disk)?;
    let mut bytes = vec![0; usize::try_from(fat.cluster).map_err(io::Error::other)?];
    // Each directory with the cluster that its ".." must name: 0 for the root's own children.
    let mut todo = vec![(fat.root, None)];
    while let Some((first, parent)) = todo.pop() {
        let mut cluster = Some(first);
        while let Some(now) = cluster {
            let at = fat.offset(now)?;
            disk.seek(SeekFrom::Start(at))?;
            disk.read_exact(&mut bytes)?;
            if let (Some(parent), true) = (parent, now == first) {
                mend_dots(&mut bytes, parent)?;
            }
            let own = if first == fat.root { 0 } else { first };
            todo.extend(date_slots(&mut bytes, stamp).map(|child| (child, Some(own))));
            disk.seek(SeekFrom::Start(at))?;
            disk.write_all(&bytes)?;
            cluster = fat.next(disk, now)?;
        }
    }
    Ok(())
}

/// Moves "." and ".." into the first two slots and marks the two behind them deleted.
fn mend_dots(directory: &mut [u8], parent: u32) -> io::Result<()> {
    let (long, short) = ([ATTRIBUTES, SLOT * 2 + ATTRIBUTES], [SLOT, SLOT * 3]);
    let as_fatfs_writes = long.iter().all(|at| directory[*at] == LONG_NAME)
        && directory[short[0]..][..11] == *DOT
        && directory[short[1]..][..11] == *DOT_DOT;
    if !as_fatfs_writes {
        return Err(unexpected("other dot entries than fatfs 0.3.6 writes"));
    }
    directory.copy_within(SLOT..SLOT * 2, 0);
    directory.copy_within(SLOT * 3..SLOT * 4, SLOT);
    directory[SLOT * 2..SLOT * 4].fill(0);
    directory[SLOT * 2] = DELETED;
    directory[SLOT * 3] = DELETED;
    let parent = parent.to_le_bytes();
    directory[SLOT + 20..SLOT + 22].copy_from_slice(&parent[2..]);
    directory[SLOT + 26..SLOT + 28].copy_from_slice(&parent[..2]);
    Ok(())
}

/// Dates every entry of one cluster of a directory; gives the first clusters of the directories in it.
fn date_slots(directory: &mut [u8], stamp: Stamp) -> impl Iterator<Item = u32> {
    directory
        .chunks_exact_mut(SLOT)
        .take_while(|slot| slot[0] != 0)
        .filter(|slot| slot[0] != DELETED && slot[ATTRIBUTES] != LONG_NAME)
        .filter_map(move |slot| {
            stamp.put(slot);
            let is_child = slot[ATTRIBUTES] & DIRECTORY != 0 && slot[0] != b'.';
            is_child.then(|| u32::from_le_bytes([slot[26], slot[27], slot[20], slot[21]]))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn times_are_clamped_to_what_fat_can_say() {
        let first = Stamp { date: 32 + 1, time: 0, hundredths: 0 };
        assert_eq!(Stamp::of(0), first);
        assert_eq!(Stamp::of(315_532_800), first);
        let last = Stamp { date: 127 * 512 + 12 * 32 + 31, time: 23 * 2048 + 59 * 32 + 29, hundredths: 100 };
        assert_eq!(Stamp::of(u64::MAX), last);
        let some = Stamp { date: 46 * 512 + 11 * 32 + 22, time: 18 * 2048 + 34 * 32 + 28, hundredths: 100 };
        assert_eq!(Stamp::of(20_779 * 86_400 + 18 * 3600 + 34 * 60 + 57), some);
    }
}
