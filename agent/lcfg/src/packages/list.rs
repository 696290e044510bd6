//! `profile.packages`: specifications and `@lists` in order, each prefix applied to what is listed before it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{PackageSpec, version};
use crate::cpp::{self, Line, Texts};
use crate::report::{At, Report};
use crate::values::Derivation;

/// A package is looked up by these; another context or architecture is another package.
type Key = (String, Option<String>, Option<String>);

#[derive(Debug)]
struct Listed {
    spec: PackageSpec,
    places: Vec<At>,
    pinned: bool,
}

/// Makes the wishes from the words of `profile.packages`, each with the line that brought it; sorted by name.
pub(crate) fn resolve(
    texts: &mut Texts,
    report: &mut Report,
    words: &[(String, At)],
    derive: fn(&Report, &[At]) -> Derivation,
) -> Vec<PackageSpec> {
    let mut lists = Lists { texts, report, listed: BTreeMap::new() };
    for (word, at) in words {
        match word.strip_prefix('@') {
            Some(name) => lists.file(name, *at),
            None => lists.parse(word, *at, None),
        }
    }
    let Lists { report, listed, .. } = lists;
    let finish = |listed: Listed| PackageSpec { derivation: derive(report, &listed.places), ..listed.spec };
    listed.into_values().map(finish).collect()
}

struct Lists<'a, 'b> {
    texts: &'a mut Texts<'b>,
    report: &'a mut Report,
    listed: BTreeMap<Key, Listed>,
}

impl Lists<'_, '_> {
    fn file(&mut self, name: &str, at: At) {
        let path = format!("packages/{name}");
        let sources = self.texts.sources;
        let Some(text) = sources.get(&path) else {
            let what =
                format!("@{name} is not among the site's package lists; add lcfg/{path} or correct the name");
            return self.report.problem(at, what);
        };
        self.texts.reads.insert(path.clone());
        let file = self.report.open(format!("lcfg/{path}"), None);
        let lines = cpp::preprocess(self.texts, self.report, file, text, &["packages", "include"]);
        self.lines(&lines);
    }

    fn lines(&mut self, lines: &[Line]) {
        let mut context = None;
        for line in lines {
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
        let before = self.report.place(old.places[0]);
        if old.pinned && !(prefix.is_none() && same) {
            return Err(format!("Version is pinned: {} at {before}; remove this line or the pin", old.spec));
        }
        if prefix.is_none() && !same {
            return Err(format!("Version conflict: {} at {before}; write +{new} to replace it", old.spec));
        }
        if prefix == Some('-') {
            self.listed.remove(&key);
            return Ok(());
        }
        let earlier: &[At] = if prefix.is_none() { &[] } else { &old.places };
        let places = [&[at], earlier].concat();
        let pinned = prefix == Some('!') || old.pinned;
        self.listed.insert(key, Listed { spec: new, places, pinned });
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
            crate::context::priority(expression).map(|_| Some(expression.to_owned()))
        }
        ("category" | "derive", Some(_)) => Ok(None),
        _ => Err(format!("#pragma LCFG {text} is not known; write context, category or derive and \"text\"")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Sources;

    fn run(list: &str) -> Result<Vec<String>, Vec<String>> {
        let mut sources = Sources::new();
        sources.insert("packages/a.pkgs", list);
        sources.insert("packages/more.pkgs", "from-more=1\n");
        let mut texts = Texts { sources: &sources, site_header: "", reads: BTreeSet::new() };
        let mut report = Report::default();
        let at = report.open("lcfg/source/n", None);
        let wishes = resolve(&mut texts, &mut report, &[("@a.pkgs".to_owned(), at.on(1))], |_, _| Vec::new());
        let problems = report.into_problems();
        if problems.is_empty() {
            Ok(wishes.iter().map(|spec| format!("{spec:#}")).collect())
        } else {
            Err(problems.iter().map(ToString::to_string).collect())
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
}
