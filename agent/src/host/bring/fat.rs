//! The two FATs of a new disk: its boot partition, made of the medium's files, and its site partition.

use std::collections::BTreeMap;
use std::fs::File;

use gatehouse_disk::{FatFile, FatLimits, FatSpec, Window, read_fat, write_fat};
use gatehouse_model::site::{BOOT_CFG, InstallTo, boot_cfg};
use gatehouse_model::{CONTENTS, Contents, Digest, Doing as _, Fault, Site};

use super::copy;
use super::medium::Medium;
use crate::host::import::SiteFiles;
use crate::host::random;

/// On a disk's boot partition: media hand over to the disk that has it.
const INSTALLED: &str = "gatehouse/installed";
/// Below it the id that a disk had before it was installed anew.
const WAS: &str = "gatehouse/was";
/// A boot partition may hold this much: kernels and initramfs of two slots.
const BOOT_LIMITS: FatLimits =
    FatLimits { entries: 1000, file_bytes: 512 << 20, total_bytes: 1 << 30, depth: 16 };

/// What both FATs are to hold, but for the medium's own files.
#[derive(Clone, Debug)]
pub struct Fats<'a> {
    list: &'a [u8],
    site: &'a SiteFiles,
    boot: String,
    was: Option<&'a str>,
}

impl<'a> Fats<'a> {
    /// For the chosen site and the files of its directory; `list` is the medium's list of contents, `was` the id of the
    /// install that this one replaces.
    pub fn new(list: &'a [u8], site: &Site, files: &'a SiteFiles, was: Option<&'a str>) -> Self {
        Self { list, site: files, boot: boot_cfg(Some(site), Some(InstallTo::SelfDisk)), was }
    }

    fn marks(&self) -> Vec<(String, &'a [u8])> {
        let was = self.was.map(|id| (format!("{WAS}/{id}"), &b""[..]));
        [(INSTALLED.to_owned(), &b""[..]), (CONTENTS.to_owned(), self.list)].into_iter().chain(was).collect()
    }

    /// The files of the boot partition, the medium's read only when their turn comes.
    ///
    /// # Errors
    /// The medium does not have one.
    pub fn esp(&self, medium: &dyn Medium, contents: &Contents) -> Result<Vec<FatFile<'a>>, Fault> {
        let mut files: Vec<FatFile<'a>> =
            self.marks().into_iter().map(|(path, bytes)| FatFile::bytes(path, bytes)).collect();
        for file in &contents.esp {
            files.push(FatFile::reader(file.path.clone(), copy::stream(medium.piece(file)?, file.clone())));
        }
        Ok(files)
    }

    /// The files of the site partition.
    pub fn site(&self) -> Vec<FatFile<'a>> {
        let boot = FatFile::bytes(BOOT_CFG, self.boot.clone());
        let files = self.site.iter().map(|(path, bytes)| FatFile::bytes(path.clone(), bytes.as_slice()));
        files.chain([boot]).collect()
    }

    /// The digest of every file that one of the two is to hold.
    pub fn wanted(&self, esp: bool, contents: &Contents) -> BTreeMap<String, Digest> {
        if esp {
            let own = self.marks().into_iter().map(|(path, bytes)| (path, Digest::of(bytes)));
            return contents.esp.iter().map(|file| (file.path.clone(), file.sha256)).chain(own).collect();
        }
        let boot = (BOOT_CFG.to_owned(), Digest::of(self.boot.as_bytes()));
        self.site.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).chain([boot]).collect()
    }
}

/// Whether a FAT holds just these files; one that cannot be read holds none.
pub fn holds(window: Window<&File>, wanted: &BTreeMap<String, Digest>) -> bool {
    let Ok(files) = read_fat(window, BOOT_LIMITS) else { return false };
    let found: BTreeMap<String, Digest> =
        files.into_iter().map(|(path, bytes)| (path, Digest::of(&bytes))).collect();
    found == *wanted
}

/// Makes a FAT of some files. Its serial number is a new one, so that no two disks have the same.
///
/// # Errors
/// The medium cannot be read, or the disk not written.
pub fn write(
    mut window: Window<&File>,
    label: &str,
    epoch: u64,
    sector_size: u64,
    files: Vec<FatFile<'_>>,
) -> Result<(), Fault> {
    let [a, b, c, d, ..] = random::id()?;
    let volume_id = u32::from_le_bytes([a, b, c, d]);
    let spec = FatSpec { label: label.to_owned(), volume_id, epoch, sector_size };
    write_fat(&mut window, &spec, files).doing(|| format!("making the FAT {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fat_holds_what_it_was_made_of_and_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(40 << 20).unwrap();
        let window = || Window::new(&file, "test", 0, 40 << 20);
        let mut wanted = BTreeMap::from([("a/b".to_owned(), Digest::of(b"x"))]);
        assert!(!holds(window(), &wanted));
        write(window(), "TEST", 1 << 30, 512, vec![FatFile::bytes("a/b", "x")]).unwrap();
        assert!(holds(window(), &wanted));
        wanted.insert("c".into(), Digest::of(b""));
        assert!(!holds(window(), &wanted));
    }
}
