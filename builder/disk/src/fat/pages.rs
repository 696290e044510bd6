//! A write-back cache, because the FAT crate reads and writes four bytes at a time.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::Device;

const PAGE: u64 = 64 << 10;
const MOST_PAGES: usize = 256;

fn small(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a count within a page is at most 64 KiB")
}

struct Page {
    bytes: Vec<u8>,
    dirty: bool,
    used: u64,
}

/// A device behind a cache of 16 MiB. Nothing is sure to be written before `finish`; `flush` does nothing.
pub struct Pages<D> {
    device: D,
    len: u64,
    position: u64,
    cached: BTreeMap<u64, Page>,
    clock: u64,
}

impl<D: Device> Pages<D> {
    /// Starts with an empty cache.
    pub fn new(mut device: D) -> io::Result<Self> {
        let len = device.seek(SeekFrom::End(0))?;
        Ok(Self { device, len, position: 0, cached: BTreeMap::new(), clock: 0 })
    }

    /// Writes what is not written yet, in the order of the device.
    pub fn finish(mut self) -> io::Result<()> {
        for (number, page) in std::mem::take(&mut self.cached) {
            self.store(number, &page)?;
        }
        self.device.flush()
    }

    fn store(&mut self, number: u64, page: &Page) -> io::Result<()> {
        if page.dirty {
            self.device.seek(SeekFrom::Start(number * PAGE))?;
            self.device.write_all(&page.bytes)?;
        }
        Ok(())
    }

    fn load(&mut self, number: u64) -> io::Result<Page> {
        if self.cached.len() >= MOST_PAGES {
            let oldest = self.cached.iter().min_by_key(|(_, page)| page.used).map(|(number, _)| *number);
            if let Some((number, page)) = oldest.and_then(|number| self.cached.remove_entry(&number)) {
                self.store(number, &page)?;
            }
        }
        let start = number * PAGE;
        let mut bytes = vec![0; small(PAGE.min(self.len - start))];
        self.device.seek(SeekFrom::Start(start))?;
        self.device.read_exact(&mut bytes)?;
        Ok(Page { bytes, dirty: false, used: 0 })
    }

    /// The rest of the page at the position, which moves on by the `wanted` bytes or to the page's end.
    fn at_position(&mut self, wanted: usize, write: bool) -> io::Result<&mut [u8]> {
        if self.position >= self.len {
            return Ok(&mut []);
        }
        let (number, offset) = (self.position / PAGE, small(self.position % PAGE));
        if !self.cached.contains_key(&number) {
            let page = self.load(number)?;
            self.cached.insert(number, page);
        }
        self.clock += 1;
        let page = self.cached.get_mut(&number).expect("the page was put there just now");
        page.used = self.clock;
        page.dirty |= write;
        let end = page.bytes.len().min(offset.saturating_add(wanted));
        self.position += (end - offset) as u64;
        Ok(&mut page.bytes[offset..end])
    }
}

impl<D: Device> Read for Pages<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.at_position(buffer.len(), false)?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl<D: Device> Write for Pages<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.at_position(bytes.len(), true)?;
        let take = room.len();
        room.copy_from_slice(&bytes[..take]);
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Device> Seek for Pages<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn more_than_the_cache_holds_is_written_and_read_back() {
        let size = (MOST_PAGES + 40) * small(PAGE) + 123;
        let mut disk = Cursor::new(vec![7; size]);
        let mut pages = Pages::new(&mut disk).unwrap();
        for at in (0..size - 2).step_by(30_000) {
            pages.seek(SeekFrom::Start(at as u64)).unwrap();
            pages.write_all(&at.to_le_bytes()[..3]).unwrap();
        }
        let mut bytes = [0; 3];
        pages.seek(SeekFrom::Start(30_000)).unwrap();
        pages.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0x30, 0x75, 0]);
        pages.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(pages.write(&[1]).unwrap(), 0);
        pages.finish().unwrap();
        let bytes = disk.into_inner();
        assert_eq!(bytes.len(), size);
        for at in (0..size - 2).step_by(30_000) {
            assert_eq!(bytes[at..at + 3], at.to_le_bytes()[..3]);
            assert_eq!(bytes.get(at + 3).copied().unwrap_or(7), 7);
        }
    }
}
