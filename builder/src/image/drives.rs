//! What an emulated machine has its bytes on: a disk with the image, or a stick with it beside an empty disk.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use gatehouse_disk::replace_fat;
use gatehouse_model::{Doing as _, Fault, Site};

use super::machine::{Hardware, quoted};
use super::{layout, site_part, window};
use crate::cache::settle;
use crate::cli::{Medium, Try};
use crate::interrupt::Fleeting;
use crate::tool;

/// A trial's drives.
#[derive(Clone, Debug)]
pub struct Drives {
    /// The file with the image.
    pub image: PathBuf,
    /// An empty disk, where the image is on a stick.
    blank: Option<PathBuf>,
    decoys: Vec<PathBuf>,
}

impl Drives {
    /// Those of a trial in this directory.
    pub fn of(dir: &Path, args: &Try) -> Self {
        let disk = dir.join("disk.img");
        let (image, blank) = match args.medium {
            Medium::Disk => (disk, None),
            Medium::Stick => (dir.join("stick.img"), Some(disk)),
        };
        Self { image, blank, decoys: args.decoy.clone() }
    }

    /// Copies the image, puts the trial's site directory into it, and gives the machine the room that it needs: behind
    /// the image, or on an empty disk of its own.
    ///
    /// # Errors
    /// The image cannot be read; the disk is full.
    pub fn make(&self, from: &Path, site: &Site, files: Vec<site_part::Content>) -> Result<(), Fault> {
        let partial = Fleeting::new(self.image.with_extension("partial"));
        let (from, to) = (from.display().to_string(), partial.path().display().to_string());
        tool::run("cp", &["--reflink=auto", "--sparse=always", &from, &to]).doing(|| "copying the image")?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(partial.path())
            .doing(|| format!("opening {to}"))?;
        let image = file.metadata().doing(|| format!("reading {to}"))?.len();
        let room = Hardware::of(site, image).disk;
        match &self.blank {
            None => file.set_len(room).doing(|| format!("making {to} larger"))?,
            Some(blank) => File::create(blank)
                .and_then(|blank| blank.set_len(room))
                .doing(|| format!("making {}", blank.display()))?,
        }
        let mut window = window(&mut file, layout::SITE)?;
        replace_fat(&mut window, site.epoch, site_part::fat_files(files))
            .doing(|| "writing the trial's site")?;
        settle(partial.path(), &self.image)
    }

    /// QEMU's arguments for them. A machine that lives on the image's own disk has no reason for a reset: one ends the
    /// emulator, so that a crash is seen and not repeated for ever. One that is installed from a stick resets itself.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut drive = |id: &str, path: &Path, device: String| {
            let file = quoted(path);
            words.extend([
                "-drive".to_owned(),
                format!("if=none,id={id},format=raw,discard=unmap,cache=writeback,file={file}"),
                "-device".to_owned(),
                device,
            ]);
        };
        for (number, path) in self.decoys.iter().enumerate() {
            let id = format!("decoy{number}");
            drive(&id, path, format!("virtio-blk-pci,drive={id},serial=DECOY{number}"));
        }
        let disk = |boot: u32| format!("virtio-blk-pci,drive=disk,serial=TRIAL,bootindex={boot}");
        match &self.blank {
            None => {
                drive("disk", &self.image, disk(1));
                words.push("-no-reboot".to_owned());
            }
            Some(blank) => {
                drive("disk", blank, disk(2));
                let stick = "usb-storage,bus=usb.0,drive=stick,removable=on,serial=STICK,bootindex=1";
                drive("stick", &self.image, stick.to_owned());
                words.splice(0..0, ["-device".to_owned(), "qemu-xhci,id=usb".to_owned()]);
            }
        }
        words
    }
}
