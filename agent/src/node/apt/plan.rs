//! Which packages change: pure, from what is there and what is wanted to the arguments of apt-get.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use gatehouse_deb::Version;
use gatehouse_model::PackageId;
use serde::Serialize;

use crate::wire::PackageCounts;

/// A package on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Whether it is installed whole; else an earlier change was interrupted.
    pub whole: bool,
    /// Whether nothing works without it; such a one is never removed.
    pub essential: bool,
}

/// A package that the profile lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: PackageId,
    /// Flag `b`: it is changed only at boot.
    pub at_boot: bool,
}

/// What the profile says of packages as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The node's own architecture.
    pub native: String,
    /// Packages that the profile does not list stay.
    pub keep_unknown: bool,
    /// Packages that were installed for others stay when nothing needs them any more.
    pub keep_auto: bool,
    /// It is the first look since the node was started.
    pub at_boot: bool,
    /// The running kernel's release: its package is not removed under it.
    pub kernel: String,
}

/// What becomes of one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Install,
    /// It gets a later version.
    Upgrade,
    /// It gets an earlier version.
    Downgrade,
    /// It goes.
    Remove,
}

/// One package that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What becomes of it.
    pub change: Change,
    /// Its name, with the architecture where that is a foreign one.
    pub name: String,
    /// The version that is there, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version that is wanted, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What changes, in order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is changed now.
    pub now: Vec<Item>,
    /// What waits for the next start of the node.
    pub later: Vec<Item>,
    /// An earlier change was interrupted and has to be repaired before.
    pub repair: bool,
    /// What nothing needs any more goes too.
    #[serde(skip)]
    pub autoremove: bool,
}

/// Compares what is there with what is wanted.
pub fn plan(present: &[Present], wanted: &[Wanted], rules: &Rules) -> Plan {
    let name = |name: &str, architecture: &str| {
        let own = architecture == "all" || architecture == rules.native;
        if own { name.to_owned() } else { format!("{name}:{architecture}") }
    };
    let there: BTreeMap<String, &Present> =
        present.iter().map(|package| (name(&package.name, &package.architecture), package)).collect();
    let listed: BTreeMap<String, &Wanted> =
        wanted.iter().map(|package| (name(&package.id.name, &package.id.architecture), package)).collect();
    let mut plan = Plan {
        repair: present.iter().any(|package| !package.whole),
        autoremove: rules.keep_unknown && !rules.keep_auto,
        ..Plan::default()
    };
    for (name, package) in &listed {
        let old = there.get(name).map(|old| old.version.as_str());
        let Some(change) = step(old, &package.id.version) else { continue };
        let (from, to) = (old.map(str::to_owned), Some(package.id.version.clone()));
        let item = Item { change, name: name.clone(), from, to };
        if package.at_boot && !rules.at_boot { plan.later.push(item) } else { plan.now.push(item) }
    }
    for (name, old) in there.iter().filter(|(name, _)| !rules.keep_unknown && !listed.contains_key(*name)) {
        if old.essential {
            continue;
        }
        let from = Some(old.version.clone());
        let item = Item { change: Change::Remove, name: name.clone(), from, to: None };
        // Without its modules a running kernel cannot even mount a disk; it goes when another one runs.
        let runs = !rules.kernel.is_empty() && old.name.ends_with(&rules.kernel);
        if runs { plan.later.push(item) } else { plan.now.push(item) }
    }
    plan.now.sort_by(|a, b| a.name.cmp(&b.name));
    plan.later.sort_by(|a, b| a.name.cmp(&b.name));
    plan
}

fn step(old: Option<&str>, new: &str) -> Option<Change> {
    let Some(old) = old else { return Some(Change::Install) };
    match compare(new, old) {
        Ordering::Equal => None,
        Ordering::Greater => Some(Change::Upgrade),
        Ordering::Less => Some(Change::Downgrade),
    }
}

