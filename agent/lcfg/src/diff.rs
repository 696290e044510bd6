//! What differs between two profiles of a node: resources by component, and packages. Who published what when, and
//! from which lines, does not count.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Component, PackageSpec, Profile};

/// One thing that differs, with what it was and what it is; none where it was not there, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The resource's or the package's name.
    pub name: String,
    /// Before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// The differing resources of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentDiff {
    /// The component.
    pub component: String,
    /// Its resources, by name.
    pub resources: Vec<Difference>,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileDiff {
    /// The components with differences, in the new profile's order; those that are gone come last.
    pub components: Vec<ComponentDiff>,
    /// Packages by name, their versions with flags.
    pub packages: Vec<Difference>,
}

impl ProfileDiff {
    /// Whether the profiles say the same.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty() && self.packages.is_empty()
    }
}

/// What makes the new profile another one than the old.
pub fn diff(old: &Profile, new: &Profile) -> ProfileDiff {
    let find = |profile: &Profile, name: &str| {
        profile.components.iter().find(|(known, _)| known == name).map(|(_, found)| values(found))
    };
    let gone = old.components.iter().filter(|(name, _)| find(new, name).is_none());
    let components = new
        .components
        .iter()
        .chain(gone)
        .map(|(name, _)| ComponentDiff {
            component: name.clone(),
            resources: differences(
                &find(old, name).unwrap_or_default(),
                &find(new, name).unwrap_or_default(),
            ),
        })
        .filter(|diff| !diff.resources.is_empty())
        .collect();
    ProfileDiff { components, packages: differences(&packages(old), &packages(new)) }
}

type Values = BTreeMap<String, String>;

fn values(component: &Component) -> Values {
    component.resources.iter().map(|(name, resource)| (name.clone(), resource.value.clone())).collect()
}

/// Versions by name; a foreign architecture and a context make it another package.
fn packages(profile: &Profile) -> Values {
    let name = |spec: &PackageSpec| {
        let arch = spec.arch.as_deref().filter(|arch| !["amd64", "all"].contains(arch));
        let arch = arch.map(|arch| format!(":{arch}")).unwrap_or_default();
        let context = spec.context.as_deref().map(|text| format!("[{text}]")).unwrap_or_default();
        format!("{}{arch}{context}", spec.name)
    };
    let version = |spec: &PackageSpec| {
        let flags = spec.flags.as_deref().map(|flags| format!(":{flags}")).unwrap_or_default();
        format!("{}{flags}", spec.debian_version().unwrap_or_else(|| "*".to_owned()))
    };
    profile.packages.iter().map(|spec| (name(spec), version(spec))).collect()
}

fn differences(old: &Values, new: &Values) -> Vec<Difference> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut all: Vec<Difference> = new
        .keys()
        .chain(gone)
        .map(|name| Difference {
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .filter(|difference| difference.old != difference.new)
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{}: {old:?} becomes {new:?}", self.name),
            (None, Some(new)) => write!(f, "{}: new, {new:?}", self.name),
            (Some(old), None) => write!(f, "{}: gone, was {old:?}", self.name),
            (None, None) => f.write_str(&self.name),
        }
    }
}

/// A line for each resource, `COMPONENT.RESOURCE: …`, and for each package.
impl fmt::Display for ProfileDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diff in &self.components {
            for resource in &diff.resources {
                writeln!(f, "{}.{resource}", diff.component)?;
            }
        }
        for package in &self.packages {
            match (&package.old, &package.new) {
                (Some(old), Some(new)) => writeln!(f, "package {} {old} becomes {new}", package.name)?,
                (None, Some(new)) => writeln!(f, "package {} {new} is added", package.name)?,
                (old, _) => {
                    writeln!(f, "package {} {} is removed", package.name, old.as_deref().unwrap_or("*"))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Resource};

    fn profile(resources: &[(&str, &str, &str)], packages: &[&str]) -> Profile {
        let mut profile = Profile::default();
        for (component, name, value) in resources {
            let at = profile.components.iter().position(|(known, _)| known == component);
            let at = at.unwrap_or_else(|| {
                profile.components.push(((*component).to_owned(), Component::default()));
                profile.components.len() - 1
            });
            let resource = Resource {
                value: (*value).to_owned(),
                kind: Kind::String,
                derivation: vec![("somewhere".to_owned(), vec![profile.components.len() as u32])],
                context: None,
            };
            profile.components[at].1.resources.insert((*name).to_owned(), resource);
        }
        profile.packages = packages.iter().map(|spec| spec.parse().expect("a specification")).collect();
        profile
    }

    #[test]
    fn what_differs_is_told_by_component_and_package() {
        let old = profile(
            &[("b", "x", "1"), ("b", "y", "2"), ("a", "z", "3"), ("gone", "q", "")],
            &["less=668-1/amd64", "nano=8-1/amd64", "vim=9.1-1/amd64:b"],
        );
        let new = profile(
            &[("b", "x", "1"), ("b", "y", "two"), ("b", "w", "4"), ("a", "z", "3")],
            &["less=668-1/amd64", "vim=9.2-1/amd64:b", "jq=1.7-1/amd64"],
        );
        assert_eq!(
            diff(&old, &new).to_string(),
            "b.w: new, \"4\"\nb.y: \"2\" becomes \"two\"\ngone.q: gone, was \"\"\n\
             package jq 1.7-1 is added\npackage nano 8-1 is removed\npackage vim 9.1-1:b becomes 9.2-1:b\n"
        );
        assert!(diff(&new, &new.clone()).is_empty());
    }
}
