//! Reads values out of a TOML tree and keeps every problem with its line, where serde would stop at the first.

use std::collections::BTreeSet;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use crate::Problem;

const FILE: &str = "site.toml";
/// Keys whose value needs a unit, and a likely one.
const UNITS: &[(&str, &str)] = &[
    ("memory", "MiB"),
    ("disk", "MiB"),
    ("min-size", "MiB"),
    ("max-size", "MiB"),
    ("disk-rate", "MiB/s"),
    ("network-rate", "Mbit/s"),
];

/// A value and the line it stands on.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// The lines of the file and the problems found so far.
#[derive(Debug)]
pub(super) struct Reader {
    starts: Vec<usize>,
    /// Lines that are no TOML: what was guessed of them is not judged.
    broken: BTreeSet<usize>,
    problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { starts, broken: BTreeSet::new(), problems: Vec::new() }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|newline| *newline < offset) + 1
    }

    pub(super) fn problem(&mut self, line: usize, what: impl Into<String>) {
        if !self.broken.contains(&line) {
            self.problems.push(Problem::at(FILE, line, what));
        }
    }

    /// Something is not there; not said of a file with broken lines, since it may stand in one of those.
    pub(super) fn missing(&mut self, line: usize, what: impl Into<String>) {
        if self.broken.is_empty() {
            self.problem(line, what);
        }
    }

    /// Takes in what the TOML parser said, one problem a line.
    pub(super) fn syntax(&mut self, text: &str, errors: &[toml::de::Error]) {
        for error in errors {
            let line = error.span().map_or(0, |span| self.line(span.start));
            let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            self.problem(line, syntax_problem(written, error.message()));
            self.broken.insert(line);
        }
    }

    /// All problems in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }
}

/// What to say of a line that is no TOML; most often quotes are missing.
fn syntax_problem(written: &str, message: &str) -> String {
    if message.starts_with("duplicate key") {
        return "the same key stands here a second time; keep one of the two".to_owned();
    }
    let (key, value) = written.split_once('=').unwrap_or_default();
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or_default().trim());
    if !key.is_empty() && value.starts_with(|c: char| c.is_ascii_alphanumeric()) && !value.contains('"') {
        return format!("{key}: {value} has no quotes around it; write {key} = \"{value}\"");
    }
    let reason = message.split(", expected").next().unwrap_or_default().replace('\n', " ");
    format!("{reason}; write [section] or key = value, with a quote on both sides of every text")
}

