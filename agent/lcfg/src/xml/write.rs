//! The writer: every value in the long form, single-encoded, in one order.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{RECORD, date, escape_tag};
use crate::template::{self, MAX_DEPTH};
use crate::values::{Component, Kind, Resource, derivation_text, is_xml_char};
use crate::{PackageSpec, Profile, Published};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <profile xmlns=\"http://www.lcfg.org/namespace/profile-1.1\"\n         \
    xmlns:cfg=\"http://www.lcfg.org/namespace/cfg-1.0\">\n <lcfg>\n";

/// Writes a profile: its four pieces one after the other.
pub(crate) fn write(profile: &Profile) -> String {
    let pieces = [
        head(&profile.published),
        components(profile.components.iter().map(|(name, component)| (name.as_str(), component))),
        packages(&profile.packages),
        tail(&profile.published),
    ];
    pieces.concat()
}

/// What stands before the components.
pub(crate) fn head(published: &Published) -> String {
    let mut out = String::from(HEAD);
    meta(&mut out, "published_by", &published.by);
    meta(&mut out, "published_at", &date::write(published.at));
    meta(&mut out, "server_version", &published.version);
    out
}

/// What stands after the packages.
pub(crate) fn tail(published: &Published) -> String {
    let mut out = String::new();
    meta(&mut out, "last_modified", &date::write(published.last_modified));
    meta(&mut out, "last_modified_file", &published.last_modified_file);
    out.push_str(" </lcfg>\n</profile>\n");
    out
}

fn meta(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "  <{name}>{}</{name}>", escape(value));
}

/// The section of the components.
pub(crate) fn components<'a>(components: impl Iterator<Item = (&'a str, &'a Component)>) -> String {
    let mut out = String::from("  <components>\n");
    for (name, component) in components {
        let _ = writeln!(out, "   <{name}>");
        Writer { out: &mut out, component, tags: Vec::new(), path: Vec::new() }.component();
        let _ = writeln!(out, "   </{name}>");
    }
    out.push_str("  </components>\n");
    out
}

/// The section of the packages.
pub(crate) fn packages(packages: &[PackageSpec]) -> String {
    let mut out = String::from("  <packages>\n");
    for spec in packages {
        package(&mut out, spec);
    }
    out.push_str("  </packages>\n");
    out
}

fn package(out: &mut String, spec: &PackageSpec) {
    out.push_str("   <package");
    if let Some(context) = &spec.context {
        let _ = write!(out, " cfg:context=\"{}\"", escape(context));
    }
    derivation(out, &derivation_text(&spec.derivation));
    let part = |part: &Option<String>| escape(part.as_deref().unwrap_or("*")).into_owned();
    let _ = write!(out, "><name>{}</name><v>{}</v>", escape(&spec.name), part(&spec.version));
    let arch = spec.arch.as_ref().map(|arch| format!("/{}", escape(arch))).unwrap_or_default();
    let _ = write!(out, "<r>{}{arch}</r>", part(&spec.release));
    if let Some(flags) = &spec.flags {
        let _ = write!(out, "<options>{}</options>", escape(flags));
    }
    out.push_str("</package>\n");
}

fn derivation(out: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, " cfg:derivation=\"{}\"", escape(text));
    }
}

/// The tags of one list with the templates that are written for each.
type Opened<'a> = BTreeSet<(&'a str, &'a str)>;

struct Writer<'a> {
    out: &'a mut String,
    component: &'a Component,
    /// The tags of the records around, outermost first.
    tags: Vec<String>,
    /// The names of the lists around.
    path: Vec<&'a str>,
}

impl<'a> Writer<'a> {
    fn component(&mut self) {
        let tops = tops(self.component);
        for name in self.component.names().into_iter().filter(|name| tops.contains(name)) {
            self.out.push_str("    ");
            self.resource(name, name);
            self.out.push('\n');
        }
    }

    /// Writes every value of a resource, under the short name it has where it stands. What belongs to a tag is
    /// written once, with the first of the values that names the tag.
    fn resource(&mut self, field: &str, name: &'a str) {
        let component = self.component;
        let mut opened = Opened::new();
        for resource in component.all(name) {
            self.value(field, name, resource, &mut opened);
        }
    }

