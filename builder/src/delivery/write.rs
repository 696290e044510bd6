//! `gatehouse write`: an image onto a stick: only what counts, read back, bootable by its last write.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use gatehouse_disk::{CheckedTable, Part, Synced, Table, Window, write_table};
use gatehouse_model::site::InstallTo;
use gatehouse_model::{Digest, Doing as _, Exit, Fault, Hasher};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::Delivery;
use super::device::Seen;
use crate::image::{SECTOR, SITE, site_of, site_part, used};
use crate::{cli, term};

/// What is cleared at both ends before anything else: an old table must not show what is half written.
const CLEARED: usize = 1 << 20;
/// How much is written at a time.
const CHUNK: usize = 1 << 20;
/// Boot code in the first sector, before the disk's signature and the partition records.
const BOOT_CODE: usize = 440;

/// `gatehouse write`.
///
/// # Errors
/// The device is not one that may be written (exit 3); it gives back other bytes than were written (exit 5).
pub fn run(args: &cli::Write) -> Result<(), Fault> {
    let delivery = Delivery::open(&args.out)?;
    let table = delivery.table()?;
    let seen = Seen::of(&args.device)?;
    seen.judge(table.disk_bytes, args.fixed)?;
    let source = Source::open(&delivery, &table)?;
    let device = seen.open(table.disk_bytes)?;
    let bytes: u64 = source.ranges.iter().map(|range| range.end - range.start).sum();
    let called = if seen.model.is_empty() { String::new() } else { format!(" ({})", seen.model) };
    term::say(&format!(
        "writing {} MB to {}{called}; all on it is lost",
        bytes / 1_000_000,
        seen.path.display()
    ));
    write(&source, &device, &table, bytes)
        .doing(|| format!("writing {}", seen.path.display()))
        .map_err(|fault| fault.help("what is on it does not start; write it again, or take another stick"))?;
    term::say(&format!("{} is ready; take it out", seen.path.display()));
    Ok(())
}

/// The image, with the site partition as it is on a stick.
struct Source {
    image: File,
    site: Part,
    site_bytes: Vec<u8>,
    /// Everything that counts but both copies of the table.
    ranges: Vec<Range<u64>>,
}

impl Source {
    /// A stick installs to the disk that the rule names, unless its site says something else.
    fn open(delivery: &Delivery, table: &Table) -> Result<Self, Fault> {
        let doing = || format!("opening {}", delivery.image.display());
        let mut image = File::open(&delivery.image).doing(doing)?;
        let found = table.parts.iter().find(|part| part.name == SITE);
        let site = found.cloned().ok_or_else(|| Fault::new("the image has no site partition"))?;
        let files = site_part::with_boot(site_of(&delivery.image)?, InstallTo::Rule)?;
        let site_bytes = site_part::filesystem(&mut image, &site, delivery.epoch(), files)?;
        let mut ranges = Vec::new();
        for part in &table.parts {
            ranges.extend(if part.number == site.number {
                used::of_window(&mut Cursor::new(&site_bytes), part)?
            } else {
                used::of_part(&mut image, part)?
            });
        }
        Ok(Self { image, site, site_bytes, ranges })
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let (start, end) = (self.site.start(SECTOR), self.site.start(SECTOR) + self.site.bytes(SECTOR));
        if (start..end).contains(&at) {
            let from = usize::try_from(at - start).unwrap_or(usize::MAX);
            buffer.copy_from_slice(&self.site_bytes[from..from + buffer.len()]);
            return Ok(());
        }
        self.image.read_exact_at(buffer, at)
    }
}

fn write(source: &Source, device: &File, table: &Table, bytes: u64) -> Result<(), Fault> {
    let size = (&mut &*device).seek(SeekFrom::End(0))?;
    let zeros = vec![0; CLEARED];
    device.write_all_at(&zeros, 0)?;
    device.write_all_at(&zeros, size - CLEARED as u64)?;
    device.sync_data()?;
    let bar = term::bar("writing", term::Unit::Bytes, bytes);
    let mut digests = Vec::new();
    for range in &source.ranges {
        digests.push(copy(source, device, range, &bar)?);
    }
    device.sync_data()?;
    bar.finish();
    let bar = term::bar("reading back", term::Unit::Bytes, bytes);
    posix_fadvise(device, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).doing(|| "reading back")?;
    for (range, wanted) in source.ranges.iter().zip(digests) {
        if digest(device, range, &bar)? != wanted {
            let what = format!("at byte {} it gives back other bytes than were written", range.start);
            return Err(Fault::new(what).exit(Exit::Mismatch));
        }
    }
    bar.finish();
    make_bootable(source, device, table, size)
}

/// Boot code first, which finds nothing yet; then both copies of the table, the one at the beginning last.
fn make_bootable(source: &Source, device: &File, table: &Table, size: u64) -> Result<(), Fault> {
    let mut first = [0; 512];
    source.image.read_exact_at(&mut first, 0)?;
    first[BOOT_CODE..510].fill(0);
    device.write_all_at(&first, 0)?;
    device.sync_data()?;
    let checked = CheckedTable::new(table.parts.clone(), table.disk_guid, size, SECTOR)
        .map_err(|wrong| Fault::new(wrong.join("; ")))?;
    write_table(&checked, &mut Synced(device))
}

fn copy(source: &Source, device: &File, range: &Range<u64>, bar: &term::Bar) -> Result<Digest, Fault> {
    let (mut at, mut buffer, mut hasher) = (range.start, vec![0; CHUNK], Hasher::new());
    while at < range.end {
        let count = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
        source.read(at, &mut buffer[..count])?;
        hasher.update(&buffer[..count]);
        device.write_all_at(&buffer[..count], at)?;
        at += count as u64;
        bar.add(count as u64);
    }
    Ok(hasher.finish())
}

fn digest(device: &File, range: &Range<u64>, bar: &term::Bar) -> Result<Digest, Fault> {
    let (mut buffer, mut hasher) = (vec![0; CHUNK], Hasher::new());
    let mut from = Window::new(device, "the device", range.start, range.end - range.start);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        bar.add(count as u64);
    }
}
