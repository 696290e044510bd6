//! A node's running life: started from its disk, watched, started again when it dies.

use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, State};

use super::record::Record;
use super::started::Started;
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

/// Whose start of a node is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// This agent's.
    Us,
    /// An earlier one's: such a node may long be up, and only silent.
    Another,
}

/// What comes of a look at a node that is not well yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Ended,
    /// It runs, and is watched as it is.
    Ailing,
    /// It was started and has never said a word.
    Unheard,
}

/// The decision; no power is known where the vmm cannot be asked.
fn verdict(power: Option<Power>, late: bool, is_up: bool, by: By) -> Verdict {
    match power {
        Some(Power::Off) => Verdict::Ended,
        Some(Power::On) if late && (is_up || by == By::Another) => Verdict::Ailing,
        Some(Power::On) if late => Verdict::Unheard,
        _ => Verdict::Wait,
    }
}

impl Lifecycle {
    pub(super) fn boot(&self, node: &Node, record: Option<&Record>) -> Result<(), Fault> {
        let record = record.ok_or_else(|| Fault::new(format!("node {} is not installed", node.name)))?;
        self.starts.wait(&node.name);
        let mut turn = Some(self.turns.to_start(PATIENCE));
        self.vacating.wait(VACATED);
        if self.wanted(&node.name) != Wanted::Running {
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
        Started::of(node).save(&self.means.paths, &node.name)?;
        for tries in 1.. {
            let started = self.means.driver.start(&launch).doing(|| format!("starting node {}", node.name));
            self.starts.leave(&node.name);
            self.hold(node);
            let again = || tries < MOST_STARTS && self.wanted(&node.name) == Wanted::Running;
            match started.and_then(|()| self.await_running(node, &mut turn, By::Us)) {
                // A busy machine's vmm may lose patience with its own disks: nobody is there to start the node again.
                Err(fault) if again() && self.known_power(&node.name) == Power::Off => {
                    board.say(&phase(&node.name), "starting again", State::Started, fault.to_string());
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    /// Waits until a node is well. Its turn ends once it is up: what it waits for may be another node.
    fn await_running(&self, node: &Node, turn: &mut Option<Turn<'_>>, by: By) -> Result<(), Fault> {
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
            let power = self.power(&node.name);
            if self.wanted(&node.name) == Wanted::Stopped {
                return Ok(());
            }
            let what = match verdict(power, begun.elapsed() > START_LIMIT, is_up, by) {
                Verdict::Wait => {
                    self.means.board.wait(Duration::from_secs(1));
                    continue;
                }
                Verdict::Ailing => {
                    self.give_up_waiting(&node.name);
                    return Ok(());
                }
                Verdict::Ended => "ended",
                Verdict::Unheard => "was not heard of in time",
            };
            let words = self.last_words(node, false);
            return Err(Fault::new(format!("node {} {what} while starting; {words}", node.name)));
        }
    }

    /// Looks after a running node until it is off or is no longer wanted; adopts one that an earlier agent started.
    pub(super) fn watch(&self, node: &Node, record: Option<&Record>) {
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
                let mut turn = Some(self.turns.to_start(Duration::ZERO));
                if let Err(fault) = self.await_running(node, &mut turn, By::Another) {
                    // It died while it was starting: it is started again as any that does.
                    let words = fault.to_string();
                    return self.means.board.say(&phase(&node.name), "starting again", State::Started, words);
                }
            }
        }
        let since = Instant::now();
        let places = Places::of(&self.means.paths, &node.name);
        while self.wanted(&node.name) != Wanted::Stopped && !places.waits() {
            let acks = self.means.board.take_acks(&node.name);
            self.hear(&node.name, &acks, since);
            if self.power(&node.name) == Some(Power::Off) {
                let again = self.wanted(&node.name) == Wanted::Running;
                let words = if again { "its vm ended; starting it again" } else { "its vm ended" };
                self.means.board.say(&phase(&node.name), "running", State::Failed, words);
                break;
            }
            let guard = self.lock();
            drop(
                self.changed
                    .wait_timeout(guard, Duration::from_secs(2))
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_ends_a_wait() {
        let (on, off) = (Some(Power::On), Some(Power::Off));
        for (power, late, is_up, by, then) in [
            (on, false, false, By::Us, Verdict::Wait),
            (on, false, true, By::Us, Verdict::Wait),
            (on, true, true, By::Us, Verdict::Ailing),
            (on, true, false, By::Us, Verdict::Unheard),
            (on, true, false, By::Another, Verdict::Ailing),
            (off, false, false, By::Another, Verdict::Ended),
            (off, true, true, By::Us, Verdict::Ended),
            (None, false, false, By::Us, Verdict::Wait),
            (None, true, true, By::Us, Verdict::Wait),
            (None, true, false, By::Another, Verdict::Wait),
        ] {
            assert_eq!(verdict(power, late, is_up, by), then, "{power:?} {late} {is_up} {by:?}");
        }
    }
}
