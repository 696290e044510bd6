//! What the install server and the nodes say to each other, as values.
//!
//! Plain HTTP on port 80 (nothing secret): `/healthz`, `/layers/…`, `/pool/…`, `/agent`.
//! and the pool as an apt repository (`/dists/…`, `/gatehouse.asc`).
//! TLS on port 443: `POST /enrol` with the one-time token; all else needs the certificate got by it:
//! `GET /depot.json`, `GET /gatehouse.asc`, `GET /profiles/<domain>/<node>/XML/profile.xml`, `POST /progress`, `POST /ack`.

use std::net::Ipv4Addr;

use gatehouse_model::{Mac, NodeName};
use serde::{Deserialize, Serialize};

/// Where the node's first words are in its initramfs: [`Passport`] as JSON.
pub const PASSPORT_PATH: &str = "gatehouse/passport.json";

/// Where the pool's public key is served: over TLS for nodes, and plainly for whoever compares it.
pub const POOL_KEY_PATH: &str = "/gatehouse.asc";

/// What a node is given by its vmm, in a cpio archive behind its initramfs: enough to reach the install
/// server and be believed there. Never on a command line, where any process could read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// The node's name.
    pub node: NodeName,
    /// The site's domain.
    pub domain: String,
    /// The node's hardware address: which interface to use.
    pub mac: Mac,
    /// The node's address.
    pub address: Ipv4Addr,
    /// Prefix length of the site's network.
    pub prefix: u8,
    /// The site's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// The install server's address.
    pub server: Ipv4Addr,
    /// Certificate of the site's authority, PEM: the only one that the node believes.
    pub authority: String,
    /// The one-time token.
    pub token: String,
    /// Seconds since 1970 by the host's clock: a node's clock is never earlier.
    pub time: u64,
}

/// Body of `POST /enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The node's name.
    pub node: NodeName,
    /// The one-time token.
    pub token: String,
    /// A certificate signing request, PEM. Only its public key counts: the names are the server's to give.
    pub csr: String,
}

/// Answer to `POST /enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAnswer {
    /// The node's certificate, PEM.
    pub certificate: String,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// Its disk is written and synced; it is about to power off.
    Installed,
    /// It has booted from its own disk and its services are up.
    Running,
}

/// Seconds that one part of a node's install took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Name of the phase: `enrol`, `disks`, `packages` …
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
}

/// Body of `POST /ack`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// What was reached.
    pub milestone: Milestone,
    /// ETag of the profile that was applied.
    pub profile: String,
    /// With `installed`: the root filesystem as the kernel argument wants it, `PARTUUID=…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// With `installed`: where the time went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
}
