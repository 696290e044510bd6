//! `site.lock`: every package of every root, so that a later build takes exactly the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, Problem};

/// Name of the package set of the host's root.
pub const SET_HOST: &str = "host";
/// Name of the package set of the installer's initramfs.
pub const SET_INSTALLER: &str = "installer";
/// Name of the package set of the installer on machines of their own.
pub const SET_MACHINE: &str = "machine";
/// Name of the package set that holds the programs which make images.
pub const SET_TOOLS: &str = "tools";

/// Name of the package set of `packages.extra`.
pub const SET_EXTRA: &str = "extra";

/// One exact package: `name=version/architecture`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId {
    /// Binary package name.
    pub name: String,
    /// Debian version with epoch and revision.
    pub version: String,
    /// Debian architecture, `all` included.
    pub architecture: String,
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.name, self.version, self.architecture)
    }
}

impl FromStr for PackageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.rsplit_once('/')?)));
        match parts {
            Some((name, (version, architecture))) if !name.is_empty() && !version.is_empty() => Ok(Self {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
            }),
            _ => Err(format!("{text:?} is not a package; write name=version/architecture")),
        }
    }
}

impl Serialize for PackageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where one package's file is and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LockedPackage {
    /// Binary package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Which archive of the mirror: `main` or `security`.
    pub archive: String,
    /// Path below that archive's address.
    pub path: String,
    /// Source package name.
    pub source: String,
    /// Source package version.
    pub source_version: String,
}

impl LockedPackage {
    /// The name by which package sets refer to it.
    pub fn id(&self) -> PackageId {
        PackageId {
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.clone(),
        }
    }
}

/// The packages of one root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PackageSet {
    /// `host`, `installer`, `tools`, `extra`, or `node-` and twelve digits for a node's closure.
    pub name: String,
    /// What was asked of the solver: sorted package names, with `=version` where one was asked for.
    pub wishes: Vec<String>,
    /// What the solver chose, sorted.
    pub packages: Vec<PackageId>,
}

/// The digest of one exact package list; it names the layer made of it.
pub type Closure = Digest;

impl PackageSet {
    /// The digest of the exact package list.
    pub fn closure(&self) -> Closure {
        let lines: Vec<String> = self.packages.iter().map(ToString::to_string).collect();
        Digest::of(lines.join("\n").as_bytes())
    }
}

impl PackageSet {
    /// One set out of a lock, without reading what follows, which is long; none if it is not there.
    ///
    /// # Errors
    /// The lock cannot be read.
    pub fn find(mut lock: impl BufRead, name: &str) -> io::Result<Option<Self>> {
        let head = format!("name = \"{name}\"\n");
        let (mut line, mut last, mut table) = (String::new(), String::new(), String::new());
        while lock.read_line(&mut line)? > 0 {
            if !table.is_empty() && line.starts_with("[[") {
                break;
            }
            if !table.is_empty() || (last == "[[set]]\n" && line == head) {
                table.push_str(&line);
            }
            std::mem::swap(&mut last, &mut line);
            line.clear();
        }
        Ok(toml::from_str(&table).ok())
    }

    /// The name of the set of a node's closure that is made for these wishes.
    pub fn name_for(wishes: &[String]) -> String {
        format!("node-{}", Digest::of(wishes.join("\n").as_bytes()).short())
    }
}

/// The whole of `site.lock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lock {
    /// Version of this format: 1.
    pub schema: u32,
    /// Digest of the agent binary that goes into the image.
    pub agent: Digest,
    /// Digest of what was asked of the solver (wishes, suite, components), to see that the lock still fits.
    pub request: Digest,
    /// The roots' package lists.
    #[serde(rename = "set", default)]
    pub sets: Vec<PackageSet>,
    /// Every package of every set, sorted, each once.
    #[serde(rename = "package", default)]
    pub packages: Vec<LockedPackage>,
}

impl Lock {
    /// Reads `site.lock`.
    ///
    /// # Errors
    /// Problems of the file: wrong TOML, unknown keys, sets naming packages that are not listed.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let lock: Lock = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            let what = format!("{}; run `gatehouse lock` to write it anew", error.message().trim());
            vec![Problem::at("site.lock", line, what)]
        })?;
        let known = lock.by_id();
        let mut problems = Vec::new();
        for set in &lock.sets {
            for id in set.packages.iter().filter(|id| !known.contains_key(id)) {
                let what =
                    format!("set {} names {id}, which has no [[package]]; run `gatehouse lock`", set.name);
                problems.push(Problem::at("site.lock", 0, what));
            }
        }
        drop(known);
        if problems.is_empty() { Ok(lock) } else { Err(problems) }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let body = toml::to_string(self).expect("a lock holds only text and numbers");
        format!(
            "# Written by `gatehouse lock`; every build of this site takes exactly these packages.\n{body}"
        )
    }

    /// Every package by its id.
    pub fn by_id(&self) -> BTreeMap<PackageId, &LockedPackage> {
        self.packages.iter().map(|package| (package.id(), package)).collect()
    }

    /// The sets of nodes' closures.
    pub fn node_sets(&self) -> impl Iterator<Item = &PackageSet> {
        self.sets.iter().filter(|set| set.name.starts_with("node-"))
    }

    /// The set of a name.
    pub fn set(&self, name: &str) -> Option<&PackageSet> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The node set made for exactly these wishes (sorted, as in [`PackageSet::wishes`]).
    pub fn set_for_wishes(&self, wishes: &[String]) -> Option<&PackageSet> {
        self.sets.iter().find(|set| set.name.starts_with("node-") && set.wishes == wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_is_found_without_the_rest() {
        let id =
            |name: &str| PackageId { name: name.into(), version: "1-1".into(), architecture: "all".into() };
        let set = |wishes: &[&str]| {
            let wishes: Vec<String> = wishes.iter().map(ToString::to_string).collect();
            let packages = wishes.iter().map(|name| id(name)).collect();
            PackageSet { name: PackageSet::name_for(&wishes), wishes, packages }
        };
        let sets = vec![set(&["a"]), set(&["a", "b"])];
        let digest = Digest::of(b"");
        let lock = Lock { schema: 1, agent: digest, request: digest, sets, packages: Vec::new() };
        let text = lock.to_text();
        for set in &lock.sets {
            assert_eq!(PackageSet::find(text.as_bytes(), &set.name).unwrap().as_ref(), Some(set));
        }
        assert_eq!(PackageSet::find(text.as_bytes(), "node-").unwrap(), None);
    }
}
