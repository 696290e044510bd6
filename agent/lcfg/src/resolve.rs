//! References: `<%component.resource%>` replaced by the value it names, once all lines are read.

use std::collections::BTreeMap;

use crate::compile::{Slots, default, derivation};
use crate::report::{At, Report, nearest};
use crate::schema::{Schema, Schemas};
use crate::values::{Derivation, Kind};

/// A chain of references longer than this is refused.
const MAX_CHAIN: usize = 64;
/// One value with its references replaced, in bytes.
const MAX_VALUE: usize = 64 * 1024;

type Key = (String, String);

/// Finds the final value of any resource, each computed once.
pub(crate) struct Resolver<'a> {
    pub(crate) schemas: &'a Schemas,
    pub(crate) slots: &'a Slots,
    source: At,
    report: &'a mut Report,
    /// Final values; `None` where the value is wrong and a problem says so.
    done: BTreeMap<Key, Option<String>>,
    active: Vec<Key>,
}

impl<'a> Resolver<'a> {
    /// `source` is the place of problems that no line can be blamed for.
    pub(crate) fn new(schemas: &'a Schemas, slots: &'a Slots, source: At, report: &'a mut Report) -> Self {
        Self { schemas, slots, source, report, done: BTreeMap::new(), active: Vec::new() }
    }

    /// The value in its type's form; `None` if nothing sets it, or if it is wrong.
    pub(crate) fn value(&mut self, component: &str, resource: &str) -> Option<String> {
        let key = (component.to_owned(), resource.to_owned());
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        let raw = self.raw(component, resource)?;
        if let Some(start) = self.active.iter().position(|active| *active == key) {
            self.circle(start);
            self.done.insert(key, None);
            return None;
        }
        if self.active.len() >= MAX_CHAIN {
            let at = self.place(component, resource);
            self.problem(at, format!("references are nested {MAX_CHAIN} deep; shorten the chain"));
            return None;
        }
        self.active.push(key);
        let at = self.place(component, resource);
        let filled = self.fill(&raw, at);
        let key = self.active.pop().unwrap_or_default();
        let value = filled.and_then(|value| self.typed(component, resource, &value));
        // A circle found further down has already put its verdict here.
        self.done.entry(key).or_insert(value).clone()
    }

    /// The line that last set a resource, or that declares it.
    pub(crate) fn place(&self, component: &str, resource: &str) -> At {
        let set = self.slots.get(component).and_then(|slots| slots.get(resource)?.places.first().copied());
        let declared = || self.schemas.get(component)?.find(resource)?.1.at;
        set.or_else(declared).unwrap_or(self.source)
    }

    /// The files and lines that set a resource.
    pub(crate) fn derivation(&self, component: &str, resource: &str) -> Derivation {
        let Some(slot) = self.slots.get(component).and_then(|slots| slots.get(resource)) else {
            return Vec::new();
        };
        if slot.places.is_empty() {
            return vec![("(auto)".to_owned(), Vec::new())];
        }
        derivation(self.report, &slot.places)
    }

    pub(crate) fn kind(&self, component: &str, resource: &str) -> Kind {
        let found = self.schemas.get(component).and_then(|schema| schema.find(resource));
        found.map(|(_, entry)| entry.kind.clone()).unwrap_or_default()
    }

    pub(crate) fn problem(&mut self, at: At, what: impl Into<String>) {
        self.report.problem(at, what);
    }

    fn raw(&self, component: &str, resource: &str) -> Option<String> {
        if let Some(slot) = self.slots.get(component).and_then(|slots| slots.get(resource)) {
            return Some(slot.value.clone());
        }
        let found = self.schemas.get(component)?.find(resource)?;
        Some(default(Some(found), resource))
    }

    fn circle(&mut self, start: usize) {
        let names: Vec<String> = self.active[start..]
            .iter()
            .map(|(component, resource)| format!("{component}.{resource}"))
            .collect();
        let (component, resource) = self.active[start].clone();
        let at = self.place(&component, &resource);
        let what =
            format!("{} -> {}: a value refers to itself; break the circle", names.join(" -> "), names[0]);
        self.problem(at, what);
        self.done.extend(self.active[start..].iter().map(|key| (key.clone(), None)));
    }

    fn fill(&mut self, raw: &str, at: At) -> Option<String> {
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        let mut good = true;
        while let Some((before, reference)) = rest.split_once("<%") {
            out.push_str(before);
            let Some((inside, after)) = reference.split_once("%>") else {
                self.problem(at, "the reference opened by <% has no %>; close it");
                return None;
            };
            match self.reference(inside.trim(), at) {
                Some(value) => out.push_str(&value),
                None => good = false,
            }
            if out.len() > MAX_VALUE {
                self.problem(
                    at,
                    format!("the value grows beyond {MAX_VALUE} bytes; look for values that repeat others"),
                );
                return None;
            }
            rest = after;
        }
        out.push_str(rest);
        good.then_some(out)
    }

    fn reference(&mut self, name: &str, at: At) -> Option<String> {
        let Some((component, resource)) = name.split_once('.') else {
            self.problem(at, format!("<%{name}%> is not a reference; write <%component.resource%>"));
            return None;
        };
        if self.raw(component, resource).is_none() {
            let known = self.slots.get(component).into_iter().flat_map(|slots| slots.keys());
            let known =
                known.chain(self.schemas.get(component).into_iter().flat_map(|schema| schema.entries.keys()));
            let hint = nearest(resource, known.map(String::as_str)).map_or_else(
                || "set it or correct the name".to_owned(),
                |near| format!("did you mean {component}.{near}?"),
            );
            self.problem(at, format!("<%{name}%> names a resource that nothing sets; {hint}"));
            return None;
        }
        self.value(component, resource)
    }

    fn typed(&mut self, component: &str, resource: &str, value: &str) -> Option<String> {
        let found = self.schemas.get(component).and_then(|schema: &Schema| schema.find(resource));
        let set = self.slots.get(component).is_some_and(|slots| slots.contains_key(resource));
        let Some((_, entry)) = found else { return Some(value.to_owned()) };
        if entry.kind == Kind::Integer && value.is_empty() && !set {
            return Some(String::new());
        }
        match entry.kind.canonical(value) {
            Ok(value) => Some(value),
            Err(what) => {
                let at = self.place(component, resource);
                self.problem(at, format!("{component}.{resource}: {what}"));
                None
            }
        }
    }
}
