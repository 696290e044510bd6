//! `gatehouse build`: filesystems and boot code made one by one, then put into one image file. No loop device,
//! no mount, no root: everything is bytes at positions of a sparse file.

mod assemble;
mod bmap;
mod boot;
mod compress;
mod console;
mod contents;
mod drives;
mod erofs;
pub mod grub;
mod kvm;
mod layout;
pub mod loader;
mod machine;
pub mod netboot;
pub mod next;
mod parts;
pub mod site_part;
pub mod used;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use clap::ValueEnum;
use gatehouse_disk::{CheckedTable, FatLimits, Window, read_fat, read_table};
use gatehouse_model::{
    CONTENTS, Digest, Doing as _, Exit, Fault, FileRef, ImageFile, ImageManifest, ImagePart,
};
use nix::fcntl::{Flock, FlockArg};

use crate::cache::{Cache, digest_file, settle};
use crate::commands::Prepared;
use crate::interrupt::Fleeting;
use crate::term;
use layout::Layout;
use parts::Parts;

pub use assemble::digest_of;
pub use bmap::of as map_of;
pub use compress::digest_inside;

pub use layout::SITE;
pub use machine::{Hardware, QEMU, try_image};
pub use site_part::{Content, LOCK};

/// Changes whenever this code makes another image of the same inputs.
const RECIPE: &str = "3";
/// The version of the builder, which ids in an image derive from.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The image's file name.
pub const IMAGE: &str = "gatehouse.img";
/// The image, compressed.
pub const COMPRESSED: &str = "gatehouse.img.zst";
/// Which blocks of the image count, for bmaptool.
pub const BMAP: &str = "gatehouse.img.bmap";
/// What is in the image, with digests.
pub const MANIFEST: &str = "manifest.json";
/// The digests of all files of a build, as sha256sum reads them.
pub const SUMS: &str = "SHA256SUMS";
/// The size of a sector; disks that count in other sizes are installed to, never booted as this image.
pub const SECTOR: u64 = 512;

/// What a build delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// gatehouse.img, which is always made
    Img,
    /// gatehouse.img.zst, the same compressed
    Zst,
    /// pxe/, for machines that start from the network
    Pxe,
}

/// Builds the image of a site into a directory; what is there and right already is left alone.
///
/// # Errors
/// Another process builds into the directory (exit 4); a root or filesystem cannot be made; the disk is full.
pub fn build(prepared: &Prepared, out: &Path, formats: &[Format]) -> Result<ImageManifest, Fault> {
    fs::create_dir_all(out).doing(|| format!("making {}", out.display()))?;
    let _held = hold(out)?;
    let site = site_part::files(&prepared.dir, &prepared.site, &prepared.lock)?;
    let parts = parts::make(prepared)?;
    let there = finished(out, &parts, &site)?;
    pxe(out, &parts, prepared, &site, formats.contains(&Format::Pxe))?;
    let image = match &there {
        Some(manifest) => (manifest.image.clone(), manifest.partitions.clone()),
        None => write(out, &parts, site, &prepared.cache).map_err(|fault| with_room(fault, out, &parts))?,
    };
    let before = there.as_ref().and_then(|manifest| manifest.compressed.as_ref());
    let compressed = match formats.contains(&Format::Zst) {
        true if is_there(out, before)? => before.cloned(),
        true => Some(compress::compress(&out.join(IMAGE), out)?),
        false => None,
    };
    let manifest = manifest(&parts, image, compressed);
    if there.as_ref() == Some(&manifest) {
        term::say(&format!("{} is up to date", out.join(IMAGE).display()));
    } else {
        describe(out, &manifest)?;
    }
    Ok(manifest)
}

/// Makes what machines that start from the network are given; where that is not asked for, none may be left that is of
/// another build.
fn pxe(out: &Path, parts: &Parts, prepared: &Prepared, site: &[Content], asked: bool) -> Result<(), Fault> {
    if !asked && !out.join(netboot::PXE).exists() {
        return Ok(());
    }
    let contents = contents::of(parts, &Layout::of(parts)?, &prepared.cache)?;
    let keep = if asked { netboot::make } else { netboot::remove_other };
    keep(out, parts, &contents, site)
}

