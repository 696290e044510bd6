//! The site that counts, as it is now: site.toml and site.lock, which a running machine takes up anew when they are
//! changed. Whoever works with a node for longer keeps what it began with; whoever begins asks again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::{Lock, Site};

/// One state of the site.
#[derive(Debug)]
pub struct SiteState {
    /// site.toml.
    pub site: Site,
    /// site.lock.
    pub lock: Lock,
    /// Counts the changes since the agent's start, from 0.
    pub generation: u64,
}

/// The site; shared by reference between threads.
#[derive(Debug)]
pub struct Current {
    state: Mutex<Arc<SiteState>>,
    changed: Condvar,
}

impl Current {
    /// The site at the agent's start.
    pub fn new(site: Site, lock: Lock) -> Self {
        Self { state: Mutex::new(Arc::new(SiteState { site, lock, generation: 0 })), changed: Condvar::new() }
    }

    /// The site as it is now.
    pub fn get(&self) -> Arc<SiteState> {
        Arc::clone(&self.locked())
    }

    /// Takes up a changed site; whoever waits for one is woken.
    pub fn replace(&self, site: Site, lock: Lock) -> Arc<SiteState> {
        let mut state = self.locked();
        *state = Arc::new(SiteState { site, lock, generation: state.generation + 1 });
        self.changed.notify_all();
        Arc::clone(&state)
    }

    /// The site once it is newer than a generation, or as it is when the time is over.
    pub fn newer_than(&self, generation: u64, at_most: Duration) -> Arc<SiteState> {
        let old = |state: &mut Arc<SiteState>| state.generation <= generation;
        let waited = self.changed.wait_timeout_while(self.locked(), at_most, old);
        Arc::clone(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    // A thread that panicked while it held the lock has changed nothing in part.
    fn locked(&self) -> MutexGuard<'_, Arc<SiteState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
