//! Changes single values in the text of `site.toml`, of a node or of the host: what people have written around them stays.
//! A site that comes to another machine keeps what is said of that.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Site, SiteFile, VmmKind};
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
        text = edit(&text, Place::Node(node), key, setting)?;
    }
    Ok(text)
}

/// The text of `site.toml` with another `host.vmm`. Whether the nodes may run under that is seen when it is read again.
///
/// # Errors
/// The host's section is not one that a line can be put into.
fn edit_vmm(text: &str, vmm: VmmKind) -> Result<String, Problem> {
    edit(text, Place::Host, "vmm", &Setting::Text(vmm.to_string()))
}

/// The text of `site.toml` of a site that comes to another machine, whose own is `own`: what is of the machine is taken from
/// there, and named. The text is written anew, without its comments, where more than `host.vmm` differs.
///
/// # Errors
/// One of the two is wrong, or the host's section is not one that a line can be put into.
pub fn keep_machine(text: &str, own: &str) -> Result<(String, Vec<&'static str>), Vec<Problem>> {
    let vmm = |text| Site::parse(text).map(|site| site.host.vmm);
    let (had, has) = (vmm(text)?, vmm(own)?);
    let (mut site, own) = (SiteFile::parse(text)?, SiteFile::parse(own)?);
    let mut kept = Vec::new();
    keep(&mut site.matches, own.matches, "[match]", &mut kept);
    keep(&mut site.install, own.install, "[install]", &mut kept);
    keep(&mut site.disk, own.disk, "[[disk]]", &mut kept);
    keep(&mut site.network.nic, own.network.nic, "[network.nic]", &mut kept);
    let mut text = if kept.is_empty() { text.to_owned() } else { site.to_text() };
    if had != has {
        text = edit_vmm(&text, has).map_err(|problem| vec![problem])?;
        kept.push("host.vmm");
    }
    Ok((text, kept))
}

fn keep<T: PartialEq>(site: &mut T, own: T, name: &'static str, kept: &mut Vec<&'static str>) {
    if *site != own {
        *site = own;
        kept.push(name);
    }
}

/// Whose section it is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Node(&'a NodeName),
    Host,
}

impl Place<'_> {
    fn find<'t>(self, table: &'t Table<'t>) -> Option<&'t Spanned<DeValue<'t>>> {
        match self {
            Self::Node(node) => section(table, node),
            Self::Host => table.get("host"),
        }
    }

    /// Its name, and how its section is written.
    fn words(self) -> (String, &'static str) {
        match self {
            Self::Node(node) => (node.to_string(), "[[node]]"),
            Self::Host => ("host".to_owned(), "[host]"),
        }
    }
}

fn edit(text: &str, place: Place<'_>, key: &str, setting: &Setting) -> Result<String, Problem> {
    let plain = text.trim_start_matches('\u{feff}');
    let mark = text.len() - plain.len();
    let (table, _) = DeTable::parse_recoverable(plain);
    let Some(section) = place.find(table.get_ref()) else {
        return match (place, value(setting)) {
            (Place::Host, Some(new)) => Ok(format!("{text}\n[host]\n{key} = {new}\n")),
            (Place::Host, None) => Ok(text.to_owned()),
            (Place::Node(node), _) => {
                let what = format!("no node is named {node}; write one that is there");
                Err(Problem::at("site.toml", 0, what))
            }
        };
    };
    let keys = section.get_ref().as_table();
    if plain[section.span()].starts_with('{') {
        let line = plain[..section.span().start].lines().count().max(1);
        let (name, form) = place.words();
        let what = format!("{name} is not a section of its own; write it as {form}");
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
    fn the_host_gets_another_vmm() {
        for (from, to) in [
            ("[host] # this\nvmm = \"xen\" # that\n", "[host] # this\nvmm = \"kvm\" # that\n"),
            ("[host]\nmemory = \"1GiB\"\n", "[host]\nmemory = \"1GiB\"\nvmm = \"kvm\"\n"),
            ("[host]\n[[node]]\n", "[host]\nvmm = \"kvm\"\n[[node]]\n"),
            ("[[node]]\nname = \"ce\"\n", "[[node]]\nname = \"ce\"\n\n[host]\nvmm = \"kvm\"\n"),
        ] {
            assert_eq!(edit_vmm(from, VmmKind::Kvm).as_deref(), Ok(to));
        }
    }

    #[test]
    fn a_site_on_another_machine_keeps_what_is_of_that() {
        let own = include_str!("../../../../site-templates/minimal/site.toml");
        assert_eq!(keep_machine(own, own), Ok((own.to_owned(), vec![])));
        let kvm = own.replace("vmm = \"xen\"", "vmm = \"kvm\"");
        assert_eq!(keep_machine(own, &kvm), Ok((kvm.clone(), vec!["host.vmm"])));
        let other =
            own.replace("\n[[disk]]\n", "\n[[disk]]\nserial = \"OLD\"\n").replace("0.0.2.21", "0.0.2.22");
        let (text, kept) = keep_machine(&other, &kvm).expect("right");
        assert_eq!(kept, ["[[disk]]", "host.vmm"]);
        let (now, expected) = (Site::parse(&text).expect("right"), Site::parse(&kvm).expect("right"));
        assert_eq!((&now.disk, now.host.vmm), (&expected.disk, VmmKind::Kvm));
        assert_ne!(now.nodes[0].address, expected.nodes[0].address);
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