/// Where everything lies in the image of a site, and the list of what it installs; its parts are made if they are not in
/// the cache.
///
/// # Errors
/// A root or filesystem cannot be made.
pub fn contents_of(prepared: &Prepared) -> Result<(CheckedTable, String), Fault> {
    let parts = parts::make(prepared)?;
    let layout = Layout::of(&parts)?;
    let list = contents::to_json(&contents::of(&parts, &layout, &prepared.cache)?)?;
    Ok((layout.table, list))
}

/// Says of a full disk how much room is needed.
fn with_room(fault: Fault, out: &Path, parts: &Parts) -> Fault {
    if !fault.to_string().ends_with("(os error 28)") {
        return fault;
    }
    let needed = parts.bytes_to_write().div_ceil(1 << 20);
    fault.help(format!("the image takes {needed} MiB in {}; free space there", out.display()))
}

/// Keeps all others that change what was built out of a directory, or a lone image, until the answer is dropped.
///
/// # Errors
/// Another process is at work there (exit 4).
pub fn hold(out: &Path) -> Result<Flock<File>, Fault> {
    let held = File::open(out).doing(|| format!("opening {}", out.display()))?;
    Flock::lock(held, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Fault::new(format!("another process builds or customizes {}", out.display()))
            .help("wait for it to end, or name another directory")
            .exit(Exit::InUse)
    })
}

/// The manifest of the image in the directory, if that image is whole and just what would be built now.
fn finished(out: &Path, parts: &Parts, site: &[Content]) -> Result<Option<ImageManifest>, Fault> {
    let [json, bmap, told] = [MANIFEST, BMAP, SUMS].map(|name| fs::read(out.join(name)).unwrap_or_default());
    let manifest = serde_json::from_slice::<ImageManifest>(&json).ok();
    let Some(manifest) = manifest.filter(|manifest| manifest.inputs == parts.inputs) else { return Ok(None) };
    if told != sums(&manifest, &bmap, &json).as_bytes()
        || !site_of(&out.join(IMAGE)).is_ok_and(|there| there == site)
    {
        return Ok(None);
    }
    // One whose sites were changed has no digest: it is made anew.
    let ImageFile { path, size, sha256 } = manifest.image.clone();
    let image = sha256.map(|sha256| FileRef { path, size, sha256 });
    Ok(is_there(out, image.as_ref())?.then_some(manifest))
}

/// Whether a directory has just this file.
fn is_there(out: &Path, file: Option<&FileRef>) -> Result<bool, Fault> {
    let Some(file) = file else { return Ok(false) };
    let path = out.join(&file.path);
    if !fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == file.size) {
        return Ok(false);
    }
    let (sha256, _) = digest_file(&path).doing(|| format!("reading {}", path.display()))?;
    Ok(sha256 == file.sha256)
}

/// The files in an image's or disk's site partition, sorted by path.
///
/// # Errors
/// It cannot be read, is no image, or is half changed (exit 3).
pub fn site_of(image: &Path) -> Result<Vec<Content>, Fault> {
    next::refuse(image)?;
    site_as_it_is(image)
}

/// The same of an image of which somebody knows that it is whole.
///
/// # Errors
/// It cannot be read, or is no image.
pub fn site_as_it_is(image: &Path) -> Result<Vec<Content>, Fault> {
    let mut file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let window = window(&mut file, layout::SITE)?;
    read_fat(window, FatLimits::default())
        .doing(|| format!("reading {} of {}", layout::SITE, image.display()))
}

/// The list of what an image installs, as it stands on its boot partition.
///
/// # Errors
/// It cannot be read, or is no image.
pub fn installs(image: &Path) -> Result<Vec<u8>, Fault> {
    let mut file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let limits = FatLimits { file_bytes: 1 << 30, total_bytes: 1 << 30, ..FatLimits::default() };
    let files = read_fat(window(&mut file, layout::ESP)?, limits);
    let mut files = files.doing(|| format!("reading {} of {}", layout::ESP, image.display()))?.into_iter();
    let found = files.find(|(path, _)| path == CONTENTS);
    let missing = || Fault::new(format!("there is no {CONTENTS} on {}", layout::ESP));
    found.map(|(_, bytes)| bytes).ok_or_else(missing)
}

/// A partition of an image or of a disk made from it.
fn window<'a>(file: &'a mut File, name: &str) -> Result<Window<&'a mut File>, Fault> {
    let table = read_table(file, SECTOR)?;
    let part = table.iter().flat_map(|table| &table.parts).find(|part| part.name == name);
    let part = part.ok_or_else(|| Fault::new(format!("there is no partition {name}")))?;
    let (start, bytes) = (part.start(SECTOR), part.bytes(SECTOR));
    Ok(Window::new(file, name, start, bytes))
}

