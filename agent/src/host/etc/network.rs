//! systemd-networkd: the site's bridge, which carries the NIC's hardware address, and the NIC in it.

use gatehouse_model::{Mac, Site};

use super::{EtcFile, file};
use crate::host::lifecycle::BRIDGE;

/// The interface of the site's VLAN, between NIC and bridge.
const VLAN: &str = "ghvlan";

pub(super) fn files(site: &Site, nic: Mac) -> Vec<EtcFile> {
    let mut files = vec![
        file("systemd/network/10-gatehouse-bridge.netdev", bridge_device(nic)),
        file("systemd/network/20-gatehouse-nic.network", nic_network(site, nic)),
        file("systemd/network/30-gatehouse-bridge.network", bridge_network(site)),
        file("systemd/network/40-gatehouse-nodes.network", nodes_network()),
    ];
    if let Some(id) = site.network.vlan {
        files.push(file(
            "systemd/network/11-gatehouse-vlan.netdev",
            format!("[NetDev]\nName={VLAN}\nKind=vlan\n\n[VLAN]\nId={id}\n"),
        ));
        files.push(file(
            "systemd/network/21-gatehouse-vlan.network",
            format!("[Match]\nName={VLAN}\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nBridge={BRIDGE}\nLinkLocalAddressing=no\n"),
        ));
    }
    files
}

fn bridge_device(nic: Mac) -> String {
    format!("[NetDev]\nName={BRIDGE}\nKind=bridge\nMACAddress={nic}\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n")
}

/// Bridge and VLAN have the NIC's address too; only the NIC itself is of no kind.
fn nic_network(site: &Site, nic: Mac) -> String {
    let into = if site.network.vlan.is_some() { format!("VLAN={VLAN}") } else { format!("Bridge={BRIDGE}") };
    format!(
        "[Match]\nMACAddress={nic}\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n\
         [Network]\n{into}\nLinkLocalAddressing=no\n"
    )
}

fn bridge_network(site: &Site) -> String {
    let network = &site.network;
    let gateway = network.gateway.map_or(String::new(), |gateway| format!("Gateway={gateway}\n"));
    // Without a cable the host's address must be there all the same: the nodes need no more than the bridge.
    format!(
        "[Match]\nName={BRIDGE}\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nAddress={}/{}\n{gateway}\
         LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=yes\n",
        network.host, network.subnet.prefix
    )
}

/// The vmm puts its nodes' interfaces into the bridge and takes them away again.
fn nodes_network() -> String {
    "[Match]\nName=vif* ghtap*\n\n[Link]\nUnmanaged=yes\n".to_owned()
}
