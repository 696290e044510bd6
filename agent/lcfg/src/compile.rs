//! From sources to values: every line of a node's source applied in order, then references, types and packages.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_model::Problem;

use crate::cpp::{self, Texts};
use crate::report::{At, Report};
use crate::resolve::Resolver;
use crate::schema::{Schemas, fill_default};
use crate::statement::{self, Act, Statement};
use crate::template;
use crate::values::{Component, Derivation, Kind};
use crate::{PackageSpec, Sources, expand, packages};

/// The component whose resources speak to the compiler.
pub(crate) const PROFILE: &str = "profile";

/// What one node's sources say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Compiled {
    /// Every component that has a schema or a value; the profile gets those that `profile.components` names.
    ///
    /// A tag's resources are here only while the tag is in its list.
    pub components: BTreeMap<String, Component>,
    /// The packages wanted, after prefixes and before the lock, by name.
    pub wishes: Vec<PackageSpec>,
    /// The source files that were read: when one of them changes, or a file is added, compile again.
    pub reads: BTreeSet<String>,
}

/// The value of one resource so far, and the lines that set or changed it, the latest first.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) value: String,
    pub(crate) places: Vec<At>,
}

/// All values so far, by component and resource.
pub(crate) type Slots = BTreeMap<String, BTreeMap<String, Slot>>;

/// Compiles `source/<node>`; `site_header` is the text that `#include <gatehouse/site.h>` brings.
///
/// # Errors
/// Everything that is wrong, in the order of the files.
pub fn compile(sources: &Sources, node: &str, site_header: &str) -> Result<Compiled, Vec<Problem>> {
    let mut texts = Texts { sources, site_header, reads: BTreeSet::new() };
    let mut report = Report::default();
    let source = format!("source/{node}");
    let at = report.open(format!("lcfg/{source}"), None);
    let Some(text) = sources.get(&source) else {
        let what = format!("the node has no source; write lcfg/{source}, such as #include <site/base.h>");
        report.problem(at, what);
        return Err(report.into_problems());
    };
    texts.reads.insert(source);
    let schemas = Schemas::load(&mut texts, &mut report);
    let lines = cpp::preprocess(&mut texts, &mut report, at, text, &["include"]);
    let mut values = Values::new(&schemas, node);
    for line in &lines {
        let done =
            statement::parse(&line.text).and_then(|statement| values.apply(statement, line.at, &report));
        if let Err(what) = done {
            report.problem(line.at, what);
        }
    }
    let Values { slots, words, .. } = values;
    let mut resolver = Resolver::new(&schemas, &slots, at, &mut report);
    let components = expand::all(&mut resolver);
    let listed = resolver.value(PROFILE, "packages").unwrap_or_default();
    let origin = resolver.place(PROFILE, "packages");
    check_components(&components, &mut resolver);
    let words: Vec<(String, At)> = split_words(&listed)
        .map(|word| (word.to_owned(), words.get(word).copied().unwrap_or(origin)))
        .collect();
    let wishes = packages::resolve(&mut texts, &mut report, &words, derivation);
    if report.is_clean() {
        Ok(Compiled { components, wishes, reads: texts.reads })
    } else {
        Err(report.into_problems())
    }
}

/// A component that the profile shall have must be known or have values.
fn check_components(components: &BTreeMap<String, Component>, resolver: &mut Resolver) {
    let listed = resolver.value(PROFILE, "components").unwrap_or_default();
    for name in listed.split_whitespace().filter(|name| !components.contains_key(*name)) {
        let hint = crate::report::nearest(name, components.keys().map(String::as_str)).map_or_else(
            || format!("write lcfg/defaults/{name}.def or take it out"),
            |near| format!("did you mean {near}?"),
        );
        let at = resolver.place(PROFILE, "components");
        let what = format!("profile.components names {name}, which has no schema and no resources; {hint}");
        resolver.problem(at, what);
    }
}

/// Words parted by white space, but not inside a context's brackets.
fn split_words(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c: char| {
        inside = (inside || c == '[') && c != ']';
        !inside && c.is_whitespace()
    })
    .filter(|word| !word.is_empty())
}

/// The places as files and lines, each file once.
pub(crate) fn derivation(report: &Report, places: &[At]) -> Derivation {
    let mut all: Derivation = Vec::new();
    for at in places {
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

/// The values while the source is read.
struct Values<'a> {
    schemas: &'a Schemas,
    slots: Slots,
    /// Where each word of `profile.packages` came from.
    words: BTreeMap<String, At>,
}

impl<'a> Values<'a> {
    fn new(schemas: &'a Schemas, node: &str) -> Self {
        let own = Slot { value: node.to_owned(), places: Vec::new() };
        let slots = Slots::from([(PROFILE.to_owned(), BTreeMap::from([("node".to_owned(), own)]))]);
        Self { schemas, slots, words: BTreeMap::new() }
    }

    fn apply(&mut self, statement: Statement, at: At, report: &Report) -> Result<(), String> {
        let Statement { component, resource, act } = statement;
        let schema = self.schemas.get(&component);
        let found = schema.and_then(|schema| schema.find(&resource));
        if let (Some(schema), None) = (schema, found) {
            return Err(schema.unknown(&component, &resource));
        }
        if component == PROFILE && resource == "packages" {
            let brings = match &act {
                Act::Assign(value) => value,
                Act::Mutate(mutation) => mutation.brings(),
            };
            self.words.extend(split_words(brings).map(|word| (word.to_owned(), at)));
        }
        let old = self.slots.get(&component).and_then(|slots| slots.get(&resource));
        let value = match act {
            Act::Assign(value) => {
                check_conflict(&component, &resource, old, &value, report)?;
                value
            }
            Act::Mutate(_) if component == PROFILE && resource == "node" => {
                return Err("profile.node is the name of the source file; remove this line".to_owned());
            }
            Act::Mutate(mutation) => {
                let base = old.map_or_else(|| default(found, &resource), |slot| slot.value.clone());
                mutation.apply(found.map_or(&Kind::String, |(_, entry)| &entry.kind), &base)?
            }
        };
        let slot = self.slots.entry(component).or_default().entry(resource).or_default();
        slot.value = value;
        slot.places.insert(0, at);
        Ok(())
    }
}

/// Setting again what is set is only right if the value is the same.
fn check_conflict(
    component: &str,
    resource: &str,
    old: Option<&Slot>,
    value: &str,
    report: &Report,
) -> Result<(), String> {
    let Some(old) = old.filter(|old| old.value != value) else { return Ok(()) };
    let Some(place) = old.places.first() else {
        return Err("profile.node is the name of the source file; remove this line".to_owned());
    };
    Err(format!(
        "{component}.{resource} is already {:?} by {}; to change it write !{component}.{resource} mSET({value})",
        old.value,
        report.place(*place)
    ))
}

/// The schema's default for a flat name.
pub(crate) fn default(found: Option<(&str, &crate::schema::Entry)>, resource: &str) -> String {
    let Some((key, entry)) = found else { return String::new() };
    if template::placeholders(key) != 1 {
        return entry.default.clone();
    }
    let (head, tail) = key.split_once('$').unwrap_or((key, ""));
    let tag = resource.get(head.len()..resource.len() - tail.len()).unwrap_or_default();
    fill_default(&entry.default, tag).into_owned()
}
