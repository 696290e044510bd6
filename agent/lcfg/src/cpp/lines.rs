//! Logical lines: continuations joined, comments removed, quotes respected as the traditional preprocessor does.

/// One logical line and the line of the file it starts on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Logical {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Stands for a comment in a directive, where it still parts two parameters of a macro's body.
pub(crate) const COMMENT: char = '\u{1}';

/// Cuts a file into logical lines; `Err` is the line of a comment that never ends.
///
/// A quote or apostrophe hides comments up to its partner or to the end of the line; `//` is ordinary text.
/// Around a backslash at the end of a line, white space becomes one space. The BOM and CR of editors on other
/// systems are dropped.
pub(crate) fn split(text: &str) -> Result<Vec<Logical>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    let mut comment: Option<usize> = None;
    let mut pending: Option<Logical> = None;
    for (number, physical) in physical_lines(text) {
        if let Some(started) = comment {
            let Some((_, rest)) = physical.split_once("*/") else { continue };
            comment = strip(&mut pending, started, rest, number);
        } else {
            comment = strip(&mut pending, number, &physical, number);
        }
        if comment.is_none() {
            lines.extend(pending.take());
        }
    }
    match comment {
        Some(line) => Err(line),
        None => Ok(lines),
    }
}

/// Appends the text without its comments; the answer is the line of a comment left open.
fn strip(pending: &mut Option<Logical>, started: usize, text: &str, number: usize) -> Option<usize> {
    let out = &mut pending.get_or_insert_with(|| Logical { line: started, text: String::new() }).text;
    let mut quotes = Quotes::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !quotes.open() && rest.starts_with("/*") {
            if out.starts_with('#') {
                out.push(COMMENT);
            }
            let Some((_, after)) = rest[2..].split_once("*/") else { return Some(number) };
            rest = after;
            continue;
        }
        quotes.see(c);
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    None
}

/// Lines with their continuations joined, and the number each starts on.
fn physical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (i, line) in text.lines().enumerate() {
        let (number, mut joined) = open.take().unwrap_or((i + 1, String::new()));
        let line = if joined.is_empty() { line } else { join(&mut joined, line) };
        if let Some(head) = line.trim_end().strip_suffix('\\') {
            joined.push_str(head);
            open = Some((number, joined));
        } else {
            joined.push_str(line);
            lines.push((number, joined));
        }
    }
    lines.extend(open);
    lines
}

/// Makes one space of the white space around a continuation; what is left of the next line.
fn join<'a>(joined: &mut String, next: &'a str) -> &'a str {
    let rest = next.trim_start();
    let head = joined.trim_end().len();
    if head < joined.len() || rest.len() < next.len() {
        joined.truncate(head);
        joined.push(' ');
    }
    rest
}

/// Follows quotes through a line: inside them nothing is a macro or a comment.
#[derive(Debug, Default)]
pub(crate) struct Quotes {
    inside: Option<char>,
    escaped: bool,
}

impl Quotes {
    /// Whether the next character is inside quotes.
    pub(crate) fn open(&self) -> bool {
        self.inside.is_some()
    }

    /// Takes note of one character.
    pub(crate) fn see(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match c {
            '\\' => self.escaped = true,
            '"' | '\'' => match self.inside {
                Some(quote) if quote == c => self.inside = None,
                None => self.inside = Some(c),
                Some(_) => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_removed() {
        for (text, wanted) in [
            ("a http://x//y\r\nb", vec![(1, "a http://x//y"), (2, "b")]),
            ("\u{feff}a /* c */ b", vec![(1, "a  b")]),
            ("a x/**/y", vec![(1, "a xy")]),
            ("#define F(a,b) a/* c */b", vec![(1, "#define F(a,b) a\u{1}b")]),
            ("one \\\n    two\nthree", vec![(1, "one two"), (3, "three")]),
            ("on\\\ne", vec![(1, "one")]),
            ("a /* b\nc */ d\ne", vec![(1, "a  d"), (3, "e")]),
            ("a don't /* kept */", vec![(1, "a don't /* kept */")]),
            ("a \"x /* y */\" /* z */", vec![(1, "a \"x /* y */\" ")]),
            ("a \\' /* z */b", vec![(1, "a \\' b")]),
            ("a foo/*\nb */c", vec![(1, "a fooc")]),
            ("a \\", vec![(1, "a ")]),
        ] {
            let got = split(text).unwrap();
            let got: Vec<(usize, &str)> = got.iter().map(|line| (line.line, line.text.as_str())).collect();
            assert_eq!(got, wanted, "{text:?}");
        }
        assert_eq!(split("a\nb foo/*\nc"), Err(2));
    }
}
