//! `site.toml` as it is written. What the texts mean and whether they fit together is checked in `check`.

use serde::{Deserialize, Serialize};

use super::{DiskRole, DiskSort, Erase, InstallTo, Site, VmmKind};
use crate::Problem;

/// The machine and the nodes of one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SiteFile {
    /// Version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// What the site is called.
    pub site: SiteSection,
    /// Which machines the site is for, where it shares a medium with others.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matches: MatchSection,
    /// Where the system is installed to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub install: InstallSection,
    /// Which disk is used, or which two for a mirror.
    #[schemars(length(min = 1, max = 1))]
    pub disk: Vec<DiskSection>,
    /// The site's one network segment.
    pub network: NetworkSection,
    /// What the machine keeps for itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: HostSection,
    /// The logical servers, in the order in which they start.
    #[schemars(length(min = 1))]
    pub node: Vec<NodeSection>,
    /// Who may log in, and from where.
    #[serde(default)]
    pub access: AccessSection,
    /// Where packages come from and which are added.
    #[serde(default, skip_serializing_if = "is_default")]
    pub packages: PackagesSection,
    /// How the install server and the nodes tell each other that something is new.
    #[serde(default, skip_serializing_if = "is_default")]
    pub server: ServerSection,
    /// Where the machine sends what became of its install; nowhere if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportSection>,
    /// What the site's Grid authority certifies; this or a `[[grid-user]]` makes a Grid site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridSection>,
    /// The users of the Grid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grid_user: Vec<GridUserSection>,
    /// Who can read backups of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSection>,
}

/// What the site is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SiteSection {
    /// Name of the site, which is also the host's name: lower-case letters, digits and hyphens.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub name: String,
    /// DNS domain of the host and all nodes, in lower case.
    pub domain: String,
    /// The time of every file in the image and the earliest time the machine believes: `2026-01-01T00:00:00Z`.
    #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"))]
    pub epoch: String,
}

/// Which machines the site is for: those with one of these serial numbers (`dmidecode -s system-serial-number`) or with
/// one of these network interfaces. Without this section a site is for any machine, if it is alone on its medium.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MatchSection {
    /// Serial numbers; they may hold `*` and `?`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serial: Vec<String>,
    /// Hardware addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mac: Vec<String>,
}

/// Where the system is installed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InstallSection {
    /// `self`: onto the disk booted from; `rule`: onto the disk that `[[disk]]` names; not given: it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<InstallTo>,
}

/// Which disk. All keys given must match; texts may hold `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskSection {
    /// What the disk is for; it is for everything, and what is written here is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<DiskRole>,
    /// Serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Path under /dev/disk/by-path, or a kernel name under /dev.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// World wide name, in upper or lower case, with or without the `naa.`, `eui.` or `0x` before it: as `lsblk` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// How it is attached: `nvme`, `sata`, `scsi`, `usb`, `virtio`, `xen` or `mmc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// Solid state (true) or spinning (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssd: Option<bool>,
    /// Smallest size, such as `8GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<String>,
    /// Largest size, such as `2TiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// Which of several matches is taken first; where it is not given, several matches are a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<DiskSort>,
    /// How many disks are used; 1 where it is not given, and 2 for a mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<u32>,
    /// True: the system is installed to both of two disks of about the same size, and starts from either of them; what is
    /// kept is mirrored by md.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<bool>,
    /// Whether a disk with something on it may be erased; `if-blank` where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

/// The site's one network segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkSection {
    /// The segment, such as `10.0.2.0/24`.
    pub subnet: String,
    /// The host's own address.
    pub host: String,
    /// The router; none where the site is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<String>,
    /// Names or addresses of time servers for the host's clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_servers: Vec<String>,
    /// The VLAN that the site lives in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// Which NIC is bridged; without any key the machine's only one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nic: NicSection,
}

/// Which NIC. All keys given must match; texts may hold `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NicSection {
    /// Hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Kernel driver's name, such as `virtio_net`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Kernel name or bus path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// True: only one with a cable in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<bool>,
}

/// What the machine keeps for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostSection {
    /// What runs the nodes; `xen` where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm: Option<VmmKind>,
    /// Memory that the host keeps; `1GiB` where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processors that the host keeps under Xen; 1 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub vcpus: Option<u32>,
}

