//! `gatehouse try`: runs a site on this machine, shows its progress until every node is up, then leaves it
//! running with forwarded ports, or stops it.

mod board;
mod evaluate;
mod native;
mod phases;
mod progress;
pub mod source;
pub mod ssh;

use std::fs::{self, File};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use gatehouse_model::evaluation::{ByLabel, Evaluation};
use gatehouse_model::site::{InstallTo, SiteFile, VmmKind};
use gatehouse_model::{Doing as _, Exit, Fault, Refusal, Site};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use crate::cli::{Global, Medium, Try};
use crate::{interrupt, term};
use board::{Asker, Board, NodeLine};
use progress::{Progress, Seen};
use source::{Given, Source};

/// A file that marks a directory as a trial's, which may be emptied.
const MARK: &str = ".gatehouse-trial";

/// How long a machine may take to stop: its own limit for its nodes is fifteen minutes, of which an emulated one with a
/// few nodes needs two or three.
const STOP: Duration = Duration::from_secs(960);

/// How many lines of a console are told of a machine that failed: a kernel's whole trace.
const LAST_WORDS: usize = 60;

/// A started machine, whatever it runs on.
pub struct Machine {
    /// The process that is the machine.
    child: Child,
    /// Its event stream.
    events: Box<dyn BufRead + Send>,
    /// The command that asks its agent: `gatectl`, wherever that is.
    control: Vec<String>,
    /// How it is stopped in order.
    stop: Stop,
}

/// How a machine is stopped in order.
pub enum Stop {
    /// By closing its standard input.
    Close(Option<ChildStdin>),
    /// By a command.
    Command(Vec<String>),
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    result: &'static str,
    /// From the start of the machine until every node was up; stopping is not counted.
    seconds: f64,
    nodes: Vec<NodeOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<ByLabel>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NodeOutcome {
    name: String,
    state: String,
    address: String,
    ssh: String,
    install_seconds: Option<f64>,
}

/// `gatehouse try`.
///
/// # Errors
/// Another trial runs in the directory (exit 4); whatever building ends with; a node that fails; the time limit.
pub fn run(global: &Global, args: &Try) -> Result<(), Fault> {
    let source = Source::open(global, &args.site)?;
    let vmm = args.vmm.map_or(source.site.host.vmm, VmmKind::from);
    let other = evaluate::before(args, &source)?;
    let (dir, _held) = open_dir(args, &source.site, vmm)?;
    let ways = ssh::prepare(&dir, &source.site)?;
    let to = if args.medium == Medium::Disk { InstallTo::SelfDisk } else { InstallTo::Rule };
    let site = trial_site(&source, &dir, (vmm, to), &ways)?;
    let mut machine = match (vmm, &source.given) {
        (VmmKind::Uml | VmmKind::Kvm, Given::Directory(prepared)) => {
            native::start(prepared, vmm, &dir, &site, &ways)?
        }
        _ if vmm != source.site.host.vmm => {
            let what = format!("the site's host is one for vmm {}", source.site.host.vmm);
            let help = "write the other into site.toml, or leave out --vmm";
            return Err(Refusal::new(what, help).into());
        }
        _ => crate::image::try_image(&source, args, &dir, &site, &ways)?,
    };
    let begun = Instant::now();
    let interrupted = interrupt::listen();
    let result = watch(&mut machine, args, begun, &ways, &interrupted);
    let took = begun.elapsed();
    let evaluate = |runs: u32| evaluate::run(&machine, runs, other.as_ref(), &dir);
    let result = result.and_then(|board| Ok((board, args.evaluate.map(evaluate).transpose()?)));
    let stopped =
        if args.exit || result.is_err() { machine.stop() } else { machine.stay(&dir, &ways, &interrupted) };
    let (board, evaluation) = result.map_err(|fault| {
        last_words(&dir);
        fault.help(format!("read the logs below {}; `--resume` goes on from there", dir.display()))
    })?;
    if args.json {
        let outcome = outcome(&board, took, &ways, evaluation);
        println!("{}", serde_json::to_string(&outcome).doing(|| "printing the outcome")?);
    }
    stopped
}

/// Tells what the emulated machine said last on its console, if it has one.
fn last_words(dir: &Path) {
    let Ok(bytes) = fs::read(dir.join("console.log")) else { return };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    term::say("the machine's last words:");
    for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
        term::say(&format!("  {line}"));
    }
}

