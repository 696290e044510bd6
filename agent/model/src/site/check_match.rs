//! `[match]`: which machines a site on a shared medium is for.

use super::Match;
use super::read::{Reader, Section};
use super::values;
use crate::Mac;

pub(super) const MATCH: &[&str] = &["serial", "mac"];

pub(super) fn matches(r: &mut Reader, top: &Section<'_>) -> Match {
    let section = top.section(r, "match", "match");
    section.only(r, MATCH);
    let serial = section.list(r, "serial", values::glob).unwrap_or_default();
    let mac = section.list(r, "mac", str::parse::<Mac>).unwrap_or_default();
    if top.has("match") && serial.is_empty() && mac.is_empty() {
        let what = "match: names no machine; write serial = [\"ABC123\"] or mac = [\"02:00:5e:00:00:01\"]";
        r.problem(section.line, what);
    }
    Match {
        serial: serial.into_iter().map(|at| at.value).collect(),
        mac: mac.into_iter().map(|at| at.value).collect(),
    }
}
