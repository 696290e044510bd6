//! The writer: every value in the long form, single-encoded, in one order.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{RECORD, date, escape_tag};
use crate::template::{self, MAX_DEPTH};
use crate::values::{Component, Kind, Resource, derivation_text, is_xml_char};
use crate::{PackageSpec, Profile};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <profile xmlns=\"http://www.lcfg.org/namespace/profile-1.1\"\n         \
    xmlns:cfg=\"http://www.lcfg.org/namespace/cfg-1.0\">\n <lcfg>\n";

/// Writes a profile.
pub(crate) fn write(profile: &Profile) -> String {
    let published = &profile.published;
    let mut out = String::from(HEAD);
    let meta = |out: &mut String, name: &str, value: &str| {
        let _ = writeln!(out, "  <{name}>{}</{name}>", escape(value));
    };
    meta(&mut out, "published_by", &published.by);
    meta(&mut out, "published_at", &date::write(published.at));
    meta(&mut out, "server_version", &published.version);
    out.push_str("  <components>\n");
    for (name, component) in &profile.components {
        let _ = writeln!(out, "   <{name}>");
        Writer { out: &mut out, component }.component();
        let _ = writeln!(out, "   </{name}>");
    }
    out.push_str("  </components>\n  <packages>\n");
    for spec in &profile.packages {
        package(&mut out, spec);
    }
    out.push_str("  </packages>\n");
    meta(&mut out, "last_modified", &date::write(published.last_modified));
    meta(&mut out, "last_modified_file", &published.last_modified_file);
    out.push_str(" </lcfg>\n</profile>\n");
    out
}

fn package(out: &mut String, spec: &PackageSpec) {
    out.push_str("   <package");
    if let Some(context) = &spec.context {
        let _ = write!(out, " cfg:context=\"{}\"", escape(context));
    }
    derivation(out, &derivation_text(&spec.derivation));
    let part = |part: &Option<String>| escape(part.as_deref().unwrap_or("*"));
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

struct Writer<'a> {
    out: &'a mut String,
    component: &'a Component,
}

impl<'a> Writer<'a> {
    fn component(&mut self) {
        let tops = tops(self.component);
        for (name, resource) in &self.component.resources {
            if tops.contains(name.as_str()) {
                self.out.push_str("    ");
                self.resource(name, name, resource, &mut Vec::new(), &mut Vec::new());
                self.out.push('\n');
            }
        }
    }

    /// Writes a resource under the short name it has where it stands.
    fn resource(
        &mut self,
        field: &str,
        name: &'a str,
        resource: &'a Resource,
        tags: &mut Vec<String>,
        path: &mut Vec<&'a str>,
    ) {
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
            path.push(name);
            for tag in resource.value.split_whitespace() {
                tags.push(tag.to_owned());
                let _ = write!(self.out, "<{field}{RECORD} cfg:name=\"{}\">", escape_tag(tag));
                for template in templates {
                    if let Some((name, child)) = child(self.component, template, tags, path) {
                        self.resource(template::field(template), name, child, tags, path);
                    }
                }
                let _ = write!(self.out, "</{field}{RECORD}>");
                tags.pop();
            }
            path.pop();
        } else {
            self.out.push_str(&escape(&resource.value));
        }
        let _ = write!(self.out, "</{field}>");
    }
}

/// A tag's resource, if it is there and not one of the lists around it.
fn child<'a>(
    component: &'a Component,
    template: &str,
    tags: &[String],
    path: &[&str],
) -> Option<(&'a str, &'a Resource)> {
    let name = template::fill(template, tags)?;
    let (name, resource) = component.resources.get_key_value(&name)?;
    let nests =
        matches!(resource.kind, Kind::List(_)) && (path.contains(&name.as_str()) || path.len() >= MAX_DEPTH);
    (!nests).then_some((name.as_str(), resource))
}

/// The resources that stand beside each other; the others are written inside lists. Of lists that only hold each
/// other the first stands.
fn tops(component: &Component) -> BTreeSet<&str> {
    let claimed = |list: &str, inside: &mut BTreeSet<String>| {
        claim(component, list, &mut Vec::new(), &mut Vec::new(), inside);
    };
    let names = || component.resources.keys().map(String::as_str);
    let mut inside = BTreeSet::new();
    for name in names() {
        claimed(name, &mut inside);
    }
    let mut tops: BTreeSet<&str> = names().filter(|name| !inside.contains(*name)).collect();
    let mut written = BTreeSet::new();
    for name in &tops {
        claimed(name, &mut written);
    }
    for name in names() {
        if !tops.contains(name) && !written.contains(name) {
            tops.insert(name);
            claimed(name, &mut written);
        }
    }
    tops
}

/// Collects what a list writes inside itself, so that it is not written beside it.
fn claim<'a>(
    component: &'a Component,
    list: &'a str,
    tags: &mut Vec<String>,
    path: &mut Vec<&'a str>,
    inside: &mut BTreeSet<String>,
) {
    let Some(Resource { kind: Kind::List(templates), value, .. }) = component.resources.get(list) else {
        return;
    };
    path.push(list);
    for tag in value.split_whitespace() {
        tags.push(tag.to_owned());
        for template in templates {
            if let Some((name, _)) = child(component, template, tags, path) {
                inside.insert(name.to_owned());
                claim(component, name, tags, path, inside);
            }
        }
        tags.pop();
    }
    path.pop();
}

/// Text as XML carries it: once encoded, line ends and tabs as references so that no reader folds them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
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
    out
}
