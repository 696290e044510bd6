//! What the Grid authority has signed and nodes still use: one certificate for each node and name, the newest.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Fault, NodeName};
use serde::{Deserialize, Serialize};

use crate::server::keep;
use crate::server::signer::DAY;

/// How long before its end somebody is told of a certificate.
const AHEAD: u64 = 30 * DAY;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Issued {
    /// The node that asked for it.
    pub(super) node: NodeName,
    /// By which name: `host`, or a user's.
    pub(super) name: String,
    /// When it was signed, in seconds since 1970.
    pub(super) from: u64,
    /// When it ends.
    pub(super) not_after: u64,
}

/// Reads what was signed. A file that cannot be read is as good as none: it only warns, and every renewal fills it.
pub(super) fn read(path: &Path) -> Vec<Issued> {
    let text = keep::read_if_there(path).ok().flatten().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Puts a certificate in the place of the one before it, and leaves out those that nobody uses any more.
pub(super) fn enter(path: &Path, new: Issued, used: impl Fn(&Issued) -> bool) -> Result<(), Fault> {
    let all = entered(read(path), new, used);
    let text = serde_json::to_string_pretty(&all).doing(|| "writing what was certified")?;
    keep::replace(path, 0o600, text.as_bytes())
}

fn entered(mut all: Vec<Issued>, new: Issued, used: impl Fn(&Issued) -> bool) -> Vec<Issued> {
    all.retain(|old| (&old.node, &old.name) != (&new.node, &new.name) && used(old));
    all.push(new);
    all
}

/// Something that ends some day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// What it is.
    pub(super) what: String,
    /// From when it is good, in seconds since 1970.
    pub(super) from: u64,
    /// When it ends.
    pub(super) until: u64,
    /// What to do.
    pub(super) help: String,
}

impl Ending {
    /// Whether it ends within 30 days, or within a third of its life if that is shorter.
    pub(super) fn is_soon(&self, now: u64) -> bool {
        now + AHEAD.min(self.until.saturating_sub(self.from) / 3) >= self.until
    }
}

/// What to say of those that end soon.
pub(super) fn warnings(endings: &[Ending], now: u64) -> Vec<String> {
    let text = |Ending { what, until, help, .. }: &Ending| {
        let day = day(*until);
        match until.checked_sub(now) {
            None | Some(0) => format!("{what} ended on {day}; {help}"),
            Some(left) => match left / DAY {
                0 => format!("{what} ends today; {help}"),
                1 => format!("{what} ends tomorrow, {day}; {help}"),
                days => format!("{what} ends in {days} days, on {day}; {help}"),
            },
        }
    };
    endings.iter().filter(|ending| ending.is_soon(now)).map(text).collect()
}

/// The day of a time, `05 Jan 2027`.
fn day(seconds: u64) -> String {
    // `Tue, 05 Jan 2027 12:34:56 GMT`; later than the year 9999 nothing ends.
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)));
    text.get(5..16).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::node;

    fn issued(name: &str, user: &str, not_after: u64) -> Issued {
        Issued { node: node(name), name: user.into(), from: 0, not_after }
    }

    #[test]
    fn a_renewal_takes_the_old_ones_place_and_what_is_not_used_goes() {
        let all = vec![issued("ce", "host", 1), issued("ui", "alice", 1), issued("ui", "bob", 1)];
        let all = entered(all, issued("ui", "alice", 2), |old| old.name != "bob");
        assert_eq!(all, [issued("ce", "host", 1), issued("ui", "alice", 2)]);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("issued.json");
        assert_eq!(read(&path), []);
        enter(&path, issued("ce", "host", 1), |_| true).expect("written");
        enter(&path, issued("ce", "host", 2), |_| true).expect("written");
        assert_eq!(read(&path), [issued("ce", "host", 2)]);
        std::fs::write(&path, "torn").expect("written");
        assert_eq!(read(&path), []);
    }

    #[test]
    fn what_ends_within_thirty_days_is_told() {
        let until = 1_799_150_400;
        let ending = |from| Ending { what: "it".into(), from, until, help: "act".into() };
        let said = |from, now| warnings(&[ending(from)], now).pop().unwrap_or_default();
        let long = until - 395 * DAY;
        for (from, now, text) in [
            (long, until - 31 * DAY, ""),
            (long, until - 30 * DAY, "it ends in 30 days, on 05 Jan 2027; act"),
            (long, until - 2 * DAY, "it ends in 2 days, on 05 Jan 2027; act"),
            (long, until - 2 * DAY + 1, "it ends tomorrow, 05 Jan 2027; act"),
            (long, until - 1, "it ends today; act"),
            (long, until, "it ended on 05 Jan 2027; act"),
            (long, until + 900 * DAY, "it ended on 05 Jan 2027; act"),
            // One that lives for thirty days is not told of all its life.
            (until - 30 * DAY, until - 11 * DAY, ""),
            (until - 30 * DAY, until - 10 * DAY, "it ends in 10 days, on 05 Jan 2027; act"),
        ] {
            assert_eq!(said(from, now), text, "{from} {now}");
        }
    }
}
