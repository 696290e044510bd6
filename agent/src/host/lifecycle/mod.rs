//! Every node's life: installed once, started at every boot, started again when it dies. One thread a node;
//! what it does next is a pure function of what is there and what is wanted.

mod change;
mod health;
mod install;
mod limits;
mod machine;
mod number;
mod power;
mod queue;
pub mod record;
pub mod restore;
pub(in crate::host) mod room;
mod start;
pub mod started;
mod step;
mod steward;
#[cfg(test)]
mod tests;
mod turn;
mod vacating;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Depot, Fault, NodeName, State};

use crate::control::board::{Board, NodeState};
use crate::current::Current;
use crate::host::backup::swap::Places;
use crate::host::machines::Netboot;
use crate::paths::Paths;
use crate::server::approval::Approvals;
use crate::server::tokens::Tokens;
use crate::vmm::{Vmm, console, store};
use queue::Queue;
use record::Record;
use restore::AWAITS;
use step::{Has, Step, Wanted, next_step};
use turn::Turns;
use vacating::Vacating;

/// How long a node may take to shut down before it is ended.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// How long a VM waits for those that a change ends.
const VACATED: Duration = Duration::from_secs(2 * STOP_GRACE.as_secs());
/// The longest pause before a node that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The bridge that all nodes' NICs are on.
pub const BRIDGE: &str = "gh0";

/// What the lifecycle works with.
pub struct Means {
    /// The site.
    pub current: Arc<Current>,
    /// Where things are.
    pub paths: Paths,
    /// What the depot holds.
    pub depot: Depot,
    /// The board.
    pub board: Arc<Board>,
    /// The tokens that the install server redeems.
    pub tokens: Arc<Tokens>,
    /// The machines that ask to be let in.
    pub approvals: Arc<Approvals>,
    /// What machines are given that start from the network.
    pub netboot: Arc<Netboot>,
    /// The driver of the site's vmm.
    pub driver: Box<dyn Vmm>,
    /// Certificate of the site's authority, PEM.
    pub authority: String,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// All nodes' lives; `Steward` for people's commands.
pub struct Lifecycle {
    means: Means,
    wanted: Mutex<BTreeMap<NodeName, Wanted>>,
    /// The nodes that have a thread.
    living: Mutex<BTreeSet<NodeName>>,
    /// Those whose thread waits for somebody to want something.
    resting: Mutex<BTreeSet<NodeName>>,
    changed: Condvar,
    /// Those of which the vmm could not be asked last.
    unasked: Mutex<BTreeSet<NodeName>>,
    /// The host stops: no node is started any more.
    ending: AtomicBool,
    turns: Turns,
    installs: Queue,
    starts: Queue,
    vacating: Vacating,
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycle").field("means", &self.means).finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// Starts a thread for every node, in the site's order.
    pub fn start(means: Means) -> Arc<Self> {
        let now = means.current.get();
        let (to_start, to_install): (Vec<_>, Vec<_>) =
            now.site.vms().filter(|node| node.autostart).partition(|node| {
                // One that cannot be looked at is not waited for: it fails on its own.
                Record::path(&means.paths, &node.name).exists()
            });
        let queue = |nodes: Vec<&Node>| Queue::new(nodes.into_iter().map(|node| node.name.clone()).collect());
        let (installs, starts) = (queue(to_install), queue(to_start));
        let dirs = vec![means.paths.vms.clone(), means.paths.state.clone()];
        room::watch(Arc::clone(&means.board), now.site.name.to_string(), dirs);
        let lifecycle = Arc::new(Self {
            means,
            installs,
            starts,
            wanted: Mutex::default(),
            living: Mutex::default(),
            resting: Mutex::default(),
            changed: Condvar::new(),
            unasked: Mutex::default(),
            ending: AtomicBool::default(),
            turns: Turns::of_this_machine(),
            vacating: Vacating::default(),
        });
        for node in &now.site.nodes {
            lifecycle.begin(node);
        }
        lifecycle.watch_usage();
        lifecycle
    }

    /// The driver of the site's vmm.
    pub fn driver(&self) -> &dyn Vmm {
        &*self.means.driver
    }

    /// Whether nodes can be machines of their own.
    pub fn takes_machines(&self) -> bool {
        self.means.netboot.is_possible()
    }

    /// Whether a node was installed here once, and still has what it needs to be started.
    pub fn has_disks(&self, node: &NodeName) -> bool {
        Record::path(&self.means.paths, node).exists()
    }

    /// Whether a node still has a thread, and so a VM perhaps.
    pub fn lives(&self, node: &NodeName) -> bool {
        self.living().contains(node)
    }

    /// Begins a node's life in a thread of its own.
    fn begin(self: &Arc<Self>, node: &Node) {
        let runs = node.autostart && !self.awaits(&node.name);
        let wanted = if runs { Wanted::Running } else { Wanted::Stopped };
        self.set(&node.name, wanted);
        if self.living().insert(node.name.clone()) {
            let (lifecycle, name) = (Arc::clone(self), node.name.clone());
            std::thread::spawn(move || lifecycle.live(&name));
        } else {
            // It left and came back before its thread was done with it: that goes on, with a VM as it is now.
            self.start_again(&node.name);
        }
    }

