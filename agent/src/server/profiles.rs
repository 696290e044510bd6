//! The profiles of the site's nodes: compiled from the site directory, published in memory and under state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use gatehouse_lcfg::publish::{self, Closures, Made, PackageSection};
use gatehouse_lcfg::{Fleet, Profile, Published, told_once};
use gatehouse_model::{Digest, Doing as _, Fault, Lock, NodeName, PackageId, Problem, Site};
use tokio::sync::broadcast;

use super::shelf::Shelf;
use super::sources::{Look, SiteFiles, is_component};
use crate::paths::Paths;

/// How many changes a listener may fall behind before it loses the oldest.
const BACKLOG: usize = 64;

/// Finds exact packages for wishes that the lock has no set for.
pub type Solver = Arc<dyn Fn(&[String]) -> Result<Vec<PackageId>, Vec<Problem>> + Send + Sync>;

/// One node's profile as it is served, in pieces that nodes share where they can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub(super) front: Arc<str>,
    pub(super) components: Arc<str>,
    pub(super) packages: Arc<PackageSection>,
    pub(super) tail: Arc<str>,
    /// Its entity tag, quotes included.
    pub etag: String,
    /// What it says of when it was published, in seconds since 1970.
    pub published_at: u64,
    /// The digests of the site's own components that it names.
    pub(super) programs: BTreeSet<Digest>,
}

/// The published profiles; shared by reference between threads.
pub struct Profiles {
    shelf: Shelf,
    /// Held while compiling.
    work: Mutex<Work>,
    /// Held for a moment only.
    shown: RwLock<Shown>,
    listeners: broadcast::Sender<Arc<[NodeName]>>,
}

struct Work {
    site: Site,
    lock: Lock,
    solver: Option<Solver>,
    files: SiteFiles,
    fleet: Fleet,
    closures: Closures,
    programs: BTreeMap<String, String>,
}

/// What requests see.
#[derive(Debug, Default)]
struct Shown {
    pages: BTreeMap<NodeName, Page>,
    problems: BTreeMap<NodeName, Vec<Problem>>,
}

/// What a refresh did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Nodes whose profile is new or has changed.
    pub changed: Vec<NodeName>,
    /// What does not compile, by node; the last good profile stays published.
    pub problems: BTreeMap<NodeName, Vec<Problem>>,
    /// How many nodes were compiled.
    pub compiled: usize,
    /// Bytes written to disk.
    pub written: u64,
}

impl Refreshed {
    /// The problems, each once, with the number of nodes it concerns.
    pub fn told(&self) -> Vec<Problem> {
        told_once(self.problems.iter().map(|(node, problems)| (node.as_str(), problems.as_slice())))
    }
}

impl Profiles {
    /// The profiles that an earlier run left under state; [`Profiles::refresh`] compiles.
    ///
    /// # Errors
    /// State cannot be read.
    pub fn open(site: &Site, lock: &Lock, paths: &Paths) -> Result<Self, Fault> {
        let shelf = Shelf::new(paths.state.join("profiles"));
        let mut shown = Shown::default();
        for node in &site.nodes {
            if let Some(page) = shelf.read(&node.name)? {
                shown.pages.insert(node.name.clone(), page);
            }
        }
        let mut fleet = Fleet::new();
        fleet.set_nodes(publish::members(site));
        for (node, offers) in shelf.offers()? {
            fleet.set_offers(&node, offers);
        }
        let work = Work {
            site: site.clone(),
            lock: lock.clone(),
            solver: None,
            files: SiteFiles::new(&paths.site()),
            fleet,
            closures: Closures::default(),
            programs: BTreeMap::new(),
        };
        let (listeners, _) = broadcast::channel(BACKLOG);
        Ok(Self { shelf, work: Mutex::new(work), shown: RwLock::new(shown), listeners })
    }

    /// Replaces site and lock; the next refresh compiles what that reaches.
    pub fn set_site(&self, site: &Site, lock: &Lock) {
        let mut work = self.work();
        work.fleet.set_nodes(publish::members(site));
        if work.lock != *lock || work.site.epoch != site.epoch || work.site.name != site.name {
            work.closures = Closures::default();
            work.fleet.renew();
        }
        (work.site, work.lock) = (site.clone(), lock.clone());
        let gone = |node: &NodeName| site.node(node.as_str()).is_none();
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.pages.retain(|node, _| !gone(node));
        shown.problems.retain(|node, _| !gone(node));
    }

