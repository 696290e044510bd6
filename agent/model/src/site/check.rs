//! From the text of `site.toml` to a `Site`: every problem of it at once, in the order of the file.

use toml::de::DeTable;

use super::check_backup::backup;
use super::check_disks::disks;
use super::check_grid::grid;
use super::check_match::matches;
use super::check_nodes::{inside, node_name, nodes, whole_mib};
use super::check_report::report;
use super::read::{At, Reader, Section};
use super::{
    ACK_PORT, Access, Host, Install, InstallTo, NOTIFY_PORT, Network, NicRule, Packages, Server, Site,
    Subnet, VmmKind, values,
};
use crate::{Mac, NodeName, Problem, Size};

pub(super) const TOP: &[&str] = &[
    "schema",
    "site",
    "match",
    "install",
    "disk",
    "network",
    "host",
    "node",
    "access",
    "packages",
    "server",
    "report",
    "grid",
    "grid-user",
    "backup",
];
pub(super) const SITE: &[&str] = &["name", "domain", "epoch"];
pub(super) const INSTALL: &[&str] = &["to"];
pub(super) const NETWORK: &[&str] =
    &["subnet", "host", "gateway", "resolvers", "time-servers", "nic", "vlan"];
pub(super) const NIC: &[&str] = &["mac", "driver", "path", "link"];
pub(super) const HOST: &[&str] = &["vmm", "memory", "vcpus"];
pub(super) const ACCESS: &[&str] = &["keys", "from"];
pub(super) const PACKAGES: &[&str] =
    &["suite", "components", "mirror", "host", "firmware", "extra", "layers"];
pub(super) const SERVER: &[&str] = &["notify-port", "ack-port"];

/// Network and storage firmware and microcode that common servers ask for at boot.
const FIRMWARE: &[&str] = &[
    "amd64-microcode",
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-intel-misc",
    "firmware-misc-nonfree",
    "firmware-qlogic",
    "firmware-realtek",
    "intel-microcode",
];

impl Site {
    /// Reads `site.toml`; CRLF and a byte order mark are taken as they come.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut r = Reader::new(text);
        r.syntax(text, &errors);
        let site = site(&mut r, &Section::top(table.get_ref()));
        match (r.finish(), site) {
            (problems, Some(site)) if problems.is_empty() => Ok(site),
            (problems, _) if problems.is_empty() => {
                Err(vec![Problem::at("site.toml", 0, "it cannot be read; start again from a template")])
            }
            (problems, _) => Err(problems),
        }
    }

    /// Whether the nodes fit into a machine's memory and into the file system of their stores.
    ///
    /// Nothing is promised twice: stores are sparse, but a node may fill its own.
    pub fn check_fit(&self, memory: Size, vms: Size) -> Vec<Problem> {
        let sum = |size: fn(&super::Node) -> Size| {
            self.vms().fold(0_u64, |all, node| all.saturating_add(size(node).as_bytes()))
        };
        let mut problems = Vec::new();
        let wanted = Size::bytes(sum(|node| node.memory).saturating_add(self.host.memory.as_bytes()));
        if wanted > memory {
            problems.push(Problem::at(
                "site.toml",
                0,
                format!(
                    "host and nodes want {} of memory and the machine has {}; give them {} less",
                    mib(wanted),
                    mib(memory),
                    mib_up(wanted.as_bytes() - memory.as_bytes()),
                ),
            ));
        }
        let wanted = Size::bytes(sum(|node| node.disk));
        if wanted > vms {
            problems.push(Problem::at(
                "site.toml",
                0,
                format!(
                    "the nodes' disks want {} and there is room for {}; make them {} smaller",
                    mib(wanted),
                    mib(vms),
                    mib_up(wanted.as_bytes() - vms.as_bytes()),
                ),
            ));
        }
        problems
    }
}

fn mib(size: Size) -> Size {
    Size::mib(size.as_mib())
}

