//! References: `<%component.resource%>` replaced by the value it names, once all lines are read.

use std::collections::{BTreeMap, BTreeSet};

use crate::assign::{Setting, Slot, Slots, default};
use crate::compile::derivation;
use crate::maps::Maps;
use crate::report::{At, Report, nearest};
use crate::schema::{Entry, Schema, Spans};
use crate::schemas::Schemas;
use crate::template;
use crate::values::{Derivation, Kind, Resource};

/// A chain of references longer than this is refused.
const MAX_CHAIN: usize = 64;
/// One value with its references replaced, in bytes.
const MAX_VALUE: usize = 64 * 1024;

type Key = (String, String);

/// Finds the final value of any resource, each that holds references computed once.
pub(crate) struct Resolver<'a> {
    pub(crate) schemas: &'a Schemas,
    pub(crate) slots: &'a Slots,
    /// What the nodes offer; none while this is being found out.
    maps: Option<&'a Maps>,
    source: At,
    report: &'a mut Report,
    /// Final values; `None` where the value is wrong and a problem says so.
    done: BTreeMap<Key, Option<String>>,
    active: Vec<Key>,
    /// The names of the maps that lists subscribe to.
    map_names: BTreeMap<Key, Option<String>>,
    /// Those whose map's name is being found: it may refer to what comes from another map.
    naming: Vec<Key>,
    /// The components that references named.
    pub(crate) referred: BTreeSet<String>,
}

impl<'a> Resolver<'a> {
    /// `source` is the place of problems that no line can be blamed for.
    pub(crate) fn new(
        schemas: &'a Schemas,
        slots: &'a Slots,
        maps: Option<&'a Maps>,
        source: At,
        report: &'a mut Report,
    ) -> Self {
        Self {
            schemas,
            slots,
            maps,
            source,
            report,
            done: BTreeMap::new(),
            active: Vec::new(),
            map_names: BTreeMap::new(),
            naming: Vec::new(),
            referred: BTreeSet::new(),
        }
    }

    /// The value in its type's form; `None` if nothing sets it, or if it is wrong.
    pub(crate) fn value(&mut self, component: &str, resource: &str) -> Option<String> {
        let key = (component.to_owned(), resource.to_owned());
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        let raw = self.raw(component, resource)?;
        if !raw.contains("<%") {
            return self.typed(component, resource, raw);
        }
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
        let value = filled.and_then(|value| self.typed(component, resource, value));
        // A circle found further down has already put its verdict here.
        self.done.entry(key).or_insert(value).clone()
    }

    /// The values of a resource for one context each.
    pub(crate) fn variants(&mut self, component: &str, resource: &str) -> Vec<Resource> {
        let Some(slot) = self.slot(component, resource) else { return Vec::new() };
        let mut all = Vec::with_capacity(slot.variants.len());
        for (context, setting) in &slot.variants {
            let at = setting.places.last().copied().unwrap_or(self.source);
            let filled = self.fill(&setting.value, at);
            if let Some(value) = filled.and_then(|value| self.typed(component, resource, value)) {
                let derivation = derivation(self.report, &setting.places);
                let kind = self.kind(component, resource);
                all.push(Resource { value, kind, derivation, context: Some(context.clone()) });
            }
        }
        all
    }

    /// The line that last set a resource, or that declares it.
    pub(crate) fn place(&self, component: &str, resource: &str) -> At {
        let last = |setting: &Setting| setting.places.last().copied();
        let set = self.slot(component, resource).and_then(|slot| {
            let variant = || slot.variants.last().map(|(_, setting)| setting);
            slot.plain.as_ref().or_else(variant).and_then(last)
        });
        let declared = || self.schemas.get(component)?.find(resource)?.1.at;
        set.or_else(declared).unwrap_or(self.source)
    }

    /// The files and lines that set a resource; the map, where that is where it comes from.
    pub(crate) fn derivation(&mut self, component: &str, resource: &str) -> Derivation {
        match self.setting(component, resource) {
            Some(setting) if setting.places.is_empty() => vec![("(auto)".to_owned(), Vec::new())],
            Some(setting) => derivation(self.report, &setting.places),
            None => {
                let map = self.mapped(component, resource).map(|(map, _)| map);
                map.into_iter().map(|map| (format!("({map})"), Vec::new())).collect()
            }
        }
    }

    pub(crate) fn kind(&self, component: &str, resource: &str) -> Kind {
        let found = self.schemas.get(component).and_then(|schema| schema.find(resource));
        found.map(|(_, entry)| entry.kind.clone()).unwrap_or_default()
    }

    pub(crate) fn problem(&mut self, at: At, what: impl Into<String>) {
        self.report.problem(at, what);
    }

