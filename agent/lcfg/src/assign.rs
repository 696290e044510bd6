//! The values while a node's source is read, line by line.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compile::PROFILE;
use crate::report::{At, Report};
use crate::schema::{Entry, Spans, fill_default};
use crate::schemas::Schemas;
use crate::statement::{Act, Statement};
use crate::template;
use crate::values::Kind;

/// More lines than this do not change one resource of one node.
const MAX_CHANGES: usize = 10_000;
/// Longer than this no value gets, references aside.
const MAX_VALUE: usize = 64 * 1024;
/// Bytes of values that one node's lines may go through; far above any site's need.
const MAX_WORK: usize = 256 * 1024 * 1024;

/// A value, and the lines that set or changed it, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting {
    pub(crate) value: String,
    pub(crate) places: Vec<At>,
}

/// One resource so far: its value in any context, and those for one context each.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) plain: Option<Setting>,
    pub(crate) variants: Vec<(String, Setting)>,
}

impl Slot {
    fn setting(&self, context: Option<&str>) -> Option<&Setting> {
        match context {
            None => self.plain.as_ref(),
            Some(context) => self.variants.iter().find(|(known, _)| known == context).map(|(_, found)| found),
        }
    }

    fn setting_mut(&mut self, context: Option<String>) -> &mut Setting {
        let Some(context) = context else { return self.plain.get_or_insert_default() };
        let place = self.variants.iter().position(|(known, _)| *known == context).unwrap_or_else(|| {
            self.variants.push((context, Setting::default()));
            self.variants.len() - 1
        });
        &mut self.variants[place].1
    }
}

/// All values so far, by component and resource.
pub(crate) type Slots = BTreeMap<String, BTreeMap<String, Slot>>;

/// One line that set or changed a resource, for who asks why it has its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `file:line`.
    pub place: String,
    /// The context it is for, if any.
    pub context: Option<String>,
    /// What the line does: `mADD(eth1)`; none where it assigns the value.
    pub mutation: Option<String>,
    /// The value after it, references not yet replaced.
    pub value: String,
}

/// The resources of `profile` that the compiler itself reads, or sets: they are the same in every context.
const COMPILERS: [&str; 4] = ["components", "node", "packages", "programs"];

/// The values while the source is read.
pub(crate) struct Values<'a> {
    schemas: &'a Schemas,
    pub(crate) slots: Slots,
    /// Where each word of `profile.packages` came from.
    pub(crate) words: BTreeMap<String, At>,
    /// The resource whose steps are kept, and the steps.
    pub(crate) watched: Option<(&'a str, &'a str)>,
    pub(crate) steps: Vec<Step>,
    /// Bytes of values that were gone through.
    work: usize,
}

impl<'a> Values<'a> {
    pub(crate) fn new(schemas: &'a Schemas, node: &str, watched: Option<(&'a str, &'a str)>) -> Self {
        let own = Setting { value: node.to_owned(), places: Vec::new() };
        let own = Slot { plain: Some(own), variants: Vec::new() };
        let slots = Slots::from([(PROFILE.to_owned(), BTreeMap::from([("node".to_owned(), own)]))]);
        Self { schemas, slots, words: BTreeMap::new(), watched, steps: Vec::new(), work: 0 }
    }

    pub(crate) fn apply(&mut self, statement: Statement, at: At, report: &Report) -> Result<(), String> {
        let Statement { component, resource, context, act } = statement;
        let schema = self.schemas.get(&component);
        let found = schema.and_then(|schema| schema.find(&resource));
        if let (Some(schema), None) = (schema, found) {
            return Err(schema.unknown(&component, &resource));
        }
        check_settable(&component, &resource, context.as_deref(), found)?;
        if component == PROFILE && resource == "packages" {
            let brings = match &act {
                Act::Assign(value) => value,
                Act::Mutate(mutation) => mutation.brings(),
            };
            self.words.extend(split_words(brings).map(|word| (word.to_owned(), at)));
        }
        let slot = self.slots.get(&component).and_then(|slots| slots.get(&resource));
        let old = slot.and_then(|slot| slot.setting(context.as_deref()));
        let mutation = if let Act::Mutate(mutation) = &act { Some(mutation.text().to_owned()) } else { None };
        let value = match act {
            Act::Assign(value) => {
                check_conflict(&component, &resource, old, &value, report)?;
                value
            }
            Act::Mutate(mutation) => {
                // For a context that has no value yet, the value in any context is what is changed.
                let base = old.or_else(|| slot.and_then(|slot| slot.plain.as_ref()));
                let base = base.map_or_else(|| default(found, &resource), |slot| slot.value.clone());
                mutation.apply(found.map_or(&Kind::String, |(_, entry)| &entry.kind), &base)?
            }
        };
        self.work += value.len() + 64;
        let changes = old.map_or(0, |old| old.places.len());
        if value.len() > MAX_VALUE || changes > MAX_CHANGES || self.work > MAX_WORK {
            return Err(format!(
                "{component}.{resource} grows too long, or is changed too often; look for lines that repeat themselves"
            ));
        }
        if self.watched == Some((&component, &resource)) {
            let (context, value) = (context.clone(), value.clone());
            self.steps.push(Step { place: report.place(at), context, mutation, value });
        }
        let slot = self.slots.entry(component).or_default().entry(resource).or_default();
        let setting = slot.setting_mut(context);
        setting.value = value;
        setting.places.push(at);
        Ok(())
    }
}

/// What the compiler sets itself no line may set, and what it reads no line may set for one context.
fn check_settable(
    component: &str,
    resource: &str,
    context: Option<&str>,
    found: Option<(&str, &Entry)>,
) -> Result<(), String> {
    if component == PROFILE {
        if resource == "node" {
            return Err("profile.node is the name of the source file; remove this line".to_owned());
        }
        if resource == "programs" || resource.starts_with("program_") {
            return Err(
                "profile.programs is made from the site's components/ directory; remove this line".to_owned()
            );
        }
        if context.is_some() && COMPILERS.contains(&resource) {
            return Err(format!(
                "profile.{resource} is the same in all contexts; write a package's context behind it: name=*[install]"
            ));
        }
    }
    if let Some((_, Entry { spans: Some(Spans::Subscribe(map)), .. })) = found {
        return Err(format!("{component}.{resource} is made from the map {map}; remove this line"));
    }
    Ok(())
}

/// Setting again what is set is only right if the value is the same.
fn check_conflict(
    component: &str,
    resource: &str,
    old: Option<&Setting>,
    value: &str,
    report: &Report,
) -> Result<(), String> {
    let Some(old) = old.filter(|old| old.value != value) else { return Ok(()) };
    let place = old.places.last().map(|place| report.place(*place)).unwrap_or_default();
    Err(format!(
        "{component}.{resource} is already {:?} by {place}; to change it write !{component}.{resource} mSET({value})",
        old.value,
    ))
}

/// The schema's default for a flat name.
pub(crate) fn default(found: Option<(&str, &Entry)>, resource: &str) -> String {
    let Some((key, entry)) = found else { return String::new() };
    match template::tag(key, resource) {
        Some(tag) if key.contains('$') => fill_default(&entry.default, tag).into_owned(),
        _ => entry.default.clone(),
    }
}

/// Words parted by white space, but not inside a context's brackets.
pub(crate) fn split_words(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c: char| {
        inside = (inside || c == '[') && c != ']';
        !inside && c.is_whitespace()
    })
    .filter(|word| !word.is_empty())
}
