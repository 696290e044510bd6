//! Reading a FAT that any computer may have written to, without ever writing to it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Dir, DirEntry, FileSystem, FsOptions};
use gatehouse_model::{Doing, Fault};

use super::FatSpec;
use super::names::wrong_name;

/// What systems leave behind on a disk that people edit: names of files and directories, in lower case.
const STRAY_NAMES: [&str; 7] = [
    "$recycle.bin",
    "desktop.ini",
    "found.000",
    "lost+found",
    "recycler",
    "system volume information",
    "thumbs.db",
];

/// How much is read before a filesystem is taken for damaged or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatLimits {
    /// Files and directories together.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Directories within directories.
    pub depth: usize,
}

impl Default for FatLimits {
    /// Room for any site directory; a boot partition with kernels needs more.
    fn default() -> Self {
        Self { entries: 10_000, file_bytes: 16 << 20, total_bytes: 64 << 20, depth: 16 }
    }
}

/// The files of a FAT that people edit, without what their systems left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FatTree {
    /// The files by path; directories are not listed.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was left out, and why.
    pub strays: Vec<(String, String)>,
}

impl FatTree {
    /// Reads a FAT; what no site has (hidden files, bins, files too large) is left out and listed.
    pub fn read<R: Read + Seek>(window: R, limits: FatLimits) -> Result<Self, Fault> {
        Walk::over(window, limits, true)
    }
}

/// Reads every file of a FAT, sorted by path; anything beyond the limits is a fault.
pub fn read_fat<R: Read + Seek>(window: R, limits: FatLimits) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    Ok(Walk::over(window, limits, false)?.files.into_iter().collect())
}

/// The spec that a FAT was made with, as far as it says.
pub(super) fn spec_of<R: Read + Seek>(window: &mut R, epoch: u64) -> Result<FatSpec, Fault> {
    let mut boot = [0; 13];
    window.rewind()?;
    window.read_exact(&mut boot)?;
    let fat = open(window, FatLimits::default())?;
    // Systems that rename a volume change the label in the root only.
    let label = fat.read_volume_label_from_root_dir()?.unwrap_or_default().to_ascii_uppercase();
    let sector_size = u64::from(u16::from_le_bytes([boot[11], boot[12]]));
    Ok(FatSpec { label, volume_id: fat.volume_id(), epoch, sector_size })
}

fn open<R: Read + Seek>(mut window: R, limits: FatLimits) -> Result<FileSystem<Frozen<R>>, Fault> {
    check_boot_sector(&mut window)?;
    window.rewind()?;
    let budget = limits.total_bytes.saturating_mul(4).saturating_add(256 << 20);
    Ok(FileSystem::new(Frozen { device: window, budget }, FsOptions::new())?)
}

/// Refuses what fatfs does not check and calculates with: areas that do not fit the volume.
fn check_boot_sector<R: Read + Seek>(window: &mut R) -> Result<(), Fault> {
    let mut boot = [0; 512];
    window.rewind()?;
    window.read_exact(&mut boot)?;
    let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let word = |at: usize| half(at) | half(at + 2) << 16;
    let either = |small: u64, large: u64| if small == 0 { large } else { small };
    let (sector, total) = (half(11), either(half(19), word(32)));
    let fats = u64::from(boot[16]) * either(half(22), word(36));
    let root = half(17) * 32 / sector.max(1);
    let wrong = boot[510..] != [0x55, 0xaa]
        || !(512..=4096).contains(&sector)
        || boot[13] == 0
        || total * sector > window.seek(SeekFrom::End(0))?
        || half(14) + fats + root + u64::from(boot[13]) > total;
    if wrong { Err(Fault::new("there is no FAT filesystem, or it is damaged")) } else { Ok(()) }
}

/// A device that cannot be written to, and that ends a reader which runs in circles.
struct Frozen<R> {
    device: R,
    budget: u64,
}

impl<R: Read> Read for Frozen<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.device.read(buffer)?;
        self.budget =
            self.budget.checked_sub(read as u64).ok_or_else(|| io::Error::other("it has no end"))?;
        Ok(read)
    }
}

impl<R> Write for Frozen<R> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Seek> Seek for Frozen<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.device.seek(to)
    }
}

struct Walk {
    limits: FatLimits,
    tolerant: bool,
    entries: usize,
    bytes: u64,
    tree: FatTree,
}

impl Walk {
    fn over<R: Read + Seek>(window: R, limits: FatLimits, tolerant: bool) -> Result<FatTree, Fault> {
        let doing = || "reading the FAT filesystem";
        let fat = open(window, limits).doing(doing)?;
        let mut walk = Self { limits, tolerant, entries: 0, bytes: 0, tree: FatTree::default() };
        walk.directory(&fat.root_dir(), "", 0).doing(doing)?;
        Ok(walk.tree)
    }

    fn directory<R: Read + Seek>(
        &mut self,
        directory: &Dir<'_, Frozen<R>>,
        at: &str,
        depth: usize,
    ) -> Result<(), Fault> {
        for entry in directory.iter() {
            let entry = entry.doing(|| format!("listing /{at}"))?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Fault::new(format!("it has more than {} files", self.limits.entries)));
            }
            let path = format!("{at}{name}");
            let unwanted = if self.tolerant && is_stray(&name) { Some("not a file of a site") } else { None };
            if let Some(why) = wrong_name(&name).or(unwanted) {
                self.leave_out(path, why)?;
            } else if entry.is_dir() && depth == self.limits.depth {
                self.leave_out(path, "lies too deep")?;
            } else if entry.is_dir() {
                self.directory(&entry.to_dir(), &format!("{path}/"), depth + 1)?;
            } else {
                self.file(&entry, path)?;
            }
        }
        Ok(())
    }

    fn file<R: Read + Seek>(&mut self, entry: &DirEntry<'_, Frozen<R>>, path: String) -> Result<(), Fault> {
        if entry.len() > self.limits.file_bytes {
            return self.leave_out(path, "is too large");
        }
        self.bytes += entry.len();
        if self.bytes > self.limits.total_bytes {
            return Err(Fault::new(format!("its files have more than {} bytes", self.limits.total_bytes)));
        }
        let mut content = Vec::new();
        entry.to_file().read_to_end(&mut content).doing(|| format!("reading /{path}"))?;
        if content.len() as u64 != entry.len() {
            return Err(Fault::new("the file is cut short")).doing(|| format!("reading /{path}"));
        }
        self.tree.files.insert(path, content);
        Ok(())
    }

    fn leave_out(&mut self, path: String, why: &str) -> Result<(), Fault> {
        if !self.tolerant {
            return Err(Fault::new(format!("/{path} {why}")));
        }
        self.tree.strays.push((path, why.to_owned()));
        Ok(())
    }
}

fn is_stray(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.starts_with('.')
        || lower.starts_with("~$")
        || lower.ends_with('~')
        || STRAY_NAMES.contains(&lower.as_str())
}
