//! The control socket: JSON lines each way, one request a line, for the machine's root alone.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use gatehouse_model::evaluation::Counts;
use gatehouse_model::{Doing as _, Event, Exit, Fault, NodeName};

use super::board::Board;
use super::request::{Answer, Request};
use super::{Backups, Changes, Evaluations, Reports, Steward};
use crate::host::backup::desk::Reception;
use crate::host::import;
use crate::paths::Paths;

/// The longest request that is read.
const REQUEST: u64 = 64 << 10;
/// How long an event stream waits before it looks whether anybody still reads.
const PULSE: Duration = Duration::from_secs(30);

/// Who answers.
#[derive(Clone)]
pub struct Answerers {
    /// For what stands on it.
    pub board: Arc<Board>,
    /// For the nodes.
    pub steward: Arc<dyn Steward>,
    /// For the site.
    pub changes: Arc<dyn Changes>,
    /// For the reports.
    pub reports: Arc<dyn Reports>,
    /// For how fast it all is.
    pub evaluations: Arc<dyn Evaluations>,
    /// For what is kept elsewhere.
    pub backups: Arc<dyn Backups>,
}

impl std::fmt::Debug for Answerers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerers").field("board", &self.board).finish_non_exhaustive()
    }
}

/// The socket, served until this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

