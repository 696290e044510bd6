//! Schemas: the `.def` files that name a component's resources, their types and their defaults.
//!
//! `@name %type` or `@name template_$ …` gives the type, `name default` the default. A component without a schema
//! takes any resource, as a string. In the default of a template, `$` between `<%` and `%>` stands for the tag,
//! and `<%$%>` is the tag itself.
//!
//! `@name %string(what is right): /pattern/` and `@name %integer: /pattern/` refuse values that do not fit the pattern
//! (anywhere in the value; `^` and `$` bind it to the ends). `@name %publish: MAP` offers the value to other nodes,
//! `@list %subscribe: MAP field_$ …` makes a list of the nodes that offer something there: see [`crate::maps`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use regex_lite::{Regex, RegexBuilder};

use crate::cpp::Line;
use crate::report::{At, Report, nearest};
use crate::template;
use crate::values::{Kind, is_name, is_xml_char, split_type};

/// How large a pattern may be, in bytes of what it is compiled to.
const MAX_PATTERN: usize = 32 * 1024;

/// What a schema says of one resource or template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) default: String,
    pub(crate) spans: Option<Spans>,
    pub(crate) rule: Option<Rule>,
    /// The line that declares it, if the site's own schema does.
    pub(crate) at: Option<At>,
}

impl Entry {
    /// Whether both mean the same, wherever they stand.
    fn is_like(&self, other: &Self) -> bool {
        let rule =
            |entry: &Self| entry.rule.as_ref().map(|rule| (rule.pattern.clone(), rule.comment.clone()));
        let one =
            |entry: &Self| (entry.kind.clone(), entry.default.clone(), entry.spans.clone(), rule(entry));
        one(self) == one(other)
    }
}

/// What a resource has to do with a spanning map, whose name may hold references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spans {
    Publish(String),
    Subscribe(String),
}

/// A pattern that values must fit.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    regex: Regex,
    pattern: String,
    comment: String,
}

impl Rule {
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Says what is wrong with a value.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        if self.regex.is_match(value) {
            return Ok(());
        }
        let hint = if self.comment.is_empty() { "a value that does" } else { &self.comment };
        Err(format!("{value:?} does not fit /{}/; write {hint}", self.pattern))
    }
}

/// One component's schema, by resource name or template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// The templates by the text before their first `_$`.
    by_field: BTreeMap<String, Vec<String>>,
    /// The templates that some list makes its tags' resources with.
    owned: BTreeSet<String>,
}

impl Schema {
    /// The entry for a flat name, and the name or template it is declared under.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        if let Some((key, entry)) = self.entries.get_key_value(name) {
            return Some((key, entry));
        }
        // Of several templates that fit, the one with the longest field counts.
        name.rmatch_indices('_').find_map(|(end, _)| {
            let fits = |key: &&String| template::matches(key, name);
            let key = self.by_field.get(&name[..end])?.iter().filter(fits);
            let key = key.max_by_key(|key| template::placeholders(key))?;
            self.entries.get_key_value(key).map(|(key, entry)| (key.as_str(), entry))
        })
    }

    /// Whether some list makes its tags' resources with this template.
    pub(crate) fn is_owned(&self, template: &str) -> bool {
        self.owned.contains(template)
    }

    /// The subscribed lists that make resources with this template.
    pub(crate) fn subscriptions<'a>(&'a self, template: &'a str) -> impl Iterator<Item = &'a str> {
        let makes = move |entry: &Entry| {
            matches!(entry.spans, Some(Spans::Subscribe(_)))
                && matches!(&entry.kind, Kind::List(all) if all.iter().any(|one| one == template))
        };
        let owned = self.is_owned(template);
        let all = self.entries.iter().filter(move |(_, entry)| owned && makes(entry));
        all.map(|(list, _)| list.as_str())
    }

    /// The resources that are offered to other nodes.
    pub(crate) fn published(&self) -> impl Iterator<Item = &str> {
        let offered = |entry: &Entry| matches!(entry.spans, Some(Spans::Publish(_)));
        self.entries.iter().filter(move |(_, entry)| offered(entry)).map(|(name, _)| name.as_str())
    }

    /// What is wrong with a resource that is not here.
    pub(crate) fn unknown(&self, component: &str, name: &str) -> String {
        let hint = nearest(name, self.entries.keys().map(String::as_str)).map_or_else(
            || format!("declare it in lcfg/defaults/{component}.def or remove this line"),
            |near| format!("did you mean {component}.{near}?"),
        );
        format!("{component}.{name} is not in the component's schema; {hint}")
    }

    /// Whether both say the same of every resource.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(a, b)| a.0 == b.0 && a.1.is_like(b.1))
    }

    /// Reads a preprocessed `.def` on top of what is here.
    pub(crate) fn read(&mut self, lines: &[Line], site: bool, report: &mut Report) {
        for line in lines {
            if let Err(what) = self.line(line, site) {
                report.problem(line.at, what);
            }
        }
        let of_lists = |entry: &Entry| match &entry.kind {
            Kind::List(templates) => templates.clone(),
            _ => Vec::new(),
        };
        self.owned = self.entries.values().flat_map(of_lists).collect();
        for template in &self.owned {
            self.entries.entry(template.clone()).or_default();
        }
        self.by_field.clear();
        for key in self.entries.keys().filter(|key| key.contains('$')) {
            self.by_field.entry(template::field(key).to_owned()).or_default().push(key.clone());
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
        let read = declares.then(|| declared(rest)).transpose()?;
        if name.contains('$') && read.as_ref().is_some_and(|read| read.spans.is_some()) {
            return Err(format!("{name} is a template; publish and subscribe with resources of one name"));
        }
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.at = site.then_some(line.at);
        match read {
            Some(Entry { kind, spans, rule, .. }) => {
                (entry.kind, entry.spans, entry.rule) = (kind, spans, rule);
            }
            None => rest.clone_into(&mut entry.default),
        }
        Ok(())
    }
}

