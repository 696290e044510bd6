//! All nodes of a site, compiled together, and again only where a change reaches.
//!
//! What nodes have in common is made once: files cut into lines, schemas, package lists. Of each node is kept what it
//! looked at, found or not; a change of a file, a schema, a program or a spanning map compiles the nodes that looked at it.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_model::Problem;

use crate::assign::default;
use crate::compile::{self, Compiled, Gathered, Ground};
use crate::maps::{Contributions, Maps};
use crate::memory::{Memory, Remembering};
use crate::packages::Lists;
use crate::parallel;
use crate::report::without_chain;
use crate::schemas::Schemas;
use crate::sources::{Depends, map_key, program_key};
use crate::{Sources, Step};

/// How often nodes that fail may change what others read before the rest waits for the next change.
const MAX_ROUNDS: usize = 4;

/// A site's sources and nodes, and what is known of them.
#[derive(Debug, Default)]
pub struct Fleet {
    sources: Sources,
    programs: BTreeMap<String, String>,
    nodes: BTreeMap<String, Node>,
    schemas: Schemas,
    lists: Lists,
    maps: Maps,
    /// What has changed since the last compile.
    changed: BTreeSet<String>,
    /// Whether the schemas were ever read.
    begun: bool,
    /// How often a node has changed what it offers.
    offered: u64,
    /// Whether [`Fleet::compile_one`] had to ask other nodes what they offer.
    asked: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// The text of `<gatehouse/site.h>`.
    header: String,
    depends: Depends,
    /// What the others see of it.
    offers: Contributions,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// To be compiled whatever has changed.
    #[default]
    New,
    /// The same, but what it offers is known.
    Seen,
    Good,
    Failed,
}

impl Node {
    fn is_new(&self) -> bool {
        matches!(self.state, State::New | State::Seen)
    }
}

/// The nodes that were compiled, by name, each with what was made of it or what is wrong.
pub type Round<R> = BTreeMap<String, Result<R, Vec<Problem>>>;

impl Fleet {
    /// No sources and no nodes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sources.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Adds, replaces or (with no text) takes out one source.
    pub fn change(&mut self, path: &str, text: Option<&str>) {
        if self.sources.get(path) == text {
            return;
        }
        self.changed.insert(path.to_owned());
        match text {
            Some(text) => self.sources.insert(path, text),
            None => self.sources.remove(path),
        }
    }

    /// Replaces all sources; only what differs counts as changed.
    pub fn set_sources(&mut self, sources: Sources) {
        self.changed.extend(self.sources.differences(&sources));
        self.sources = sources;
    }

