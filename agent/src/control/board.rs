//! The board: the one place where the state of the host and of every node stands, and every event passes.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatehouse_model::site::Node;
use gatehouse_model::{Event, NodeName, Site, State};
use serde::{Deserialize, Serialize};

use super::keeping::{ProfileStatus, Seen};
use crate::vmm::usage::Usage;
use crate::wire::{Ack, Milestone, PhaseTime};

/// How many events the board remembers for those who look later.
const REMEMBERED: usize = 500;

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Nothing of it is on this machine yet; a machine of its own has not asked for anything.
    Absent,
    /// A machine of its own asks to be installed as it.
    Asking,
    /// The installer runs in its VM.
    Installing,
    /// Installed, and not running.
    Stopped,
    /// Started from its own disk, not yet heard of.
    Starting,
    /// It is up and well.
    Running,
    /// It is up, and not all its own checks pass; `message` says which.
    Ailing,
    /// Its install or start failed; `message` says how.
    Failed,
}

/// One node on the board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether it is a machine of its own, which this one neither starts nor stops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub machine: bool,
    /// Where it stands.
    pub state: NodeState,
    /// How long its install took, from the start of its VM to power off.
    pub install_seconds: Option<f64>,
    /// The parts of the install.
    #[serde(default)]
    pub phases: Vec<PhaseTime>,
    /// What is going on or went wrong.
    #[serde(default)]
    pub message: String,
    /// How it stands to its profile.
    #[serde(default)]
    pub profile: ProfileStatus,
    /// What its limits ask for and this host cannot hold it to, a sentence each; most often nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_held: Vec<String>,
    /// What it has used since its start, looked at once a minute; none while it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What its disks take of the host's, in bytes, looked at with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<u64>,
}

/// The whole board at one moment; also `/status.json` and `gatectl status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The site's name.
    pub site: String,
    /// The host's phases that have ended, in order, with their seconds.
    pub phases: Vec<PhaseTime>,
    /// The nodes in the order of site.toml.
    pub nodes: Vec<NodeStatus>,
    /// The newest events, oldest first.
    pub events: Vec<Event>,
    /// What somebody should know of the host; most often nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Which certificates end soon, and what to do, and which limits are not held; most often none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The board; shared by reference between threads.
#[derive(Debug)]
pub struct Board {
    site: String,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    phases: Vec<PhaseTime>,
    nodes: Vec<NodeStatus>,
    acks: BTreeMap<NodeName, Vec<Ack>>,
    events: VecDeque<Event>,
    listeners: Vec<mpsc::Sender<Event>>,
    warnings: Vec<String>,
    remarks: BTreeMap<&'static str, String>,
}

