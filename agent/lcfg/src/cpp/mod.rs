//! The preprocessor: what `cpp -traditional` does, as far as LCFG sources use it.
//!
//! As there, a directive's `#` stands in the first column, nothing is replaced between quotes (nor after a lone
//! apostrophe, up to the end of its line), and comments vanish without leaving a space. Unlike there, a
//! macro's arguments end on the line they begin on, and line markers are refused.

mod expr;
mod lines;
mod macros;

use crate::Sources;
use crate::report::{At, Report, nearest};
use crate::sources::{Depends, Text};
use lines::COMMENT;
use macros::{Macros, identifier};

pub(crate) use lines::{Logical, split};

/// Includes nested deeper than this are taken for a circle.
const MAX_INCLUDES: usize = 64;
/// All preprocessed lines of one compile, in bytes.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// Files opened in one compile; headers that include each other twice would otherwise open millions.
const MAX_OPENED: usize = 10_000;
/// The header made from site.toml, as sources include it.
const SITE_HEADER: &str = "gatehouse/site.h";

/// A line that is left after preprocessing.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where it stands.
    pub(crate) at: At,
    /// Its text, macros replaced.
    pub(crate) text: String,
}

/// The texts that a compile may read, and which of them it did or would have.
#[derive(Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) site_header: &'a Text,
    pub(crate) depends: Depends,
    /// What was spent of the limits so far.
    spent: Spent,
}

/// What a compile has spent of its limits: bytes of lines, files opened, bytes of expanded macros.
#[derive(Debug, Default)]
struct Spent {
    output: usize,
    opened: usize,
    expanded: usize,
}

impl<'a> Texts<'a> {
    pub(crate) fn new(sources: &'a Sources, site_header: &'a Text) -> Self {
        Self { sources, site_header, depends: Depends::default(), spent: Spent::default() }
    }

    /// A file, and note of it whether it is there or not.
    pub(crate) fn open(&mut self, path: &str) -> Option<&'a Text> {
        let text = self.sources.text(path);
        let depends = if text.is_some() { &mut self.depends.read } else { &mut self.depends.other };
        depends.insert(path.to_owned());
        text
    }
}

/// Preprocesses one file and what it includes; `at` is its line 0, `folders` where includes are searched.
pub(crate) fn preprocess(
    texts: &mut Texts,
    report: &mut Report,
    at: At,
    text: &Text,
    folders: &[&str],
) -> Vec<Line> {
    let macros = Macros::new(texts.spent.expanded);
    let mut run = Run { texts, report, folders, macros, lines: Vec::new(), full: false };
    run.file(at, text);
    run.texts.spent.expanded = run.macros.spent();
    run.lines
}

struct Run<'a, 'b> {
    texts: &'a mut Texts<'b>,
    report: &'a mut Report,
    folders: &'a [&'a str],
    macros: Macros,
    lines: Vec<Line>,
    full: bool,
}

/// One `#if` that is open: where, whether its lines count now, whether any branch did, whether `#else` was seen.
struct Branch {
    at: At,
    taking: bool,
    taken: bool,
    last: bool,
}

