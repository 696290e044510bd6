//! The outer container of a .deb: the common `ar` format, read as a stream.

use std::io::{self, Read};

use gatehouse_model::{Doing, Fault};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Reads members in order; the current one is read by reading this.
#[derive(Debug)]
pub struct Ar<R> {
    reader: R,
    /// Bytes from here to the next header, padding included.
    left: u64,
    /// Bytes of the current member not read yet.
    member: u64,
}

/// Name and size of a member.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub size: u64,
}

impl<R: Read> Ar<R> {
    /// Checks the magic at the start.
    pub fn new(mut reader: R) -> Result<Self, Fault> {
        let mut magic = [0; 8];
        reader.read_exact(&mut magic).doing(|| "reading the archive's start")?;
        if &magic != MAGIC {
            return Err(Fault::new("it is not a Debian package: the archive's magic is missing"));
        }
        Ok(Self { reader, left: 0, member: 0 })
    }

    /// Goes to the next member; `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Member>, Fault> {
        let skipped = io::copy(&mut self.reader.by_ref().take(self.left), &mut io::sink())?;
        // The padding of the last member may be missing.
        if skipped < self.left && self.left - skipped > 1 {
            return Err(Fault::new("the archive ends in the middle of a member"));
        }
        let mut header = Vec::with_capacity(HEADER);
        self.reader.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        if header.is_empty() {
            (self.left, self.member) = (0, 0);
            return Ok(None);
        }
        let member = parse(&header).ok_or_else(|| Fault::new("a member's header is damaged"))?;
        self.member = member.size;
        self.left = member.size + member.size % 2;
        Ok(Some(member))
    }
}

impl<R: Read> Read for Ar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.member).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the package's file ends too early"));
        }
        self.member -= count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn parse(header: &[u8]) -> Option<Member> {
    if header.len() < HEADER || &header[58..] != b"`\n" {
        return None;
    }
    let name = std::str::from_utf8(&header[..16]).ok()?.trim_end().trim_end_matches('/').to_owned();
    let size = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
    Some(Member { name, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut out =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, data.len()).into_bytes();
        out.extend_from_slice(data);
        out.resize(out.len() + data.len() % 2, b'\n');
        out
    }

    #[test]
    fn reads_members_and_skips_what_was_left_unread() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(member("one", b"abc"));
        bytes.extend(member("two/", b"wxyz"));
        let mut ar = Ar::new(bytes.as_slice()).unwrap();
        assert_eq!(ar.next().unwrap(), Some(Member { name: "one".to_owned(), size: 3 }));
        assert_eq!(ar.next().unwrap(), Some(Member { name: "two".to_owned(), size: 4 }));
        let mut text = String::new();
        ar.read_to_string(&mut text).unwrap();
        assert_eq!(text, "wxyz");
        assert_eq!(ar.next().unwrap(), None);
    }

    #[test]
    fn damage_is_seen() {
        assert!(Ar::new(&b"!<arch>"[..]).is_err());
        assert!(Ar::new(&b"PK......"[..]).is_err());
        let mut bytes = MAGIC.to_vec();
        bytes.extend(member("one", b"abcdef"));
        bytes.truncate(bytes.len() - 2);
        let mut ar = Ar::new(bytes.as_slice()).unwrap();
        assert!(ar.next().unwrap().is_some());
        assert!(ar.read_to_end(&mut Vec::new()).is_err());
        bytes.truncate(20);
        assert!(Ar::new(bytes.as_slice()).unwrap().next().is_err());
    }
}
