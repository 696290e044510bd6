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

use gatehouse_model::{Doing as _, Event, Exit, Fault, NodeName};

use super::board::Board;
use super::request::{Answer, Request};
use super::{Changes, Reports, Steward};
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
            Ok(request) => say(&mut writer, &answer(&request, answerers))?,
            Err(error) => {
                // What follows a line that is too long is no request either.
                return say(
                    &mut writer,
                    &Answer::Problem(format!("this is no request of the control socket: {error}")),
                );
            }
        }
    }
}

fn answer(request: &Request, answerers: &Answerers) -> Answer {
    let Answerers { board, steward, changes, reports } = answerers;
    let done = match request {
        Request::Status => return Answer::Status(board.status()),
        Request::Plan => return Answer::Plan(steward.plan()),
        Request::Events { .. } => Ok(()),
        Request::Start { node } => known(board, node).and_then(|()| steward.start_node(node)),
        Request::Stop { node } => known(board, node).and_then(|()| steward.stop_node(node)),
        Request::Restart { node } => known(board, node).and_then(|()| steward.restart_node(node)),
        Request::Install { node } => known(board, node).and_then(|()| steward.install_node(node)),
        Request::Approve { node, fingerprint } => {
            let approve = |()| steward.approve_node(node, fingerprint);
            return known(board, node).and_then(approve).map_or_else(refusal, Answer::Text);
        }
        Request::Purge { node } => changes.purge(node),
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
        [] if fault.exit_status() == Exit::Problem => Answer::Problem(fault.to_string()),
        [] => Answer::Fault(fault.to_string()),
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
mod tests {
    use super::*;
    use crate::host::change::Change;
    use gatehouse_model::Problem;
    use std::sync::Mutex;

    use gatehouse_model::State;

    use crate::host::import::SiteFiles;

    struct Noting(Mutex<Vec<String>>);

    impl Noting {
        fn note(&self, what: &str, node: &NodeName) -> Result<(), Fault> {
            self.0.lock().expect("no panic").push(format!("{what} {node}"));
            if what == "start" { Err(Fault::new("node1 is not installed")) } else { Ok(()) }
        }
    }

    impl Steward for Noting {
        fn start_node(&self, node: &NodeName) -> Result<(), Fault> {
            self.note("start", node)
        }

        fn stop_node(&self, node: &NodeName) -> Result<(), Fault> {
            self.note("stop", node)
        }

        fn restart_node(&self, node: &NodeName) -> Result<(), Fault> {
            self.note("restart", node)
        }

        fn install_node(&self, node: &NodeName) -> Result<(), Fault> {
            self.note("install", node)
        }

        fn approve_node(&self, node: &NodeName, fingerprint: &str) -> Result<String, Fault> {
            self.note("approve", node).map(|()| format!("{node} is {fingerprint}\n"))
        }

        fn plan(&self) -> String {
            "nothing to do\n".to_owned()
        }
    }

    impl Changes for Noting {
        fn look(&self, files: SiteFiles, after: Option<&str>) -> Result<Change, Fault> {
            assert_eq!(after, Some("c0ffee"));
            let problems = files.keys().map(|name| Problem::at(name, 3, "is wrong")).collect();
            Err(Fault::of_problems(problems))
        }

        fn take(&self, _: SiteFiles, by: &str, commit: Option<&str>) -> Result<Change, Fault> {
            self.0.lock().expect("no panic").push(format!("{by} brings {commit:?}"));
            Ok(Change::default())
        }

        fn log(&self) -> Result<String, Fault> {
            Ok("one\ntwo\n".to_owned())
        }

        fn purge(&self, node: &NodeName) -> Result<(), Fault> {
            self.note("purge", node)
        }
    }

    impl Reports for Noting {
        fn send(&self) -> Result<String, Fault> {
            Ok("1 sent\n".to_owned())
        }
    }

    fn answerers(board: &Arc<Board>, noting: &Arc<Noting>) -> Answerers {
        let (steward, changes) = (Arc::<Noting>::clone(noting), Arc::<Noting>::clone(noting));
        let reports = Arc::<Noting>::clone(noting);
        Answerers { board: Arc::clone(board), steward, changes, reports }
    }

    fn opened(dir: &Path) -> (Paths, Arc<Board>, Arc<Noting>, ControlSocket) {
        let paths = Paths::trial(dir, dir);
        let board = Arc::new(Board::new(&crate::server::sample_site()));
        let steward = Arc::new(Noting(Mutex::default()));
        let socket = listen(&paths, answerers(&board, &steward)).expect("a socket");
        (paths, board, steward, socket)
    }

    #[test]
    fn requests_are_answered_one_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let (paths, board, steward, _socket) = opened(dir.path());
        let mode = fs::metadata(paths.socket()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut asker = Asker::connect(&paths).expect("an agent");
        let node: NodeName = "node1".parse().expect("a name");
        assert_eq!(asker.ask(&Request::Status).ok(), Some(Answer::Status(board.status())));
        assert_eq!(asker.ask(&Request::Plan).ok(), Some(Answer::Plan("nothing to do\n".into())));
        assert_eq!(asker.ask(&Request::Install { node: node.clone() }).ok(), Some(Answer::Done));
        let fault = asker.ask(&Request::Start { node }).expect_err("not installed");
        assert_eq!(fault.to_string(), "node1 is not installed");
        let fault =
            asker.ask(&Request::Stop { node: "other".parse().expect("a name") }).expect_err("unknown");
        assert_eq!(fault.to_string(), "no node is named other; the site has node1, node2");
        assert_eq!(fault.exit_status(), Exit::Problem);
        assert_eq!(*steward.0.lock().expect("no panic"), ["install node1", "start node1"]);
    }

    #[test]
    fn a_site_is_brought_as_a_directory_and_all_its_problems_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (paths, _, noting, _socket) = opened(dir.path());
        let brought = dir.path().join("brought");
        fs::create_dir_all(brought.join("lcfg/source")).expect("made");
        for name in ["site.toml", "lcfg/source/node1"] {
            fs::write(brought.join(name), "").expect("written");
        }
        let mut asker = Asker::connect(&paths).expect("an agent");
        let fault = asker
            .ask(&Request::SiteDiff { dir: brought.clone(), after: Some("c0ffee".into()) })
            .expect_err("all of it is wrong");
        assert_eq!(
            fault.render(),
            "error: lcfg/source/node1:3: is wrong\nerror: site.toml:3: is wrong\n2 problems; nothing was changed\n"
        );
        let import = Request::SiteImport { dir: brought, by: "me".into(), commit: None };
        assert_eq!(asker.ask(&import).ok(), Some(Answer::Change(Change::default())));
        assert_eq!(asker.ask(&Request::SiteLog).ok(), Some(Answer::Text("one\ntwo\n".into())));
        assert_eq!(asker.ask(&Request::SendReports).ok(), Some(Answer::Text("1 sent\n".into())));
        let gone = Request::Purge { node: "gone".parse().expect("a name") };
        assert_eq!(asker.ask(&gone).ok(), Some(Answer::Done));
        assert_eq!(*noting.0.lock().expect("no panic"), ["me brings None", "purge gone"]);
    }

    #[test]
    fn events_come_from_the_start_and_go_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (paths, board, _, _socket) = opened(dir.path());
        board.say("server", "first", State::Started, "");
        let mut asker = Asker::connect(&paths).expect("an agent");
        let action = |answer: Result<Answer, Fault>| match answer {
            Ok(Answer::Event(event)) => event.action,
            other => panic!("no event: {other:?}"),
        };
        assert_eq!(action(asker.ask(&Request::Events { follow: true })), "first");
        board.say("server", "second", State::Succeeded, "");
        assert_eq!(action(asker.more()), "second");
    }

    #[test]
    fn only_one_agent_answers_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (paths, board, steward, socket) = opened(dir.path());
        let again = listen(&paths, answerers(&board, &steward));
        assert_eq!(again.expect_err("taken").exit_status(), Exit::InUse);
        drop(socket);
        assert!(!paths.socket().exists());
        drop(UnixListener::bind(paths.socket()).expect("a stale socket"));
        let fresh = listen(&paths, answerers(&board, &steward));
        assert!(fresh.is_ok(), "{fresh:?}");
    }

    #[test]
    fn what_is_no_request_is_said_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let (paths, _, _, _socket) = opened(dir.path());
        let mut stream = UnixStream::connect(paths.socket()).expect("an agent");
        stream.write_all(b"{\"do\":\"dance\"}\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer and the end");
        assert!(text.starts_with(r#"{"problem":"this is no request"#), "{text}");
    }
}