/// Opens the control socket and answers it in threads of its own.
///
/// # Errors
/// Another agent answers at it, or it cannot be made.
pub fn listen(paths: &Paths, answerers: Answerers) -> Result<ControlSocket, Fault> {
    let path = paths.socket();
    let listener = bind(&path).doing(|| format!("opening the control socket {}", path.display()))?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let answerers = answerers.clone();
            // An asker who hangs up in the middle ends his own thread only.
            let answer = move || drop(converse(stream, &answerers));
            let _ = thread::Builder::new().name("control".into()).spawn(answer);
        }
    };
    thread::Builder::new().name("control".into()).spawn(accept).doing(|| "starting a thread")?;
    Ok(ControlSocket { path })
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A stale socket is replaced at the next start anyway.
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> Result<UnixListener, Fault> {
    if UnixStream::connect(path).is_ok() {
        return Err(Fault::new("another agent answers at it").help("stop that one first").exit(Exit::InUse));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Bound under another name first: under its own it never has any but its final mode.
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

fn converse(stream: UnixStream, answerers: &Answerers) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(REQUEST).read_line(&mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_str(&line) {
            Ok(Request::Events { follow }) => tell_events(&mut writer, &answerers.board, follow)?,
            Ok(Request::Evaluate { node, counts }) => {
                evaluate(&mut writer, &*answerers.evaluations, node.as_ref(), counts)?;
            }
            Ok(Request::Snapshot { node, torn }) => match answerers.backups.snapshot(&node, torn) {
                Ok(taken) => {
                    let dir = taken.snapshot.dir().to_owned();
                    say(&mut writer, &Answer::Snapshot { dir, manifest: Box::new(taken.manifest.clone()) })?;
                    // Until the asker hangs up.
                    std::io::copy(&mut reader, &mut std::io::sink())?;
                }
                Err(fault) => say(&mut writer, &refusal(fault))?,
            },
            Ok(Request::Receive { node, manifest, replace }) => {
                match answerers.backups.receive(&node, &manifest, replace) {
                    Ok(reception) => take_in(&mut reader, &mut writer, &*answerers.backups, reception)?,
                    Err(fault) => say(&mut writer, &refusal(fault))?,
                }
            }
            Ok(request) => say(&mut writer, &answer(&request, answerers))?,
            Err(error) => {
                // What follows a line that is too long is no request either.
                let what = format!("this is no request of the control socket: {error}");
                return say(&mut writer, &refusal(Fault::new(what).exit(Exit::Problem)));
            }
        }
    }
}

fn answer(request: &Request, answerers: &Answerers) -> Answer {
    let Answerers { board, steward, changes, reports, .. } = answerers;
    let done = match request {
        Request::Status => return Answer::Status(board.status()),
        Request::Plan => return Answer::Plan(steward.plan()),
        // These are conversations of their own.
        Request::Events { .. }
        | Request::Evaluate { .. }
        | Request::Snapshot { .. }
        | Request::Receive { .. } => Ok(()),
        Request::Put => Err(Fault::new("nothing was received").exit(Exit::Problem)),
        Request::Start { node } => known(board, node).and_then(|()| steward.start_node(node)),
        Request::Stop { node } => known(board, node).and_then(|()| steward.stop_node(node)),
        Request::Restart { node } => known(board, node).and_then(|()| steward.restart_node(node)),
        Request::Install { node } => known(board, node).and_then(|()| steward.install_node(node)),
        Request::Approve { node, fingerprint } => {
            let approve = |()| steward.approve_node(node, fingerprint);
            return known(board, node).and_then(approve).map_or_else(refusal, Answer::Text);
        }
        Request::Purge { node } => changes.purge(node),
        Request::Usage => return Answer::Usage(steward.usage()),
        Request::Set { node, settings, by, restart } => {
            let set = changes.set(node, settings, by, *restart);
            return set.map_or_else(refusal, Answer::Change);
        }
        Request::SendReports => return reports.send().map_or_else(refusal, Answer::Text),
        Request::SiteDiff { .. } | Request::SiteImport { .. } | Request::SiteLog => {
            return answer_of_site(request, &**changes).unwrap_or_else(refusal);
        }
    };
    done.map_or_else(refusal, |()| Answer::Done)
}

fn answer_of_site(request: &Request, changes: &dyn Changes) -> Result<Answer, Fault> {
    match request {
        Request::SiteDiff { dir, after } => {
            changes.look(import::read(dir)?, after.as_deref()).map(Answer::Change)
        }
        Request::SiteImport { dir, by, commit } => {
            changes.take(import::read(dir)?, by, commit.as_deref()).map(Answer::Change)
        }
        _ => changes.log().map(Answer::Text),
    }
}

/// Consumed, as an answer is made of every fault once.
#[allow(clippy::needless_pass_by_value, reason = "it stands where a fault is handed over")]
fn refusal(fault: Fault) -> Answer {
    match fault.problems() {
        [] => {
            let (help, exit) = (fault.advice().map(str::to_owned), fault.exit_status());
            Answer::Fault { what: fault.to_string(), help, exit }
        }
        problems => Answer::Problems(problems.to_vec()),
    }
}

fn known(board: &Board, node: &NodeName) -> Result<(), Fault> {
    let names: Vec<String> = board.status().nodes.iter().map(|status| status.name.to_string()).collect();
    if names.iter().any(|name| name == node.as_str()) {
        return Ok(());
    }
    Err(Fault::new(format!("no node is named {node}; the site has {}", names.join(", "))).exit(Exit::Problem))
}

fn tell_events(writer: &mut UnixStream, board: &Board, follow: bool) -> std::io::Result<()> {
    let (past, coming) = board.listen_from_start();
    for event in past {
        say(writer, &Answer::Event(event))?;
    }
    if follow {
        tell_coming(writer, &coming)?;
    }
    say(writer, &Answer::Done)
}

fn evaluate(
    writer: &mut UnixStream,
    evaluations: &dyn Evaluations,
    node: Option<&NodeName>,
    counts: Counts,
) -> std::io::Result<()> {
    let mut tell = |event: Option<&Event>| match event {
        Some(event) => say(writer, &Answer::Event(event.clone())).is_ok(),
        // As below: an empty line finds out whether somebody is there.
        None => writer.write_all(b"\n").is_ok(),
    };
    let found = evaluations.evaluate(node, counts, &mut tell);
    say(writer, &found.map_or_else(refusal, Answer::Evaluation))
}

/// Waits for a node's disks, and has them put in place.
fn take_in(
    reader: &mut BufReader<UnixStream>,
    writer: &mut UnixStream,
    backups: &dyn Backups,
    reception: Reception,
) -> std::io::Result<()> {
    say(writer, &Answer::Place(reception.dir()))?;
    let mut line = String::new();
    reader.by_ref().take(REQUEST).read_line(&mut line)?;
    if !matches!(serde_json::from_str(&line), Ok(Request::Put)) {
        return Ok(());
    }
    say(writer, &backups.put(reception).map_or_else(refusal, |()| Answer::Done))
}

/// Passes events on until the asker or the board is gone.
fn tell_coming(writer: &mut UnixStream, coming: &Receiver<Event>) -> std::io::Result<()> {
    loop {
        match coming.recv_timeout(PULSE) {
            Ok(event) => say(writer, &Answer::Event(event))?,
            // An empty line, which readers pass over, fails once nobody is there to read it.
            Err(RecvTimeoutError::Timeout) => writer.write_all(b"\n")?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn say(writer: &mut UnixStream, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// The asker's end of the control socket.
#[derive(Debug)]
pub struct Asker {
    reader: BufReader<UnixStream>,
}

impl Asker {
    /// Connects to the agent of this machine or trial.
    ///
    /// # Errors
    /// No agent answers, or it may not be asked by this user.
    pub fn connect(paths: &Paths) -> Result<Self, Fault> {
        let path = paths.socket();
        let stream = UnixStream::connect(&path)
            .doing(|| format!("connecting to the agent at {}", path.display()))
            .map_err(|fault| {
                fault.help("run this as root on the host, with its agent running (gatehouse.service)")
            })?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Asks, and returns the first line of the answer.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Fault> {
        let mut line = serde_json::to_vec(request).doing(|| "writing a request")?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).doing(|| "asking the agent")?;
        self.more()
    }

    /// The next line of the answer to `events`.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn more(&mut self) -> Result<Answer, Fault> {
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            if self.reader.read_line(&mut line).doing(|| "reading the agent's answer")? == 0 {
                return Err(Fault::new("the agent has hung up"));
            }
        }
        serde_json::from_str::<Answer>(&line).doing(|| "reading the agent's answer")?.into_result()
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
