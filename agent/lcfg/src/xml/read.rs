//! The strict reader: envelope, components, packages.

use std::collections::BTreeMap;

use gatehouse_model::Problem;

use super::date;
use super::record::Records;
use super::tree::{self, Element, FILE};
use crate::context::{self, Contexts};
use crate::values::{Component, is_name, parse_derivation};
use crate::{PackageSpec, Profile};

/// Resources that the lists of one component may hold, those in several lists counted for each.
const MAX_INSIDE: usize = 600_000;

/// Reads a profile, or says everything that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Profile, Vec<Problem>> {
    let root = tree::parse(text).map_err(|problem| vec![problem])?;
    if root.name != "profile" {
        return Err(vec![root.problem(format!("the top element is <{}>, not <profile>", root.name))]);
    }
    let [lcfg] = root.children.as_slice() else {
        return Err(vec![root.problem("<profile> must hold one element, <lcfg>")]);
    };
    if lcfg.name != "lcfg" {
        return Err(vec![lcfg.problem(format!("<profile> holds <{}>, not <lcfg>", lcfg.name))]);
    }
    let mut envelope = Envelope::default();
    for child in &lcfg.children {
        envelope.child(child);
    }
    envelope.finish(lcfg)
}

#[derive(Default)]
struct Envelope {
    profile: Profile,
    problems: Vec<Problem>,
    components: bool,
    packages: bool,
    /// Where each name and architecture stands in the profile's packages.
    packages_seen: BTreeMap<(String, Option<String>), Vec<usize>>,
}

impl Envelope {
    fn child(&mut self, element: &Element) {
        match element.name.as_str() {
            "components" | "packages" => self.section(element),
            _ if !element.children.is_empty() || element.odd.is_some() => {
                self.wrong(element, format!("<{}> must hold text only", element.name));
            }
            "published_by" => element.text.clone_into(&mut self.profile.published.by),
            "published_at" => self.profile.published.at = self.date(element),
            "server_version" => element.text.clone_into(&mut self.profile.published.version),
            "last_modified" => self.profile.published.last_modified = self.date(element),
            "last_modified_file" => element.text.clone_into(&mut self.profile.published.last_modified_file),
            _ => {}
        }
    }

    fn wrong(&mut self, element: &Element, what: impl Into<String>) {
        self.problems.push(element.problem(what));
    }

    fn date(&mut self, element: &Element) -> u64 {
        date::read(&element.text).unwrap_or_else(|| {
            self.wrong(element, format!("{:?} is not a date; write DD/MM/YY HH:MM:SS", element.text));
            0
        })
    }

    fn section(&mut self, element: &Element) {
        let components = element.name == "components";
        let seen = if components { &mut self.components } else { &mut self.packages };
        if std::mem::replace(seen, true) {
            return self.wrong(element, format!("<{}> is here twice", element.name));
        }
        if components {
            element.children.iter().for_each(|child| self.component(child));
            return;
        }
        if !self.components {
            self.wrong(element, "<packages> is before <components>");
        }
        element.children.iter().for_each(|child| self.package(child));
        self.profile.packages.sort_by(PackageSpec::by_key);
    }

    fn component(&mut self, element: &Element) {
        if let Some(line) = element.odd {
            self.problems.push(Problem::at(
                FILE,
                line,
                "Unexpected element '#comment': no comments in a component",
            ));
        }
        if !is_name(&element.name) {
            return self.wrong(element, format!("{:?} is not a component's name", element.name));
        }
        if self.profile.components.iter().any(|(name, _)| *name == element.name) {
            return self.wrong(element, format!("the component {} is here twice", element.name));
        }
        if element.closed {
            return;
        }
        let mut records = Records::new(&mut self.problems);
        for child in &element.children {
            records.resource(child, &child.name);
        }
        let component: Component = records.component;
        for name in component.variants.keys() {
            if let Err(what) = component.chosen(name, &Contexts::none()) {
                self.wrong(element, what);
            }
        }
        if !super::is_writable(&component, MAX_INSIDE) {
            let what = format!("the lists of {} hold more than {MAX_INSIDE} resources", element.name);
            return self.wrong(element, what);
        }
        self.profile.components.push((element.name.clone(), component));
    }

    fn package(&mut self, element: &Element) {
        match package(element) {
            Ok(spec) => self.add(element, spec),
            Err(what) => self.wrong(element, what),
        }
    }

    /// Two versions of one package may only be here under different contexts, of which one holds at most.
    fn add(&mut self, element: &Element, spec: PackageSpec) {
        let priority = |spec: &PackageSpec| {
            let context = spec.context.as_deref().unwrap_or_default();
            context::priority(context, &Contexts::none()).unwrap_or_default()
        };
        let key = (spec.name.clone(), spec.arch.clone());
        let others = self.packages_seen.entry(key).or_default();
        let new = priority(&spec);
        let clash = others.iter().map(|i| &self.profile.packages[*i]).find(|old| {
            let same = old.context == spec.context || (new >= 0 && priority(old) == new);
            same && !old.is_same_version(&spec)
        });
        if let Some(old) = clash {
            let what = format!("Version conflict: {old} and {spec}");
            return self.wrong(element, what);
        }
        if others.iter().all(|i| self.profile.packages[*i].context != spec.context) {
            others.push(self.profile.packages.len());
            self.profile.packages.push(spec);
        }
    }

    fn finish(mut self, lcfg: &Element) -> Result<Profile, Vec<Problem>> {
        for (seen, name) in [(self.components, "components"), (self.packages, "packages")] {
            if !seen {
                self.wrong(lcfg, format!("there is no <{name}>"));
            }
        }
        if self.problems.is_empty() { Ok(self.profile) } else { Err(self.problems) }
    }
}

fn package(element: &Element) -> Result<PackageSpec, String> {
    if element.name != "package" {
        return Err(format!("unexpected element <{}> among the packages", element.name));
    }
    if element.odd.is_some() {
        return Err("Unexpected element '#comment': no comments in a package".to_owned());
    }
    let mut spec = PackageSpec::default();
    let mut early_arch = None;
    for child in &element.children {
        if !child.children.is_empty() || child.odd.is_some() {
            return Err(format!("<{}> must hold text only", child.name));
        }
        let text = child.text.trim();
        let known = |text: &str| (!text.is_empty() && text != "*").then(|| text.to_owned());
        match child.name.as_str() {
            "name" => {
                let (arch, name) =
                    text.split_once('/').map_or((None, text), |(arch, name)| (Some(arch), name));
                early_arch = arch.map(str::to_owned);
                name.clone_into(&mut spec.name);
            }
            "v" => spec.version = known(text),
            "r" => {
                let (release, arch) = text.rsplit_once('/').map_or((text, None), |(r, arch)| (r, Some(arch)));
                spec.release = known(release);
                spec.arch = arch.map(str::to_owned);
            }
            "options" => spec.flags = (!text.is_empty()).then(|| text.to_owned()),
            other => return Err(format!("unexpected element <{other}> in a package")),
        }
    }
    spec.arch = early_arch.or(spec.arch);
    spec.context = element.attribute("cfg:context").filter(|text| !text.trim().is_empty()).map(str::to_owned);
    spec.derivation = element.attribute("cfg:derivation").map(parse_derivation).unwrap_or_default();
    spec.check()?;
    Ok(spec)
}