/// One logical server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NodeSection {
    /// Name of the node; its LCFG source is `lcfg/source/<name>`.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub name: String,
    /// Its address in the site's subnet.
    pub address: String,
    /// Its hardware address; made from the site's and the node's name where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its memory, such as `512MiB`; needed by a VM, and for a machine what the LCFG sources see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// How many processors it has; 1 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub vcpus: Option<u32>,
    /// Size of its first disk, such as `4GiB`; needed by a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Its share of the processors where the nodes want more than there is; 256 where it is not given. A node of weight
    /// 512 gets twice as much then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: Option<u32>,
    /// The most processor time it gets, in percent of one processor (`150`: one and a half); as much as is free where it
    /// is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 12800))]
    pub cap: Option<u32>,
    /// The most it reads from its disks, and as much again that it writes, such as `50MiB/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<String>,
    /// The most operations a second on its disks, of reading and as many again of writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 10_000_000))]
    pub disk_iops: Option<u32>,
    /// The most it sends, and as much again that it receives, in bits: such as `100Mbit/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_rate: Option<String>,
    /// A word that the LCFG sources see as `NODE_ROLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether it starts when the host starts; true where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// The node is a machine of its own, which starts from the network and is installed by the host's install server
    /// once somebody has approved it (`gatectl node approve`); a VM where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineSection>,
}

/// A machine that is a node, and which of its disks the node is on: all keys given must match, and exactly one disk must
/// be left. A disk with anything on it is refused unless it is this node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineSection {
    /// Hardware address of the interface that it starts from the network with.
    pub mac: String,
    /// Serial number of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its path under /dev/disk/by-path, or its kernel name under /dev.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its world wide name, as in `[[disk]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// How it is attached: `nvme`, `sata`, `scsi`, `usb`, `virtio`, `xen` or `mmc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// Solid state (true) or spinning (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssd: Option<bool>,
    /// Its smallest size, such as `8GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<String>,
    /// Its largest size, such as `2TiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// Which of several is taken: `smallest` or `largest`; without it several are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<DiskSort>,
    /// `always`: whatever is on it is lost, an install of a host excepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

/// Who may log in, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AccessSection {
    /// OpenSSH public keys that may log in as root on the host and on all nodes, one text for each.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Networks that may reach ssh and the status page; the site's own where none is given.
    #[serde(default)]
    pub from: Vec<String>,
}

/// Where packages come from and which are added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PackagesSection {
    /// Suite of the archive; `trixie` where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Components of the archive; `main` and `non-free-firmware` where they are not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<String>>,
    /// Address of the archive; the Debian entry of the machine's own apt sources where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// More packages for the host's root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// Firmware packages for the host's root; a list for common servers where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Vec<String>>,
    /// More packages for the pool, for later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// Whether the image holds nodes' configured trees, which install much faster; without them (false) it is
    /// smaller, and nodes are installed package by package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<bool>,
}

/// How the install server and the nodes tell each other that something is new. These datagrams are hints: a profile
/// is fetched and acknowledged over TLS, and without them nodes poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServerSection {
    /// UDP port at which nodes hear of a changed profile; 732 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub notify_port: Option<u32>,
    /// UDP port at which the host hears of nodes; 733 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub ack_port: Option<u32>,
}

/// Where the machine sends what became of its install, once it has a network: a POST of JSON, signed with its ssh host
/// key. What is written here is in the image, where anybody can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReportSection {
    /// Address that reports are posted to, such as `https://reports.example.org/gatehouse`.
    #[schemars(regex(pattern = "^https://"))]
    pub url: String,
    /// Certificate (PEM) of the authority that has signed the receiver's; the authorities that browsers believe where it
    /// is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Who can read backups of the host, which hold its keys. Those of nodes are as readable as their disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackupSection {
    /// Whom `age` encrypts them to: its own public keys (`age1…`, from `age-keygen`), or an OpenSSH public key of the
    /// kinds ssh-ed25519 and ssh-rsa. The secret key is kept anywhere but on the host.
    pub recipient: String,
}

/// The Grid authority, which the host makes at its first boot. Its subject is the base with `/CN=Authority` behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GridSection {
    /// What all subjects of the site begin with; `/O=Grid/OU=` with the site's name where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/"))]
    pub base: Option<String>,
    /// Days that certificates of nodes and users are good for; 395 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub certificate_days: Option<u32>,
    /// Days that the authority's own certificate is good for; 3650 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub authority_days: Option<u32>,
}

/// A user of the Grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GridUserSection {
    /// Name of the account: lower-case letters, digits and underscores.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// Number of the account.
    #[schemars(range(min = 1000, max = 60000))]
    pub uid: u32,
    /// Subject of the user's certificate, below the base; the base with `/CN=` and the name where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
}

fn is_default<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}

impl SiteFile {
    /// Reads `site.toml`, refusing with all problems what `Site::parse` refuses.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Site::parse(text)?;
        toml::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| vec![Problem::at("site.toml", 0, error.message())])
    }

    /// Writes it as TOML; comments of the file it was read from are gone.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("a site file holds only texts, numbers, lists and sections of them")
    }
}
