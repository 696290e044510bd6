use std::collections::VecDeque;
use std::fs;

use gatehouse_model::site::VmmKind;
use gatehouse_model::{Digest, FileRef, Lock, Pool};
use tempfile::TempDir;

use super::*;
use crate::server::sample_site;
use crate::vmm::usage::Usage;
use crate::vmm::{Boot, Capabilities, Launch, Power, Vm};
use crate::wire::{Ack, Milestone};

/// A vmm of which tests say what it knows, and which says what was asked of it.
#[derive(Default)]
struct Machine {
    on: BTreeSet<NodeName>,
    /// It cannot be asked.
    deaf: bool,
    asked: u32,
    /// What was done, in order.
    done: VecDeque<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Machine>>);

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("whole")
    }

    fn done(&self, what: &str) -> bool {
        self.lock().done.iter().any(|done| done == what)
    }
}

impl Vmm for Fake {
    fn kind(&self) -> VmmKind {
        VmmKind::Uml
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_vcpus: None,
            memory_while_running: false,
            vcpus_while_running: false,
            disk_rate: false,
            own_kernel: false,
            own_user: false,
        }
    }

    fn render(&self, vm: &Vm<'_>, boot: Boot<'_>) -> Launch {
        Launch {
            node: vm.node.name.clone(),
            install: boot.is_install(),
            argv: Vec::new(),
            config: None,
            uid: None,
            owned: Vec::new(),
        }
    }

    fn start(&self, launch: &Launch) -> Result<(), Fault> {
        let mut machine = self.lock();
        machine.on.insert(launch.node.clone());
        machine.done.push_back(format!("start {}", launch.node));
        Ok(())
    }

    fn adopt(&self, _: &NodeName) -> Result<(), Fault> {
        Ok(())
    }

    fn power(&self, node: &NodeName) -> Result<Power, Fault> {
        let mut machine = self.lock();
        machine.asked += 1;
        if machine.deaf {
            return Err(Fault::new("too many open files"));
        }
        Ok(if machine.on.contains(node) { Power::On } else { Power::Off })
    }

    /// Takes a moment, in which others are looked at.
    fn stop(&self, node: &NodeName, _: Duration) -> Result<(), Fault> {
        self.lock().done.push_back(format!("stop {node}"));
        std::thread::sleep(Duration::from_millis(300));
        let mut machine = self.lock();
        machine.on.remove(node);
        machine.done.push_back(format!("off {node}"));
        Ok(())
    }

    fn limit(&self, _: &Vm<'_>) -> Result<Vec<String>, Fault> {
        Ok(Vec::new())
    }

    fn usage(&self, _: &Vm<'_>) -> Result<Option<Usage>, Fault> {
        Ok(None)
    }
}

fn depot() -> Depot {
    let file = || FileRef { path: "agent".into(), size: 0, sha256: Digest::of(b"") };
    let pool = Pool { suite: "trixie".into(), epoch: 0, index: Vec::new(), packages: [].into() };
    Depot { schema: 1, agent: file(), kernels: [].into(), machine: None, layers: [].into(), pool }
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// A site with two installed nodes, of which these run already.
struct Place {
    dir: TempDir,
    fake: Fake,
}

impl Place {
    fn new(on: &[&str]) -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a directory"), fake: Fake::default() };
        place.fake.lock().on = on.iter().map(|node| name(node)).collect();
        for node in ["node1", "node2"] {
            fs::create_dir_all(place.paths().conf(&name(node))).expect("made");
            let record = Record {
                profile: "x".into(),
                root: "PARTUUID=1".into(),
                seconds: 1.0,
                phases: Vec::new(),
                restored: None,
            };
            record.save(&place.paths(), &name(node)).expect("written");
        }
        place
    }

    fn paths(&self) -> Paths {
        Paths::trial(self.dir.path(), self.dir.path())
    }

    fn start(&self) -> Arc<Lifecycle> {
        let (site, paths) = (sample_site(), self.paths());
        let zero = Digest::of(b"");
        let lock = Lock { schema: 1, agent: zero, request: zero, sets: Vec::new(), packages: Vec::new() };
        let board = Arc::new(Board::new(&site));
        Lifecycle::start(Means {
            current: Arc::new(Current::new(site, lock)),
            depot: depot(),
            tokens: Arc::new(Tokens::new()),
            approvals: Arc::default(),
            netboot: Arc::new(Netboot::new(&paths, None, Arc::clone(&board))),
            driver: Box::new(self.fake.clone()),
            authority: String::new(),
            paths,
            board,
        })
    }
}