    /// Stops all nodes, one after the other in the reverse of the site's order: what others need was started first. None
    /// is started again, and those whose turn has not come go on.
    pub fn stop_all(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let now = self.means.current.get();
        let all: Vec<&NodeName> = now.site.vms().map(|node| &node.name).collect();
        for node in all.into_iter().rev() {
            self.want(node, Wanted::Stopped);
            // A node that cannot be stopped must not keep the others from being stopped in order.
            if let Err(fault) = self.means.driver.stop(node, STOP_GRACE) {
                self.means.board.say(&phase(node), "stopping", State::Failed, fault.to_string());
            }
        }
    }

    /// One node's thread: ends when the site has the node no more.
    fn live(&self, name: &NodeName) {
        let mut deaths = 0;
        loop {
            let Some(node) = self.node(name) else {
                self.part_with(name);
                let mut living = self.living();
                if self.node(name).is_none() {
                    living.remove(name);
                    return;
                }
                continue;
            };
            let begun = Instant::now();
            let lived = if node.machine.is_some() {
                self.attend(&node).map(|()| Step::Rest)
            } else {
                self.advance(&node)
            };
            // Only a node that ends by itself has died, or one that cannot be helped; what people ask for is done at once.
            match &lived {
                Ok(Step::Rest) => deaths = 0,
                Ok(Step::Watch) if begun.elapsed() > LONGEST_PAUSE => deaths = 0,
                Ok(Step::Watch) if self.wanted(name) == Wanted::Running => deaths += 1,
                Ok(_) => {}
                Err(_) => deaths += 1,
            }
            if let Err(fault) = lived {
                self.means.board.update(name, |status| {
                    status.state = NodeState::Failed;
                    status.message = fault.to_string();
                });
                self.means.board.say(&phase(name), "running", State::Failed, fault.to_string());
                self.set(name, Wanted::Stopped);
                // Whoever comes after it must not wait for one that does not come.
                self.starts.leave(name);
                self.installs.leave(name);
            }
            if deaths > 2 {
                std::thread::sleep(LONGEST_PAUSE.min(Duration::from_secs(1 << deaths.min(6))));
            }
        }
    }

    fn node(&self, name: &NodeName) -> Option<Node> {
        self.means.current.get().site.node(name.as_str()).cloned()
    }

    fn living(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, node: &NodeName, record: Option<&Record>) -> Has {
        match record {
            _ if Places::of(&self.means.paths, node).waits() => Has::Restored,
            Some(_) => Has::Disks,
            None => Has::Nothing,
        }
    }

    /// Does the next step of a node's life; returns which that was.
    fn advance(&self, node: &Node) -> Result<Step, Fault> {
        let record = Record::load(&self.means.paths, &node.name)?;
        let power = self.known_power(&node.name);
        let step = next_step(self.has(&node.name, record.as_ref()), power, self.wanted(&node.name));
        if step != Step::Start {
            self.starts.leave(&node.name);
        }
        if !matches!(step, Step::Clear | Step::Install) {
            self.installs.leave(&node.name);
        }
        match step {
            Step::Clear => self.means.driver.stop(&node.name, Duration::ZERO)?,
            Step::Install => self.install(node)?,
            Step::Start => self.boot(node, record.as_ref())?,
            Step::Watch => self.watch(node, record.as_ref()),
            Step::Stop => {
                self.means.board.say(&phase(&node.name), "stopping", State::Started, "");
                self.means.driver.stop(&node.name, STOP_GRACE)?;
            }
            Step::Swap => self.swap(node)?,
            Step::Rest => self.rest(node, record.as_ref()),
        }
        Ok(step)
    }

    fn rest(&self, node: &Node, record: Option<&Record>) {
        self.means.board.update(&node.name, |status| {
            let at_rest = if record.is_some() { NodeState::Stopped } else { NodeState::Absent };
            status.state = if status.state == NodeState::Failed { NodeState::Failed } else { at_rest };
            status.install_seconds = record.map(|record| record.seconds);
            if self.awaits(&node.name) {
                AWAITS.clone_into(&mut status.message);
            }
        });
        self.resting().insert(node.name.clone());
        let mut wanted = self.lock();
        while wanted.get(&node.name).is_some_and(|wanted| self.now(*wanted) != Wanted::Running) {
            wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        drop(wanted);
        self.resting().remove(&node.name);
    }

    fn resting(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node's thread does nothing until something is wanted.
    fn rests(&self, node: &NodeName) -> bool {
        self.resting().contains(node)
    }

    /// The end of a node's console, and the command that shows all of it: the first line is what tables show.
    fn last_words(&self, node: &Node, install: bool) -> String {
        let (name, which) = (&node.name, if install { " --install" } else { "" });
        let words = console::tail(&self.means.paths, name, 12);
        format!("see `gatectl node log {name}{which}`; its last words:\n{words}")
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self, node: &NodeName) -> Wanted {
        self.lock().get(node).map_or(Wanted::Stopped, |wanted| self.now(*wanted))
    }

    /// What something wanted comes to while the host stops.
    fn now(&self, wanted: Wanted) -> Wanted {
        let ending = self.ending.load(Ordering::SeqCst);
        if ending && wanted == Wanted::Running { Wanted::Left } else { wanted }
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
}

fn phase(node: &NodeName) -> String {
    format!("node/{node}")
}
