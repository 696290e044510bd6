//! `profile.packages`: specifications and `@lists` in order, each prefix applied to what is listed before it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gatehouse_model::Problem;

use super::{PackageSpec, version};
use crate::Sources;
use crate::compile::derivation;
use crate::cpp::{self, Line, Texts};
use crate::report::{At, Report};
use crate::sources::{Depends, Text};

/// One word of `profile.packages`, and the file and line that brought it, where that tells two words apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Word {
    text: String,
    place: Option<(String, usize)>,
}

impl Word {
    /// What a list says does not depend on who names it; a specification's derivation is the line it stands on.
    pub(crate) fn new(text: &str, at: At, report: &Report) -> Self {
        let place = (!text.starts_with('@')).then(|| (report.file(at).to_owned(), at.line));
        Self { text: text.to_owned(), place }
    }
}

/// What came of some words.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Sorted by name.
    pub(crate) wishes: Arc<Vec<PackageSpec>>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) depends: Depends,
}

/// What came of all words so far: most nodes ask for the same as others.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    known: Mutex<BTreeMap<Vec<Word>, Cell>>,
}

/// Filled once, by the first thread that needs it.
type Cell = Arc<OnceLock<Arc<Resolved>>>;

impl Lists {
    /// The wishes of these words; two threads that ask for the same find it once.
    pub(crate) fn resolve(&self, sources: &Sources, words: &[Word]) -> Arc<Resolved> {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(words.to_vec()).or_default())
        };
        Arc::clone(cell.get_or_init(|| Arc::new(resolve(sources, words))))
    }

    /// Forgets what depends on any of these, and what nobody has any more.
    pub(crate) fn forget(&mut self, changed: &BTreeSet<String>) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, cell| cell.get().is_some_and(|resolved| !resolved.depends.on_any(changed)));
    }
}

/// A package is looked up by these; another context or architecture is another package.
type Key = (String, Option<String>, Option<String>);

#[derive(Debug)]
struct Listed {
    spec: PackageSpec,
    /// The lines that brought it, in order.
    places: Vec<At>,
    pinned: bool,
}

/// Makes the wishes from the words of `profile.packages`.
fn resolve(sources: &Sources, words: &[Word]) -> Resolved {
    let none = Text::new("");
    let mut texts = Texts::new(sources, &none);
    let mut report = Report::default();
    let mut lists = Apply { texts: &mut texts, report: &mut report, listed: BTreeMap::new() };
    for Word { text, place } in words {
        if let Some(name) = text.strip_prefix('@') {
            lists.file(name);
        } else {
            let (file, line) = place.clone().unwrap_or_default();
            let at = lists.report.open(file, None).on(line);
            lists.parse(text, at, None);
        }
    }
    let listed = lists.listed;
    let finish =
        |listed: Listed| PackageSpec { derivation: derivation(&report, &listed.places), ..listed.spec };
    let wishes = Arc::new(listed.into_values().map(finish).collect());
    Resolved { wishes, depends: texts.depends, problems: report.into_problems() }
}

struct Apply<'a, 'b> {
    texts: &'a mut Texts<'b>,
    report: &'a mut Report,
    listed: BTreeMap<Key, Listed>,
}

impl Apply<'_, '_> {
    fn file(&mut self, name: &str) {
        let path = format!("packages/{name}");
        let Some(text) = self.texts.open(&path) else { return };
        let file = self.report.open(format!("lcfg/{path}"), None);
        let lines = cpp::preprocess(self.texts, self.report, file, text, &["packages", "include"]);
        self.lines(&lines);
    }

    fn lines(&mut self, lines: &[Line]) {
        let mut context = None;
        for line in lines {
            if self.report.is_full() {
                return;
            }
            let text = line.text.trim();
            if let Some(pragma) = text.strip_prefix("#pragma LCFG") {
                match pragma_context(pragma.trim()) {
                    Ok(Some(found)) => context = Some(found),
                    Ok(None) => {}
                    Err(what) => self.report.problem(line.at, what),
                }
            } else if let Some(name) = text.strip_prefix('@') {
                let what = format!("{text:?}: a list cannot name another list; write #include \"{name}\"");
                self.report.problem(line.at, what);
            } else {
                self.parse(text, line.at, context.take());
            }
        }
    }

