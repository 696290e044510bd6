//! What a profile asks of this node's components: which differ from what was applied, and in which order they run.

use std::collections::BTreeMap;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Digest, Hasher};

use super::journal::Record;

/// The digest of what a component is configured by: its resources, and its program where it has one, so that a
/// changed program runs too.
pub fn digest(profile: &Profile, component: &str) -> Digest {
    let mut hasher = Hasher::new();
    for (name, value) in resources(profile, component) {
        // Names have no zero bytes, so that no two lists of resources read the same.
        hasher.update(name.as_bytes());
        hasher.update(b"\0");
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value.as_bytes());
    }
    if let Some(program) = program(profile, component) {
        hasher.update(program.bytes());
    }
    hasher.finish()
}

/// A component's resources that hold, by name.
pub fn resources<'a>(profile: &'a Profile, component: &str) -> BTreeMap<&'a str, &'a str> {
    let found = profile.components.iter().find(|(name, _)| name == component);
    let Some((name, found)) = found else { return BTreeMap::new() };
    let value = |resource: &'a String| Some((resource.as_str(), profile.get(name, resource)?));
    found.resources.keys().filter_map(value).collect()
}

/// The digest of the program that the site has for a component.
pub fn program(profile: &Profile, component: &str) -> Option<Digest> {
    if !profile.tags("profile", "programs").contains(&component) {
        return None;
    }
    profile.get("profile", &format!("program_{component}"))?.parse().ok()
}

/// The components of a profile in the order in which they are configured: that of `profile.components`.
pub fn order(profile: &Profile) -> Vec<&str> {
    let listed = profile.tags("profile", "components");
    let rank = |name: &str| listed.iter().position(|word| *word == name).unwrap_or(listed.len());
    let mut names: Vec<&str> = profile.components.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_by_key(|name| rank(name));
    names
}

/// The components to run, in order: those that were not applied as the profile now has them. One that was begun when
/// the power failed, or that failed, is among them, since only success is written down.
pub fn plan(profile: &Profile, applied: &BTreeMap<String, Record>) -> Vec<String> {
    let differs = |name: &&str| {
        let before = applied.get(*name).and_then(|record| record.applied);
        before != Some(digest(profile, name))
    };
    order(profile).into_iter().filter(differs).map(str::to_owned).collect()
}

/// What differs between two profiles in one component: the names of its resources.
pub fn diff(old: &Profile, new: &Profile, component: &str) -> Vec<String> {
    let (old, new) = (resources(old, component), resources(new, component));
    let mut names: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter(|name| old.get(name) != new.get(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Resource};

    use super::*;

    fn profile(components: &[(&str, &[(&str, &str)])]) -> Profile {
        let component = |(name, resources): &(&str, &[(&str, &str)])| {
            let resource = |(name, value): &(&str, &str)| {
                ((*name).to_owned(), Resource { value: (*value).to_owned(), ..Resource::default() })
            };
            (
                (*name).to_owned(),
                Component { resources: resources.iter().map(resource).collect(), ..Component::default() },
            )
        };
        Profile { components: components.iter().map(component).collect(), ..Profile::default() }
    }

    fn applied(profile: &Profile, names: &[&str]) -> BTreeMap<String, Record> {
        let record = |name: &&str| {
            let applied = Some(digest(profile, name));
            ((*name).to_owned(), Record { applied, ..Record::default() })
        };
        names.iter().map(record).collect()
    }

    const LIST: (&str, &[(&str, &str)]) = ("profile", &[("components", "profile ntp auth hosts")]);

    #[test]
    fn only_what_differs_runs_and_in_the_profiles_order() {
        let old =
            profile(&[LIST, ("auth", &[("rootpwd", "*")]), ("hosts", &[]), ("ntp", &[("servers", "a")])]);
        assert_eq!(order(&old), ["profile", "ntp", "auth", "hosts"]);
        let all = applied(&old, &["profile", "ntp", "auth", "hosts"]);
        for (what, new, runs) in [
            ("nothing changed", old.clone(), vec![]),
            (
                "one resource",
                profile(&[LIST, ("auth", &[("rootpwd", "x")]), ("hosts", &[]), ("ntp", &[("servers", "a")])]),
                vec!["auth"],
            ),
            (
                "two components, in order",
                profile(&[LIST, ("auth", &[("rootpwd", "x")]), ("hosts", &[]), ("ntp", &[("servers", "b")])]),
                vec!["ntp", "auth"],
            ),
            ("a resource is gone", profile(&[LIST, ("auth", &[]), ("hosts", &[])]), vec!["auth"]),
            ("a new component", profile(&[LIST, ("cron", &[]), ("auth", &[("rootpwd", "*")])]), vec!["cron"]),
        ] {
            assert_eq!(plan(&new, &all), runs, "{what}");
        }
    }

    #[test]
    fn what_was_not_written_down_runs_again() {
        let new = profile(&[LIST, ("auth", &[("rootpwd", "*")]), ("hosts", &[]), ("ntp", &[])]);
        assert_eq!(plan(&new, &BTreeMap::new()), ["profile", "ntp", "auth", "hosts"], "a new node");
        let cut = applied(&new, &["profile", "ntp"]);
        assert_eq!(plan(&new, &cut), ["auth", "hosts"], "the power failed behind ntp");
        let mut failed = applied(&new, &["profile", "ntp", "hosts"]);
        failed.insert("auth".into(), Record::default());
        assert_eq!(plan(&new, &failed), ["auth"]);
    }

    #[test]
    fn a_changed_program_runs_though_no_resource_differs() {
        let digits = |first: char| format!("{first}{}", "0".repeat(63));
        let with = |program: &str| {
            profile(&[
                ("profile", &[("programs", "motd"), ("program_motd", program)]),
                ("motd", &[("text", "x")]),
            ])
        };
        let old = with(&digits('a'));
        assert_eq!(program(&old, "motd"), digits('a').parse().ok());
        assert_eq!(program(&old, "profile"), None);
        let all = applied(&old, &["profile", "motd"]);
        assert_eq!(plan(&old, &all), Vec::<String>::new());
        assert_eq!(plan(&with(&digits('b')), &all), ["profile", "motd"]);
    }

    #[test]
    fn resources_cannot_run_into_each_other() {
        let one = profile(&[("a", &[("x", "1y2"), ("z", "")])]);
        let two = profile(&[("a", &[("x", "1"), ("y", "2"), ("z", "")])]);
        assert_ne!(digest(&one, "a"), digest(&two, "a"));
        assert_eq!(diff(&one, &two, "a"), ["x", "y"]);
        assert_eq!(diff(&one, &one, "a"), Vec::<String>::new());
    }
}
