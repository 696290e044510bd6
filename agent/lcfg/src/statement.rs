//! One line of a source: `component.resource value`, or `!component.resource mMACRO(...)`; a context in brackets
//! right behind the name (`component.resource[install] value`) makes it a value for that context alone.

use crate::context;
use crate::mutate::Mutation;
use crate::values::{is_name, is_xml_char};

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) component: String,
    pub(crate) resource: String,
    /// The context expression; none: for any context.
    pub(crate) context: Option<String>,
    pub(crate) act: Act,
}

/// Setting a value, or changing the one there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Assign(String),
    Mutate(Mutation),
}

/// Reads a preprocessed line; the error says what to write.
pub(crate) fn parse(text: &str) -> Result<Statement, String> {
    let text = text.trim();
    if text.starts_with('#') {
        return Err(misplaced(text));
    }
    if let Some(c) = text.chars().find(|c| !is_xml_char(*c)) {
        return Err(format!("{c:?} cannot stand in a profile; remove it"));
    }
    let (mutates, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim_start()));
    let end = text.find(|c: char| c.is_whitespace() || c == '[').unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let name = key.split_once('.').filter(|(component, resource)| is_name(component) && is_name(resource));
    let Some((component, resource)) = name else {
        return Err(format!("{key:?} is not a resource; write component.resource and a value"));
    };
    let (context, value) = bracketed(rest).map_err(|what| format!("{key}: {what}"))?;
    let value = value.trim();
    let act = if mutates {
        Act::Mutate(Mutation::parse(value).map_err(|what| format!("!{key}: {what}"))?)
    } else {
        if looks_like_mutation(value) {
            return Err(format!(
                "{key} would be set to the text {value:?}; to change a value write !{key} {value}"
            ));
        }
        Act::Assign(value.to_owned())
    };
    Ok(Statement { component: component.to_owned(), resource: resource.to_owned(), context, act })
}

/// The context in brackets at the start, if there is one, and what follows.
fn bracketed(text: &str) -> Result<(Option<String>, &str), String> {
    let Some(inner) = text.strip_prefix('[') else { return Ok((None, text)) };
    let mut quote = None;
    let end = inner.find(|c: char| {
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        quote.is_none() && c == ']'
    });
    let end = end.ok_or("the context has no ']'; close it")?;
    let (expression, rest) = (inner[..end].trim(), &inner[end + 1..]);
    if expression.is_empty() || !(rest.is_empty() || rest.starts_with(char::is_whitespace)) {
        return Err("a context stands in brackets before a space; write [install] and the value".to_owned());
    }
    context::check(expression)?;
    Ok((Some(expression.to_owned()), rest))
}

fn misplaced(text: &str) -> String {
    if text.starts_with("#pragma") {
        "#pragma LCFG belongs into a package list; remove it here".to_owned()
    } else {
        format!(
            "{text:?} is not a resource; a directive's # stands in the first column, comments are /* ... */"
        )
    }
}

/// A known mutation as a plain value is a forgotten `!`.
fn looks_like_mutation(value: &str) -> bool {
    value.ends_with(')') && value.split_once('(').is_some_and(|(name, _)| Mutation::is_known(name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = parse("  hardware.mod_bond0opts \t options bond0 mode=1 ").unwrap();
        assert_eq!((read.component.as_str(), read.resource.as_str()), ("hardware", "mod_bond0opts"));
        assert_eq!(read.act, Act::Assign("options bond0 mode=1".to_owned()));
        assert_eq!(parse("a.b").unwrap().act, Act::Assign(String::new()));
        assert!(matches!(parse("!a.b  mADD(x)").unwrap().act, Act::Mutate(_)));
        let read = parse("a.b[ net='a ]' & !install ] x [y]").unwrap();
        assert_eq!(read.context.as_deref(), Some("net='a ]' & !install"));
        assert_eq!(read.act, Act::Assign("x [y]".to_owned()));
        assert!(matches!(parse("!a.b[install]  mADD(x)").unwrap().act, Act::Mutate(_)));
        for (bad, hint) in [
            ("fstab", "write component.resource"),
            ("fstab.dis-ks x", "write component.resource"),
            ("1a.b x", "write component.resource"),
            ("a.b[install x", "close it"),
            ("a.b[] x", "write [install]"),
            ("a.b[install]x", "write [install]"),
            ("a.b[a=] x", "is not a context"),
            ("a.b mADD(x)", "write !a.b mADD(x)"),
            ("!a.b x", "is not a mutation"),
            (" #define A", "first column"),
            ("a.b \u{1}", "cannot stand in a profile"),
            ("#pragma LCFG context \"x\"", "package list"),
        ] {
            let what = parse(bad).unwrap_err();
            assert!(what.contains(hint), "{bad}: {what}");
        }
    }
}
