//! `gatehouse.img.zst`: the image as it is sent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use gatehouse_model::{Digest, Doing as _, Fault, FileRef, Hasher};

use super::COMPRESSED;
use crate::cache::settle;
use crate::interrupt::Fleeting;
use crate::term;

/// What takes room in an image is compressed already; a higher level takes its time and gains nothing.
const LEVEL: i32 = 1;
/// Threads of the compressor: any number above 0 gives the same bytes, and this number is also the same everywhere.
const WORKERS: u32 = 2;
const CHUNK: usize = 1 << 20;

/// Compresses an image into a directory.
///
/// # Errors
/// The image cannot be read; the disk is full.
pub fn compress(image: &Path, out: &Path) -> Result<FileRef, Fault> {
    let partial = Fleeting::new(out.join(format!("{COMPRESSED}.partial")));
    let doing = || format!("writing {}", partial.path().display());
    let mut from = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let bytes = from.metadata().doing(|| format!("reading {}", image.display()))?.len();
    let bar = term::bar(format!("compressing {COMPRESSED}"), term::Unit::Bytes, bytes);
    let file = File::create(partial.path()).doing(doing)?;
    let digested = Digested { to: file, hasher: Hasher::new(), bytes: 0 };
    let mut encoder = zstd::Encoder::new(digested, LEVEL).doing(doing)?;
    encoder.multithread(WORKERS).doing(doing)?;
    encoder.include_checksum(true).doing(doing)?;
    encoder.set_pledged_src_size(Some(bytes)).doing(doing)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).doing(|| format!("reading {}", image.display()))?;
        if count == 0 {
            break;
        }
        encoder.write_all(&buffer[..count]).doing(doing)?;
        bar.add(count as u64);
    }
    let digested = encoder.finish().doing(doing)?;
    settle(partial.path(), &out.join(COMPRESSED))?;
    bar.finish();
    Ok(FileRef { path: COMPRESSED.to_owned(), size: digested.bytes, sha256: digested.hasher.finish() })
}

/// The digest of what a compressed image decompresses to.
///
/// # Errors
/// It is damaged.
pub fn digest_inside(compressed: &Path) -> io::Result<Digest> {
    let mut decoder = zstd::Decoder::new(File::open(compressed)?)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = decoder.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

/// Takes the digest of what is written.
struct Digested {
    to: File,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::digest_file;

    #[test]
    fn what_is_compressed_is_the_image_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        let file = File::create(&image).expect("made");
        (&file).write_all(&[7; 3000]).expect("written");
        file.set_len(5 << 20).expect("sized");
        let made = compress(&image, dir.path()).expect("compressed");
        let path = dir.path().join(COMPRESSED);
        assert_eq!(digest_file(&path).expect("read"), (made.sha256, made.size));
        assert!(made.size < 10_000);
        assert_eq!(digest_inside(&path).expect("whole"), digest_file(&image).expect("read").0);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() - 9]).expect("cut");
        digest_inside(&path).expect_err("cut short");
    }
}
