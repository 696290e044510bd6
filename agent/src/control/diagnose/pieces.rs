//! What a support bundle is made of: one table.

use std::path::{Path, PathBuf};

use gatehouse_model::NodeName;

use super::super::request::Request;
use super::redact::Form;
use crate::paths::Paths;

/// Where a piece comes from.
#[derive(Debug)]
pub enum From {
    /// The agent, if it answers.
    Agent(Request),
    /// A program.
    Program(Vec<String>),
    /// The end of a file.
    File(PathBuf),
}

/// One file of the bundle.
#[derive(Debug)]
pub struct Piece {
    /// Its name in the bundle.
    pub name: String,
    /// Where it comes from.
    pub from: From,
    /// What kind of text it is.
    pub form: Form,
}

fn piece(name: impl Into<String>, from: From) -> Piece {
    Piece { name: name.into(), from, form: Form::Text }
}

fn program(name: &str, command: &str) -> Piece {
    piece(name, From::Program(command.split(' ').map(str::to_owned).collect()))
}

/// What is asked of the machine itself, whatever runs on it.
const MACHINE: [(&str, &str); 25] = [
    ("machine/uname.txt", "uname -a"),
    ("machine/kernel-log.txt", "dmesg"),
    ("machine/processes.txt", "ps -eo pid,ppid,user,stat,etime,time,rss,args"),
    ("machine/memory.txt", "free -m"),
    ("machine/disks.txt", "lsblk -o NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,PARTUUID,SERIAL,MODEL,MOUNTPOINTS"),
    ("machine/space.txt", "df -hT"),
    ("machine/inodes.txt", "df -hi"),
    ("machine/devices.txt", "lspci -nnk"),
    ("machine/units.txt", "systemctl --no-pager --failed --all"),
    ("machine/time.txt", "timedatectl"),
    ("machine/clock.txt", "chronyc -n tracking"),
    ("network/addresses.txt", "ip -details -statistics address"),
    ("network/routes.txt", "ip route show table all"),
    ("network/neighbours.txt", "ip neighbour"),
    ("network/bridge.txt", "bridge -details link"),
    ("network/links.txt", "networkctl --no-pager"),
    ("network/filter.txt", "nft list ruleset"),
    ("network/sockets.txt", "ss -lntup"),
    ("xen/info.txt", "xl info"),
    ("xen/domains.txt", "xl list -v"),
    ("xen/processors.txt", "xl vcpu-list"),
    ("xen/scheduler.txt", "xl sched-credit2"),
    ("xen/log.txt", "xl dmesg"),
    ("journal/agent.txt", "journalctl --no-pager -o short-iso -n 20000 -u gatehouse"),
    ("journal/boot.txt", "journalctl --no-pager -o short-iso -n 5000 -b"),
];

/// Files of the machine.
const FILES: [(&str, &str); 7] = [
    ("machine/system.txt", "/etc/os-release"),
    ("machine/command-line.txt", "/proc/cmdline"),
    ("machine/mounts.txt", "/proc/mounts"),
    ("machine/mirrors.txt", "/proc/mdstat"),
    ("machine/processor.txt", "/proc/cpuinfo"),
    ("machine/memory-details.txt", "/proc/meminfo"),
    ("machine/load.txt", "/proc/loadavg"),
];

/// Everything that is put into a bundle, with the site's files and the nodes as they were found.
pub fn all(paths: &Paths, site: &[String], nodes: &[NodeName]) -> Vec<Piece> {
    let mut all = vec![
        piece("agent/status.json", From::Agent(Request::Status)),
        piece("agent/events.jsonl", From::Agent(Request::Events { follow: false })),
        piece("agent/plan.txt", From::Agent(Request::Plan)),
        piece("agent/site-history.txt", From::Agent(Request::SiteLog)),
        piece("agent/journal.jsonl", From::File(paths.state.join("journal.jsonl"))),
        program("agent/reports.txt", &format!("ls -la {}", paths.state.join("reports").display())),
    ];
    let git = format!("git -C {} log --stat -n 200 main", paths.repository().display());
    all.push(program("site-history.txt", &git));
    if let Some(dir) = &paths.trial {
        all.push(piece("journal/trial.txt", From::File(dir.join("agent.log"))));
    }
    all.extend(MACHINE.iter().map(|(name, command)| program(name, command)));
    all.extend(FILES.iter().map(|(name, path)| piece(*name, From::File(path.into()))));
    for name in site {
        let from = From::File(paths.site().join(name));
        let form = match name.as_str() {
            "site.lock" => Form::Packages,
            name if name.starts_with("lcfg/") => Form::Source,
            _ => Form::Text,
        };
        all.push(Piece { form, ..piece(format!("site/{name}"), from) });
    }
    for node in nodes {
        all.extend(of_node(paths, node));
    }
    all
}

fn of_node(paths: &Paths, node: &NodeName) -> Vec<Piece> {
    let file = |name: &str, path: &Path| piece(format!("nodes/{node}/{name}"), From::File(path.to_owned()));
    let (console, install) = (paths.console_log(node), paths.install_log(node));
    let mut all = vec![
        file("console.log", &console),
        file("console-before.log", &crate::vmm::console::aside(&console)),
        file("install.log", &install),
        file("installed.json", &paths.conf(node).join("installed.json")),
    ];
    all.push(file("xl.cfg", &paths.conf(node).join("xl.cfg")));
    let stores = format!("ls -las {}", paths.stores(node).display());
    all.push(program(&format!("nodes/{node}/stores.txt"), &stores));
    all
}
