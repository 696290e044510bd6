//! Triggers: what packages are interested in, what they activate, and dpkg's lists of both.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_model::Fault;

/// A trigger and whether the activating package has to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// An absolute path or a name.
    pub name: String,
    /// Whether the activating package waits.
    pub wait: bool,
}

/// A line of a package's `triggers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// The package wants to be told.
    Interest(Trigger),
    /// Installing the package tells others.
    Activate(Trigger),
}

/// Reads a package's `triggers`.
pub fn parse(text: &str) -> Result<Vec<Directive>, Fault> {
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (word, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = name.trim();
        if !is_trigger(name) {
            return Err(Fault::new(format!("{name:?} is not a trigger's name")));
        }
        let trigger = |wait| Trigger { name: name.to_owned(), wait };
        all.push(match word {
            "interest" | "interest-await" => Directive::Interest(trigger(true)),
            "interest-noawait" => Directive::Interest(trigger(false)),
            "activate" | "activate-await" => Directive::Activate(trigger(true)),
            "activate-noawait" => Directive::Activate(trigger(false)),
            other => return Err(Fault::new(format!("{other:?} is not a trigger directive"))),
        });
    }
    Ok(all)
}

/// Names become file names in dpkg's database, paths are compared as text.
fn is_trigger(name: &str) -> bool {
    if name.starts_with('/') {
        return !name.ends_with('/') && !name.contains("//") && !name.contains(char::is_whitespace);
    }
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// dpkg's lists of interests in paths (`triggers/File`) and in names (a file per name).
#[derive(Clone, Debug, Default)]
pub struct Interests {
    files: Vec<(String, String)>,
    names: BTreeMap<String, Vec<String>>,
}

impl Interests {
    /// Adds the lines of `triggers/File`.
    pub fn read_files(&mut self, text: &str) {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        self.files.extend(lines.map(|(path, package)| (path.to_owned(), package.to_owned())));
    }

    /// Adds the lines of the file of one name.
    pub fn read_name(&mut self, name: &str, text: &str) {
        self.names.insert(name.to_owned(), text.lines().map(str::to_owned).collect());
    }

    /// Adds one interest, in place of an older one of the same package.
    pub fn add(&mut self, trigger: &Trigger, package: &str) {
        let entry = if trigger.wait { package.to_owned() } else { format!("{package}/noawait") };
        if trigger.name.starts_with('/') {
            self.files.retain(|(path, who)| *path != trigger.name || bare(who) != package);
            self.files.push((trigger.name.clone(), entry));
        } else {
            let all = self.names.entry(trigger.name.clone()).or_default();
            all.retain(|who| bare(who) != package);
            all.push(entry);
        }
    }

    /// The text of `triggers/File`.
    pub fn files_text(&self) -> String {
        self.files.iter().flat_map(|(path, package)| [path.as_str(), " ", package.as_str(), "\n"]).collect()
    }

    /// Each name with the text of its file.
    pub fn names_text(&self) -> impl Iterator<Item = (&str, String)> {
        self.names
            .iter()
            .map(|(name, all)| (name.as_str(), all.iter().flat_map(|who| [who.as_str(), "\n"]).collect()))
    }

    /// The interests that a path lies in, where a package that `listens` has them.
    pub fn touched<'a>(&'a self, path: &str, listens: &BTreeSet<String>) -> Vec<&'a str> {
        let within = |interest: &str| {
            path.strip_prefix(interest).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let hits = self.files.iter().filter(|(name, who)| within(name) && listens.contains(bare(who)));
        hits.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether a package that `listens` is interested in a name.
    pub fn is_heard(&self, name: &str, listens: &BTreeSet<String>) -> bool {
        self.names.get(name).is_some_and(|all| all.iter().any(|who| listens.contains(bare(who))))
    }
}

fn bare(entry: &str) -> &str {
    entry.split('/').next().unwrap_or(entry)
}

/// `triggers/Unincorp`: activations that dpkg takes over when it next runs.
#[derive(Clone, Debug, Default)]
pub struct Pending(BTreeMap<String, BTreeSet<String>>);

impl Pending {
    /// Reads the file's lines: a trigger, then who waits, `-` for nobody.
    pub fn read(text: &str) -> Self {
        let mut pending = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            if let Some(name) = words.next() {
                pending.0.entry(name).or_default().extend(words);
            }
        }
        pending
    }

    /// Adds one activation.
    pub fn add(&mut self, trigger: &str, waits: Option<&str>) {
        self.0.entry(trigger.to_owned()).or_default().insert(waits.unwrap_or("-").to_owned());
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let line = |(name, waits): (&String, &BTreeSet<String>)| {
            format!("{name} {}\n", waits.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_wrong_ones_refused() {
        let all = parse("# a\ninterest-noawait /usr/share/man\n\nactivate ldconfig # x\n").unwrap();
        let interest = Trigger { name: "/usr/share/man".to_owned(), wait: false };
        let activate = Trigger { name: "ldconfig".to_owned(), wait: true };
        assert_eq!(all, [Directive::Interest(interest), Directive::Activate(activate)]);
        for text in
            ["interest", "interest ../x", "interest a/b", "listen x", "interest /a//b", "interest /a/"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn interests_are_listed_in_order_and_replaced() {
        let mut all = Interests::default();
        all.read_files("/usr/lib a\n/usr/lib b/noawait\n");
        all.add(&Trigger { name: "/usr/lib".to_owned(), wait: false }, "a");
        all.add(&Trigger { name: "cache".to_owned(), wait: true }, "c:amd64");
        assert_eq!(all.files_text(), "/usr/lib b/noawait\n/usr/lib a/noawait\n");
        assert_eq!(all.names_text().collect::<Vec<_>>(), [("cache", "c:amd64\n".to_owned())]);
        let listens = BTreeSet::from(["b".to_owned()]);
        assert_eq!(all.touched("/usr/lib/x/y", &listens), ["/usr/lib"]);
        assert!(all.touched("/usr/library", &listens).is_empty());
        assert!(!all.is_heard("cache", &listens));
    }

    #[test]
    fn pending_activations_are_merged() {
        let mut pending = Pending::read("cache -\n");
        pending.add("cache", Some("a"));
        pending.add("/x", None);
        assert_eq!(pending.text(), "/x -\ncache - a\n");
    }
}
