//! How a node stands to its profile: what was published for it, and what it has made of that.

use serde::{Deserialize, Serialize};

use crate::wire::{Failure, PackageCounts};

/// A version of a profile, and when something happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// Its ETag, without quotation marks.
    pub etag: String,
    /// When, in milliseconds since 1970 by the host's clock.
    pub at: u64,
}

/// How a node stands to its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProfileStatus {
    /// What the server has for it.
    pub published: Option<Seen>,
    /// Why the newest sources are not published; the last good profile is.
    pub problems: Vec<String>,
    /// What it fetched last, or was told that it has.
    pub fetched: Option<Seen>,
    /// What it acknowledged last.
    pub acknowledged: Option<Seen>,
    /// The components that it ran then.
    pub changed: Vec<String>,
    /// What it could not do.
    pub failed: Vec<Failure>,
    /// What became of its packages.
    pub packages: PackageCounts,
    /// When a datagram came from it last, in milliseconds since 1970.
    pub heard: Option<u64>,
}

/// The same in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing is published for it, or nothing is known of it.
    Unknown,
    /// It has what is published.
    Current,
    /// It has something older.
    Stale,
    /// It has what is published, and could not do all of it.
    Failing,
}

impl ProfileStatus {
    /// Where it stands. After the host's restart a node's own word is not known; that it asks for changes of what is
    /// published says as much.
    pub fn standing(&self) -> Standing {
        let Some(published) = &self.published else { return Standing::Unknown };
        let Some(has) = self.acknowledged.as_ref().or(self.fetched.as_ref()) else {
            return Standing::Unknown;
        };
        if !self.failed.is_empty() {
            return Standing::Failing;
        }
        if has.etag == published.etag { Standing::Current } else { Standing::Stale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standing_follows_from_what_was_seen() {
        let seen = |etag: &str| Some(Seen { etag: etag.into(), at: 1 });
        let failure = Failure { component: "ntp".into(), method: "configure".into(), output: String::new() };
        for (published, fetched, acknowledged, fails, standing) in [
            (None, None, None, false, Standing::Unknown),
            (seen("b"), None, None, false, Standing::Unknown),
            (seen("b"), seen("a"), None, false, Standing::Stale),
            (seen("b"), seen("b"), None, false, Standing::Current),
            (seen("b"), seen("b"), seen("a"), false, Standing::Stale),
            (seen("b"), seen("b"), seen("b"), false, Standing::Current),
            (seen("b"), seen("b"), seen("b"), true, Standing::Failing),
            (seen("b"), seen("b"), seen("a"), true, Standing::Failing),
        ] {
            let failed = if fails { vec![failure.clone()] } else { Vec::new() };
            let status =
                ProfileStatus { published, fetched, acknowledged, failed, ..ProfileStatus::default() };
            assert_eq!(status.standing(), standing, "{status:?}");
        }
    }
}