    /// The nodes that there are, each with its text of `<gatehouse/site.h>`.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = (String, String)>) {
        let mut old = std::mem::take(&mut self.nodes);
        for (name, header) in nodes {
            let mut node = old.remove(&name).unwrap_or_default();
            if node.header != header {
                node.header = header;
                node.state = State::New;
            }
            self.nodes.insert(name, node);
        }
        for (name, node) in old {
            let maps = self.maps.replace(&name, &node.offers, &Contributions::new());
            self.changed.extend(maps.iter().map(|map| map_key(map)));
        }
    }

    /// The digests of the site's own components, by name.
    pub fn set_programs(&mut self, programs: BTreeMap<String, String>) {
        let names = self.programs.keys().chain(programs.keys());
        let changed = names.filter(|name| self.programs.get(*name) != programs.get(*name));
        self.changed.extend(changed.map(|name| program_key(name)));
        self.programs = programs;
    }

    /// What a node offered when it last compiled: counts until it compiles again.
    pub fn set_offers(&mut self, node: &str, offers: Contributions) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        let maps = self.maps.replace(node, &known.offers, &offers);
        self.changed.extend(maps.iter().map(|map| map_key(map)));
        known.offers = offers;
    }

    /// What a node offers to others in spanning maps.
    pub fn offers(&self, node: &str) -> Option<&Contributions> {
        self.nodes.get(node).map(|node| &node.offers)
    }

    /// A number that is another one whenever a node offers something else than before.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Has every node compiled again, because what is made of them depends on more than the sources.
    pub fn renew(&mut self) {
        self.nodes.values_mut().for_each(|node| node.state = State::New);
    }

    /// Has the nodes compiled again that did not compile.
    pub fn retry(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.state == State::Failed) {
            node.state = State::New;
        }
    }

    /// Whether anything has changed since the last compile, or a node was never compiled.
    pub fn is_stale(&self) -> bool {
        !self.changed.is_empty() || self.nodes.values().any(Node::is_new)
    }

    /// Compiles every node that a change since the last call reaches. `make` makes something of each that compiles,
    /// in several threads; a node for which it finds problems counts as one that does not compile.
    ///
    /// A node that does not compile offers others what it offered when it last did.
    pub fn compile<R: Send>(
        &mut self,
        make: impl Fn(&str, &Compiled) -> Result<R, Vec<Problem>> + Sync,
    ) -> Round<R> {
        self.renew_schemas();
        let changed = std::mem::take(&mut self.changed);
        self.lists.forget(&changed);
        let reached = |node: &Node| node.is_new() || node.depends.on_any(&changed);
        let work: Vec<&str> = self.names(reached);
        let gathered = parallel::each(work, |name| self.gather(name));
        let (mut offered, mut maps) = (BTreeMap::new(), BTreeSet::new());
        let mut ready: BTreeMap<String, Option<Gathered>> = BTreeMap::new();
        for (name, node, offers) in gathered {
            if let Some(offers) = offers {
                let old = self.offer(&name, offers, &mut maps);
                offered.insert(name.clone(), old);
            }
            ready.insert(name, Some(node));
        }
        let mut round = Round::new();
        for _ in 0..MAX_ROUNDS {
            let keys = maps.iter().map(|map: &String| map_key(map)).collect();
            for name in self.names(|node| node.depends.on_any(&keys)) {
                let failed = matches!(round.get(name), Some(Err(_)));
                if !failed {
                    ready.entry(name.to_owned()).or_default();
                }
            }
            maps.clear();
            let work: Vec<(String, Option<Gathered>)> = std::mem::take(&mut ready).into_iter().collect();
            if work.is_empty() {
                break;
            }
            let done = parallel::each(work, |(name, node)| self.finish(name, node, &make));
            for (name, made, depends) in done {
                let state = if made.is_ok() { State::Good } else { State::Failed };
                if let (State::Failed, Some(old)) = (state, offered.remove(&name)) {
                    self.offer(&name, old, &mut maps);
                }
                if let Some(node) = self.nodes.get_mut(&name) {
                    (node.depends, node.state) = (depends, state);
                }
                round.insert(name, made);
            }
        }
        // What is left over here is done with the next change.
        self.changed.extend(maps.iter().map(|map| map_key(map)));
        round
    }

    /// Whether [`Fleet::compile_one`] had to ask other nodes what they offer.
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// What is worth to be remembered for [`Fleet::recall`]: what the nodes offer that [`Fleet::compile_one`] had to ask.
    pub fn memory(&self) -> Memory {
        let mut remembering = Remembering::new(&self.sources, &self.schemas);
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.state == State::Seen) {
            remembering.node(name, &node.header, &node.depends, &node.offers);
        }
        remembering.finish()
    }

    /// Recalls what nodes offered in an earlier run of the program, as far as it is still true.
    pub fn recall(&mut self, memory: Memory) {
        self.renew_schemas();
        let header = |name: &str| self.nodes.get(name).map(|node| node.header.as_str());
        let recalled = memory.still_true(&self.sources, &self.schemas, header);
        let mut maps = BTreeSet::new();
        for (name, depends, offers) in recalled {
            self.offer(&name, offers, &mut maps);
            if let Some(node) = self.nodes.get_mut(&name) {
                (node.depends, node.state) = (depends, State::Seen);
            }
        }
    }

    /// What one node's sources say, as [`Fleet::compile`] would find it, and the lines that made a resource's value.
    ///
    /// # Errors
    /// Everything that is wrong with the node.
    pub fn compile_one(
        &mut self,
        node: &str,
        watched: Option<(&str, &str)>,
    ) -> Result<(Compiled, Vec<Step>), Vec<Problem>> {
        self.renew_schemas();
        let header = self.nodes.get(node).map(|node| node.header.clone()).unwrap_or_default();
        let first = |watched| compile::gather(self.ground(), node, &header, watched);
        let mut own = first(watched);
        let steps = std::mem::take(&mut own.steps);
        let (made, depends) = compile::finish(self.ground(), own, &self.maps);
        let names = self.names(|node| node.state == State::New);
        // The other nodes only count if the node takes something from a map, and if that is not known yet.
        if depends.maps().next().is_none() || names.is_empty() {
            return made.map(|compiled| (compiled, steps));
        }
        let mut maps = BTreeSet::new();
        for (name, gathered, offers) in parallel::each(names, |name| self.gather(name)) {
            let Some(offers) = offers else { continue };
            self.offer(&name, offers, &mut maps);
            if let Some(node) = self.nodes.get_mut(&name) {
                (node.depends, node.state) = (gathered.depends, State::Seen);
            }
        }
        self.asked = true;
        let (made, _) =
            compile::finish(self.ground(), compile::gather(self.ground(), node, &header, None), &self.maps);
        made.map(|compiled| (compiled, steps))
    }

    /// What the schema gives a resource where no source sets it; none without a schema.
    pub fn default_of(&self, component: &str, resource: &str) -> Option<String> {
        let found = self.schemas.get(component)?.find(resource)?;
        Some(default(Some(found), resource))
    }

    /// What is wrong with the schemas, whether a node uses them or not.
    pub fn schema_problems(&self) -> Vec<Problem> {
        self.schemas.all_problems().cloned().collect()
    }

    fn ground(&self) -> Ground<'_> {
        let Self { sources, schemas, programs, lists, .. } = self;
        Ground { sources, schemas, programs, lists }
    }

    fn names(&self, wanted: impl Fn(&Node) -> bool) -> Vec<&str> {
        self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(name, _)| name.as_str()).collect()
    }

    fn renew_schemas(&mut self) {
        let new_file = |path: &String| path.starts_with("defaults/");
        let reached = self.schemas.depends.on_any(&self.changed) || self.changed.iter().any(new_file);
        if self.begun && !reached {
            return;
        }
        let schemas = Schemas::load(&self.sources);
        self.changed.extend(self.schemas.differences(&schemas));
        self.schemas = schemas;
        self.begun = true;
        // Their problems name lines that may have moved.
        self.retry();
    }

    fn gather(&self, name: &str) -> (String, Gathered, Option<Contributions>) {
        let header = self.nodes.get(name).map(|node| node.header.as_str()).unwrap_or_default();
        let mut node = compile::gather(self.ground(), name, header, None);
        let offers = compile::offers(self.ground(), &mut node);
        (name.to_owned(), node, offers)
    }

    fn finish<R>(
        &self,
        name: String,
        node: Option<Gathered>,
        make: impl Fn(&str, &Compiled) -> Result<R, Vec<Problem>>,
    ) -> (String, Result<R, Vec<Problem>>, Depends) {
        let node = node.unwrap_or_else(|| self.gather(&name).1);
        let (compiled, depends) = compile::finish(self.ground(), node, &self.maps);
        let result = compiled.and_then(|compiled| make(&name, &compiled));
        (name, result, depends)
    }

    /// Replaces what a node offers and notes the maps that are others now; the answer is what it offered before.
    fn offer(&mut self, name: &str, offers: Contributions, maps: &mut BTreeSet<String>) -> Contributions {
        let Some(node) = self.nodes.get_mut(name) else { return offers };
        if node.offers != offers {
            self.offered += 1;
        }
        maps.extend(self.maps.replace(name, &node.offers, &offers));
        std::mem::replace(&mut node.offers, offers)
    }
}

