//! What can be done to a machine at first boot: a closed set, each observed, done if needed, and verified.

use serde::{Deserialize, Serialize};

use super::facts::{part_device, round};
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

/// A partition that an action works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// Kernel name of its disk, in this boot.
    pub disk: String,
    /// Its number.
    pub number: u32,
}

impl Place {
    /// The kernel's name of its device.
    pub fn device(&self) -> String {
        part_device(&self.disk, self.number)
    }
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
    /// Makes the filesystem of state.
    MakeState {
        /// Where.
        part: Place,
    },
    /// Fills state's /var from the slot's.
    SeedState,
    /// Makes the filesystem of the stores.
    MakeVms {
        /// Where.
        part: Place,
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
            Self::MakeState { .. } | Self::MakeVms { .. } => true,
            // A table that grows clears only what belongs to no partition.
            Self::GrowTable { .. }
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
            Self::MakeState { part } => write!(f, "making ext4 on {} for state", part.device()),
            Self::SeedState => f.write_str("filling /var"),
            Self::MakeVms { part } => write!(f, "making xfs on {} for the stores", part.device()),
            Self::ImportSite => f.write_str("importing the site directory"),
            Self::MakeMachineId => f.write_str("making the machine's id"),
            Self::MakeHostKeys => f.write_str("making ssh host keys"),
        }
    }
}
