//! The `[[node]]` sections, and what no two machines of a site may share.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;

use super::check_disks::disk as disk_rule;
use super::limits::{LIMITS, limits};
use super::read::{At, Reader, Section};
use super::{DiskRule, Limits, Network, Node, Subnet, VmmKind, values};
use crate::{Mac, NodeName, Size};

pub(super) const NODE: &[&str] = &[
    "name",
    "address",
    "mac",
    "memory",
    "vcpus",
    "disk",
    "weight",
    "cap",
    "disk-rate",
    "disk-iops",
    "network-rate",
    "role",
    "autostart",
    "machine",
];
pub(super) const MACHINE: &[&str] =
    &["mac", "serial", "model", "path", "wwn", "bus", "ssd", "min-size", "max-size", "sort", "erase"];

/// Names that mean something else in messages, tags and `/etc/hosts`.
const RESERVED: &[&str] = &["host", "localhost"];

pub(super) fn node_name(r: &mut Reader, section: &Section<'_>) -> Option<At<NodeName>> {
    section.read(r, "name", |text| {
        if RESERVED.contains(&text) {
            return Err(format!("{text:?} has a meaning of its own; write another name"));
        }
        text.parse()
    })
}

pub(super) fn inside(r: &mut Reader, key: &str, subnet: Subnet, address: &At<Ipv4Addr>) {
    let given = address.value;
    let why = if !subnet.contains(given) {
        "lies outside"
    } else if given == subnet.address {
        "is the network's own address in"
    } else if given == subnet.broadcast() {
        "is the broadcast address of"
    } else {
        return;
    };
    let first = Ipv4Addr::from_bits(subnet.address.to_bits() + 1);
    let last = Ipv4Addr::from_bits(subnet.broadcast().to_bits() - 1);
    r.problem(address.line, format!("{key}: {given} {why} {subnet}; write one from {first} to {last}"));
}

pub(super) fn whole_mib(r: &mut Reader, section: &Section<'_>, key: &str) -> Option<Size> {
    let size = section.read(r, key, |text| {
        let size: Size = text.parse()?;
        if size == Size::mib(size.as_mib()) {
            Ok(size)
        } else {
            Err(format!("{size} is not whole; write a multiple of 1MiB"))
        }
    });
    size.map(|at| at.value)
}

/// What no two machines of a site may share, and who has it.
struct Taken<T>(BTreeMap<T, String>);

impl<T: Ord + Display> Taken<T> {
    fn take(&mut self, r: &mut Reader, key: &str, value: T, line: usize, by: &str) {
        if let Some(first) = self.0.get(&value) {
            r.problem(line, format!("{key}: {value} is used by {first} already; write another one"));
        } else {
            self.0.insert(value, by.to_owned());
        }
    }
}

pub(super) fn nodes(
    r: &mut Reader,
    top: &Section<'_>,
    site: Option<&NodeName>,
    network: Option<&Network>,
    vmm: VmmKind,
) -> Vec<Node> {
    let sections = top.sections(r, "node");
    if !top.has("node") {
        r.missing(1, "node: not given; write [[node]] with name, address, memory and disk");
    }
    let (mut names, mut addresses, mut macs) =
        (Taken(BTreeMap::new()), Taken(BTreeMap::new()), Taken(BTreeMap::new()));
    if let Some(site) = site {
        names.0.insert(site.clone(), "the host".to_owned());
    }
    if let Some(network) = network {
        addresses.0.extend(network.gateway.map(|gateway| (gateway, "the gateway".to_owned())));
        addresses.0.insert(network.host, "the host".to_owned());
    }
    let mut nodes = Vec::new();
    for section in &sections {
        let parts = node_parts(r, section, site, network.map(|network| network.subnet), vmm);
        let by =
            parts.name.as_ref().map_or_else(|| "another node".to_owned(), |at| format!("node {}", at.value));
        if let Some(name) = &parts.name {
            names.take(r, "node.name", name.value.clone(), name.line, &by);
        }
        if let Some(address) = &parts.address {
            addresses.take(r, "node.address", address.value, address.line, &by);
        }
        if let Some(mac) = &parts.mac {
            macs.take(r, "node.mac", mac.value, mac.line, &by);
        }
        nodes.extend(parts.into_node());
    }
    nodes
}

