//! Writes cpio archives in the `newc` form (the kernel's initramfs format, buffer-format.rst), compressed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use super::tree::{Entry, Kind};

/// Compression of initramfs archives; the kernel's own decoder takes any level up to 19.
const LEVEL: i32 = 12;

/// Writes entries of a tree; hard links become files of their own, since the kernel asks for link counts
/// that a filtered tree no longer has.
pub fn write<'a>(
    root: &Path,
    entries: impl Iterator<Item = &'a Entry>,
    epoch: u64,
    to: &Path,
) -> Result<(), Fault> {
    let doing = || format!("writing {}", to.display());
    let mut out = zstd::Encoder::new(File::create(to).doing(doing)?, LEVEL).doing(doing)?;
    out.multithread(2).doing(doing)?;
    for (inode, entry) in (1..).zip(entries.filter(|entry| entry.kind != Kind::Other)) {
        let path = root.join(&entry.name);
        let (kind, body) = match &entry.kind {
            Kind::Dir | Kind::Other => (0o040_000, Vec::new()),
            Kind::Symlink(target) => (0o120_000, target.as_os_str().as_bytes().to_vec()),
            Kind::File | Kind::Link(_) => {
                (0o100_000, fs::read(&path).doing(|| format!("reading {}", path.display()))?)
            }
        };
        let head = Head { name: &entry.name, mode: kind | entry.mode, uid: entry.uid, gid: entry.gid, inode };
        member(&mut out, &head, entry.mtime.min(epoch), &body).doing(doing)?;
    }
    let end = Head { name: "TRAILER!!!", mode: 0, uid: 0, gid: 0, inode: 0 };
    member(&mut out, &end, 0, &[]).doing(doing)?;
    out.finish().and_then(|file| file.sync_all()).doing(doing)
}

struct Head<'a> {
    name: &'a str,
    mode: u32,
    uid: u32,
    gid: u32,
    inode: u32,
}

fn member(out: &mut impl Write, head: &Head<'_>, mtime: u64, body: &[u8]) -> io::Result<()> {
    let too_large = |_| io::Error::other(format!("{} is too large for an initramfs", head.name));
    let size = u32::try_from(body.len()).map_err(too_large)?;
    let mtime = u32::try_from(mtime).unwrap_or(u32::MAX);
    let name_size = u32::try_from(head.name.len() + 1).map_err(too_large)?;
    let fields = [head.inode, head.mode, head.uid, head.gid, 1, mtime, size, 0, 0, 0, 0, name_size, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(head.name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, 110 + head.name.len() + 1)?;
    out.write_all(body)?;
    pad(out, body.len())
}

fn pad(out: &mut impl Write, length: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..(4 - length % 4) % 4])
}
