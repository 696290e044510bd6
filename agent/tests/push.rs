//! A site that is changed by pushing to it, with git and the agent's own program as its hooks: against an agent in this
//! process whose nodes never run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use gatehouse_agent::control::board::Board;
use gatehouse_agent::control::socket::{Answerers, ControlSocket, listen};
use gatehouse_agent::current::Current;
use gatehouse_agent::host::backup::desk::Desk;
use gatehouse_agent::host::evaluate::Evaluator;
use gatehouse_agent::host::keeper::{Keeper, KeeperMeans};
use gatehouse_agent::host::lifecycle::{Lifecycle, Means};
use gatehouse_agent::host::machines::Netboot;
use gatehouse_agent::host::report::outbox::Outbox;
use gatehouse_agent::host::report::queue::Queue;
use gatehouse_agent::paths::Paths;
use gatehouse_agent::server::closure::Closures;
use gatehouse_agent::server::orders::Orders;
use gatehouse_agent::server::tokens::Tokens;
use gatehouse_agent::vmm::usage::Usage;
use gatehouse_agent::vmm::{Boot, Capabilities, Launch, Power, Vm, Vmm};
use gatehouse_model::site::VmmKind;
use gatehouse_model::{Depot, Digest, Fault, FileRef, Lock, LockedPackage, NodeName, PackageSet, Pool, Site};

const SITE: &str = "schema = 1
[site]
name = \"gate\"
domain = \"example.org\"
epoch = \"2026-01-01T00:00:00Z\"
[[disk]]
min-size = \"8GiB\"
[host]
vmm = \"uml\"
[network]
subnet = \"10.0.2.0/24\"
host = \"10.0.2.20\"
";
const SOURCE: &str = "#include <gatehouse/site.h>\nprofile.domain SITE_DOMAIN\nprofile.components profile client\n\
    client.url SITE_SERVER_URL\nprofile.packages @site.pkgs\n";

fn node(number: u8) -> String {
    format!(
        "[[node]]\nname = \"node{number}\"\naddress = \"10.0.2.2{number}\"\nmemory = \"512MiB\"\ndisk = \"4GiB\"\n\
         autostart = false\n"
    )
}

/// A driver whose nodes are always off.
struct Still;

impl Vmm for Still {
    fn kind(&self) -> VmmKind {
        VmmKind::Uml
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_vcpus: Some(1),
            memory_while_running: false,
            vcpus_while_running: false,
            disk_rate: true,
            own_kernel: false,
            own_user: false,
        }
    }

    fn render(&self, vm: &Vm<'_>, _: Boot<'_>) -> Launch {
        Launch {
            node: vm.node.name.clone(),
            install: false,
            argv: vec![],
            config: None,
            uid: None,
            owned: vec![],
        }
    }

    fn start(&self, _: &Launch) -> Result<(), Fault> {
        Err(Fault::new("nothing is started here"))
    }

    fn adopt(&self, _: &NodeName) -> Result<(), Fault> {
        Ok(())
    }

    fn power(&self, _: &NodeName) -> Result<Power, Fault> {
        Ok(Power::Off)
    }

    fn stop(&self, _: &NodeName, _: Duration) -> Result<(), Fault> {
        Ok(())
    }

    fn limit(&self, _: &Vm<'_>) -> Result<Vec<String>, Fault> {
        Ok(Vec::new())
    }

    fn usage(&self, _: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        Ok(None)
    }
}

/// A machine with a site of one node, and a clone of that site.
struct Machine {
    dir: tempfile::TempDir,
}

