//! Every node's life: installed once, started at every boot, started again when it dies. One thread a node;
//! what it does next is a pure function of what is there and what is wanted.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Depot, Doing as _, Fault, NodeName, Site, State};
use serde::{Deserialize, Serialize};

use crate::control::Steward;
use crate::control::board::{Board, NodeState, now_millis};
use crate::host::files::write_whole;
use crate::paths::Paths;
use crate::server::tokens::Tokens;
use crate::vmm::{Boot, Power, Vm, Vmm, console, initrd, store};
use crate::wire::{Ack, Milestone, Passport, PhaseTime};

/// An installer that has not ended by then never will: emulated machines need a tenth of it.
const INSTALL_LIMIT: Duration = Duration::from_secs(3600);
/// How long a node may take from its start until it says that it is up.
const START_LIMIT: Duration = Duration::from_secs(900);
/// How long a node may take to shut down before it is ended.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// The longest pause before a node that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The bridge that all nodes' NICs are on.
pub const BRIDGE: &str = "gh0";

/// `conf/installed.json`: this node's disk is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    /// ETag of the profile it was installed from.
    profile: String,
    /// The root filesystem as a kernel argument.
    root: String,
    /// From the start of its VM to power off.
    seconds: f64,
    /// The parts of it.
    phases: Vec<PhaseTime>,
}

/// What is wanted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
}

/// What a node's thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// End a VM that is not a node's own system: an installer of an agent that is gone.
    Clear,
    /// Install it from the beginning.
    Install,
    /// Start it from its disk.
    Start,
    /// It runs: see that it stays so.
    Watch,
    /// Stop it.
    Stop,
    /// Nothing to do until something is wanted.
    Rest,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "end the installer left in the vm of",
            Self::Install => "install",
            Self::Start => "start",
            Self::Watch => "watch",
            Self::Stop => "stop",
            Self::Rest => "leave stopped",
        })
    }
}

fn next_step(installed: bool, power: Power, wanted: Wanted) -> Step {
    match (installed, power, wanted) {
        (false, Power::On, _) => Step::Clear,
        (false, Power::Off, Wanted::Running) => Step::Install,
        (true, Power::On, Wanted::Running) => Step::Watch,
        (true, Power::On, Wanted::Stopped) => Step::Stop,
        (true, Power::Off, Wanted::Running) => Step::Start,
        (_, Power::Off, Wanted::Stopped) => Step::Rest,
    }
}

/// What the lifecycle works with.
pub struct Means {
    /// The site.
    pub site: Site,
    /// Where things are.
    pub paths: Paths,
    /// What the depot holds.
    pub depot: Depot,
    /// The board.
    pub board: Arc<Board>,
    /// The tokens that the install server redeems.
    pub tokens: Arc<Tokens>,
    /// The driver of the site's vmm.
    pub driver: Box<dyn Vmm>,
    /// Certificate of the site's authority, PEM.
    pub authority: String,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("site", &self.site.name).finish_non_exhaustive()
    }
}

/// All nodes' lives; `Steward` for people's commands.
pub struct Lifecycle {
    means: Means,
    wanted: Mutex<BTreeMap<NodeName, Wanted>>,
    changed: Condvar,
    installs: Mutex<usize>,
    installed: Condvar,
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycle").field("site", &self.means.site.name).finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// Starts a thread for every node, in the site's order.
    pub fn start(means: Means) -> Arc<Self> {
        let wanted = |node: &Node| if node.autostart { Wanted::Running } else { Wanted::Stopped };
        let all = means.site.nodes.iter().map(|node| (node.name.clone(), wanted(node))).collect();
        let lifecycle = Arc::new(Self {
            means,
            wanted: Mutex::new(all),
            changed: Condvar::new(),
            installs: Mutex::new(0),
            installed: Condvar::new(),
        });
        for (index, node) in (0..).zip(lifecycle.means.site.nodes.clone()) {
            let lifecycle = Arc::clone(&lifecycle);
            std::thread::spawn(move || lifecycle.live(&node, index));
        }
        lifecycle
    }

    /// Stops all nodes in reverse order; none is started again.
    pub fn stop_all(&self) {
        let nodes: Vec<NodeName> = self.means.site.nodes.iter().rev().map(|node| node.name.clone()).collect();
        for node in &nodes {
            self.want(node, Wanted::Stopped);
        }
        for node in &nodes {
            // A node that cannot be stopped must not keep the others from being stopped in order.
            if let Err(fault) = self.means.driver.stop(node, STOP_GRACE) {
                self.means.board.say(&phase(node), "stopping", State::Failed, fault.to_string());
            }
        }
    }

