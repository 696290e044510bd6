//! What a node has of its own on the host: a user for its process, and its end of the network.

use std::fs;
use std::path::Path;

use gatehouse_model::Fault;

use crate::tool;

/// The first node's user; the others follow. Nobody else gives numbers out here: it is above systemd's dynamic users
/// (61184 to 65519) and the 16 bits that Debian keeps to for all its users, and below the subordinate ranges that
/// `useradd` gives to people (from 100000 on) and those of systemd's containers (from 524288 on; systemd.io/UIDS-GIDS).
/// What a node has of an earlier number is given to its new one when it starts.
pub(in crate::vmm) const FIRST_UID: u32 = 70_000;

/// Whether this process may start others as other users: root outside of a user namespace with one user.
pub(in crate::vmm) fn may_change_user() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let users = map.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    nix::unistd::geteuid().is_root() && users > u64::from(FIRST_UID)
}

/// The name of a node's tap.
pub(in crate::vmm) fn tap(index: u32) -> String {
    format!("ghtap{index}")
}

/// A fresh tap for every start: offload settings of the last one would stay on it.
pub(in crate::vmm) fn make_tap(tap: &str, bridge: &str, uid: Option<u32>) -> Result<(), Fault> {
    if Path::new("/sys/class/net").join(tap).exists() {
        tool::run("ip", &["link", "delete", tap])?;
    }
    let mut args = vec!["tuntap", "add", "dev", tap, "mode", "tap"];
    let uid = uid.map(|uid| uid.to_string());
    if let Some(uid) = &uid {
        args.extend(["user", uid]);
    }
    tool::run("ip", &args).map_err(|fault| {
        fault.help("make /dev/net/tun readable and writable for everyone, as Debian has it, or start as root")
    })?;
    tool::run("ip", &["link", "set", tap, "master", bridge, "up"]).map(drop)
}
