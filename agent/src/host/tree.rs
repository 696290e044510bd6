//! Copies a directory tree with owners and modes; adds what another tree has and this one lacks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

/// Copies a tree: directories, files and symbolic links. Sockets, pipes and devices are left out.
///
/// # Errors
/// The disk is full, most likely.
pub fn copy(from: &Path, to: &Path) -> Result<(), Fault> {
    walk(from, to, true)
}

/// Adds the directories and symbolic links that a tree lacks; files are left out, for a file that is not there may
/// have been removed on purpose.
///
/// # Errors
/// The disk is full, most likely.
pub fn add_missing(from: &Path, to: &Path) -> Result<(), Fault> {
    walk(from, to, false)
}

fn walk(from: &Path, to: &Path, files: bool) -> Result<(), Fault> {
    let doing = || format!("copying {} to {}", from.display(), to.display());
    let meta = fs::symlink_metadata(from).doing(doing)?;
    let there = fs::symlink_metadata(to).ok();
    if meta.is_symlink() {
        if there.is_none() {
            symlink(fs::read_link(from).doing(doing)?, to).doing(doing)?;
            lchown(to, Some(meta.uid()), Some(meta.gid())).doing(doing)?;
        }
        return Ok(());
    }
    if meta.is_file() && files {
        fs::copy(from, to).doing(doing)?;
    } else if meta.is_dir() {
        match &there {
            None => fs::create_dir(to).doing(doing)?,
            Some(there) if there.is_dir() => {}
            // Somebody has put something else there, a link to a larger disk perhaps.
            Some(_) => return Ok(()),
        }
        for entry in fs::read_dir(from).doing(doing)? {
            let name = entry.doing(doing)?.file_name();
            walk(&from.join(&name), &to.join(&name), files)?;
        }
    } else {
        return Ok(());
    }
    if there.is_none() {
        lchown(to, Some(meta.uid()), Some(meta.gid())).doing(doing)?;
        // Behind the change of owner, which takes set-user-ID bits away.
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777)).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_is_copied_and_later_completed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("lib/private")).unwrap();
        fs::set_permissions(from.join("lib/private"), fs::Permissions::from_mode(0o2700)).unwrap();
        fs::write(from.join("lib/file"), "x").unwrap();
        fs::set_permissions(from.join("lib/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("/run", from.join("run")).unwrap();
        copy(&from, &to).unwrap();
        let mode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("lib/private"), mode("lib/file")), (0o2700, 0o4750));
        assert_eq!(fs::read_link(to.join("run")).unwrap(), Path::new("/run"));

        fs::remove_file(to.join("lib/file")).unwrap();
        fs::remove_file(to.join("run")).unwrap();
        fs::remove_dir(to.join("lib/private")).unwrap();
        symlink("elsewhere", to.join("lib/private")).unwrap();
        fs::create_dir(from.join("cache")).unwrap();
        add_missing(&from, &to).unwrap();
        assert!(
            to.join("cache").is_dir() && to.join("run").is_symlink() && to.join("lib/private").is_symlink()
        );
        assert!(!to.join("lib/file").exists());
    }
}
