//! What an image's site partition is about to hold: a file beside the image, whole before the first byte of the image is
//! changed and there until everything tells of the new sites. Whatever a cut leaves in the image is finished from it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use gatehouse_disk::Part;
use gatehouse_model::{Doing as _, Fault, Refusal};

use super::{SECTOR, layout};
use crate::cache::settle;
use crate::interrupt::Fleeting;

/// What is compared and written at a time.
const BLOCK: usize = 64 << 10;

/// Where it is.
pub fn path(image: &Path) -> PathBuf {
    with(image, layout::SITE)
}

fn with(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{extension}"));
    name.into()
}

/// Refuses an image that is half changed.
///
/// # Errors
/// It is.
pub fn refuse(image: &Path) -> Result<(), Refusal> {
    if path(image).exists() {
        let what = format!("customizing {} was cut short, or still goes on", image.display());
        return Err(Refusal::new(what, "run `gatehouse customize` again, if nobody does just now"));
    }
    Ok(())
}

/// Keeps the partition's next bytes, synced; zeros become holes.
///
/// # Errors
/// The disk is full.
pub fn keep(image: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let to = path(image);
    let partial = Fleeting::new(with(&to, "partial"));
    let doing = || format!("writing {}", partial.path().display());
    let file = File::create(partial.path()).doing(doing)?;
    file.set_len(bytes.len() as u64).doing(doing)?;
    for (at, block) in (0..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at).doing(doing)?;
        }
    }
    settle(partial.path(), &to)?;
    // The name must be there before anything of the image is not.
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).doing(|| format!("writing {}", dir.display()))
}

/// Puts the bytes that were kept into the image, synced; writes only what differs, and says how much that was: nothing
/// where nothing is kept.
///
/// # Errors
/// What is kept is not of this image; the disk is full.
pub fn put(image: &Path, part: &Part) -> Result<usize, Fault> {
    let from = path(image);
    let mut bytes = Vec::new();
    match File::open(&from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        opened => opened.and_then(|mut file| file.read_to_end(&mut bytes)),
    }
    .doing(|| format!("reading {}", from.display()))?;
    if bytes.len() as u64 != part.bytes(SECTOR) {
        let fault = Fault::new(format!("{} is not of this image", from.display()));
        return Err(fault.help("remove it, and build the image anew"));
    }
    let doing = || format!("writing {}", image.display());
    let file = OpenOptions::new().read(true).write(true).open(image).doing(doing)?;
    let (mut changed, mut old) = (0, vec![0; BLOCK]);
    for (at, block) in (part.start(SECTOR)..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
        let old = &mut old[..block.len()];
        file.read_exact_at(old, at).doing(doing)?;
        if old != block {
            file.write_all_at(block, at).doing(doing)?;
            changed += block.len();
        }
    }
    file.sync_data().doing(doing)?;
    Ok(changed)
}

/// Everything tells of the new sites: the bytes are kept no longer.
///
/// # Errors
/// The file cannot be removed.
pub fn done(image: &Path) -> Result<(), Fault> {
    match fs::remove_file(path(image)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path(image).display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_disk::PartKind;

    use super::*;

    const BLOCKS: usize = 12;
    const START: usize = 1 << 20;

    fn part() -> Part {
        let first_lba = START as u64 / SECTOR;
        let last_lba = first_lba + (BLOCKS * BLOCK) as u64 / SECTOR - 1;
        let (number, name, kind, guid) = (3, layout::SITE.to_owned(), PartKind::BasicData, [3; 16]);
        Part { number, name, kind, guid, first_lba, last_lba }
    }

    /// A partition of which each third block is full of a byte, and some differ only at their ends.
    fn partition(byte: u8) -> Vec<u8> {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
            block.fill(if number % 3 == 1 { byte } else { 0 });
            block[BLOCK - 1] = if number % 2 == 0 { byte } else { 0 };
        }
        bytes
    }

    #[test]
    fn whatever_a_cut_leaves_is_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("a.img");
        let whole = |site: &[u8]| [&vec![7; START], site, &vec![9; START]].concat();
        let (old, new) = (partition(1), partition(2));
        keep(&image, &new).expect("kept");
        assert_eq!(fs::metadata(path(&image)).expect("there").len(), new.len() as u64);
        for cut in 0..=BLOCKS * 2 {
            // In the middle of a block, too.
            let cut = cut * BLOCK / 2;
            fs::write(&image, whole(&[&new[..cut], &old[cut..]].concat())).expect("written");
            assert!(refuse(&image).is_err());
            put(&image, &part()).expect("finished");
            assert!(fs::read(&image).expect("read") == whole(&new), "cut at {cut}");
            assert_eq!(put(&image, &part()).expect("nothing to do"), 0);
        }
        done(&image).expect("removed");
        assert!(refuse(&image).is_ok());
        assert_eq!(put(&image, &part()).expect("nothing is kept"), 0);
    }

    #[test]
    fn what_is_of_another_image_is_not_put_into_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("a.img");
        let before = vec![7; START + BLOCKS * BLOCK];
        fs::write(&image, &before).expect("written");
        keep(&image, &vec![1; BLOCK]).expect("kept");
        let fault = put(&image, &part()).expect_err("too short").to_string();
        assert!(fault.ends_with("a.img.gh-site is not of this image"), "{fault}");
        assert!(fs::read(&image).expect("read") == before);
    }
}
