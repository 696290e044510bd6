//! Reads a backup from front to back and believes nothing of it before its end: whoever takes it in keeps it aside until
//! then.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use gatehouse_model::{Digest, Doing as _, Exit, Fault};
use tar::{Archive, Entry};
use zstd::Decoder;

use super::manifest::{Digests, Manifest, Of, SCHEMA};
use super::ranges::{BLOCK, Range, SparseHasher, is_zero};
use super::writer::SECTOR;

/// The most that is read into memory of what is no store: a site's repository may be large.
const LARGEST_FILE: u64 = 1 << 30;
/// The most ranges of a store: those of 16 TiB, every other block of 4 KiB, do not fit, but no disk looks like that.
const MOST_RANGES: usize = 1 << 26;

/// Who takes a backup in.
pub trait Take {
    /// What it is; whoever does not want it answers with a fault.
    ///
    /// # Errors
    /// It is not wanted.
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Fault>;

    /// Where a store goes; nowhere if it is only checked.
    ///
    /// # Errors
    /// No file can be made.
    fn store(&mut self, name: &str) -> Result<Option<File>, Fault>;

    /// A file.
    ///
    /// # Errors
    /// It cannot be written.
    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Fault>;

    /// Told of every so many bytes of data.
    ///
    /// # Errors
    /// No more is wanted.
    fn tell(&mut self, bytes: u64) -> Result<(), Fault>;
}

/// A backup that was read to its end, and is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// What it is.
    pub manifest: Manifest,
    /// What names it: the digest of its digests.
    pub digest: Digest,
}

/// Reads a backup whole.
///
/// # Errors
/// It is damaged, cut off or none ([`Exit::Mismatch`]); whoever takes it in will not have it or cannot write it.
pub fn read(input: impl Read, take: &mut dyn Take) -> Result<Whole, Fault> {
    let decoder = Decoder::new(input).map_err(damaged)?;
    let mut archive = Archive::new(decoder);
    let mut entries = archive.entries().map_err(damaged)?;
    let mut found = Digests::default();
    let first = entries.next().ok_or_else(|| damaged("it is empty"))?.map_err(damaged)?;
    let manifest = read_manifest(first, &mut found)?;
    take.manifest(&manifest)?;
    let mut last = None;
    for entry in entries {
        let entry = entry.map_err(damaged)?;
        if last.is_some() {
            return Err(damaged("something stands behind its digests"));
        }
        last = member(entry, take, &mut found)?;
    }
    // The checksum of zstd's frame lies behind the last block of tar's.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    let text = last.ok_or_else(|| damaged("it ends in the middle"))?;
    let said: Digests = serde_json::from_slice(&text).map_err(damaged)?;
    if said != found {
        let wrong = |(name, digest): (&String, &Digest)| {
            (found.members.get(name) != Some(digest)).then(|| name.clone())
        };
        let names: Vec<String> = said.members.iter().filter_map(wrong).collect();
        let names = if names.is_empty() { "its manifest".to_owned() } else { names.join(", ") };
        return Err(damaged(format!("{names}: not what was backed up")));
    }
    let Of::Node(node) = &manifest.of else { return Ok(Whole { manifest, digest: Digest::of(&text) }) };
    let missing =
        node.stores.iter().find(|store| !found.members.contains_key(&format!("stores/{}", store.name)));
    match missing {
        Some(store) => Err(damaged(format!("the store {} is missing", store.name))),
        None => Ok(Whole { manifest, digest: Digest::of(&text) }),
    }
}

/// Reads no more than the manifest of a backup; what follows is not looked at.
///
/// # Errors
/// It is none.
pub fn read_head(input: impl Read) -> Result<Manifest, Fault> {
    let mut archive = Archive::new(Decoder::new(input).map_err(damaged)?);
    let first = archive.entries().map_err(damaged)?.next();
    read_manifest(first.ok_or_else(|| damaged("it is empty"))?.map_err(damaged)?, &mut Digests::default())
}

fn damaged(what: impl std::fmt::Display) -> Fault {
    Fault::new(format!("this is no whole backup: {what}"))
        .help("take another backup; nothing was changed")
        .exit(Exit::Mismatch)
}

fn read_manifest(mut entry: Entry<'_, impl Read>, found: &mut Digests) -> Result<Manifest, Fault> {
    if entry.path().map_err(damaged)?.to_str() != Some("manifest.json") {
        return Err(damaged("it does not begin with a manifest"));
    }
    let text = whole(&mut entry)?;
    found.manifest = Some(Digest::of(&text));
    let manifest: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
    if manifest["schema"] != SCHEMA {
        return Err(Fault::new(format!("the backup has the form {}", manifest["schema"]))
            .help("use the gatectl of the version that has made it, or a newer one")
            .exit(Exit::Problem));
    }
    serde_json::from_value(manifest).map_err(damaged)
}