fn mib_up(bytes: u64) -> Size {
    Size::mib(bytes.div_ceil(1 << 20))
}

fn site(r: &mut Reader, top: &Section<'_>) -> Option<Site> {
    top.only(r, TOP);
    let schema = top.number(r, "schema", 1, 1);
    top.require(r, "schema", schema, "1");
    let (name, domain, epoch) = names(r, top);
    let matches = matches(r, top);
    let install = install(r, top);
    let disk = disks(r, top, install.to);
    let network = network(r, top);
    let host = host(r, top);
    let nodes = nodes(r, top, name.as_ref().map(|at| &at.value), network.as_ref(), host.vmm);
    let subnet = network.as_ref().map(|network| network.subnet);
    let access = access(r, top, subnet);
    let packages = packages(r, top);
    let server = server(r, top);
    let report = report(r, top);
    let own = domain.as_ref().map(|at| at.value.as_str());
    let grid = grid(r, top, name.as_ref().map(|at| &at.value), own);
    let backup = backup(r, top);
    Some(Site {
        name: name?.value,
        domain: domain?.value,
        epoch: epoch?.value,
        matches,
        install,
        disk: disk?,
        network: network?,
        host,
        nodes,
        access: access?,
        packages,
        server,
        report,
        grid,
        backup,
    })
}

type Names = (Option<At<NodeName>>, Option<At<String>>, Option<At<u64>>);

fn names(r: &mut Reader, top: &Section<'_>) -> Names {
    let section = top.section(r, "site", "site");
    section.only(r, SITE);
    if !top.has("site") {
        r.missing(1, "site: not given; write [site] with name, domain and epoch");
        return (None, None, None);
    }
    let name = node_name(r, &section);
    let domain = section.read(r, "domain", values::domain);
    let epoch = section.read(r, "epoch", values::epoch);
    (
        section.require(r, "name", name, "\"site1\""),
        section.require(r, "domain", domain, "\"site1.example.org\""),
        section.require(r, "epoch", epoch, "\"2026-01-01T00:00:00Z\""),
    )
}

fn install(r: &mut Reader, top: &Section<'_>) -> Install {
    let section = top.section(r, "install", "install");
    section.only(r, INSTALL);
    let words = [("self", InstallTo::SelfDisk), ("rule", InstallTo::Rule)];
    Install { to: section.word(r, "to", &words).map(|at| at.value) }
}

fn network(r: &mut Reader, top: &Section<'_>) -> Option<Network> {
    let section = top.section(r, "network", "network");
    section.only(r, NETWORK);
    if !top.has("network") {
        r.missing(1, "network: not given; write [network] with subnet and host");
        return None;
    }
    let subnet = section.read(r, "subnet", values::subnet);
    let subnet = section.require(r, "subnet", subnet, "\"10.0.2.0/24\"").map(|at| at.value);
    let host = section.read(r, "host", values::address);
    let host = section.require(r, "host", host, "\"10.0.2.20\"");
    let gateway = section.read(r, "gateway", values::address);
    for (key, address) in [("network.host", &host), ("network.gateway", &gateway)] {
        if let (Some(subnet), Some(address)) = (subnet, address) {
            inside(r, key, subnet, address);
        }
    }
    if let (Some(host), Some(gateway)) = (&host, &gateway)
        && host.value == gateway.value
    {
        let what = format!("network.gateway: {} is the host's own address; write the router's", host.value);
        r.problem(gateway.line, what);
    }
    let resolvers = plain(section.list(r, "resolvers", values::any_address));
    let time_servers = plain(section.list(r, "time-servers", values::server));
    let nic = nic(r, &section);
    let vlan = section.number(r, "vlan", 1, 4094).and_then(|vlan| u16::try_from(vlan).ok());
    let gateway = gateway.map(|at| at.value);
    Some(Network { subnet: subnet?, host: host?.value, gateway, resolvers, time_servers, nic, vlan })
}

fn plain<T>(list: Option<Vec<At<T>>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|at| at.value).collect()
}

