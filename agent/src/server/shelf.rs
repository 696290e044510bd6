//! Published profiles on disk, so that the last good ones outlive a restart.
//!
//! `<node>.xml` is a profile with an empty element instead of its packages, which names by digest what stands in
//! `packages/<digest>.xml`: a thousand nodes have few different package lists. `components/<digest>` are the site's own
//! components as profiles name them, `offers.json` what nodes offered in spanning maps when they last compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatehouse_lcfg::publish::PackageSection;
use gatehouse_lcfg::{Contributions, Profile};
use gatehouse_model::{Digest, Doing as _, Fault, NodeName};

use super::keep;
use super::profiles::Page;

/// Stands in a kept profile for its packages.
const MARK: &str = "  <packages cfg:digest=\"";
/// What ends it.
const MARK_END: &str = "\"></packages>\n";
/// From so many files on the whole filesystem is synced once, which is faster then.
const MANY: usize = 16;

/// The directory of the kept profiles.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// A node's kept profile. One that does not read back is as good as none.
    pub(super) fn read(&self, node: &NodeName) -> Result<Option<Page>, Fault> {
        let Some(text) = keep::read_if_there(&self.profile(node))? else { return Ok(None) };
        let Some((digest, front, tail)) = split(&text) else { return Ok(None) };
        let Some(xml) = keep::read_if_there(&self.packages(&digest))? else { return Ok(None) };
        let whole = Digest::of(xml.as_bytes()) == digest;
        let Ok(profile) = Profile::from_xml(&format!("{front}<packages></packages>{tail}")) else {
            return Ok(None);
        };
        let section = Arc::new(PackageSection { xml, digest });
        Ok(whole.then(|| Page::kept(front, section, tail, &profile)).flatten())
    }

    /// Writes profiles, each whole or not at all; the answer is how many bytes went to disk.
    pub(super) fn write(&self, pages: &[(NodeName, Page)]) -> Result<u64, Fault> {
        keep::private_dir(&self.dir.join("packages"))?;
        let mut files: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
        let digests: Vec<String> = pages.iter().map(|(_, page)| page.packages.digest.to_string()).collect();
        for ((node, page), digest) in pages.iter().zip(&digests) {
            let section = self.packages(&page.packages.digest);
            if !section.exists() {
                files.insert(section, vec![&page.packages.xml]);
            }
            let parts = vec![&*page.front, &*page.components, MARK, digest.as_str(), MARK_END, &*page.tail];
            files.insert(self.profile(node), parts);
        }
        write_all(&self.dir, &files).doing(|| format!("writing profiles to {}", self.dir.display()))
    }

    /// Removes what belongs to no node any more.
    pub(super) fn tidy(&self, pages: &BTreeMap<NodeName, Page>) {
        let sections: BTreeSet<PathBuf> =
            pages.values().map(|page| self.packages(&page.packages.digest)).collect();
        let programs: BTreeSet<PathBuf> =
            pages.values().flat_map(|page| &page.programs).map(|digest| self.program(digest)).collect();
        for (dir, wanted) in [("packages", sections), ("components", programs)] {
            let Ok(entries) = fs::read_dir(self.dir.join(dir)) else { continue };
            for path in entries.flatten().map(|entry| entry.path()).filter(|path| !wanted.contains(path)) {
                // What is left over is small, and removed next time.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// What nodes offered when they last compiled.
    pub(super) fn offers(&self) -> Result<BTreeMap<String, Contributions>, Fault> {
        let text = keep::read_if_there(&self.dir.join("offers.json"))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Keeps what nodes offer.
    pub(super) fn keep_offers(&self, offers: &BTreeMap<&str, &Contributions>) -> Result<(), Fault> {
        keep::private_dir(&self.dir)?;
        let text = serde_json::to_vec(offers).doing(|| "writing offers.json")?;
        keep::replace(&self.dir.join("offers.json"), 0o600, &text)
    }

    /// Keeps a component under its digest; what a profile once named stays as it was.
    pub(super) fn keep_program(&self, bytes: &[u8]) -> Result<Digest, Fault> {
        let digest = Digest::of(bytes);
        let path = self.program(&digest);
        if !path.exists() {
            keep::private_dir(&self.dir.join("components"))?;
            keep::replace(&path, 0o600, bytes)?;
        }
        Ok(digest)
    }

    /// Where a component of this digest lies.
    pub(super) fn program(&self, digest: &Digest) -> PathBuf {
        self.dir.join("components").join(digest.to_string())
    }

    fn profile(&self, node: &NodeName) -> PathBuf {
        self.dir.join(format!("{node}.xml"))
    }

    fn packages(&self, digest: &Digest) -> PathBuf {
        self.dir.join("packages").join(format!("{digest}.xml"))
    }
}

/// The digest of the packages of a kept profile, and what stands before and after them.
fn split(text: &str) -> Option<(Digest, &str, &str)> {
    let (front, rest) = text.rsplit_once(MARK)?;
    let (digest, tail) = rest.split_once(MARK_END)?;
    Some((digest.parse().ok()?, front, tail))
}

/// Writes all beside the old files, syncs once, and only then puts them in their places.
fn write_all(dir: &Path, files: &BTreeMap<PathBuf, Vec<&str>>) -> io::Result<u64> {
    let partial = |path: &Path| {
        let mut name = OsString::from(path);
        name.push(".partial");
        PathBuf::from(name)
    };
    let mut bytes = 0;
    for (path, parts) in files {
        let text = parts.concat();
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial(path))?;
        file.write_all(text.as_bytes())?;
        bytes += text.len() as u64;
        if files.len() < MANY {
            file.sync_data()?;
        }
    }
    let directory = File::open(dir)?;
    if files.len() >= MANY {
        nix::unistd::syncfs(&directory)?;
    }
    for path in files.keys() {
        fs::rename(partial(path), path)?;
    }
    File::open(dir.join("packages"))?.sync_all()?;
    directory.sync_all()?;
    Ok(bytes)
}
