//! Changes single values of a node in the text of `site.toml`: what people have written around them stays.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{NodeName, Problem};

/// What becomes of a key of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// A number.
    Number(u32),
    /// A text.
    Text(String),
    /// The key goes: what holds without it holds again.
    Unset,
}

/// What becomes of a node, by key of `[[node]]`.
pub type Settings = BTreeMap<String, Setting>;

type Table<'t> = DeTable<'t>;

/// The text of `site.toml` with a node's keys set. Whether the values are right is seen when it is read again.
///
/// # Errors
/// There is no such node, or its section is not one that a line can be put into.
pub fn edit_node(text: &str, node: &NodeName, settings: &Settings) -> Result<String, Problem> {
    let mut text = text.to_owned();
    for (key, setting) in settings {
        text = edit(&text, node, key, setting)?;
    }
    Ok(text)
}

fn edit(text: &str, node: &NodeName, key: &str, setting: &Setting) -> Result<String, Problem> {
    let plain = text.trim_start_matches('\u{feff}');
    let mark = text.len() - plain.len();
    let (table, _) = DeTable::parse_recoverable(plain);
    let section = section(table.get_ref(), node).ok_or_else(|| {
        Problem::at("site.toml", 0, format!("no node is named {node}; write one that is there"))
    })?;
    let keys = section.get_ref().as_table();
    if plain[section.span()].starts_with('{') {
        let line = plain[..section.span().start].lines().count().max(1);
        let what = format!("{node} is not a section of its own; write it as [[node]]");
        return Err(Problem::at("site.toml", line, what));
    }
    let found = keys.and_then(|keys| keys.iter().find(|(name, _)| name.get_ref() == key));
    let last = keys.into_iter().flat_map(Table::values).map(|value| value.span().end).max();
    let (place, new) = match (found, value(setting)) {
        (Some((_, old)), Some(new)) => (old.span(), new),
        (Some((name, old)), None) => (lines(plain, name.span().start..old.span().end), String::new()),
        (None, Some(new)) => {
            let place = lines(plain, 0..last.unwrap_or(section.span().end));
            let (end, before) = if plain[..place.end].ends_with('\n') { ("\n", "") } else { ("", "\n") };
            let end = if plain[..place.end].ends_with("\r\n") { "\r\n" } else { end };
            (place.end..place.end, format!("{before}{key} = {new}{end}"))
        }
        (None, None) => return Ok(text.to_owned()),
    };
    let (before, after) = (&text[..mark + place.start], &text[mark + place.end..]);
    Ok([before, &new, after].concat())
}

fn section<'t>(table: &'t Table<'t>, node: &NodeName) -> Option<&'t Spanned<DeValue<'t>>> {
    let nodes = table.get("node")?.get_ref().as_array()?;
    nodes.iter().find(|section| {
        let name = section.get_ref().as_table().and_then(|keys| keys.get("name"));
        name.and_then(|name| name.get_ref().as_str()) == Some(node.as_str())
    })
}

fn value(setting: &Setting) -> Option<String> {
    match setting {
        Setting::Number(number) => Some(number.to_string()),
        Setting::Text(text) => Some(toml::Value::from(text.as_str()).to_string()),
        Setting::Unset => None,
    }
}

/// The whole lines that hold a range, the last one's end included.
fn lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[range.end..].find('\n').map_or(text.len(), |at| range.end + at + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Site;

    fn set(text: &str, node: &str, key: &str, setting: Setting) -> Result<String, Problem> {
        edit_node(text, &node.parse().expect("a name"), &Settings::from([(key.to_owned(), setting)]))
    }

    const BEFORE: &str = "# nodes\n[[node]]\nname = \"ce\" # first\nmemory = '512MiB'  # little\n\n# next\n\
                          [[node]]\nname = \"se\"\nweight = 7 # few\ncap = 5";

    #[test]
    fn nothing_but_the_value_changes() {
        let text = |text: &str| Setting::Text(text.to_owned());
        for (node, key, setting, from, to) in [
            ("ce", "memory", text("1GiB"), "'512MiB'", "\"1GiB\""),
            ("ce", "weight", Setting::Number(64), "# little\n", "# little\nweight = 64\n"),
            ("se", "weight", Setting::Number(64), "7 #", "64 #"),
            ("se", "weight", Setting::Unset, "weight = 7 # few\n", ""),
            ("se", "vcpus", Setting::Number(2), "cap = 5", "cap = 5\nvcpus = 2"),
            ("ce", "cap", Setting::Unset, "", ""),
        ] {
            let after = set(BEFORE, node, key, setting.clone()).expect("edited");
            assert_eq!(after, BEFORE.replacen(from, to, 1), "{node} {key} {setting:?}");
            let windows = format!("\u{feff}{}", BEFORE.replace('\n', "\r\n"));
            let after = set(&windows, node, key, setting).expect("edited");
            let expected = windows.replacen(&from.replace('\n', "\r\n"), &to.replace('\n', "\r\n"), 1);
            assert_eq!(after.replace("\r\n", "\n"), expected.replace("\r\n", "\n"), "{node} {key}");
        }
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        let wrong =
            |text: &str| set(text, "wn", "cap", Setting::Number(5)).map_err(|problem| problem.to_string());
        let what = "site.toml: no node is named wn; write one that is there";
        assert_eq!(wrong(BEFORE), Err(what.to_owned()));
        let what = "site.toml:2: wn is not a section of its own; write it as [[node]]";
        assert_eq!(wrong("schema = 1\nnode = [{ name = \"wn\" }]\n"), Err(what.to_owned()));
    }

    proptest::proptest! {
        /// Whatever is set is what is read, and nothing else of the site has changed.
        #[test]
        fn what_is_set_is_read(which in 0..2_usize, weight in 1..10_000_u32, cap in proptest::option::of(1..100_u32)) {
            let text = include_str!("../../tests/golden/full/site.toml");
            let mut site = Site::parse(text).expect("a right file");
            let node = &mut site.nodes[which];
            (node.limits.weight, node.limits.cap) = (weight, cap);
            let settings = Settings::from([
                ("weight".to_owned(), Setting::Number(weight)),
                ("cap".to_owned(), cap.map_or(Setting::Unset, Setting::Number)),
            ]);
            let edited = edit_node(text, &node.name, &settings).expect("edited");
            proptest::prop_assert_eq!(Site::parse(&edited), Ok(site));
        }
    }
}
