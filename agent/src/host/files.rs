//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

/// Writes a file so that a reader, or a machine that lost power, sees the old contents or the new.
///
/// # Errors
/// The disk is full, most likely; the old contents are then untouched.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let doing = || format!("writing {}", path.display());
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).doing(doing)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = dir.join(format!(".{name}.partial"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial).doing(doing)?;
    file.write_all(bytes).doing(doing)?;
    // The mode given at creation passes through the umask.
    file.set_permissions(fs::Permissions::from_mode(mode)).doing(doing)?;
    file.sync_all().doing(doing)?;
    fs::rename(&partial, path).doing(doing)?;
    File::open(dir).and_then(|dir| dir.sync_all()).doing(doing)
}
