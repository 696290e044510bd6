//! Finishes the install of a mirror's other disk, whose table was about to be written when the power failed: all else was
//! whole on both by then, so that little is ever copied.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gatehouse_disk::{CheckedTable, Health, Part, Synced, read_table, write_table};
use gatehouse_model::{Doing as _, Fault};

use crate::host::random;

/// Boot code and mark of the first sector; between them lies what the table itself writes.
const BOOT_CODE: usize = 440;
/// Compared and copied at once.
const CHUNK: u64 = 1 << 20;

/// Whether a disk has a whole table with the image's partitions.
///
/// # Errors
/// It cannot be read.
pub fn is_done(disk: &str, sector_size: u64) -> Result<bool, Fault> {
    let path = Path::new("/dev").join(disk);
    let mut file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
    let table = read_table(&mut file, sector_size)?.filter(|table| table.health == Health::Whole);
    Ok(table.is_some_and(|table| table.parts.iter().filter(|part| is_own(part)).count() == 5))
}

/// Makes a disk's first partitions those of another one, with ids of its own; what is kept behind them stays. Its table is
/// written last.
///
/// # Errors
/// One cannot be read, or the other not be written; what is kept lies elsewhere.
pub fn finish(disk: &str, from: &str, sector_size: u64) -> Result<(), Fault> {
    let open = |name: &str, write| {
        let path = Path::new("/dev").join(name);
        OpenOptions::new().read(true).write(write).open(&path).doing(|| format!("opening {}", path.display()))
    };
    let (mut own, mut other) = (open(from, false)?, open(disk, true)?);
    let bytes = other.seek(SeekFrom::End(0)).doing(|| format!("reading {disk}"))?;
    let table = read_table(&mut own, sector_size)?;
    let mut parts: Vec<Part> = table.into_iter().flat_map(|table| table.parts).filter(is_own).collect();
    for part in &mut parts {
        part.guid = random::id()?;
    }
    let system = parts.clone();
    // One that cannot be read is no empty one: what is kept would be forgotten.
    let kept = read_table(&mut other, sector_size)?;
    parts.extend(kept.into_iter().flat_map(|table| table.parts).filter(|part| !is_own(part)));
    parts.sort_by_key(|part| part.first_lba);
    let table = CheckedTable::new(parts, random::id()?, bytes, sector_size)
        .map_err(|wrong| Fault::new(wrong.join("; ")))?;
    let doing = || format!("copying {from} to {disk}");
    for part in &system {
        let start = part.start(sector_size);
        copy(&own, &other, start, start + part.bytes(sector_size)).doing(doing)?;
    }
    let mut code = [0; BOOT_CODE];
    own.read_exact_at(&mut code, 0)
        .and_then(|()| other.write_all_at(&code, 0))
        .and_then(|()| other.write_all_at(&[0x55, 0xaa], 510))
        .and_then(|()| other.sync_data())
        .doing(doing)?;
    write_table(&table, &mut Synced(&other))
}

fn is_own(part: &Part) -> bool {
    (1..=5).contains(&part.number)
}

/// Copies what differs.
fn copy(from: &File, to: &File, start: u64, end: u64) -> std::io::Result<()> {
    let mut at = start;
    while at < end {
        let length = usize::try_from(CHUNK.min(end - at)).unwrap_or(0);
        let (mut wanted, mut there) = (vec![0; length], vec![0; length]);
        from.read_exact_at(&mut wanted, at)?;
        to.read_exact_at(&mut there, at)?;
        if wanted != there {
            to.write_all_at(&wanted, at)?;
        }
        at += CHUNK;
    }
    Ok(())
}
