//! What an install is made from: a stick or disk that the machine was started from, or a server.

use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use gatehouse_model::{CONTENTS, Contents, Digest, Doing as _, Fault, FileRef};
use nix::mount::MsFlags;

use super::plan::{DEPOT, ESP, ROOT, SITE};
use crate::host::facts::{DiskFact, PartFact};
use crate::host::import::{self, SiteFiles};
use crate::host::mounts;
use crate::node::download::Source;

/// Where the medium's boot partition is mounted, read-only, while the installer runs.
const ESP_AT: &str = "/run/gatehouse/esp";
/// Where its site partition is mounted, for as long as it takes.
const SITE_AT: &str = "/run/gatehouse/site";

/// What an install is made from.
pub trait Medium {
    /// The bytes of its list of contents.
    fn list(&self) -> &[u8];

    /// Every file of its site partition, but what the builder and machines write there.
    fn sites(&self) -> &SiteFiles;

    /// A piece that the list names.
    ///
    /// # Errors
    /// It has no such piece.
    fn piece(&self, piece: &FileRef) -> Result<Box<dyn Source>, Fault>;
}

/// What a medium's list says, and the list's digest.
///
/// # Errors
/// It cannot be read.
pub fn contents(medium: &dyn Medium) -> Result<(Contents, Digest), Fault> {
    let list = medium.list();
    let contents = serde_json::from_slice(list)
        .doing(|| format!("reading the medium's {CONTENTS}"))
        .map_err(|fault| fault.help("write the image to the medium again"))?;
    Ok((contents, Digest::of(list)))
}

/// A disk with the image on it, most often a stick.
#[derive(Debug)]
pub struct Stick {
    disk: DiskFact,
    list: Vec<u8>,
    sites: SiteFiles,
}

impl Stick {
    /// Opens the disk that the machine was started from. Nothing is written to it.
    ///
    /// # Errors
    /// It is not as the builder made it.
    pub fn open(disk: &DiskFact) -> Result<Self, Fault> {
        let device =
            |name: &str| part(disk, name).map(|part| format!("/dev/{}", disk.part_device(part.number)));
        let (esp, site) = (device(ESP)?, device(SITE)?);
        mounts::mount_once("vfat", &esp, Path::new(ESP_AT), MsFlags::MS_RDONLY, "utf8")?;
        let path = Path::new(ESP_AT).join(CONTENTS);
        let list = fs::read(&path).doing(|| format!("reading {CONTENTS} of {esp}"))?;
        let at = Path::new(SITE_AT);
        mounts::mount_once("vfat", &site, at, MsFlags::MS_RDONLY, "utf8")?;
        let sites = import::read(at);
        mounts::unmount(at)?;
        Ok(Self { disk: disk.clone(), list, sites: sites? })
    }
}

fn part<'a>(disk: &'a DiskFact, name: &str) -> Result<&'a PartFact, Fault> {
    disk.part(name).ok_or_else(|| {
        Fault::new(format!("the medium has no partition {name}: {disk}")).help("write the image to it again")
    })
}

impl Medium for Stick {
    fn list(&self) -> &[u8] {
        &self.list
    }

    fn sites(&self) -> &SiteFiles {
        &self.sites
    }

    fn piece(&self, piece: &FileRef) -> Result<Box<dyn Source>, Fault> {
        let name = match piece.path.as_str() {
            "image/root-a" => ROOT,
            "image/depot-a" => DEPOT,
            file => {
                let path = Path::new(ESP_AT).join(file);
                return Ok(Box::new(FileSource { path, start: 0, bytes: piece.size }));
            }
        };
        let part = part(&self.disk, name)?;
        let path = Path::new("/dev").join(&self.disk.name);
        Ok(Box::new(FileSource { path, start: part.start, bytes: piece.size }))
    }
}

/// Some bytes of a file or device. Each opening begins anew: a stick that was pulled out and put back has another name,
/// one that only hiccupped has the same.
#[derive(Debug)]
struct FileSource {
    path: PathBuf,
    start: u64,
    bytes: u64,
}

impl Source for FileSource {
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
        let doing = || format!("reading {}", self.path.display());
        let mut file = File::open(&self.path).doing(doing)?;
        file.seek(SeekFrom::Start(self.start + from)).doing(doing)?;
        Ok(Box::new(file.take(self.bytes.saturating_sub(from))))
    }
}
