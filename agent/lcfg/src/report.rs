//! Where a line came from, and the problems found so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatehouse_model::Problem;

/// How many steps of an include chain are written out: those nearest the problem, and the source.
const LONGEST_CHAIN: usize = 6;

/// With so many problems a compile gives up: more help nobody.
const MOST: usize = 1000;

/// One line of one opened file; the file is an index into the report that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    file: usize,
    pub(crate) line: usize,
}

#[derive(Debug)]
struct Opened {
    name: String,
    included: Option<At>,
}

/// The files that a report has opened; other reports can be laid over them, and know their places.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<Opened>);

/// Every file opened by one compile, in order, and what is wrong in them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    below: Arc<Files>,
    opened: Vec<Opened>,
    found: Vec<(At, String)>,
    ready: Vec<Problem>,
}

impl Report {
    /// A report that also knows the files which another one opened.
    pub(crate) fn over(below: Arc<Files>) -> Self {
        Self { below, ..Self::default() }
    }

    /// Notes that a file is read, and the place that asked for it; the answer is the file's line 0.
    pub(crate) fn open(&mut self, name: impl Into<String>, included: Option<At>) -> At {
        self.opened.push(Opened { name: name.into(), included });
        At { file: self.below.0.len() + self.opened.len() - 1, line: 0 }
    }

    fn opened(&self, at: At) -> &Opened {
        let below = &self.below.0;
        if at.file < below.len() { &below[at.file] } else { &self.opened[at.file - below.len()] }
    }

    /// The name under which the user knows the file.
    pub(crate) fn file(&self, at: At) -> &str {
        &self.opened(at).name
    }

    /// `file:line`, or the file alone for line 0.
    pub(crate) fn place(&self, at: At) -> String {
        if at.line == 0 { self.file(at).to_owned() } else { format!("{}:{}", self.file(at), at.line) }
    }

    /// The includes that lead to this file, the nearest first.
    fn includes(&self, at: At) -> impl Iterator<Item = At> {
        std::iter::successors(self.opened(at).included, |from| self.opened(*from).included)
    }

    /// How many includes lead to this file.
    pub(crate) fn depth(&self, at: At) -> usize {
        self.includes(at).count()
    }

    /// Adds a problem, as long as there are not too many.
    pub(crate) fn problem(&mut self, at: At, what: impl Into<String>) {
        match self.found.len() {
            0..MOST => self.found.push((at, what.into())),
            MOST => {
                self.found.push((at, format!("there are more than {MOST} problems; correct these first")));
            }
            _ => {}
        }
    }

    /// Whether there are so many problems that to go on is of no use.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() > MOST
    }

    /// Adds problems that another report found.
    pub(crate) fn problems(&mut self, ready: impl IntoIterator<Item = Problem>) {
        self.ready.extend(ready);
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty() && self.ready.is_empty()
    }

    /// All problems, files in the order they were first opened, then by line; the same one only once. Those of
    /// other reports come last.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.take_problems()
    }

    /// The files, for other reports to lie over.
    pub(crate) fn into_files(self) -> Arc<Files> {
        Arc::new(Files(self.opened))
    }

    /// The problems found since the last call, in the order of [`Report::into_problems`].
    pub(crate) fn take_problems(&mut self) -> Vec<Problem> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, file) in self.opened.iter().enumerate() {
            places.entry(&file.name).or_insert(place);
        }
        let first = |at: At| places.get(self.file(at)).map_or((1, at.file), |place| (0, *place));
        let mut keyed: Vec<((usize, usize), Problem)> = self
            .found
            .iter()
            .map(|(at, what)| {
                let what = format!("{what}{}", self.chain(*at));
                (first(*at), Problem::at(self.file(*at), at.line, what))
            })
            .collect();
        keyed.sort_by_key(|(file, problem)| (*file, problem.line));
        self.found.clear();
        let mut problems: Vec<Problem> = Vec::new();
        let ready = std::mem::take(&mut self.ready);
        for problem in keyed.into_iter().map(|(_, problem)| problem).chain(ready) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }

    /// ` (included from a:1, included from b:2)` for a file that another one asked for; the middle of a long chain
    /// is only counted.
    fn chain(&self, at: At) -> String {
        let mut steps: Vec<String> =
            self.includes(at).map(|from| format!("{INCLUDED}{}", self.place(from))).collect();
        if steps.len() > LONGEST_CHAIN {
            let left_out = steps.len() - LONGEST_CHAIN;
            steps.splice(LONGEST_CHAIN - 1..steps.len() - 1, [format!("and {left_out} more")]);
        }
        if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) }
    }
}

/// What each step of an include chain begins with.
const INCLUDED: &str = "included from ";

/// A problem's text without its include chain: the same for every node that the file reaches.
pub(crate) fn without_chain(what: &str) -> &str {
    match what.rsplit_once(" (") {
        Some((head, tail)) if tail.starts_with(INCLUDED) => head,
        _ => what,
    }
}

impl At {
    /// Another line of the same file.
    pub(crate) fn on(self, line: usize) -> Self {
        Self { line, ..self }
    }
}

/// The candidate that differs from a name by at most two letters, for `did you mean`.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        // A letter is four bytes at most: what differs by more is not even measured.
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= 8)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(far, candidate)| *far <= 2 && *far < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_file_order_with_their_includes() {
        let mut report = Report::default();
        let source = report.open("lcfg/source/ce", None);
        let header = report.open("lcfg/include/a.h", Some(source.on(3)));
        report.problem(header.on(2), "b");
        report.problem(source.on(9), "a");
        report.problem(header.on(1), "c");
        let all: Vec<String> = report.into_problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "lcfg/source/ce:9: a",
                "lcfg/include/a.h:1: c (included from lcfg/source/ce:3)",
                "lcfg/include/a.h:2: b (included from lcfg/source/ce:3)"
            ]
        );
    }

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(nearest("disk", ["disks", "entries"].into_iter()), Some("disks"));
        assert_eq!(nearest("x", ["disks", "ab"].into_iter()), None);
    }
}