    /// One node's thread: never ends.
    fn live(&self, node: &Node, index: u32) {
        let mut deaths = 0;
        loop {
            let begun = Instant::now();
            if let Err(fault) = self.advance(node, index) {
                self.means.board.update(&node.name, |status| {
                    status.state = NodeState::Failed;
                    status.message = fault.to_string();
                });
                self.means.board.say(&phase(&node.name), "running", State::Failed, fault.to_string());
                self.set(&node.name, Wanted::Stopped);
            }
            deaths = if begun.elapsed() > LONGEST_PAUSE { 0 } else { deaths + 1 };
            if deaths > 2 {
                std::thread::sleep(LONGEST_PAUSE.min(Duration::from_secs(1 << deaths.min(6))));
            }
        }
    }

    fn advance(&self, node: &Node, index: u32) -> Result<(), Fault> {
        let record = self.record(&node.name)?;
        let power = self.means.driver.power(&node.name)?;
        match next_step(record.is_some(), power, self.wanted(&node.name)) {
            Step::Clear => self.means.driver.stop(&node.name, Duration::ZERO),
            Step::Install => self.install(node, index),
            Step::Start => self.boot(node, index, record.as_ref()),
            Step::Watch => self.watch(node, record.as_ref()),
            Step::Stop => {
                self.means.board.say(&phase(&node.name), "stopping", State::Started, "");
                self.means.driver.stop(&node.name, STOP_GRACE)
            }
            Step::Rest => {
                self.rest(node, record.as_ref());
                Ok(())
            }
        }
    }

