//! What the host orders of its nodes: one thing of a node at a time. A node fetches it, and answers it once.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::{Exit, Fault, NodeName};

use super::tokens::{boot_time, secret};
use crate::wire::{Given, Order, Outcome};

/// How long a node may take to fetch an order: it is told of it every second or two, and may have to do a changed
/// profile first.
const UNSEEN: Duration = Duration::from_secs(300);

/// The orders that are out.
#[derive(Debug, Default)]
pub struct Orders {
    out: Mutex<BTreeMap<NodeName, Out>>,
    answered: Condvar,
}

#[derive(Debug)]
struct Out {
    given: Given,
    /// When it was given, and when it ends; of the time since the machine's start, which nobody sets.
    since: Duration,
    ends: Duration,
    seen: bool,
    outcome: Option<Outcome>,
}

/// Whoever waits for an order; it is withdrawn when this is dropped.
#[derive(Debug)]
pub struct Pending<'a> {
    orders: &'a Orders,
    node: NodeName,
}

impl Orders {
    /// Gives a node an order, which lapses after so long.
    ///
    /// # Errors
    /// It has one.
    pub fn give(&self, node: &NodeName, order: Order, at_most: Duration) -> Result<Pending<'_>, Fault> {
        self.give_at(node, order, at_most, boot_time())
    }

    fn give_at(
        &self,
        node: &NodeName,
        order: Order,
        at_most: Duration,
        now: Duration,
    ) -> Result<Pending<'_>, Fault> {
        let mut out = self.lock();
        if out.contains_key(node) {
            return Err(Fault::new(format!("{node} has an order already"))
                .help("wait until it has carried that out")
                .exit(Exit::InUse));
        }
        let given = Given { id: secret(), order };
        let ends = now.saturating_add(at_most);
        out.insert(node.clone(), Out { given, since: now, ends, seen: false, outcome: None });
        Ok(Pending { orders: self, node: node.clone() })
    }

    /// What is ordered of a node now.
    pub(super) fn of(&self, node: &NodeName) -> Option<Given> {
        let mut out = self.lock();
        let order = out.get_mut(node).filter(|order| order.outcome.is_none())?;
        order.seen = true;
        Some(order.given.clone())
    }

    /// Takes a node's answer; whether anybody waits for it.
    pub(super) fn answer(&self, node: &NodeName, id: &str, outcome: Outcome) -> bool {
        let mut out = self.lock();
        let order = out.get_mut(node).filter(|order| order.given.id == id && order.outcome.is_none());
        let waited = order.map(|order| order.outcome = Some(outcome)).is_some();
        self.answered.notify_all();
        waited
    }

    /// The nodes that have not fetched their order.
    pub(super) fn unseen(&self) -> Vec<NodeName> {
        self.lock().iter().filter(|(_, order)| !order.seen).map(|(node, _)| node.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Out>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    /// The node's answer, if it comes within so long.
    ///
    /// # Errors
    /// The node has not fetched the order in time, or not answered it.
    pub fn wait(&self, at_most: Duration) -> Result<Option<Outcome>, Fault> {
        let waits = |out: &mut BTreeMap<NodeName, Out>| {
            out.get(&self.node).is_some_and(|order| order.outcome.is_none())
        };
        let waited = self.orders.answered.wait_timeout_while(self.orders.lock(), at_most, waits);
        drop(waited);
        self.look(boot_time())
    }

    fn look(&self, now: Duration) -> Result<Option<Outcome>, Fault> {
        let mut out = self.orders.lock();
        let Some(order) = out.get_mut(&self.node) else { return Ok(None) };
        if let Some(outcome) = order.outcome.take() {
            return Ok(Some(outcome));
        }
        if !order.seen && now > order.since + UNSEEN {
            return Err(Fault::new(format!("{} has not asked what to do", self.node))
                .help(format!("look at its client: `journalctl -u gatehouse-client` on {}", self.node)));
        }
        if now > order.ends {
            return Err(Fault::new(format!("{} has not done in time what it was told", self.node)));
        }
        Ok(None)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.orders.lock().remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_model::evaluation::Counts;

    use super::*;

    const ORDER: Order = Order::Evaluate(Counts { runs: 1, slow_runs: 1 });
    const HOUR: Duration = Duration::from_secs(3600);

    fn node() -> NodeName {
        "ui".parse().expect("a name")
    }

    #[test]
    fn a_node_has_one_order_until_it_is_answered_or_nobody_waits() {
        let orders = Orders::default();
        assert_eq!(orders.of(&node()), None);
        let pending = orders.give(&node(), ORDER, HOUR).expect("the first");
        assert!(orders.give(&node(), ORDER, HOUR).is_err(), "one at a time");
        assert_eq!(orders.unseen(), [node()]);
        let given = orders.of(&node()).expect("it is there");
        assert_eq!(orders.of(&node()), Some(given.clone()), "a node that starts anew gets it again");
        assert_eq!(orders.unseen(), []);
        assert_eq!(pending.wait(Duration::ZERO).expect("in time"), None);
        let outcome = Outcome::Failed("no".into());
        assert!(!orders.answer(&node(), "other", outcome.clone()));
        assert!(orders.answer(&node(), &given.id, outcome.clone()));
        assert!(!orders.answer(&node(), &given.id, Outcome::Failed("again".into())));
        assert_eq!(orders.of(&node()), None, "it is done");
        assert_eq!(pending.wait(HOUR).expect("in time"), Some(outcome.clone()));
        drop(pending);
        drop(orders.give(&node(), ORDER, HOUR).expect("the next"));
        assert_eq!(orders.of(&node()), None, "withdrawn");
        assert!(!orders.answer(&node(), &given.id, outcome));
    }

    #[test]
    fn an_order_that_nobody_fetches_or_answers_ends() {
        let orders = Orders::default();
        let start = Duration::from_secs(1000);
        let pending = orders.give_at(&node(), ORDER, HOUR, start).expect("given");
        assert!(pending.look(start + UNSEEN).is_ok());
        let fault = pending.look(start + UNSEEN + Duration::from_secs(1)).expect_err("unseen");
        assert!(fault.to_string().contains("has not asked"), "{fault}");
        orders.of(&node()).expect("fetched");
        assert!(pending.look(start + HOUR).is_ok());
        assert!(pending.look(start + HOUR + Duration::from_secs(1)).is_err());
    }
}
