//! Bytes from a medium to a disk, verified on the way, with how far and how fast.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault, FileRef};

use crate::node::download::{HUNG_UP, Source, fetch};

/// How often progress is told: a serial console takes its time for each line.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How many pieces wait between who reads and who writes.
const WAITING: usize = 8;

/// Copies a piece to a place on a disk. What was written by then is of no use if this fails.
///
/// # Errors
/// The medium cannot be read, its bytes are not those of its list, or the disk cannot be written.
pub fn onto(
    source: &dyn Source,
    piece: &FileRef,
    disk: &File,
    start: u64,
    told: &mut dyn FnMut(u64),
) -> Result<(), Fault> {
    let mut at = 0;
    let result = fetch(source, piece, &mut |bytes| {
        disk.write_all_at(&bytes, start + at).doing(|| "writing to the disk")?;
        at += bytes.len() as u64;
        told(at);
        Ok(())
    });
    result.doing(|| format!("copying {}", piece.path))?;
    disk.sync_data().doing(|| "writing to the disk")
}

/// A small piece, whole.
///
/// # Errors
/// As [`onto`].
pub fn whole(source: &dyn Source, piece: &FileRef) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    fetch(source, piece, &mut |bytes| {
        all.extend_from_slice(&bytes);
        Ok(())
    })?;
    Ok(all)
}

/// A piece as a stream for those who read themselves; it ends with an error if its digest is wrong.
pub fn stream(source: Box<dyn Source>, piece: FileRef) -> impl Read {
    let (sender, from) = sync_channel(WAITING);
    thread::spawn(move || {
        let result =
            fetch(&*source, &piece, &mut |bytes| sender.send(Ok(bytes)).map_err(|_| Fault::new(HUNG_UP)));
        if let Err(fault) = result {
            // Nobody reads any more, or is told why.
            let _ = sender.send(Err(fault));
        }
    });
    Stream { from, piece: Vec::new(), position: 0 }
}

/// Pieces of a channel as one stream; ends when the sender is gone.
struct Stream {
    from: Receiver<Result<Vec<u8>, Fault>>,
    piece: Vec<u8>,
    position: usize,
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.piece.len() {
            let Ok(next) = self.from.recv() else { return Ok(0) };
            self.piece = next.map_err(|fault| io::Error::other(fault.to_string()))?;
            self.position = 0;
        }
        let count = out.len().min(self.piece.len() - self.position);
        out[..count].copy_from_slice(&self.piece[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// How far a copy is, said from time to time.
#[derive(Debug)]
pub struct Pace {
    size: u64,
    begun: Instant,
    told: Instant,
}

impl Pace {
    /// A copy of so many bytes begins now.
    pub fn new(size: u64) -> Self {
        let now = Instant::now();
        Self { size, begun: now, told: now }
    }

    /// Percent, rate and time left, if it is time to say so.
    pub fn after(&mut self, bytes: u64) -> Option<(u8, String)> {
        if self.told.elapsed() < TELL_EVERY {
            return None;
        }
        self.told = Instant::now();
        Some(figures(bytes, self.size, self.begun.elapsed()))
    }
}

/// Percent, and a text such as `120 MiB of 1200, 17 MiB/s, 64 s left`.
fn figures(bytes: u64, of: u64, after: Duration) -> (u8, String) {
    let percent = bytes.saturating_mul(100).checked_div(of).unwrap_or(100).min(100);
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = (bytes / millis).max(1);
    let left = of.saturating_sub(bytes) / rate / 1000;
    let text = format!(
        "{} MiB of {}, {} MiB/s, {left} s left",
        bytes >> 20,
        of >> 20,
        (bytes.saturating_mul(1000) / millis) >> 20
    );
    (u8::try_from(percent).unwrap_or(100), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatehouse_model::Digest;
    use std::io::Cursor;

    struct Broken(Vec<u8>);

    /// Gives at most 100 bytes each time it is opened.
    impl Source for Broken {
        fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
            let from = usize::try_from(from).unwrap();
            let end = self.0.len().min(from + 100);
            Ok(Box::new(Cursor::new(self.0[from..end].to_vec())))
        }
    }

    fn piece(bytes: &[u8]) -> FileRef {
        FileRef { path: "x".into(), size: bytes.len() as u64, sha256: Digest::of(bytes) }
    }

    #[test]
    fn a_stream_goes_on_where_it_broke_and_ends_with_an_error_if_it_lied() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut read = Vec::new();
        stream(Box::new(Broken(bytes.clone())), piece(&bytes)).read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(whole(&Broken(bytes.clone()), &piece(&bytes)).unwrap(), bytes);
        let mut wrong = piece(&bytes);
        wrong.sha256 = Digest::of(b"");
        let error = stream(Box::new(Broken(bytes)), wrong).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
    }

    #[test]
    fn figures_are_for_people() {
        let told = figures(300 << 20, 1200 << 20, Duration::from_secs(10));
        assert_eq!(told, (25, "300 MiB of 1200, 30 MiB/s, 30 s left".to_owned()));
        assert_eq!(figures(0, 0, Duration::ZERO).0, 100);
    }
}
