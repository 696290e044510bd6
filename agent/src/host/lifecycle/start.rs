//! A node's running life: started from its disk, watched, started again when it dies.

use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, State};

use super::record::Record;
use super::{BRIDGE, Lifecycle, VACATED, Wanted, number, phase};
use crate::control::board::NodeState;
use crate::vmm::{Boot, Power, Vm};
use crate::wire::Milestone;

/// How long a node may take from its start until it says that it is up.
const START_LIMIT: Duration = Duration::from_secs(900);
/// How long a start waits for its turn: one that hangs must not keep all others from starting.
const PATIENCE: Duration = Duration::from_secs(180);
/// A node that ends this often while starting has a fault of its own, and a person should look at it.
const MOST_STARTS: u32 = 3;

impl Lifecycle {
    pub(super) fn boot(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let record = record.ok_or_else(|| Fault::new(format!("node {} is not installed", node.name)))?;
        self.starts.wait(&node.name);
        let _turn = self.turns.to_start(PATIENCE);
        self.vacating.wait(VACATED);
        if self.wanted(&node.name) == Wanted::Stopped {
            return Ok(());
        }
        let board = &self.means.board;
        drop(board.take_acks(&node.name));
        self.show(node, NodeState::Starting, record);
        board.say(&phase(&node.name), "starting", State::Started, "");
        let kind = self.means.driver.kind().to_string();
        let kernel = self.means.depot.kernels.get(&kind).map(|k| self.means.paths.depot.join(&k.kernel.path));
        let index = number::of(&self.means.paths, &node.name)?;
        let vm = Vm { node, index, stores: self.stores(node)?, bridge: BRIDGE };
        let boot =
            Boot::Disk { kernel: kernel.as_deref().unwrap_or(&self.means.paths.depot), root: &record.root };
        let launch = self.means.driver.render(&vm, boot);
        for tries in 1.. {
            let started = self.means.driver.start(&launch);
            self.starts.leave(&node.name);
            started.doing(|| format!("starting node {}", node.name))?;
            match self.await_running(node) {
                Err(fault) if tries < MOST_STARTS && self.means.driver.power(&node.name)? == Power::Off => {
                    board.say(&phase(&node.name), "starting again", State::Started, fault.to_string());
                }
                ended => return ended,
            }
        }
        Ok(())
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
            self.means.board.wait(Duration::from_secs(1));
        }
    }

    /// Looks after a running node until it is off or is no longer wanted; adopts one that an earlier agent started.
    pub(super) fn watch(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let known = self.means.board.status().nodes.into_iter().find(|s| s.name == node.name);
        if known.is_none_or(|status| status.state != NodeState::Running)
            && let Some(record) = record
        {
            self.means.driver.adopt(&node.name)?;
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
}
