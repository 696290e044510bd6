//! A node's profile: what its clients fetch.

use std::collections::BTreeMap;

use gatehouse_model::Problem;

use crate::compile::PROFILE;
use crate::{Compiled, Component, Contexts, PackageSpec, Resource, context, xml};

/// Who published a profile, when, and from what.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Published {
    /// The server's host name.
    pub by: String,
    /// When, in seconds since 1970; the format carries the years 1970 to 2069.
    pub at: u64,
    /// The server's version.
    pub version: String,
    /// When the newest source file changed, in seconds since 1970.
    pub last_modified: u64,
    /// The newest source file.
    pub last_modified_file: String,
}

/// A profile as values.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Profile {
    /// Who published it.
    pub published: Published,
    /// The components by name, in the order in which they are configured.
    pub components: Vec<(String, Component)>,
    /// The packages, exact where the server has resolved them.
    pub packages: Vec<PackageSpec>,
}

impl Profile {
    /// Takes the components that `profile.components` names, and always `profile` itself; packages are sorted.
    pub fn new(compiled: &Compiled, mut packages: Vec<PackageSpec>, published: Published) -> Self {
        packages.sort_by(PackageSpec::by_key);
        let own = |(name, component): (&str, &Component)| (name.to_owned(), component.clone());
        Self { published, components: listed(compiled).map(own).collect(), packages }
    }

    /// The profile as XML, as LCFG clients read it; the same profile is always the same bytes.
    pub fn to_xml(&self) -> String {
        xml::write(self)
    }

    /// Reads a profile, as strictly as LCFG's own client.
    ///
    /// # Errors
    /// Everything that is wrong, in the file `profile.xml`.
    pub fn from_xml(text: &str) -> Result<Self, Vec<Problem>> {
        xml::read(text)
    }

    /// What holds in some contexts: of several values of a resource, and of several entries of a package, the one
    /// of the highest priority. What holds in none of them is gone, and what is left has no context any more.
    ///
    /// # Errors
    /// Every resource that has two different values of the same priority, and every such package.
    pub fn in_contexts(&self, contexts: &Contexts) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut components = Vec::with_capacity(self.components.len());
        for (name, component) in &self.components {
            let mut problem = |what: String| {
                problems.push(Problem::at(xml::FILE, 0, format!("{name}.{what}")));
            };
            components.push((name.clone(), component_in(component, contexts, &mut problem)));
        }
        let packages = packages_in(&self.packages, contexts, &mut problems);
        if problems.is_empty() {
            Ok(Self { published: self.published.clone(), components, packages })
        } else {
            Err(problems)
        }
    }

    /// The value of a resource that holds where no context is set.
    pub fn get(&self, component: &str, resource: &str) -> Option<&str> {
        let (_, found) = self.components.iter().find(|(name, _)| name == component)?;
        let chosen = found.chosen(resource, &Contexts::none()).ok().flatten()?;
        Some(chosen.value.as_str())
    }

    /// The tags of a list, or the words of a string; none if it is not there.
    pub fn tags(&self, component: &str, list: &str) -> Vec<&str> {
        self.get(component, list).map(|value| value.split_whitespace().collect()).unwrap_or_default()
    }
}

/// The components that `profile.components` names, in that order, and always `profile` itself.
pub(crate) fn listed(compiled: &Compiled) -> impl Iterator<Item = (&str, &Component)> {
    let own = compiled.components.get(PROFILE);
    let list = own.and_then(|own| own.resources.get("components")).map_or("", |list| list.value.as_str());
    let first = (!list.split_whitespace().any(|name| name == PROFILE)).then_some(PROFILE);
    let names = first.into_iter().chain(list.split_whitespace());
    names.filter_map(|name| Some((name, compiled.components.get(name)?)))
}

fn component_in(component: &Component, contexts: &Contexts, problem: &mut impl FnMut(String)) -> Component {
    let mut resources = component.resources.clone();
    for name in component.variants.keys() {
        match component.chosen(name, contexts) {
            Ok(Some(chosen)) => {
                resources.insert(name.clone(), Resource { context: None, ..chosen.clone() });
            }
            Ok(None) => {}
            Err(what) => problem(what),
        }
    }
    Component { resources, variants: BTreeMap::new() }
}

fn packages_in(
    packages: &[PackageSpec],
    contexts: &Contexts,
    problems: &mut Vec<Problem>,
) -> Vec<PackageSpec> {
    let mut best: BTreeMap<(&str, Option<&str>), (i32, &PackageSpec)> = BTreeMap::new();
    for spec in packages {
        let priority = context::priority(spec.context.as_deref().unwrap_or_default(), contexts);
        let Ok(priority @ 0..) = priority else { continue };
        let key = (spec.name.as_str(), spec.arch.as_deref());
        match best.get(&key) {
            Some((high, other)) if *high == priority && !other.is_same_version(spec) => {
                let what = format!("Version conflict: {other} and {spec} hold in the same contexts");
                problems.push(Problem::at(xml::FILE, 0, what));
            }
            Some((high, _)) if *high >= priority => {}
            _ => {
                best.insert(key, (priority, spec));
            }
        }
    }
    best.into_values().map(|(_, spec)| PackageSpec { context: None, ..spec.clone() }).collect()
}
