use super::*;
use crate::host::change::Change;
use gatehouse_model::Problem;
use gatehouse_model::evaluation::{Evaluation, Figures};
use std::sync::Mutex;

use gatehouse_model::State;
use gatehouse_model::site::Settings;

use crate::control::usage::SiteUsage;
use crate::host::backup::desk::Taken;
use crate::host::backup::manifest::Manifest;
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

    fn usage(&self) -> SiteUsage {
        SiteUsage::default()
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

    fn set(&self, node: &NodeName, settings: &Settings, by: &str, _: bool) -> Result<Change, Fault> {
        self.note(&format!("{by} sets {} keys of", settings.len()), node).map(|()| Change::default())
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

impl Backups for Noting {
    fn snapshot(&self, node: &NodeName, _: bool) -> Result<Taken, Fault> {
        Err(Fault::new(format!("{node} is not installed")))
    }

    fn receive(&self, node: &NodeName, _: &Manifest, _: bool) -> Result<Reception, Fault> {
        Err(Fault::new(format!("{node} has disks")))
    }

    fn put(&self, _: Reception) -> Result<(), Fault> {
        Ok(())
    }
}

impl Evaluations for Noting {
    fn evaluate(
        &self,
        node: Option<&NodeName>,
        counts: Counts,
        tell: &mut dyn FnMut(Option<&Event>) -> bool,
    ) -> Result<Evaluation, Fault> {
        let node = node.cloned().ok_or_else(|| Fault::new("no node's profile names tests"))?;
        let host = node.to_string();
        let event = Event {
            ts: 1,
            phase: format!("node/{host}"),
            host,
            action: "evaluating".into(),
            state: State::Progress,
            percent: Some(40),
            message: "x".into(),
        };
        // Until whoever asked has gone.
        while tell(None) && tell(Some(&event)) && counts.runs == 0 {}
        let tests = vec![Figures::of("x", false, &[Ok(f64::from(counts.runs))])];
        self.note("evaluated", &node)?;
        Ok(Evaluation {
            site: "gate".into(),
            node,
            vmm: gatehouse_model::site::VmmKind::Uml,
            emulated: false,
            tests,
            installs: Vec::new(),
        })
    }
}

fn answerers(board: &Arc<Board>, noting: &Arc<Noting>) -> Answerers {
    let (steward, changes) = (Arc::<Noting>::clone(noting), Arc::<Noting>::clone(noting));
    let (reports, evaluations) = (Arc::<Noting>::clone(noting), Arc::<Noting>::clone(noting));
    let backups = Arc::<Noting>::clone(noting);
    Answerers { board: Arc::clone(board), steward, changes, reports, evaluations, backups }
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
    let fault = asker.ask(&Request::Stop { node: "other".parse().expect("a name") }).expect_err("unknown");
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
    assert!(text.starts_with(r#"{"fault":{"what":"this is no request"#), "{text}");
}

#[test]
fn an_evaluation_is_what_is_heard_of_it_and_then_its_figures() {
    let dir = tempfile::tempdir().expect("a directory");
    let (paths, _board, noting, _socket) = opened(dir.path());
    let counts = |runs| Counts { runs, slow_runs: 1 };
    let node: NodeName = "node1".parse().expect("a name");
    let mut asker = Asker::connect(&paths).expect("connected");
    let first = asker.ask(&Request::Evaluate { node: Some(node.clone()), counts: counts(3) });
    assert!(matches!(first.expect("an answer"), Answer::Event(event) if event.percent == Some(40)));
    let Answer::Evaluation(found) = asker.more().expect("more") else { panic!("figures") };
    assert_eq!((found.node.as_str(), found.tests[0].mean), ("node1", Some(3.0)));
    let refused = asker.ask(&Request::Evaluate { node: None, counts: counts(3) });
    assert_eq!(refused.expect_err("refused").to_string(), "no node's profile names tests");
    drop(asker);
    let mut asker = Asker::connect(&paths).expect("connected");
    asker.ask(&Request::Evaluate { node: Some(node), counts: counts(0) }).expect("an event");
    drop(asker);
    let begun = std::time::Instant::now();
    while noting.0.lock().expect("no panic").len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on though nobody listens");
        thread::sleep(Duration::from_millis(10));
    }
}
