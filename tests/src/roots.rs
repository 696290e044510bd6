//! Root trees as tar streams, compared path by path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use gatehouse_model::Digest;
use tar::{Archive, Entry, EntryType};

/// Numbers of users and groups that are given out in the order in which packages are configured.
const DYNAMIC: std::ops::Range<u64> = 100..1000;

/// PAX records of extended attributes begin with this.
const XATTR: &str = "SCHILY.xattr.";

/// What is known of one path: attribute to value. There is no time among them: what scripts write has the time of
/// the build, and a directory's time tells when the last name was put into it.
pub type Attributes = BTreeMap<String, String>;

/// A tree by path, without a leading slash; the top is empty.
#[derive(Debug, Default)]
pub struct Tree {
    paths: BTreeMap<String, Attributes>,
    /// Owner and group of a path as the archive has them, until the tree's own names are known.
    owners: BTreeMap<String, (u64, u64)>,
    /// Small files that are read for their meaning.
    texts: BTreeMap<String, String>,
}

/// How a path differs: its name, the attribute (`ours` or `theirs` for one that only one tree has), and both values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The path.
    pub path: String,
    /// What differs.
    pub what: String,
    /// For people: what it is here and there.
    pub values: String,
}

impl Tree {
    /// Reads a tar file, or one compressed by zstd.
    ///
    /// # Panics
    /// It cannot be read.
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
        let packed = path.extension().is_some_and(|extension| extension == "zst");
        let reader: Box<dyn Read> =
            if packed { Box::new(zstd::Decoder::new(file).expect("zstd")) } else { Box::new(file) };
        let mut tree = Self::default();
        for entry in Archive::new(reader).entries().expect("a tar stream") {
            tree.add(entry.expect("a whole tar stream"));
        }
        tree.name_owners();
        tree.join_links();
        tree
    }

    /// A small file's text, as it is.
    pub fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }

    fn add(&mut self, mut entry: Entry<'_, impl Read>) {
        let path = name(&entry.path_bytes());
        let mut all = Attributes::new();
        let mut set = |what: &str, value: String| drop(all.insert(what.to_owned(), value));
        for extension in entry.pax_extensions().expect("PAX records").into_iter().flatten() {
            let extension = extension.expect("a PAX record");
            if let Some(attribute) = extension.key().expect("text").strip_prefix(XATTR) {
                set(attribute, Digest::of(extension.value_bytes()).short());
            }
        }
        let header = entry.header().clone();
        let kind = header.entry_type();
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        set("type", if kind == EntryType::Link || is_file { "file".to_owned() } else { format!("{kind:?}") });
        if kind != EntryType::Symlink {
            set("mode", format!("{:o}", header.mode().expect("a mode") & 0o7777));
        }
        if let Some(target) = entry.link_name_bytes() {
            match kind {
                EntryType::Link => set("link", name(&target)),
                _ => set("target", String::from_utf8_lossy(&target).into_owned()),
            }
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            set("device", format!("{}:{}", number(header.device_major()), number(header.device_minor())));
        }
        if is_file {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a whole file");
            set("content", Digest::of(&meaning(&path, &bytes)).short());
            if is_text(&path) {
                self.texts.insert(path.clone(), String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        self.owners.insert(path.clone(), (header.uid().expect("a user"), header.gid().expect("a group")));
        self.paths.insert(path, all);
    }

    /// A dynamic number is the name that the tree's own files give it, any other is itself and its name.
    fn name_owners(&mut self) {
        let table = |file: &str| -> BTreeMap<u64, String> {
            let lines = self.text(file).lines().map(|line| line.split(':').collect::<Vec<_>>());
            lines
                .filter_map(|words| Some((words.get(2)?.parse().ok()?, (*words.first()?).to_owned())))
                .collect()
        };
        let (users, groups) = (table("etc/passwd"), table("etc/group"));
        let said = |number: u64, names: &BTreeMap<u64, String>| match names.get(&number) {
            Some(name) if DYNAMIC.contains(&number) => name.clone(),
            Some(name) => format!("{name}({number})"),
            None => number.to_string(),
        };
        for (path, (user, group)) in std::mem::take(&mut self.owners) {
            let owner = format!("{}:{}", said(user, &users), said(group, &groups));
            self.paths.entry(path).or_default().insert("owner".to_owned(), owner);
        }
    }

    /// Which of several names comes first in an archive is its writer's choice, so the smallest stands for all.
    fn join_links(&mut self) {
        let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, all) in &self.paths {
            if let Some(target) = all.get("link") {
                sets.entry(target.clone()).or_insert_with(|| [target.clone()].into()).insert(path.clone());
            }
        }
        for (holder, names) in sets {
            let first = names.first().cloned().unwrap_or_default();
            let whole = self.paths.get(&holder).cloned().unwrap_or_default();
            for name in names {
                let mut all = whole.clone();
                all.insert("link".to_owned(), first.clone());
                self.paths.insert(name, all);
            }
        }
    }

    /// All differences between this tree (`ours`) and another (`theirs`), sorted.
    pub fn differences(&self, theirs: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let none = Attributes::new();
        for path in self.paths.keys().chain(theirs.paths.keys()).collect::<BTreeSet<_>>() {
            let mut tell = |what: &str, values: String| {
                found.push(Difference { path: path.clone(), what: what.to_owned(), values });
            };
            let (here, there) = (self.paths.get(path), theirs.paths.get(path));
            if here.is_none() || there.is_none() {
                let what = if here.is_some() { "ours" } else { "theirs" };
                tell(what, format!("{:?}", here.or(there).unwrap_or(&none)));
                continue;
            }
            let (here, there) = (here.unwrap_or(&none), there.unwrap_or(&none));
            for what in here.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
                let value = |all: &Attributes| all.get(what).map_or("nothing", String::as_str).to_owned();
                if here.get(what) != there.get(what) {
                    tell(what, format!("{} here, {} there", value(here), value(there)));
                }
            }
        }
        found
    }
}

