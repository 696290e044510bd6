//! Writes small files so that a power cut leaves the old or the new one, never a part.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

/// Replaces a file's contents at once; the new file has exactly this mode, whatever the umask would add.
pub(super) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Fault> {
    replace_io(path, mode, bytes).doing(|| format!("writing {}", path.display()))
}

fn replace_io(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut partial = OsString::from(path);
    partial.push(".partial");
    // One left by a power cut may have any mode: the new one must be created with its own.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Makes a directory and those above it, for this user alone.
pub(super) fn private_dir(path: &Path) -> Result<(), Fault> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).doing(|| format!("making {}", path.display()))
}

/// A file's text; none where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, Fault> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
    }
}
