//! `gatehouse.img.bmap`: the blocks of an image that count, for bmaptool (its format 2.0), each with its digest.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use gatehouse_disk::{Window, read_table};
use gatehouse_model::{Digest, Doing as _, Fault, Hasher};

use super::used::{self, BLOCK};
use super::{SECTOR, layout};
use crate::parallel;

/// What stands where the file's own digest comes: as many zeros (bmaptool's format 1.3 and later).
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One range of blocks with its digest.
type Chunk = (Range<u64>, Digest);

/// The text of an image's map. Ranges that are given are taken as they are; those of an older map spare a customized
/// image to be read whole.
///
/// # Errors
/// The image cannot be read.
pub fn of(image: &Path, known: &[Chunk]) -> Result<String, Fault> {
    let doing = || format!("reading {}", image.display());
    let mut file = File::open(image).doing(doing)?;
    let size = file.metadata().doing(doing)?.len();
    let ranges = ranges(&mut file, size)?;
    let chunks = parallel::each(&ranges, parallel::processors(), |range| {
        let there = known.iter().find(|(at, _)| at == range).map(|(_, digest)| *digest);
        match there {
            Some(digest) => Ok((range.clone(), digest)),
            None => digest(image, range).map(|digest| (range.clone(), digest)).doing(doing),
        }
    })?;
    Ok(text(size, &chunks))
}

/// The ranges of a map that lie outside the site partition.
///
/// # Errors
/// The image has no site partition.
pub fn lasting(text: &str, image: &Path) -> Result<Vec<Chunk>, Fault> {
    let mut file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let table = read_table(&mut file, SECTOR)?;
    let site = table.iter().flat_map(|table| &table.parts).find(|part| part.name == layout::SITE);
    let site = site.ok_or_else(|| Fault::new("the image has no site partition"))?;
    let (start, end) = (site.start(SECTOR), site.start(SECTOR) + site.bytes(SECTOR));
    let chunks = text.lines().filter_map(chunk);
    Ok(chunks.filter(|(range, _)| range.end <= start || range.start >= end).collect())
}

/// A range of a map, read again.
fn chunk(line: &str) -> Option<Chunk> {
    let (digest, rest) = line.trim().strip_prefix("<Range chksum=\"")?.split_once("\"> ")?;
    let blocks = rest.strip_suffix(" </Range>")?;
    let (first, last) = blocks.split_once('-').unwrap_or((blocks, blocks));
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some((first * BLOCK..(last + 1) * BLOCK, digest.parse().ok()?))
}

/// What counts of the whole image: both copies of the table and what the partitions hold.
fn ranges(file: &mut File, size: u64) -> Result<Vec<Range<u64>>, Fault> {
    let table = read_table(file, SECTOR)?.ok_or_else(|| Fault::new("the image has no partition table"))?;
    // The first MiB holds boot code and table alone, and so does what lies behind the last partition.
    let first = table.parts.iter().map(|part| part.start(SECTOR)).min().unwrap_or(size);
    let last = table.parts.iter().map(|part| part.start(SECTOR) + part.bytes(SECTOR)).max().unwrap_or(0);
    let mut all: Vec<Range<u64>> = std::iter::once(0..first).collect();
    for part in &table.parts {
        all.extend(used::of_part(file, part)?);
    }
    all.push(last / BLOCK * BLOCK..size.next_multiple_of(BLOCK));
    Ok(all)
}

fn digest(image: &Path, range: &Range<u64>) -> io::Result<Digest> {
    let mut from = Window::new(File::open(image)?, "the image", range.start, range.end - range.start);
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 20]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

fn text(size: u64, chunks: &[Chunk]) -> String {
    let blocks = size.div_ceil(BLOCK);
    let mapped: u64 = chunks.iter().map(|(range, _)| (range.end - range.start) / BLOCK).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n    <ImageSize> {size} </ImageSize>\n    \
         <BlockSize> {BLOCK} </BlockSize>\n    <BlocksCount> {blocks} </BlocksCount>\n    \
         <MappedBlocksCount> {mapped} </MappedBlocksCount>\n    <ChecksumType> sha256 </ChecksumType>\n    \
         <BmapFileChecksum> {NO_DIGEST} </BmapFileChecksum>\n    <BlockMap>\n"
    );
    for (range, digest) in chunks {
        let (first, last) = (range.start / BLOCK, range.end / BLOCK - 1);
        let _ = writeln!(text, "        <Range chksum=\"{digest}\"> {first}-{last} </Range>");
    }
    text.push_str("    </BlockMap>\n</bmap>\n");
    let own = Digest::of(text.as_bytes()).to_string();
    text.replacen(NO_DIGEST, &own, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let chunks = vec![(0..8192, Digest::of(b"a")), (BLOCK * 9..BLOCK * 10, Digest::of(b"b"))];
        let text = text(BLOCK * 12, &chunks);
        assert!(text.contains("<MappedBlocksCount> 3 </MappedBlocksCount>"), "{text}");
        assert_eq!(text.lines().filter_map(chunk).collect::<Vec<_>>(), chunks);
    }
}
