//! Read-only filesystems from tar streams, cached under the digest of all that they depend on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Doing as _, Fault};

use super::RECIPE;
use crate::cache::{Cache, settle};
use crate::interrupt::Fleeting;
use crate::root::tree::{Kind, walk};
use crate::term;
use crate::tools::Tools;

/// Compression of the root: reading costs the same at every level.
const COMPRESSED: [&str; 2] = ["-zlz4hc,level=9", "-C65536"];

/// A filesystem in the cache.
#[derive(Clone, Debug)]
pub struct Erofs {
    /// Where it is.
    pub path: PathBuf,
    /// How large it is.
    pub size: u64,
    /// The digest of all that it depends on.
    pub key: Digest,
}

/// What filesystems are made with.
#[derive(Debug)]
pub struct Maker<'a> {
    /// The programs.
    pub tools: &'a Tools,
    /// The digest of their packages.
    pub packages: Digest,
    /// Where results go.
    pub cache: &'a Cache,
    /// The time in the superblock, in seconds since 1970.
    pub epoch: u64,
}

/// One filesystem to make.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// What it is called in messages.
    pub name: &'a str,
    /// What tells its contents from all others.
    pub contents: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether its files are compressed.
    pub compressed: bool,
}

impl Maker<'_> {
    /// Makes a filesystem of a tar file, which is asked for only if the filesystem is not in the cache.
    ///
    /// # Errors
    /// mkfs.erofs fails; the disk is full.
    pub fn make(
        &self,
        wanted: &Wanted<'_>,
        tar: impl FnOnce(&Path) -> Result<PathBuf, Fault>,
    ) -> Result<Erofs, Fault> {
        // Times of files stay those of the tar: compiled Python is valid only for them.
        let (time, uuid) = (format!("-T{}", self.epoch), format!("-U{}", wanted.uuid));
        let mut args = vec!["--tar=f", "-d1", "--quiet", &time, "--mkfs-time", &uuid];
        if wanted.compressed {
            args.extend(COMPRESSED);
        }
        let text = format!("erofs {RECIPE} {} {args:?} {}", self.packages, wanted.contents);
        let key = Digest::of(text.as_bytes());
        let path = self.cache.file(&key);
        if !path.exists() {
            let bar = term::bar(format!("making the {} filesystem", wanted.name), term::Unit::Time, 0);
            let scratch = Fleeting::new(self.cache.scratch(&format!("erofs-{}", key.short()))?);
            let (from, to) = (tar(scratch.path())?, scratch.path().join("erofs"));
            let (from_text, to_text) = (from.display().to_string(), to.display().to_string());
            args.extend([to_text.as_str(), from_text.as_str()]);
            self.tools
                .run("usr/bin/mkfs.erofs", &args)
                .doing(|| format!("making the {} filesystem", wanted.name))?;
            settle(&to, &path)?;
            bar.finish();
        }
        let size = fs::metadata(&path).doing(|| format!("reading {}", path.display()))?.len();
        Ok(Erofs { path, size, key })
    }
}

/// Packs a depot's directory: owners, modes and times are fixed, since its files are links into the cache.
///
/// # Errors
/// A file cannot be read; the disk is full.
pub fn depot_tar(dir: &Path, epoch: u64, to: &Path) -> Result<(), Fault> {
    let doing = || format!("packing {}", to.display());
    let file = File::create(to).doing(doing)?;
    let mut builder = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    for entry in walk(dir, epoch)? {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(epoch);
        if entry.kind == Kind::Dir {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, format!("{}/", entry.name), io::empty()).doing(doing)?;
        } else {
            let path = dir.join(&entry.name);
            let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if is_program(&entry.name) { 0o755 } else { 0o644 });
            header.set_size(file.metadata().doing(doing)?.len());
            builder.append_data(&mut header, &entry.name, file).doing(doing)?;
        }
    }
    builder.into_inner().and_then(|mut out| out.flush()).doing(doing)
}

fn is_program(name: &str) -> bool {
    name == "agent" || name.starts_with("kernels/uml/")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_depot_is_packed_without_a_trace_of_the_directory() {
        let packed = |mode: u32, linked: bool| {
            let dir = tempfile::tempdir().expect("a directory");
            let depot = dir.path().join("depot");
            fs::create_dir_all(depot.join("layers")).expect("made");
            fs::write(depot.join("layers/a"), "layer").expect("written");
            if linked {
                fs::hard_link(depot.join("layers/a"), depot.join("layers/b")).expect("linked");
            } else {
                fs::write(depot.join("layers/b"), "layer").expect("written");
            }
            fs::write(depot.join("agent"), "agent").expect("written");
            fs::set_permissions(depot.join("agent"), fs::Permissions::from_mode(mode)).expect("set");
            let to = dir.path().join("tar");
            depot_tar(&depot, 1_700_000_000, &to).expect("packed");
            fs::read(to).expect("read")
        };
        assert_eq!(packed(0o600, false), packed(0o755, true));
    }
}
