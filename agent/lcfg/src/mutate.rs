//! Mutations: changing a value that is inherited instead of replacing it.

use crate::values::Kind;

/// What to do with the value there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Set,
    Add,
    Remove,
    Append,
    Prepend,
    Concat,
    Subst,
    Replace,
}

/// The names, without the `Q` that means a quoted argument, and how many arguments each takes.
const VERBS: [(&str, Verb, usize); 9] = [
    ("mSET", Verb::Set, 1),
    ("mADD", Verb::Add, 1),
    ("mREMOVE", Verb::Remove, 1),
    ("mEXTRA", Verb::Append, 1),
    ("mAPPEND", Verb::Append, 1),
    ("mPREPEND", Verb::Prepend, 1),
    ("mCONCAT", Verb::Concat, 1),
    ("mSUBST", Verb::Subst, 2),
    ("mREPLACE", Verb::Replace, 2),
];

/// One mutation with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutation {
    /// As the source writes it.
    text: String,
    name: &'static str,
    verb: Verb,
    arguments: Vec<String>,
}

impl Mutation {
    /// Whether this is the name of a mutation.
    pub(crate) fn is_known(name: &str) -> bool {
        lookup(name).is_some()
    }

    /// Reads `mADD(eth0)`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let write = "write one of mSET mADD mREMOVE mEXTRA mPREPEND mCONCAT mSUBST mREPLACE and (arguments)";
        let (name, rest) =
            text.split_once('(').ok_or_else(|| format!("{text:?} is not a mutation; {write}"))?;
        let ((name, verb, count), quoted) =
            lookup(name.trim_end()).ok_or_else(|| format!("{name:?} is not a mutation; {write}"))?;
        let inner = rest
            .trim_end()
            .strip_suffix(')')
            .ok_or_else(|| format!("{name}( has no ')' at the end of the line; close it"))?;
        let arguments = if quoted { quoted_arguments(inner)? } else { plain_arguments(inner, count) };
        if arguments.len() == count {
            Ok(Self { text: text.to_owned(), name, verb, arguments })
        } else {
            Err(format!("{name} takes {count} arguments, not {}; correct the call", arguments.len()))
        }
    }

    /// The mutation as a source writes it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The texts that this may bring into a value.
    pub(crate) fn brings(&self) -> &str {
        self.arguments.last().map_or("", String::as_str)
    }

    /// Applies the mutation to a value of this type.
    pub(crate) fn apply(&self, kind: &Kind, value: &str) -> Result<String, String> {
        if matches!(kind, Kind::Integer | Kind::Boolean) && self.verb != Verb::Set {
            return Err(format!("{} does not fit the type {kind}; write mSET", self.name));
        }
        let first = self.arguments[0].as_str();
        let second = self.arguments.get(1).map_or("", String::as_str);
        let is_list = matches!(kind, Kind::List(_));
        Ok(match self.verb {
            Verb::Set => first.to_owned(),
            Verb::Add => add(value, first),
            Verb::Remove => first.split_whitespace().fold(value.to_owned(), |value, tag| remove(&value, tag)),
            Verb::Append => spaced(value, first),
            Verb::Prepend if is_list => spaced(first, value),
            Verb::Prepend => format!("{first}{value}"),
            Verb::Concat => format!("{value}{first}"),
            Verb::Subst if !is_list => value.replacen(first, second, 1),
            Verb::Subst | Verb::Replace => replace(value, first, second)?,
        })
    }
}

fn lookup(name: &str) -> Option<((&'static str, Verb, usize), bool)> {
    let find = |name: &str| VERBS.iter().find(|(known, ..)| *known == name).copied();
    find(name).map(|verb| (verb, false)).or_else(|| Some((find(name.strip_suffix('Q')?)?, true)))
}

/// One argument is the whole text; two are parted at the first comma outside parentheses.
fn plain_arguments(inner: &str, count: usize) -> Vec<String> {
    let mut depth = 0_i32;
    let comma = inner.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '(') - i32::from(*c == ')');
        *c == ',' && depth == 0
    });
    match comma {
        Some((i, _)) if count == 2 => vec![inner[..i].trim().to_owned(), inner[i + 1..].trim().to_owned()],
        _ => vec![inner.trim().to_owned()],
    }
}