    fn parse(&mut self, text: &str, at: At, context: Option<String>) {
        let mut spec: PackageSpec = match text.parse() {
            Ok(spec) => spec,
            Err(what) => return self.report.problem(at, what),
        };
        spec.context = spec.context.or(context);
        if let Err(what) = self.apply(spec, at) {
            self.report.problem(at, what);
        }
    }

    fn apply(&mut self, spec: PackageSpec, at: At) -> Result<(), String> {
        let key = (spec.name.clone(), spec.arch.clone(), spec.context.clone());
        let prefix = spec.prefix;
        let new = PackageSpec { prefix: None, ..spec };
        let Some(old) = self.listed.get(&key) else {
            if !matches!(prefix, Some('-' | '?')) {
                self.listed.insert(key, Listed { spec: new, places: vec![at], pinned: prefix == Some('!') });
            }
            return Ok(());
        };
        let same = old.spec == new;
        let skips = match prefix {
            Some('~') => true,
            Some('?') => old.pinned,
            Some('>') => compare(&new, &old.spec) != Ordering::Greater,
            _ => false,
        };
        if skips {
            return Ok(());
        }
        let before = self.report.place(old.places[old.places.len() - 1]);
        if old.pinned && !(prefix.is_none() && same) {
            return Err(format!("Version is pinned: {} at {before}; remove this line or the pin", old.spec));
        }
        if prefix.is_none() && !same {
            return Err(format!("Version conflict: {} at {before}; write +{new} to replace it", old.spec));
        }
        let pinned = prefix == Some('!') || old.pinned;
        let Some(Listed { mut places, .. }) = self.listed.remove(&key) else { return Ok(()) };
        if prefix != Some('-') {
            if prefix.is_none() {
                places.clear();
            }
            places.push(at);
            self.listed.insert(key, Listed { spec: new, places, pinned });
        }
        Ok(())
    }
}

fn compare(a: &PackageSpec, b: &PackageSpec) -> Ordering {
    let text = |spec: &PackageSpec| spec.debian_version().unwrap_or_default();
    version::compare(&text(a), &text(b))
}

