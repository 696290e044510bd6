//! The files of /etc that the site says, made anew at every boot over the slot's own; some also when the site changes.

mod network;
mod packets;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use gatehouse_model::{Fault, Mac, Site};

use super::files::write_whole;
use crate::tool;

/// The packet filter.
const PACKETS: &str = "nftables.conf";

/// One file below /etc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcFile {
    /// Its name below /etc.
    pub path: &'static str,
    /// Its mode.
    pub mode: u32,
    /// Its text.
    pub text: String,
}

fn file(path: &'static str, text: String) -> EtcFile {
    EtcFile { path, mode: 0o644, text }
}

/// All files of a host whose NIC and machine id these are.
pub fn render(site: &Site, nic: Mac, machine_id: &str) -> Vec<EtcFile> {
    let mut files = vec![
        // systemd does again what it does after an update if this is older than /usr, or not there.
        file(".updated", String::new()),
        file("hostname", format!("{}\n", site.name)),
        EtcFile { path: "machine-id", mode: 0o444, text: format!("{machine_id}\n") },
        file("chrony/chrony.conf", chrony_conf(site)),
    ];
    files.extend(live(site, None));
    files.extend(network::files(site, nic));
    files
}

/// Those that are renewed when the site changes: whoever reads them reads them anew, but for the packet filter.
fn live(site: &Site, before: Option<&Site>) -> [EtcFile; 4] {
    [
        file("hosts", hosts(site)),
        file("resolv.conf", resolv_conf(site)),
        file("ssh/authorized_keys/root", site.access.keys.join("\n") + "\n"),
        file(PACKETS, packets::nftables_conf(site, before)),
    ]
}

/// Brings a running host's files from one site to another; what is as it should be stays untouched.
///
/// # Errors
/// A file cannot be written, or nft does not take the packet filter; the old one is then in force.
pub fn renew(old: &Site, new: &Site, etc: &Path) -> Result<(), Fault> {
    for file in live(new, Some(old)) {
        let path = etc.join(file.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        write_whole(&path, file.text.as_bytes(), file.mode)?;
        if file.path == PACKETS {
            tool::run("/usr/sbin/nft", &[OsStr::new("-f"), path.as_os_str()])?;
        }
    }
    Ok(())
}

fn hosts(site: &Site) -> String {
    let mut out = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let nodes = site.nodes.iter().map(|node| (node.address, &node.name));
    for (address, name) in std::iter::once((site.network.host, &site.name)).chain(nodes) {
        let _ = writeln!(out, "{address} {name}.{} {name}", site.domain);
    }
    out
}

fn resolv_conf(site: &Site) -> String {
    let mut out = format!("search {}\n", site.domain);
    for resolver in &site.network.resolvers {
        let _ = writeln!(out, "nameserver {resolver}");
    }
    out
}

/// The host keeps time for the nodes, also when nobody keeps it for the host.
fn chrony_conf(site: &Site) -> String {
    let mut out = String::new();
    for server in &site.network.time_servers {
        let _ = writeln!(out, "server {server} iburst");
    }
    let _ = write!(
        out,
        "driftfile /var/lib/chrony/chrony.drift\nrtcsync\nmakestep 1 3\nlocal stratum 10\nallow {}\n",
        site.network.subnet
    );
    out
}

#[cfg(test)]
mod tests;