/// One table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section<'t> {
    /// How messages call it: `network`.
    pub(super) name: &'static str,
    pub(super) line: usize,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    pub(super) fn top(table: &'t DeTable<'t>) -> Self {
        Self { name: "", line: 1, table: Some(table) }
    }

    /// The table's name and one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn value(&self, r: &Reader, key: &str) -> Option<At<&'t DeValue<'t>>> {
        let (name, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(At { line: r.line(name.span().start), value: value.get_ref() })
    }

    /// The line of a key; the section's own where it is not given.
    pub(super) fn line_of(&self, r: &Reader, key: &str) -> usize {
        self.value(r, key).map_or(self.line, |at| at.line)
    }

    /// Says which keys are not among those known.
    pub(super) fn only(&self, r: &mut Reader, known: &[&str]) {
        for name in self.table.into_iter().flat_map(|table| table.keys()) {
            let key: &str = name.get_ref();
            if known.contains(&key) {
                continue;
            }
            let near = known
                .iter()
                .map(|k| (distance(key, k), *k))
                .filter(|(far, _)| *far <= 2 && far * 2 <= key.len())
                .min();
            let advice = near.map_or_else(
                || format!("remove it, or write one of {}", known.join(", ")),
                |(_, near)| format!("write {near:?}"),
            );
            r.problem(r.line(name.span().start), format!("{}: unknown key; {advice}", self.path(key)));
        }
    }

    /// The table under a key; one without anything in it where the key is not there.
    pub(super) fn section(&self, r: &mut Reader, key: &'static str, name: &'static str) -> Section<'t> {
        let found = self.value(r, key);
        let line = found.as_ref().map_or(self.line, |found| found.line);
        let table = found.and_then(|found| {
            let table = found.value.as_table();
            if table.is_none() {
                self.wrong_type(r, key, &found, &format!("a section; write [{name}]"));
            }
            table
        });
        Section { name, line, table }
    }

    /// The tables of a list such as `[[node]]`.
    pub(super) fn sections(&self, r: &mut Reader, key: &'static str) -> Vec<Section<'t>> {
        let Some(found) = self.value(r, key) else { return Vec::new() };
        if let Some(table) = found.value.as_table() {
            r.problem(found.line, format!("{key}: it is a list; write [[{key}]], with two brackets"));
            return vec![Section { name: key, line: found.line, table: Some(table) }];
        }
        let Some(list) = found.value.as_array() else {
            self.wrong_type(r, key, &found, &format!("a list of sections; write [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in list {
            let line = r.line(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => sections.push(Section { name: key, line, table: Some(table) }),
                None => r.problem(line, format!("{key}: it is a list of sections; write [[{key}]]")),
            }
        }
        sections
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.keys().any(|name| name.get_ref() == key))
    }

    /// Says that a key is not there, unless it is there and wrong.
    pub(super) fn require<T>(&self, r: &mut Reader, key: &str, found: Option<T>, example: &str) -> Option<T> {
        if found.is_none() && !self.has(key) {
            r.missing(self.line, format!("{}: not given; write {key} = {example}", self.path(key)));
        }
        found
    }

    /// A text.
    pub(super) fn text(&self, r: &mut Reader, key: &str) -> Option<At<String>> {
        let found = self.value(r, key)?;
        self.as_text(r, key, found.line, found.value)
    }

    fn as_text(&self, r: &mut Reader, key: &str, line: usize, value: &DeValue<'_>) -> Option<At<String>> {
        let Some(text) = value.as_str() else {
            let unit = UNITS.iter().find(|(known, _)| *known == key).map(|(_, unit)| *unit);
            let wanted = match (value, unit) {
                (DeValue::Integer(number), Some(unit)) => {
                    let what = if unit.ends_with("/s") { "rate" } else { "size" };
                    format!("a {what}; write {:?}, or another unit", format!("{}{unit}", number.as_str()))
                }
                (DeValue::Integer(number), None) => format!("a text; write {:?}", number.as_str()),
                (DeValue::Datetime(_) | DeValue::Boolean(_) | DeValue::Float(_), _) => {
                    "a text; write it in quotes".to_owned()
                }
                _ => "one text; write it in quotes, without brackets".to_owned(),
            };
            self.wrong_type(r, key, &At { line, value }, &wanted);
            return None;
        };
        if text.trim().is_empty() {
            r.problem(line, format!("{}: it is empty; write something, or remove the key", self.path(key)));
            return None;
        }
        Some(At { line, value: text.to_owned() })
    }

    /// A text with a grammar.
    pub(super) fn parsed<T: FromStr<Err = String>>(&self, r: &mut Reader, key: &str) -> Option<At<T>> {
        self.read(r, key, str::parse)
    }

    /// A text that a function reads.
    pub(super) fn read<T>(
        &self,
        r: &mut Reader,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let text = self.text(r, key)?;
        self.judge(r, key, text.line, parse(&text.value))
    }

    /// A list of texts that a function reads; none where the key is not there.
    pub(super) fn list<T>(
        &self,
        r: &mut Reader,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let found = self.value(r, key)?;
        let Some(list) = found.value.as_array() else {
            self.wrong_type(r, key, &found, "a list; write it in brackets: [\"…\", \"…\"]");
            return None;
        };
        let mut values = Vec::new();
        for item in list {
            let line = r.line(item.span().start);
            if let Some(text) = self.as_text(r, key, line, item.get_ref()) {
                values.extend(self.judge(r, key, line, parse(&text.value)));
            }
        }
        Some(values)
    }

    fn judge<T>(&self, r: &mut Reader, key: &str, line: usize, value: Result<T, String>) -> Option<At<T>> {
        match value {
            Ok(value) => Some(At { line, value }),
            Err(what) => {
                r.problem(line, format!("{}: {what}", self.path(key)));
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, r: &mut Reader, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        self.read(r, key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                format!("{text:?} is not known; write {}", either(words.iter().map(|(word, _)| *word)))
            })
        })
    }

    /// A whole number from `low` to `high`.
    pub(super) fn number(&self, r: &mut Reader, key: &str, low: u32, high: u32) -> Option<u32> {
        let found = self.value(r, key)?;
        let Some(integer) = found.value.as_integer() else {
            self.wrong_type(r, key, &found, "a whole number; write it without quotes and unit");
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let inside = number.filter(|number| (low..=high).contains(number));
        if inside.is_none() {
            let range = if low == high { low.to_string() } else { format!("{low} to {high}") };
            let what = format!("{} is out of range; write {range}", integer.as_str());
            r.problem(found.line, format!("{}: {what}", self.path(key)));
        }
        inside
    }

    /// True or false.
    pub(super) fn flag(&self, r: &mut Reader, key: &str) -> Option<bool> {
        let found = self.value(r, key)?;
        let flag = found.value.as_bool();
        if flag.is_none() {
            self.wrong_type(r, key, &found, "true or false; write it without quotes");
        }
        flag
    }

    fn wrong_type(&self, r: &mut Reader, key: &str, found: &At<&DeValue<'_>>, wanted: &str) {
        let is = match found.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        r.problem(found.line, format!("{}: it is {is}, not {wanted}", self.path(key)));
    }
}

/// Quoted words with commas and an `or` before the last.
fn either<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut quoted: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    let last = quoted.pop().unwrap_or_default();
    if quoted.is_empty() { last } else { format!("{} or {last}", quoted.join(", ")) }
}

/// How many letters to add, drop or change to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn counts_edits() {
        for (one, other, far) in
            [("gatway", "gateway", 1), ("vmm", "vmm", 0), ("", "ab", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), far, "{one} {other}");
        }
    }
}