/// Its agent.
struct Agent {
    current: Arc<Current>,
    board: Arc<Board>,
    _socket: ControlSocket,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a directory") };
        let site = machine.paths().site();
        write(&site, "site.toml", &(SITE.to_owned() + &node(1)));
        write(&site, "site.lock", &lock().to_text());
        write(&site, "lcfg/source/node1", SOURCE);
        write(&site, "lcfg/packages/site.pkgs", "bash=*\n");
        machine
    }

    fn paths(&self) -> Paths {
        Paths::trial(&self.dir.path().join("trial"), &self.dir.path().join("depot"))
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Starts the agent's part that changes the site.
    fn agent(&self) -> Agent {
        let paths = self.paths();
        for dir in [&paths.vms, &paths.run, &paths.log] {
            fs::create_dir_all(dir).expect("made");
        }
        let text = fs::read_to_string(paths.site().join("site.toml")).expect("read");
        let site = Site::parse(&text).expect("right");
        let board = Arc::new(Board::new(&site));
        let current = Arc::new(Current::new(site, lock()));
        let lifecycle = Lifecycle::start(Means {
            current: Arc::clone(&current),
            paths: paths.clone(),
            depot: depot(),
            board: Arc::clone(&board),
            tokens: Arc::new(Tokens::new()),
            approvals: Arc::default(),
            netboot: Arc::new(Netboot::new(&paths, None, Arc::clone(&board))),
            driver: Box::new(Still),
            authority: String::new(),
        });
        let keeper = Keeper::open(KeeperMeans {
            current: Arc::clone(&current),
            paths: paths.clone(),
            board: Arc::clone(&board),
            closures: Arc::new(Closures::new(&paths, "trixie")),
            lifecycle: Arc::<Lifecycle>::clone(&lifecycle),
            agent: env!("CARGO_BIN_EXE_gatehouse-agent").into(),
        });
        let queue = Queue::of(&paths.state);
        let reports = Arc::new(Outbox::new(queue, Arc::clone(&current), Arc::clone(&board)));
        let changes = Arc::new(keeper);
        let orders = Arc::new(Orders::default());
        let evaluations = Arc::new(Evaluator::new(&current, &paths, &board, &orders));
        let believed = Digest::of(b"");
        let backups = Arc::new(Desk::open(&current, &paths, &board, orders, &lifecycle, believed));
        let told = Arc::clone(&board);
        let answerers = Answerers { board: told, steward: lifecycle, changes, reports, evaluations, backups };
        Agent { current, board, _socket: listen(&paths, answerers).expect("a socket") }
    }

    fn clone_site(&self) {
        let from = self.paths().repository();
        let cloned = Command::new("git").arg("clone").arg("-q").arg(from).arg(self.work()).output();
        let cloned = cloned.expect("git starts");
        assert!(cloned.status.success(), "{}", words(&cloned));
    }

    fn git(&self, args: &[&str]) -> Output {
        let who = ["-c", "user.name=operations", "-c", "user.email=operations@example.org"];
        let mut git = Command::new("git");
        git.arg("-C").arg(self.work()).args(who).args(args).output().expect("git starts")
    }

    /// Commits all that is there and pushes it; says what git says if that fails.
    fn push(&self, branch: &str) -> Result<(), String> {
        assert!(self.git(&["add", "--all"]).status.success());
        assert!(self.git(&["commit", "-q", "--allow-empty", "-m", "a change"]).status.success());
        let pushed = self.git(&["push", "-q", "origin", branch]);
        if pushed.status.success() { Ok(()) } else { Err(words(&pushed)) }
    }

    fn gatectl(&self, args: &[&str]) -> Output {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_gatehouse-agent"));
        ctl.arg("ctl").arg("--trial").arg(self.dir.path().join("trial")).args(args);
        ctl.output().expect("the agent starts")
    }
}

fn write(top: &Path, name: &str, text: &str) {
    let path = top.join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("made");
    fs::write(path, text).expect("written");
}

fn lock() -> Lock {
    let zero = Digest::of(b"");
    let bash = LockedPackage {
        name: "bash".into(),
        version: "5.2-1".into(),
        architecture: "amd64".into(),
        size: 1,
        sha256: zero,
        archive: "main".into(),
        path: "pool/bash.deb".into(),
        source: "bash".into(),
        source_version: "5.2-1".into(),
    };
    let packages = vec![bash.id()];
    let set = PackageSet { name: "node-1".into(), wishes: vec!["bash".into()], packages };
    Lock { schema: 1, agent: zero, request: zero, sets: vec![set], packages: vec![bash] }
}

fn depot() -> Depot {
    let agent = FileRef { path: "agent".into(), size: 0, sha256: Digest::of(b"") };
    let pool = Pool { suite: "trixie".into(), epoch: 0, index: vec![], packages: [].into() };
    Depot { schema: 1, agent, kernels: [].into(), machine: None, layers: [].into(), pool }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn names(agent: &Agent) -> Vec<String> {
    agent.current.get().site.nodes.iter().map(|node| node.name.to_string()).collect()
}

fn has_git() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "git is missing; run ci/setup");
    if !there {
        println!("skipped, because git is missing");
    }
    there
}