fn whole(entry: &mut impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    entry.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > LARGEST_FILE { Err(damaged("a file is too large")) } else { Ok(bytes) }
}

/// Takes one member in; answers with the digests' text if it was those.
fn member(
    mut entry: Entry<'_, impl Read>,
    take: &mut dyn Take,
    found: &mut Digests,
) -> Result<Option<Vec<u8>>, Fault> {
    let name = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
    let sparse = sparse(&mut entry)?;
    let kind = entry.header().entry_type();
    if !kind.is_file() {
        return Err(damaged(format!("{name} is no file")));
    }
    if let Some((name, size)) = sparse {
        let stored = entry.size();
        if found.members.contains_key(&name) {
            return Err(damaged(format!("{name} is there twice")));
        }
        let digest = store(entry, (&name, size, stored), take)?;
        found.members.insert(name, digest);
        return Ok(None);
    }
    let mode = entry.header().mode().map_err(damaged)?;
    let bytes = whole(&mut entry)?;
    if name == "digests.json" {
        return Ok(Some(bytes));
    }
    let mut hasher = SparseHasher::default();
    hasher.update(0, &bytes);
    found.members.insert(name.clone(), hasher.finish(bytes.len() as u64));
    take.file(&name, mode & 0o777, &bytes)?;
    take.tell(bytes.len() as u64)?;
    Ok(None)
}

/// Name and length of a sparse file.
fn sparse(entry: &mut Entry<'_, impl Read>) -> Result<Option<(String, u64)>, Fault> {
    let Some(words) = entry.pax_extensions().map_err(damaged)? else { return Ok(None) };
    let (mut name, mut size) = (None, None);
    for word in words {
        let word = word.map_err(damaged)?;
        let value = word.value().map_err(damaged)?;
        match word.key().map_err(damaged)? {
            "GNU.sparse.name" => name = Some(value.to_owned()),
            "GNU.sparse.realsize" => size = Some(value.parse().map_err(damaged)?),
            _ => {}
        }
    }
    Ok(name.zip(size))
}

fn store(
    entry: impl Read,
    (name, size, stored): (&str, u64, u64),
    take: &mut dyn Take,
) -> Result<Digest, Fault> {
    let base = name.strip_prefix("stores/").filter(|base| !base.is_empty() && !base.contains(['/', '.']));
    let base = base.ok_or_else(|| damaged(format!("{name} is no store")))?;
    let file = take.store(base)?;
    let mut entry = BufReader::with_capacity(BLOCK, entry);
    let ranges = map(&mut entry, size, stored)?;
    let mut hasher = SparseHasher::default();
    let mut buffer = vec![0; BLOCK];
    for range in ranges {
        let mut at = range.start;
        let end = range.start + range.length;
        while at < end {
            // Up to the next whole block, so that blocks of zeros are seen.
            let length = (end - at).min(BLOCK as u64 - at % BLOCK as u64);
            let bytes = &mut buffer[..usize::try_from(length).unwrap_or(BLOCK)];
            entry.read_exact(bytes).map_err(damaged)?;
            hasher.update(at, bytes);
            if let Some(file) = &file
                && !is_zero(bytes)
            {
                file.write_all_at(bytes, at).doing(|| format!("writing {base}"))?;
            }
            at += length;
            take.tell(length)?;
        }
    }
    if let Some(file) = file {
        file.set_len(size).and_then(|()| file.sync_all()).doing(|| format!("writing {base}"))?;
    }
    Ok(hasher.finish(size))
}

/// The ranges of a store, which begin its data.
fn map(entry: &mut impl io::BufRead, size: u64, stored: u64) -> Result<Vec<Range>, Fault> {
    let mut read = 0;
    let mut number = || -> Result<u64, Fault> {
        let mut line = String::new();
        entry.by_ref().take(21).read_line(&mut line).map_err(damaged)?;
        read += line.len();
        line.strip_suffix('\n')
            .and_then(|line| line.parse().ok())
            .ok_or_else(|| damaged("a number is missing"))
    };
    let count = usize::try_from(number()?).unwrap_or(usize::MAX);
    if count > MOST_RANGES {
        return Err(damaged(format!("a store has {count} ranges")));
    }
    let mut ranges = Vec::new();
    let (mut end, mut all) = (0, 0_u64);
    for _ in 0..count {
        let (start, length) = (number()?, number()?);
        let inside = start.checked_add(length).filter(|new| start >= end && *new <= size);
        end = inside.ok_or_else(|| damaged("a store's ranges are in disorder"))?;
        all += length;
        ranges.push(Range { start, length });
    }
    let filled = read.next_multiple_of(SECTOR);
    if filled as u64 + all != stored {
        return Err(damaged("a store is not as long as its ranges"));
    }
    let mut fill = vec![0; filled - read];
    entry.read_exact(&mut fill).map_err(damaged)?;
    Ok(ranges)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