/// The expression of `context "…"`; the categories and derivations that other tools write are passed over.
fn pragma_context(text: &str) -> Result<Option<String>, String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let quoted = rest.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match (word, quoted) {
        ("context", Some(expression)) => {
            crate::context::check(expression).map(|()| Some(expression.to_owned()))
        }
        ("category" | "derive", Some(_)) => Ok(None),
        _ => Err(format!("#pragma LCFG {text} is not known; write context, category or derive and \"text\"")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(list: &str) -> Result<Vec<String>, Vec<String>> {
        let mut sources = Sources::new();
        sources.insert("packages/a.pkgs", list);
        sources.insert("packages/more.pkgs", "from-more=1\n");
        let words = vec![Word { text: "@a.pkgs".to_owned(), place: None }];
        let resolved = Lists::default().resolve(&sources, &words);
        if resolved.problems.is_empty() {
            Ok(resolved.wishes.iter().map(|spec| format!("{spec:#}")).collect())
        } else {
            Err(resolved.problems.iter().map(ToString::to_string).collect())
        }
    }

    #[test]
    fn prefixes_work_on_what_is_listed_before() {
        for (list, wanted) in [
            ("a-1-1\n?a-2-1\n?b-1-1", vec!["a-2-1"]),
            ("a-1-1\n+a-2-1\n", vec!["a-2-1"]),
            ("a-1-1\na-1-1\n", vec!["a-1-1"]),
            ("b-1-1\na-1-1\n-a-*-*\n-c-*-*", vec!["b-1-1"]),
            ("a-1-1\n~a-2-1\n~b-2-1", vec!["a-1-1", "b-2-1"]),
            ("a-1.9-1\n>a-1.10-1\n>a-1.2-1", vec!["a-1.10-1"]),
            ("!a-1-1\n?a-2-1\n~a-3-1\na-1-1", vec!["a-1-1"]),
            ("perl-1-1/noarch\n?perl-2-1", vec!["perl-1-1/noarch"]),
            ("perl-1-1[foo]\n-perl-*-*", vec!["perl-1-1[foo]"]),
            ("#pragma LCFG context \"!x\"\na-1-1\nb-1-1\n", vec!["a-1-1[!x]", "b-1-1"]),
            ("#include \"more.pkgs\"\n#ifdef LCFGNG\n/* c */\na=*\n#endif\n", vec!["a-*-*", "from-more-1-*"]),
            ("python3-distupgrade=*\n-python3-distupgrade=*", vec![]),
        ] {
            assert_eq!(run(list).unwrap(), wanted, "{list:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_a_problem() {
        for (list, wanted) in [
            ("!a-1-1\n+a-2-1", "lcfg/packages/a.pkgs:2: Version is pinned: a=1-1 at lcfg/packages/a.pkgs:1"),
            ("!a-1-1\n-a-*-*", "Version is pinned"),
            (
                "a-1-1\na-2-1",
                "lcfg/packages/a.pkgs:2: Version conflict: a=1-1 at lcfg/packages/a.pkgs:1; write +a=2-1",
            ),
            ("# text\n", "lcfg/packages/a.pkgs:1: \"#text\" is not a preprocessor directive"),
            ("a b\n", "is not a package specification"),
            ("@more.pkgs\n", "write #include \"more.pkgs\""),
            ("#pragma LCFG nonsense \"x\"\n", "is not known"),
            ("#pragma LCFG context \"a=\"\n", "is not a context"),
        ] {
            let problems = run(list).unwrap_err();
            assert!(problems[0].contains(wanted), "{list:?}: {problems:?}");
        }
    }

    /// One entry as a plain model keeps it: what is listed under a name and architecture, and whether it is pinned.
    type Model = BTreeMap<(usize, bool), (u32, bool)>;

    /// The rules of the prefixes one by one; `None` where the line is an error.
    fn apply_to_model(model: &mut Model, prefix: &str, key: (usize, bool), version: u32) -> Option<()> {
        let old = model.get(&key).copied();
        let pinned = old.is_some_and(|(_, pinned)| pinned);
        let differs = old.is_some_and(|(have, _)| have != version);
        match prefix {
            "" if differs => return None,
            "" | "~" => drop(model.entry(key).or_insert((version, false))),
            "?" if old.is_none() || pinned => {}
            ">" if old.is_some_and(|(have, _)| version <= have) => {}
            _ if pinned => return None,
            "-" => drop(model.remove(&key)),
            prefix => drop(model.insert(key, (version, prefix == "!"))),
        }
        Some(())
    }

    proptest! {
        #[test]
        fn lists_merge_as_the_rules_say(
            lines in prop::collection::vec(
                (prop::sample::select(vec!["", "+", "-", "?", "!", "~", ">"]), 0_usize..3, any::<bool>(), 1_u32..4),
                0..12,
            ),
        ) {
            let mut model = Model::new();
            let mut wrong = 0;
            let mut list = Vec::new();
            for (prefix, name, arch, version) in lines {
                let text = ["a", "b", "c"][name];
                let arch_text = if arch { "/i386" } else { "" };
                list.push(format!("{prefix}{text}-{version}-1{arch_text}:b\n"));
                wrong += usize::from(apply_to_model(&mut model, prefix, (name, arch), version).is_none());
            }
            let list = list.concat();
            match run(&list) {
                Ok(got) => {
                    prop_assert_eq!(wrong, 0, "{}", list);
                    let mut wanted: Vec<String> = model
                        .into_iter()
                        .map(|((name, arch), (version, _))| {
                            format!("{}-{version}-1{}:b", ["a", "b", "c"][name], if arch { "/i386" } else { "" })
                        })
                        .collect();
                    wanted.sort();
                    let mut got = got;
                    got.sort();
                    prop_assert_eq!(got, wanted, "{}", list);
                }
                Err(problems) => prop_assert_eq!(problems.len(), wrong, "{}: {:?}", list, problems),
            }
        }
    }
}