impl<'b> Run<'_, 'b> {
    fn file(&mut self, file: At, text: &Text) {
        let all = match text.lines() {
            Ok(all) => all,
            Err(line) => {
                return self
                    .report
                    .problem(file.on(line), "the comment opened by /* never ends; close it with */");
            }
        };
        let mut branches: Vec<Branch> = Vec::new();
        for logical in all {
            let at = file.on(logical.line);
            if let Some(directive) = logical.text.strip_prefix('#') {
                self.directive(at, directive, &mut branches);
            } else if branches.iter().all(|branch| branch.taking) && !logical.text.trim().is_empty() {
                self.text(at, &logical.text);
            }
            if self.full || self.report.is_full() {
                return;
            }
        }
        for branch in branches {
            self.report.problem(branch.at, "the condition has no #endif; add one");
        }
    }

    fn text(&mut self, at: At, text: &str) {
        match self.macros.expand(text) {
            Ok(text) => self.push(at, text),
            Err(what) => self.report.problem(at, what),
        }
    }

    fn push(&mut self, at: At, text: String) {
        self.texts.spent.output += text.len() + 1;
        if self.texts.spent.output > MAX_OUTPUT {
            self.full = true;
            return self
                .report
                .problem(at, format!("the lines grow beyond {MAX_OUTPUT} bytes; include less"));
        }
        self.lines.push(Line { at, text });
    }

    fn directive(&mut self, at: At, raw: &str, branches: &mut Vec<Branch>) {
        let text = raw.replace(COMMENT, "");
        let text = text.trim();
        let (name, rest) = text.split_at(identifier(text));
        let rest = rest.trim();
        let active = branches.iter().all(|branch| branch.taking);
        let done = match name {
            "if" | "ifdef" | "ifndef" => self.open(at, name, rest, active, branches),
            "elif" | "else" | "endif" => self.next(name, rest, branches),
            _ if !active => Ok(()),
            "define" => self.macros.define(raw.split_once(name).map_or(rest, |(_, raw)| raw)),
            "undef" => self.undefine(rest),
            "include" => self.include(at, rest),
            "pragma" if rest.split_whitespace().next() == Some("LCFG") => {
                self.push(at, format!("#pragma {rest}"));
                Ok(())
            }
            "pragma" | "warning" => Ok(()),
            "error" => Err(format!("#error {rest}")),
            "" if text.is_empty() => Ok(()),
            _ => Err(unknown(text)),
        };
        if let Err(what) = done {
            self.report.problem(at, what);
        }
    }

    fn open(
        &mut self,
        at: At,
        name: &str,
        rest: &str,
        active: bool,
        branches: &mut Vec<Branch>,
    ) -> Result<(), String> {
        let mut branch = Branch { at, taking: false, taken: true, last: false };
        let condition = if !active {
            Ok(false)
        } else if name == "if" {
            expr::is_true(&mut self.macros, rest)
        } else {
            let word = &rest[..identifier(rest)];
            let known = self.macros.is_defined(word) == (name == "ifdef");
            if word.is_empty() { Err(format!("#{name} needs a name; write #{name} NAME")) } else { Ok(known) }
        };
        if let Ok(taking) = condition {
            branch.taking = taking;
            branch.taken = taking || !active;
        }
        branches.push(branch);
        condition.map(|_| ())
    }

    fn next(&mut self, name: &str, rest: &str, branches: &mut Vec<Branch>) -> Result<(), String> {
        let Some(branch) = branches.last_mut() else {
            return Err(format!("#{name} without #if; add the #if or remove this line"));
        };
        if name == "endif" {
            branches.pop();
            return Ok(());
        }
        if branch.last {
            return Err(format!("#{name} after #else; remove one of them"));
        }
        branch.last = name == "else";
        branch.taking = false;
        if branch.taken {
            return Ok(());
        }
        // A condition that is wrong counts as taken, so that neither branch adds more problems.
        branch.taken = true;
        branch.taking = name == "else" || expr::is_true(&mut self.macros, rest)?;
        branch.taken = branch.taking;
        Ok(())
    }

    fn undefine(&mut self, rest: &str) -> Result<(), String> {
        let name = &rest[..identifier(rest)];
        if name.is_empty() {
            return Err("#undef needs a name; write #undef NAME".to_owned());
        }
        self.macros.undefine(name);
        Ok(())
    }

    fn include(&mut self, at: At, rest: &str) -> Result<(), String> {
        let text = if rest.starts_with(['<', '"']) { rest.to_owned() } else { self.macros.expand(rest)? };
        let (name, beside) = included(text.trim())?;
        if self.report.depth(at) >= MAX_INCLUDES {
            return Err(format!("includes are nested {MAX_INCLUDES} deep; guard the headers with #ifndef"));
        }
        self.texts.spent.opened += 1;
        if self.texts.spent.opened > MAX_OPENED {
            self.full = true;
            return Err(format!("more than {MAX_OPENED} includes; guard the headers with #ifndef"));
        }
        if name == SITE_HEADER {
            let text = self.texts.site_header;
            let file = self.report.open(SITE_HEADER, Some(at));
            self.file(file, text);
            return Ok(());
        }
        let (path, text) = self.find(at, name, beside)?;
        let file = self.report.open(format!("lcfg/{path}"), Some(at));
        self.file(file, text);
        Ok(())
    }

    /// The path and text of an include: beside the including file if quoted, then in each folder.
    fn find(&mut self, at: At, name: &str, beside: bool) -> Result<(String, &'b Text), String> {
        let own = self.report.file(at).strip_prefix("lcfg/").and_then(|path| path.rsplit_once('/'));
        let own = own.filter(|_| beside).map(|(folder, _)| folder);
        let folders = own.into_iter().chain(self.folders.iter().copied());
        let candidates: Vec<String> = folders.filter_map(|folder| join(folder, name)).collect();
        for path in candidates {
            if let Some(text) = self.texts.open(&path) {
                return Ok((path, text));
            }
        }
        let sources = self.texts.sources;
        let known = self.folders.iter().flat_map(|folder| {
            sources.iter().filter_map(move |(path, _)| path.strip_prefix(folder)?.strip_prefix('/'))
        });
        let hint = nearest(name, known).map_or_else(
            || format!("add the file under lcfg/{}", self.folders[0]),
            |near| format!("did you mean {near}?"),
        );
        Err(format!("{name:?} is not among the site's files; {hint}"))
    }
}