#[test]
fn a_push_is_checked_whole_and_then_taken_up() {
    if !has_git() {
        return;
    }
    let machine = Machine::new();
    let agent = machine.agent();
    machine.clone_site();
    let (work, site) = (machine.work(), machine.paths().site());

    // Everything that is wrong is on the terminal of whoever pushes, and nothing has changed.
    write(&work, "lcfg/source/node1", &(SOURCE.to_owned() + "client.nonsense 1\nclient.poll\n"));
    let said = machine.push("main").expect_err("a mistake");
    assert!(said.contains("lcfg/source/node1:6: ") && said.contains("client.nonsense"), "{said}");
    write(&work, "site.toml", &(SITE.to_owned() + &node(1).replace("4GiB", "1GiB")));
    write(&work, "lcfg/source/node1", SOURCE);
    let said = machine.push("main").expect_err("a store does not shrink");
    assert!(said.contains("never made smaller"), "{said}");
    assert_eq!(fs::read_to_string(site.join("lcfg/source/node1")).expect("read"), SOURCE);
    assert_eq!((names(&agent).len(), agent.current.get().generation), (1, 0));

    write(&work, "site.toml", &(SITE.to_owned() + &node(1) + &node(2)));
    write(&work, "lcfg/source/node2", SOURCE);
    let said = machine.push("HEAD:refs/heads/other").expect_err("only main is the site");
    assert!(said.contains("refs/heads/other is no branch"), "{said}");
    machine.push("main").expect("all is well");
    assert_eq!(names(&agent), ["node1", "node2"]);
    assert!(site.join("lcfg/source/node2").is_file());
    assert_eq!(agent.board.status().nodes.len(), 2);
    let log = words(&machine.gatectl(&["site", "log"]));
    assert!(log.contains("operations: a change"), "{log}");
}

#[test]
fn a_directory_is_compared_and_imported_and_edits_on_the_machine_are_not_lost() {
    if !has_git() {
        return;
    }
    let machine = Machine::new();
    let agent = machine.agent();
    machine.clone_site();
    let (work, site) = (machine.work(), machine.paths().site());

    write(&work, "site.toml", &(SITE.to_owned() + &node(2)));
    write(&work, "lcfg/source/node2", SOURCE);
    fs::remove_file(work.join("site.lock")).expect("removed");
    let dir = work.display().to_string();
    let seen = machine.gatectl(&["site", "diff", &dir]);
    let expected = "node2: added; it will be installed when somebody starts it\n\
                    node1: removed; its vm is stopped, its disks stay\n";
    assert_eq!(String::from_utf8_lossy(&seen.stdout), expected, "{}", words(&seen));
    assert_eq!(agent.current.get().generation, 0, "looking has changed something");
    let done = machine.gatectl(&["site", "import", &dir, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).expect("it is JSON");
    assert_eq!(json["nodes"][0][0], "node2", "{json}");
    assert_eq!(names(&agent), ["node2"]);
    assert!(site.join("site.lock").is_file() && !site.join(".git").exists());

    // Whoever pushes to a site that somebody has edited meanwhile hears of it.
    write(&site, "lcfg/packages/site.pkgs", "bash=*\n/* looked at by hand */\n");
    assert!(machine.git(&["fetch", "-q", "origin"]).status.success());
    assert!(machine.git(&["reset", "-q", "--hard", "origin/main"]).status.success());
    write(&work, "lcfg/source/node2", &(SOURCE.to_owned() + "client.ack yes\n"));
    let said = machine.push("main").expect_err("it was edited there");
    assert!(said.contains("git pull --rebase"), "{said}");
    let pulled = machine.git(&["pull", "-q", "--rebase", "origin", "main"]);
    assert!(pulled.status.success(), "{}", words(&pulled));
    machine.push("main").expect("nothing is undone now");
    let list = fs::read_to_string(site.join("lcfg/packages/site.pkgs")).expect("read");
    assert!(list.contains("by hand"), "the edit is lost: {list}");

    // node1's disks stay until somebody throws them away.
    let disks = machine.paths().vms.join("node1/fs");
    fs::create_dir_all(&disks).expect("made");
    let kept = words(&machine.gatectl(&["node", "purge", "node2"]));
    assert!(kept.contains("take it out of site.toml first"), "{kept}");
    while !machine.gatectl(&["node", "purge", "node1"]).status.success() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!disks.exists());
}

#[test]
fn a_push_that_was_cut_off_is_taken_up_at_the_next_start() {
    if !has_git() {
        return;
    }
    let machine = Machine::new();
    let agent = machine.agent();
    machine.clone_site();
    // As if power had failed between git's part and the agent's.
    fs::write(machine.paths().repository().join("hooks/post-receive"), "#!/bin/sh\n").expect("written");
    write(&machine.work(), "site.toml", &(SITE.to_owned() + &node(1) + &node(2)));
    write(&machine.work(), "lcfg/source/node2", SOURCE);
    machine.push("main").expect("all is well");
    assert_eq!(names(&agent), ["node1"]);
    drop(agent);
    let agent = machine.agent();
    assert_eq!(names(&agent), ["node1", "node2"]);
    assert!(machine.paths().site().join("lcfg/source/node2").is_file());
}
