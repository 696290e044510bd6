//! What can be done to a machine at first boot: a closed set, each observed, done if needed, and verified.

use serde::{Deserialize, Serialize};

use super::facts::round;
use super::mirror::Array;
use super::run::Act;

/// A partition that is to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wanted {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its size; the last one takes the rest of the disk, which is this much.
    pub bytes: u64,
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Adds partitions behind those of the disk booted from; none of these changes.
    GrowTable {
        /// Kernel name of the disk, in this boot.
        disk: String,
        /// The new partitions, in order.
        parts: Vec<Wanted>,
    },
    /// Writes the table of a mirror's other disk, which an install has left out at its very end.
    FinishDisk {
        /// Kernel name of the disk.
        disk: String,
        /// That of the disk booted from.
        from: String,
    },
    /// Makes a mirror of one partition, or of two where the second is there already; nothing on them is kept.
    MakeMirror {
        /// What it is called.
        array: Array,
        /// Kernel names of the partitions, that of the disk booted from first.
        parts: Vec<String>,
    },
    /// Makes a partition of the other disk a mirror's second half again; what is on it is lost to what the first half holds.
    JoinMirror {
        /// What the mirror is called.
        array: Array,
        /// Kernel name of the partition.
        part: String,
    },
    /// Makes the filesystem of state.
    MakeState {
        /// Kernel name of the partition or mirror.
        device: String,
    },
    /// Fills state's /var from the slot's.
    SeedState,
    /// Makes the filesystem of the stores.
    MakeVms {
        /// Kernel name of the partition or mirror.
        device: String,
    },
    /// Copies the site directory to state; from then on the copy counts.
    ImportSite,
    /// Makes the machine's id.
    MakeMachineId,
    /// Makes the machine's ssh host keys.
    MakeHostKeys,
}

impl Act for Action {
    const PHASE: &'static str = "first-boot";

    fn key(&self) -> &'static str {
        match self {
            Self::GrowTable { .. } => "grow-table",
            Self::FinishDisk { .. } => "finish-disk",
            Self::MakeMirror { array, .. } => match array {
                Array::State => "make-state-mirror",
                Array::Vms => "make-vms-mirror",
            },
            Self::JoinMirror { array, .. } => match array {
                Array::State => "join-state-mirror",
                Array::Vms => "join-vms-mirror",
            },
            Self::MakeState { .. } => "make-state",
            Self::SeedState => "seed-state",
            Self::MakeVms { .. } => "make-vms",
            Self::ImportSite => "import-site",
            Self::MakeMachineId => "make-machine-id",
            Self::MakeHostKeys => "make-host-keys",
        }
    }

    fn destroys(&self) -> bool {
        match self {
            Self::MakeMirror { .. } | Self::MakeState { .. } | Self::MakeVms { .. } => true,
            // A table that grows clears only what belongs to no partition; a half that joins again holds nothing of its own.
            Self::GrowTable { .. }
            | Self::FinishDisk { .. }
            | Self::JoinMirror { .. }
            | Self::SeedState
            | Self::ImportSite
            | Self::MakeMachineId
            | Self::MakeHostKeys => false,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::GrowTable { disk, parts } => {
                write!(f, "adding partitions to {disk}:")?;
                for (at, part) in parts.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma} {} {} ({})", part.number, part.name, round(part.bytes))?;
                }
                Ok(())
            }
            Self::FinishDisk { disk, from } => write!(f, "finishing the install of {disk} as that of {from}"),
            Self::MakeMirror { array, parts } => {
                write!(f, "making the mirror {} of {}", array.device(), parts.join(" and "))
            }
            Self::JoinMirror { array, part } => write!(f, "joining {part} to the mirror {}", array.device()),
            Self::MakeState { device } => write!(f, "making ext4 on {device} for state"),
            Self::SeedState => f.write_str("filling /var"),
            Self::MakeVms { device } => write!(f, "making xfs on {device} for the stores"),
            Self::ImportSite => f.write_str("importing the site directory"),
            Self::MakeMachineId => f.write_str("making the machine's id"),
            Self::MakeHostKeys => f.write_str("making ssh host keys"),
        }
    }
}
