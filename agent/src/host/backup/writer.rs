//! Writes a backup: a tar archive in zstd, from front to back, so that it may go anywhere.
//!
//! ```text
//! manifest.json   stores/disk0 …  or  state/…   digests.json
//! ```
//! Stores are sparse in the way of PAX 1.0 (`tar --format=posix --sparse-version=1.0 -S`): a list of the ranges that hold
//! data, then those. GNU tar unpacks it; `digests.json` is what only this program looks at.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::thread::available_parallelism;

use gatehouse_model::{Digest, Doing as _, Fault};
use tar::{Builder, EntryType, Header};
use zstd::Encoder;

use super::manifest::{Digests, Manifest};
use super::ranges::{self, Range, SparseHasher};

/// zstd's own choice: the disk is the slower part from here on.
const LEVEL: i32 = 3;
/// More threads only take the nodes' processors.
const MOST_THREADS: usize = 4;
/// tar's unit, in bytes.
pub(super) const SECTOR: usize = 512;

/// Told of every so many bytes of data; whoever wants no more of it answers with a fault.
pub type Tell<'a> = &'a mut dyn FnMut(u64) -> Result<(), Fault>;

/// A backup that is being written.
pub struct Writer<W: Write> {
    tar: Builder<Encoder<'static, W>>,
    made: u64,
    digests: Digests,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("digests", &self.digests).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins with the manifest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(out: W, manifest: &Manifest) -> Result<Self, Fault> {
        let mut encoder = Encoder::new(out, LEVEL).doing(|| "starting zstd")?;
        let threads = available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let threads = u32::try_from(threads).unwrap_or(1);
        encoder
            .include_checksum(true)
            .and_then(|()| encoder.multithread(threads))
            .doing(|| "starting zstd")?;
        let mut writer =
            Self { tar: Builder::new(encoder), made: manifest.made / 1000, digests: Digests::default() };
        let text = serde_json::to_vec_pretty(manifest).doing(|| "writing the manifest")?;
        writer.digests.manifest = Some(Digest::of(&text));
        writer.entry("manifest.json", 0o600, text.len() as u64, &text[..])?;
        Ok(writer)
    }

    /// Adds a file as it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Fault> {
        let mut hasher = SparseHasher::default();
        hasher.update(0, bytes);
        self.digests.members.insert(name.to_owned(), hasher.finish(bytes.len() as u64));
        self.entry(name, mode, bytes.len() as u64, bytes)
    }

    /// Adds a sparse file, of which only these ranges are read.
    ///
    /// # Errors
    /// It cannot be read, or the backup not be written; what `tell` answers.
    pub fn store(&mut self, name: &str, file: &File, ranges: &[Range], tell: Tell<'_>) -> Result<(), Fault> {
        let doing = || format!("backing up {name}");
        let size = file.metadata().doing(doing)?.len();
        let map = map(ranges, size);
        let stored = map.len() as u64 + ranges::total(ranges);
        let real = size.to_string();
        let words = [
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", name),
            ("GNU.sparse.realsize", &real),
        ];
        self.tar.append_pax_extensions(words.map(|(key, value)| (key, value.as_bytes()))).doing(doing)?;
        // What a tar that knows nothing of holes makes of it should not bear the name.
        let (dir, base) = name.rsplit_once('/').unwrap_or((".", name));
        let mut refused = None;
        let mut data = Data {
            file,
            ranges: ranges.iter(),
            now: None,
            hasher: SparseHasher::default(),
            tell: &mut |bytes| tell(bytes).map_err(|fault| refused = Some(fault)).is_ok(),
        };
        let written = self.entry(
            &format!("{dir}/GNUSparseFile.0/{base}"),
            0o600,
            stored,
            io::Cursor::new(&map).chain(&mut data),
        );
        let digest = data.hasher.finish(size);
        self.digests.members.insert(name.to_owned(), digest);
        match refused {
            Some(fault) => Err(fault),
            None => written.doing(doing),
        }
    }

    /// Ends with the digests; the digest of those names the whole backup.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(W, Digest), Fault> {
        let text = serde_json::to_vec_pretty(&self.digests).doing(|| "writing the digests")?;
        self.entry("digests.json", 0o600, text.len() as u64, &text[..])?;
        let doing = || "writing the end of the backup";
        let out = self.tar.into_inner().and_then(Encoder::finish).doing(doing)?;
        Ok((out, Digest::of(&text)))
    }

    fn entry(&mut self, name: &str, mode: u32, size: u64, data: impl Read) -> Result<(), Fault> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.made);
        header.set_size(size);
        self.tar.append_data(&mut header, name, data).doing(|| format!("writing {name}"))
    }
}

/// The ranges as PAX 1.0 has them: how many, then each one's start and length, a line each, filled up to a whole sector.
/// GNU tar knows the file's length by an empty one at its end.
fn map(ranges: &[Range], size: u64) -> Vec<u8> {
    let mut text = format!("{}\n", ranges.len() + 1);
    for range in ranges.iter().chain(&[Range { start: size, length: 0 }]) {
        let _ = write!(text, "{}\n{}\n", range.start, range.length);
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
}

/// Reads the ranges of a file one behind the other.
struct Data<'a> {
    file: &'a File,
    ranges: std::slice::Iter<'a, Range>,
    now: Option<Range>,
    hasher: SparseHasher,
    tell: &'a mut dyn FnMut(u64) -> bool,
}

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(now) = self.now.filter(|now| now.length > 0).or_else(|| self.ranges.next().copied()) else {
            return Ok(0);
        };
        let most = usize::try_from(now.length).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(&mut buffer[..most], now.start)?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"));
        }
        self.hasher.update(now.start, &buffer[..got]);
        let bytes = got as u64;
        self.now = Some(Range { start: now.start + bytes, length: now.length - bytes });
        if (self.tell)(bytes) { Ok(got) } else { Err(io::Error::other("nobody wants more of it")) }
    }
}
