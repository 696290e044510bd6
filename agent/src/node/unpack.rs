//! Unpacks a layer's tar stream into a new root: numeric owners, all modes, links, device nodes, extended
//! attributes, and never outside that root.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, umask, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use tar::{Archive, Entry, EntryType};

use crate::host::sys;

/// Size of the pieces that file contents are copied in.
const PIECE: usize = 256 * 1024;

/// PAX records of extended attributes begin with this.
const XATTR: &str = "SCHILY.xattr.";

/// What has been unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// How many entries.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// A directory whose mode and date are set last: writing into it would change the date again, and its mode
/// might forbid the writing.
struct Directory {
    path: PathBuf,
    owner: Owner,
    mode: Mode,
    mtime: TimeSpec,
}

#[derive(Clone, Copy)]
struct Owner {
    uid: Option<Uid>,
    gid: Option<Gid>,
}

impl Owner {
    /// What is to be changed of something just made here: nearly all of it is root's already, and a system call
    /// costs a paravirtual machine dearly.
    fn of_new(self) -> Option<Self> {
        let root = self.uid.is_none_or(Uid::is_root) && self.gid.is_none_or(|gid| gid.as_raw() == 0);
        (!root).then_some(self)
    }
}

/// Puts entries below a root. Paths are opened beneath the root and through no symbolic link: a layer names
/// every file by its real place, and one that does not is refused.
struct Unpacker {
    root: OwnedFd,
    parent: Option<(PathBuf, OwnedFd)>,
    directories: Vec<Directory>,
    with_owners: bool,
    /// What a new file's mode lacks of what was asked for.
    umask: Mode,
    piece: Vec<u8>,
    done: Unpacked,
}

