//! Streams a layer from the server onto the new root: fetch and digest, decompress, unpack, each in a thread of
//! its own, so that network, processor and disk work at the same time and nothing is held in memory.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault, Layer};

use crate::node::download::{HUNG_UP, PIECE, Source, fetch};
use crate::node::unpack::{Unpacked, unpack};

/// How many pieces may wait between two threads.
const WAITING: usize = 8;
/// How often progress is told. Each time passes a console, TLS and the board, which costs an emulated machine a
/// tenth of a second.
pub const TELL_EVERY: Duration = Duration::from_secs(3);

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
        fetch(&source, &file, &mut |piece| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            raw_in.send(piece).map_err(|_| Fault::new(HUNG_UP))
        })
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

/// Percent and MiB/s.
fn figures(bytes: u64, of: u64, after: Duration) -> (u8, f64) {
    let percent = bytes.saturating_mul(100).checked_div(of).unwrap_or(0).min(100);
    // Whole KiB fit an f64 exactly up to 8 EiB.
    let mib = f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
    (u8::try_from(percent).unwrap_or(100), mib / after.as_secs_f64().max(0.001))
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
