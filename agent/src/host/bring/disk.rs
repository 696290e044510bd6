//! The disk that is being installed. Whatever is written is read back from the disk itself.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gatehouse_disk::{
    CheckedTable, Health, Part, PartKind, Synced, Table, embed_grub, read_table, write_table,
};
use gatehouse_model::{Contents, Doing as _, Event, Fault, FileRef, Hasher, State};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::copy::{self, Pace};
use super::fat::{self, Fats};
use super::medium::Medium;
use super::plan::{BIOS, BringPlan, ESP, SITE};
use super::step::{Slice, Step};
use crate::control::board::now_millis;
use crate::host::claim::{BLOCK, CLAIM_AT, Claim};
use crate::host::facts::part_device;
use crate::host::run::{Act as _, Host};
use crate::host::{random, sys};

/// What is cleared at both ends of a disk: tables and signatures lie there, the farthest of them (the copy of a LUKS header)
/// at 4 MiB.
const CLEARED: u64 = 8 << 20;
/// Boot code in the first sector, before the partition records.
const BOOT_CODE: usize = 440;
/// The image's own partitions.
const OWN: std::ops::RangeInclusive<u32> = 1..=5;

/// A disk that is being installed.
pub struct NewDisk<'a> {
    name: String,
    file: File,
    bytes: u64,
    sector_size: u64,
    kept: Vec<Slice>,
    medium: &'a dyn Medium,
    contents: &'a Contents,
    fats: Fats<'a>,
    told: Box<dyn FnMut(Event) + 'a>,
}