/// Versions by dpkg's rules; texts that are none are compared as texts.
fn compare(a: &str, b: &str) -> Ordering {
    match (a.parse::<Version>(), b.parse::<Version>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

impl Plan {
    /// Whether there is nothing to do now.
    pub fn is_done(&self) -> bool {
        self.now.is_empty() && !self.repair
    }

    /// What follows `apt-get install`: every package that differs with its exact version, `name-` for what goes.
    pub fn arguments(&self) -> Vec<String> {
        let argument = |item: &Item| match &item.to {
            Some(version) => format!("{}={version}", item.name),
            None => format!("{}-", item.name),
        };
        self.now.iter().map(argument).collect()
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> PackageCounts {
        let count = |change| self.now.iter().filter(|item| item.change == change).count();
        PackageCounts {
            installed: count(Change::Install),
            upgraded: count(Change::Upgrade),
            downgraded: count(Change::Downgrade),
            removed: count(Change::Remove),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.change {
            Change::Install => "install",
            Change::Upgrade => "upgrade",
            Change::Downgrade => "downgrade",
            Change::Remove => "remove",
        };
        write!(f, "{verb} {}", self.name)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, " {from} to {to}"),
            (Some(version), None) | (None, Some(version)) => write!(f, " {version}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(text: &str) -> Present {
        let id: PackageId = text.trim_end_matches('!').parse().expect("an id");
        Present {
            essential: id.name == "dpkg",
            name: id.name,
            version: id.version,
            architecture: id.architecture,
            whole: !text.ends_with('!'),
        }
    }

    fn wanted(text: &str) -> Wanted {
        let (id, flags) = text.split_once(" :").unwrap_or((text, ""));
        Wanted { id: id.parse().expect("an id"), at_boot: flags.contains('b') }
    }

    fn rules() -> Rules {
        Rules {
            native: "amd64".into(),
            keep_unknown: false,
            keep_auto: true,
            at_boot: false,
            kernel: "6.12.48-amd64".into(),
        }
    }

    fn planned(there: &[&str], listed: &[&str], rules: &Rules) -> Plan {
        let there: Vec<_> = there.iter().map(|text| present(text)).collect();
        let listed: Vec<_> = listed.iter().map(|text| wanted(text)).collect();
        plan(&there, &listed, rules)
    }

    #[test]
    fn from_what_is_there_and_what_is_wanted_to_apts_arguments() {
        type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let all: &[Case<'_>] = &[
            ("nothing differs", &["a=1/amd64", "b=2/all"], &["b=2/all", "a=1/amd64"], &[]),
            ("a new one", &["a=1/amd64"], &["a=1/amd64", "less=668-1/amd64"], &["less=668-1"]),
            ("a later version", &["a=1.9/amd64"], &["a=1.10/amd64"], &["a=1.10"]),
            ("an earlier version", &["a=1:1/amd64"], &["a=2/amd64"], &["a=2"]),
            ("equal to dpkg", &["a=0:1.0/amd64"], &["a=1.0/amd64"], &[]),
            ("one that is no longer listed", &["a=1/amd64", "b=1/amd64"], &["a=1/amd64"], &["b-"]),
            (
                "all together, by name",
                &["a=1/all", "c=3/amd64"],
                &["a=2/all", "b=1/amd64"],
                &["a=2", "b=1", "c-"],
            ),
            ("another architecture", &["a=1/amd64"], &["a=1/amd64", "a=1/i386"], &["a:i386=1"]),
            ("for all machines now", &["a=1/amd64"], &["a=2/all"], &["a=2"]),
            ("essential ones stay", &["dpkg=1/amd64"], &[], &[]),
            ("half-installed", &["a=1/amd64!"], &["a=1/amd64"], &[]),
        ];
        for (what, there, listed, arguments) in all {
            assert_eq!(planned(there, listed, &rules()).arguments(), *arguments, "{what}");
        }
        assert!(planned(&["a=1/amd64!"], &["a=1/amd64"], &rules()).repair);
        assert!(planned(&["a=1/amd64"], &["a=1/amd64"], &rules()).is_done());
    }

    #[test]
    fn the_flag_b_waits_for_a_boot() {
        let (there, listed) = (["k=1/amd64", "a=1/amd64"], ["k=2/amd64 :b", "a=2/amd64", "n=1/amd64 :b"]);
        let running = planned(&there, &listed, &rules());
        assert_eq!(running.arguments(), ["a=2"]);
        let later: Vec<String> = running.later.iter().map(ToString::to_string).collect();
        assert_eq!(later, ["upgrade k 1 to 2", "install n 1"]);
        let booted = planned(&there, &listed, &Rules { at_boot: true, ..rules() });
        assert_eq!(booted.arguments(), ["a=2", "k=2", "n=1"]);
        assert_eq!(booted.later, []);
        let counts = PackageCounts { installed: 1, upgraded: 2, ..PackageCounts::default() };
        assert_eq!(booted.counts(), counts);
    }

    #[test]
    fn the_running_kernel_stays_and_so_does_what_is_unknown_if_told() {
        let there = ["linux-image-6.12.48-amd64=1/amd64", "linux-image-6.12.40-amd64=1/amd64", "x=1/amd64"];
        let plan = planned(&there, &[], &rules());
        assert_eq!(plan.arguments(), ["linux-image-6.12.40-amd64-", "x-"]);
        assert_eq!(plan.later.len(), 1);
        let keep = Rules { keep_unknown: true, ..rules() };
        let plan = planned(&there, &["x=2/amd64"], &keep);
        assert_eq!((plan.arguments(), plan.autoremove), (vec!["x=2".to_owned()], false));
        assert!(planned(&there, &[], &Rules { keep_auto: false, ..keep }).autoremove);
    }
}
