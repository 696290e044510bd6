//! What an evaluation of a site found: how long each of its commands takes, beside what the paper found that this
//! product grows from.

mod axis;
mod chart;
mod paper;
mod table;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::NodeName;
use crate::site::VmmKind;

pub use chart::chart;
pub use table::{commands, table};

/// How often each command is run where nobody says otherwise: as often as in the paper.
pub const RUNS: u32 = 50;
/// The same for commands that take long.
pub const SLOW_RUNS: u32 = 10;

/// How often commands are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Each command.
    pub runs: u32,
    /// Those that the profile calls slow.
    pub slow_runs: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { runs: RUNS, slow_runs: SLOW_RUNS }
    }
}

/// What became of one command. Seconds are those of runs that succeeded; there are none where none did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figures {
    /// Its name.
    pub label: String,
    /// Whether the profile calls it slow, so that it was run less often.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slow: bool,
    /// How often it was run, without the first time, which warms up.
    pub runs: u32,
    /// How many of these runs failed.
    pub failed: u32,
    /// The mean of the others.
    pub mean: Option<f64>,
    /// Their median.
    pub median: Option<f64>,
    /// The shortest.
    pub min: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// Nineteen of twenty were no longer than this.
    pub p95: Option<f64>,
    /// What was wrong with the first run that failed, and the end of what it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
}

impl Figures {
    /// The figures of some runs: seconds, or what was wrong.
    pub fn of(label: &str, slow: bool, runs: &[Result<f64, String>]) -> Self {
        let mut good: Vec<f64> = runs.iter().filter_map(|run| run.as_ref().ok().copied()).collect();
        good.sort_by(f64::total_cmp);
        let failures = runs.iter().filter_map(|run| run.as_ref().err());
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let sum: f64 = good.iter().sum();
        let mean = (!good.is_empty()).then(|| sum / f64::from(count(good.len())));
        let middle = good.len() / 2;
        let median = match (good.len() % 2, good.get(middle)) {
            (0, Some(upper)) => Some(f64::midpoint(good[middle - 1], *upper)),
            (_, found) => found.copied(),
        };
        // The smallest that at least 95 of 100 do not exceed.
        let p95 = good.get((good.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        Self {
            label: label.to_owned(),
            slow,
            runs: count(runs.len()),
            failed: count(runs.len() - good.len()),
            mean: mean.map(rounded),
            median: median.map(rounded),
            min: good.first().copied().map(rounded),
            max: good.last().copied().map(rounded),
            p95: p95.map(rounded),
            failure: failures.clone().next().cloned().unwrap_or_default(),
        }
    }
}

/// Tenths of milliseconds are the least that repeats.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}

/// How long the install of a node took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Install {
    /// The node.
    pub node: NodeName,
    /// From the start of its VM to power off.
    pub seconds: f64,
}

/// All that an evaluation found; also `gatectl evaluate --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evaluation {
    /// The site's name.
    pub site: String,
    /// The node that ran the commands.
    pub node: NodeName,
    /// What runs the nodes.
    pub vmm: VmmKind,
    /// Whether the machine's processor is emulated, so that seconds are no machine's.
    pub emulated: bool,
    /// The commands in the order in which they were run.
    pub tests: Vec<Figures>,
    /// The nodes of the site that were installed, in its order.
    pub installs: Vec<Install>,
}

/// Other evaluations that one is shown beside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// Under the other vmm, for our own ratios.
    pub vmm: Option<&'a Evaluation>,
    /// On another node of the same site, for a second bar a command: the paper had a user interface inside of the
    /// gateway and one on another machine of the segment.
    pub node: Option<&'a Evaluation>,
}

impl Evaluation {
    /// The figures of a command.
    fn of(&self, label: &str) -> Option<&Figures> {
        self.tests.iter().find(|figures| figures.label == label)
    }

    /// Where the seconds are from, in a few words.
    pub fn conditions(&self) -> String {
        let emulated = if self.emulated { ", emulated processor" } else { "" };
        format!("{}, commands run on {}, {}{emulated}", self.site, self.node, vmm_name(self.vmm))
    }

    /// How much longer the commands take under User Mode Linux than under Xen, where one of these is of each; by label.
    fn ratio(&self, other: Option<&Self>, label: &str) -> Option<f64> {
        let other = other?;
        let mean = |all: &Self| all.of(label).and_then(|figures| figures.mean);
        let (uml, xen) = match (self.vmm, other.vmm) {
            (VmmKind::Uml, VmmKind::Xen) => (mean(self)?, mean(other)?),
            (VmmKind::Xen, VmmKind::Uml) => (mean(other)?, mean(self)?),
            _ => return None,
        };
        (xen > 0.0).then(|| uml / xen)
    }
}

fn vmm_name(vmm: VmmKind) -> &'static str {
    match vmm {
        VmmKind::Xen => "Xen",
        VmmKind::Uml => "User Mode Linux",
        VmmKind::Kvm => "KVM",
    }
}

/// The figures of all commands by label, as the last line of `gatehouse try --json` has them.
#[derive(Clone, Debug)]
pub struct ByLabel(pub Vec<Figures>);

impl Serialize for ByLabel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for figures in &self.0 {
            map.serialize_entry(&figures.label, figures)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_no_part_of_the_seconds() {
        let wrong = |text: &str| Err::<f64, _>(text.to_owned());
        let all = Figures::of("x", false, &[Ok(3.0), wrong("first"), Ok(1.0), wrong("second"), Ok(2.00004)]);
        assert_eq!((all.runs, all.failed, all.failure.as_str()), (5, 2, "first"));
        assert_eq!((all.mean, all.median, all.min, all.max), (Some(2.0), Some(2.0), Some(1.0), Some(3.0)));
        let none = Figures::of("x", true, &[wrong("all")]);
        assert_eq!((none.mean, none.median, none.p95), (None, None, None));
        let nothing = Figures::of("x", true, &[]);
        assert_eq!((nothing.runs, nothing.mean), (0, None));
    }

    #[test]
    fn medians_and_percentiles_are_of_sorted_seconds() {
        let hundred: Vec<_> = (1..=100).rev().map(|number| Ok(f64::from(number))).collect();
        let all = Figures::of("x", false, &hundred);
        assert_eq!((all.median, all.p95, all.max), (Some(50.5), Some(95.0), Some(100.0)));
        let three = Figures::of("x", false, &[Ok(5.0), Ok(1.0), Ok(3.0)]);
        assert_eq!((three.median, three.p95), (Some(3.0), Some(5.0)));
    }

    #[test]
    fn labels_keep_their_order() {
        let figures = |label| Figures::of(label, false, &[Ok(1.0)]);
        let text = serde_json::to_string(&ByLabel(vec![figures("z"), figures("a")])).expect("text");
        assert!(text.starts_with(r#"{"z":{"label":"z","runs":1,"failed":0,"mean":1.0,"#), "{text}");
        assert!(text.find("\"z\"") < text.find("\"a\""));
    }
}