/// Writes the image, whatever was there.
fn write(
    out: &Path,
    parts: &Parts,
    site: Vec<Content>,
    cache: &Cache,
) -> Result<(ImageFile, Vec<ImagePart>), Fault> {
    let layout = Layout::of(parts)?;
    let contents = contents::of(parts, &layout, cache)?;
    let partial = Fleeting::new(out.join(format!("{IMAGE}.partial")));
    let doing = || format!("writing {}", partial.path().display());
    assemble::write(partial.path(), parts, &layout, &contents, site).doing(doing)?;
    let digests = assemble::digests(partial.path(), &layout)?;
    // What is there of an older build must not be taken for this one's if the power fails between two names.
    for name in [MANIFEST, SUMS, COMPRESSED, BMAP] {
        remove(out, name)?;
    }
    next::done(&out.join(IMAGE))?;
    put(out, BMAP, bmap::of(partial.path(), &[])?)?;
    settle(partial.path(), &out.join(IMAGE))?;
    Ok(digests)
}

fn manifest(
    parts: &Parts,
    (image, partitions): (ImageFile, Vec<ImagePart>),
    compressed: Option<FileRef>,
) -> ImageManifest {
    ImageManifest {
        schema: 1,
        builder: VERSION.to_owned(),
        lock: parts.lock,
        inputs: parts.inputs,
        epoch: parts.epoch,
        image,
        compressed,
        partitions,
        kernel: parts.boot.release.clone(),
        depot: parts.depot.clone(),
    }
}

/// Writes what tells of the image: last the manifest, without which a directory holds no finished build. One that the
/// digests do not name is none, either.
fn describe(out: &Path, manifest: &ImageManifest) -> Result<(), Fault> {
    if manifest.compressed.is_none() {
        remove(out, COMPRESSED)?;
    }
    let json = serde_json::to_string_pretty(manifest).doing(|| "writing the manifest")? + "\n";
    let bmap = fs::read(out.join(BMAP)).doing(|| format!("reading {BMAP}"))?;
    put(out, SUMS, sums(manifest, &bmap, json.as_bytes()))?;
    put(out, MANIFEST, json)
}

/// A line for each file: the image as long as it is what was built, what it is compressed to, its map and its manifest.
fn sums(manifest: &ImageManifest, bmap: &[u8], json: &[u8]) -> String {
    let image = manifest.image.sha256.map(|sha256| (sha256, manifest.image.path.as_str()));
    let compressed = manifest.compressed.as_ref().map(|file| (file.sha256, file.path.as_str()));
    let told = [(Digest::of(bmap), BMAP), (Digest::of(json), MANIFEST)];
    let lines = image.into_iter().chain(compressed).chain(told);
    lines.map(|(sha256, path)| line(sha256, path)).collect()
}

fn line(sha256: Digest, path: &str) -> String {
    format!("{sha256}  {path}\n")
}

/// Writes what tells of an image whose site partition was changed: it has no digest any more, and is not the one that
/// was compressed. An image without a manifest is told of by nothing.
///
/// # Errors
/// A file cannot be written.
pub fn describe_anew(dir: &Path, image: &Path, manifest: Option<&ImageManifest>) -> Result<(), Fault> {
    let Some(manifest) = manifest else { return Ok(()) };
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (mut old, told) = (read(BMAP), read(SUMS));
    // A damaged map is not believed.
    if !told.contains(&line(Digest::of(old.as_bytes()), BMAP)) {
        old.clear();
    }
    put(dir, BMAP, bmap::of(image, &bmap::lasting(&old, image)?)?)?;
    if manifest.compressed.is_some() {
        term::say(&format!("removing {COMPRESSED}, which holds the sites from before"));
    }
    let mut manifest = manifest.clone();
    (manifest.image.sha256, manifest.compressed) = (None, None);
    describe(dir, &manifest)
}

fn remove(out: &Path, name: &str) -> Result<(), Fault> {
    match fs::remove_file(out.join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", out.join(name).display()))
        }
        _ => Ok(()),
    }
}

fn put(out: &Path, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
    let partial = Fleeting::new(out.join(format!("{name}.partial")));
    fs::write(partial.path(), bytes).doing(|| format!("writing {}", out.join(name).display()))?;
    settle(partial.path(), &out.join(name))
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