    fn rest(&self, node: &Node, record: Option<&Record>) {
        self.means.board.update(&node.name, |status| {
            let at_rest = if record.is_some() { NodeState::Stopped } else { NodeState::Absent };
            status.state = if status.state == NodeState::Failed { NodeState::Failed } else { at_rest };
            status.install_seconds = record.map(|record| record.seconds);
        });
        let mut wanted = self.lock();
        while wanted.get(&node.name) == Some(&Wanted::Stopped) {
            wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Installs a node from the beginning: whatever an earlier try left on its disk is overwritten.
    fn install(&self, node: &Node, index: u32) -> Result<(), Fault> {
        let _turn = self.turn();
        let board = &self.means.board;
        board.update(&node.name, |status| status.state = NodeState::Installing);
        board.say(&phase(&node.name), "installing", State::Started, "");
        drop(board.take_acks(&node.name));
        let begun = Instant::now();
        let result = self.run_installer(node, index);
        self.means.tokens.revoke(&node.name);
        let ack = result.doing(|| format!("installing node {}", node.name))?;
        let seconds = begun.elapsed().as_secs_f64();
        let root = ack.root.ok_or_else(|| Fault::new(format!("node {} did not name its root", node.name)))?;
        let record = Record { profile: ack.profile, root, seconds, phases: ack.phases };
        let json = serde_json::to_string_pretty(&record).doing(|| "writing installed.json")?;
        write_whole(&self.record_path(&node.name), json.as_bytes(), 0o644)?;
        board.update(&node.name, |status| {
            status.state = NodeState::Stopped;
            status.install_seconds = Some(seconds);
            status.phases = record.phases;
        });
        board.say(&phase(&node.name), "installing", State::Succeeded, format!("{seconds:.1} s"));
        Ok(())
    }

    fn run_installer(&self, node: &Node, index: u32) -> Result<Ack, Fault> {
        let stores = self.stores(node)?;
        let kind = self.means.driver.kind().to_string();
        let kernel = self.means.depot.kernels.get(&kind).ok_or_else(|| {
            Fault::new(format!("the depot has no kernel for {kind}")).help("build the image for this vmm")
        })?;
        let conf = self.means.paths.conf(&node.name);
        fs::create_dir_all(&conf).doing(|| format!("making {}", conf.display()))?;
        let at = conf.join("install-initrd");
        let archives: Vec<PathBuf> =
            kernel.initrd.iter().map(|f| self.means.paths.depot.join(&f.path)).collect();
        let archives: Vec<_> = archives.iter().map(PathBuf::as_path).collect();
        initrd::write(&archives, &self.passport(node), &at)?;
        let path = self.means.paths.depot.join(&kernel.kernel.path);
        let vm = Vm { node, index, stores, bridge: BRIDGE };
        let launch = self.means.driver.render(&vm, Boot::Install { kernel: &path, initrd: &at });
        let result = self.means.driver.start(&launch).and_then(|()| self.follow_installer(node));
        // It holds the token; that it can no longer be used is no reason to keep it.
        let _ = fs::remove_file(&at);
        result
    }

    fn passport(&self, node: &Node) -> Passport {
        let network = &self.means.site.network;
        Passport {
            node: node.name.clone(),
            domain: self.means.site.domain.clone(),
            mac: node.mac,
            address: node.address,
            prefix: network.subnet.prefix,
            gateway: network.gateway,
            server: network.host,
            authority: self.means.authority.clone(),
            token: self.means.tokens.issue(&node.name),
            time: (now_millis() / 1000).max(self.means.site.epoch),
        }
    }

    /// Waits until the installer has acknowledged and its VM is off.
    fn follow_installer(&self, node: &Node) -> Result<Ack, Fault> {
        let begun = Instant::now();
        let mut installed = None;
        loop {
            let acks = self.means.board.take_acks(&node.name);
            installed = acks.into_iter().rfind(|ack| ack.milestone == Milestone::Installed).or(installed);
            if self.means.driver.power(&node.name)? == Power::Off {
                // The acknowledgement may have come between the two looks.
                let late = self.means.board.take_acks(&node.name);
                return late
                    .into_iter()
                    .rfind(|ack| ack.milestone == Milestone::Installed)
                    .or(installed)
                    .ok_or_else(|| {
                        Fault::new(format!(
                            "the installer ended early; its last words:\n{}",
                            self.last_words(node)
                        ))
                    });
            }
            if begun.elapsed() > INSTALL_LIMIT || self.wanted(&node.name) == Wanted::Stopped {
                self.means.driver.stop(&node.name, Duration::ZERO)?;
                let text = format!("the installer was ended; its last words:\n{}", self.last_words(node));
                return Err(Fault::new(text));
            }
            self.means.board.wait(Duration::from_millis(500));
        }
    }

    fn last_words(&self, node: &Node) -> String {
        console::tail(&self.means.paths, &node.name, 12)
    }

    fn boot(&self, node: &Node, index: u32, record: Option<&Record>) -> Result<(), Fault> {
        let record = record.ok_or_else(|| Fault::new(format!("node {} is not installed", node.name)))?;
        let board = &self.means.board;
        drop(board.take_acks(&node.name));
        self.show(node, NodeState::Starting, record);
        board.say(&phase(&node.name), "starting", State::Started, "");
        let kind = self.means.driver.kind().to_string();
        let kernel = self.means.depot.kernels.get(&kind).map(|k| self.means.paths.depot.join(&k.kernel.path));
        let vm = Vm { node, index, stores: self.stores(node)?, bridge: BRIDGE };
        let boot =
            Boot::Disk { kernel: kernel.as_deref().unwrap_or(&self.means.paths.depot), root: &record.root };
        let launch = self.means.driver.render(&vm, boot);
        self.means.driver.start(&launch).doing(|| format!("starting node {}", node.name))?;
        self.await_running(node)
    }

    fn await_running(&self, node: &Node) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let acks = self.means.board.take_acks(&node.name);
            if acks.iter().any(|ack| ack.milestone == Milestone::Running) {
                self.means.board.update(&node.name, |status| status.state = NodeState::Running);
                let seconds = begun.elapsed().as_secs_f64();
                self.means.board.say(
                    &phase(&node.name),
                    "starting",
                    State::Succeeded,
                    format!("{seconds:.1} s"),
                );
                return Ok(());
            }
            let off = self.means.driver.power(&node.name)? == Power::Off;
            if self.wanted(&node.name) == Wanted::Stopped {
                return Ok(());
            }
            if off || begun.elapsed() > START_LIMIT {
                let what = if off { "ended" } else { "was not heard of in time" };
                return Err(Fault::new(format!(
                    "node {} {what} while starting; its last words:\n{}",
                    node.name,
                    self.last_words(node)
                )));
            }
            self.means.board.wait(Duration::from_millis(500));
        }
    }

