//! The files of the boot partition, and the list of all that an image installs, with digests.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use gatehouse_disk::FatFile;
use gatehouse_model::{CONTENTS, ContentPart, Contents, Digest, Doing as _, Fault, FileRef, Hasher};

use super::layout::Layout;
use super::parts::Parts;
use super::{SECTOR, VERSION};
use crate::cache::{Cache, settle};
use crate::interrupt::Fleeting;

/// GRUB's boot sector as grub-mkimage's directory has it, on the boot partition: an install takes it from there.
const BOOT_IMG: &str = "slot-a/boot.img";
/// GRUB's core image for BIOS machines, likewise.
const CORE_IMG: &str = "slot-a/core.img";

/// A file of the boot partition.
#[derive(Clone, Debug)]
pub struct BootFile {
    /// Its path there.
    pub path: &'static str,
    /// What is in it.
    pub from: From,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
pub enum From {
    /// From memory.
    Bytes(Vec<u8>),
    /// From a file of the cache.
    Plain(PathBuf),
    /// From a file of the cache that is to be unpacked.
    Gzip(PathBuf),
}

impl BootFile {
    /// Opens it.
    ///
    /// # Errors
    /// The cache has lost it.
    pub fn open(&self) -> Result<Box<dyn Read>, Fault> {
        let open = |path: &Path| {
            let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
            Ok::<_, Fault>(BufReader::with_capacity(1 << 20, file))
        };
        Ok(match &self.from {
            From::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            From::Plain(path) => Box::new(open(path)?),
            From::Gzip(path) => Box::new(GzDecoder::new(open(path)?)),
        })
    }

    /// Its size and digest; of files of the cache, whose names stand for their contents, they are remembered there.
    fn file_ref(&self, cache: &Cache) -> Result<FileRef, Fault> {
        let count = || {
            let mut from = self.open()?;
            digest(&mut from).doing(|| format!("reading {}", self.path))
        };
        let (sha256, size) = match &self.from {
            From::Bytes(_) => count()?,
            From::Plain(path) => remembered(cache, &format!("plain {}", path.display()), count)?,
            From::Gzip(path) => remembered(cache, &format!("gzip {}", path.display()), count)?,
        };
        Ok(FileRef { path: self.path.to_owned(), size, sha256 })
    }
}

/// All files of the boot partition but the list of contents, in no order.
pub fn boot_files(parts: &Parts) -> Vec<BootFile> {
    let grub = &parts.grub;
    let own = [(BOOT_IMG, &grub.boot), (CORE_IMG, &grub.core)];
    let own = own.into_iter().map(|(path, bytes)| BootFile { path, from: From::Bytes(bytes.clone()) });
    parts.boot.files(grub).into_iter().chain(own).collect()
}

/// The files as a FAT takes them, the list of contents among them.
///
/// # Errors
/// The cache has lost one.
pub fn fat_files(parts: &Parts, contents: &Contents) -> Result<Vec<FatFile<'static>>, Fault> {
    let mut files = vec![FatFile::bytes(CONTENTS, to_json(contents)?)];
    for file in boot_files(parts) {
        files.push(FatFile::reader(file.path, file.open()?));
    }
    Ok(files)
}

/// The list as it stands on the boot partition and on a server.
///
/// # Errors
/// None that can happen.
pub fn to_json(contents: &Contents) -> Result<String, Fault> {
    Ok(serde_json::to_string_pretty(contents).doing(|| "writing the list of contents")? + "\n")
}

/// Makes the list.
///
/// # Errors
/// The cache has lost a file.
pub fn of(parts: &Parts, layout: &Layout, cache: &Cache) -> Result<Contents, Fault> {
    let mut esp = boot_files(parts).iter().map(|file| file.file_ref(cache)).collect::<Result<Vec<_>, _>>()?;
    esp.sort_by(|one, other| one.path.cmp(&other.path));
    let filesystem = |path: &str, at: &Path| {
        let count = || {
            let mut file = File::open(at).doing(|| format!("opening {}", at.display()))?;
            digest(&mut file).doing(|| format!("reading {}", at.display()))
        };
        let (sha256, size) = remembered(cache, &format!("plain {}", at.display()), count)?;
        Ok::<_, Fault>(FileRef { path: path.to_owned(), size, sha256 })
    };
    let find = |path: &str| {
        let found = esp.iter().find(|file| file.path == path).cloned();
        found.ok_or_else(|| Fault::new(format!("the boot partition has no {path}")))
    };
    let part = |part: &gatehouse_disk::Part| ContentPart {
        number: part.number,
        name: part.name.clone(),
        bytes: part.bytes(SECTOR),
    };
    Ok(Contents {
        schema: 1,
        builder: VERSION.to_owned(),
        epoch: parts.epoch,
        partitions: layout.table.parts().iter().map(part).collect(),
        boot: find(BOOT_IMG)?,
        core: find(CORE_IMG)?,
        root: filesystem("image/root-a", &parts.root.path)?,
        depot: filesystem("image/depot-a", &parts.depot_fs.path)?,
        esp,
    })
}

fn digest(from: &mut dyn Read) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

/// What was counted before, by a name that stands for the contents; else counted now.
fn remembered(
    cache: &Cache,
    name: &str,
    count: impl FnOnce() -> Result<(Digest, u64), Fault>,
) -> Result<(Digest, u64), Fault> {
    let note = cache.file(&Digest::of(format!("digest of {name}").as_bytes()));
    let known = fs::read_to_string(&note).ok().and_then(|text| {
        let (sha256, size) = text.trim_end().split_once(' ')?;
        Some((sha256.parse().ok()?, size.parse().ok()?))
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let (sha256, size) = count()?;
    let scratch = Fleeting::new(cache.scratch(&format!("digest-{}", Digest::of(name.as_bytes()).short()))?);
    let partial = scratch.path().join("note");
    fs::write(&partial, format!("{sha256} {size}\n")).doing(|| format!("writing {}", partial.display()))?;
    settle(&partial, &note)?;
    Ok((sha256, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_counted_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("a cache");
        let known = (Digest::of(b"x"), 1);
        assert_eq!(remembered(&cache, "a", || Ok(known)).expect("counted"), known);
        let again = remembered(&cache, "a", || Err(Fault::new("counted twice")));
        assert_eq!(again.expect("remembered"), known);
    }
}
