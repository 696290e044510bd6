//! Sends the reports that wait, in order, for as long as it takes: until the receiver has them or refuses them for good.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use gatehouse_model::site::ReportTo;
use gatehouse_model::{Doing as _, Fault, State};

use super::queue::{Queue, Verdict};
use super::send::{post, sign};
use crate::control::Reports;
use crate::control::board::Board;
use crate::current::Current;

/// The pause after the first try that came to nothing; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest: a network that comes is used soon, and one that never does costs nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
const PHASE: &str = "report";

/// Who sends the reports of a machine.
#[derive(Debug)]
pub struct Outbox {
    queue: Queue,
    current: Arc<Current>,
    board: Arc<Board>,
    /// Held by whoever sends: no report goes out twice at once.
    sending: Mutex<()>,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Reports that the receiver has now.
    pub sent: usize,
    /// Reports that it refused.
    pub refused: usize,
    /// Reports that still wait.
    pub waiting: usize,
}

impl Outbox {
    /// Who sends what is in a queue to the site's `report.url`, as long as it has one.
    pub fn new(queue: Queue, current: Arc<Current>, board: Arc<Board>) -> Self {
        Self { queue, current, board, sending: Mutex::default() }
    }

    /// Sends in a thread of its own, until this process ends; nothing waits for it.
    pub fn start(self: &Arc<Self>) -> Result<(), Fault> {
        let outbox = Arc::clone(self);
        let work = move || outbox.go_on();
        thread::Builder::new().name(PHASE.into()).spawn(work).map(drop).doing(|| "starting a thread")
    }

    fn go_on(&self) {
        let mut tries = 0;
        loop {
            let generation = self.current.get().generation;
            let waits = match self.round() {
                Ok(round) => round.waiting > 0,
                Err(fault) => {
                    self.board.remark("report", &fault.to_string());
                    true
                }
            };
            tries = if waits { tries + 1 } else { 0 };
            // A changed site may have another address.
            if self.current.newer_than(generation, pause(tries)).generation > generation {
                tries = 0;
            }
        }
    }

    /// Tries every report that waits, oldest first, up to the first that cannot be taken now.
    ///
    /// # Errors
    /// The queue cannot be read, or the machine has no key.
    pub fn round(&self) -> Result<Round, Fault> {
        let _only = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.current.get();
        let Some(to) = &now.site.report else {
            self.board.remark("report", "");
            return Ok(Round::default());
        };
        let mut round = Round::default();
        for queued in self.queue.list()?.iter().filter(|queued| queued.waits_for(&to.url)) {
            if round.waiting > 0 {
                round.waiting += 1;
                continue;
            }
            let body = self.queue.body(queued)?;
            let answer = post(to, &body, &sign(self.queue.key(), &body)?);
            self.queue.note(queued, &answer)?;
            let action = format!("sending report {}", queued.number);
            let (state, count) = match answer.verdict {
                Verdict::Accepted => (State::Succeeded, &mut round.sent),
                Verdict::Refused => (State::Failed, &mut round.refused),
                Verdict::Later => (State::Progress, &mut round.waiting),
            };
            *count += 1;
            if queued.answer.as_ref().is_none_or(|old| old.words != answer.words) {
                self.board.say(PHASE, &action, state, format!("{}: {}", to.url, answer.words));
            }
        }
        self.board.remark("report", &self.remark(to)?);
        Ok(round)
    }

    /// What a person should know of the queue, in one line; empty if all is well.
    fn remark(&self, to: &ReportTo) -> Result<String, Fault> {
        for queued in self.queue.list()? {
            match &queued.answer {
                Some(answer) if answer.verdict == Verdict::Refused && answer.url == to.url => {
                    return Ok(format!(
                        "report {} is refused by {}: {}",
                        queued.number, to.url, answer.words
                    ));
                }
                Some(answer) if answer.verdict == Verdict::Later => {
                    let told = format!("report {} waits to be sent to {}", queued.number, to.url);
                    return Ok(format!("{told}: {}", answer.words));
                }
                _ => {}
            }
        }
        Ok(String::new())
    }
}

impl Reports for Outbox {
    fn send(&self) -> Result<String, Fault> {
        if self.current.get().site.report.is_none() {
            return Err(Fault::new("the site does not say where reports go")
                .help("write url = \"https://…\" under [report] in site.toml, and push it"));
        }
        self.queue.forgive()?;
        let round = self.round()?;
        Ok(format!("{} sent, {} refused, {} waiting\n", round.sent, round.refused, round.waiting))
    }
}

/// How long to wait after so many tries in a row that came to nothing; without one there is nothing to do.
fn pause(tries: u32) -> Duration {
    let doubled =
        2_u32.checked_pow(tries.saturating_sub(1)).and_then(|factor| FIRST_PAUSE.checked_mul(factor));
    if tries == 0 { LONGEST_PAUSE } else { doubled.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE)) }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
