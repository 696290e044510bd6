//! What an image is written to: a stick, or a file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault, Refusal};

use crate::image::SECTOR;

/// What is known of a device before anything is done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How it was called.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Maker and model.
    pub model: String,
    /// It is no device but a file.
    pub file: bool,
    /// It is a partition of this disk.
    pub part_of: Option<String>,
    /// A stick or card: removable, or on USB or MMC.
    pub removable: bool,
    /// Write protected.
    pub read_only: bool,
    /// Bytes in a sector.
    pub sector: u64,
    /// Where it or its partitions are mounted, and what the kernel has built on them.
    pub used_by: Vec<String>,
}

impl Seen {
    /// Looks at a device or file. One that is not there yet is a file to be made.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, Fault> {
        let doing = || format!("looking at {}", path.display());
        let file =
            |bytes| Self { path: path.to_owned(), bytes, file: true, sector: SECTOR, ..Self::default() };
        if !path.exists() && !path.starts_with("/dev") {
            return Ok(file(u64::MAX));
        }
        let meta = fs::metadata(path).doing(doing)?;
        if meta.is_file() {
            return Ok(file(meta.len()));
        }
        if !meta.file_type().is_block_device() {
            let what = format!("{} is neither a disk nor a file", path.display());
            return Err(Refusal::new(
                what,
                "name a stick, such as /dev/sdX; `lsblk -o NAME,SIZE,MODEL,TRAN` lists them",
            )
            .into());
        }
        let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
        let sys = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).doing(doing)?;
        Ok(device(path, &sys))
    }

    /// Why nothing is written to it; `needs` is how large the image is, `fixed` that other disks are meant too.
    ///
    /// # Errors
    /// That is why.
    pub fn judge(&self, needs: u64, fixed: bool) -> Result<(), Refusal> {
        let name = self.path.display();
        let (what, help) = if let Some(disk) = &self.part_of {
            (format!("{name} is a partition"), format!("name the whole disk, /dev/{disk}"))
        } else if !self.used_by.is_empty() {
            (format!("{name} is in use: {}", self.used_by.join(", ")), "unmount it first".to_owned())
        } else if self.read_only {
            (
                format!("{name} is write protected"),
                "move the switch at its side, or take another stick".to_owned(),
            )
        } else if self.sector != SECTOR {
            (
                format!("{name} has sectors of {} bytes, the image counts in {SECTOR}", self.sector),
                "take another stick".to_owned(),
            )
        } else if !self.file && !self.removable && !fixed {
            (
                format!("{name} is no stick or card: {}", self.model),
                "name a stick; or add --fixed if all on that disk may be lost".to_owned(),
            )
        } else if self.bytes < needs {
            (
                format!("{name} has {} MiB, the image takes {}", self.bytes >> 20, needs >> 20),
                "take a larger one".to_owned(),
            )
        } else {
            return Ok(());
        };
        Err(Refusal::new(what, help))
    }

    /// Opens it for writing, for nobody else at the same time; a new file is made as large as the image.
    ///
    /// # Errors
    /// Somebody uses it; there is no permission.
    pub fn open(&self, needs: u64) -> Result<File, Fault> {
        let doing = || format!("opening {}", self.path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.file {
            let file = options.create(true).truncate(false).open(&self.path).doing(doing)?;
            if self.bytes == u64::MAX {
                file.set_len(needs).doing(doing)?;
            }
            return Ok(file);
        }
        // Of a disk: nothing of it is mounted, and nothing can be meanwhile (open(2)).
        let opened = options.custom_flags(nix::libc::O_EXCL).open(&self.path).doing(doing);
        opened.map_err(|fault| fault.help("run this as root, with nothing of the stick mounted"))
    }
}

fn device(path: &Path, sys: &Path) -> Seen {
    let word = |name: &str| fs::read_to_string(sys.join(name)).unwrap_or_default().trim().to_owned();
    let number = |name: &str| word(name).parse::<u64>().unwrap_or(0);
    let place = sys.to_string_lossy();
    let parent = sys.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    Seen {
        path: path.to_owned(),
        bytes: number("size") * 512,
        model: format!("{} {}", word("device/vendor"), word("device/model")).trim().to_owned(),
        file: false,
        part_of: sys.join("partition").exists().then_some(parent).flatten(),
        removable: number("removable") == 1 || place.contains("/usb") || place.contains("/mmc"),
        read_only: number("ro") == 1,
        sector: number("queue/logical_block_size").max(1),
        used_by: used_by(sys),
    }
}

/// Mount points and holders of a disk and its partitions.
fn used_by(sys: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = entries.filter(|path| path.join("partition").exists());
    let all: Vec<PathBuf> = std::iter::once(sys.to_owned()).chain(parts).collect();
    let numbers: Vec<String> = all
        .iter()
        .filter_map(|path| Some(fs::read_to_string(path.join("dev")).ok()?.trim().to_owned()))
        .collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        let (number, at) = (words.next()?, words.nth(1)?);
        numbers.iter().any(|known| known == number).then(|| format!("mounted on {at}"))
    });
    let holders =
        all.iter().flat_map(|path| fs::read_dir(path.join("holders")).into_iter().flatten().flatten());
    mounted.chain(holders.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_free_stick_is_refused() {
        let stick = Seen { bytes: 4 << 30, removable: true, sector: 512, ..Seen::default() };
        let said = |seen: &Seen, fixed| seen.judge(1 << 30, fixed).map_err(|refusal| refusal.what);
        assert_eq!(said(&stick, false), Ok(()));
        for (seen, word) in [
            (Seen { removable: false, model: "DISK".into(), ..stick.clone() }, "no stick or card: DISK"),
            (Seen { used_by: vec!["mounted on /".into()], ..stick.clone() }, "in use: mounted on /"),
            (Seen { part_of: Some("sdb".into()), ..stick.clone() }, "is a partition"),
            (Seen { read_only: true, ..stick.clone() }, "write protected"),
            (Seen { bytes: 1 << 29, ..stick.clone() }, "has 512 MiB, the image takes 1024"),
            (Seen { sector: 4096, ..stick.clone() }, "sectors of 4096"),
        ] {
            assert!(said(&seen, false).is_err_and(|what| what.contains(word)), "{seen:?}");
        }
        let disk = Seen { removable: false, ..stick };
        assert_eq!(said(&disk, true), Ok(()));
        let in_use = Seen { used_by: vec!["md0".into()], ..disk };
        assert!(said(&in_use, true).is_err());
    }

    #[test]
    fn the_disk_of_this_system_is_in_use() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
        let root = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[4] == "/" && !words[2].starts_with("0:")).then(|| words[2].to_owned())
        });
        let Some(root) = root else { return println!("skipped, because / is on no disk") };
        let sys = fs::canonicalize(format!("/sys/dev/block/{root}")).expect("found");
        assert!(used_by(&sys).contains(&"mounted on /".to_owned()));
    }
}