    /// Who finds the packages for wishes that the lock has no set for.
    pub fn set_solver(&self, solver: Solver) {
        let mut work = self.work();
        work.solver = Some(solver);
        work.fleet.retry();
    }

    /// A node's profile, if one has ever compiled.
    pub fn page(&self, node: &NodeName) -> Option<Page> {
        self.shown().pages.get(node).cloned()
    }

    /// Why a node's newest sources are not published; empty where they are.
    pub fn problems(&self, node: &NodeName) -> Vec<Problem> {
        self.shown().problems.get(node).cloned().unwrap_or_default()
    }

    /// The digests of the site's own components that a node's profile names: it may fetch these and no others.
    pub fn programs(&self, node: &NodeName) -> BTreeSet<Digest> {
        self.shown().pages.get(node).map(|page| page.programs.clone()).unwrap_or_default()
    }

    /// Where the component of a digest lies.
    pub fn program(&self, digest: &Digest) -> PathBuf {
        self.shelf.program(digest)
    }

    /// Hears of nodes whose profile has changed, once it is published. Who falls far behind loses changes.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[NodeName]>> {
        self.listeners.subscribe()
    }

    /// Compiles what has changed since the last call; none where nothing has.
    ///
    /// # Errors
    /// The sources cannot be read, or state not be written.
    pub fn refresh(&self) -> Result<Option<Refreshed>, Fault> {
        self.refresh_touched(&BTreeSet::new())
    }

    /// The same; `touched` are files that are known to have been written, even if their time does not show it.
    ///
    /// # Errors
    /// As [`Profiles::refresh`].
    pub fn refresh_touched(&self, touched: &BTreeSet<PathBuf>) -> Result<Option<Refreshed>, Fault> {
        let mut work = self.work();
        let work = &mut *work;
        let look = work.files.look(touched)?;
        work.take_in(&look)?;
        if !work.fleet.is_stale() {
            work.files.settle(look);
            return Ok(None);
        }
        let done = self.compile(work, &look);
        if done.is_ok() {
            work.files.settle(look);
        } else {
            // A refresh that broke off is made again.
            work.files.forget();
            work.fleet.renew();
        }
        done.map(Some)
    }

    fn compile(&self, work: &mut Work, look: &Look) -> Result<Refreshed, Fault> {
        let offered = work.fleet.offered();
        let Work { lock, solver, closures, fleet, .. } = work;
        let solve = |wishes: &[String]| match (publish::locked(lock, wishes), solver.as_ref()) {
            (Err(_), Some(solver)) => solver(wishes),
            (locked, _) => locked,
        };
        let round = fleet.compile(|_, compiled| publish::make(compiled, closures, &solve));
        let mut done = Refreshed { compiled: round.len(), ..Refreshed::default() };
        let (mut good, mut pages) = (BTreeSet::new(), Vec::new());
        for (name, made) in round {
            let Ok(node) = name.parse::<NodeName>() else { continue };
            match made {
                Ok(made) => {
                    pages.extend(self.new_page(work, look, &node, &made).map(|page| (node.clone(), page)));
                    good.insert(node);
                }
                Err(problems) => drop(done.problems.insert(node, problems)),
            }
        }
        work.closures.tidy();
        done.changed = pages.iter().map(|(node, _)| node.clone()).collect();
        if !pages.is_empty() {
            work.keep_programs(&pages, &self.shelf)?;
            done.written = self.shelf.write(&pages)?;
        }
        self.show(pages, &good, &done.problems);
        if work.fleet.offered() != offered {
            let offers = work
                .site
                .nodes
                .iter()
                .filter_map(|node| Some((node.name.as_str(), work.fleet.offers(node.name.as_str())?)));
            self.shelf.keep_offers(&offers.collect())?;
        }
        if !done.changed.is_empty() {
            self.shelf.tidy(&self.shown().pages);
            // Nobody may be listening.
            let _ = self.listeners.send(done.changed.as_slice().into());
        }
        Ok(done)
    }

    /// The page to publish; none if it would differ from the published one in its stamp at most: a source was touched,
    /// or copied here anew. The published bytes stay then, so that no node fetches and applies what it has.
    fn new_page(&self, work: &Work, look: &Look, node: &NodeName, made: &Made) -> Option<Page> {
        let shown = self.shown();
        let old = shown.pages.get(node);
        let same =
            |old: &Page| old.components == made.components && old.packages.digest == made.packages.digest;
        if old.is_some_and(same) {
            return None;
        }
        let newest = look.newest(&made.reads);
        let (time, file) =
            newest.map_or((0, format!("source/{node}")), |(file, time)| (time, file.to_owned()));
        Some(Page::new(&publish::stamp(&work.site, time, format!("lcfg/{file}")), made))
    }

    fn show(
        &self,
        pages: Vec<(NodeName, Page)>,
        good: &BTreeSet<NodeName>,
        bad: &BTreeMap<NodeName, Vec<Problem>>,
    ) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.pages.extend(pages);
        shown.problems.retain(|node, _| !good.contains(node));
        shown.problems.extend(bad.iter().map(|(node, problems)| (node.clone(), problems.clone())));
    }

    // A thread that panicked while it held one of these has at worst left one profile unpublished.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

