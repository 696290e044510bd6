//! What a backup says of itself, in front of everything else in it.

use std::collections::BTreeMap;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Digest, Mac, NodeName};
use serde::{Deserialize, Serialize};

use crate::host::lifecycle::record::Record;

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// `manifest.json`, the first member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of the format: 1.
    pub schema: u32,
    /// When it was made, in milliseconds since 1970 by the host's clock.
    pub made: u64,
    /// Version of the agent that has made it.
    pub agent: String,
    /// The site's name and domain, `NAME.DOMAIN`.
    pub site: String,
    /// SHA-256 of the certificate (PEM) of the site's authority, which every node of the site believes.
    pub authority: Digest,
    /// What it is a backup of.
    pub of: Of,
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// One node.
    Node(NodeBackup),
    /// What makes a host this host.
    Host(HostBackup),
}

/// A node's backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeBackup {
    /// Which node.
    pub name: NodeName,
    /// What it ran under.
    pub vmm: VmmKind,
    /// Its section of site.toml, for people.
    pub node: serde_json::Value,
    /// Its hardware address, which its own configuration of the network names.
    pub mac: Mac,
    /// What its install left.
    pub record: Record,
    /// How whole what its stores hold is.
    pub state: Wholeness,
    /// Its stores, in the order in which they follow.
    pub stores: Vec<Store>,
}

/// A host's backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostBackup {
    /// The nodes whose disks have backups of their own.
    pub nodes: Vec<NodeName>,
    /// How many bytes its files have together.
    pub bytes: u64,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Its name: `disk0`.
    pub name: String,
    /// How large the disk is.
    pub bytes: u64,
    /// How many bytes of it hold data, and follow.
    pub data: u64,
}

/// How whole what the stores hold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wholeness {
    /// The node was off.
    Off,
    /// The node had written everything out, and waited.
    Frozen,
    /// One instant of the running node: what a power cut would have left, which its filesystems recover from.
    PowerCut,
    /// Copied while the node wrote: what belongs together may not be there together.
    Torn,
}

impl std::fmt::Display for Wholeness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "the node was off",
            Self::Frozen => "the node's filesystems were frozen",
            Self::PowerCut => "of one instant, as a power cut would have left it",
            Self::Torn => "copied while the node wrote",
        })
    }
}

/// `digests.json`, the last member: whatever was cut off does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// SHA-256 of `manifest.json`.
    pub manifest: Option<Digest>,
    /// The digest of every other member by its name, as [`super::ranges::SparseHasher`] makes it.
    pub members: BTreeMap<String, Digest>,
}

impl Manifest {
    /// How many bytes of data follow.
    pub fn data(&self) -> u64 {
        match &self.of {
            Of::Node(node) => node.stores.iter().map(|store| store.data).sum(),
            Of::Host(host) => host.bytes,
        }
    }

    /// What it is of, in words.
    pub fn subject(&self) -> String {
        match &self.of {
            Of::Node(node) => format!("node {}", node.name),
            Of::Host(_) => "the host".to_owned(),
        }
    }
}
