//! The mark by which an install knows the disk that it has begun with: written before anything else is changed there,
//! between the partition table and the first partition.

use gatehouse_model::Digest;
use serde::{Deserialize, Serialize};

/// Where it stands, in bytes: behind the table of any sector size, before the first MiB.
pub const CLAIM_AT: u64 = 32 << 10;
/// Its size in bytes: one sector of any disk.
pub const BLOCK: usize = 4096;
/// What it begins with.
const MARK: &str = "gatehouse claim 1\n";

/// What was begun with a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// Digest of the list of what is installed.
    pub contents: Digest,
    /// The site's name.
    pub site: String,
    /// What was begun.
    pub kind: ClaimKind,
    /// Of a mirror: the id that both of its disks have in common. It stays the same while anything is kept on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
}

/// What was begun with a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimKind {
    /// An install on a disk of which nothing is kept.
    Install,
    /// An install on a disk that has one.
    #[serde(rename_all = "kebab-case")]
    Reinstall {
        /// The id that the disk had.
        id: String,
        /// Whether state and the nodes' disks go too.
        lose_all: bool,
    },
}

impl Claim {
    /// The claim as it stands on the disk.
    pub fn to_block(&self) -> [u8; BLOCK] {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut block = [0; BLOCK];
        // A site's name is short, so that it fits; one cut off would be no claim.
        for (to, from) in block.iter_mut().zip(format!("{MARK}{json}\n").bytes()) {
            *to = from;
        }
        block
    }

    /// Reads a claim; none if there is none, or a torn one.
    pub fn from_block(block: &[u8]) -> Option<Self> {
        let rest = block.strip_prefix(MARK.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        serde_json::from_slice(&rest[..end]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written_and_a_torn_one_is_none() {
        let kind = ClaimKind::Reinstall { id: "a-b".into(), lose_all: true };
        let claim =
            Claim { contents: Digest::of(b"x"), site: "s".repeat(32), kind, pair: Some("f".repeat(32)) };
        let block = claim.to_block();
        assert_eq!(Claim::from_block(&block), Some(claim));
        assert_eq!(Claim::from_block(&block[..100]), None);
        assert_eq!(Claim::from_block(&[0; BLOCK]), None);
        let mut foreign = block;
        foreign[0] = b'G';
        assert_eq!(Claim::from_block(&foreign), None);
    }
}