/// A path of an archive without `./` before and `/` behind.
fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches("./").trim_end_matches('/');
    if text == "." { String::new() } else { text.to_owned() }
}

/// Whether a file is kept as text for who looks at the tree.
fn is_text(path: &str) -> bool {
    ["etc/passwd", "etc/group", "var/lib/dpkg/status"].contains(&path)
}

/// A file's contents as far as they mean something: lists without an order are sorted, and numbers that depend on
/// the order of configuring are hidden.
fn meaning(path: &str, bytes: &[u8]) -> Vec<u8> {
    let users = ["etc/passwd", "etc/group"].contains(&path);
    let lists = ["etc/shadow", "etc/gshadow", "var/lib/dpkg/triggers/File", "var/lib/dpkg/diversions"];
    if !users && !lists.contains(&path) {
        return bytes.to_owned();
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = if path.ends_with("/diversions") {
        // Three lines each: the path, where it goes, whose diversion it is.
        text.lines().collect::<Vec<_>>().chunks(3).map(|three| three.join("\n")).collect()
    } else {
        text.lines().map(str::to_owned).collect()
    };
    if users {
        for line in &mut lines {
            let hide = |word: &str| {
                if word.parse().is_ok_and(|number| DYNAMIC.contains(&number)) { "*" } else { word }.to_owned()
            };
            *line = line.split(':').map(hide).collect::<Vec<_>>().join(":");
        }
    }
    lines.sort();
    lines.join("\n").into_bytes()
}

/// Differences that are meant: a file of `path what: reason` lines below `[section]` headings. In a path `*` stands
/// for any text without a slash.
#[derive(Debug)]
pub struct Exclusions(Vec<Exclusion>);

#[derive(Debug)]
struct Exclusion {
    path: String,
    what: String,
    line: String,
}

impl Exclusions {
    /// Reads the lines of some sections.
    ///
    /// # Panics
    /// A line has another form, or no reason.
    pub fn parse(text: &str, sections: &[&str]) -> Self {
        let mut all = Vec::new();
        let mut wanted = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                wanted = sections.contains(&section);
                continue;
            }
            let (key, reason) = line.split_once(": ").unwrap_or((line, ""));
            assert!(!reason.trim().is_empty(), "an exclusion without a reason: {line}");
            let (path, what) =
                key.rsplit_once(' ').unwrap_or_else(|| panic!("an exclusion of nothing: {line}"));
            if wanted {
                let (path, what) = (path.trim().to_owned(), what.to_owned());
                all.push(Exclusion { path, what, line: line.to_owned() });
            }
        }
        Self(all)
    }

    /// What is left of some differences, as lines for people; an exclusion that none of them needs is one too.
    pub fn apply(&self, differences: &[Difference]) -> Vec<String> {
        let covers = |exclusion: &Exclusion, found: &Difference| {
            exclusion.what == found.what && matches(&exclusion.path, &found.path)
        };
        let left =
            differences.iter().filter(|found| !self.0.iter().any(|exclusion| covers(exclusion, found)));
        let stale =
            self.0.iter().filter(|exclusion| !differences.iter().any(|found| covers(exclusion, found)));
        left.map(|found| format!("/{}: {}: {}", found.path, found.what, found.values))
            .chain(stale.map(|exclusion| format!("this exclusion excludes nothing: {}", exclusion.line)))
            .collect()
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.take_while(|at| !rest[..*at].contains('/')).any(|at| matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusion_covers_one_attribute_of_the_paths_it_names_and_nothing_stale() {
        let text =
            "# why\n[a]\netc/x* mode: its reason\nboot/*.gz ours: more\n[b]\nusr theirs: not asked for\n";
        let all = Exclusions::parse(text, &["a"]);
        let found = |path: &str, what: &str| Difference {
            path: path.to_owned(),
            what: what.to_owned(),
            values: String::new(),
        };
        let both = [found("etc/xy", "mode"), found("boot/k.gz", "ours")];
        assert!(all.apply(&both).is_empty());
        let left =
            all.apply(&[found("etc/x/y", "mode"), found("etc/xy", "owner"), found("boot/k.gz", "ours")]);
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left[2].contains("excludes nothing: etc/x* mode"), "{left:?}");
    }

    #[test]
    fn lists_are_compared_by_meaning() {
        let one = meaning("etc/passwd", b"root:x:0:0\nbus:x:992:992\n");
        assert_eq!(one, meaning("etc/passwd", b"bus:x:997:997\nroot:x:0:0\n"));
        assert_ne!(one, meaning("etc/passwd", b"bus:x:997:0\nroot:x:0:0\n"));
        assert_ne!(meaning("etc/hosts", b"a\nb\n"), meaning("etc/hosts", b"b\na\n"));
    }
}