/// The type after `@name`: none that starts with `%` means a list and its templates.
fn declared(text: &str) -> Result<Entry, String> {
    let of_kind = |kind| Entry { kind, ..Entry::default() };
    if !text.starts_with('%') {
        return template::list(text.split_whitespace()).map(Kind::List).map(of_kind);
    }
    let (name, comment, rest) = split_type(text)?;
    match (name, rest.strip_prefix(':').map(str::trim)) {
        ("publish", Some(map)) => {
            let (map, more) = map_name(map)?;
            if !more.is_empty() {
                return Err(format!("{more:?} after the map; write %publish: MAP"));
            }
            Ok(Entry { spans: Some(Spans::Publish(map)), ..of_kind(Kind::Publish) })
        }
        ("subscribe", Some(map)) => {
            let (map, templates) = map_name(map)?;
            let kind = Kind::List(template::list(templates.split_whitespace())?);
            Ok(Entry { spans: Some(Spans::Subscribe(map)), ..of_kind(kind) })
        }
        ("publish" | "subscribe", None) => {
            Err(format!("%{name} needs a spanning map; write %{name}: hosts/all"))
        }
        ("string" | "integer", Some(pattern)) => {
            let rule = Some(rule(pattern, comment)?);
            Ok(Entry { rule, ..of_kind(Kind::parse(name)?) })
        }
        _ => Kind::parse(text).map(of_kind),
    }
}

/// A map's name, which may hold references, and what follows it.
fn map_name(text: &str) -> Result<(String, &str), String> {
    let mut inside = false;
    let end = text.char_indices().find(|(i, c)| {
        inside = (inside || text[*i..].starts_with("<%")) && !text[..*i].ends_with("%>");
        !inside && c.is_whitespace()
    });
    let (name, rest) = text.split_at(end.map_or(text.len(), |(end, _)| end));
    if name.is_empty() {
        return Err("the spanning map has no name; write one, such as hosts/all".to_owned());
    }
    Ok((name.to_owned(), rest.trim()))
}

fn rule(text: &str, comment: &str) -> Result<Rule, String> {
    let pattern = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let pattern = pattern
        .ok_or_else(|| format!("{text:?} is not a pattern; write it between slashes, as /^[a-z]+$/"))?;
    // A large pattern takes long to look for, and a value may be long too.
    let regex = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
    let regex = regex.map_err(|error| format!("/{pattern}/ is not a pattern: {error}"))?;
    Ok(Rule { regex, pattern: pattern.to_owned(), comment: comment.to_owned() })
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

#[cfg(test)]
mod tests {
    use super::*;

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
        for good in ["@p %publish: <% a.b %>/x", "@s %subscribe: m p_$", "@r %string(a word): /^[a-z]+$/"] {
            schema.line(&Line { at, text: good.to_owned() }, true).unwrap();
        }
        assert_eq!(schema.entries["p"].spans, Some(Spans::Publish("<% a.b %>/x".to_owned())));
        assert_eq!(schema.entries["s"].spans, Some(Spans::Subscribe("m".to_owned())));
        let rule = schema.entries["r"].rule.clone().unwrap();
        assert_eq!(rule.check("x1").unwrap_err(), "\"x1\" does not fit /^[a-z]+$/; write a word");
        assert!(rule.check("x").is_ok());
        assert!(schema.find("sub2").is_none());
        assert!(schema.unknown("c", "fou").contains("did you mean c.foo?"));
        for bad in [
            "@foo %nonsense",
            "@foo bar",
            "fo-o 1",
            "@foo %publish",
            "@foo %publish: a b",
            "@a_$ %publish: m",
            "@foo %subscribe:",
            "@foo %string: x",
            "@foo %string: /(/",
            "x_$_$ <%$%>",
            "x \u{1}",
        ] {
            assert!(schema.line(&Line { at, text: bad.to_owned() }, true).is_err(), "{bad}");
        }
    }
}
