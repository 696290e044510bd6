//! The site partition: the site directory with its lock, and what the boot loader must know of it.

use gatehouse_disk::FatFile;
use gatehouse_model::site::{BOOT_CFG, boot_cfg};
use gatehouse_model::{Fault, Lock, Problem, Site};

use crate::site_dir::SiteDir;

/// The lock beside the site directory.
pub const LOCK: &str = "site.lock";

/// A file: its path and what is in it.
pub type Content = (String, Vec<u8>);

/// The partition's files, sorted by path.
///
/// # Errors
/// A file cannot be read, or has a name that is taken.
pub fn files(dir: &SiteDir, site: &Site, lock: &Lock) -> Result<Vec<Content>, Fault> {
    let mut files = vec![
        (BOOT_CFG.to_owned(), boot_cfg(Some(site), site.install.to).into_bytes()),
        (LOCK.to_owned(), lock.to_text().into_bytes()),
    ];
    for name in dir.files()? {
        if name.eq_ignore_ascii_case(BOOT_CFG) {
            let what = "has the name of a file that the builder makes; rename or remove it";
            return Err(Fault::of_problems(vec![Problem::at(name, 0, what)]));
        }
        if name != LOCK {
            let bytes = dir.content(&name)?;
            files.push((name, bytes));
        }
    }
    files.sort();
    Ok(files)
}

/// The same as a FAT takes it.
pub fn fat_files(files: Vec<Content>) -> Vec<FatFile<'static>> {
    files.into_iter().map(|(name, bytes)| FatFile::bytes(name, bytes)).collect()
}
