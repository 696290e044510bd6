//! The site partition: the site directory with its lock, and what the boot loader must know of it.

use std::fs::File;
use std::io::{Cursor, Read as _};

use gatehouse_disk::{FatFile, Part, replace_fat};
use gatehouse_model::site::{BOOT_CFG, InstallTo, boot_cfg};
use gatehouse_model::{Doing as _, Fault, Lock, Problem, Site};

use super::SECTOR;
use crate::site_dir::SiteDir;

/// The lock beside the site directory.
pub const LOCK: &str = "site.lock";

/// A file: its path and what is in it.
pub type Content = (String, Vec<u8>);

/// Several sites are directories in this one.
pub const SITES: &str = "sites/";

/// The partition's files for one site, sorted by path.
///
/// # Errors
/// A file cannot be read, or has a name that is taken.
pub fn files(dir: &SiteDir, site: &Site, lock: &Lock) -> Result<Vec<Content>, Fault> {
    let mut files = of_directory(dir)?;
    files.push((BOOT_CFG.to_owned(), boot_cfg(Some(site), site.install.to).into_bytes()));
    files.push((LOCK.to_owned(), lock.to_text().into_bytes()));
    files.sort();
    Ok(files)
}

/// A site directory's own files, without its lock.
///
/// # Errors
/// A file cannot be read, or has a name that is taken.
pub fn of_directory(dir: &SiteDir) -> Result<Vec<Content>, Fault> {
    let mut files = Vec::new();
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
    Ok(files)
}

/// The same files for a medium on which nobody says where to install to: there `to` is meant.
///
/// # Errors
/// Problems of the only site's site.toml.
pub fn with_boot(mut files: Vec<Content>, to: InstallTo) -> Result<Vec<Content>, Fault> {
    let one = files.iter().find(|(path, _)| path == "site.toml");
    let site = one.map(|(_, bytes)| Site::parse(&String::from_utf8_lossy(bytes))).transpose();
    let site = site.map_err(Fault::of_problems)?;
    let to = site.as_ref().and_then(|site| site.install.to).unwrap_or(to);
    files.retain(|(path, _)| path != BOOT_CFG);
    files.push((BOOT_CFG.to_owned(), boot_cfg(site.as_ref(), Some(to)).into_bytes()));
    Ok(files)
}

/// The bytes of the partition with these files instead of those that it has; its label and serial number stay.
///
/// # Errors
/// The image cannot be read; the files do not fit.
pub fn filesystem(image: &mut File, part: &Part, epoch: u64, files: Vec<Content>) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    part.window(&mut *image, SECTOR).read_to_end(&mut bytes).doing(|| format!("reading {part}"))?;
    let mut window = Cursor::new(bytes);
    replace_fat(&mut window, epoch, fat_files(files)).doing(|| format!("making {part}"))?;
    Ok(window.into_inner())
}

/// The same as a FAT takes it.
pub fn fat_files(files: Vec<Content>) -> Vec<FatFile<'static>> {
    files.into_iter().map(|(name, bytes)| FatFile::bytes(name, bytes)).collect()
}
