//! The site's sources and components on disk: what there is, and what has changed since the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gatehouse_lcfg::publish::{self, SOURCE_DIRECTORIES};
use gatehouse_model::{Doing as _, Fault, Problem};

/// The directory of the site's own components, beside `lcfg/`.
const COMPONENTS: &str = "components";

/// One file as its directory shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    size: u64,
    modified: SystemTime,
    inode: u64,
}

impl Seen {
    /// When it was written, in seconds since 1970.
    pub(super) fn seconds(&self) -> u64 {
        self.modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// The files of a site that profiles are made of: sources by their path below `lcfg/`, components as
/// `components/<name>`.
#[derive(Debug)]
pub(super) struct SiteFiles {
    site: PathBuf,
    seen: BTreeMap<String, Seen>,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    now: BTreeMap<String, Seen>,
    /// The files that are new or others, or gone.
    pub(super) changed: BTreeSet<String>,
}

impl SiteFiles {
    pub(super) fn new(site: &Path) -> Self {
        Self { site: site.to_owned(), seen: BTreeMap::new() }
    }

    /// Looks for changes; `touched` are files that are known to have been written, even if no time shows it.
    pub(super) fn look(&self, touched: &BTreeSet<PathBuf>) -> Result<Look, Fault> {
        let mut now = BTreeMap::new();
        for top in SOURCE_DIRECTORIES {
            list_below(&self.site.join("lcfg").join(top), top, &mut now)?;
        }
        now.retain(|path, _| publish::is_source(path));
        list_below(&self.site.join(COMPONENTS), COMPONENTS, &mut now)?;
        let touched = |path: &String| touched.contains(&self.path(path));
        let paths: BTreeSet<&String> = self.seen.keys().chain(now.keys()).collect();
        let changed =
            paths.into_iter().filter(|path| self.seen.get(*path) != now.get(*path) || touched(path));
        let changed = changed.cloned().collect();
        Ok(Look { now, changed })
    }

    /// Takes note of what a look found, once all of it is dealt with.
    pub(super) fn settle(&mut self, look: Look) {
        self.seen = look.now;
    }

    /// Forgets all, so that the next look finds everything changed.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Where a file lies.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let below = if is_component(name).is_some() { self.site.clone() } else { self.site.join("lcfg") };
        below.join(name)
    }

    /// The text of a source; none if it is gone.
    pub(super) fn text(&self, look: &Look, name: &str) -> Result<Option<String>, Fault> {
        if !look.now.contains_key(name) {
            return Ok(None);
        }
        let path = self.path(name);
        let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|byte| *byte == b'\n').count();
            let what = "not UTF-8 text; save the file as UTF-8";
            Fault::of_problems(vec![Problem::at(format!("lcfg/{name}"), line, what)])
        })?;
        Ok(Some(text))
    }
}

impl Look {
    /// The newest of some sources and its time.
    pub(super) fn newest(&self, reads: &BTreeSet<String>) -> Option<(&str, u64)> {
        let read = |(path, _): &(&String, &Seen)| reads.contains(*path);
        // Of several with one time the first by name counts, not the first by chance.
        let newest = self.now.iter().filter(read).rev().max_by_key(|(_, seen)| seen.modified);
        newest.map(|(path, seen)| (path.as_str(), seen.seconds()))
    }

    /// Whether a file is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.now.contains_key(name)
    }
}

/// The component's name, if the file is one.
pub(crate) fn is_component(name: &str) -> Option<&str> {
    name.strip_prefix("components/")
        .filter(|name| !name.contains('/') && !name.starts_with('.') && !name.ends_with('~'))
}

fn list_below(dir: &Path, name: &str, files: &mut BTreeMap<String, Seen>) -> Result<(), Fault> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))? {
        let entry = entry.doing(|| format!("reading {}", dir.display()))?;
        // A name that is not UTF-8 cannot be included from a source.
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let path = format!("{name}/{file_name}");
        // Not followed: a link in a pushed site directory must not publish another file of this machine.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            list_below(&entry.path(), &path, files)?;
        } else if about.is_file() {
            let modified = about.modified().doing(|| format!("reading the time of {path}"))?;
            files.insert(path, Seen { size: about.len(), modified, inode: about.ino() });
        }
    }
    Ok(())
}
