//! The profiles of the site's nodes: compiled from the site directory, published in memory and under state.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use gatehouse_lcfg::publish::{self, SOURCE_DIRECTORIES};
use gatehouse_lcfg::{Compiled, Profile, Published, Sources};
use gatehouse_model::{Digest, Doing as _, Fault, NodeName, Problem, Site};

use super::keep;
use crate::current::{Current, SiteState};
use crate::paths::Paths;

/// One node's profile as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The XML.
    pub xml: Arc<str>,
    /// Its entity tag, quotes included.
    pub etag: String,
}

/// The published profiles; shared by reference between threads.
#[derive(Debug)]
pub struct Profiles {
    current: Arc<Current>,
    sources: PathBuf,
    kept: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the last refresh saw of the files, to see that nothing changed.
    seen: Option<(u64, Vec<SourceFile>)>,
    published: BTreeMap<NodeName, Entry>,
    problems: BTreeMap<NodeName, Vec<Problem>>,
}

#[derive(Debug)]
struct Entry {
    page: Page,
    stamp: Published,
}

/// One file of the sources as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SourceFile {
    path: String,
    size: u64,
    modified: SystemTime,
}

/// What a refresh did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Nodes whose profile is new or has changed.
    pub changed: Vec<NodeName>,
    /// What does not compile, by node; the last good profile stays published.
    pub problems: BTreeMap<NodeName, Vec<Problem>>,
}

impl Profiles {
    /// The profiles that an earlier run left under state; [`Profiles::refresh`] compiles.
    ///
    /// # Errors
    /// State cannot be read.
    pub fn open(current: Arc<Current>, paths: &Paths) -> Result<Self, Fault> {
        let profiles = Self {
            current,
            sources: paths.site().join("lcfg"),
            kept: paths.state.join("profiles"),
            inner: Mutex::default(),
        };
        for node in &profiles.current.get().site.nodes {
            // One that does not read back is as good as none: the next refresh writes it anew.
            if let Some(text) = keep::read_if_there(&profiles.kept_file(&node.name))?
                && let Ok(profile) = Profile::from_xml(&text)
            {
                let entry = Entry { page: Page::new(text), stamp: profile.published };
                profiles.inner().published.insert(node.name.clone(), entry);
            }
        }
        Ok(profiles)
    }

    /// A node's profile, if one has ever compiled.
    pub fn page(&self, node: &NodeName) -> Option<Page> {
        self.inner().published.get(node).map(|entry| entry.page.clone())
    }

    /// Why a node's newest sources are not published; empty where they are.
    pub fn problems(&self, node: &NodeName) -> Vec<Problem> {
        self.inner().problems.get(node).cloned().unwrap_or_default()
    }

    /// Compiles what has changed since the last call; none where nothing has.
    ///
    /// # Errors
    /// The sources cannot be read, or state not be written.
    pub fn refresh(&self) -> Result<Option<Refreshed>, Fault> {
        let now = self.current.get();
        let files = self.list()?;
        if self.inner().seen.as_ref().is_some_and(|seen| (seen.0, &seen.1) == (now.generation, &files)) {
            return Ok(None);
        }
        let sources = self.read(&files)?;
        let mut done = Refreshed::default();
        for node in &now.site.nodes {
            match publish::compile_node(&now.site, &sources, node.name.as_str()) {
                Ok(compiled) => self.publish(&now, &node.name, &compiled, &files, &mut done)?,
                Err(problems) => drop(done.problems.insert(node.name.clone(), problems)),
            }
        }
        let mut inner = self.inner();
        inner.problems.clone_from(&done.problems);
        // Last: a refresh that broke off is made again.
        inner.published.retain(|node, _| now.site.node(node.as_str()).is_some());
        inner.seen = Some((now.generation, files));
        Ok(Some(done))
    }

