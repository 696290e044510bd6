//! What the install server and the nodes say to each other, as values.
//!
//! Plain HTTP on port 80 (nothing secret): `/healthz`, `/layers/…`, `/pool/…`, `/agent`, machines' boot loaders
//! (`/machine/…`), and the pool as an apt repository (`/dists/…`, `/gatehouse.asc`).
//! TLS on port 443: `POST /enrol` with the one-time token, or until a person has approved the machine that asks; all
//! else needs the certificate got by it:
//! `GET /depot.json`, `GET /gatehouse.asc`, `GET /profiles/<domain>/<node>/XML/profile.xml`,
//! `GET /components/<sha256>` (the programs that the node's own profile names), `POST /progress`, `POST /ack`,
//! `GET /orders` (the one [`Given`] order of a node, or 204) and `POST /orders/<id>` ([`Outcome`]; 404 where nobody waits
//! for it any longer),
//! `POST /credentials/certificate` ([`CertificateRequest`]), `GET /credentials/authority` (the Grid authority's, PEM) and
//! `GET /credentials/secrets/<name>` (bytes): what the node's own profile does not name is answered 403.
//! UDP: [`Notice`] from the server to a node, [`Sign`] from a node to the server. Both are hints: whoever gets one
//! does at most what it would do a little later anyway.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use gatehouse_model::evaluation::{Counts, Figures};
use gatehouse_model::site::DiskRule;
use gatehouse_model::{Digest, Mac, NodeName};
use serde::{Deserialize, Serialize};

/// Where the node's first words are in its initramfs: [`Passport`] as JSON.
pub const PASSPORT_PATH: &str = "gatehouse/passport.json";

/// Where the pool's public key is served: over TLS for nodes, and plainly for whoever compares it.
pub const POOL_KEY_PATH: &str = "/gatehouse.asc";

/// What a node is given by its vmm, in a cpio archive behind its initramfs: enough to reach the install
/// server and be believed there. Never on a command line, where any process could read it. A machine of its own gets it
/// from the network, where anybody reads it: without a token, and believed no more than a person at its console does.
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
    /// The one-time token; none for a machine, which somebody must approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Seconds since 1970 by the host's clock: a node's clock is never earlier.
    pub time: u64,
}

/// Body of `POST /enrol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The node's name.
    pub node: NodeName,
    /// The one-time token; none from a machine that asks to be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A certificate signing request, PEM. Only its public key counts: the names are the server's to give.
    pub csr: String,
}

/// Answer to `POST /enrol`; a machine that nobody has approved yet is answered 202 without one, and asks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAnswer {
    /// The node's certificate, PEM.
    pub certificate: String,
    /// For a machine: which of its disks the node is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRule>,
}

/// Body of `POST /credentials/certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Whose: `host` for the node itself, or a user of the Grid; one that `credentials.certificates` has.
    pub name: String,
    /// A certificate signing request, PEM. Only its public key counts: the names are the server's to give.
    pub csr: String,
}

/// Answer to `POST /credentials/certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// The certificate, PEM.
    pub certificate: String,
}

/// What people compare of a key or certificate: 80 bits of the SHA-256 of its DER, in groups.
pub fn fingerprint(der: &[u8]) -> String {
    let digits = Digest::of(der).to_string();
    let groups: Vec<&str> = (0..5).map(|group| &digits[4 * group..4 * group + 4]).collect();
    groups.join("-")
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// Its disk is written and synced; it is about to power off.
    Installed,
    /// It has booted from its own disk. `failed` says which of its own checks do not pass, once it has made them.
    Up,
    /// It is up, and all its checks pass.
    Running,
    /// It has done what its profile says, as far as it could.
    Applied,
}

/// Seconds that one part of a node's install took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Name of the phase: `enrol`, `disks`, `packages` …
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
}

/// A part of a profile that a node could not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The component; `packages` for the packages, `profile` for a profile that cannot be read.
    pub component: String,
    /// What was asked of it: `configure`, `install` …
    pub method: String,
    /// The end of what it said.
    pub output: String,
}

/// How many packages were changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageCounts {
    /// New ones.
    pub installed: usize,
    /// Those with a later version now.
    pub upgraded: usize,
    /// Those with an earlier version now.
    pub downgraded: usize,
    /// Those that are gone.
    pub removed: usize,
}

impl PackageCounts {
    /// Whether nothing was changed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
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
    /// With `applied`: the components that were run, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// With `applied`: what could not be done; the node tries again at its next look. With `up`: the checks that fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
    /// With `applied`: what became of the packages.
    #[serde(default, skip_serializing_if = "PackageCounts::is_none")]
    pub packages: PackageCounts,
}

impl Ack {
    /// A milestone reached with a profile, with nothing further to say.
    pub fn new(milestone: Milestone, profile: &str) -> Self {
        Self {
            milestone,
            profile: profile.to_owned(),
            root: None,
            phases: Vec::new(),
            changed: Vec::new(),
            failed: Vec::new(),
            packages: PackageCounts::default(),
        }
    }
}

/// What the host may ask of a node. It says what, never how: commands stand in the node's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Measure how long the commands of `evaluate.tests` take.
    Evaluate(Counts),
    /// Write out what the filesystems have in memory and hold them still until [`Order::Thaw`], but for so many seconds
    /// at most.
    Freeze(u16),
    /// Let them go on.
    Thaw,
}

/// Answer to `GET /orders`: the same until the node has answered or nobody waits for it, so that a node that started
/// anew in the middle begins again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// What the order is answered by.
    pub id: String,
    /// What is asked.
    pub order: Order,
}

/// Body of `POST /orders/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// To `evaluate`: the commands in the profile's order.
    Evaluated(Vec<Figures>),
    /// To `freeze`: from now on.
    Frozen,
    /// To `thaw`: whether they were frozen until now.
    Thawed(bool),
    /// It could not be done; the message of the fault.
    Failed(String),
}

/// From the server to a node's notify port: there is a new profile, or an order. Any datagram from the server's address means the
/// same; what it says is for those who watch the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The node.
    pub node: NodeName,
    /// The new profile's ETag, without quotation marks.
    pub etag: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lcfg notify {} {}", self.node, self.etag)
    }
}

/// From a node to the server's ack port: it lives, and has this profile. Believed no further than that something
/// was heard in the node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The node.
    pub node: NodeName,
    /// When the profile that it has was published, in seconds since 1970.
    pub published: u64,
    /// That profile's ETag, without quotation marks.
    pub etag: String,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lcfg ack {} {} {}", self.node, self.published, self.etag)
    }
}

impl FromStr for Sign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["lcfg", "ack", node, published, etag] = words[..] else {
            return Err(format!("{text:?} is not a sign of a node; write lcfg ack NODE SECONDS ETAG"));
        };
        let published = published.parse().map_err(|_| format!("{published:?} is not a number of seconds"))?;
        Ok(Self { node: node.parse()?, published, etag: etag.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_lines() {
        let node: NodeName = "ce-1".parse().expect("a name");
        let notice = Notice { node: node.clone(), etag: "abc".into() };
        assert_eq!(notice.to_string(), "lcfg notify ce-1 abc\n");
        let sign = Sign { node, published: 1_767_225_600, etag: "abc".into() };
        assert_eq!(sign.to_string(), "lcfg ack ce-1 1767225600 abc\n");
        assert_eq!(sign.to_string().parse(), Ok(sign));
        for wrong in ["", "lcfg ack", "lcfg ack ce-1 soon abc", "lcfg ack CE 1 abc", "lcfg notify ce-1 abc"] {
            assert!(wrong.parse::<Sign>().is_err(), "{wrong}");
        }
    }
}
