//! nftables: who may talk to the host, and that a node speaks only for itself.

use std::fmt::Write as _;

use gatehouse_model::Site;
use gatehouse_model::site::{HTTP_PORT, LCFG_SERVER_PORT, Subnet};

use crate::host::lifecycle::BRIDGE;

/// The packet filter of a site; a node whose address has changed may use that of the site `before` too, by which it
/// still has to fetch the profile that tells it of the new one.
pub(super) fn nftables_conf(site: &Site, before: Option<&Site>) -> String {
    let own = site.network.subnet;
    let from: &[Subnet] = if site.access.from.is_empty() { &[own] } else { &site.access.from };
    let mut out = "#!/usr/sbin/nft -f\nflush ruleset\n\ntable inet gatehouse {\n\tchain input {\n".to_owned();
    let mut rule = |text: &str| {
        let _ = writeln!(out, "\t\t{text}");
    };
    rule("type filter hook input priority filter; policy drop;");
    rule("ct state established,related accept");
    rule("iif \"lo\" accept");
    rule("meta l4proto { icmp, ipv6-icmp } accept");
    // A rule for each network: in one set, networks that overlap are an error.
    for network in from {
        rule(&format!("{}tcp dport {{ 22, {LCFG_SERVER_PORT} }} accept", source(*network)));
    }
    rule(&format!(
        "iifname \"{BRIDGE}\" ip saddr {own} tcp dport {{ {HTTP_PORT}, {LCFG_SERVER_PORT} }} accept"
    ));
    let ack = site.server.ack_port;
    rule(&format!("iifname \"{BRIDGE}\" ip saddr {own} udp dport {{ 123, {ack} }} accept"));
    if site.machines().next().is_some() {
        // A machine that asks for its address has none yet.
        rule(&format!("iifname \"{BRIDGE}\" udp dport 67 accept"));
        rule(&format!("iifname \"{BRIDGE}\" ip saddr {own} udp dport 69 accept"));
    }
    // The host is no router: what is bridged never comes by here.
    out.push_str(
        "\t}\n\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n",
    );
    if site.vms().next().is_some() {
        nodes_table(site, before, &mut out);
    }
    out
}

/// `0.0.0.0/0` is every IPv4 address, which is said otherwise.
fn source(network: Subnet) -> String {
    if network.prefix == 0 { "meta nfproto ipv4 ".to_owned() } else { format!("ip saddr {network} ") }
}

/// Behind a node's interface only the pairs of hardware and IP address of site.toml are believed.
fn nodes_table(site: &Site, before: Option<&Site>, out: &mut String) {
    let free =
        |address| site.network.host != address && site.nodes.iter().all(|node| node.address != address);
    let moved = site.vms().filter_map(|node| {
        let old = before?.node(node.name.as_str())?;
        free(old.address).then_some((node.mac, old.address))
    });
    let pairs = site.vms().map(|node| (node.mac, node.address)).chain(moved);
    let pairs: Vec<String> = pairs.map(|(mac, address)| format!("{mac} . {address}")).collect();
    let _ = write!(
        out,
        "\ntable bridge gatehouse {{\n\tset nodes {{\n\t\ttype ether_addr . ipv4_addr\n\t\telements = {{ {} }}\n\t}}\n\n\
         \tchain prerouting {{\n\t\ttype filter hook prerouting priority filter; policy accept;\n\
         \t\tiifname \"vif*\" jump node\n\t\tiifname \"ghtap*\" jump node\n\t}}\n\n\
         \tchain node {{\n\t\tether type ip ether saddr . ip saddr @nodes accept\n\
         \t\tether type arp arp saddr ether . arp saddr ip @nodes accept\n\t\tdrop\n\t}}\n}}\n",
        pairs.join(", ")
    );
}