/// The problems of many nodes, each told once: what stands in a header that several nodes read says how many more it
/// concerns.
pub fn told_once<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a [Problem])>) -> Vec<Problem> {
    let mut known: BTreeMap<(&str, usize, &str), (&Problem, BTreeSet<&str>)> = BTreeMap::new();
    for (node, found) in nodes {
        for problem in found {
            let key = (problem.file.as_str(), problem.line, without_chain(&problem.what));
            known.entry(key).or_insert_with(|| (problem, BTreeSet::new())).1.insert(node);
        }
    }
    let tell = |(problem, concerned): (&Problem, BTreeSet<&str>)| {
        let more = match concerned.len() {
            0 | 1 => String::new(),
            2 => " (and 1 more node)".to_owned(),
            many => format!(" (and {} more nodes)", many - 1),
        };
        Problem { what: format!("{}{more}", problem.what), ..problem.clone() }
    };
    known.into_values().map(tell).collect()
}

/// Compiles `source/<node>` of a site with this node alone; `site_header` is the text that `#include
/// <gatehouse/site.h>` brings.
///
/// # Errors
/// Everything that is wrong, in the order of the files.
pub fn compile(sources: &Sources, node: &str, site_header: &str) -> Result<Compiled, Vec<Problem>> {
    let mut fleet = Fleet::new();
    fleet.set_sources(sources.clone());
    fleet.set_nodes([(node.to_owned(), site_header.to_owned())]);
    fleet.compile_one(node, None).map(|(compiled, _)| compiled)
}