/// The trial's directory: emptied, unless the last trial is to go on. Nobody else's trial is there until the lock is
/// dropped.
fn open_dir(args: &Try, site: &Site, vmm: VmmKind) -> Result<(PathBuf, Flock<File>), Fault> {
    let uid = nix::unistd::geteuid();
    let dir = args.dir.clone().unwrap_or_else(|| {
        PathBuf::from(format!("/var/tmp/gatehouse-{uid}")).join(format!("{}-{vmm}", site.name))
    });
    // It is named in files that are read from anywhere.
    let dir = std::path::absolute(&dir).doing(|| format!("finding {}", dir.display()))?;
    fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
    let held = take(&dir, args.resume)?;
    Ok((dir, held))
}

/// Takes a directory for a trial.
fn take(dir: &Path, resume: bool) -> Result<Flock<File>, Fault> {
    let held = File::open(dir).doing(|| format!("opening {}", dir.display()))?;
    let held = Flock::lock(held, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Fault::new(format!("another trial runs in {}", dir.display()))
            .help("end it by Ctrl-C where it was started, or name another directory with --dir")
            .exit(Exit::InUse)
    })?;
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries: Vec<_> = entries.doing(|| format!("reading {}", dir.display()))?;
    if !entries.is_empty() && !dir.join(MARK).exists() {
        let what = format!("{} is not empty and not a trial's directory", dir.display());
        return Err(Refusal::new(what, "name another with --dir").into());
    }
    // The mark stays, so that what is half emptied is emptied the next time.
    for entry in entries.iter().filter(|entry| !resume && entry.file_name() != MARK) {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.doing(|| format!("removing {} of the last trial", path.display()))?;
    }
    fs::write(dir.join(MARK), "").doing(|| format!("writing into {}", dir.display()))?;
    Ok(held)
}

/// The site as it is tried: a copy that lets the trial's key in, installs to the trial's disk, and runs its nodes under
/// the vmm of the trial.
fn trial_site(
    source: &Source,
    dir: &Path,
    (vmm, to_install): (VmmKind, InstallTo),
    ways: &ssh::Ways,
) -> Result<PathBuf, Fault> {
    let to = dir.join("site");
    let lock = (crate::image::LOCK.to_owned(), source.lock.to_text().into_bytes());
    for (name, bytes) in source.files.iter().chain([&lock]) {
        let to = to.join(name);
        fs::create_dir_all(to.parent().unwrap_or(dir)).doing(|| format!("making {}", to.display()))?;
        fs::write(&to, bytes).doing(|| format!("writing {}", to.display()))?;
    }
    let text = source.files.iter().find(|(name, _)| name == "site.toml").map(|(_, bytes)| bytes.as_slice());
    let text = String::from_utf8_lossy(text.unwrap_or_default());
    let mut file = SiteFile::parse(&text).map_err(Fault::of_problems)?;
    file.access.keys.push(ways.public_key.clone());
    // Forwarded ports come from the segment's own gateway.
    if !file.access.from.is_empty() {
        file.access.from.push(source.site.network.subnet.to_string());
    }
    file.install.to = Some(to_install);
    if to_install == InstallTo::SelfDisk && file.disk.iter().any(|disk| disk.mirror == Some(true)) {
        term::say("this trial has no second disk for the site's mirror; with --medium stick it has one");
        for disk in &mut file.disk {
            (disk.mirror, disk.count) = (None, None);
        }
    }
    file.host.vmm = Some(vmm);
    // A kernel changes its own code, and of several emulated processors one may go on with what another has changed:
    // with QEMU 7.2 a host of two processors died of `Oops: int3` after some hundred changes of a static key, and one
    // of one processor lived through four thousand. An install from a stick takes it from here too.
    if vmm == VmmKind::Xen {
        file.host.vcpus = Some(1);
    }
    fs::write(to.join("site.toml"), file.to_text()).doing(|| "writing the trial's site.toml")?;
    Ok(to)
}

/// Follows the events until every node is up and lets one in by ssh.
fn watch(
    machine: &mut Machine,
    args: &Try,
    begun: Instant,
    ways: &ssh::Ways,
    interrupted: &Receiver<()>,
) -> Result<Board, Fault> {
    let limit = Duration::from_secs(args.timeout);
    let events = std::mem::replace(&mut machine.events, Box::new(std::io::empty()));
    let (mut progress, mut asker) = (Progress::follow(events, begun), Asker::new(begun));
    loop {
        match progress.next(Duration::from_millis(500)) {
            Seen::Change => asker.heard(true),
            Seen::Event => asker.heard(false),
            Seen::Nothing => {}
            Seen::Refused(why) => return Err(Fault::new(format!("the machine was not installed: {why}"))),
            Seen::End => return Err(Fault::new("the machine ended before every node was up")),
        }
        if let Some(board) = asker.board(|| machine.ask_board())
            && let Some(board) = board.settled(ways)?
        {
            ways.wait_for_all(limit.saturating_sub(begun.elapsed()))?;
            progress.finish(&board, begun, ways);
            return Ok(board);
        }
        if interrupted.try_recv().is_ok() {
            return Err(Fault::new("interrupted before every node was up"));
        }
        if begun.elapsed() > limit {
            return Err(late(limit, Board::of(machine.ask_board()), ways));
        }
    }
}

