//! `gatehouse write`: an image onto a stick: only what counts, read back, bootable by its last write.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use gatehouse_disk::{CheckedTable, Health, Part, Synced, Table, Window, read_table, write_table};
use gatehouse_model::site::InstallTo;
use gatehouse_model::{Digest, Doing as _, Exit, Fault, Hasher, Refusal};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::device::Seen;
use super::{Delivery, damage};
use crate::image::{SECTOR, SITE, site_of, site_part, used};
use crate::{cli, term};

/// What is cleared at both ends before anything else: an old table must not show what is half written.
const CLEARED: usize = 1 << 20;
/// How much is written at a time.
const CHUNK: usize = 1 << 20;
/// How much may be in memory only: the bar shows what the device has taken.
const UNSYNCED: u64 = 16 << 20;
/// The first sector.
const FIRST: usize = 512;
/// Boot code in the first sector, before the disk's signature and the partition records.
const BOOT_CODE: usize = 440;
/// Where the partition records begin.
const RECORDS: usize = 446;

/// `gatehouse write`.
///
/// # Errors
/// The device is not one that may be written, or the image is not whole (exit 3); it gives back other bytes than were
/// written (exit 5).
pub fn run(args: &cli::Write) -> Result<(), Fault> {
    let delivery = Delivery::open(&args.out)?;
    let table = delivery.table()?;
    judge(&delivery.image, &table, &args.device)?;
    let seen = Seen::of(&args.device)?;
    seen.judge(table.disk_bytes, args.fixed)?;
    let source = Source::open(&delivery, &table)?;
    let device = seen.open(table.disk_bytes)?;
    let size = (&device).seek(SeekFrom::End(0)).doing(|| format!("measuring {}", seen.path.display()))?;
    let table = CheckedTable::new(table.parts, table.disk_guid, size, SECTOR)
        .map_err(|wrong| Fault::new(wrong.join("; ")))?;
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

/// Whether an image may be written to a place, as far as the image goes: what is there is not given up for half of one.
fn judge(image: &Path, table: &Table, to: &Path) -> Result<(), Refusal> {
    let shown = image.display();
    if let Some(damage) = damage(table.health) {
        let help = "copy it again from where it was built; `gatehouse verify` says what is wrong with it";
        return Err(Refusal::new(format!("{shown} is not whole: {damage}"), help));
    }
    let node = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    if node(to).is_some_and(|to| Some(to) == node(image)) {
        let what = format!("{} is {shown} itself", to.display());
        return Err(Refusal::new(what, "name a stick, or another file"));
    }
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

fn write(source: &Source, device: &File, table: &CheckedTable, bytes: u64) -> Result<(), Fault> {
    let zeros = vec![0; CLEARED];
    device.write_all_at(&zeros, 0)?;
    device.write_all_at(&zeros, table.disk_bytes() - CLEARED as u64)?;
    device.sync_data()?;
    let bar = term::bar("writing", term::Unit::Bytes, bytes);
    let (mut digests, mut target) = (Vec::new(), Target { device, bar: &bar, unsynced: 0 });
    for range in &source.ranges {
        digests.push(target.copy(source, range)?);
    }
    target.sync()?;
    bar.finish();
    let bar = term::bar("reading back", term::Unit::Bytes, bytes);
    forget(device)?;
    for (range, wanted) in source.ranges.iter().zip(digests) {
        if digest(device, range, &bar)? != wanted {
            return Err(other_bytes(range.start));
        }
    }
    bar.finish();
    make_bootable(source, device, table)
}

/// Takes a device's bytes out of memory, so that what is read next is what the device has.
fn forget(device: &File) -> Result<(), Fault> {
    posix_fadvise(device, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).doing(|| "reading back")
}

fn other_bytes(at: u64) -> Fault {
    Fault::new(format!("at byte {at} it gives back other bytes than were written")).exit(Exit::Mismatch)
}

/// Boot code first, which finds nothing yet; then both copies of the table, the one at the beginning last. All of it is
/// read back too.
fn make_bootable(source: &Source, device: &File, table: &CheckedTable) -> Result<(), Fault> {
    let mut first = [0; FIRST];
    source.image.read_exact_at(&mut first, 0)?;
    first[BOOT_CODE..FIRST - 2].fill(0);
    device.write_all_at(&first, 0)?;
    device.sync_data()?;
    write_table(table, &mut Synced(device))?;
    forget(device)?;
    let mut found = [0; FIRST];
    device.read_exact_at(&mut found, 0)?;
    if found[..RECORDS] != first[..RECORDS] {
        return Err(other_bytes(0));
    }
    let whole = |read: &Table| (read.health, read.parts.as_slice()) == (Health::Whole, table.parts());
    match read_table(&mut &*device, SECTOR) {
        Ok(Some(read)) if whole(&read) => Ok(()),
        _ => Err(Fault::new("it gives back another partition table than was written").exit(Exit::Mismatch)),
    }
}

/// What is written to, and how far it is.
struct Target<'a> {
    device: &'a File,
    bar: &'a term::Bar,
    unsynced: u64,
}

impl Target<'_> {
    /// Copies one range; answers with its digest.
    fn copy(&mut self, source: &Source, range: &Range<u64>) -> Result<Digest, Fault> {
        let (mut at, mut buffer, mut hasher) = (range.start, vec![0; CHUNK], Hasher::new());
        while at < range.end {
            let count = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
            source.read(at, &mut buffer[..count])?;
            hasher.update(&buffer[..count]);
            self.device.write_all_at(&buffer[..count], at)?;
            at += count as u64;
            self.unsynced += count as u64;
            if self.unsynced >= UNSYNCED {
                self.sync()?;
            }
        }
        Ok(hasher.finish())
    }

    /// Waits until the device has everything.
    fn sync(&mut self) -> Result<(), Fault> {
        self.device.sync_data()?;
        self.bar.add(self.unsynced);
        self.unsynced = 0;
        Ok(())
    }
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
