//! Which ranges of a sparse file hold data, and a digest of it that costs no more than those.

use std::fs::File;
use std::io;

use gatehouse_model::{Digest, Hasher};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What the digest goes by, in bytes. Part of the format.
pub const BLOCK: usize = 64 << 10;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// One range of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// The ranges of a file that the filesystem has given blocks to, in order. Where it cannot say, that is the whole file.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(file: &File) -> io::Result<Vec<Range>> {
    let mut ranges = Vec::new();
    let end = file.metadata()?.len();
    let signed = |at: u64| i64::try_from(at).map_err(io::Error::other);
    let unsigned = |at: i64| u64::try_from(at).map_err(io::Error::other);
    let mut at = 0;
    while at < end {
        let start = match lseek(file, signed(at)?, Whence::SeekData) {
            Ok(start) => unsigned(start)?,
            // Nothing but a hole from here on.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = unsigned(lseek(file, signed(start)?, Whence::SeekHole)?)?;
        ranges.push(Range { start, length: at - start });
    }
    Ok(ranges)
}

/// How many bytes ranges hold together.
pub fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.length).sum()
}

/// Whether there is nothing but zeros in some bytes.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Makes the digest of a file from its data alone: the SHA-256 of every block of 64 KiB that is not all zeros, its
/// number in front of it, and of the file's length at the end; numbers are of 64 bits, little endian. So it is the same
/// wherever the holes are.
#[derive(Debug)]
pub struct SparseHasher {
    hasher: Hasher,
    number: u64,
    block: Box<[u8]>,
}

impl Default for SparseHasher {
    fn default() -> Self {
        Self { hasher: Hasher::new(), number: 0, block: vec![0; BLOCK].into() }
    }
}

impl SparseHasher {
    /// Adds bytes that stand at an offset behind all that were added before.
    pub fn update(&mut self, mut offset: u64, mut bytes: &[u8]) {
        let size = BLOCK as u64;
        while !bytes.is_empty() {
            let number = offset / size;
            if number != self.number {
                self.flush();
                self.number = number;
            }
            let inside = usize::try_from(offset % size).unwrap_or(0);
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - inside));
            self.block[inside..inside + now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            bytes = later;
        }
    }

    fn flush(&mut self) {
        if !is_zero(&self.block) {
            self.hasher.update(&self.number.to_le_bytes());
            self.hasher.update(&self.block);
            self.block.fill(0);
        }
    }

    /// The digest of a file of this length.
    pub fn finish(mut self, length: u64) -> Digest {
        self.flush();
        self.hasher.update(&length.to_le_bytes());
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn holes_are_found_and_say_nothing_to_the_digest() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("long");
        file.write_all_at(b"x", 300_000).expect("written");
        file.write_all_at(&[0; 4096], 700_416).expect("written");
        let ranges = of_file(&file).expect("read");
        assert!(total(&ranges) < 1 << 19, "{ranges:?}");
        let digest = |ranges: &[Range]| {
            let mut hasher = SparseHasher::default();
            for range in ranges {
                let mut bytes = vec![0; usize::try_from(range.length).expect("small")];
                file.read_exact_at(&mut bytes, range.start).expect("read");
                hasher.update(range.start, &bytes);
            }
            hasher.finish(1 << 20)
        };
        let whole = digest(&[Range { start: 0, length: 1 << 20 }]);
        assert_eq!(digest(&ranges), whole);
        assert_eq!(digest(&[Range { start: 299_999, length: 3 }]), whole);
        assert_ne!(digest(&[]), whole);
        assert_ne!(SparseHasher::default().finish(1), SparseHasher::default().finish(2));
    }
}
