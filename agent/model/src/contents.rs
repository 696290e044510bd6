//! What an image installs onto a disk, piece by piece: `slot-a/contents.json` on its EFI system partition, and
//! `contents.json` of what is served to machines that start from the network. Whoever installs believes a piece only by
//! its digest here.

use serde::{Deserialize, Serialize};

use crate::FileRef;

/// Where a medium's contents stand on its EFI system partition.
pub const CONTENTS: &str = "slot-a/contents.json";

/// One partition as the image has it; on a disk it may be larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentPart {
    /// Number in the partition table.
    pub number: u32,
    /// GPT name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Everything that goes onto a disk but the site. The paths of `boot`, `core`, `root` and `depot` are names
/// (`image/root-a`): where those pieces lie is the medium's affair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Contents {
    /// Version of this format: 1.
    pub schema: u32,
    /// Version of the builder that made it.
    pub builder: String,
    /// Seconds since 1970 that every file is dated.
    pub epoch: u64,
    /// Partitions 1 to 5, in order.
    pub partitions: Vec<ContentPart>,
    /// GRUB's first sector for BIOS machines.
    pub boot: FileRef,
    /// GRUB's core image for BIOS machines, for the BIOS boot partition.
    pub core: FileRef,
    /// The host's root: as many bytes from the start of its partition as count.
    pub root: FileRef,
    /// The depot, likewise.
    pub depot: FileRef,
    /// The files of the EFI system partition, by their paths there; without this list itself.
    pub esp: Vec<FileRef>,
}

impl Contents {
    /// All bytes that an install reads.
    pub fn bytes(&self) -> u64 {
        let esp: u64 = self.esp.iter().map(|file| file.size).sum();
        self.root.size + self.depot.size + self.core.size + self.boot.size + esp
    }
}