    /// Looks after a running node until it is off or is no longer wanted; adopts one that an earlier agent started.
    fn watch(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let known = self.means.board.status().nodes.into_iter().find(|s| s.name == node.name);
        if known.is_none_or(|status| status.state != NodeState::Running)
            && let Some(record) = record
        {
            let up =
                TcpStream::connect_timeout(&SocketAddr::from((node.address, 22)), Duration::from_secs(2));
            if up.is_ok() {
                self.show(node, NodeState::Running, record);
                self.means.board.say(&phase(&node.name), "adopting", State::Succeeded, "");
            } else {
                self.show(node, NodeState::Starting, record);
                self.await_running(node)?;
            }
        }
        while self.wanted(&node.name) == Wanted::Running {
            if self.means.driver.power(&node.name)? == Power::Off {
                self.means.board.say(
                    &phase(&node.name),
                    "running",
                    State::Failed,
                    "its vm ended; starting it again",
                );
                break;
            }
            let guard = self.lock();
            drop(
                self.changed
                    .wait_timeout(guard, Duration::from_secs(2))
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        Ok(())
    }

    fn show(&self, node: &Node, state: NodeState, record: &Record) {
        self.means.board.update(&node.name, |status| {
            status.state = state;
            status.message.clear();
            status.install_seconds = Some(record.seconds);
            status.phases.clone_from(&record.phases);
        });
    }

    fn stores(&self, node: &Node) -> Result<Vec<PathBuf>, Fault> {
        let disk = self.means.paths.stores(&node.name).join("disk0");
        store::ensure(&disk, node.disk)?;
        Ok(vec![disk])
    }

    fn record_path(&self, node: &NodeName) -> PathBuf {
        self.means.paths.conf(node).join("installed.json")
    }

    fn record(&self, node: &NodeName) -> Result<Option<Record>, Fault> {
        let path = self.record_path(node);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self, node: &NodeName) -> Wanted {
        self.lock().get(node).copied().unwrap_or(Wanted::Stopped)
    }

    fn set(&self, node: &NodeName, wanted: Wanted) {
        self.lock().insert(node.clone(), wanted);
        self.changed.notify_all();
    }

    /// As `set`, and the failure that a person has seen is forgotten.
    fn want(&self, node: &NodeName, wanted: Wanted) {
        self.means.board.update(node, |status| {
            if status.state == NodeState::Failed {
                status.state = NodeState::Stopped;
                status.message.clear();
            }
        });
        self.set(node, wanted);
    }

    /// A place among the installs that run at the same time: one for each processor.
    fn turn(&self) -> Turn<'_> {
        let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut running = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= most {
            running = self.installed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Turn(self)
    }

    fn known(&self, node: &NodeName) -> Result<(), Fault> {
        if self.means.site.node(node.as_str()).is_some() {
            return Ok(());
        }
        let names: Vec<_> = self.means.site.nodes.iter().map(|node| node.name.to_string()).collect();
        Err(Fault::new(format!("there is no node {node}")).help(format!("name one of: {}", names.join(", "))))
    }
}

struct Turn<'a>(&'a Lifecycle);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.installs.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.installed.notify_one();
    }
}

fn phase(node: &NodeName) -> String {
    format!("node/{node}")
}

impl Steward for Lifecycle {
    fn start_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn stop_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        Ok(())
    }

    fn restart_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn install_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        let record = self.record_path(node);
        if record.exists() {
            fs::remove_file(&record).doing(|| format!("removing {}", record.display()))?;
        }
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn plan(&self) -> String {
        let line = |node: &Node| {
            let installed = self.record_path(&node.name).exists();
            let power = self.means.driver.power(&node.name).unwrap_or(Power::Off);
            format!("{} {}", next_step(installed, power, self.wanted(&node.name)), node.name)
        };
        self.means.site.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_from_what_is_there() {
        let table = [
            (false, Power::Off, Wanted::Running, Step::Install),
            (false, Power::On, Wanted::Running, Step::Clear),
            (false, Power::On, Wanted::Stopped, Step::Clear),
            (false, Power::Off, Wanted::Stopped, Step::Rest),
            (true, Power::Off, Wanted::Running, Step::Start),
            (true, Power::On, Wanted::Running, Step::Watch),
            (true, Power::On, Wanted::Stopped, Step::Stop),
            (true, Power::Off, Wanted::Stopped, Step::Rest),
        ];
        for (installed, power, wanted, step) in table {
            assert_eq!(next_step(installed, power, wanted), step, "{installed} {power:?} {wanted:?}");
        }
    }
}
