//! `network`: the host's name, interfaces for systemd-networkd, resolvers.

use gatehouse_model::{Doing as _, Fault, Mac};

use super::work::Work;
use crate::node::render::{self, Addressing, Interface};

const DIRECTORY: &str = "/etc/systemd/network/";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (resolvers, search) = (owned(work.words("resolvers")), owned(work.words("search")));
    let mut hostname = work.home.node.to_string();
    for (index, tag) in work.words("interfaces").into_iter().enumerate() {
        let first = index == 0;
        let own_name = work.of("hostname", tag);
        if first && !own_name.is_empty() {
            own_name.clone_into(&mut hostname);
        }
        // Nothing means no, as for every boolean; an interface without the resource comes up.
        let onboot = work.profile.get("network", &format!("onboot_{tag}"));
        if matches!(onboot, Some("no" | "")) {
            continue;
        }
        let mut interface = interface(work, tag, first)?;
        if first {
            interface.resolvers.clone_from(&resolvers);
            interface.search.clone_from(&search);
        }
        let path = format!("{DIRECTORY}10-gatehouse-{tag}.network");
        work.write_own(&path, 0o644, &render::network(&interface))?;
    }
    work.write("/etc/hostname", 0o644, &format!("{hostname}\n"))?;
    work.write("/etc/resolv.conf", 0o644, &render::resolv_conf(&resolvers, &search))?;
    work.enable("systemd-networkd.service", "multi-user.target")?;
    work.enable("systemd-networkd.socket", "sockets.target")?;
    work.settle()?;
    tell(work, &hostname)
}

/// Has the running system use what has changed.
fn tell(work: &Work<'_>, hostname: &str) -> Result<(), Fault> {
    if !work.is_running() {
        return Ok(());
    }
    if work.has_changed("/etc/hostname") {
        nix::unistd::sethostname(hostname).doing(|| format!("calling this system {hostname}"))?;
    }
    // networkd goes over the links whose files have changed, and leaves the others alone.
    if work.has_changed(DIRECTORY) && work.target.run("networkctl", &["reload"]).is_err() {
        work.restart("systemd-networkd.service")?;
    }
    Ok(())
}

fn interface(work: &Work<'_>, tag: &str, first: bool) -> Result<Interface, Fault> {
    // Device names differ between hypervisors: the hardware address counts, and the first interface's is the one
    // that the node is reached by.
    let matching = match (work.of("mac", tag), work.of("device", tag)) {
        ("", _) if first => format!("MACAddress={}", work.home.mac),
        ("", "" | "auto") => format!("Name={tag}"),
        ("", device) => format!("Name={device}"),
        (mac, _) => {
            let mac: Mac =
                mac.parse().map_err(|_| work.wrong("mac", tag, "write for example 02:00:5e:00:00:01"))?;
            format!("MACAddress={mac}")
        }
    };
    let addressing = match work.of("ipaddr", tag) {
        "" | "auto" if first => Addressing::Static(work.home.address, work.home.prefix),
        dhcp if dhcp.eq_ignore_ascii_case("dhcp") => Addressing::Dhcp,
        address => {
            let help = "write an IPv4 address or DHCP";
            let address = address.parse().map_err(|_| work.wrong("ipaddr", tag, help))?;
            let prefix = match work.of("netmask", tag) {
                "" if first => work.home.prefix,
                mask => render::prefix(mask)
                    .ok_or_else(|| work.wrong("netmask", tag, "write for example 24 or 255.255.255.0"))?,
            };
            Addressing::Static(address, prefix)
        }
    };
    let gateway = work.get("gateway");
    let gateway = (first && !gateway.is_empty()).then(|| gateway.to_owned());
    Ok(Interface { matching, addressing, gateway, resolvers: Vec::new(), search: Vec::new() })
}
