//! Streams a layer from the server onto the new root: fetch and digest, decompress, unpack, each in a thread of
//! its own, so that network, processor and disk work at the same time and nothing is held in memory.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Exit, Fault, Hasher, Layer};

use crate::node::client::Client;
use crate::node::unpack::{Unpacked, unpack};

/// Size of the pieces that pass between the threads.
const PIECE: usize = 1 << 20;
/// How many pieces may wait between two threads.
const WAITING: usize = 8;
/// How many times in a row a download may break without a single byte in between: with the pauses about a minute,
/// in which a switch starts anew.
const ATTEMPTS: u32 = 24;
/// The pause after the first of them; each later one is longer by it.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// How often progress is told. Each time passes a console, TLS and the board, which costs an emulated machine a
/// tenth of a second.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// Where the bytes of a layer come from; a test has its own.
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

/// Fetches a layer and unpacks it into a directory; `told` gets percent and MiB/s every few seconds.
///
/// # Errors
/// The download breaks for good, size or digest differ from what the depot's list says, or unpacking fails.
/// What has been written by then is of no use.
pub fn put_down(
    source: impl Source + 'static,
    layer: &Layer,
    root: &Path,
    told: &mut dyn FnMut(u8, f64),
) -> Result<Unpacked, Fault> {
    let fetched = Arc::new(AtomicU64::new(0));
    let (raw_in, raw_out) = sync_channel(WAITING);
    let (tar_in, tar_out) = sync_channel(WAITING);
    let (done_in, done_out) = sync_channel(1);
    let file = layer.file.clone();
    let counter = Arc::clone(&fetched);
    let fetch = thread::spawn(move || {
        let hasher = fetch(&source, file.size, &raw_in, &counter)?;
        let digest = hasher.finish();
        if digest == file.sha256 {
            return Ok(());
        }
        Err(Fault::new(format!("the digest of {} is {digest}, not {}", file.path, file.sha256))
            .help("the server's file is damaged or was changed on its way; check the depot and install again")
            .exit(Exit::Mismatch))
    });
    let decompress = thread::spawn(move || decompress(raw_out, &tar_in));
    let directory = root.to_owned();
    let write = thread::spawn(move || {
        let result = unpack(Pieces::new(tar_out), &directory);
        // Nobody waits for it any more only when this function has ended already.
        let _ = done_in.send(());
        result
    });
    let begun = Instant::now();
    while done_out.recv_timeout(TELL_EVERY) == Err(RecvTimeoutError::Timeout) {
        let (percent, rate) = figures(fetched.load(Ordering::Relaxed), layer.file.size, begun.elapsed());
        told(percent, rate);
    }
    // A stage that breaks makes its neighbours break too: the first one has the true cause.
    let outcomes = (fetch.join(), decompress.join(), write.join());
    let (Ok(fetched), Ok(decompressed), Ok(written)) = outcomes else {
        return Err(Fault::new("a thread of the unpacking panicked; its words are above"));
    };
    let (written, failed) = match written {
        Ok(written) => (written, None),
        Err(fault) => (Unpacked::default(), Some(fault)),
    };
    let mut faults: Vec<Fault> = [fetched.err(), decompressed.err(), failed].into_iter().flatten().collect();
    let cause = faults.iter().position(|fault| fault.to_string() != HUNG_UP);
    match cause {
        Some(index) => Err(faults.swap_remove(index)),
        None => Ok(written),
    }
}

/// What a stage says whose reader is gone: never the cause.
const HUNG_UP: &str = "the next stage has ended";

/// Percent and MiB/s.
fn figures(bytes: u64, of: u64, after: Duration) -> (u8, f64) {
    let percent = bytes.saturating_mul(100).checked_div(of).unwrap_or(0).min(100);
    // Whole KiB fit an f64 exactly up to 8 EiB.
    let mib = f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
    (u8::try_from(percent).unwrap_or(100), mib / after.as_secs_f64().max(0.001))
}

/// Sends the whole file on, continuing where a connection broke.
fn fetch(
    source: &dyn Source,
    size: u64,
    next: &SyncSender<Vec<u8>>,
    counter: &AtomicU64,
) -> Result<Hasher, Fault> {
    let mut hasher = Hasher::new();
    let mut offset = 0;
    let mut fruitless = 0;
    while offset < size {
        let before = offset;
        let outcome = fetch_on(source, size, &mut offset, &mut hasher, next, counter);
        fruitless = if offset > before { 0 } else { fruitless + 1 };
        match outcome {
            Err(fault) if fruitless >= ATTEMPTS || fault.to_string() == HUNG_UP => return Err(fault),
            Ok(()) if fruitless >= ATTEMPTS => {
                return Err(Fault::new(format!("the download ends after {offset} of {size} bytes")));
            }
            Err(_) | Ok(()) if offset < size => thread::sleep(PAUSE * fruitless),
            _ => {}
        }
    }
    Ok(hasher)
}

fn fetch_on(
    source: &dyn Source,
    size: u64,
    offset: &mut u64,
    hasher: &mut Hasher,
    next: &SyncSender<Vec<u8>>,
    counter: &AtomicU64,
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
        counter.store(*offset, Ordering::Relaxed);
        next.send(piece).map_err(|_| Fault::new(HUNG_UP))?;
        outcome.doing(|| format!("downloading from byte {offset}"))?;
    }
}

fn decompress(pieces: Receiver<Vec<u8>>, next: &SyncSender<Vec<u8>>) -> Result<(), Fault> {
    let mut decoder = zstd::Decoder::new(Pieces::new(pieces)).doing(|| "decompressing the layer")?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        decoder.by_ref().take(PIECE as u64).read_to_end(&mut piece).doing(|| "decompressing the layer")?;
        if piece.is_empty() {
            return Ok(());
        }
        next.send(piece).map_err(|_| Fault::new(HUNG_UP))?;
    }
}

/// The pieces of a channel as one stream; ends when the sender is gone.
struct Pieces {
    from: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
}

impl Pieces {
    fn new(from: Receiver<Vec<u8>>) -> Self {
        Self { from, piece: Vec::new(), position: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.piece.len() {
            let Ok(piece) = self.from.recv() else { return Ok(0) };
            self.piece = piece;
            self.position = 0;
        }
        let count = out.len().min(self.piece.len() - self.position);
        out[..count].copy_from_slice(&self.piece[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
