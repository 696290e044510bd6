//! A tree on disk as a sorted list of entries, in which only what belongs to the tree shows.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file with contents.
    File,
    /// The same file as an earlier entry.
    Link(String),
    /// A symbolic link.
    Symlink(PathBuf),
    /// A device or pipe; never in a package, made by no script that we know.
    Other,
}

/// One entry of a tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path relative to the tree, without a leading slash.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-id and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change, at most the epoch.
    pub mtime: u64,
    /// Size in bytes; 0 for what has no contents.
    pub size: u64,
}

/// Every entry below a directory, sorted by path (a directory before what is in it).
///
/// # Errors
/// A directory cannot be read, or a name is not UTF-8.
pub fn walk(root: &Path, epoch: u64) -> Result<Vec<Entry>, Fault> {
    let mut names = Vec::new();
    collect(root, "", &mut names)?;
    names.sort();
    let mut seen = BTreeMap::new();
    names.into_iter().map(|name| entry(root, name, epoch, &mut seen)).collect()
}

fn collect(dir: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), Fault> {
    for item in fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))? {
        let item = item.doing(|| format!("reading {}", dir.display()))?;
        let name = item.file_name().into_string().map_err(|name| {
            Fault::new(format!("{} holds a name that is not UTF-8: {}", dir.display(), name.display()))
        })?;
        let full = format!("{prefix}{name}");
        if item.file_type().doing(|| format!("reading {}", dir.display()))?.is_dir() {
            collect(&item.path(), &format!("{full}/"), names)?;
        }
        names.push(full);
    }
    Ok(())
}

fn entry(
    root: &Path,
    name: String,
    epoch: u64,
    seen: &mut BTreeMap<(u64, u64), String>,
) -> Result<Entry, Fault> {
    let path = root.join(&name);
    let meta = fs::symlink_metadata(&path).doing(|| format!("reading {}", path.display()))?;
    let kind = kind(&path, &meta, &name, seen)?;
    let size = if kind == Kind::File { meta.len() } else { 0 };
    let mtime = u64::try_from(meta.mtime()).unwrap_or(0).min(epoch);
    Ok(Entry { name, kind, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), mtime, size })
}

fn kind(
    path: &Path,
    meta: &Metadata,
    name: &str,
    seen: &mut BTreeMap<(u64, u64), String>,
) -> Result<Kind, Fault> {
    let file_type = meta.file_type();
    if file_type.is_dir() {
        return Ok(Kind::Dir);
    }
    if file_type.is_symlink() {
        return Ok(Kind::Symlink(fs::read_link(path).doing(|| format!("reading {}", path.display()))?));
    }
    if file_type.is_fifo() || file_type.is_socket() || !file_type.is_file() {
        return Ok(Kind::Other);
    }
    if meta.nlink() > 1 {
        if let Some(first) = seen.get(&(meta.dev(), meta.ino())) {
            return Ok(Kind::Link(first.clone()));
        }
        seen.insert((meta.dev(), meta.ino()), name.to_owned());
    }
    Ok(Kind::File)
}