    /// The name of the map that a resource spans, with what the schema says of it.
    pub(crate) fn map_name(&mut self, component: &str, resource: &str) -> Option<String> {
        let key = (component.to_owned(), resource.to_owned());
        if let Some(known) = self.map_names.get(&key) {
            return known.clone();
        }
        let entry = self.schemas.get(component)?.entries.get(resource)?;
        let (Spans::Publish(name) | Spans::Subscribe(name)) = entry.spans.as_ref()?;
        let at = entry.at.unwrap_or(self.source);
        if self.naming.contains(&key) || self.naming.len() >= MAX_CHAIN {
            let what = "the name of its map depends on the map; name it by a word or by other resources";
            self.problem(at, format!("{component}.{resource}: {what}"));
            return None;
        }
        self.naming.push(key.clone());
        let filled = self.fill(name, at);
        self.naming.pop();
        let name = filled.and_then(|name| {
            let name = name.trim();
            let word = !name.is_empty() && !name.contains(char::is_whitespace);
            if !word {
                let what = format!("{component}.{resource}: {name:?} is not a map's name; write one word");
                self.problem(at, what);
            }
            word.then(|| name.to_owned())
        });
        self.map_names.insert(key, name.clone());
        name
    }

    /// The maps that lists took their tags from.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = &str> {
        let subscribes = |(component, list): &Key| {
            let entry = self.schemas.get(component).and_then(|schema| schema.entries.get(list));
            matches!(entry, Some(Entry { spans: Some(Spans::Subscribe(_)), .. }))
        };
        let names = self.map_names.iter().filter(move |(key, _)| subscribes(key));
        names.filter_map(|(_, name)| name.as_deref())
    }

    fn slot(&self, component: &str, resource: &str) -> Option<&'a Slot> {
        let slots: &'a Slots = self.slots;
        slots.get(component)?.get(resource)
    }

    fn setting(&self, component: &str, resource: &str) -> Option<&'a Setting> {
        self.slot(component, resource)?.plain.as_ref()
    }

    fn raw(&mut self, component: &str, resource: &str) -> Option<String> {
        if let Some(setting) = self.setting(component, resource) {
            return Some(setting.value.clone());
        }
        if let Some((_, value)) = self.mapped(component, resource) {
            return Some(value);
        }
        let found = self.schemas.get(component)?.find(resource)?;
        Some(default(Some(found), resource))
    }

    /// The map that a resource comes from, and its value there.
    fn mapped(&mut self, component: &str, resource: &str) -> Option<(String, String)> {
        let schemas: &'a Schemas = self.schemas;
        let schema: &'a Schema = schemas.get(component)?;
        let (key, entry) = schema.find(resource)?;
        if matches!(entry.spans, Some(Spans::Subscribe(_))) {
            let maps = self.maps(component, resource)?;
            let map = self.map_name(component, resource)?;
            let tags = maps.tags(&map);
            return Some((map, tags));
        }
        let tag = template::tag(key, resource).filter(|_| key.contains('$'))?;
        for list in schema.subscriptions(key) {
            let maps = self.maps(component, resource)?;
            let Some(map) = self.map_name(component, list) else { continue };
            let value = maps.value(&map, tag, template::field(key));
            if let Some(value) = value {
                return Some((map, value.to_owned()));
            }
        }
        None
    }

    /// What the nodes offer, if that is known by now.
    fn maps(&mut self, component: &str, resource: &str) -> Option<&'a Maps> {
        if self.maps.is_none() {
            let what =
                format!("{component}.{resource} comes from a map, and no published value can depend on it");
            let at = self.active.first().cloned().map_or(self.source, |(c, r)| self.place(&c, &r));
            self.problem(at, what);
        }
        self.maps
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
        if !self.referred.contains(component) {
            self.referred.insert(component.to_owned());
        }
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

    fn typed(&mut self, component: &str, resource: &str, value: String) -> Option<String> {
        let found = self.schemas.get(component).and_then(|schema: &Schema| schema.find(resource));
        let Some((_, entry)) = found else { return Some(value) };
        if value.is_empty() && self.slot(component, resource).is_none() && entry.kind == Kind::Integer {
            return Some(value);
        }
        let ruled = |value: String| match &entry.rule {
            Some(rule) if !value.is_empty() => rule.check(&value).map(|()| value),
            _ => Ok(value),
        };
        match entry.kind.canonical(&value).and_then(ruled) {
            Ok(value) => Some(value),
            Err(what) => {
                let at = self.place(component, resource);
                self.problem(at, format!("{component}.{resource}: {what}"));
                None
            }
        }
    }
}
