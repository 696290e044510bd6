//! A .deb file: `debian-binary`, the control archive, then the data archive as a stream.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use gatehouse_model::{Doing, Fault};
use liblzma::bufread::XzDecoder;

use crate::Control;
use crate::ar::Ar;

const BUFFER: usize = 128 * 1024;
/// No control archive comes near this; a larger one is damage or malice.
const MAX_CONTROL: u64 = 256 * 1024 * 1024;

/// An opened package: its control archive is read, its data archive is still to come.
pub struct Deb<R: Read> {
    control: Control,
    data: Decoder<Ar<R>>,
}

impl Deb<BufReader<File>> {
    /// Opens a package file and reads its control archive.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
        Self::new(BufReader::with_capacity(BUFFER, file)).doing(|| format!("reading {}", path.display()))
    }
}

impl<R: Read> Deb<R> {
    /// Reads a package from a stream up to the start of its data archive.
    pub fn new(reader: R) -> Result<Self, Fault> {
        let mut ar = start(reader)?;
        let suffix = find(&mut ar, "control.tar")?;
        let control = {
            let decoder = Decoder::new(&mut ar, &suffix)?;
            Control::read(decoder.take(MAX_CONTROL)).doing(|| "reading the control archive")?
        };
        let suffix = find(&mut ar, "data.tar")?;
        Ok(Self { control, data: Decoder::new(ar, &suffix)? })
    }

    /// What the control archive says.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Keeps what the control archive says and closes the package.
    pub fn into_control(self) -> Control {
        self.control
    }

    /// The data archive as an uncompressed tar stream.
    pub fn data(&mut self) -> &mut impl Read {
        &mut self.data
    }
}

impl<R: Read> fmt::Debug for Deb<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deb").field("control", &self.control).finish_non_exhaustive()
    }
}

/// The data archive of a package whose control archive was read before.
pub fn open_data(path: &Path) -> Result<impl Read, Fault> {
    let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
    let mut ar = start(BufReader::with_capacity(BUFFER, file))?;
    let suffix = find(&mut ar, "data.tar")?;
    Decoder::new(ar, &suffix)
}

fn start<R: Read>(reader: R) -> Result<Ar<R>, Fault> {
    let mut ar = Ar::new(reader)?;
    let first = ar.next()?.ok_or_else(|| Fault::new("the package is empty"))?;
    if first.name != "debian-binary" || first.size > 64 {
        return Err(Fault::new(format!("the first member is {} and not debian-binary", first.name)));
    }
    let mut format = String::new();
    ar.read_to_string(&mut format).doing(|| "reading the package's format")?;
    if !format.starts_with("2.") {
        return Err(Fault::new(format!("package format {} is not known; only 2.x is", format.trim())));
    }
    Ok(ar)
}

/// Goes to the next member of this name, over members that begin with `_`; answers what follows the name.
fn find<R: Read>(ar: &mut Ar<R>, name: &str) -> Result<String, Fault> {
    while let Some(member) = ar.next()? {
        if let Some(suffix) = member.name.strip_prefix(name) {
            return Ok(suffix.to_owned());
        }
        // Callers that want only the data come past the control archive.
        if !member.name.starts_with('_') && !member.name.starts_with("control.tar") {
            return Err(Fault::new(format!("member {} stands where {name} should", member.name)));
        }
    }
    Err(Fault::new(format!("the package has no {name}")))
}

/// A member made readable.
enum Decoder<R: Read> {
    Plain(R),
    Gz(Box<MultiGzDecoder<R>>),
    Xz(XzDecoder<BufReader<R>>),
    Zst(zstd::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Decoder<R> {
    fn new(reader: R, suffix: &str) -> Result<Self, Fault> {
        Ok(match suffix {
            "" => Self::Plain(reader),
            ".gz" => Self::Gz(Box::new(MultiGzDecoder::new(reader))),
            ".xz" => Self::Xz(XzDecoder::new_multi_decoder(BufReader::with_capacity(BUFFER, reader))),
            ".zst" => Self::Zst(zstd::Decoder::with_buffer(BufReader::with_capacity(BUFFER, reader))?),
            other => return Err(Fault::new(format!("compression {other} is not known; gz, xz and zst are"))),
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gz(reader) => reader.read(buffer),
            Self::Xz(reader) => reader.read(buffer),
            Self::Zst(reader) => reader.read(buffer),
        }
    }
}