impl std::fmt::Debug for NewDisk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewDisk").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> NewDisk<'a> {
    /// Opens the disk of a plan; `told` hears how far the copying is.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(
        plan: &BringPlan,
        medium: &'a dyn Medium,
        contents: &'a Contents,
        fats: Fats<'a>,
        told: Box<dyn FnMut(Event) + 'a>,
    ) -> Result<Self, Fault> {
        let path = Path::new("/dev").join(&plan.disk);
        let doing = || format!("opening {}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).open(&path).doing(doing)?;
        let bytes = file.seek(SeekFrom::End(0)).doing(doing)?;
        let (name, sector_size, kept) = (plan.disk.clone(), plan.sector_size, plan.kept.clone());
        Ok(Self { name, file, bytes, sector_size, kept, medium, contents, fats, told })
    }

    /// The device of the finished disk's site partition, once the kernel was told of it; none if it was not.
    pub fn site_part(&self, plan: &BringPlan) -> Option<String> {
        let slice = plan.steps.iter().find_map(|step| match step {
            Step::MakeSite { to } => Some(to),
            _ => None,
        })?;
        let device = format!("/dev/{}", part_device(&self.name, slice.number));
        // Of an install that was done anew the kernel may know it, at the same place.
        let _ = sys::add_partition(self.file.as_fd(), slice.number, slice.start, slice.bytes);
        Path::new(&device).exists().then_some(device)
    }

    /// The disk's table; none if it has none. One that cannot be read is a fault: what it kept would be forgotten.
    fn table(&self) -> Result<Option<Table>, Fault> {
        read_table(&mut &self.file, self.sector_size).doing(|| format!("reading {}", self.name))
    }

    /// Has what follows be read from the disk, not from what was written to it.
    fn settle(&self) -> Result<(), Fault> {
        self.file.sync_data().doing(|| format!("writing {}", self.name))?;
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .doing(|| format!("reading {} back", self.name))
    }

    fn is_claimed(&self, claim: &Claim) -> Result<bool, Fault> {
        let mut block = [0; BLOCK];
        self.file.read_exact_at(&mut block, CLAIM_AT).doing(|| format!("reading {}", self.name))?;
        Ok(Claim::from_block(&block).as_ref() == Some(claim))
    }

    fn claim(&self, claim: &Claim) -> Result<(), Fault> {
        self.file
            .write_all_at(&claim.to_block(), CLAIM_AT)
            .and_then(|()| self.file.sync_data())
            .doing(|| format!("claiming {}", self.name))
    }

    /// Everything before and behind the claim, at both ends of the disk.
    fn clear(&self) -> Result<(), Fault> {
        let behind = CLAIM_AT + BLOCK as u64;
        let end = self.bytes.saturating_sub(CLEARED).max(CLEARED);
        for (from, to) in [(0, CLAIM_AT), (behind, CLEARED), (end, self.bytes)] {
            let zeros = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
            self.file.write_all_at(&zeros, from).doing(|| format!("clearing {}", self.name))?;
        }
        self.file.sync_data().doing(|| format!("clearing {}", self.name))
    }

    fn boot_code(&self) -> Result<[u8; BOOT_CODE], Fault> {
        let mut code = [0; BOOT_CODE];
        self.file.read_exact_at(&mut code, 0).doing(|| format!("reading {}", self.name))?;
        Ok(code)
    }

    /// Takes the boot code away, and the image's partitions out of the table; those that are kept stay in it.
    fn withhold(&self) -> Result<(), Fault> {
        self.file.write_all_at(&[0; BOOT_CODE], 0).doing(|| format!("writing {}", self.name))?;
        let table =
            self.table()?.ok_or_else(|| Fault::new(format!("{} has no partition table", self.name)))?;
        let kept = table.parts.iter().filter(|part| !OWN.contains(&part.number)).cloned().collect();
        self.write(kept, table.disk_guid)
    }

    fn write(&self, parts: Vec<Part>, guid: [u8; 16]) -> Result<(), Fault> {
        if let Some(lost) = self.kept.iter().find(|kept| !kept.is_among(&parts, self.sector_size)) {
            let what = format!("{} of {}, which is to be kept, is not in its table", lost.name, self.name);
            return Err(Fault::new(what).help("nothing was written to the table; start again"));
        }
        let table = CheckedTable::new(parts, guid, self.bytes, self.sector_size)
            .map_err(|wrong| Fault::new(wrong.join("; ")))?;
        write_table(&table, &mut Synced(&self.file))
    }

    fn is_copied(&self, to: &Slice, piece: &FileRef) -> Result<bool, Fault> {
        let doing = || format!("reading {} back", to.name);
        self.settle()?;
        let mut window = to.window(&self.file);
        let mut first = vec![0; 4096.min(usize::try_from(piece.size).unwrap_or(4096))];
        window.read_exact(&mut first).doing(doing)?;
        // An erofs has its own mark here: what was never written need not be read to its end.
        if first.iter().all(|byte| *byte == 0) && piece.size > 4096 {
            return Ok(false);
        }
        window.seek(SeekFrom::Start(0)).doing(doing)?;
        let mut hasher = Hasher::new();
        let mut rest = window.take(piece.size);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = rest.read(&mut buffer).doing(doing)?;
            if count == 0 {
                return Ok(hasher.finish() == piece.sha256);
            }
            hasher.update(&buffer[..count]);
        }
    }

    fn copy(&mut self, step: &Step, to: &Slice, piece: &FileRef) -> Result<(), Fault> {
        if piece.size > to.bytes {
            return Err(Fault::new(format!("{} does not fit into its partition", piece.path)));
        }
        let source = self.medium.piece(piece)?;
        let action = step.to_string();
        let (file, told) = (&self.file, &mut self.told);
        let mut pace = Pace::new(piece.size);
        copy::onto(&*source, piece, file, to.start, &mut |bytes| {
            if let Some((percent, message)) = pace.after(bytes) {
                let (host, phase, action) = (String::new(), Step::PHASE.to_owned(), action.clone());
                let (ts, state) = (now_millis(), State::Progress);
                told(Event { ts, host, phase, action, state, percent: Some(percent), message });
            }
        })
    }

    /// The image's partitions as they are wanted, in a good table, and the boot code before it.
    fn is_bootable(&self, slices: &[Slice]) -> Result<bool, Fault> {
        self.settle()?;
        let Some(table) = self.table()?.filter(|table| table.health == Health::Whole) else {
            return Ok(false);
        };
        Ok(slices.iter().all(|slice| slice.is_among(&table.parts, self.sector_size))
            && (self.sector_size != 512 || self.boot_code()?.iter().any(|byte| *byte != 0)))
    }

    /// First the boot code, which finds nothing yet; the primary table is written last of all.
    fn make_bootable(&self, slices: &[Slice]) -> Result<(), Fault> {
        let kept = self.table()?.map(|table| table.parts).unwrap_or_default();
        let mut parts: Vec<Part> = kept.into_iter().filter(|part| !OWN.contains(&part.number)).collect();
        for slice in slices {
            parts.push(slice.to_part(random::id()?, self.sector_size));
        }
        // Those that are kept may lie behind.
        parts.sort_by_key(|part| part.first_lba);
        self.write_boot_code(slices)?;
        self.write(parts, random::id()?)
    }

    /// GRUB for BIOS machines knows sectors of 512 bytes only.
    fn write_boot_code(&self, slices: &[Slice]) -> Result<(), Fault> {
        let Some(core) = slices.iter().find(|slice| slice.name == BIOS).filter(|_| self.sector_size == 512)
        else {
            return Ok(());
        };
        let boot_img = copy::whole(&*self.medium.piece(&self.contents.boot)?, &self.contents.boot)?;
        let core_img = copy::whole(&*self.medium.piece(&self.contents.core)?, &self.contents.core)?;
        self.file.write_all_at(&[0x55, 0xaa], 510).doing(|| format!("writing {}", self.name))?;
        let (lba, room) = (core.start / self.sector_size, core.bytes / self.sector_size);
        embed_grub(&mut Synced(&self.file), &boot_img, &core_img, lba, room)
    }
}

