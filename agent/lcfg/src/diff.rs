//! What differs between two profiles of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Component, PackageSpec, Profile};

/// What differs; stamps, derivations and the order of components do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The components in which something differs, by name.
    pub components: BTreeMap<String, Changes>,
    /// The packages, as `name`, `name/arch` or either with `[context]` behind it, with their versions.
    pub packages: Changes,
}

/// What was added, changed and removed, by name. The resources of one context are named `resource[context]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The new ones with their values.
    pub added: BTreeMap<String, String>,
    /// The old and the new value.
    pub changed: BTreeMap<String, (String, String)>,
    /// Those that are gone, with the values they had.
    pub removed: BTreeMap<String, String>,
}

impl Difference {
    /// Compares two profiles.
    pub fn between(old: &Profile, new: &Profile) -> Self {
        let component = |profile: &Profile, name: &str| {
            let found = profile.components.iter().find(|(known, _)| known == name);
            found.map(|(_, component)| values(component)).unwrap_or_default()
        };
        let names: BTreeSet<&String> =
            old.components.iter().chain(&new.components).map(|(name, _)| name).collect();
        let all = names
            .into_iter()
            .map(|name| (name.clone(), Changes::between(component(old, name), &component(new, name))));
        Self {
            components: all.filter(|(_, changes)| !changes.is_empty()).collect(),
            packages: Changes::between(packages(&old.packages), &packages(&new.packages)),
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty() && self.packages.is_empty()
    }
}

impl Changes {
    fn between(old: BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Self {
        let mut changes = Self::default();
        for (name, value) in new {
            match old.get(name) {
                None => drop(changes.added.insert(name.clone(), value.clone())),
                Some(before) if before != value => {
                    changes.changed.insert(name.clone(), (before.clone(), value.clone()));
                }
                Some(_) => {}
            }
        }
        changes.removed = old.into_iter().filter(|(name, _)| !new.contains_key(name)).collect();
        changes
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, before: &str) -> fmt::Result {
        for (name, value) in &self.removed {
            writeln!(f, "- {before}{name} {value}")?;
        }
        for (name, (old, new)) in &self.changed {
            writeln!(f, "- {before}{name} {old}\n+ {before}{name} {new}")?;
        }
        for (name, value) in &self.added {
            writeln!(f, "+ {before}{name} {value}")?;
        }
        Ok(())
    }
}

fn values(component: &Component) -> BTreeMap<String, String> {
    let each = |name: &str| {
        let named = |context: Option<&str>| {
            context.map_or_else(|| name.to_owned(), |context| format!("{name}[{context}]"))
        };
        let all = component.all(name);
        all.map(|found| (named(found.context.as_deref()), found.value.clone())).collect::<Vec<_>>()
    };
    component.names().into_iter().flat_map(each).collect()
}

fn packages(all: &[PackageSpec]) -> BTreeMap<String, String> {
    let part = |sign: &str, part: &Option<String>, end: &str| {
        part.as_ref().map(|text| format!("{sign}{text}{end}")).unwrap_or_default()
    };
    let line = |spec: &PackageSpec| {
        let name = format!("{}{}{}", spec.name, part("/", &spec.arch, ""), part("[", &spec.context, "]"));
        let version = spec.debian_version().unwrap_or_else(|| "*".to_owned());
        (name, format!("{version}{}", part(":", &spec.flags, "")))
    };
    all.iter().map(line).collect()
}

/// One line for each: `- old`, `+ new`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, changes) in &self.components {
            changes.write(f, &format!("{name}."))?;
        }
        self.packages.write(f, "package ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sources, compile};

    fn profile(source: &str) -> Profile {
        let mut sources = Sources::new();
        sources.insert("source/n", source);
        let compiled = compile(&sources, "n", "").unwrap();
        Profile::new(&compiled, compiled.wishes.to_vec(), crate::Published::default())
    }

    #[test]
    fn what_differs_is_told_by_component() {
        let old = profile("profile.components grub file old\nprofile.packages a=1 b=1:b\nold.r 1\n");
        let new = profile(
            "profile.components grub file new\nprofile.packages a=2 c=1/i386[install]\nnew.r 1\ngrub.timeout 9\n\
             grub.cmdline[install] x\n",
        );
        let difference = Difference::between(&old, &new);
        assert_eq!(
            difference.to_string(),
            "- grub.timeout 1\n+ grub.timeout 9\n+ grub.cmdline[install] x\n+ new.r 1\n- old.r 1\n\
             - profile.components grub file old\n+ profile.components grub file new\n\
             - package b 1:b\n- package a 1\n+ package a 2\n+ package c/i386[install] 1\n"
        );
        assert!(Difference::between(&new, &new).is_empty());
    }
}
