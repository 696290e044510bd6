//! All schemas of a site: those that come with this crate, and its own on top of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use gatehouse_model::Problem;

use crate::Sources;
use crate::cpp::{self, Texts};
use crate::report::{Files, Report};
use crate::schema::Schema;
use crate::sources::{Depends, Text, schema_key};
use crate::values::is_name;

macro_rules! built_in {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../defs/", $name, ".def")))),*] };
}

/// The schemas that come with this crate; a site's `defaults/<component>.def` goes on top.
pub(crate) const BUILT_IN: [(&str, &str); 22] = built_in!(
    "apt" "auth" "boot" "client" "credentials" "cron" "dhclient" "dhcpd" "evaluate" "file" "fstab" "grid" "grub" "hosts"
    "install" "kernel" "network" "nfs" "ntp" "openssh" "profile" "updaterpms"
);

/// All schemas of a site, made once for all its nodes.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    all: BTreeMap<String, Known>,
    /// The files they were made of, for the reports of compiles to lie over.
    pub(crate) files: Arc<Files>,
    /// What was looked at to make them.
    pub(crate) depends: Depends,
}

#[derive(Debug, Default)]
struct Known {
    schema: Cow<'static, Schema>,
    /// The site's files it was made of.
    read: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Schemas {
    /// The built-in ones, and the site's on top of them.
    pub(crate) fn load(sources: &Sources) -> Self {
        let mut all: BTreeMap<String, Known> = BTreeMap::new();
        for (name, schema) in built_in() {
            let known = Known { schema: Cow::Borrowed(schema), ..Known::default() };
            all.insert((*name).to_owned(), known);
        }
        let none = Text::new("");
        let mut depends = Depends::default();
        let mut report = Report::default();
        for (path, _) in sources.iter() {
            let name = path.strip_prefix("defaults/").and_then(|name| name.strip_suffix(".def"));
            // Names such as ngeneric-1.def are for other schemas to include.
            let Some(name) = name.filter(|name| is_name(name)) else { continue };
            let mut texts = Texts::new(sources, &none);
            let Some(text) = texts.open(path) else { continue };
            let at = report.open(format!("lcfg/{path}"), None);
            let lines = cpp::preprocess(&mut texts, &mut report, at, text, &["defaults", "include"]);
            let known = all.entry(name.to_owned()).or_default();
            known.schema.to_mut().read(&lines, true, &mut report);
            known.problems = report.take_problems();
            known.read.clone_from(&texts.depends.read);
            depends.add(&texts.depends);
        }
        Self { all, files: report.into_files(), depends }
    }

    pub(crate) fn get(&self, component: &str) -> Option<&Schema> {
        self.all.get(component).map(|known| known.schema.as_ref())
    }

    /// The schemas with their components' names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Schema)> {
        self.all.iter().map(|(name, known)| (name.as_str(), known.schema.as_ref()))
    }

    /// What is wrong with a component's schema.
    pub(crate) fn problems(&self, component: &str) -> &[Problem] {
        self.all.get(component).map(|known| known.problems.as_slice()).unwrap_or_default()
    }

    /// What is wrong with any of them.
    pub(crate) fn all_problems(&self) -> impl Iterator<Item = &Problem> {
        self.all.values().flat_map(|known| &known.problems)
    }

    /// The site's files that a component's schema was made of.
    pub(crate) fn read(&self, component: &str) -> impl Iterator<Item = &String> {
        self.all.get(component).into_iter().flat_map(|known| &known.read)
    }

    /// The keys of the schemas that are not the same in both.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let same = |name: &str| match (self.all.get(name), other.all.get(name)) {
            (Some(a), Some(b)) => a.problems == b.problems && a.schema.is_like(&b.schema),
            _ => false,
        };
        let names = self.all.keys().chain(other.all.keys());
        names.filter(|name| !same(name)).map(|name| schema_key(name)).collect()
    }
}

pub(crate) fn built_in() -> &'static [(&'static str, Schema)] {
    static PARSED: OnceLock<Vec<(&'static str, Schema)>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let mut report = Report::default();
        read_built_in(&mut report)
    })
}

fn read_built_in(report: &mut Report) -> Vec<(&'static str, Schema)> {
    let (sources, none) = (Sources::new(), Text::new(""));
    let mut texts = Texts::new(&sources, &none);
    let mut read = |(name, text): (&'static str, &str)| {
        let at = report.open(format!("{name}.def"), None);
        let lines = cpp::preprocess(&mut texts, report, at, &Text::new(text), &["defaults"]);
        let mut schema = Schema::default();
        schema.read(&lines, false, report);
        (name, schema)
    };
    BUILT_IN.into_iter().map(&mut read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::fill_default;
    use crate::values::Kind;

    #[test]
    fn the_built_in_schemas_are_right_and_every_resource_is_documented() {
        let mut report = Report::default();
        let all = read_built_in(&mut report);
        assert_eq!(report.into_problems(), []);
        for (name, schema) in all {
            for (key, entry) in &schema.entries {
                let value = fill_default(&entry.default, "t");
                let unset = entry.kind == Kind::Integer && value.is_empty();
                assert!(
                    unset || value.contains("<%") || entry.kind.canonical(&value).is_ok(),
                    "{name}.{key}"
                );
            }
            let text = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap().1;
            let mut last = "";
            for line in text.lines() {
                let documented = last.ends_with("*/") || !line.starts_with('@');
                assert!(documented, "{name}.def: {line:?} has no comment above it");
                last = line;
            }
            for key in schema.entries.keys() {
                assert!(
                    text.contains(&format!("\n@{key} ")) || text.contains(&format!("\n@{key}\n")),
                    "{name}.{key}"
                );
            }
        }
    }
}
