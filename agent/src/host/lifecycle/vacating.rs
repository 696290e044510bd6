//! Nodes whose VMs a change of the site ends. The memory of a VM that shuts down is not there for another one yet, and
//! a vmm does not wait for it: it refuses.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::NodeName;

/// Those that are on their way out.
#[derive(Debug, Default)]
pub(super) struct Vacating {
    now: Mutex<BTreeSet<NodeName>>,
    changed: Condvar,
}

impl Vacating {
    /// A VM is about to be ended.
    pub fn begin(&self, node: &NodeName) {
        self.lock().insert(node.clone());
    }

    /// It is off, or will not go off.
    pub fn end(&self, node: &NodeName) {
        self.lock().remove(node);
        self.changed.notify_all();
    }

    /// Waits until all are off, but no longer than that: the vmm then says what is missing.
    pub fn wait(&self, at_most: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |now| !now.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn who_comes_waits_for_all_who_go() {
        let (vacating, done) = (Vacating::default(), AtomicBool::new(false));
        let [first, second]: [NodeName; 2] = ["ce", "se"].map(|name| name.parse().expect("a name"));
        vacating.wait(Duration::from_secs(60));
        vacating.begin(&first);
        vacating.begin(&second);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                vacating.wait(Duration::from_secs(60));
                assert!(done.load(Ordering::SeqCst), "one was still there");
            });
            vacating.end(&first);
            std::thread::sleep(SHORT);
            done.store(true, Ordering::SeqCst);
            vacating.end(&second);
        });
        // One that never goes keeps nobody for ever.
        vacating.begin(&first);
        let begun = Instant::now();
        vacating.wait(SHORT);
        assert!(begun.elapsed() >= SHORT);
    }
}
