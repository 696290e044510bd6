//! How it stands on this node, for people and programs.

use std::fmt::Write as _;

use gatehouse_lcfg::Profile;
use serde::{Deserialize, Serialize};

use super::journal::{Journal, PackagesRecord, State, seconds};
use super::{Node, contexts, plan};
use crate::node::component;
use crate::node::target::Target;
use crate::wire::Failure;

/// What the daemon leaves for those who ask, gone at the next boot.
const NOTE: &str = "/run/gatehouse/client.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Note {
    next: u64,
    trouble: String,
}

/// Leaves a note of when the daemon looks next, and of what holds it up.
pub(super) fn leave_note(target: &Target, next: u64, trouble: &str) {
    let note = Note { next, trouble: trouble.trim().to_owned() };
    let text = serde_json::to_string(&note).unwrap_or_default();
    // Without it `node status` says less, and nothing else suffers.
    let _ = target.write(NOTE, 0o644, text.as_bytes());
}

/// `node status`; with `--json` as it stands here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    node: String,
    server: String,
    profile: String,
    published: u64,
    fetched: u64,
    contexts: Vec<String>,
    components: Vec<ComponentReport>,
    packages: PackagesRecord,
    failed: Vec<Failure>,
    trouble: String,
    next: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ComponentReport {
    name: String,
    state: Standing,
    at: u64,
}

/// How one component stands to the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    /// As the profile says.
    Applied,
    /// It failed when it was last run.
    Failed,
    /// It has yet to be run.
    Due,
}

pub(super) fn report(node: &Node) -> Report {
    let state = Journal::open(&node.target).state().clone();
    let profile = node.profile().ok();
    let left: Note = serde_json::from_str(&node.target.read(NOTE)).unwrap_or_default();
    let active = contexts::read(&node.target).unwrap_or_default();
    Report {
        node: node.home.node.to_string(),
        server: node.home.server.to_string(),
        profile: state.etag.clone(),
        published: profile.as_ref().map_or(0, |profile| profile.published.at),
        fetched: state.fetched,
        contexts: active.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        components: profile.iter().flat_map(|profile| components(profile, &state)).collect(),
        failed: state.failures(),
        packages: state.packages,
        trouble: left.trouble,
        next: left.next,
    }
}

fn components(profile: &Profile, state: &State) -> Vec<ComponentReport> {
    let due = plan::plan(profile, &state.components);
    let report = |name: &str| {
        let record = state.components.get(name);
        let standing = match record {
            Some(record) if record.failed.is_some() => Standing::Failed,
            _ if due.iter().any(|due| due == name) => Standing::Due,
            _ => Standing::Applied,
        };
        ComponentReport { name: name.to_owned(), state: standing, at: record.map_or(0, |record| record.at) }
    };
    let acts = |name: &&str| component::doer(profile, name).is_some();
    plan::order(profile).into_iter().filter(acts).map(report).collect()
}

impl Report {
    /// The same for people.
    pub(super) fn render(&self, now: u64) -> String {
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{text}");
        };
        let short: String = self.profile.chars().take(12).collect();
        line(format_args!("{} at {}", self.node, self.server));
        line(format_args!("profile {short}, fetched {}", ago(self.fetched, now)));
        if !self.contexts.is_empty() {
            line(format_args!("contexts {}", self.contexts.join(" ")));
        }
        for component in &self.components {
            let word = match component.state {
                Standing::Applied => "applied",
                Standing::Failed => "failed",
                Standing::Due => "due",
            };
            line(format_args!("  {:<12} {word:<8} {}", component.name, ago(component.at, now)));
        }
        if self.packages.at > 0 {
            line(format_args!("packages changed {}", ago(self.packages.at, now)));
        }
        for Failure { component, method, output } in &self.failed {
            line(format_args!("{component} {method} failed: {}", output.trim().replace('\n', "\n    ")));
        }
        if !self.trouble.is_empty() {
            line(format_args!("{}", self.trouble));
        }
        if self.next > now {
            line(format_args!("looks again in {} s at the latest", self.next - now));
        }
        out
    }
}

fn ago(at: u64, now: u64) -> String {
    let seconds = now.saturating_sub(at);
    match at {
        0 => "never".to_owned(),
        _ if seconds < 120 => format!("{seconds} s ago"),
        _ if seconds < 7200 => format!("{} min ago", seconds / 60),
        _ if seconds < 172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The report as text, now.
pub(super) fn text(node: &Node) -> String {
    report(node).render(seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        for (at, text) in [(0, "never"), (999, "1 s ago"), (700, "5 min ago")] {
            assert_eq!(ago(at, 1000), text);
        }
        assert_eq!(ago(1, 10_801), "3 h ago");
        assert_eq!(ago(1, 432_001), "5 days ago");
    }
}
