//! Resources, their types, and where their values came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

use crate::context::{self, Contexts};
use crate::template;

/// The files and lines that gave a value, the latest first; empty for a schema's default.
pub type Derivation = Vec<(String, Vec<u32>)>;

/// The type of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// Any text.
    #[default]
    String,
    /// Decimal digits, perhaps after a minus sign.
    Integer,
    /// `yes`, or nothing for no.
    Boolean,
    /// Tags, and the templates that name each tag's own resources (`size_$`).
    List(Vec<String>),
    /// Text offered to other nodes' profiles.
    Publish,
    /// Text taken from other nodes' profiles; comes only in profiles made elsewhere.
    Subscribe,
}

impl Kind {
    /// Reads a type as schemas and `cfg:type` write it: `%boolean`, `string(why)`, `list: run_$ args_$`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, _, rest) = split_type(text)?;
        if name == "list" {
            let templates = rest.strip_prefix(':').unwrap_or(rest).split_whitespace();
            return template::list(templates).map(Self::List);
        }
        if !rest.is_empty() {
            return Err(format!("{rest:?} after the type is not supported; end the line after %{name}"));
        }
        match name {
            "string" => Ok(Self::String),
            "integer" => Ok(Self::Integer),
            "boolean" => Ok(Self::Boolean),
            "publish" => Ok(Self::Publish),
            "subscribe" => Ok(Self::Subscribe),
            _ => Err(format!("{text:?} is not a type; write string, integer, boolean or list")),
        }
    }

    /// The one way to write a value of this type, or what to write instead.
    pub(crate) fn canonical(&self, value: &str) -> Result<String, String> {
        match self {
            Self::Boolean => match value.to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => Ok("yes".to_owned()),
                "no" | "false" | "off" | "0" | "" => Ok(String::new()),
                _ => Err(format!("{value:?} is not a boolean; write yes or no")),
            },
            Self::Integer => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                    Ok(value.to_owned())
                } else {
                    Err(format!("{value:?} is not an integer; write digits, perhaps after a minus sign"))
                }
            }
            Self::List(_) => canonical_list(value),
            Self::String | Self::Publish | Self::Subscribe => Ok(value.to_owned()),
        }
    }
}

/// The name of a type, its comment, and what follows: `%string(why): rest`.
pub(crate) fn split_type(text: &str) -> Result<(&str, &str, &str), String> {
    let text = text.strip_prefix('%').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let Some(inner) = rest.strip_prefix('(') else { return Ok((name, "", rest)) };
    let (comment, rest) = inner.split_once(')').ok_or("the type's comment has no ')'; close it")?;
    Ok((name, comment.trim(), rest.trim_start()))
}

fn canonical_list(value: &str) -> Result<String, String> {
    let tags: Vec<&str> = value.split_whitespace().collect();
    let mut seen = BTreeSet::new();
    for tag in &tags {
        if !is_tag(tag) {
            return Err(format!("{tag:?} is not a tag; write only letters, digits and underscores"));
        }
        if !seen.insert(tag) {
            return Err(format!("the list has the tag {tag} twice; take one out"));
        }
    }
    Ok(tags.join(" "))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::List(templates) if templates.is_empty() => "list",
            Self::List(templates) => return write!(f, "list: {}", templates.join(" ")),
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// One resource with its final value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resource {
    /// The value in the one form its type allows; a list's tags with one space between them.
    pub value: String,
    /// The type.
    pub kind: Kind,
    /// What set or changed it.
    pub derivation: Derivation,
    /// The context expression under which it holds; none: always.
    pub context: Option<String>,
}

/// One component's resources, by flat name (`size_xvda1`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Component {
    /// The resources that hold in any context.
    pub resources: BTreeMap<String, Resource>,
    /// Other values of resources, each with the context under which it holds; never an empty list.
    pub variants: BTreeMap<String, Vec<Resource>>,
}

