//! Fetches files of the depot over plain HTTP: continued where a connection broke, believed only by their digest.

use std::io::Read;
use std::thread;
use std::time::Duration;

use gatehouse_model::{Doing as _, Exit, Fault, FileRef, Hasher};

use crate::node::client::Client;

/// Size of the pieces that a file is passed on in.
pub const PIECE: usize = 1 << 20;
/// How many times in a row a download may break without a single byte in between: with the pauses about a minute,
/// in which a switch starts anew.
const ATTEMPTS: u32 = 24;
/// The pause after the first of them; each later one is longer by it.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// What a taker says whose own reader is gone: never the cause of anything.
pub const HUNG_UP: &str = "the next stage has ended";

/// Where the bytes of a file come from; a test has its own.
pub trait Source: Send {
    /// Opens the file from a byte on.
    ///
    /// # Errors
    /// It cannot be reached, or does not begin there.
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault>;
}

/// A file of the install server's depot.
#[derive(Debug)]
pub struct DepotFile {
    /// The server.
    pub client: Client,
    /// The file's path.
    pub path: String,
}

impl Source for DepotFile {
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
        Ok(Box::new(self.client.depot_file(&self.path, from)?))
    }
}

/// Hands a whole file on in pieces; what was handed on counts only once this has returned.
///
/// # Errors
/// The download breaks for good, its digest is another, or the taker wants no more.
pub fn fetch(
    source: &dyn Source,
    file: &FileRef,
    take: &mut dyn FnMut(Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut hasher = Hasher::new();
    let mut offset = 0;
    let mut fruitless = 0;
    while offset < file.size {
        let before = offset;
        let outcome = fetch_on(source, file.size, &mut offset, &mut hasher, take);
        fruitless = if offset > before { 0 } else { fruitless + 1 };
        match outcome {
            Err(fault) if fruitless >= ATTEMPTS || fault.to_string() == HUNG_UP => return Err(fault),
            Ok(()) if fruitless >= ATTEMPTS => {
                let size = file.size;
                return Err(Fault::new(format!("the download ends after {offset} of {size} bytes")));
            }
            Err(_) | Ok(()) if offset < file.size => thread::sleep(PAUSE * fruitless),
            _ => {}
        }
    }
    let digest = hasher.finish();
    if digest == file.sha256 {
        return Ok(());
    }
    Err(Fault::new(format!("the digest of {} is {digest}, not {}", file.path, file.sha256))
        .help("the server's file is damaged or was changed on its way; check the depot and install again")
        .exit(Exit::Mismatch))
}

fn fetch_on(
    source: &dyn Source,
    size: u64,
    offset: &mut u64,
    hasher: &mut Hasher,
    take: &mut dyn FnMut(Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut stream = source.open(*offset)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let outcome = stream.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        if piece.is_empty() {
            outcome.doing(|| format!("downloading from byte {offset}"))?;
            return Ok(());
        }
        if *offset + piece.len() as u64 > size {
            return Err(Fault::new(format!("the download is longer than the {size} bytes it should have")));
        }
        hasher.update(&piece);
        *offset += piece.len() as u64;
        take(piece)?;
        outcome.doing(|| format!("downloading from byte {offset}"))?;
    }
}
