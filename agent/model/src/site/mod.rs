//! A site: `site.toml`, checked. No field holds a text that has a grammar, none is optional that has a default.

mod boot;
mod check;
mod check_backup;
mod check_disks;
mod check_grid;
mod check_match;
mod check_nodes;
mod check_report;
mod edit;
mod file;
mod header;
mod limits;
mod read;
mod schema;
mod values;

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{Mac, NodeName, Size, Subject};

pub use boot::{BOOT_CFG, boot_cfg};
pub use edit::{Setting, Settings, edit_node, keep_machine};
pub use file::SiteFile;
pub use header::{ACK_PORT, HTTP_PORT, Header, LCFG_SERVER_PORT, NOTIFY_PORT};
pub use limits::{Limits, WEIGHT};
pub use schema::json_schema;

/// One installation.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// `site.name`: also the host's name.
    pub name: NodeName,
    /// `site.domain`: DNS domain of the host and all nodes, lower case.
    pub domain: String,
    /// `site.epoch`: seconds since 1970; the time of every file in the image and the earliest time the machine believes.
    pub epoch: u64,
    /// `[match]`: the machines that the site is for, where it shares a medium with others.
    pub matches: Match,
    /// `[install]`.
    pub install: Install,
    /// `[[disk]]`.
    pub disk: DiskRule,
    /// `[network]`.
    pub network: Network,
    /// `[host]`.
    pub host: Host,
    /// `[[node]]`, in the file's order, which is also the order in which they start.
    pub nodes: Vec<Node>,
    /// `[access]`.
    pub access: Access,
    /// `[packages]`.
    pub packages: Packages,
    /// `[server]`.
    pub server: Server,
    /// `[report]`; none: reports stay on the machine and its media.
    pub report: Option<ReportTo>,
    /// `[grid]` and `[[grid-user]]`; none: it is no Grid site, and has no Grid authority.
    pub grid: Option<Grid>,
    /// `[backup]`; none: what makes the host this host is not backed up.
    pub backup: Option<Backup>,
}

/// `[match]`: one of these must be the machine's; with none at all every machine is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// `match.serial`: serial numbers of machines, as globs.
    pub serial: Vec<String>,
    /// `match.mac`: hardware addresses of network interfaces.
    pub mac: Vec<Mac>,
}

/// Where the system is installed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstallTo {
    /// Onto the disk it was booted from, which grows; no other disk is touched.
    #[serde(rename = "self")]
    SelfDisk,
    /// Onto the disk that the rule names, never the one booted from.
    Rule,
}

/// `[install]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Install {
    /// `install.to`; none: whoever starts the machine must say it (`write` and PXE mean `rule`, `try` means `self`).
    pub to: Option<InstallTo>,
}

/// What a disk is for. A word of the format; no version has known how to put the stores on a disk of their own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRole {
    /// Boot partitions, slots and state.
    System,
    /// The stores.
    Vms,
}

/// Whether a disk that holds something may be erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Erase {
    /// Only a disk with nothing on it is used.
    #[default]
    IfBlank,
    /// Whatever is on it is lost.
    Always,
}

/// Which disk: all keys given must match. Text keys are globs (`*`, `?`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskRule {
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// Path under /dev/disk/by-path or a kernel name under /dev.
    pub path: Option<String>,
    /// World wide name, with or without `naa.`, `eui.` or `0x`.
    pub wwn: Option<String>,
    /// `nvme`, `sata`, `scsi`, `usb`, `virtio`, `xen`, `mmc`.
    pub bus: Option<String>,
    /// Solid state (true) or spinning (false).
    pub ssd: Option<bool>,
    /// Smallest size.
    pub min_size: Option<Size>,
    /// Largest size.
    pub max_size: Option<Size>,
    /// Which of several matches is taken first: `smallest` or `largest`; none: several are a refusal.
    pub sort: Option<DiskSort>,
    /// How many disks match and are used; 1, and 2 for a mirror.
    pub count: u32,
    /// Whether the system is installed to both of two disks, and starts from either.
    #[serde(default)]
    pub mirror: bool,
    /// Whether it may be erased.
    pub erase: Erase,
}

/// Which of several matching disks comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSort {
    /// Smallest first.
    Smallest,
    /// Largest first.
    Largest,
}

/// Which NIC: all keys given must match. Text keys are globs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicRule {
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Kernel driver's name, `virtio_net`.
    pub driver: Option<String>,
    /// Kernel name or bus path.
    pub path: Option<String>,
    /// True: only one with a cable in it.
    pub link: Option<bool>,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network's address, host bits zero.
    pub address: Ipv4Addr,
    /// Prefix length: 1 to 30 for the site's own network, 0 to 32 for the others.
    pub prefix: u8,
}

impl Subnet {
    /// The netmask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// The broadcast address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask().to_bits())
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.address.to_bits()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// `[network]`: the site's one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// `network.subnet`.
    pub subnet: Subnet,
    /// `network.host`: the host's own address.
    pub host: Ipv4Addr,
    /// `network.gateway`.
    pub gateway: Option<Ipv4Addr>,
    /// `network.resolvers`.
    pub resolvers: Vec<IpAddr>,
    /// `network.time-servers`: names or addresses for the host's clock.
    pub time_servers: Vec<String>,
    /// `network.nic`: which NIC is bridged.
    pub nic: NicRule,
    /// `network.vlan`: the VLAN that the site lives in.
    pub vlan: Option<u16>,
}

