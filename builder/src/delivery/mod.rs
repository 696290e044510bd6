//! What a build delivered: looked at (`inspect`, `verify`), changed (`customize`), and put onto sticks (`write`).

pub mod customize;
mod device;
pub mod inspect;
pub mod verify;
pub mod write;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gatehouse_disk::{Health, Table, read_table};
use gatehouse_model::{Doing as _, Fault, ImageManifest, Problem};
use nix::fcntl::Flock;

use crate::image::netboot::PXE;
use crate::image::{IMAGE, MANIFEST, SECTOR, hold};

/// A built image, and the directory of files that it was delivered with.
#[derive(Debug)]
pub struct Delivery {
    /// The directory.
    pub dir: PathBuf,
    /// The image file.
    pub image: PathBuf,
    /// What the manifest beside it says; none where there is none.
    pub manifest: Option<ImageManifest>,
}

impl Delivery {
    /// Opens the directory of a build, or an image file wherever it lies.
    ///
    /// # Errors
    /// A problem if there is no image; the manifest cannot be read.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let (dir, image) = find(path)?;
        let manifest = manifest(&dir.join(MANIFEST))?;
        // A manifest tells of the image of its own name only, not of another that lies beside it.
        let manifest = manifest.filter(|manifest| image.file_name() == Some(manifest.image.path.as_ref()));
        Ok(Self { dir, image, manifest })
    }

    /// The same for somebody who changes it: nobody else does as long as the lock is held.
    ///
    /// # Errors
    /// As [`Delivery::open`]; another process builds into the directory or changes the image (exit 4).
    pub fn hold(path: &Path) -> Result<(Self, Flock<File>), Fault> {
        let (dir, image) = find(path)?;
        let held = hold(if is_built(&image) { &dir } else { &image })?;
        Ok((Self::open(path)?, held))
    }

    /// The `pxe/` that was built with the image, if it was.
    pub fn pxe(&self) -> Option<PathBuf> {
        let dir = self.dir.join(PXE);
        (is_built(&self.image) && dir.exists()).then_some(dir)
    }

    /// The time that files in the image are dated, in seconds since 1970; 1980, the first that a FAT knows, where no
    /// manifest tells.
    pub fn epoch(&self) -> u64 {
        const FIRST_OF_FAT: u64 = 315_532_800;
        self.manifest.as_ref().map_or(FIRST_OF_FAT, |manifest| manifest.epoch)
    }

    /// The image's partition table.
    ///
    /// # Errors
    /// It cannot be read, or the image has none.
    pub fn table(&self) -> Result<Table, Fault> {
        let doing = || format!("reading {}", self.image.display());
        let mut file = File::open(&self.image).doing(doing)?;
        let table = read_table(&mut file, SECTOR).doing(doing)?;
        table.ok_or_else(|| Fault::new("there is no partition table")).doing(doing)
    }
}

/// Whether all that lies beside an image belongs to it: a lone one may lie anywhere.
fn is_built(image: &Path) -> bool {
    image.file_name() == Some(IMAGE.as_ref())
}

/// The directory of an image, and the image.
fn find(path: &Path) -> Result<(PathBuf, PathBuf), Fault> {
    let image = if path.is_dir() { path.join(IMAGE) } else { path.to_owned() };
    if !image.is_file() {
        let what = format!("there is no {IMAGE}; name the directory of a build, or an image file");
        return Err(Fault::of_problems(vec![Problem::at(path.display().to_string(), 0, what)]));
    }
    let dir = image.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir.to_owned(), image))
}

/// What is wrong with an image's partition table.
fn damage(health: Health) -> Option<&'static str> {
    match health {
        Health::Whole => None,
        Health::PrimaryLost => Some("the partition table at the image's beginning is damaged"),
        Health::BackupLost => Some("the partition table at the image's end is damaged or cut off"),
        Health::DiskGrew => Some("the image is longer than its partition table says"),
    }
}

fn manifest(path: &Path) -> Result<Option<ImageManifest>, Fault> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.doing(|| format!("reading {}", path.display()))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let what = format!("is no manifest of this version: {error}; build the image anew");
        Fault::of_problems(vec![Problem::at(path.display().to_string(), error.line(), what)])
    })
}

#[cfg(test)]
mod tests {
    use gatehouse_model::Exit;

    use super::*;

    #[test]
    fn an_image_is_changed_by_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let (built, lone) = (dir.path().join(IMAGE), dir.path().join("a.img"));
        let status = |path: &Path| Delivery::hold(path).map(drop).map_err(|fault| fault.exit_status());
        assert_eq!(status(dir.path()), Err(Exit::Problem));
        for image in [&built, &lone] {
            fs::write(image, "").expect("written");
        }
        let held = Delivery::hold(dir.path()).expect("free");
        assert_eq!((status(&built), status(&lone)), (Err(Exit::InUse), Ok(())));
        drop(held);
        assert_eq!(status(&built), Ok(()));
    }
}
