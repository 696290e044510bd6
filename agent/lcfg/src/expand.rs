//! Tag lists opened: from values and schemas to the resources of every component.

use std::collections::{BTreeMap, BTreeSet};

use crate::resolve::Resolver;
use crate::template::{self, MAX_DEPTH};
use crate::values::{Component, Kind, Resource};

/// Resources of one component, counted once for each list that makes them.
const MAX_MADE: usize = 100_000;

/// Every component with its final resources.
pub(crate) fn all(resolver: &mut Resolver) -> BTreeMap<String, Component> {
    let names: BTreeSet<String> = resolver
        .schemas
        .components()
        .chain(resolver.slots.keys().map(String::as_str))
        .map(str::to_owned)
        .collect();
    names
        .into_iter()
        .map(|name| {
            let mut expansion = Expansion {
                resolver,
                name: &name,
                component: Component::default(),
                path: Vec::new(),
                made: 0,
            };
            expansion.run();
            let component = expansion.component;
            (name, component)
        })
        .collect()
}

struct Expansion<'a, 'b> {
    resolver: &'a mut Resolver<'b>,
    name: &'a str,
    component: Component,
    /// The lists being opened, outermost first.
    path: Vec<String>,
    made: usize,
}

impl Expansion<'_, '_> {
    fn run(&mut self) {
        let (schemas, slots) = (self.resolver.schemas, self.resolver.slots);
        let schema = schemas.get(self.name);
        for key in
            schema.into_iter().flat_map(|schema| schema.entries.keys()).filter(|key| !key.contains('$'))
        {
            self.add(key, &mut Vec::new());
        }
        let Some(set) = slots.get(self.name) else { return };
        for resource in set.keys() {
            // What a list makes for its tags is left out when no list has the tag.
            let owned = schema.is_some_and(|schema| {
                schema.find(resource).is_some_and(|(key, _)| key.contains('$') && schema.is_owned(key))
            });
            if !owned && !self.component.resources.contains_key(resource) {
                self.add(resource, &mut Vec::new());
            }
        }
    }

    fn add(&mut self, resource: &str, tags: &mut Vec<String>) {
        self.made += 1;
        if self.made > MAX_MADE {
            let what =
                format!("the lists of {} make more than {MAX_MADE} resources; use fewer tags", self.name);
            return self.resolver.problem(self.resolver.place(self.name, resource), what);
        }
        let Some(value) = self.resolver.value(self.name, resource) else { return };
        let kind = self.resolver.kind(self.name, resource);
        if kind == Kind::Integer && value.is_empty() {
            return;
        }
        if let Kind::List(templates) = &kind {
            self.open(resource, templates, &value, tags);
        }
        let derivation = self.resolver.derivation(self.name, resource);
        self.component
            .resources
            .insert(resource.to_owned(), Resource { value, kind, derivation, context: None });
    }

    fn open(&mut self, list: &str, templates: &[String], value: &str, tags: &mut Vec<String>) {
        let at = self.resolver.place(self.name, list);
        if tags.len() >= MAX_DEPTH || self.path.iter().any(|outer| outer == list) {
            let what =
                format!("{}.{list} is nested in itself or more than {MAX_DEPTH} deep; flatten it", self.name);
            return self.resolver.problem(at, what);
        }
        self.path.push(list.to_owned());
        for tag in value.split_whitespace() {
            tags.push(tag.to_owned());
            for template in templates {
                if let Some(child) = template::fill(template, tags) {
                    self.add(&child, tags);
                } else {
                    let what = "takes more tags than there are; use fewer $";
                    self.resolver
                        .problem(at, format!("{}.{list}: the template {template} {what}", self.name));
                }
            }
            tags.pop();
        }
        self.path.pop();
    }
}
