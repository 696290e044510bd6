//! What can be done to a disk while it is installed: a closed set, each observed, done if needed, and verified.

use gatehouse_model::FileRef;
use serde::{Deserialize, Serialize};

use crate::host::claim::Claim;
use crate::host::facts::round;
use crate::host::run::Act;

/// Where a partition lies, or is going to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Slice {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its first byte.
    pub start: u64,
    /// Its size.
    pub bytes: u64,
}

/// One entry of an install's plan; all of them are about the same disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Claims a disk, then takes away every table and signature on it.
    Clear {
        /// Kernel name of the disk.
        disk: String,
        /// By what it is known as this install's after a power cut.
        claim: Claim,
    },
    /// Claims an installed disk, then takes away what it starts from; what is kept stays in the table.
    Withhold {
        /// Kernel name of the disk.
        disk: String,
        /// By what it is known as this install's after a power cut.
        claim: Claim,
    },
    /// Copies the host's root.
    CopyRoot {
        /// Where to.
        to: Slice,
        /// What.
        piece: FileRef,
    },
    /// Copies the depot.
    CopyDepot {
        /// Where to.
        to: Slice,
        /// What.
        piece: FileRef,
    },
    /// Makes the EFI system partition.
    MakeEsp {
        /// Where.
        to: Slice,
    },
    /// Makes the site partition with the one site that was chosen.
    MakeSite {
        /// Where.
        to: Slice,
    },
    /// Writes boot code and partition table, which makes the disk bootable.
    WriteTable {
        /// Kernel name of the disk.
        disk: String,
        /// Its first five partitions.
        slices: Vec<Slice>,
    },
}

impl Act for Step {
    const PHASE: &'static str = "self-install";

    fn key(&self) -> &'static str {
        match self {
            Self::Clear { .. } => "clear",
            Self::Withhold { .. } => "withhold",
            Self::CopyRoot { .. } => "copy-root",
            Self::CopyDepot { .. } => "copy-depot",
            Self::MakeEsp { .. } => "make-esp",
            Self::MakeSite { .. } => "make-site",
            Self::WriteTable { .. } => "write-table",
        }
    }

    fn destroys(&self) -> bool {
        match self {
            Self::Clear { .. } | Self::Withhold { .. } => true,
            // What lies there is no partition's any more.
            Self::CopyRoot { .. }
            | Self::CopyDepot { .. }
            | Self::MakeEsp { .. }
            | Self::MakeSite { .. }
            | Self::WriteTable { .. } => false,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clear { disk, .. } => write!(f, "claiming and clearing {disk}"),
            Self::Withhold { disk, .. } => write!(f, "taking away what {disk} starts from"),
            Self::CopyRoot { piece, .. } => write!(f, "copying the host's root ({})", round(piece.size)),
            Self::CopyDepot { piece, .. } => write!(f, "copying the depot ({})", round(piece.size)),
            Self::MakeEsp { .. } => f.write_str("making the boot partition"),
            Self::MakeSite { .. } => f.write_str("making the site partition"),
            Self::WriteTable { disk, .. } => write!(f, "making {disk} bootable"),
        }
    }
}