/// Arguments between quotes, parted by commas; a backslash takes the next character as it is.
fn quoted_arguments(inner: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("({inner}) is not a quoted argument; write (\"text\")");
    let mut all = Vec::new();
    let mut chars = inner.trim().chars();
    loop {
        let quote = chars.next().filter(|c| matches!(c, '"' | '\'')).ok_or_else(wrong)?;
        let mut text = String::new();
        loop {
            match chars.next().ok_or_else(wrong)? {
                '\\' => text.push(chars.next().ok_or_else(wrong)?),
                c if c == quote => break,
                c => text.push(c),
            }
        }
        all.push(text);
        chars = chars.as_str().trim_start().chars();
        match chars.next() {
            None => return Ok(all),
            Some(',') => chars = chars.as_str().trim_start().chars(),
            Some(_) => return Err(wrong()),
        }
    }
}

fn spaced(before: &str, after: &str) -> String {
    let gap = if before.is_empty() || after.is_empty() { "" } else { " " };
    format!("{before}{gap}{after}")
}

fn add(value: &str, tags: &str) -> String {
    tags.split_whitespace().fold(value.to_owned(), |value, tag| {
        if value.split_whitespace().any(|have| have == tag) { value } else { spaced(&value, tag) }
    })
}

fn remove(value: &str, tag: &str) -> String {
    let Some(start) = find(value, tag) else { return value.to_owned() };
    spaced(value[..start].trim_end(), value[start + tag.len()..].trim_start())
}

fn replace(value: &str, tag: &str, with: &str) -> Result<String, String> {
    let start = find(value, tag)
        .ok_or_else(|| format!("{tag:?} is not in the value {value:?}; replace a tag that is there"))?;
    Ok(format!("{}{with}{}", &value[..start], &value[start + tag.len()..]))
}

/// Where a whole word starts.
fn find(value: &str, tag: &str) -> Option<usize> {
    let boundary = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let whole = |start: &usize| {
        boundary(value[..*start].chars().next_back()) && boundary(value[start + tag.len()..].chars().next())
    };
    if tag.is_empty() {
        return None;
    }
    value.match_indices(tag).map(|(start, _)| start).find(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_changed() {
        let list = Kind::List(Vec::new());
        for (text, kind, before, after) in [
            ("mSET(my first change)", &Kind::String, "x", "my first change"),
            ("mSET(on (b, c) )", &Kind::String, "x", "on (b, c)"),
            ("mSET()", &list, "x", ""),
            ("mADD(b a c)", &list, "a", "a b c"),
            ("mREMOVE(a x)", &list, "a b aa", "b aa"),
            ("mREMOVE(b)", &list, "a b c", "a c"),
            ("mEXTRA(a)", &list, "a", "a a"),
            ("mPREPEND(b)", &list, "a", "b a"),
            ("mPREPEND(b)", &Kind::String, "a", "ba"),
            ("mCONCAT(b)", &Kind::String, "a", "ab"),
            ("mCONCATQ(\", b\")", &Kind::String, "a", "a, b"),
            ("mSETQ('it\\'s (a)')", &Kind::String, "", "it's (a)"),
            ("mSUBSTQ(\"a,\", \"b)\")", &Kind::String, "a,a,", "b)a,"),
            ("mREPLACE(a, b)", &list, "aa a", "aa b"),
            ("mSET(no)", &Kind::Boolean, "yes", "no"),
            (
                "mSUBST(@lcfg_sl5_updates.rpms, @my.rpms @lcfg_sl5_updates.rpms)",
                &Kind::String,
                "@base.rpms @lcfg_sl5_updates.rpms",
                "@base.rpms @my.rpms @lcfg_sl5_updates.rpms",
            ),
        ] {
            let got = Mutation::parse(text).unwrap().apply(kind, before);
            assert_eq!(got.as_deref(), Ok(after), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for bad in ["x", "mMUL(x)", "mADD(x", "mSUBST(a)", "mSETQ(a)", "mSETQ(\"a\" b)", "mSETQ(\"a)"] {
            assert!(Mutation::parse(bad).is_err(), "{bad}");
        }
        let replace = Mutation::parse("mREPLACE(a,b)").unwrap();
        assert!(replace.apply(&Kind::List(Vec::new()), "aa").is_err());
        assert!(Mutation::parse("mADD(1)").unwrap().apply(&Kind::Integer, "1").is_err());
    }
}
