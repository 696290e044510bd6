//! `gatehouse build`: filesystems and boot code made one by one, then put into one image file. No loop device,
//! no mount, no root: everything is bytes at positions of a sparse file.

mod assemble;
mod boot;
mod console;
mod erofs;
mod grub;
mod kvm;
mod layout;
mod machine;
mod parts;
mod site_part;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gatehouse_disk::{FatLimits, Window, read_fat, read_table};
use gatehouse_model::{Digest, Doing as _, Exit, Fault, FileRef, ImageManifest};
use nix::fcntl::{Flock, FlockArg};

use crate::cache::{digest_file, settle};
use crate::commands::Prepared;
use crate::term;
use layout::Layout;
use parts::Parts;

pub use machine::try_image;
pub use site_part::{BOOT, Content, LOCK};

/// Changes whenever this code makes another image of the same inputs.
const RECIPE: &str = "2";
/// The version of the builder, which ids in an image derive from.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The image's file name.
pub const IMAGE: &str = "gatehouse.img";
const MANIFEST: &str = "manifest.json";
const SUMS: &str = "SHA256SUMS";
/// The size of a sector; disks that count in other sizes are installed to, never booted as this image.
const SECTOR: u64 = 512;

/// Builds the image of a site into a directory; an image that is there and right already is left alone.
///
/// # Errors
/// Another process builds into the directory (exit 4); a root or filesystem cannot be made; the disk is full.
pub fn build(prepared: &Prepared, out: &Path) -> Result<ImageManifest, Fault> {
    fs::create_dir_all(out).doing(|| format!("making {}", out.display()))?;
    let _held = hold(out)?;
    let site = site_part::files(&prepared.dir, &prepared.site, &prepared.lock)?;
    let parts = parts::make(prepared)?;
    if let Some(manifest) = finished(out, &parts, &site) {
        term::say(&format!("{} is up to date", out.join(IMAGE).display()));
        return Ok(manifest);
    }
    let layout = Layout::of(&parts)?;
    write(out, &parts, &layout, site).map_err(|fault| {
        if fault.to_string().ends_with("(os error 28)") {
            let needed = parts.bytes_to_write().div_ceil(1 << 20);
            fault.help(format!("the image takes {needed} MiB in {}; free space there", out.display()))
        } else {
            fault
        }
    })
}

/// Keeps every other builder out of the directory until the answer is dropped.
fn hold(out: &Path) -> Result<Flock<File>, Fault> {
    let dir = File::open(out).doing(|| format!("opening {}", out.display()))?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Fault::new(format!("another process is building into {}", out.display()))
            .help("wait for it to end, or build into another directory")
            .exit(Exit::InUse)
    })
}

/// The manifest of the image in the directory, if that image is whole and just what would be built now.
fn finished(out: &Path, parts: &Parts, site: &[site_part::Content]) -> Option<ImageManifest> {
    let manifest: ImageManifest = serde_json::from_slice(&fs::read(out.join(MANIFEST)).ok()?).ok()?;
    if manifest.inputs != parts.inputs || !out.join(SUMS).is_file() {
        return None;
    }
    let path = out.join(&manifest.image.path);
    if site_of(&path).ok()? != site {
        return None;
    }
    let (sha256, bytes) = digest_file(&path).ok()?;
    (manifest.image == FileRef { path: IMAGE.to_owned(), size: bytes, sha256 }).then_some(manifest)
}

/// The files in an image's or disk's site partition, sorted by path.
///
/// # Errors
/// It cannot be read, or is no image.
pub fn site_of(image: &Path) -> Result<Vec<site_part::Content>, Fault> {
    let mut file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let window = window(&mut file, layout::SITE)?;
    read_fat(window, FatLimits::default())
        .doing(|| format!("reading {} of {}", layout::SITE, image.display()))
}

/// A partition of an image or of a disk made from it.
fn window<'a>(file: &'a mut File, name: &str) -> Result<Window<&'a mut File>, Fault> {
    let table = read_table(file, SECTOR)?;
    let part = table.iter().flat_map(|table| &table.parts).find(|part| part.name == name);
    let part = part.ok_or_else(|| Fault::new(format!("there is no partition {name}")))?;
    let (start, bytes) = (part.start(SECTOR), part.bytes(SECTOR));
    Ok(Window::new(file, name, start, bytes))
}

fn write(
    out: &Path,
    parts: &Parts,
    layout: &Layout,
    site: Vec<site_part::Content>,
) -> Result<ImageManifest, Fault> {
    let partial = Fleeting(out.join(format!("{IMAGE}.partial")));
    assemble::write(&partial.0, parts, layout, site).doing(|| format!("writing {}", partial.0.display()))?;
    let (image, partitions) = assemble::digests(&partial.0, layout)?;
    // What is there of an older build must not be taken for this one's if the power fails between two names.
    for name in [MANIFEST, SUMS] {
        drop(Fleeting(out.join(name)));
    }
    settle(&partial.0, &out.join(IMAGE))?;
    let manifest = ImageManifest {
        schema: 1,
        builder: VERSION.to_owned(),
        lock: parts.lock,
        inputs: parts.inputs,
        epoch: parts.epoch,
        image,
        partitions,
        kernel: parts.boot.release.clone(),
        depot: parts.depot.clone(),
    };
    let json = serde_json::to_string_pretty(&manifest).doing(|| "writing the manifest")? + "\n";
    let sums = format!("{}  {IMAGE}\n{}  {MANIFEST}\n", manifest.image.sha256, Digest::of(json.as_bytes()));
    put(out, SUMS, &sums)?;
    put(out, MANIFEST, &json)?;
    Ok(manifest)
}

fn put(out: &Path, name: &str, text: &str) -> Result<(), Fault> {
    let partial = Fleeting(out.join(format!("{name}.partial")));
    fs::write(&partial.0, text).doing(|| format!("writing {}", out.join(name).display()))?;
    settle(&partial.0, &out.join(name))
}

/// A file or directory that is gone when this is dropped, unless it was moved away before.
#[derive(Debug)]
struct Fleeting(PathBuf);

impl Drop for Fleeting {
    fn drop(&mut self) {
        // Moved to its place is the usual case; what else cannot be removed is found again as stale.
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builders_do_not_share_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = hold(dir.path()).expect("free");
        assert_eq!(hold(dir.path()).expect_err("held").exit_status(), Exit::InUse);
        drop(held);
        hold(dir.path()).expect("free again");
    }
}