    fn publish(
        &self,
        now: &SiteState,
        node: &NodeName,
        compiled: &Compiled,
        files: &[SourceFile],
        done: &mut Refreshed,
    ) -> Result<(), Fault> {
        let packages = match publish::locked_packages(compiled, &now.lock, node.as_str()) {
            Ok(packages) => packages,
            Err(problems) => {
                done.problems.insert(node.clone(), problems);
                return Ok(());
            }
        };
        let mut profile = Profile::new(compiled, packages, stamp(&now.site, node, compiled, files));
        if self.says_the_same(node, &mut profile) {
            return Ok(());
        }
        let entry = Entry { page: Page::new(profile.to_xml()), stamp: profile.published };
        keep::private_dir(&self.kept)?;
        keep::replace(&self.kept_file(node), 0o600, entry.page.xml.as_bytes())?;
        self.inner().published.insert(node.clone(), entry);
        done.changed.push(node.clone());
        Ok(())
    }

    /// Whether a profile differs from the published one in its stamp at most: a source was touched, or copied here
    /// anew. The published bytes stay then, so that no node fetches and applies what it has.
    fn says_the_same(&self, node: &NodeName, profile: &mut Profile) -> bool {
        let inner = self.inner();
        let Some(entry) = inner.published.get(node) else { return false };
        let stamp = std::mem::replace(&mut profile.published, entry.stamp.clone());
        let same = profile.to_xml() == *entry.page.xml;
        profile.published = stamp;
        same
    }

    /// Every source with size and time, sorted by path.
    fn list(&self) -> Result<Vec<SourceFile>, Fault> {
        let mut files = Vec::new();
        for top in SOURCE_DIRECTORIES {
            let dir = self.sources.join(top);
            if dir.is_dir() {
                list_below(&dir, top, &mut files)?;
            }
        }
        files.retain(|file| publish::is_source(&file.path));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn read(&self, files: &[SourceFile]) -> Result<Sources, Fault> {
        let mut texts = Vec::new();
        for file in files {
            let path = self.sources.join(&file.path);
            let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.split(|byte| *byte == b'\n').count();
                let what = "not UTF-8 text; save the file as UTF-8";
                Fault::of_problems(vec![Problem::at(format!("lcfg/{}", file.path), line, what)])
            })?;
            texts.push((file.path.as_str(), text));
        }
        Ok(Sources::from_files(texts))
    }

    fn kept_file(&self, node: &NodeName) -> PathBuf {
        self.kept.join(format!("{node}.xml"))
    }

    // A thread that panicked while it held the lock has at worst left one profile unpublished.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn new(xml: String) -> Self {
        let etag = format!("\"{}\"", Digest::of(xml.as_bytes()));
        Self { xml: xml.into(), etag }
    }
}

fn stamp(site: &Site, node: &NodeName, compiled: &Compiled, files: &[SourceFile]) -> Published {
    let read = |file: &&SourceFile| compiled.reads.contains(&file.path);
    // Of several with one time the first by name counts, not the first by chance.
    let newest = files.iter().filter(read).rev().max_by_key(|file| file.modified);
    let (time, file) = newest.map_or_else(
        || (0, format!("lcfg/source/{node}")),
        |file| (unix_seconds(file.modified), format!("lcfg/{}", file.path)),
    );
    publish::stamp(site, time, file)
}

fn list_below(dir: &Path, name: &str, files: &mut Vec<SourceFile>) -> Result<(), Fault> {
    for entry in fs::read_dir(dir).doing(|| format!("reading {}", dir.display()))? {
        let entry = entry.doing(|| format!("reading {}", dir.display()))?;
        // A name that is not UTF-8 cannot be included from a source.
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let path = format!("{name}/{file_name}");
        // Not followed: a link in a pushed site directory must not publish another file of this machine.
        let about = entry.metadata().doing(|| format!("reading {}", entry.path().display()))?;
        if about.is_dir() {
            list_below(&entry.path(), &path, files)?;
        } else if about.is_file() {
            let modified = about.modified().doing(|| format!("reading the time of {path}"))?;
            files.push(SourceFile { path, size: about.len(), modified });
        }
    }
    Ok(())
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