/// The virtual machine monitor under the nodes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VmmKind {
    /// Xen through xl.
    Xen,
    /// User Mode Linux.
    Uml,
    /// KVM through QEMU.
    Kvm,
}

impl VmmKind {
    /// Whether a node can be held to `disk-rate` and `disk-iops`. Under Xen what it reads and writes counts as the host
    /// kernel's own work, which no control group holds.
    pub const fn holds_disk_rates(self) -> bool {
        !matches!(self, Self::Xen)
    }

    /// The most virtual processors a node may have; none: no limit of its own. Debian's User Mode Linux is built for one.
    pub const fn most_vcpus(self) -> Option<u32> {
        match self {
            Self::Uml => Some(1),
            Self::Xen | Self::Kvm => None,
        }
    }
}

impl std::fmt::Display for VmmKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Xen => "xen",
            Self::Uml => "uml",
            Self::Kvm => "kvm",
        })
    }
}

/// `[host]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// `host.vmm`.
    pub vmm: VmmKind,
    /// `host.memory`: what the host keeps for itself.
    pub memory: Size,
    /// `host.vcpus`: processors the host keeps under Xen.
    pub vcpus: u32,
}

/// `[[node]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `name`.
    pub name: NodeName,
    /// `address`.
    pub address: Ipv4Addr,
    /// `mac`; derived from the site's and the node's name where not given.
    pub mac: Mac,
    /// `memory`.
    pub memory: Size,
    /// `vcpus`.
    pub vcpus: u32,
    /// `disk`: size of the store of its first disk; zero on a machine of its own.
    pub disk: Size,
    /// `weight`, `cap`, `disk-rate`, `disk-iops`, `network-rate`: what else it may take of the host.
    pub limits: Limits,
    /// `role`: a word that the LCFG sources see as `NODE_ROLE`; empty where not given.
    pub role: String,
    /// `autostart`: start it when the host starts.
    pub autostart: bool,
    /// `machine`: which disk of the machine that is this node, and no VM; none: it is a VM of the host.
    pub machine: Option<DiskRule>,
}

/// `[access]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// `access.keys`: OpenSSH public keys that may log in as root on host and nodes.
    pub keys: Vec<String>,
    /// `access.from`: networks that may reach ssh and the status page; the site's own where not given.
    pub from: Vec<Subnet>,
}

/// `[packages]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packages {
    /// `packages.suite`.
    pub suite: String,
    /// `packages.components`.
    pub components: Vec<String>,
    /// `packages.mirror`: address of the archive; none: the Debian entry of the machine's own apt sources.
    pub mirror: Option<String>,
    /// `packages.host`: more packages for the host's root.
    pub host: Vec<String>,
    /// `packages.firmware`: firmware packages for the host's root.
    pub firmware: Vec<String>,
    /// `packages.extra`: more packages for the pool, for later.
    pub extra: Vec<String>,
    /// `packages.layers`: whether the image has nodes' configured trees, which install much faster, or only the
    /// packages that they are made of.
    pub layers: bool,
}

/// `[server]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server.notify-port`: UDP port at which nodes hear of a changed profile.
    pub notify_port: u16,
    /// `server.ack-port`: UDP port at which the host hears of nodes.
    pub ack_port: u16,
}

/// `[report]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportTo {
    /// `report.url`: https, without a name and a password.
    pub url: String,
    /// `report.authority`: PEM; none: the authorities that browsers believe.
    pub authority: Option<String>,
}

/// `[backup]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// `backup.recipient`: who can read a backup of the host, as age writes it or as an OpenSSH public key.
    pub recipient: String,
}

/// The common name of a site's Grid authority.
const AUTHORITY_NAME: &str = "Authority";

/// `[grid]`: what the site's Grid authority certifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// `grid.base`: what all subjects of the site begin with; `/O=Grid/OU=<site.name>` where it is not given.
    pub base: Subject,
    /// `grid.certificate-days`: how long the certificates of nodes and users are good for.
    pub certificate_days: u32,
    /// `grid.authority-days`: how long the authority's own is.
    pub authority_days: u32,
    /// `[[grid-user]]`, in the file's order.
    pub users: Vec<GridUser>,
}

impl Grid {
    /// The authority's own subject.
    pub fn authority(&self) -> Subject {
        self.base.named(AUTHORITY_NAME)
    }

    /// The user of a name.
    pub fn user(&self, name: &str) -> Option<&GridUser> {
        self.users.iter().find(|user| user.name == name)
    }
}

/// `[[grid-user]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridUser {
    /// `name`: of the account.
    pub name: String,
    /// `uid`: the account's number.
    pub uid: u32,
    /// `dn`: the subject of the user's certificate; `<grid.base>/CN=<name>` where it is not given.
    pub dn: Subject,
}

impl Site {
    /// The nodes that are VMs of the host.
    pub fn vms(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.machine.is_none())
    }

    /// The nodes on machines of their own.
    pub fn machines(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.machine.is_some())
    }

    /// The node of a name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }
}
