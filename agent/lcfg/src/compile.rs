//! From sources to values, in two steps: every line of a node's source applied in order, from which follows what the
//! node offers to others; then, once it is known what all nodes offer, references, types, lists and packages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gatehouse_model::Problem;

use crate::assign::{Slots, Step, Values, split_words};
use crate::cpp::{self, Texts};
use crate::maps::{Contributions, Maps};
use crate::packages::{Lists, Word};
use crate::report::{At, Report, nearest};
use crate::resolve::Resolver;
use crate::schemas::Schemas;
use crate::sources::{Depends, Text};
use crate::statement;
use crate::values::{Component, Derivation, Kind, Resource};
use crate::{PackageSpec, Sources, expand};

/// The component whose resources speak to the compiler.
pub(crate) const PROFILE: &str = "profile";

/// What one node's sources say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Compiled {
    /// Every component that is in the profile or has a value; the profile gets those that `profile.components` names.
    ///
    /// A tag's resources are here only while the tag is in its list. `profile.packages` is not here: the wishes say
    /// what came of it.
    pub components: BTreeMap<String, Component>,
    /// The packages wanted, after prefixes and before the lock, by name; shared with the nodes that want the same.
    pub wishes: Arc<Vec<PackageSpec>>,
    /// The source files that were read.
    pub reads: BTreeSet<String>,
}

/// What all nodes of a site have in common.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) schemas: &'a Schemas,
    /// The digests of the site's own components.
    pub(crate) programs: &'a BTreeMap<String, String>,
    pub(crate) lists: &'a Lists,
}

/// A node after the first step.
pub(crate) struct Gathered {
    pub(crate) slots: Slots,
    words: BTreeMap<String, At>,
    report: Report,
    source: At,
    pub(crate) depends: Depends,
    pub(crate) steps: Vec<Step>,
}

/// Applies every line of `source/<node>`; `header` is the text that `#include <gatehouse/site.h>` brings.
pub(crate) fn gather(ground: Ground, node: &str, header: &str, watched: Option<(&str, &str)>) -> Gathered {
    let header = Text::new(header);
    let mut texts = Texts::new(ground.sources, &header);
    let mut report = Report::over(Arc::clone(&ground.schemas.files));
    let source = format!("source/{node}");
    let at = report.open(format!("lcfg/{source}"), None);
    let mut values = Values::new(ground.schemas, node, watched);
    let mut lines = Vec::new();
    if let Some(text) = texts.open(&source) {
        lines = cpp::preprocess(&mut texts, &mut report, at, text, &["include"]);
    } else {
        let what = format!("the node has no source; write lcfg/{source}, such as #include <site/base.h>");
        report.problem(at, what);
    }
    for line in &lines {
        if report.is_full() {
            break;
        }
        let done =
            statement::parse(&line.text).and_then(|statement| values.apply(statement, line.at, &report));
        if let Err(what) = done {
            report.problem(line.at, what);
        }
    }
    let Values { slots, words, steps, .. } = values;
    let mut depends = texts.depends;
    for component in slots.keys() {
        depends.on_schema(component);
    }
    Gathered { slots, words, report, source: at, depends, steps }
}

/// What a node offers to others; none if something is wrong with it.
pub(crate) fn offers(ground: Ground, node: &mut Gathered) -> Option<Contributions> {
    let Gathered { slots, report, source, depends, .. } = node;
    let mut resolver = Resolver::new(ground.schemas, slots, None, *source, report);
    let mut all = Contributions::new();
    for (component, schema) in ground.schemas.iter() {
        for resource in schema.published() {
            depends.on_schema(component);
            let value = resolver.value(component, resource).filter(|value| !value.is_empty());
            let map = value.is_some().then(|| resolver.map_name(component, resource)).flatten();
            let (Some(map), Some(value)) = (map, value) else { continue };
            let offered = Arc::make_mut(all.entry(map).or_default());
            let old = offered.insert(resource.to_owned(), value.clone());
            if old.is_some_and(|old| old != value) {
                let at = resolver.place(component, resource);
                let what = format!("{component}.{resource} is published in its map by another component too");
                resolver.problem(at, format!("{what}; rename one of them or choose another map"));
            }
        }
    }
    for component in &resolver.referred {
        depends.on_schema(component);
    }
    report.is_clean().then_some(all)
}