    fn value(&mut self, field: &str, name: &'a str, resource: &'a Resource, opened: &mut Opened<'a>) {
        let _ = write!(self.out, "<{field}");
        match &resource.kind {
            Kind::String => {}
            Kind::List(templates) => {
                let _ = write!(self.out, " cfg:template=\"{}\"", escape(&templates.join(" ")));
            }
            kind => {
                let _ = write!(self.out, " cfg:type=\"{kind}\"");
            }
        }
        if let Some(context) = &resource.context {
            let _ = write!(self.out, " cfg:context=\"{}\"", escape(context));
        }
        derivation(self.out, &derivation_text(&resource.derivation));
        self.out.push('>');
        if let Kind::List(templates) = &resource.kind {
            self.path.push(name);
            for tag in resource.value.split_whitespace() {
                let _ = write!(self.out, "<{field}{RECORD} cfg:name=\"{}\">", escape_tag(tag));
                self.record(tag, templates, opened);
                let _ = write!(self.out, "</{field}{RECORD}>");
            }
            self.path.pop();
        } else {
            self.out.push_str(&escape(&resource.value));
        }
        let _ = write!(self.out, "</{field}>");
    }

    fn record(&mut self, tag: &'a str, templates: &'a [String], opened: &mut Opened<'a>) {
        self.tags.push(tag.to_owned());
        for template in templates.iter().filter(|template| opened.insert((tag, template.as_str()))) {
            if let Some(name) = child(self.component, template, &self.tags, &self.path) {
                self.resource(template::field(template), name);
            }
        }
        self.tags.pop();
    }
}

/// The name of a tag's resource, if it is there and not one of the lists around it.
fn child<'a>(component: &'a Component, template: &str, tags: &[String], path: &[&str]) -> Option<&'a str> {
    let full = template::fill(template, tags)?;
    let plain = component.resources.get_key_value(&full).map(|(name, _)| name);
    let name = plain.or_else(|| component.variants.get_key_value(&full).map(|(name, _)| name))?.as_str();
    let is_list = component.all(name).any(|resource| matches!(resource.kind, Kind::List(_)));
    let nests = is_list && (path.contains(&name) || path.len() >= MAX_DEPTH);
    (!nests).then_some(name)
}

/// The resources that stand beside each other; the others are written inside lists. Of lists that only hold each
/// other the first stands.
fn tops(component: &Component) -> BTreeSet<&str> {
    let claimed = |list: &str, inside: &mut BTreeSet<String>| {
        claim(component, list, &mut Vec::new(), &mut Vec::new(), inside);
    };
    let names = component.names();
    let mut inside = BTreeSet::new();
    for name in &names {
        claimed(name, &mut inside);
    }
    let mut tops: BTreeSet<&str> = names.iter().copied().filter(|name| !inside.contains(*name)).collect();
    let mut written = BTreeSet::new();
    for name in &tops {
        claimed(name, &mut written);
    }
    for name in names {
        if !tops.contains(name) && !written.contains(name) {
            tops.insert(name);
            claimed(name, &mut written);
        }
    }
    tops
}

/// Whether the lists of a component write no more than so many resources, those that several lists hold counted for
/// each.
pub(crate) fn is_writable(component: &Component, limit: usize) -> bool {
    let mut left = limit;
    let fits = |list| count(component, list, &mut Vec::new(), &mut Vec::new(), &mut left);
    component.names().into_iter().all(fits)
}

/// Takes what a list writes inside itself from what is left; false where it is more.
fn count<'a>(
    component: &'a Component,
    list: &'a str,
    tags: &mut Vec<String>,
    path: &mut Vec<&'a str>,
    left: &mut usize,
) -> bool {
    for Resource { kind, value, .. } in component.all(list) {
        let Kind::List(templates) = kind else { continue };
        path.push(list);
        for tag in value.split_whitespace() {
            tags.push(tag.to_owned());
            for template in templates {
                let Some(rest) = left.checked_sub(1) else { return false };
                *left = rest;
                if let Some(name) = child(component, template, tags, path)
                    && !count(component, name, tags, path, left)
                {
                    return false;
                }
            }
            tags.pop();
        }
        path.pop();
    }
    true
}

/// Collects what a list writes inside itself, so that it is not written beside it.
fn claim<'a>(
    component: &'a Component,
    list: &'a str,
    tags: &mut Vec<String>,
    path: &mut Vec<&'a str>,
    inside: &mut BTreeSet<String>,
) {
    for Resource { kind, value, .. } in component.all(list) {
        let Kind::List(templates) = kind else { continue };
        path.push(list);
        for tag in value.split_whitespace() {
            tags.push(tag.to_owned());
            for template in templates {
                if let Some(name) = child(component, template, tags, path) {
                    inside.insert(name.to_owned());
                    claim(component, name, tags, path, inside);
                }
            }
            tags.pop();
        }
        path.pop();
    }
}

/// Text as XML carries it: once encoded, line ends and tabs as references so that no reader folds them.
fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\n' | '\r' | '\t') || !is_xml_char(c);
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            c if is_xml_char(c) => out.push(c),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
    Cow::Owned(out)
}
