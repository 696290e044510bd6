//! A slice of a device with hard edges, and a file whose `flush` reaches the disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// The bytes `[start, start + len)` of a device, as a device of their own.
///
/// Reading past the end is end of file. A write that would pass the end writes nothing and names the window.
/// Every access seeks first, so the device's own position does not matter.
#[derive(Debug)]
pub struct Window<D> {
    device: D,
    name: String,
    start: u64,
    len: u64,
    position: u64,
}

impl<D> Window<D> {
    /// Opens a window; `name` is what errors call it, such as `partition 2 (gh-esp)`.
    pub fn new(device: D, name: impl Into<String>, start: u64, len: u64) -> Self {
        Self { device, name: name.into(), start, len, position: 0 }
    }

    /// The number of bytes in the window.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the window has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name that errors use.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn left(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    fn device_position(&self) -> io::Result<u64> {
        self.start.checked_add(self.position).ok_or_else(|| self.beyond("a position"))
    }

    fn beyond(&self, what: &str) -> io::Error {
        let Self { name, len, position, .. } = self;
        io::Error::other(format!(
            "{what} at byte {position} lies beyond the end of {name}, which has {len} bytes"
        ))
    }
}

impl<D: Read + Seek> Read for Window<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let take = usize::try_from(self.left()).map_or(buffer.len(), |left| left.min(buffer.len()));
        if take == 0 {
            return Ok(0);
        }
        self.device.seek(SeekFrom::Start(self.device_position()?))?;
        let read = self.device.read(&mut buffer[..take])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl<D: Write + Seek> Write for Window<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left() {
            return Err(self.beyond(&format!("a write of {} bytes", bytes.len())));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        self.device.seek(SeekFrom::Start(self.device_position()?))?;
        let written = self.device.write(bytes)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }
}

impl<D> Seek for Window<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("a seek before the start of {}", self.name))
        })?;
        Ok(self.position)
    }
}

/// A file or block device whose `flush` waits until the bytes are on the disk.
///
/// `write_table` flushes between its steps; through this they stay in order also when the power fails.
#[derive(Debug)]
pub struct Synced<'a>(pub &'a File);

impl Read for Synced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Synced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Seek for Synced<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn reads_end_and_writes_fail_at_the_edge() {
        let mut disk = Cursor::new((0..16).collect::<Vec<u8>>());
        let mut window = Window::new(&mut disk, "partition 1 (gh-site)", 4, 8);
        let mut all = Vec::new();
        window.read_to_end(&mut all).unwrap();
        assert_eq!(all, (4..12).collect::<Vec<u8>>());

        window.seek(SeekFrom::End(-2)).unwrap();
        let error = window.write_all(&[0; 3]).unwrap_err().to_string();
        assert_eq!(
            error,
            "a write of 3 bytes at byte 6 lies beyond the end of partition 1 (gh-site), which has 8 bytes"
        );
        window.write_all(&[77; 2]).unwrap();
        assert!(window.seek(SeekFrom::Current(-9)).is_err());
        window.seek(SeekFrom::Start(20)).unwrap();
        assert_eq!(window.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(disk.get_ref()[9..13], [9, 77, 77, 12]);
    }
}
