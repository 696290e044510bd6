//! What stays of an install: that it ended well, and how.

use std::fs;
use std::path::PathBuf;

use gatehouse_model::{Doing as _, Fault, NodeName};
use serde::{Deserialize, Serialize};

use crate::host::files::write_whole;
use crate::paths::Paths;
use crate::wire::PhaseTime;

/// `conf/installed.json`: this node's disk is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// ETag of the profile it was installed from.
    pub profile: String,
    /// The root filesystem as a kernel argument.
    pub root: String,
    /// From the start of its VM to power off.
    pub seconds: f64,
    /// The parts of it.
    pub phases: Vec<PhaseTime>,
    /// When the backup was made that its disks came back from, in milliseconds since 1970; none where they never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
}

impl Record {
    /// Where a node's is.
    pub fn path(paths: &Paths, node: &NodeName) -> PathBuf {
        paths.conf(node).join("installed.json")
    }

    /// A node's; none before its install has ended.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn load(paths: &Paths, node: &NodeName) -> Result<Option<Self>, Fault> {
        let path = Self::path(paths, node);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
        }
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, paths: &Paths, node: &NodeName) -> Result<(), Fault> {
        let json = serde_json::to_string_pretty(self).doing(|| "writing installed.json")?;
        write_whole(&Self::path(paths, node), json.as_bytes(), 0o644)
    }
}
