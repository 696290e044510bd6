//! The board of a trial's machine: what its agent says of phases and nodes, asked for without waiting for the answer.

use std::process::Command;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use gatehouse_model::Fault;
use serde::Deserialize;

use super::ssh;

/// So long after the last event the board is asked for, because an event may have been lost.
const QUIET: Duration = Duration::from_secs(20);
/// So long after it was asked for last it is asked for even among events: an emulated machine takes seconds to answer.
const BUSY: Duration = Duration::from_secs(120);

/// The board.
#[derive(Clone, Debug, Deserialize)]
pub struct Board {
    /// The host's phases.
    pub phases: Vec<PhaseLine>,
    /// The nodes, in the site's order.
    pub nodes: Vec<NodeLine>,
}

/// One node's line of the board, as the agent's `gatectl status --json` prints it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeLine {
    /// The node's name.
    pub name: String,
    /// How it stands.
    pub state: String,
    /// Its address on the site's network.
    pub address: String,
    /// How long its last install took.
    pub install_seconds: Option<f64>,
    /// The phases of that.
    #[serde(default)]
    pub phases: Vec<PhaseLine>,
    /// What is told of it.
    #[serde(default)]
    pub message: String,
}

/// One phase with its seconds.
#[derive(Clone, Debug, Deserialize)]
pub struct PhaseLine {
    /// What it is called.
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
}

impl Board {
    /// What a command that asks for it prints; none while the machine does not answer.
    pub fn of(mut ask: Command) -> Option<Self> {
        let output = ask.output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// The board once every node is up; a fault once one has failed.
    ///
    /// # Errors
    /// One has failed.
    pub fn settled(self, ways: &ssh::Ways) -> Result<Option<Self>, Fault> {
        if let Some(node) = self.nodes.iter().find(|node| node.state == "failed") {
            return Err(Fault::new(format!("node {} failed: {}", node.name, node.message)));
        }
        // Others come when somebody starts them.
        let up = self.nodes.iter().all(|node| node.state == "running" || !ways.awaits(&node.name));
        Ok(up.then_some(self))
    }
}

/// Asks for the board when it may have changed, one question at a time, in a thread of its own: a machine that does not
/// answer keeps nobody waiting.
#[derive(Debug)]
pub struct Asker {
    answer: Option<Receiver<Option<Board>>>,
    changed: bool,
    event: Instant,
    asked: Instant,
}

impl Asker {
    /// Nothing was asked yet.
    pub fn new(now: Instant) -> Self {
        Self { answer: None, changed: false, event: now, asked: now }
    }

    /// An event came, which may have changed the board.
    pub fn heard(&mut self, changed: bool) {
        self.changed |= changed;
        self.event = Instant::now();
    }

    /// Asks if it is time to, by such a command; the board if an answer came.
    pub fn board(&mut self, ask: impl FnOnce() -> Command) -> Option<Board> {
        if let Some(answer) = &self.answer {
            let answer = answer.try_recv();
            if !matches!(answer, Err(TryRecvError::Empty)) {
                self.answer = None;
                self.asked = Instant::now();
            }
            return answer.ok().flatten();
        }
        if due(self.changed, self.event.elapsed(), self.asked.elapsed()) {
            let (sender, answer) = channel();
            let command = ask();
            // Nobody waits for an answer that comes after the end.
            std::thread::spawn(move || drop(sender.send(Board::of(command))));
            (self.answer, self.changed) = (Some(answer), false);
        }
        None
    }
}

/// Whether the board is asked for, so long after the last event and the last answer.
fn due(changed: bool, event: Duration, answer: Duration) -> bool {
    changed || (event >= QUIET && answer >= QUIET) || answer >= BUSY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_is_asked_for_where_no_event_comes() {
        for (changed, event, answer, asked) in [
            (true, 0, 0, true),
            (false, 19, 60, false),
            (false, 60, 19, false),
            (false, 20, 20, true),
            (false, 1, 119, false),
            (false, 1, 120, true),
        ] {
            let found = due(changed, Duration::from_secs(event), Duration::from_secs(answer));
            assert_eq!(found, asked, "{changed} {event} {answer}");
        }
    }

    #[test]
    fn an_answer_comes_later_and_once() {
        let mut asker = Asker::new(Instant::now());
        let ask = || {
            let mut command = Command::new("echo");
            command.arg("{\"phases\": [], \"nodes\": []}");
            command
        };
        assert!(asker.board(ask).is_none() && asker.answer.is_none(), "nothing has changed");
        asker.heard(true);
        let mut found = None;
        for _ in 0..1000 {
            found = asker.board(ask);
            if found.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(found.is_some_and(|board| board.nodes.is_empty()));
        assert!(asker.board(ask).is_none() && asker.answer.is_none());
    }
}
