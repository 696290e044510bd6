//! Puts the parts into one sparse file, and takes the digests of what came out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gatehouse_disk::{FatSpec, Window, embed_grub, write_fat, write_table};
use gatehouse_model::{Contents, Digest, Doing as _, Fault, Hasher, ImageFile, ImagePart};

use super::layout::{BIOS, DEPOT, ESP, Layout, ROOT, SITE};
use super::parts::Parts;
use super::{IMAGE, SECTOR, contents, site_part};
use crate::cache::digest_file;
use crate::term;

/// Zeros of this size and alignment are left as holes.
const BLOCK: usize = 64 << 10;
/// How much is copied at a time; a multiple of [`BLOCK`].
const CHUNK: usize = 1 << 20;

/// Writes the image, synced.
///
/// # Errors
/// The disk is full; the site directory does not fit on its partition.
pub fn write(
    path: &Path,
    parts: &Parts,
    layout: &Layout,
    contents: &Contents,
    site: Vec<site_part::Content>,
) -> Result<(), Fault> {
    let bar = term::bar(format!("writing {IMAGE}"), term::Unit::Bytes, parts.bytes_to_write());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(layout.table.disk_bytes())?;
    write_table(&layout.table, &mut &file)?;
    let spec = |name: &str, label: &str| FatSpec {
        label: label.to_owned(),
        volume_id: parts.ids.volume(name),
        epoch: parts.epoch,
        sector_size: SECTOR,
    };
    let window = |name: &str| layout.part(name).map(|part| part.window(&file, SECTOR));
    write_fat(&mut window(ESP)?, &spec(ESP, "GH-ESP"), contents::fat_files(parts, contents)?)
        .doing(|| "writing the boot files")?;
    bar.add(parts.boot.bytes());
    write_fat(&mut window(SITE)?, &spec(SITE, "GATEHOUSE"), site_part::fat_files(site))
        .doing(|| "writing the site directory")?;
    for (name, filesystem) in [(ROOT, &parts.root), (DEPOT, &parts.depot_fs)] {
        let from = File::open(&filesystem.path).doing(|| format!("opening {}", filesystem.path.display()))?;
        copy(from, &mut window(name)?, &bar).doing(|| format!("writing {name}"))?;
    }
    let core = layout.part(BIOS)?;
    let room = core.bytes(SECTOR) / SECTOR;
    embed_grub(&mut &file, &parts.grub.boot, &parts.grub.core, core.first_lba, room)?;
    file.sync_all()?;
    bar.finish();
    Ok(())
}

/// Copies to a place that is all zeros, without writing zeros.
fn copy(mut from: impl Read, to: &mut (impl Write + Seek), bar: &term::Bar) -> io::Result<()> {
    let zeros = vec![0; BLOCK];
    let mut buffer = Vec::with_capacity(CHUNK);
    let mut at = to.seek(SeekFrom::Start(0))?;
    loop {
        buffer.clear();
        let count = from.by_ref().take(CHUNK as u64).read_to_end(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        for block in buffer.chunks(BLOCK) {
            if block != &zeros[..block.len()] {
                to.seek(SeekFrom::Start(at))?;
                to.write_all(block)?;
            }
            at += block.len() as u64;
        }
        bar.add(count as u64);
    }
}

/// The digests of the image and of its partitions.
///
/// # Errors
/// The image cannot be read.
pub fn digests(path: &Path, layout: &Layout) -> Result<(ImageFile, Vec<ImagePart>), Fault> {
    let bar = term::bar(format!("taking digests of {IMAGE}"), term::Unit::Time, 0);
    let doing = || format!("reading {}", path.display());
    let (whole, parts) = std::thread::scope(|scope| {
        let whole = scope.spawn(|| digest_file(path));
        let parts: Result<Vec<_>, Fault> = layout
            .table
            .parts()
            .iter()
            .map(|part| {
                let (offset, length) = (part.start(SECTOR), part.bytes(SECTOR));
                let mut part =
                    ImagePart { number: part.number, name: part.name.clone(), offset, length, sha256: None };
                if part.name != SITE {
                    part.sha256 = Some(digest_of(File::open(path)?, &part)?);
                }
                Ok(part)
            })
            .collect();
        (whole.join(), parts)
    });
    let (sha256, size) = whole.map_err(|_| Fault::new("the digest's thread ended early"))?.doing(doing)?;
    let parts = parts.doing(doing)?;
    bar.finish();
    Ok((ImageFile { path: IMAGE.to_owned(), size, sha256: Some(sha256) }, parts))
}

/// The digest of a partition's bytes.
///
/// # Errors
/// They cannot be read.
pub fn digest_of(image: File, part: &ImagePart) -> Result<Digest, Fault> {
    let mut from = Window::new(image, &part.name, part.offset, part.length);
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_become_holes() {
        let mut bytes = vec![0; 3 * CHUNK + 1000];
        bytes[CHUNK + 5] = 7;
        bytes[3 * CHUNK + 999] = 9;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("made");
        file.set_len(bytes.len() as u64 + 500).expect("sized");
        let bar = term::bar("test", term::Unit::Time, 0);
        copy(bytes.as_slice(), &mut &file, &bar).expect("copied");
        bytes.resize(bytes.len() + 500, 0);
        assert_eq!(std::fs::read(&path).expect("read"), bytes);
        assert!(file.metadata().expect("read").blocks() * 512 < CHUNK as u64);
    }
}
