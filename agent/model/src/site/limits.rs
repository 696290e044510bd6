//! What a node may take of the host beyond its memory and its processors.

use serde::{Deserialize, Serialize};

use super::VmmKind;
use super::read::{Reader, Section};
use crate::{BitRate, ByteRate};

/// Its keys in `[[node]]`.
pub(super) const LIMITS: [&str; 5] = ["weight", "cap", "disk-rate", "disk-iops", "network-rate"];

/// The weight of a node that says nothing: that which Xen's scheduler gives.
pub const WEIGHT: u32 = 256;
/// Most operations a second that can be written: more than any disk does.
const MOST_IOPS: u32 = 10_000_000;
/// Most processor time that can be written, in percent of one processor: that of the most processors a node has.
const MOST_CAP: u32 = 128 * 100;

/// What a node may take; all of it can be changed while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// `weight`: its share of the processors beside the other nodes', where they want more than there is. 1 to 10000:
    /// what both Xen's credit2 (1 to 65535) and cgroup v2 (`cpu.weight`, 1 to 10000) can express.
    pub weight: u32,
    /// `cap`: the most processor time, in percent of one processor; none: as much as is free.
    pub cap: Option<u32>,
    /// `disk-rate`: the most that is read, and the most that is written, of its disks.
    pub disk_rate: Option<ByteRate>,
    /// `disk-iops`: the most operations a second, of reading and of writing.
    pub disk_iops: Option<u32>,
    /// `network-rate`: the most that it sends, and the most that it receives.
    pub network_rate: Option<BitRate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { weight: WEIGHT, cap: None, disk_rate: None, disk_iops: None, network_rate: None }
    }
}

impl Limits {
    /// What differs from other limits: each key with its value there and its value here.
    pub fn since(&self, old: &Self) -> Vec<(&'static str, String, String)> {
        fn word<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "none".to_owned(), |value| value.to_string())
        }
        let words = |limits: &Self| {
            [
                limits.weight.to_string(),
                word(limits.cap),
                word(limits.disk_rate),
                word(limits.disk_iops),
                word(limits.network_rate),
            ]
        };
        let both = words(old).into_iter().zip(words(self));
        let all = LIMITS.into_iter().zip(both).map(|(key, (old, new))| (key, old, new));
        all.filter(|(_, old, new)| old != new).collect()
    }
}

pub(super) fn limits(r: &mut Reader, section: &Section<'_>, vmm: VmmKind) -> Limits {
    for key in ["disk-rate", "disk-iops"] {
        if section.has(key) && !vmm.holds_disk_rates() {
            let what = format!("{}: {vmm} can hold no node to one; remove it", section.path(key));
            r.problem(section.line_of(r, key), what);
        }
    }
    Limits {
        weight: section.number(r, "weight", 1, 10_000).unwrap_or(WEIGHT),
        cap: section.number(r, "cap", 1, MOST_CAP),
        disk_rate: section.parsed(r, "disk-rate").map(|at| at.value),
        disk_iops: section.number(r, "disk-iops", 10, MOST_IOPS),
        network_rate: section.parsed(r, "network-rate").map(|at| at.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named() {
        let old = Limits { cap: Some(50), ..Limits::default() };
        let new = Limits { weight: 64, network_rate: "10Mbit/s".parse().ok(), ..Limits::default() };
        let row = |key, old: &str, new: &str| (key, old.to_owned(), new.to_owned());
        assert_eq!(
            new.since(&old),
            [row("weight", "256", "64"), row("cap", "50", "none"), row("network-rate", "none", "10Mbit/s")]
        );
        assert_eq!(new.since(&new), []);
    }
}
