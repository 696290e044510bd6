//! Schemas: the `.def` files that name a component's resources, their types and their defaults.
//!
//! `@name %type` or `@name template_$ …` gives the type, `name default` the default. A component without a schema
//! takes any resource, as a string. In the default of a template, `$` between `<%` and `%>` stands for the tag,
//! and `<%$%>` is the tag itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::Sources;
use crate::cpp::{self, Line, Texts};
use crate::report::{At, Report, nearest};
use crate::template;
use crate::values::{Kind, is_name, is_xml_char};

macro_rules! built_in {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../defs/", $name, ".def")))),*] };
}

/// The schemas that come with this crate; a site's `defaults/<component>.def` goes on top.
const BUILT_IN: [(&str, &str); 17] = built_in!(
    "apt" "auth" "boot" "client" "cron" "file" "fstab" "grub" "hosts" "install" "kernel" "network" "nfs" "ntp"
    "openssh" "profile" "updaterpms"
);

/// What a schema says of one resource or template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) default: String,
    /// The line that declares it, if the site's own schema does.
    pub(crate) at: Option<At>,
}

/// One component's schema, by resource name or template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl Schema {
    /// The entry for a flat name, and the name or template it is declared under.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        if let Some((key, entry)) = self.entries.get_key_value(name) {
            return Some((key, entry));
        }
        let fits = self.entries.iter().filter(|(key, _)| key.contains('$') && template::matches(key, name));
        let best = fits.max_by_key(|(key, _)| (template::field(key).len(), template::placeholders(key)));
        best.map(|(key, entry)| (key.as_str(), entry))
    }

    /// Whether some list makes its tags' resources with this template.
    pub(crate) fn is_owned(&self, template: &str) -> bool {
        self.entries
            .values()
            .any(|entry| matches!(&entry.kind, Kind::List(all) if all.iter().any(|one| one == template)))
    }

    /// What is wrong with a resource that is not here.
    pub(crate) fn unknown(&self, component: &str, name: &str) -> String {
        let hint = nearest(name, self.entries.keys().map(String::as_str)).map_or_else(
            || format!("declare it in lcfg/defaults/{component}.def or remove this line"),
            |near| format!("did you mean {component}.{near}?"),
        );
        format!("{component}.{name} is not in the component's schema; {hint}")
    }

    /// Reads a preprocessed `.def` on top of what is here.
    fn read(&mut self, lines: &[Line], site: bool, report: &mut Report) {
        for line in lines {
            if let Err(what) = self.line(line, site) {
                report.problem(line.at, what);
            }
        }
        let of_lists = |entry: &Entry| match &entry.kind {
            Kind::List(templates) => templates.clone(),
            _ => Vec::new(),
        };
        for template in self.entries.values().flat_map(of_lists).collect::<Vec<_>>() {
            self.entries.entry(template).or_default();
        }
    }

    fn line(&mut self, line: &Line, site: bool) -> Result<(), String> {
        let text = line.text.trim();
        if let Some(c) = text.chars().find(|c| !is_xml_char(*c)) {
            return Err(format!("{c:?} cannot stand in a profile; remove it"));
        }
        let (declares, text) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (name, rest) = (&text[..end], text[end..].trim());
        if name.contains('$') {
            template::check(name)?;
        } else if !is_name(name) {
            return Err(format!("{name:?} is not a resource; write @name %type, or name and its default"));
        }
        if !declares && rest.contains('$') && template::placeholders(name) != 1 && names_tag(rest) {
            return Err(format!(
                "the default of {name} cannot name a tag; write $ in <%...%> for one-tag templates only"
            ));
        }
        let kind = declares.then(|| declared(rest)).transpose()?;
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.at = site.then_some(line.at);
        match kind {
            Some(kind) => entry.kind = kind,
            None => rest.clone_into(&mut entry.default),
        }
        Ok(())
    }
}

/// The type after `@name`: none that starts with `%` means a list and its templates.
fn declared(text: &str) -> Result<Kind, String> {
    let kind = if text.starts_with('%') {
        Kind::parse(text)?
    } else {
        Kind::List(template::list(text.split_whitespace())?)
    };
    match kind {
        Kind::Publish | Kind::Subscribe => {
            Err(format!("%{kind}: spanning maps are not supported; write %string and a value"))
        }
        kind => Ok(kind),
    }
}