impl Component {
    /// Every value of a resource: the one for any context first.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &Resource> {
        self.resources.get(name).into_iter().chain(self.variants.get(name).into_iter().flatten())
    }

    /// The names of all resources, sorted, each once.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.resources.keys().chain(self.variants.keys()).map(String::as_str).collect()
    }

    /// The value that holds in some contexts: that of the highest priority.
    ///
    /// # Errors
    /// Two different values have that priority.
    pub(crate) fn chosen(&self, name: &str, contexts: &Contexts) -> Result<Option<&Resource>, String> {
        let mut best: Option<(i32, &Resource)> = None;
        for resource in self.all(name) {
            let priority = context::priority(resource.context.as_deref().unwrap_or_default(), contexts)?;
            match best {
                _ if priority < 0 => {}
                Some((high, other)) if high == priority && other.value != resource.value => {
                    return Err(format!(
                        "{name} has the values {:?} and {:?} in the same contexts; make their contexts exclude each other",
                        other.value, resource.value
                    ));
                }
                Some((high, _)) if high >= priority => {}
                _ => best = Some((priority, resource)),
            }
        }
        Ok(best.map(|(_, resource)| resource))
    }
}

/// Whether this can be the name of a component or resource.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_tag(text)
}

/// Whether this can be a tag of a list.
pub(crate) fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether XML 1.0 can carry the character at all.
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Writes a derivation as `file:line,line file2:line`.
pub(crate) fn derivation_text(derivation: &Derivation) -> String {
    let mut out = String::new();
    for (file, lines) in derivation {
        let gap = if out.is_empty() { "" } else { " " };
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let colon = if lines.is_empty() { "" } else { ":" };
        let _ = write!(out, "{gap}{file}{colon}{}", lines.join(","));
    }
    out
}

/// Reads what [`derivation_text`] writes; what is not `file:lines` is a file without lines.
pub(crate) fn parse_derivation(text: &str) -> Derivation {
    text.split_whitespace()
        .map(|part| {
            let lines = part.rsplit_once(':').and_then(|(file, lines)| {
                let lines: Option<Vec<u32>> = lines.split(',').map(|line| line.parse().ok()).collect();
                lines.map(|lines| (file.to_owned(), lines))
            });
            lines.unwrap_or_else(|| (part.to_owned(), Vec::new()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_upstream_writes_them() {
        for (text, kind) in [
            ("%boolean", Kind::Boolean),
            ("string(comment string describing value)", Kind::String),
            ("%integer", Kind::Integer),
            ("list: run_$ user_$ args_$", Kind::List(vec!["run_$".into(), "user_$".into(), "args_$".into()])),
            ("list", Kind::List(Vec::new())),
            ("publish", Kind::Publish),
        ] {
            assert_eq!(Kind::parse(text), Ok(kind), "{text}");
        }
        for text in ["%nonsense", "string(open", "%string: /x/", "list: foo"] {
            assert!(Kind::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_have_one_form() {
        for yes in ["yes", "TRUE", "On", "1"] {
            assert_eq!(Kind::Boolean.canonical(yes).as_deref(), Ok("yes"));
        }
        for no in ["no", "False", "OFF", "0", ""] {
            assert_eq!(Kind::Boolean.canonical(no).as_deref(), Ok(""));
        }
        assert!(Kind::Boolean.canonical("maybe").is_err());
        assert!(Kind::Integer.canonical("-12").is_ok());
        for bad in ["12x", "", "-", "+1"] {
            assert!(Kind::Integer.canonical(bad).is_err(), "{bad}");
        }
        assert_eq!(Kind::List(Vec::new()).canonical(" a\t b ").as_deref(), Ok("a b"));
        assert!(Kind::List(Vec::new()).canonical("a-b").is_err());
        assert!(Kind::List(Vec::new()).canonical("a a").is_err());
    }

    #[test]
    fn derivations_print_and_parse() {
        let text = "/x/ce:3 /x/site.h:5,9 (auto)";
        assert_eq!(derivation_text(&parse_derivation(text)), text);
    }
}
