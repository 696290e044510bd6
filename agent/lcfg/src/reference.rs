//! The language's reference, for people: what is ours in it, and the built-in schemas.

use std::fmt::Write as _;

use crate::schema::{Entry, Rule, Schema, Spans};
use crate::schemas::{BUILT_IN, built_in};
use crate::values::Kind;

/// What the language's own page says.
const LANGUAGE: &str = include_str!("language.md");

/// The language, and every component with its resources, their types, defaults and meaning, as Markdown.
pub fn reference() -> String {
    let mut out = LANGUAGE.to_owned();
    out.push_str(
        "\n# Components\n\n`$` stands for a tag of the list that makes the resource. A site's \
         `lcfg/defaults/<component>.def` goes on top of these, or adds a component.\n",
    );
    for (name, schema) in built_in() {
        let text = BUILT_IN.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text);
        component(&mut out, name, schema, text);
    }
    out
}

fn component(out: &mut String, name: &str, schema: &Schema, text: &str) {
    let _ = write!(out, "\n## {name}\n\n{}\n\n", comments(text).next().map_or("", |(comment, _)| comment));
    out.push_str("| resource | type | default | |\n| --- | --- | --- | --- |\n");
    // In the order of the file, which goes from the whole to its parts.
    for (comment, line) in comments(text) {
        let Some(declared) = line.strip_prefix('@') else { continue };
        let resource = declared.split_whitespace().next().unwrap_or_default();
        let Some(entry) = schema.entries.get(resource) else { continue };
        let default = if entry.default.is_empty() { String::new() } else { code(&entry.default) };
        let _ = writeln!(out, "| {} | {} | {default} | {} |", code(resource), kind(entry), cell(comment));
    }
}

/// The comments of a schema, each with the line below it.
fn comments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("/*").skip(1).filter_map(|part| {
        let (comment, rest) = part.split_once("*/")?;
        Some((comment.trim(), rest.trim_start_matches('\n').lines().next().unwrap_or_default()))
    })
}

fn kind(entry: &Entry) -> String {
    let fields = |templates: &[String]| templates.iter().map(|one| code(one)).collect::<Vec<_>>().join(" ");
    let kind = match (&entry.kind, &entry.spans) {
        (_, Some(Spans::Publish(map))) => format!("published in {}", code(map)),
        (Kind::List(templates), Some(Spans::Subscribe(map))) => {
            format!("list made from {} of {}", code(map), fields(templates))
        }
        (Kind::List(templates), None) if templates.is_empty() => "list".to_owned(),
        (Kind::List(templates), _) => format!("list of {}", fields(templates)),
        (kind, _) => kind.to_string(),
    };
    entry.rule.as_ref().map(Rule::pattern).map_or(kind.clone(), |pattern| format!("{kind} {}", code(pattern)))
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// A table's cells are on one line and end at a bar.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