/// Whether a default has a `$` in a reference.
fn names_tag(text: &str) -> bool {
    fill_default(text, "x") != text
}

/// A template's default for one tag.
pub(crate) fn fill_default<'a>(default: &'a str, tag: &str) -> Cow<'a, str> {
    if !default.contains("<%") {
        return Cow::Borrowed(default);
    }
    let mut out = String::new();
    let mut rest = default;
    while let Some((before, reference)) = rest.split_once("<%") {
        let Some((inside, after)) = reference.split_once("%>") else { break };
        out.push_str(before);
        if inside == "$" {
            out.push_str(tag);
        } else {
            out.extend(["<%", &inside.replace('$', tag), "%>"]);
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// All schemas of one compile.
#[derive(Debug)]
pub(crate) struct Schemas {
    all: BTreeMap<String, Cow<'static, Schema>>,
}

impl Schemas {
    /// The built-in ones, and the site's on top of them.
    pub(crate) fn load(texts: &mut Texts, report: &mut Report) -> Self {
        let mut all: BTreeMap<String, Cow<'static, Schema>> =
            built_in().iter().map(|(name, schema)| ((*name).to_owned(), Cow::Borrowed(schema))).collect();
        let sources = texts.sources;
        for (path, text) in sources.iter() {
            let name = path.strip_prefix("defaults/").and_then(|name| name.strip_suffix(".def"));
            // Names such as ngeneric-1.def are for other schemas to include.
            let Some(name) = name.filter(|name| is_name(name)) else { continue };
            texts.reads.insert(path.to_owned());
            let at = report.open(format!("lcfg/{path}"), None);
            let lines = cpp::preprocess(texts, report, at, text, &["defaults", "include"]);
            all.entry(name.to_owned()).or_default().to_mut().read(&lines, true, report);
        }
        Self { all }
    }

    pub(crate) fn get(&self, component: &str) -> Option<&Schema> {
        self.all.get(component).map(AsRef::as_ref)
    }

    /// The components that have a schema.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }
}

fn built_in() -> &'static [(&'static str, Schema)] {
    static PARSED: OnceLock<Vec<(&'static str, Schema)>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let mut report = Report::default();
        read_built_in(&mut report)
    })
}

fn read_built_in(report: &mut Report) -> Vec<(&'static str, Schema)> {
    let sources = Sources::new();
    let mut texts = Texts { sources: &sources, site_header: "", reads: BTreeSet::new() };
    let mut read = |(name, text): (&'static str, &str)| {
        let at = report.open(format!("{name}.def"), None);
        let lines = cpp::preprocess(&mut texts, report, at, text, &["defaults"]);
        let mut schema = Schema::default();
        schema.read(&lines, false, report);
        (name, schema)
    };
    BUILT_IN.into_iter().map(&mut read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_schema_is_read_as_upstream_writes_it() {
        let mut report = Report::default();
        let at = report.open("x.def", None);
        let text = "@foo %integer\nfoo\n@bar %boolean\nbar yes\n@baz\nbaz\n@quux sub1_$ sub2_$\nquux\nsub1_$ <%$%>-<%a.b_$%>\n";
        let lines: Vec<Line> = text
            .lines()
            .enumerate()
            .map(|(i, text)| Line { at: at.on(i + 1), text: text.to_owned() })
            .collect();
        let mut schema = Schema::default();
        schema.read(&lines, true, &mut report);
        assert!(report.is_clean());
        assert_eq!(schema.entries["foo"].kind, Kind::Integer);
        assert_eq!(schema.entries["bar"].default, "yes");
        assert_eq!(schema.entries["baz"].kind, Kind::List(Vec::new()));
        assert_eq!(schema.entries["quux"].kind, Kind::List(vec!["sub1_$".into(), "sub2_$".into()]));
        let (key, entry) = schema.find("sub1_x").unwrap();
        assert_eq!((key, fill_default(&entry.default, "x").as_ref()), ("sub1_$", "x-<%a.b_x%>"));
        assert!(schema.find("sub2").is_none());
        assert!(schema.unknown("c", "fou").contains("did you mean c.foo?"));
        for bad in ["@foo %nonsense", "@foo bar", "fo-o 1", "@foo %publish", "x_$_$ <%$%>", "x \u{1}"] {
            assert!(schema.line(&Line { at, text: bad.to_owned() }, true).is_err(), "{bad}");
        }
    }
}
