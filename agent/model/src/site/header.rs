//! `<gatehouse/site.h>`: what `site.toml` says of the site and of one node, for the LCFG sources.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::{Node, Site};

/// Port of the depot, the pool and `/healthz`.
pub const HTTP_PORT: u16 = 80;
/// Port of the profiles, enrolment, progress and control.
pub const LCFG_SERVER_PORT: u16 = 443;
/// UDP port at which LCFG clients hear of a changed profile (service `lcfg`).
pub const NOTIFY_PORT: u16 = 732;
/// UDP port at which an LCFG server hears of its clients (service `lcfgack`).
pub const ACK_PORT: u16 = 733;

/// `<gatehouse/site.h>` of a site, whose greatest part is the same for all its nodes.
#[derive(Clone, Debug)]
pub struct Header {
    before: String,
    after: String,
}

impl Header {
    /// What all nodes of a site see.
    pub fn of(site: &Site) -> Self {
        let mut before = String::from("#ifndef GATEHOUSE_SITE_H\n#define GATEHOUSE_SITE_H\n");
        for (name, value) in site_values(site) {
            define(&mut before, name, &value);
        }
        for (role, nodes) in roles(site) {
            define(&mut before, &format!("SITE_ROLE_{role}"), &nodes.join(" "));
        }
        let mut after = String::new();
        root_keys(site, &mut after);
        hosts(site, &mut after);
        grid_users(site, &mut after);
        after.push_str("#endif\n");
        Self { before, after }
    }

    /// The text as the source of one node sees it.
    pub fn for_node(&self, node: &Node) -> String {
        let mut out = self.before.clone();
        define(&mut out, "NODE_NAME", &node.name);
        define(&mut out, "NODE_ADDRESS", &node.address);
        define(&mut out, "NODE_MAC", &node.mac);
        define(&mut out, "NODE_ROLE", &node.role);
        if node.machine.is_some() {
            define(&mut out, "NODE_MACHINE", &1);
        }
        define(&mut out, "NODE_KERNEL", &kernel(node));
        define(&mut out, "NODE_VCPUS", &node.vcpus);
        define(&mut out, "NODE_MEMORY_MB", &node.memory.as_mib());
        define(&mut out, "NODE_DISK_MB", &node.disk.as_mib());
        out.push_str(&self.after);
        out
    }
}

/// The package with the kernel that a node needs: a VM the one with the drivers of hypervisors, a machine all.
fn kernel(node: &Node) -> &'static str {
    if node.machine.is_some() { "linux-image-amd64" } else { "linux-image-cloud-amd64" }
}

fn define(out: &mut String, name: &str, value: &dyn Display) {
    let _ = write!(out, "#define {name} {value}");
    out.truncate(out.trim_end().len());
    out.push('\n');
}

fn site_values(site: &Site) -> Vec<(&'static str, String)> {
    let network = &site.network;
    let port = if LCFG_SERVER_PORT == 443 { String::new() } else { format!(":{LCFG_SERVER_PORT}") };
    let resolvers: Vec<String> = network.resolvers.iter().map(ToString::to_string).collect();
    let mut values = vec![
        ("SITE_NAME", site.name.to_string()),
        ("SITE_DOMAIN", site.domain.clone()),
        ("SITE_HOST", site.name.to_string()),
        ("SITE_HOST_ADDRESS", network.host.to_string()),
        ("SITE_SERVER_URL", format!("https://{}{port}/profiles", network.host)),
    ];
    if let Some(gateway) = network.gateway {
        values.push(("SITE_HAS_GATEWAY", "1".to_owned()));
        values.push(("SITE_GATEWAY", gateway.to_string()));
    }
    values.extend([
        ("SITE_RESOLVERS", resolvers.join(" ")),
        ("SITE_SUBNET", network.subnet.to_string()),
        ("SITE_PREFIX", network.subnet.prefix.to_string()),
        ("SITE_NETMASK", network.subnet.mask().to_string()),
        ("SITE_DISK0", "disk0".to_owned()),
        ("SITE_NOTIFY_PORT", site.server.notify_port.to_string()),
        ("SITE_ACK_PORT", site.server.ack_port.to_string()),
    ]);
    if let Some(grid) = &site.grid {
        values.push(("SITE_GRID_BASE", grid.base.to_string()));
        values.push(("SITE_GRID_AUTHORITY", grid.authority().to_string()));
    }
    values
}

/// The names of the nodes of each role, whose letters are made capitals and whose hyphens underscores.
fn roles(site: &Site) -> BTreeMap<String, Vec<&str>> {
    let mut roles: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in site.nodes.iter().filter(|node| !node.role.is_empty()) {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        roles.entry(node.role.chars().map(letter).collect()).or_default().push(node.name.as_str());
    }
    roles
}

fn root_keys(site: &Site, out: &mut String) {
    let tags: Vec<String> = (0..site.access.keys.len()).map(|number| format!("k{number}")).collect();
    if tags.is_empty() {
        return;
    }
    let _ = writeln!(out, "auth.rootkeys {}", tags.join(" "));
    for (tag, key) in tags.iter().zip(&site.access.keys) {
        let _ = writeln!(out, "auth.rootkey_{tag} {}", plain_key(key));
    }
}

/// The key with a comment that neither the preprocessor nor LCFG can take for something of its own.
fn plain_key(key: &str) -> String {
    let mut words = key.split_whitespace();
    let mut plain: Vec<String> = words.by_ref().take(2).map(str::to_owned).collect();
    plain.extend(words.map(|word| {
        word.chars().map(|c| if c.is_ascii_alphanumeric() || "@.-+:".contains(c) { c } else { '_' }).collect()
    }));
    plain.join(" ")
}

/// The host's line of /etc/hosts; the nodes tell each other theirs in a spanning map.
fn hosts(site: &Site, out: &mut String) {
    let (name, domain) = (&site.name, &site.domain);
    let _ = writeln!(out, "hosts.entries host");
    let _ = writeln!(out, "hosts.address_host {}", site.network.host);
    let _ = writeln!(out, "hosts.names_host {name}.{domain} {name}");
}

fn grid_users(site: &Site, out: &mut String) {
    let Some(grid) = &site.grid else { return };
    let _ = writeln!(out, "grid.base {}", grid.base);
    let _ = writeln!(out, "grid.authority {}", grid.authority());
    if grid.users.is_empty() {
        return;
    }
    let names: Vec<&str> = grid.users.iter().map(|user| user.name.as_str()).collect();
    let _ = writeln!(out, "grid.users {}", names.join(" "));
    for user in &grid.users {
        let _ = writeln!(out, "grid.uid_{} {}", user.name, user.uid);
        let _ = writeln!(out, "grid.dn_{} {}", user.name, user.dn);
    }
}