/// Unpacks a tar stream into an existing directory. As another user than root the owners are left out.
///
/// # Errors
/// A broken stream, an entry outside the root or already there, or what the file system says.
pub fn unpack(stream: impl Read, root: &Path) -> Result<Unpacked, Fault> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory =
        openat(AT_FDCWD, root, flags, Mode::empty()).doing(|| format!("opening {}", root.display()))?;
    let mut unpacker = Unpacker {
        root: directory,
        parent: None,
        directories: Vec::new(),
        with_owners: Uid::effective().is_root(),
        umask: umask_now(),
        piece: vec![0; PIECE],
        done: Unpacked::default(),
    };
    let mut archive = Archive::new(stream);
    for entry in archive.entries().doing(|| "reading the layer")? {
        let mut entry = entry.doing(|| "reading the layer")?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        unpacker.entry(&mut entry).doing(|| format!("unpacking {name}"))?;
    }
    unpacker.finish_directories()?;
    // The tar reader stops at the end mark; the rest (padding) must pass too, or its writer hangs.
    io::copy(&mut archive.into_inner(), &mut io::sink()).doing(|| "reading the layer to its end")?;
    Ok(unpacker.done)
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Fault> {
        let path = relative(&entry.path()?)?;
        self.done.entries += 1;
        let header = entry.header();
        let id =
            |number: u64| u32::try_from(number).map_err(|_| Fault::new("an owner's number is too large"));
        let owner = Owner {
            uid: self.with_owners.then_some(Uid::from_raw(id(header.uid()?)?)),
            gid: self.with_owners.then_some(Gid::from_raw(id(header.gid()?)?)),
        };
        let mode = Mode::from_bits_truncate(header.mode()?);
        let mtime = TimeSpec::new(i64::try_from(header.mtime()?)?, 0);
        let kind = header.entry_type();
        if kind == EntryType::Directory {
            return self.directory(path, owner, mode, mtime);
        }
        let Some(name) = path.file_name().map(PathBuf::from) else {
            return Err(Fault::new("the entry has no name"));
        };
        self.enter(path.parent().unwrap_or(Path::new("")))?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &name, owner, mode, mtime)
            }
            EntryType::Symlink => self.symlink(entry, &name, owner, mtime),
            EntryType::Link => self.hard_link(entry, &name),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.node(entry, &name, owner, mode, mtime)
            }
            other => Err(Fault::new(format!("entries of type {other:?} are not known"))),
        }
    }

    /// Opens the directory the next entry lies in; entries come directory by directory, so one is kept.
    fn enter(&mut self, directory: &Path) -> Result<(), Fault> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != directory) {
            let opened = self.open_beneath(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            self.parent = Some((directory.to_owned(), opened));
        }
        Ok(())
    }

    fn open_beneath(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Fault> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(&self.root, here, how).doing(|| format!("opening the directory {}", here.display()))
    }

    fn here(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, opened)| opened)
    }

    fn directory(&mut self, path: PathBuf, owner: Owner, mode: Mode, mtime: TimeSpec) -> Result<(), Fault> {
        if let Some(name) = path.file_name() {
            self.enter(path.parent().unwrap_or(Path::new("")))?;
            let outcome = mkdirat(self.here(), name, Mode::S_IRWXU);
            // Mount points of further file systems are there already.
            if outcome == Err(nix::Error::EEXIST) {
                let stat = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
                    return Err(Fault::new("something else is there already"));
                }
            } else {
                outcome?;
            }
        }
        self.directories.push(Directory { path, owner, mode, mtime });
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &Path,
        owner: Owner,
        mode: Mode,
        mtime: TimeSpec,
    ) -> Result<(), Fault> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let plain = mode & !(Mode::S_ISUID | Mode::S_ISGID | Mode::S_ISVTX);
        let mut file = File::from(openat(self.here(), name, flags, plain)?);
        loop {
            let count = entry.read(&mut self.piece)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.piece[..count])?;
            self.done.bytes += count as u64;
        }
        // Changing the owner clears setuid bits and file capabilities: owner first, then these.
        if let Some(owner) = owner.of_new() {
            fchown(&file, owner.uid, owner.gid)?;
        }
        if mode != plain || mode.intersects(self.umask) {
            fchmod(&file, mode)?;
        }
        self.attributes(entry, &file)?;
        Ok(futimens(&file, &mtime, &mtime)?)
    }

    fn attributes<R: Read>(&self, entry: &mut Entry<'_, R>, file: &File) -> Result<(), Fault> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
        for extension in extensions {
            let extension = extension?;
            let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR)) else { continue };
            // Only root may set these, and a layer is packed by root.
            if self.with_owners {
                sys::set_file_attribute(file.as_fd(), name, extension.value_bytes())
                    .doing(|| format!("setting the attribute {name}"))?;
            }
        }
        Ok(())
    }

    fn symlink<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        name: &Path,
        owner: Owner,
        mtime: TimeSpec,
    ) -> Result<(), Fault> {
        let target = entry.link_name()?.ok_or_else(|| Fault::new("the symbolic link has no target"))?;
        symlinkat(target.as_ref(), self.here(), name)?;
        if let Some(owner) = owner.of_new() {
            fchownat(self.here(), name, owner.uid, owner.gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(self.here(), name, &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?)
    }

    fn hard_link<R: Read>(&self, entry: &Entry<'_, R>, name: &Path) -> Result<(), Fault> {
        let target = entry.link_name()?.ok_or_else(|| Fault::new("the hard link has no target"))?;
        let target = relative(&target)?;
        let (Some(directory), Some(file)) = (target.parent(), target.file_name()) else {
            return Err(Fault::new("the hard link points at the root"));
        };
        let directory = self.open_beneath(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        linkat(&directory, file, self.here(), name, AtFlags::empty())
            .doing(|| format!("linking to {}", target.display()))
    }

    fn node<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        name: &Path,
        owner: Owner,
        mode: Mode,
        mtime: TimeSpec,
    ) -> Result<(), Fault> {
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Char => SFlag::S_IFCHR,
            EntryType::Block => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let major = header.device_major()?.unwrap_or(0);
        let minor = header.device_minor()?.unwrap_or(0);
        mknodat(self.here(), name, kind, mode, makedev(major.into(), minor.into()))?;
        fchownat(self.here(), name, owner.uid, owner.gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        nix::sys::stat::fchmodat(self.here(), name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        Ok(utimensat(self.here(), name, &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Owners, modes and dates of the directories, the deepest first as the archive lists them last.
    fn finish_directories(&mut self) -> Result<(), Fault> {
        self.parent = None;
        for directory in std::mem::take(&mut self.directories).into_iter().rev() {
            let Directory { path, owner, mode, mtime } = directory;
            let opened = self.open_beneath(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            fchown(&opened, owner.uid, owner.gid)
                .and_then(|()| fchmod(&opened, mode))
                .and_then(|()| futimens(&opened, &mtime, &mtime))
                .doing(|| format!("setting owner and mode of {}", path.display()))?;
        }
        Ok(())
    }
}

/// The process's mask; it can be asked for only by setting one.
fn umask_now() -> Mode {
    let now = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    umask(now);
    now
}

/// The path below the root: without a leading `./` or `/`, and never upwards.
fn relative(path: &Path) -> Result<PathBuf, Fault> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Fault::new(format!("the path {} leads out of the root", path.display())));
            }
        }
    }
    Ok(out)
}