/// A node as far as it could be read.
struct NodeParts {
    name: Option<At<NodeName>>,
    address: Option<At<Ipv4Addr>>,
    mac: Option<At<Mac>>,
    memory: Option<Size>,
    vcpus: u32,
    disk: Option<Size>,
    limits: Limits,
    role: String,
    autostart: bool,
    machine: Option<DiskRule>,
}

impl NodeParts {
    fn into_node(self) -> Option<Node> {
        Some(Node {
            name: self.name?.value,
            address: self.address?.value,
            mac: self.mac?.value,
            memory: self.memory?,
            vcpus: self.vcpus,
            disk: self.disk?,
            limits: self.limits,
            role: self.role,
            autostart: self.autostart,
            machine: self.machine,
        })
    }
}

fn node_parts(
    r: &mut Reader,
    section: &Section<'_>,
    site: Option<&NodeName>,
    subnet: Option<Subnet>,
    vmm: VmmKind,
) -> NodeParts {
    section.only(r, NODE);
    let name = node_name(r, section);
    let name = section.require(r, "name", name, "\"node1\"");
    let address = section.read(r, "address", values::address);
    let address = section.require(r, "address", address, "\"10.0.2.21\"");
    if let (Some(subnet), Some(address)) = (subnet, &address) {
        inside(r, "node.address", subnet, address);
    }
    let memory = whole_mib(r, section, "memory");
    let vcpus = vcpus(r, section, vmm);
    let limits = limits(r, section, vmm);
    let role = section.read(r, "role", values::role).map(|at| at.value).unwrap_or_default();
    let autostart = section.flag(r, "autostart").unwrap_or(true);
    if section.has("machine") {
        let (mac, machine) = machine(r, section);
        let (memory, disk) = (memory.or(Some(Size::default())), Some(Size::default()));
        return NodeParts { name, address, mac, memory, vcpus, disk, limits, role, autostart, machine };
    }
    let mac = mac(r, section, "one that begins with 02, or remove the key").or_else(|| {
        let (site, name) = (site?, name.as_ref()?);
        Some(At { line: name.line, value: Mac::derived(&format!("{site}/{}", name.value)) })
    });
    let memory = section.require(r, "memory", memory, "\"512MiB\"");
    let disk = whole_mib(r, section, "disk");
    let disk = section.require(r, "disk", disk, "\"4GiB\"");
    NodeParts { name, address, mac, memory, vcpus, disk, limits, role, autostart, machine: None }
}

/// A node on a machine of its own has what that has, whichever vmm the others run under.
fn vcpus(r: &mut Reader, section: &Section<'_>, vmm: VmmKind) -> u32 {
    let vcpus = section.number(r, "vcpus", 1, 128).unwrap_or(1);
    if let Some(most) = vmm.most_vcpus().filter(|most| vcpus > *most && !section.has("machine")) {
        let what = format!("{}: {vmm} gives a node at most {most}; write {most}", section.path("vcpus"));
        r.problem(section.line_of(r, "vcpus"), what);
    }
    vcpus
}

fn mac(r: &mut Reader, section: &Section<'_>, instead: &str) -> Option<At<Mac>> {
    section.read(r, "mac", |text| {
        let mac: Mac = text.parse()?;
        if mac.bytes()[0] & 1 == 0 && mac.bytes() != [0; 6] {
            return Ok(mac);
        }
        Err(format!("{mac} is not the address of one machine; write {instead}"))
    })
}

/// `machine = { mac = … }`: what a VM is given the machine brings along.
fn machine(r: &mut Reader, node: &Section<'_>) -> (Option<At<Mac>>, Option<DiskRule>) {
    let limits = LIMITS.map(|key| (key, "only a VM is held to it; remove it"));
    let disk = ("disk", "its disk is the machine's own; remove it");
    for (key, instead) in [("mac", "write it in machine = { mac = … }"), disk].into_iter().chain(limits) {
        if node.has(key) {
            r.problem(node.line, format!("node.{key}: the node is a machine of its own; {instead}"));
        }
    }
    let section = node.section(r, "machine", "node.machine");
    section.only(r, MACHINE);
    let mac = mac(r, &section, "that of the interface that it starts from the network with");
    let mac = section.require(r, "mac", mac, "\"00:16:3e:12:34:56\"");
    (mac, Some(disk_rule(r, &section)))
}