/// The name in `<...>` or `"..."`, and whether the including file's own folder comes first.
fn included(text: &str) -> Result<(&str, bool), String> {
    let (inner, close, beside) = match text.strip_prefix('<') {
        Some(inner) => (inner, '>', false),
        None => (text.strip_prefix('"').unwrap_or(""), '"', true),
    };
    match inner.split_once(close) {
        Some((name, _)) if !name.is_empty() && !name.contains(char::is_whitespace) => Ok((name, beside)),
        _ => Err("#include needs a file name without spaces; write #include <site/base.h>".to_owned()),
    }
}

/// A path under `lcfg/`, `.` and `..` resolved; `None` above the top.
fn join(folder: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn unknown(text: &str) -> String {
    const KNOWN: [&str; 11] =
        ["include", "define", "undef", "if", "ifdef", "ifndef", "elif", "else", "endif", "pragma", "error"];
    let word = text.split_whitespace().next().unwrap_or_default();
    let hint = nearest(word, KNOWN.into_iter());
    let hint = hint
        .map_or_else(|| "write comments as /* ... */".to_owned(), |near| format!("did you mean #{near}?"));
    format!("{:?} is not a preprocessor directive; {hint}", format!("#{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)], site_header: &str) -> Result<Vec<String>, Vec<String>> {
        let mut sources = Sources::new();
        for (path, text) in files {
            sources.insert(*path, *text);
        }
        let header = Text::new(site_header);
        let mut texts = Texts::new(&sources, &header);
        let mut report = Report::default();
        let at = report.open("lcfg/source/n", None);
        let lines = preprocess(&mut texts, &mut report, at, &Text::new(files[0].1), &["include"]);
        let problems = report.into_problems();
        if problems.is_empty() {
            Ok(lines.into_iter().map(|line| line.text).collect())
        } else {
            Err(problems.iter().map(ToString::to_string).collect())
        }
    }

    #[test]
    fn includes_and_conditions() {
        let files = [
            (
                "source/n",
                "#define A 1\n#include <a/b.h>\n#include <gatehouse/site.h>\n#define H <a/c.h>\n#include H\n#undef A\n\
                 #ifdef A\nno\n# junk\n#if 1\n#else\n#endif\n#elif VALUE == 3\nyes VALUE\n#else x\nno\n#endif\n#\n\
                 #ifndef A\nnot A\n#endif\n#pragma once\n#pragma LCFG context \"x\"\n",
            ),
            ("include/a/b.h", "b A\n#include \"c.h\"\n"),
            ("include/a/c.h", "c\n"),
        ];
        assert_eq!(
            run(&files, "#define VALUE 3\nsite\n").unwrap(),
            ["b 1", "c", "site", "c", "yes 3", "not A", "#pragma LCFG context \"x\""]
        );
    }

    #[test]
    fn every_problem_says_where_and_what_to_write() {
        for (text, wanted) in [
            (
                "# text",
                "lcfg/source/n:1: \"#text\" is not a preprocessor directive; write comments as /* ... */",
            ),
            ("#inclde <x>", "did you mean #include?"),
            ("#if 1\n", "lcfg/source/n:1: the condition has no #endif; add one"),
            ("a\n#endif", "lcfg/source/n:2: #endif without #if"),
            ("#if 1\n#else\n#else\n#endif", "lcfg/source/n:3: #else after #else"),
            ("#include <a/bb.h>", "\"a/bb.h\" is not among the site's files; did you mean a/b.h?"),
            ("#include <>", "#include needs a file name"),
            ("#include \"a b\"", "#include needs a file name"),
            ("#error stop", "#error stop"),
            ("a /* b", "the comment opened by /* never ends"),
            ("#if 1 +\n#else\n#endif", "is not an integer"),
            ("#include <a/b.h>", "include/a/b.h:2: #error here (included from lcfg/source/n:1)"),
            ("#include <../../x>", "is not among the site's files"),
            ("# 12 \"foo\"", "is not a preprocessor directive"),
        ] {
            let problems = run(&[("source/n", text), ("include/a/b.h", "\n#error here")], "").unwrap_err();
            assert!(problems[0].contains(wanted), "{text:?}: {problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
    }

    #[test]
    fn circles_and_floods_end() {
        let circle =
            run(&[("source/n", "#include <a.h>"), ("include/a.h", "#include <a.h>")], "").unwrap_err();
        assert!(circle[0].contains("nested 64 deep"), "{circle:?}");
        let mut flood = vec![("source/n".to_owned(), "#include <f0.h>".to_owned())];
        for i in 0..30 {
            flood.push((format!("include/f{i}.h"), format!("#include <f{0}.h>\n#include <f{0}.h>\n", i + 1)));
        }
        flood.push(("include/f30.h".to_owned(), String::new()));
        let flood: Vec<(&str, &str)> = flood.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert!(run(&flood, "").unwrap_err()[0].contains("more than 10000 includes"));
        let long = format!("{0}\n{0}\n", "x ".repeat(5 << 20));
        assert!(run(&[("source/n", &long)], "").is_err());
    }
}