impl Host<Step> for NewDisk<'_> {
    fn holds(&mut self, step: &Step) -> Result<bool, Fault> {
        match step {
            Step::Clear { claim, .. } => {
                self.settle()?;
                let bare = matches!(read_table(&mut &self.file, self.sector_size), Ok(None));
                Ok(self.is_claimed(claim)? && bare)
            }
            Step::Withhold { claim, .. } => {
                self.settle()?;
                let gone = |table: Table| table.parts.iter().all(|part| !OWN.contains(&part.number));
                Ok(self.is_claimed(claim)?
                    && self.table()?.is_some_and(gone)
                    && self.boot_code()?.iter().all(|byte| *byte == 0))
            }
            Step::CopyRoot { to, piece } | Step::CopyDepot { to, piece } => self.is_copied(to, piece),
            Step::MakeEsp { to } | Step::MakeSite { to } => {
                self.settle()?;
                Ok(fat::holds(to.window(&self.file), &self.fats.wanted(to.name == ESP, self.contents)))
            }
            Step::WriteTable { slices, .. } => self.is_bootable(slices),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), Fault> {
        match step {
            Step::Clear { claim, .. } => self.claim(claim).and_then(|()| self.clear()),
            Step::Withhold { claim, .. } => self.claim(claim).and_then(|()| self.withhold()),
            Step::CopyRoot { to, piece } | Step::CopyDepot { to, piece } => self.copy(step, to, piece),
            Step::MakeEsp { to } => {
                let files = self.fats.esp(self.medium, self.contents)?;
                fat::write(to.window(&self.file), "GH-ESP", self.contents.epoch, self.sector_size, files)
            }
            Step::MakeSite { to } => {
                let files = self.fats.site();
                fat::write(to.window(&self.file), "GATEHOUSE", self.contents.epoch, self.sector_size, files)
            }
            Step::WriteTable { slices, .. } => self.make_bootable(slices),
        }
    }
}

impl Slice {
    /// Its bytes on a disk.
    fn window<'a>(&self, file: &'a File) -> gatehouse_disk::Window<&'a File> {
        gatehouse_disk::Window::new(file, &self.name, self.start, self.bytes)
    }

    /// Whether a table has it, at its place.
    fn is_among(&self, parts: &[Part], sector_size: u64) -> bool {
        parts.iter().any(|part| {
            let place = (part.start(sector_size), part.bytes(sector_size));
            part.number == self.number && part.name == self.name && place == (self.start, self.bytes)
        })
    }

    fn to_part(&self, guid: [u8; 16], sector_size: u64) -> Part {
        let kind = match self.name.as_str() {
            BIOS => PartKind::BiosBoot,
            ESP => PartKind::Esp,
            SITE => PartKind::BasicData,
            _ => PartKind::LinuxData,
        };
        let (first_lba, last_lba) = (self.start / sector_size, (self.start + self.bytes) / sector_size - 1);
        Part { number: self.number, name: self.name.clone(), kind, guid, first_lba, last_lba }
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
