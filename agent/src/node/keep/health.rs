//! Whether the node's services are well: the checks of its profile, and what the server is told of them.

use std::process::Command;
use std::time::Duration;

use gatehouse_lcfg::Profile;

use crate::node::component::program::{SEARCH_PATH, tail, watched};
use crate::wire::{Ack, Failure, Milestone};

/// A check that has not ended by then has failed.
const LONGEST: Duration = Duration::from_secs(30);
/// The first and the longest pause between two looks while something is wrong.
const ILL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// The pause while all is well, where the profile says nothing that can be understood.
const WELL: Duration = Duration::from_secs(60);
/// One failure may be chance: a service that restarts, a machine under load.
const MISSES: u32 = 2;

/// Makes the checks of a profile; those that fail, with the end of what they said.
pub(super) fn look(profile: &Profile) -> Vec<Failure> {
    profile.tags("client", "checks").into_iter().filter_map(|tag| check(profile, tag)).collect()
}

fn check(profile: &Profile, tag: &str) -> Option<Failure> {
    let line = profile.get("client", &format!("check_{tag}")).unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).env_clear();
    command.envs([("PATH", SEARCH_PATH), ("LC_ALL", "C.UTF-8"), ("HOME", "/root")]).current_dir("/");
    let output = match watched(command, LONGEST) {
        Ok(output) if output.status.success() => return None,
        Ok(output) if tail(&output).is_empty() => output.status.to_string(),
        Ok(output) => tail(&output),
        Err(error) => error.to_string(),
    };
    Some(Failure { component: tag.to_owned(), method: "check".to_owned(), output })
}

/// The pause between two looks while all is well.
pub(super) fn every(profile: &Profile) -> Duration {
    let given = profile.get("client", "checkevery").and_then(|text| text.parse().ok());
    given.filter(|seconds| *seconds > 0).map_or(WELL, Duration::from_secs)
}

/// What the server knows of the node's health, and what came since.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The checks that the server was told fail; none: it was told nothing yet.
    told: Option<Vec<String>>,
    /// How often in a row something was wrong.
    misses: u32,
    /// Whether the server is told again though nothing has changed: it may have started anew.
    again: bool,
}

impl Health {
    /// What is to be told of the outcome of a look, if anything; [`Health::has_told`] follows when that was done.
    pub(super) fn news(&mut self, failing: &[Failure], etag: &str) -> Option<Ack> {
        self.misses = if failing.is_empty() { 0 } else { self.misses + 1 };
        let tags = tags(failing);
        let tell = match &self.told {
            None => true,
            // Well until now, and this may be chance.
            Some(told) if told.is_empty() && self.misses > 0 && self.misses < MISSES => false,
            Some(told) => *told != tags || self.again,
        };
        let milestone = if failing.is_empty() { Milestone::Running } else { Milestone::Up };
        tell.then(|| Ack { failed: failing.to_vec(), ..Ack::new(milestone, etag) })
    }

    /// The server knows that these fail.
    pub(super) fn has_told(&mut self, failing: &[Failure]) {
        (self.told, self.again) = (Some(tags(failing)), false);
    }

    /// Has the server told again.
    pub(super) fn repeat(&mut self) {
        self.again = true;
    }

    /// The pause until the next look.
    pub(super) fn pause(&self, every: Duration) -> Duration {
        let (first, longest) = ILL;
        match self.misses {
            0 => every,
            misses => first.saturating_mul(1 << (misses - 1).min(8)).min(longest),
        }
    }
}

fn tags(failing: &[Failure]) -> Vec<String> {
    failing.iter().map(|failure| failure.component.clone()).collect()
}

#[cfg(test)]
mod tests {
    use gatehouse_lcfg::{Component, Kind, Resource};

    use super::*;

    fn failing(tags: &[&str]) -> Vec<Failure> {
        let failure =
            |tag: &&str| Failure { component: (*tag).into(), method: "check".into(), output: "no".into() };
        tags.iter().map(failure).collect()
    }

    /// What is told of each look, `-` where nothing is.
    fn told(looks: &[&[&str]]) -> String {
        let mut health = Health::default();
        let look = |tags: &&[&str]| {
            let failing = failing(tags);
            let Some(ack) = health.news(&failing, "x") else { return "-".to_owned() };
            health.has_told(&failing);
            match ack.milestone {
                Milestone::Running => "well".to_owned(),
                _ => tags.join("+"),
            }
        };
        looks.iter().map(look).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_changes_is_told_and_one_failure_of_a_node_that_was_well_is_not() {
        let table: [(&[&[&str]], &str); 5] = [
            (&[&[], &[], &[]], "well - -"),
            (&[&["a", "b"], &["a", "b"], &["b"], &[], &[]], "a+b - b well -"),
            (&[&[], &["a"], &[], &["a"], &[]], "well - - - -"),
            (&[&[], &["a"], &["a"], &["a"], &[]], "well - a - well"),
            (&[&[], &["a"], &["b"]], "well - b"),
        ];
        for (looks, expected) in table {
            assert_eq!(told(looks), expected, "{looks:?}");
        }
    }

    #[test]
    fn a_server_that_may_have_forgotten_is_told_again() {
        let mut health = Health::default();
        assert!(health.news(&[], "x").is_some());
        assert!(health.news(&[], "x").is_some(), "it did not arrive");
        health.has_told(&[]);
        assert!(health.news(&[], "x").is_none());
        health.repeat();
        assert!(health.news(&failing(&["a"]), "x").is_none(), "this may be chance");
        assert_eq!(health.news(&failing(&["a"]), "x").expect("told").milestone, Milestone::Up);
    }

    #[test]
    fn what_is_wrong_is_looked_at_more_often() {
        let (mut health, every) = (Health::default(), Duration::from_secs(60));
        let pauses: Vec<u64> = [&["a"][..], &["a"], &["a"], &["a"], &["a"], &[]]
            .iter()
            .map(|tags| {
                health.news(&failing(tags), "x");
                health.pause(every).as_secs()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 15, 15, 60]);
    }

    #[test]
    fn checks_are_command_lines() {
        let resource = |value: &str| Resource { value: value.into(), ..Resource::default() };
        let list = Resource { kind: Kind::List(vec!["check_$".into()]), ..resource("good bad silent") };
        let resources = [
            ("checks".to_owned(), list),
            ("check_good".to_owned(), resource("echo fine")),
            ("check_bad".to_owned(), resource("echo first; echo \"no $HOME\" >&2; false")),
            ("check_silent".to_owned(), resource("exit 3")),
            ("checkevery".to_owned(), resource("7")),
        ];
        let client = Component { resources: resources.into(), ..Component::default() };
        let profile = Profile { components: vec![("client".into(), client)], ..Profile::default() };
        let found: Vec<_> =
            look(&profile).into_iter().map(|failure| (failure.component, failure.output)).collect();
        let expected = [("bad", "first\nno /root"), ("silent", "exit status: 3")];
        assert_eq!(found, expected.map(|(tag, words)| (tag.to_owned(), words.to_owned())));
        assert_eq!(every(&profile), Duration::from_secs(7));
        assert_eq!(look(&Profile::default()), []);
    }
}
