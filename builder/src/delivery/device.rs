//! What an image is written to: a stick, or a file.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
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
    /// What it says of itself.
    pub kind: Kind,
    /// Write protected.
    pub read_only: bool,
    /// Bytes in a sector.
    pub sector: u64,
    /// Where it or its partitions are mounted, and what the kernel has built on them.
    pub used_by: Vec<String>,
}

/// Whether a disk is one that people carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A stick or card: it says that it can be taken out, or that it is an SD card.
    Removable,
    /// On USB, of which it says that it stays: most often a disk in a case, but some sticks say so too.
    FixedUsb,
    /// MMC that is soldered in, of this type.
    Emmc,
    /// Any other disk.
    #[default]
    Fixed,
}

impl Kind {
    /// What the kernel says: whether its medium can be taken out, where it is, and the type of a card.
    fn of(removable: bool, place: &str, card: &str) -> Self {
        if place.contains("/mmc") {
            if card == "SD" { Self::Removable } else { Self::Emmc }
        } else if removable {
            Self::Removable
        } else if place.contains("/usb") {
            Self::FixedUsb
        } else {
            Self::Fixed
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Removable => "removable",
            Self::FixedUsb => "on USB, but it says that it is not removable",
            Self::Emmc => "built in (eMMC)",
            Self::Fixed => "not removable and not on USB",
        }
    }
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
        let sys = fs::canonicalize(format!("/sys/dev/block/{}", number(meta.rdev()))).doing(doing)?;
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
            (
                format!("{name} is in use: {}", self.used_by.join(", ")),
                "unmount it and stop that first".to_owned(),
            )
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
        } else if !self.file && self.kind != Kind::Removable && !fixed {
            let seen = [self.model.as_str(), self.kind.words()].into_iter().filter(|word| !word.is_empty());
            let seen = seen.collect::<Vec<_>>().join(", ");
            (
                format!("{name} is no stick or card: {seen}"),
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
        match options.custom_flags(nix::libc::O_EXCL).open(&self.path) {
            // ZFS, btrfs over several disks and the like show only here.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let help = format!(
                    "stop what uses it; `lsblk -f {0}` and `fuser -v {0}` may say what that is",
                    self.path.display()
                );
                Err(Refusal::new(format!("{} is in use", self.path.display()), help).into())
            }
            opened => opened.doing(doing).map_err(|fault| fault.help("run this as root")),
        }
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
        kind: Kind::of(number("removable") == 1, &place, &word("device/type")),
        read_only: number("ro") == 1,
        sector: number("queue/logical_block_size").max(1),
        used_by: used_by(sys),
    }
}

/// Mount points, swap and holders of a disk and its partitions.
fn used_by(sys: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = entries.filter(|path| path.join("partition").exists());
    let all: Vec<PathBuf> = std::iter::once(sys.to_owned()).chain(parts).collect();
    let numbers: Vec<String> = all
        .iter()
        .filter_map(|path| Some(fs::read_to_string(path.join("dev")).ok()?.trim().to_owned()))
        .collect();
    let known = |number: &str| numbers.iter().any(|known| known == number);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        let (number, at) = (words.next()?, words.nth(1)?);
        known(number).then(|| format!("mounted on {at}"))
    });
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = swaps_of(&swaps, |path| Some(number(fs::metadata(path).ok()?.rdev())), known);
    let holders =
        all.iter().flat_map(|path| fs::read_dir(path.join("holders")).into_iter().flatten().flatten());
    let holders = holders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    mounted.chain(swap).chain(holders).collect()
}

/// A device's number as the kernel writes it.
fn number(device: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

/// The lines of `/proc/swaps` that are of a known device.
fn swaps_of(
    text: &str,
    number: impl Fn(&str) -> Option<String>,
    known: impl Fn(&str) -> bool,
) -> Vec<String> {
    let paths = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let of_disk = paths.filter(|path| number(path).is_some_and(|number| known(&number)));
    of_disk.map(|path| format!("swap on {path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_free_stick_is_refused() {
        let stick = Seen { bytes: 4 << 30, kind: Kind::Removable, sector: 512, ..Seen::default() };
        let said = |seen: &Seen, fixed| seen.judge(1 << 30, fixed).map_err(|refusal| refusal.what);
        assert_eq!(said(&stick, false), Ok(()));
        for (seen, word) in [
            (
                Seen { kind: Kind::Fixed, model: "DISK".into(), ..stick.clone() },
                "no stick or card: DISK, not",
            ),
            (Seen { kind: Kind::FixedUsb, ..stick.clone() }, "on USB, but it says"),
            (Seen { kind: Kind::Emmc, ..stick.clone() }, "built in (eMMC)"),
            (Seen { used_by: vec!["mounted on /".into()], ..stick.clone() }, "in use: mounted on /"),
            (Seen { part_of: Some("sdb".into()), ..stick.clone() }, "is a partition"),
            (Seen { read_only: true, ..stick.clone() }, "write protected"),
            (Seen { bytes: 1 << 29, ..stick.clone() }, "has 512 MiB, the image takes 1024"),
            (Seen { sector: 4096, ..stick.clone() }, "sectors of 4096"),
        ] {
            assert!(said(&seen, false).is_err_and(|what| what.contains(word)), "{seen:?}");
        }
        let disk = Seen { kind: Kind::Fixed, ..stick };
        assert_eq!(said(&disk, true), Ok(()));
        let in_use = Seen { used_by: vec!["md0".into()], ..disk };
        assert!(said(&in_use, true).is_err());
    }

    #[test]
    fn what_people_carry_is_told_from_what_is_built_in() {
        let usb = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
        let mmc = "/sys/devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0";
        for (removable, place, card, kind) in [
            (true, usb, "0", Kind::Removable),
            (false, usb, "0", Kind::FixedUsb),
            (false, mmc, "SD", Kind::Removable),
            (false, mmc, "MMC", Kind::Emmc),
            (false, "/sys/devices/pci0000:00/ata1/block/sda", "0", Kind::Fixed),
        ] {
            assert_eq!(Kind::of(removable, place, card), kind, "{place} {card}");
        }
    }

    #[test]
    fn swap_is_use() {
        let text =
            "Filename\t\tType\t\tSize\n/dev/sdb2  partition\t1\n/swap file\t1\n/dev/zram0 partition 1\n";
        let number = |path: &str| path.strip_prefix("/dev/").map(str::to_owned);
        assert_eq!(swaps_of(text, number, |known| known == "sdb2"), ["swap on /dev/sdb2"]);
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