impl Board {
    /// A board with every node of the site absent.
    pub fn new(site: &Site) -> Self {
        let inner = Inner { nodes: site.nodes.iter().map(absent).collect(), ..Inner::default() };
        Self { site: site.name.to_string(), inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Takes up a changed site: nodes that stay keep their lines, new ones are absent, others vanish.
    pub fn take_up(&self, site: &Site) {
        let mut inner = self.lock();
        let mut before = std::mem::take(&mut inner.nodes);
        inner.nodes = site
            .nodes
            .iter()
            .map(|node| match before.iter().position(|status| status.name == node.name) {
                Some(at) => {
                    let machine = node.machine.is_some();
                    NodeStatus { address: node.address, machine, ..before.swap_remove(at) }
                }
                None => absent(node),
            })
            .collect();
        self.changed.notify_all();
    }

    // A thread that panicked while it held the lock has at worst left one line unwritten.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event of the host's own.
    pub fn say(&self, phase: &str, action: &str, state: State, message: impl Into<String>) {
        self.tell(Event {
            ts: now_millis(),
            host: self.site.clone(),
            phase: phase.to_owned(),
            action: action.to_owned(),
            state,
            percent: None,
            message: message.into(),
        });
    }

    /// Passes an event on to every listener and remembers it.
    pub fn tell(&self, event: Event) {
        let mut inner = self.lock();
        inner.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        if inner.events.len() == REMEMBERED {
            inner.events.pop_front();
        }
        inner.events.push_back(event);
        self.changed.notify_all();
    }

    /// Whether a failure of some phase was told since a moment, in milliseconds since 1970.
    pub fn has_failed(&self, phase: &str, since: u64) -> bool {
        let failed =
            |event: &Event| event.state == State::Failed && event.phase == phase && event.ts >= since;
        self.lock().events.iter().any(failed)
    }

    /// Runs a phase of the host: tells its start and end, and puts its seconds on the board.
    ///
    /// # Errors
    /// Passes on what the work returns.
    pub fn phase<T, E: std::fmt::Display>(
        &self,
        phase: &str,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.say(phase, phase, State::Started, "");
        let begun = Instant::now();
        let result = work();
        let seconds = begun.elapsed().as_secs_f64();
        match &result {
            Ok(_) => {
                self.lock().phases.push(PhaseTime { phase: phase.to_owned(), seconds });
                self.say(phase, phase, State::Succeeded, format!("{seconds:.1} s"));
            }
            Err(fault) => self.say(phase, phase, State::Failed, fault.to_string()),
        }
        result
    }

    /// All events from now on.
    pub fn listen(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel();
        self.lock().listeners.push(sender);
        receiver
    }

    /// The remembered events and all from now on, none twice and none left out.
    pub fn listen_from_start(&self) -> (Vec<Event>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        let mut inner = self.lock();
        inner.listeners.push(sender);
        (inner.events.iter().cloned().collect(), receiver)
    }

    /// Changes one node's line.
    pub fn update(&self, node: &NodeName, change: impl FnOnce(&mut NodeStatus)) {
        let mut inner = self.lock();
        if let Some(status) = inner.nodes.iter_mut().find(|status| status.name == *node) {
            change(status);
        }
        self.changed.notify_all();
    }

    /// One node's line.
    pub fn node(&self, node: &NodeName) -> Option<NodeStatus> {
        self.lock().nodes.iter().find(|status| status.name == *node).cloned()
    }

    /// Looks at how a node stands to its profile, or changes it. Nobody is woken: a thousand nodes ask for changes
    /// all the time.
    pub fn of_profile(&self, node: &NodeName, look: impl FnOnce(&mut ProfileStatus)) {
        if let Some(status) = self.lock().nodes.iter_mut().find(|status| status.name == *node) {
            look(&mut status.profile);
        }
    }

    /// Puts on the board what a node uses, of which nobody is woken either.
    pub fn of_usage(&self, node: &NodeName, usage: Option<Usage>, allocated: Option<u64>) {
        if let Some(status) = self.lock().nodes.iter_mut().find(|status| status.name == *node) {
            (status.usage, status.allocated) = (usage, allocated);
        }
    }

    /// Puts a node's acknowledgement on the board. Whoever waits for a step of its life is woken; how it applied its
    /// profile stands with the node.
    pub fn acknowledge(&self, node: &NodeName, ack: Ack) {
        let seen = Seen { etag: ack.profile.clone(), at: now_millis() };
        if ack.milestone == Milestone::Applied {
            return self.of_profile(node, |profile| {
                // Said again, as after a node's start, it changes nothing of what was done.
                let again = profile.acknowledged.as_ref().is_some_and(|old| old.etag == seen.etag);
                profile.acknowledged = Some(seen);
                profile.failed = ack.failed;
                if !again || !ack.changed.is_empty() || !ack.packages.is_none() {
                    (profile.changed, profile.packages) = (ack.changed, ack.packages);
                }
            });
        }
        self.of_profile(node, |profile| profile.fetched = Some(seen));
        self.lock().acks.entry(node.clone()).or_default().push(ack);
        self.changed.notify_all();
    }

    /// Puts what somebody should know of one side of the host on the board; nothing takes it away.
    pub fn remark(&self, about: &'static str, message: &str) {
        self.lock().remarks.insert(about, message.to_owned());
        self.changed.notify_all();
    }

    /// Replaces what is said of certificates that end soon.
    pub fn warn(&self, warnings: &[String]) {
        let mut inner = self.lock();
        if inner.warnings != warnings {
            inner.warnings = warnings.to_vec();
            self.changed.notify_all();
        }
    }

    /// Takes the acknowledgements a node has given since the last call.
    pub fn take_acks(&self, node: &NodeName) -> Vec<Ack> {
        self.lock().acks.remove(node).unwrap_or_default()
    }

    /// Waits until something changes, at most so long.
    pub fn wait(&self, at_most: Duration) {
        let guard = self.lock();
        drop(self.changed.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner));
    }

    /// The whole board.
    pub fn status(&self) -> Status {
        let inner = self.lock();
        let not_held = inner
            .nodes
            .iter()
            .flat_map(|node| node.not_held.iter().map(move |lack| format!("{}: {lack}", node.name)));
        let remarks = inner.remarks.values().filter(|remark| !remark.is_empty()).map(String::as_str);
        Status {
            site: self.site.clone(),
            phases: inner.phases.clone(),
            nodes: inner.nodes.clone(),
            events: inner.events.iter().cloned().collect(),
            message: remarks.collect::<Vec<_>>().join("; "),
            warnings: inner.warnings.iter().cloned().chain(not_held).collect(),
        }
    }
}

fn absent(node: &Node) -> NodeStatus {
    NodeStatus {
        name: node.name.clone(),
        address: node.address,
        machine: node.machine.is_some(),
        state: NodeState::Absent,
        install_seconds: None,
        phases: Vec::new(),
        message: String::new(),
        profile: ProfileStatus::default(),
        not_held: Vec::new(),
        usage: None,
        allocated: None,
    }
}

/// Milliseconds since 1970 by the machine's clock.
pub fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
