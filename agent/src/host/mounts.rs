//! Mounts that may be asked for twice.

use std::fs;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether something is mounted on a directory.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn is_mounted(at: &Path) -> Result<bool, Fault> {
    let text = fs::read_to_string("/proc/self/mountinfo").doing(|| "reading /proc/self/mountinfo")?;
    Ok(lists(&text, &at.to_string_lossy()))
}

/// The fifth word of a line is the mount point, with octal escapes for blanks and backslashes.
fn lists(mountinfo: &str, at: &str) -> bool {
    let escaped = at.replace('\\', "\\134").replace(' ', "\\040");
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some(escaped.as_str()))
}

/// Mounts a filesystem, if nothing is mounted there.
///
/// # Errors
/// The kernel's own words.
pub fn mount_once(kind: &str, source: &str, at: &Path, flags: MsFlags, data: &str) -> Result<(), Fault> {
    fs::create_dir_all(at).doing(|| format!("making {}", at.display()))?;
    if is_mounted(at)? {
        return Ok(());
    }
    let data = (!data.is_empty()).then_some(data);
    mount(Some(source), at, Some(kind), flags, data)
        .doing(|| format!("mounting {source} ({kind}) on {}", at.display()))
}

/// Shows a directory at a second place, if nothing is mounted there.
///
/// # Errors
/// The kernel's own words.
pub fn bind_once(from: &Path, at: &Path) -> Result<(), Fault> {
    if is_mounted(at)? {
        return Ok(());
    }
    mount(Some(from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing(|| format!("binding {} to {}", from.display(), at.display()))
}

/// Unmounts what is mounted on a directory, if anything is.
///
/// # Errors
/// It is in use.
pub fn unmount(at: &Path) -> Result<(), Fault> {
    if is_mounted(at)? {
        umount2(at, MntFlags::empty()).doing(|| format!("unmounting {}", at.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_whole_words() {
        let text = "22 1 0:20 / /proc rw - proc proc rw\n23 1 254:8 / /root/a\\040b rw - ext4 /dev/vda8 rw\n";
        assert!(lists(text, "/proc"));
        assert!(lists(text, "/root/a b"));
        assert!(!lists(text, "/root"));
        assert!(is_mounted(Path::new("/proc")).unwrap());
    }
}