impl Work {
    /// Gives the fleet what has changed on disk.
    fn take_in(&mut self, look: &Look) -> Result<(), Fault> {
        let mut programs = None;
        for name in &look.changed {
            if let Some(component) = is_component(name) {
                let programs = programs.get_or_insert_with(|| self.programs.clone());
                if look.has(name) {
                    programs
                        .insert(component.to_owned(), Digest::of(&self.component(component)?).to_string());
                } else {
                    programs.remove(component);
                }
            } else if publish::is_source(name) {
                let text = self.files.text(look, name)?.map(|text| publish::plain(&text));
                self.fleet.change(name, text.as_deref());
            }
        }
        if let Some(programs) = programs {
            self.programs.clone_from(&programs);
            self.fleet.set_programs(programs);
        }
        Ok(())
    }

    /// Puts the components on the shelf that new profiles name.
    fn keep_programs(&self, pages: &[(NodeName, Page)], kept: &Shelf) -> Result<(), Fault> {
        let named: BTreeSet<Digest> = pages.iter().flat_map(|(_, page)| page.programs.clone()).collect();
        for (component, digest) in &self.programs {
            let wanted = named.iter().find(|named| named.to_string() == *digest);
            let Some(wanted) = wanted.filter(|wanted| !kept.program(wanted).exists()) else { continue };
            if kept.keep_program(&self.component(component)?)? != *wanted {
                return Err(Fault::new(format!(
                    "components/{component} was changed while profiles were made"
                )));
            }
        }
        Ok(())
    }

    fn component(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let path = self.files.path(&format!("components/{name}"));
        std::fs::read(&path).doing(|| format!("reading {}", path.display()))
    }
}

impl Page {
    fn new(published: &Published, made: &Made) -> Self {
        let (front, tail) = publish::envelope(published);
        let Made { components, packages, programs, .. } = made;
        Self::of(&front, Arc::clone(components), Arc::clone(packages), &tail, published.at, programs.clone())
    }

    /// A profile that was kept; none if it is not one.
    pub(super) fn kept(
        front: &str,
        packages: Arc<PackageSection>,
        tail: &str,
        profile: &Profile,
    ) -> Option<Self> {
        let (front, components) = front.split_at(front.find(publish::COMPONENTS)?);
        let programs = profile.tags("profile", "programs").into_iter();
        let programs = programs.filter_map(|name| profile.get("profile", &format!("program_{name}")));
        let programs = programs.filter_map(|digest| digest.parse().ok()).collect();
        Some(Self::of(front, components.into(), packages, tail, profile.published.at, programs))
    }

    fn of(
        front: &str,
        components: Arc<str>,
        packages: Arc<PackageSection>,
        tail: &str,
        published_at: u64,
        programs: BTreeSet<Digest>,
    ) -> Self {
        let own = Digest::of([front, &components, tail].concat().as_bytes());
        let etag = format!("\"{}\"", Digest::of(format!("{own} {}", packages.digest).as_bytes()));
        Self { front: front.into(), components, packages, tail: tail.into(), etag, published_at, programs }
    }

    /// What its components say, without the packages, which are its greatest part.
    pub fn profile(&self) -> Option<Profile> {
        let parts = [&*self.front, &*self.components, "<packages></packages>", &*self.tail];
        Profile::from_xml(&parts.concat()).ok()
    }

    /// The whole of it.
    pub fn xml(&self) -> String {
        [&*self.front, &*self.components, &self.packages.xml, &*self.tail].concat()
    }
}
