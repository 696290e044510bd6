//! Tag lists opened: from values and schemas to the resources of every component.

use std::collections::{BTreeMap, BTreeSet};

use crate::context::Contexts;
use crate::resolve::Resolver;
use crate::template::{self, MAX_DEPTH};
use crate::values::{Component, Kind, Resource};

/// Resources of one node, counted once for each list that makes them.
const MAX_MADE: usize = 100_000;

/// The components that have values, or that are named, with their final resources.
pub(crate) fn all(resolver: &mut Resolver, listed: &BTreeSet<String>) -> BTreeMap<String, Component> {
    let has_schema = |name: &&String| resolver.schemas.get(name).is_some();
    let names: BTreeSet<String> =
        listed.iter().filter(has_schema).chain(resolver.slots.keys()).cloned().collect();
    let mut made = 0;
    let open = |name: String| {
        let component = Component::default();
        let mut expansion = Expansion { resolver, name: &name, component, path: Vec::new(), made: &mut made };
        expansion.run();
        let component = expansion.component;
        check_variants(resolver, &name, &component);
        (name, component)
    };
    names.into_iter().map(open).collect()
}

/// Of the values for different contexts never two may hold at once; looked at as nodes live, and as they install.
fn check_variants(resolver: &mut Resolver, name: &str, component: &Component) {
    for resource in component.variants.keys() {
        for contexts in [Contexts::none(), Contexts::install()] {
            if let Err(what) = component.chosen(resource, &contexts) {
                let at = resolver.place(name, resource);
                resolver.problem(at, format!("{name}.{what}"));
                break;
            }
        }
    }
}

struct Expansion<'a, 'b> {
    resolver: &'a mut Resolver<'b>,
    name: &'a str,
    component: Component,
    /// The lists being opened, outermost first.
    path: Vec<String>,
    made: &'a mut usize,
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
            let there = self.component.resources.contains_key(resource)
                || self.component.variants.contains_key(resource);
            if !owned && !there {
                self.add(resource, &mut Vec::new());
            }
        }
    }

    fn add(&mut self, resource: &str, tags: &mut Vec<String>) {
        *self.made += 1;
        if *self.made > MAX_MADE {
            let what = format!("the lists make more than {MAX_MADE} resources by here; use fewer tags");
            return self.resolver.problem(self.resolver.place(self.name, resource), what);
        }
        if let Some(value) = self.resolver.value(self.name, resource) {
            let kind = self.resolver.kind(self.name, resource);
            if kind != Kind::Integer || !value.is_empty() {
                if let Kind::List(templates) = &kind {
                    self.open(resource, templates, &value, tags);
                }
                let derivation = self.resolver.derivation(self.name, resource);
                let made = Resource { value, kind, derivation, context: None };
                self.component.resources.insert(resource.to_owned(), made);
            }
        }
        let variants = self.resolver.variants(self.name, resource);
        for variant in &variants {
            if let Kind::List(templates) = &variant.kind {
                self.open(resource, templates, &variant.value, tags);
            }
        }
        if !variants.is_empty() {
            self.component.variants.insert(resource.to_owned(), variants);
        }
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
