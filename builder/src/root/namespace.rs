//! Starts this program again as root of a tree's namespaces: mounts, processes and (empty) network of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use gatehouse_model::{Doing as _, Fault};

use super::{ASIDE, Spec};
use crate::term;

/// Makes a root inside namespaces; the child's lines move the bar.
pub fn run(spec: &Spec, at: &Path, bar: &term::Bar) -> Result<(), Fault> {
    let json = serde_json::to_string(spec).doing(|| "writing the build's specification")?;
    fs::write(at, json).doing(|| format!("writing {}", at.display()))?;
    let this = std::env::current_exe().doing(|| "finding this program's own file")?;
    // Whatever ends this program ends what it has started, and with its first process all of a namespace.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child=SIGKILL", "--propagation=private"]);
    if !nix::unistd::geteuid().is_root() {
        check_subids()?;
        command.args(["--user", "--map-auto", "--map-root-user", "--setuid=0", "--setgid=0"]);
    }
    command.arg("--").arg(this).args(["internal", "root"]).arg(at);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().doing(|| "starting unshare")?;
    let stderr = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // What cannot be read is not worth losing the status for.
            let _ = pipe.read_to_string(&mut text);
            text
        })
    });
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.doing(|| "reading from the build")?;
        if line.starts_with(ASIDE) {
            term::say(&line);
            continue;
        }
        bar.note(&line);
        bar.add(1);
    }
    let status = child.wait().doing(|| "waiting for the build")?;
    let words = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let tail: Vec<&str> = words.trim().lines().rev().take(30).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Fault::new(tail.join("\n").trim_start_matches("error: ").to_owned()))
}

/// As an ordinary user the tree's owners are ids from the user's subordinate range.
fn check_subids() -> Result<(), Fault> {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
    let listed = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let owner = line.split(':').next().unwrap_or_default();
            owner == name || owner == uid.to_string()
        })
    };
    if listed("/etc/subuid") && listed("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists() {
        return Ok(());
    }
    Err(Fault::new(format!("{name} has no range of subordinate ids, or newuidmap is missing"))
        .help("run ci/setup once as root, or install uidmap and add a range to /etc/subuid and /etc/subgid"))
}
