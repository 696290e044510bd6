//! A node's running life: started from its disk, watched, started again when it dies.

use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, State};

use super::record::Record;
use super::turn::Turn;
use super::{Lifecycle, VACATED, Wanted, phase};
use crate::control::board::NodeState;
use crate::host::backup::swap::Places;
use crate::vmm::{Boot, Power, Vm};

/// How long a node may take from its start until it says that it is up, and from then on until it is well.
const START_LIMIT: Duration = Duration::from_secs(900);
/// How long a start waits for its turn: one that hangs must not keep all others from starting.
const PATIENCE: Duration = Duration::from_secs(180);
/// A node that ends this often while starting has a fault of its own, and a person should look at it.
const MOST_STARTS: u32 = 3;

impl Lifecycle {
    pub(super) fn boot(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let record = record.ok_or_else(|| Fault::new(format!("node {} is not installed", node.name)))?;
        self.starts.wait(&node.name);
        let mut turn = Some(self.turns.to_start(PATIENCE));
        self.vacating.wait(VACATED);
        if self.wanted(&node.name) == Wanted::Stopped {
            return Ok(());
        }
        let board = &self.means.board;
        drop(board.take_acks(&node.name));
        self.show(node, NodeState::Starting, record);
        board.say(&phase(&node.name), "starting", State::Started, "");
        let kind = self.means.driver.kind().to_string();
        let kernel =
            self.means.depot.kernels.get(&kind).map(|known| {
                self.means.paths.depot.join(&known.loader.as_ref().unwrap_or(&known.kernel).path)
            });
        let vm = Vm { stores: self.stores(node)?, ..self.vm(node)? };
        let boot =
            Boot::Disk { kernel: kernel.as_deref().unwrap_or(&self.means.paths.depot), root: &record.root };
        let launch = self.means.driver.render(&vm, boot);
        for tries in 1.. {
            let started = self.means.driver.start(&launch).doing(|| format!("starting node {}", node.name));
            self.starts.leave(&node.name);
            self.hold(node);
            match started.and_then(|()| self.await_running(node, &mut turn)) {
                // A busy machine's vmm may lose patience with its own disks: nobody is there to start the node again.
                Err(fault) if tries < MOST_STARTS && self.means.driver.power(&node.name)? == Power::Off => {
                    board.say(&phase(&node.name), "starting again", State::Started, fault.to_string());
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    /// Waits until a node is well. Its turn ends once it is up: what it waits for may be another node.
    fn await_running(&self, node: &Node, turn: &mut Option<Turn<'_>>) -> Result<(), Fault> {
        let mut begun = Instant::now();
        let since = begun;
        loop {
            let acks = self.means.board.take_acks(&node.name);
            if !acks.is_empty() && turn.take().is_some() {
                begun = Instant::now();
            }
            self.hear(&node.name, &acks, since);
            let is_up = turn.is_none();
            if self.shown(&node.name) == Some(NodeState::Running) {
                self.settle(&node.name);
                return Ok(());
            }
            let off = self.means.driver.power(&node.name)? == Power::Off;
            if self.wanted(&node.name) == Wanted::Stopped {
                return Ok(());
            }
            let late = begun.elapsed() > START_LIMIT;
            if late && is_up && !off {
                self.give_up_waiting(&node.name);
                return Ok(());
            }
            if off || late {
                let what = if off { "ended" } else { "was not heard of in time" };
                return Err(Fault::new(format!(
                    "node {} {what} while starting; {}",
                    node.name,
                    self.last_words(node, false)
                )));
            }
            self.means.board.wait(Duration::from_secs(1));
        }
    }

    /// Looks after a running node until it is off or is no longer wanted; adopts one that an earlier agent started.
    pub(super) fn watch(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let known = matches!(self.shown(&node.name), Some(NodeState::Running | NodeState::Ailing));
        if !known && let Some(record) = record {
            if let Err(fault) = self.means.driver.adopt(&node.name) {
                // A node without a console is still a node.
                self.means.board.say(&phase(&node.name), "adopting", State::Failed, fault.to_string());
            }
            self.hold(node);
            let up =
                TcpStream::connect_timeout(&SocketAddr::from((node.address, 22)), Duration::from_secs(2));
            if up.is_ok() {
                // Where it is not well, it says so at its next look.
                self.show(node, NodeState::Running, record);
                self.means.board.say(&phase(&node.name), "adopting", State::Succeeded, "");
            } else {
                self.show(node, NodeState::Starting, record);
                let ended = self.await_running(node, &mut Some(self.turns.to_start(Duration::ZERO)));
                match ended {
                    // It died while it was starting: it is started again as any that does.
                    Err(fault) if self.means.driver.power(&node.name)? == Power::Off => {
                        let words = fault.to_string();
                        self.means.board.say(&phase(&node.name), "starting again", State::Started, words);
                        return Ok(());
                    }
                    ended => ended?,
                }
            }
        }
        let since = Instant::now();
        let places = Places::of(&self.means.paths, &node.name);
        while self.wanted(&node.name) == Wanted::Running && !places.waits() {
            let acks = self.means.board.take_acks(&node.name);
            self.hear(&node.name, &acks, since);
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
