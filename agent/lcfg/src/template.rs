//! Templates: `size_$` names one resource for every tag of a list.

use crate::glob;

/// More placeholders than this, or lists nested deeper, no client reads.
pub(crate) const MAX_DEPTH: usize = 5;

/// Checks the templates of a list.
pub(crate) fn list<'a>(templates: impl Iterator<Item = &'a str>) -> Result<Vec<String>, String> {
    templates.map(|template| check(template).map(|()| template.to_owned())).collect()
}

/// Says what is wrong with a template.
pub(crate) fn check(template: &str) -> Result<(), String> {
    let letters = template.starts_with(|c: char| c.is_ascii_alphabetic())
        && template.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    if !letters || !template.contains("_$") || field(template).contains('$') || template.contains("$$") {
        return Err(format!(
            "{template:?} is not a template; write a name and _$ for each tag, such as size_$"
        ));
    }
    if placeholders(template) > MAX_DEPTH {
        return Err(format!("{template:?} has more than {MAX_DEPTH} placeholders; nest less deeply"));
    }
    Ok(())
}

/// How many tags the template takes.
pub(crate) fn placeholders(template: &str) -> usize {
    template.matches('$').count()
}

/// The short name inside a record: the text before the first `_$`.
pub(crate) fn field(template: &str) -> &str {
    template.split("_$").next().unwrap_or(template)
}

/// The flat name for these tags, the outermost list's first; the innermost ones serve when the template takes
/// fewer, and `None` when it takes more.
pub(crate) fn fill(template: &str, tags: &[String]) -> Option<String> {
    let first = tags.len().checked_sub(placeholders(template))?;
    let mut tags = tags[first..].iter();
    let mut name = String::with_capacity(template.len() + 8);
    for c in template.chars() {
        if c == '$' {
            name.push_str(tags.next()?);
        } else {
            name.push(c);
        }
    }
    Some(name)
}

/// Whether the flat name could come from the template: each tag is one character at least.
pub(crate) fn matches(template: &str, name: &str) -> bool {
    glob::matches(&template.replace('$', "?*"), name)
}

/// The tag that made a flat name from a template with one placeholder.
pub(crate) fn tag<'a>(template: &str, name: &'a str) -> Option<&'a str> {
    let (head, tail) = template.split_once('$').filter(|(_, tail)| !tail.contains('$'))?;
    name.strip_prefix(head)?.strip_suffix(tail).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_outermost_tag_comes_first_and_the_innermost_fill_short_templates() {
        assert_eq!(fill("b_$_$", &tags(&["x", "y"])).as_deref(), Some("b_x_y"));
        assert_eq!(fill("size_$", &tags(&["hda", "hda1"])).as_deref(), Some("size_hda1"));
        assert_eq!(fill("b_$_$", &tags(&["x"])), None);
        assert_eq!(field("pw_name_$"), "pw_name");
    }

    #[test]
    fn names_find_their_templates() {
        assert!(matches("size_$", "size_xvda1"));
        assert!(matches("b_$_$", "b_x_y"));
        assert!(!matches("b_$_$", "b_x"));
        assert!(!matches("size_$", "size_"));
        assert!(matches("size", "size"));
        assert!(!matches("a_$_$_$_$_$x", &format!("a_{}", "_".repeat(50_000))));
        assert_eq!(tag("size_$", "size_xvda1"), Some("xvda1"));
        assert_eq!((tag("size_$", "size_"), tag("b_$_$", "b_x_y")), (None, None));
    }

    #[test]
    fn templates_without_a_placeholder_are_refused() {
        for bad in ["size", "$_a", "a_$$", "a-b_$", "a_$_$_$_$_$_$"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("a_$_$_$_$_$").is_ok());
    }
}
