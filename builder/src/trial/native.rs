//! A trial without a host: the agent itself, natively, in namespaces of its own, with its nodes under User Mode Linux or
//! QEMU.

use std::fs;
use std::io::BufReader;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Doing as _, Fault, Refusal, SET_TOOLS};

use super::{Machine, Stop, ssh};
use crate::commands::Prepared;
use crate::depot;
use crate::image::QEMU;
use crate::tool;
use crate::tools::Tools;

/// Makes the depot and starts the agent.
///
/// # Errors
/// QEMU is missing; a root cannot be built; the agent cannot be started.
pub fn start(
    prepared: &Prepared,
    vmm: VmmKind,
    dir: &Path,
    site: &Path,
    ways: &ssh::Ways,
) -> Result<Machine, Fault> {
    if vmm == VmmKind::Uml && dir.to_string_lossy().contains(char::is_whitespace) {
        let what = format!("User Mode Linux finds no disk below {}, which has a space in it", dir.display());
        return Err(Refusal::new(what, "name a directory without one with --dir").into());
    }
    if vmm == VmmKind::Kvm {
        tool::run(QEMU, &["--version"]).map_err(|fault| fault.help("install qemu-system-x86"))?;
    }
    let agent = prepared.share.agent()?;
    let contents = depot::Contents {
        lock: &prepared.lock,
        agent,
        overlays: &prepared.share.overlays(),
        epoch: prepared.site.epoch,
        vmm,
        packages: &prepared.site.packages,
    };
    let depot = dir.join("depot");
    fs::create_dir_all(&depot).doing(|| format!("making {}", depot.display()))?;
    depot::make(&contents, &prepared.cache, &depot)?;
    let tools = Tools::open(depot::set(&prepared.lock, SET_TOOLS)?, &prepared.lock, &prepared.cache)?;
    // Every node ends with the first process of this namespace, whatever happens to the others.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .arg("--")
        .arg(agent)
        .arg("trial")
        .arg("--dir")
        .arg(dir)
        .arg("--depot")
        .arg(&depot)
        .arg("--site")
        .arg(site)
        .arg("--tools")
        .arg(tools.path(""));
    for way in ways.all.iter().skip(1) {
        command.arg("--forward").arg(format!("127.0.0.1:{}={}:22", way.port, way.address));
    }
    let log = fs::File::create(dir.join("agent.log")).doing(|| "making agent.log")?;
    // A group of its own: Ctrl-C must reach this process alone, which then stops the nodes in order.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().doing(|| format!("starting {}", agent.display()))?;
    let stdout = child.stdout.take().ok_or_else(|| Fault::new("the agent has no standard output"))?;
    let words = ["ctl", "--trial", &dir.display().to_string()].map(str::to_owned);
    let control = std::iter::once(agent.display().to_string()).chain(words).collect();
    // The agent stops its nodes in order and ends when its standard input does.
    let stop = Stop::Close(child.stdin.take());
    Ok(Machine::new(child, Box::new(BufReader::new(stdout)), control, stop))
}
