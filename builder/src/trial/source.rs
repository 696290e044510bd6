//! What is tried: a site directory, or the directory of a built image with the site that is in it.

use std::path::{Path, PathBuf};

use gatehouse_model::{Fault, Lock, Problem, Site};

use crate::cli::Global;
use crate::commands::{Prepared, prepare};
use crate::image::{self, Content};

/// A site to try, wherever it was found.
#[derive(Debug)]
pub struct Source {
    /// What its `site.toml` says.
    pub site: Site,
    /// Its lock.
    pub lock: Lock,
    /// The files of the site directory without the lock, sorted by path.
    pub files: Vec<Content>,
    /// Where it was found.
    pub given: Given,
}

/// Where a site was found.
#[derive(Debug)]
pub enum Given {
    /// In a site directory: roots and images can be made of it.
    Directory(Box<Prepared>),
    /// In a built image, in this directory.
    Image(PathBuf),
}

impl Source {
    /// Opens a site directory, which is locked and whose packages are fetched, or a built image's directory.
    ///
    /// # Errors
    /// It is neither; problems of the site; faults of apt or of the mirror.
    pub fn open(global: &Global, path: &Path) -> Result<Self, Fault> {
        if !path.join("site.toml").is_file() && path.join(image::IMAGE).is_file() {
            return Self::of_image(path);
        }
        let prepared = prepare(global, path)?;
        let mut files = Vec::new();
        for name in prepared.dir.files()? {
            let bytes = prepared.dir.content(&name)?;
            files.push((name, bytes));
        }
        files.retain(|(name, _)| name != image::LOCK);
        let (site, lock) = (prepared.site.clone(), prepared.lock.clone());
        Ok(Self { site, lock, files, given: Given::Directory(Box::new(prepared)) })
    }

    fn of_image(out: &Path) -> Result<Self, Fault> {
        let mut files = image::site_of(&out.join(image::IMAGE))?;
        let text = |name: &str, files: &[Content]| {
            let missing = || vec![Problem::at(name, 0, "is missing from the image's site partition")];
            let found = files.iter().find(|(path, _)| path == name);
            let (_, bytes) = found.ok_or_else(missing).map_err(Fault::of_problems)?;
            Ok::<_, Fault>(String::from_utf8_lossy(bytes).into_owned())
        };
        let site = Site::parse(&text("site.toml", &files)?).map_err(Fault::of_problems)?;
        let lock = Lock::parse(&text(image::LOCK, &files)?).map_err(Fault::of_problems)?;
        files.retain(|(name, _)| name != image::LOCK && name != gatehouse_model::site::BOOT_CFG);
        Ok(Self { site, lock, files, given: Given::Image(out.to_owned()) })
    }
}
