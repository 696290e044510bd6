//! `nfs`: directories that others may mount, and directories of others that are mounted here.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use gatehouse_lcfg::Profile;
use gatehouse_model::Fault;

use super::program::{tail, watched};
use super::work::Work;
use crate::tool;

const EXPORTS: &str = "/etc/exports.d/gatehouse.exports";
const UNITS: &str = "/etc/systemd/system";
/// A server may be away for long, and systemd gives up what fails five times in ten seconds.
const WRITTEN: &str = "# Written by Gatehouse from the component nfs.\n[Unit]\nStartLimitIntervalSec=0\n";
const WANTED: &str = "[Install]\nWantedBy=remote-fs.target\n";
/// What a server has to say at all is said by then.
const LONGEST: Duration = Duration::from_secs(10);
/// How `ESTALE` is written in the C locale.
const STALE: &str = "Stale file handle";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let mut exports = String::new();
    for tag in work.words("exports") {
        let (path, clients) = (work.of("export", tag), work.of("clients", tag));
        if !path.starts_with('/') || clients.is_empty() {
            return Err(work.wrong(
                "export",
                tag,
                "write an absolute path, and nfs.clients_… who may mount it",
            ));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(exports, "\"{path}\" {clients}");
    }
    if !exports.is_empty() && !work.target.has("/usr/sbin/exportfs") {
        return Err(Fault::new("nfs.exports is set, and this node has no NFS server")
            .help("add nfs-kernel-server to the node's package list"));
    }
    work.write_some(EXPORTS, 0o644, &exports)?;
    let units = mounts(work)?;
    work.settle()?;
    if !work.is_running() {
        return Ok(());
    }
    if work.has_changed(EXPORTS) && work.target.has("/usr/sbin/exportfs") {
        work.target.run("exportfs", &["-ra"])?;
    }
    if work.has_changed(UNITS) {
        work.systemctl(&["daemon-reload"])?;
    }
    for unit in units {
        work.systemctl(&["start", &unit])?;
    }
    Ok(())
}

/// A unit for each mount, which systemd starts at boot as soon as there is a network.
fn mounts(work: &mut Work<'_>) -> Result<Vec<String>, Fault> {
    let mut units = Vec::new();
    for tag in work.words("mounts") {
        let (device, point) = (work.of("device", tag), work.of("point", tag));
        if !device.contains(":/") {
            return Err(work.wrong("device", tag, "write SERVER:/PATH"));
        }
        if !point.starts_with('/') || point.contains("..") {
            return Err(work.wrong("point", tag, "write an absolute path"));
        }
        let options = work.of_or("opts", tag, "defaults");
        let mut unit = format!("{}.mount", escape(point));
        let text = format!(
            "{WRITTEN}After=network-online.target\n\n\
             [Mount]\nWhat={device}\nWhere={point}\nType=nfs\nOptions={options},_netdev\n\n{WANTED}"
        );
        work.write_own(&format!("{UNITS}/{unit}"), 0o644, &text)?;
        if work.of("automount", tag) == "yes" {
            // Its server may be away: whoever looks into the directory waits for it, and nobody else does.
            unit = format!("{}.automount", escape(point));
            let text = format!("{WRITTEN}\n[Automount]\nWhere={point}\n\n{WANTED}");
            work.write_own(&format!("{UNITS}/{unit}"), 0o644, &text)?;
        }
        let wants = format!("{UNITS}/remote-fs.target.wants/{unit}");
        work.own(&wants)?;
        let outcome = work.target.link(&wants, &format!("{UNITS}/{unit}"))?;
        work.note(&wants, outcome);
        units.push(unit);
    }
    Ok(units)
}

/// Mounts anew what is mounted from a server that was installed anew meanwhile: its directory has another number now,
/// and the kernel would ask for the old one for ever. Answers the directories that were mounted anew.
///
/// # Errors
/// One cannot be unmounted, or not be mounted again.
pub fn renew(profile: &Profile) -> Result<Vec<String>, Fault> {
    let get = |name: &str, tag: &str| profile.get("nfs", &format!("{name}_{tag}")).unwrap_or_default();
    let mut renewed = Vec::new();
    for tag in profile.tags("nfs", "mounts") {
        let point = get("point", tag);
        if !is_stale(point) {
            continue;
        }
        // Lazily: there may be jobs that have it open.
        tool::run("umount", &["--lazy", point])?;
        if get("automount", tag) != "yes" {
            tool::run("systemctl", &["start", &format!("{}.mount", escape(point))])?;
        }
        renewed.push(point.to_owned());
    }
    Ok(renewed)
}

/// Asked by another process, which can be ended when the server does not answer.
fn is_stale(point: &str) -> bool {
    let mut command = Command::new("stat");
    command.args(["--file-system", point]).env("LC_ALL", "C");
    watched(command, LONGEST).is_ok_and(|output| tail(&output).ends_with(STALE))
}

/// A path as systemd names units by it (systemd.unit(5), on escaping).
fn escape(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut out = String::new();
    for (index, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if index == 0 => out.push_str("\\x2e"),
            _ if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_units_are_named_as_systemd_names_them() {
        for (path, name) in [
            ("/home", "home"),
            ("/srv/grid-data", "srv-grid\\x2ddata"),
            ("//srv//data/", "srv-data"),
            ("/.hidden", "\\x2ehidden"),
            ("/a b", "a\\x20b"),
            ("/", "-"),
        ] {
            assert_eq!(escape(path), name, "{path}");
        }
    }
}