fn nic(r: &mut Reader, network: &Section<'_>) -> NicRule {
    let section = network.section(r, "nic", "network.nic");
    section.only(r, NIC);
    let mac = section.parsed::<Mac>(r, "mac").map(|at| at.value);
    let driver = section.read(r, "driver", values::glob).map(|at| at.value);
    let path = section.read(r, "path", values::glob).map(|at| at.value);
    NicRule { mac, driver, path, link: section.flag(r, "link") }
}

fn host(r: &mut Reader, top: &Section<'_>) -> Host {
    let section = top.section(r, "host", "host");
    section.only(r, HOST);
    let words = [("xen", VmmKind::Xen), ("uml", VmmKind::Uml), ("kvm", VmmKind::Kvm)];
    Host {
        vmm: section.word(r, "vmm", &words).map_or(VmmKind::Xen, |at| at.value),
        memory: whole_mib(r, &section, "memory").unwrap_or(Size::gib(1)),
        vcpus: section.number(r, "vcpus", 1, 128).unwrap_or(1),
    }
}

fn access(r: &mut Reader, top: &Section<'_>, subnet: Option<Subnet>) -> Option<Access> {
    let section = top.section(r, "access", "access");
    section.only(r, ACCESS);
    let keys = plain(section.list(r, "keys", values::public_key));
    let from = plain(section.list(r, "from", values::any_network));
    let from = if from.is_empty() { vec![subnet?] } else { from };
    Some(Access { keys, from })
}

fn server(r: &mut Reader, top: &Section<'_>) -> Server {
    let section = top.section(r, "server", "server");
    section.only(r, SERVER);
    let port = |number: Option<u32>| number.and_then(|port| u16::try_from(port).ok());
    Server {
        notify_port: port(section.number(r, "notify-port", 1, 65535)).unwrap_or(NOTIFY_PORT),
        ack_port: port(section.number(r, "ack-port", 1, 65535)).unwrap_or(ACK_PORT),
    }
}

fn packages(r: &mut Reader, top: &Section<'_>) -> Packages {
    let section = top.section(r, "packages", "packages");
    section.only(r, PACKAGES);
    let suite = section.read(r, "suite", values::archive_word);
    let components = section.list(r, "components", values::archive_word).map(|list| plain(Some(list)));
    if components.as_ref().is_some_and(Vec::is_empty) {
        r.problem(section.line, "packages.components: none given; write components = [\"main\"]");
    }
    let components = components.unwrap_or_else(|| ["main", "non-free-firmware"].map(str::to_owned).to_vec());
    let firmware = section.list(r, "firmware", values::package).map(|list| plain(Some(list)));
    let firmware = firmware.unwrap_or_else(|| {
        let all = components.iter().any(|component| component == "non-free-firmware");
        FIRMWARE.iter().filter(|_| all).map(|name| (*name).to_owned()).collect()
    });
    Packages {
        suite: suite.map_or_else(|| "trixie".to_owned(), |at| at.value),
        components,
        mirror: section.read(r, "mirror", values::mirror).map(|at| at.value),
        host: plain(section.list(r, "host", values::package)),
        firmware,
        extra: plain(section.list(r, "extra", values::package)),
        layers: section.flag(r, "layers").unwrap_or(true),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Site, Size};

    #[test]
    fn nodes_must_fit() {
        let text = include_str!("../../tests/golden/full/site.toml");
        let site = Site::parse(text).expect("a right file");
        assert!(site.check_fit(Size::mib(3584), Size::gib(14)).is_empty());
        let problems = site.check_fit(Size::bytes(Size::gib(3).as_bytes() - 1), Size::gib(13));
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "site.toml: host and nodes want 3584MiB of memory and the machine has 3071MiB; give them 513MiB less",
                "site.toml: the nodes' disks want 14GiB and there is room for 13GiB; make them 1GiB smaller",
            ]
        );
    }
}
