//! What a RAID of the kernel's own kind (md, metadata 1.2) says of itself on one of its members. The layout is that of
//! `struct mdp_superblock_1` in the kernel's `linux/raid/md_p.h`.

use serde::{Deserialize, Serialize};

/// Where it stands on a member, in bytes.
pub const MEMBER_AT: u64 = 4096;
/// Its size, with the roles of as many disks as there will ever be.
pub const MEMBER_BYTES: usize = 4096;
const MAGIC: u32 = 0xa92b_4efc;
/// The member is being filled from another one.
const RECOVERING: u32 = 2;

/// What one member of a RAID says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Member {
    /// Id of the array, 32 hexadecimal digits.
    pub array: String,
    /// Counts what has happened to the array: of two members the one with more is newer.
    pub events: u64,
    /// When this was written, another member was missing: the array has run without it.
    pub alone: bool,
    /// It does not hold everything yet.
    pub filling: bool,
}

impl Member {
    /// Reads it; none if there is none.
    pub fn from_block(block: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        if word(0)? != MAGIC || word(4)? != 1 {
            return None;
        }
        let array = format!("{:032x}", u128::from_be_bytes(block.get(16..32)?.try_into().ok()?));
        let events = u64::from_le_bytes(block.get(200..208)?.try_into().ok()?);
        let roles = block.get(256..)?.chunks_exact(2).map(|role| u16::from_le_bytes([role[0], role[1]]));
        let roles: Vec<u32> = roles.take(usize::try_from(word(220)?).ok()?).map(u32::from).collect();
        let alone = (0..word(92)?).any(|role| !roles.contains(&role));
        Some(Self { array, events, alone, filling: word(8)? & RECOVERING != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(roles: &[u16], features: u32) -> Vec<u8> {
        let mut block = vec![0; MEMBER_BYTES];
        for (at, word) in
            [(0, MAGIC), (4, 1), (8, features), (92, 2), (200, 7), (220, u32::try_from(roles.len()).unwrap())]
        {
            block[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        block[16..32].copy_from_slice(&[0x5a; 16]);
        for (at, role) in roles.iter().enumerate() {
            block[256 + 2 * at..258 + 2 * at].copy_from_slice(&role.to_le_bytes());
        }
        block
    }

    #[test]
    fn a_member_says_whether_it_has_run_alone() {
        let member = |alone, filling| Member { array: "5a".repeat(16), events: 7, alone, filling };
        let faulty = 0xfffe;
        assert_eq!(Member::from_block(&block(&[0, 1], 0)), Some(member(false, false)));
        assert_eq!(Member::from_block(&block(&[0, faulty], 1)), Some(member(true, false)));
        assert_eq!(Member::from_block(&block(&[faulty, faulty, 1], 0)), Some(member(true, false)));
        assert_eq!(Member::from_block(&block(&[0, faulty, 1], 2)), Some(member(false, true)));
        assert_eq!(Member::from_block(&[0; MEMBER_BYTES]), None);
        assert_eq!(Member::from_block(&block(&[0, 1], 0)[..100]), None);
    }
}
