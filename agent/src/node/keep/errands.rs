//! What the host orders of this node, done beside the daemon, which goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Fault, State};

use super::Node;
use crate::node::client::{Client, Home};
use crate::node::evaluate;
use crate::node::freeze::Frozen;
use crate::node::progress::Teller;
use crate::wire::{Given, Order, Outcome};

/// What an order's answer is tried again after, and how often: the server may be starting anew.
const AGAIN: Duration = Duration::from_secs(10);
const TRIES: u32 = 30;
/// How long the last progress of an order may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often a frozen node asks whether it may go on: all its services wait for it.
const FROZEN_LOOK: Duration = Duration::from_millis(100);

/// The order that is being carried out, if any.
#[derive(Clone, Debug, Default)]
pub(super) struct Errands {
    now: Arc<Mutex<Option<Now>>>,
}

#[derive(Debug)]
struct Now {
    id: String,
    stop: Arc<AtomicBool>,
}

/// What is done with what the server says of orders.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Go on as before.
    GoOn,
    /// Nobody waits for what is being done.
    Stop,
    /// Begin with this.
    Begin(Given),
}

fn turn(doing: Option<&str>, given: Option<Given>) -> Turn {
    match (doing, given) {
        (None, None) => Turn::GoOn,
        (None, Some(given)) => Turn::Begin(given),
        (Some(id), Some(given)) if given.id == id => Turn::GoOn,
        (Some(_), _) => Turn::Stop,
    }
}

impl Errands {
    /// Asks for an order and has it carried out in a thread of its own. A server that is away is asked again at the
    /// next look, as the profile is.
    pub(super) fn look(&self, node: &Node) {
        let mut now = self.lock();
        let Ok(given) = node.client.order() else { return };
        match turn(now.as_ref().map(|now| now.id.as_str()), given) {
            Turn::GoOn => {}
            Turn::Stop => {
                if let Some(now) = now.as_ref() {
                    now.stop.store(true, Ordering::Relaxed);
                }
            }
            Turn::Begin(given) => {
                // Without a profile nothing says what is to be done, and the answer says that.
                let profile = node.profile().unwrap_or_default();
                let stop = Arc::new(AtomicBool::new(false));
                *now = Some(Now { id: given.id.clone(), stop: Arc::clone(&stop) });
                let (home, client) = (node.home.clone(), node.client.clone());
                let errand = Errand { home, client, profile, stop, frozen: None };
                let all = self.clone();
                let spawned =
                    thread::Builder::new().name("order".into()).spawn(move || all.serve(errand, given));
                if spawned.is_err() {
                    *now = None;
                }
            }
        }
    }

    /// Carries orders out until there are none: one that came meanwhile is told of no more.
    fn serve(&self, mut errand: Errand, mut given: Given) {
        loop {
            errand.carry_out(&given);
            let early = errand.while_frozen(&given);
            let mut now = self.lock();
            *now = None;
            let Some(next) = early.or_else(|| errand.next(&given)) else { return };
            errand.stop = Arc::new(AtomicBool::new(false));
            *now = Some(Now { id: next.id.clone(), stop: Arc::clone(&errand.stop) });
            given = next;
        }
    }

    // A thread that panicked has at worst left an order that nobody carries out.
    fn lock(&self) -> MutexGuard<'_, Option<Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an order is carried out with.
#[derive(Debug)]
struct Errand {
    home: Home,
    client: Client,
    profile: Profile,
    stop: Arc<AtomicBool>,
    /// Between `freeze` and `thaw`.
    frozen: Option<Frozen>,
}

impl Errand {
    /// The order after this one, if there is one already.
    fn next(&self, last: &Given) -> Option<Given> {
        self.client.order().ok().flatten().filter(|next| next.id != last.id)
    }

    /// The order after this one, which a frozen node waits for as long as it is frozen.
    fn while_frozen(&mut self, last: &Given) -> Option<Given> {
        while self.frozen.as_mut().is_some_and(Frozen::holds) {
            let next = self.next(last);
            if next.is_some() {
                return next;
            }
            thread::sleep(FROZEN_LOOK);
        }
        None
    }

    fn freeze(&mut self, seconds: u16) -> Result<Outcome, Fault> {
        self.frozen = Some(Frozen::start(Duration::from_secs(seconds.into()))?);
        Ok(Outcome::Frozen)
    }

    fn carry_out(&mut self, given: &Given) {
        let outcome = match given.order {
            Order::Evaluate(counts) => self
                .told("evaluating", |tell| evaluate::by_order(&self.profile, counts, &self.stop, tell))
                .map(Outcome::Evaluated),
            Order::Freeze(seconds) => self.freeze(seconds),
            Order::Thaw => Ok(Outcome::Thawed(self.frozen.take().is_some_and(Frozen::end))),
        };
        let outcome = outcome.unwrap_or_else(|fault| Outcome::Failed(fault.render()));
        for _ in 0..TRIES {
            match self.client.answer_order(&given.id, &outcome) {
                Ok(()) => return,
                Err(fault) => eprint!("{}", fault.render()),
            }
            thread::sleep(AGAIN);
        }
    }

    /// Does something and tells the server how far it is: a line where something else is begun, and each percent.
    fn told<T>(
        &self,
        action: &str,
        work: impl FnOnce(&mut dyn FnMut(u8, &str)) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut teller = Teller::new(self.home.node.clone());
        teller.connect(self.client.clone());
        teller.say(action, State::Started, None, "");
        let mut last = None;
        let ended = work(&mut |percent, what| {
            let now = Some((percent, what.to_owned()));
            if now != last {
                teller.say(action, State::Progress, Some(percent), what);
                last = now;
            }
        });
        match &ended {
            Ok(_) => teller.say(action, State::Succeeded, None, ""),
            Err(fault) => teller.say(action, State::Failed, None, &fault.to_string()),
        }
        teller.finish(LAST_WORDS);
        ended
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_model::evaluation::Counts;

    use super::*;

    #[test]
    fn an_order_is_begun_once_and_stopped_when_nobody_waits() {
        let given = |id: &str| Given { id: id.into(), order: Order::Evaluate(Counts::default()) };
        for (doing, says, does) in [
            (None, None, Turn::GoOn),
            (None, Some(given("a")), Turn::Begin(given("a"))),
            (Some("a"), Some(given("a")), Turn::GoOn),
            (Some("a"), Some(given("b")), Turn::Stop),
            (Some("a"), None, Turn::Stop),
        ] {
            assert_eq!(turn(doing, says.clone()), does, "{doing:?} {says:?}");
        }
    }
}
