//! What an emulated machine has its bytes on: a disk with the image, or a stick with it beside an empty disk, or two of them
//! for a mirror.

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
    /// Empty disks, where the image is on a stick, and what each is called.
    blanks: Vec<Blank>,
    decoys: Vec<PathBuf>,
}

/// An empty disk.
#[derive(Clone, Debug)]
struct Blank {
    file: PathBuf,
    id: &'static str,
    serial: &'static str,
    pulled: bool,
}

impl Drives {
    /// Those of a trial of a site in this directory.
    pub fn of(dir: &Path, args: &Try, site: &Site) -> Self {
        let decoys = args.decoy.clone();
        if args.medium == Medium::Disk {
            return Self { image: dir.join("disk.img"), blanks: Vec::new(), decoys };
        }
        let all = [("disk", "TRIAL"), ("disk2", "TRIAL2")];
        let blank = |(number, (id, serial)): (u32, (&'static str, &'static str))| Blank {
            file: dir.join(format!("{id}.img")),
            id,
            serial,
            pulled: args.pull == Some(number),
        };
        let blanks = (1..).zip(all).take(if site.disk.mirror { 2 } else { 1 }).map(blank).collect();
        Self { image: dir.join("stick.img"), blanks, decoys }
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
        if self.blanks.is_empty() {
            file.set_len(room).doing(|| format!("making {to} larger"))?;
        }
        for Blank { file, .. } in &self.blanks {
            File::create(file)
                .and_then(|blank| blank.set_len(room))
                .doing(|| format!("making {}", file.display()))?;
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
        let disk = |id: &str, serial: &str, boot: usize| {
            format!("virtio-blk-pci,drive={id},serial={serial},bootindex={boot}")
        };
        if self.blanks.is_empty() {
            drive("disk", &self.image, disk("disk", "TRIAL", 1));
            words.push("-no-reboot".to_owned());
            return words;
        }
        for (boot, blank) in (2..).zip(&self.blanks).filter(|(_, blank)| !blank.pulled) {
            drive(blank.id, &blank.file, disk(blank.id, blank.serial, boot));
        }
        let stick = "usb-storage,bus=usb.0,drive=stick,removable=on,serial=STICK,bootindex=1";
        drive("stick", &self.image, stick.to_owned());
        words.splice(0..0, ["-device".to_owned(), "qemu-xhci,id=usb".to_owned()]);
        words
    }
}
