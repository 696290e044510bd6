//! The texts a compile reads, by their path under `lcfg/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crate::cpp::{Logical, split};

/// The LCFG files of one site: `source/<node>`, `include/a/b.h`, `packages/x.pkgs`, `defaults/fstab.def`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: BTreeMap<String, Arc<Text>>,
}

impl Sources {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file; the path is relative to the site's `lcfg/` directory.
    pub fn insert(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.files.insert(path.into(), Arc::new(Text::new(text)));
    }

    /// Takes a file out.
    pub fn remove(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.text(path).map(Text::as_str)
    }

    /// All files, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&Text> {
        self.files.get(path).map(AsRef::as_ref)
    }

    /// The paths whose text is another one in the two, or that only one of them has.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let paths = self.files.keys().chain(other.files.keys());
        paths.filter(|path| self.files.get(*path) != other.files.get(*path)).cloned().collect()
    }
}

/// One file, cut into lines when it is first needed and never again.
#[derive(Debug)]
pub(crate) struct Text {
    text: String,
    lines: OnceLock<Result<Vec<Logical>, usize>>,
}

impl Text {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), lines: OnceLock::new() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The logical lines; `Err` is the line of a comment that never ends.
    pub(crate) fn lines(&self) -> Result<&[Logical], usize> {
        self.lines.get_or_init(|| split(&self.text)).as_deref().map_err(|line| *line)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Text {}

/// What a compile looked at, found or not: when one of these changes, it must be made again.
///
/// Paths are those of sources; beside them stand `components/<name>` for a component's program, `schema/<name>` for
/// its schema and `map/<name>` for a spanning map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depends {
    /// Files that were there.
    pub(crate) read: BTreeSet<String>,
    /// Files that were not, and all that is no file.
    pub(crate) other: BTreeSet<String>,
}

impl Depends {
    pub(crate) fn add(&mut self, more: &Self) {
        self.read.extend(more.read.iter().cloned());
        self.other.extend(more.other.iter().cloned());
    }

    pub(crate) fn on_any(&self, changed: &BTreeSet<String>) -> bool {
        changed.iter().any(|key| self.read.contains(key) || self.other.contains(key))
    }

    /// The files that were looked for.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let is_file =
            |key: &&String| !["schema/", "map/", "components/"].iter().any(|kind| key.starts_with(kind));
        self.read.iter().chain(self.other.iter().filter(is_file)).map(String::as_str)
    }

    /// The components whose schemas were looked for.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &str> {
        self.other.iter().filter_map(|key| key.strip_prefix("schema/"))
    }

    /// The maps that were read.
    pub(crate) fn maps(&self) -> impl Iterator<Item = &str> {
        self.other.iter().filter_map(|key| key.strip_prefix("map/"))
    }

    pub(crate) fn on_schema(&mut self, component: &str) {
        self.other.insert(schema_key(component));
    }

    pub(crate) fn on_program(&mut self, component: &str) {
        self.other.insert(program_key(component));
    }

    pub(crate) fn on_map(&mut self, map: &str) {
        self.other.insert(map_key(map));
    }
}

pub(crate) fn schema_key(component: &str) -> String {
    format!("schema/{component}")
}

pub(crate) fn program_key(component: &str) -> String {
    format!("components/{component}")
}

pub(crate) fn map_key(map: &str) -> String {
    format!("map/{map}")
}