/// Waits for something that comes within seconds; nobody waits for the end of a pause meanwhile.
fn within(lifecycle: &Lifecycle, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", lifecycle.means.board.status());
        lifecycle.changed.notify_all();
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn told(lifecycle: &Lifecycle, node: &str, action: &str) -> usize {
    let events = lifecycle.means.board.status().events;
    events.iter().filter(|event| event.phase == format!("node/{node}") && event.action == action).count()
}

fn runs(lifecycle: &Lifecycle, node: &str) {
    lifecycle.means.board.acknowledge(&name(node), Ack::new(Milestone::Running, "x"));
    within(lifecycle, "running", || lifecycle.shown(&name(node)) == Some(NodeState::Running));
}

#[test]
fn a_node_that_cannot_be_asked_about_goes_on() {
    let place = Place::new(&["node1", "node2"]);
    let lifecycle = place.start();
    runs(&lifecycle, "node1");
    place.fake.lock().deaf = true;
    within(&lifecycle, "told", || told(&lifecycle, "node1", "asking the vmm") == 1);
    let before = place.fake.lock().asked;
    within(&lifecycle, "asked again", || place.fake.lock().asked > before + 5);
    assert_eq!(told(&lifecycle, "node1", "asking the vmm"), 1, "it was told more than once");
    place.fake.lock().deaf = false;
    within(&lifecycle, "answered", || told(&lifecycle, "node1", "asking the vmm") == 2);
    assert_eq!(lifecycle.shown(&name("node1")), Some(NodeState::Running));
    assert!(place.fake.lock().done.is_empty(), "{:?}", place.fake.lock().done);
}

#[test]
fn a_record_that_cannot_be_read_holds_up_its_own_node_alone() {
    let place = Place::new(&[]);
    fs::write(Record::path(&place.paths(), &name("node1")), "{").expect("written");
    let lifecycle = place.start();
    within(&lifecycle, "node2 started", || place.fake.done("start node2"));
    assert_eq!(lifecycle.shown(&name("node1")), Some(NodeState::Failed));
    assert!(!place.fake.done("start node1"));
}

#[test]
fn nodes_are_stopped_one_after_the_other_and_none_is_started_again() {
    let place = Place::new(&["node1", "node2"]);
    let lifecycle = place.start();
    runs(&lifecycle, "node1");
    runs(&lifecycle, "node2");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| lifecycle.stop_all());
        within(&lifecycle, "node2 stopping", || place.fake.done("stop node2"));
        // It powers off by itself before its turn has come, and somebody wants another one.
        place.fake.lock().on.remove(&name("node1"));
        within(&lifecycle, "its end told", || told(&lifecycle, "node1", "running") == 1);
        lifecycle.want(&name("node2"), Wanted::Running);
        stopping.join().expect("no panic");
    });
    let done = place.fake.lock().done.clone();
    let at = |what: &str| done.iter().position(|done| done == what);
    assert!(at("off node2") < at("stop node1"), "{done:?}");
    assert!(at("stop node1").is_some() && !done.iter().any(|done| done.starts_with("start")), "{done:?}");
    within(&lifecycle, "both at rest", || lifecycle.rests(&name("node1")) && lifecycle.rests(&name("node2")));
}
