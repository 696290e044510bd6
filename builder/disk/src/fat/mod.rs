//! FAT32 filesystems: written whole in one pass with the same bytes every time, read with suspicion.

mod names;
mod pages;
mod read;
mod repair;

pub use read::{FatLimits, FatTree, read_fat};

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use gatehouse_model::{Doing, Fault, Size};

use crate::Device;
use names::{bytes_of_label, check_paths};
use pages::Pages;
use repair::{Stamp, repair};

/// What a filesystem is called and dated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatSpec {
    /// The label, at most 11 of `A-Z 0-9 _ -` and space; empty for none.
    pub label: String,
    /// The volume's serial number.
    pub volume_id: u32,
    /// The time of every entry, in seconds after 1970; FAT can say 1980 to 2107.
    pub epoch: u64,
    /// The size of a sector: 512 or 4096, that of the disk.
    pub sector_size: u64,
}

impl FatSpec {
    /// The smallest partition that can be a FAT32, which must have 65525 clusters: 33 MiB where sectors have
    /// 512 bytes, 257 MiB where they have 4096.
    pub fn smallest(sector_size: u64) -> Size {
        Size::mib(if sector_size == 512 { 33 } else { 257 })
    }
}

/// A file to be written; a path that ends in `/` is a directory.
pub struct FatFile<'a> {
    path: String,
    content: Box<dyn Read + 'a>,
}

impl<'a> FatFile<'a> {
    /// A file of some bytes.
    pub fn bytes(path: impl Into<String>, bytes: impl AsRef<[u8]> + 'a) -> Self {
        Self::reader(path, Cursor::new(bytes))
    }

    /// A file of all that a reader gives; it is read only when its turn comes.
    pub fn reader(path: impl Into<String>, content: impl Read + 'a) -> Self {
        Self { path: path.into(), content: Box::new(content) }
    }

    /// A directory that may stay empty; those that hold files need not be named.
    pub fn directory(path: impl fmt::Display) -> Self {
        Self::reader(format!("{path}/"), io::empty())
    }
}

impl fmt::Debug for FatFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FatFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Makes a FAT32 that fills the window and holds these files, whatever was there before.
///
/// The same spec and files give the same bytes in any window of the same size, in any order of files. Paths
/// are relative, with `/`; what FAT cannot hold is a problem per path, found before anything is written.
pub fn write_fat<D: Device>(
    window: &mut D,
    spec: &FatSpec,
    mut files: Vec<FatFile<'_>>,
) -> Result<(), Fault> {
    let label = bytes_of_label(&spec.label)?;
    let sector = u16::try_from(spec.sector_size).ok().filter(|sector| [512, 4096].contains(sector));
    let sector = sector.ok_or_else(|| Fault::new("the sector size is neither 512 nor 4096"))?;
    check_paths(files.iter().map(|file| file.path.as_str())).map_err(Fault::of_problems)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let size = window.seek(SeekFrom::End(0)).doing(|| "measuring the partition")?;
    let smallest = FatSpec::smallest(spec.sector_size);
    if size < smallest.as_bytes() {
        return Err(Fault::new(format!("a FAT32 needs {smallest}, the partition has {}", Size::bytes(size))));
    }
    blank(window).doing(|| "clearing the partition")?;
    let mut pages = Pages::new(window).doing(|| "measuring the partition")?;
    format(&mut pages, spec.volume_id, sector, label).doing(|| "making the FAT filesystem")?;
    fill(&mut pages, files)?;
    repair(&mut pages, Stamp::of(spec.epoch)).doing(|| "finishing the FAT filesystem")?;
    pages.finish().doing(|| "writing the FAT filesystem")
}

/// Writes a FAT anew with these files only, under the label, serial number and sector size that it has.
pub fn replace_fat<D: Device>(window: &mut D, epoch: u64, files: Vec<FatFile<'_>>) -> Result<(), Fault> {
    let spec = read::spec_of(window, epoch).doing(|| "reading the FAT filesystem to be replaced")?;
    write_fat(window, &spec, files)
}

/// Makes everything zero; what is zero already is not written, so that a sparse file stays sparse.
///
/// Without this old data would show in the ends of files, and fatfs does not clear what it adds to the root.
fn blank<D: Device>(window: &mut D) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 20];
    let zeros = bytes.clone();
    let mut at = window.seek(SeekFrom::Start(0))?;
    loop {
        let read = window.read(&mut bytes)?;
        if read == 0 {
            return window.flush();
        }
        if bytes[..read] != zeros[..read] {
            window.seek(SeekFrom::Start(at))?;
            window.write_all(&zeros[..read])?;
        }
        at = window.seek(SeekFrom::Start(at + read as u64))?;
    }
}

fn format<D: Device>(
    pages: &mut Pages<D>,
    volume_id: u32,
    sector: u16,
    label: Option<[u8; 11]>,
) -> io::Result<()> {
    let mut options =
        FormatVolumeOptions::new().bytes_per_sector(sector).fat_type(FatType::Fat32).volume_id(volume_id);
    if let Some(label) = label {
        options = options.volume_label(label);
    }
    pages.rewind()?;
    format_volume(pages, options)
}

fn fill<D: Device>(pages: &mut Pages<D>, files: Vec<FatFile<'_>>) -> Result<(), Fault> {
    let opening = || "opening the new FAT filesystem";
    pages.rewind().doing(opening)?;
    let fat = FileSystem::new(pages, FsOptions::new()).doing(opening)?;
    if fat.fat_type() != FatType::Fat32 {
        return Err(Fault::new("the partition has the wrong size for a FAT32"));
    }
    let mut made = BTreeSet::new();
    for FatFile { path, mut content } in files {
        for (end, _) in path.match_indices('/') {
            if made.insert(path[..end].to_owned()) {
                fat.root_dir().create_dir(&path[..end]).doing(|| format!("making {}", &path[..end]))?;
            }
        }
        if !path.ends_with('/') {
            let mut file = fat.root_dir().create_file(&path).doing(|| format!("making {path}"))?;
            io::copy(&mut content, &mut file)
                .and_then(|_| file.flush())
                .doing(|| format!("writing {path}"))?;
        }
    }
    // Counts the free clusters; fatfs writes them only if it was asked for them.
    fat.stats().doing(|| "counting the free clusters")?;
    fat.unmount().doing(|| "closing the FAT filesystem")
}
