//! The order in which nodes are installed, and installed ones started, when the host has started: that of the site.

use std::sync::{Condvar, Mutex, PoisonError};

use gatehouse_model::NodeName;

/// Whose turn is yet to come, the next one first. Whoever is not in it waits for nobody.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Vec<NodeName>>,
    moved: Condvar,
}

impl Queue {
    pub fn new(nodes: Vec<NodeName>) -> Self {
        Self { waiting: Mutex::new(nodes), moved: Condvar::new() }
    }

    /// Waits until nobody is before a node.
    pub fn wait(&self, node: &NodeName) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.iter().position(|other| other == node).is_some_and(|place| place > 0) {
            waiting = self.moved.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A node has had its turn, or needs none.
    pub fn leave(&self, node: &NodeName) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != node);
        self.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nodes_come_in_their_order_whoever_asks_first() {
        let names: Vec<NodeName> =
            ["ce", "se", "ui", "wn"].map(|name| name.parse().expect("a name")).to_vec();
        let queue = Arc::new(Queue::new(names[..3].to_vec()));
        let order = Arc::new(Mutex::new(Vec::new()));
        // One that is not in the queue waits for nobody.
        queue.wait(&names[3]);
        let threads: Vec<_> = names[1..3]
            .iter()
            .rev()
            .cloned()
            .map(|name| {
                let (queue, order) = (Arc::clone(&queue), Arc::clone(&order));
                std::thread::spawn(move || {
                    queue.wait(&name);
                    order.lock().expect("whole").push(name.to_string());
                    queue.leave(&name);
                })
            })
            .collect();
        queue.wait(&names[0]);
        assert!(order.lock().expect("whole").is_empty());
        queue.leave(&names[0]);
        for thread in threads {
            thread.join().expect("it ended");
        }
        assert_eq!(*order.lock().expect("whole"), ["se", "ui"]);
    }
}