/// The second step; what the node depends on is told even if it does not compile.
pub(crate) fn finish(
    ground: Ground,
    node: Gathered,
    maps: &Maps,
) -> (Result<Compiled, Vec<Problem>>, Depends) {
    let Gathered { slots, words, mut report, source, mut depends, .. } = node;
    let mut resolver = Resolver::new(ground.schemas, &slots, Some(maps), source, &mut report);
    let listed = resolver.value(PROFILE, "components").unwrap_or_default();
    let listed: BTreeSet<String> = listed.split_whitespace().map(str::to_owned).collect();
    for component in listed.iter().map(String::as_str).chain([PROFILE]) {
        depends.on_schema(component);
        depends.on_program(component);
    }
    let mut components = expand::all(&mut resolver, &listed);
    check_components(&components, &listed, &mut resolver);
    let asked = resolver.value(PROFILE, "packages").unwrap_or_default();
    let origin = resolver.place(PROFILE, "packages");
    resolver.subscribed().for_each(|map| depends.on_map(map));
    for component in &resolver.referred {
        depends.on_schema(component);
    }
    settle_profile(&mut components, &listed, ground.programs);
    let place = |word: &str| words.get(word).copied().unwrap_or(origin);
    let mut wanted: Vec<Word> = Vec::new();
    for word in split_words(&asked) {
        if let Some(name) = word.strip_prefix('@').filter(|name| !is_list(ground.sources, name)) {
            depends.other.insert(format!("packages/{name}"));
            let what = format!(
                "@{name} is not among the site's package lists; add lcfg/packages/{name} or correct the name"
            );
            report.problem(place(word), what);
        } else {
            wanted.push(Word::new(word, place(word), &report));
        }
    }
    let packages = ground.lists.resolve(ground.sources, &wanted);
    depends.add(&packages.depends);
    report.problems(packages.problems.iter().cloned());
    for schema in depends.schemas() {
        report.problems(ground.schemas.problems(schema).iter().cloned());
    }
    if !report.is_clean() {
        return (Err(report.into_problems()), depends);
    }
    let mut reads = depends.read.clone();
    for schema in depends.schemas() {
        reads.extend(ground.schemas.read(schema).cloned());
    }
    (Ok(Compiled { components, wishes: Arc::clone(&packages.wishes), reads }), depends)
}

fn is_list(sources: &Sources, name: &str) -> bool {
    sources.get(&format!("packages/{name}")).is_some()
}

/// A component that the profile shall have must be known or have values.
fn check_components(
    components: &BTreeMap<String, Component>,
    listed: &BTreeSet<String>,
    resolver: &mut Resolver,
) {
    for name in listed.iter().filter(|name| !components.contains_key(*name)) {
        let known = resolver.schemas.iter().map(|(name, _)| name);
        let known = known.chain(components.keys().map(String::as_str));
        let hint = nearest(name, known).map_or_else(
            || format!("write lcfg/defaults/{name}.def or take it out"),
            |near| format!("did you mean {near}?"),
        );
        let at = resolver.place(PROFILE, "components");
        let what = format!("profile.components names {name}, which has no schema and no resources; {hint}");
        resolver.problem(at, what);
    }
}

/// Says in the profile which of its components are the site's own programs, by digest; the wishes for packages stay
/// on the server.
fn settle_profile(
    components: &mut BTreeMap<String, Component>,
    listed: &BTreeSet<String>,
    programs: &BTreeMap<String, String>,
) {
    let Some(own) = components.get_mut(PROFILE) else { return };
    own.resources.remove("packages");
    let mut tags = Vec::new();
    for (name, digest) in programs.iter().filter(|(name, _)| listed.contains(*name)) {
        let derivation = vec![(format!("components/{name}"), Vec::new())];
        let resource = Resource { value: digest.clone(), kind: Kind::String, derivation, context: None };
        own.resources.insert(format!("program_{name}"), resource);
        tags.push(name.as_str());
    }
    let list = own.resources.entry("programs".to_owned()).or_default();
    list.kind = Kind::List(vec!["program_$".to_owned()]);
    list.value = tags.join(" ");
}

/// The places, which are in order, as files and lines: the latest first, each file once.
pub(crate) fn derivation(report: &Report, places: &[At]) -> Derivation {
    let mut all: Derivation = Vec::new();
    for at in places.iter().rev() {
        let line = u32::try_from(at.line).unwrap_or(u32::MAX);
        match all.iter_mut().find(|(file, _)| file == report.file(*at)) {
            Some((_, lines)) => lines.push(line),
            None => all.push((report.file(*at).to_owned(), vec![line])),
        }
    }
    for (_, lines) in &mut all {
        lines.sort_unstable();
        lines.dedup();
    }
    all
}