/// What is said where the time is over: every node that is not well, and why.
fn late(limit: Duration, board: Option<Board>, ways: &ssh::Ways) -> Fault {
    let nodes = board.map(|board| board.nodes).unwrap_or_default();
    let waited = nodes.iter().filter(|node| ways.awaits(&node.name) && node.state != "running");
    let lines = waited.map(|node| format!("\n  {}: {} {}", node.name, node.state, node.message));
    let lines: String = lines.collect();
    Fault::new(format!("not every node was up and well after {} s{lines}", limit.as_secs()))
}

fn outcome(board: &Board, took: Duration, ways: &ssh::Ways, evaluation: Option<Evaluation>) -> Outcome {
    let node = |line: &NodeLine| NodeOutcome {
        name: line.name.clone(),
        state: line.state.clone(),
        address: line.address.clone(),
        ssh: ways.of(&line.name).map(|way| format!("127.0.0.1:{}", way.port)).unwrap_or_default(),
        install_seconds: line.install_seconds,
    };
    Outcome {
        result: "ok",
        seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
        nodes: board.nodes.iter().map(node).collect(),
        evaluation: evaluation.map(|found| ByLabel(found.tests)),
    }
}

impl Machine {
    /// Makes a machine of a started process.
    pub fn new(child: Child, events: Box<dyn BufRead + Send>, control: Vec<String>, stop: Stop) -> Self {
        Self { child, events, control, stop }
    }

    /// A command of `gatectl` for its agent.
    fn ask(&self, words: &[&str]) -> Command {
        let (program, args) =
            self.control.split_first().map_or(("gatectl", &[][..]), |(first, rest)| (first, rest));
        let mut command = Command::new(program);
        command.args(args).args(words).stdin(Stdio::null());
        command
    }

    /// The command that asks for its board.
    fn ask_board(&self) -> Command {
        self.ask(&["status", "--json"])
    }

    /// Stops it and waits until it is gone.
    fn stop(&mut self) -> Result<(), Fault> {
        term::say("stopping");
        match &mut self.stop {
            Stop::Close(pipe) => drop(pipe.take()),
            Stop::Command(argv) => {
                if let Some((program, args)) = argv.split_first() {
                    // A machine that no longer answers is ended below.
                    let _ = Command::new(program).args(args).stdin(Stdio::null()).output();
                }
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP {
            if let Some(status) = self.child.try_wait().doing(|| "waiting for the machine")? {
                let ended = Fault::new(format!("the machine ended with {status}"));
                return if status.success() { Ok(()) } else { Err(ended) };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.child.kill().doing(|| "ending the machine")?;
        Err(Fault::new(format!("the machine did not stop within {} s and was ended", STOP.as_secs())))
    }

    /// Leaves it running until Ctrl-C, which reaches the machine's process too.
    fn stay(&mut self, dir: &Path, ways: &ssh::Ways, interrupted: &Receiver<()>) -> Result<(), Fault> {
        let config = ssh::for_shell(&ways.config.display().to_string());
        term::say(&format!("running; log in with `ssh -F {config} NODE`; Ctrl-C stops it"));
        term::say(&format!("disks and logs are below {}", dir.display()));
        loop {
            if self.child.try_wait().doing(|| "waiting for the machine")?.is_some() {
                return Err(Fault::new("the machine ended by itself"));
            }
            if interrupted.recv_timeout(Duration::from_millis(300)).is_ok() {
                return self.stop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_trial_at_a_time() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path();
        let held = take(dir, false).expect("it is empty");
        fs::create_dir(dir.join("stores")).expect("made");
        fs::write(dir.join("stores/disk"), "kept").expect("written");
        for resume in [false, true] {
            assert_eq!(take(dir, resume).expect_err("held").exit_status(), Exit::InUse);
        }
        drop(held);
        drop(take(dir, true).expect("free"));
        assert!(dir.join("stores/disk").exists(), "a resumed trial has lost its disk");
        drop(take(dir, false).expect("free"));
        assert_eq!(fs::read_dir(dir).expect("there").count(), 1, "the mark alone is left");
        fs::rename(dir.join(MARK), dir.join("letter")).expect("renamed");
        assert_eq!(take(dir, false).expect_err("no trial's").exit_status(), Exit::Refusal);
        assert!(dir.join("letter").exists());
    }
}
