//! How many nodes are busy at the same time: one for each processor. More of them would only wait for each other,
//! and an emulated machine loses time at every change between them.

use std::fs;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Here Xen's host finds the machine's processors, of which it has only some itself.
const XENS: &str = "/sys/devices/system/xen_cpu";

/// Places for busy nodes.
#[derive(Debug)]
pub(super) struct Turns {
    places: usize,
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    taken: usize,
    /// How many installs wait: they go before all starts, so that the site is soon whole and what starts last has
    /// company. A machine with one busy node and idle processors is a machine that is late.
    installs: usize,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// A place for each processor.
    pub fn of_this_machine() -> Self {
        let own = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(xens(Path::new(XENS)).unwrap_or_else(own))
    }

    fn new(places: usize) -> Self {
        Self { places, now: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for a place to install a node.
    pub fn to_install(&self) -> Turn<'_> {
        let mut now = self.lock();
        now.installs += 1;
        let full = |now: &mut Now| now.taken >= self.places;
        let mut now = self.changed.wait_while(now, full).unwrap_or_else(PoisonError::into_inner);
        now.installs -= 1;
        now.taken += 1;
        // A start that has waited for this install alone may go on.
        self.changed.notify_all();
        Turn(self)
    }

    /// Waits for a place to start a node, no longer than that: then it takes one more than there are.
    pub fn to_start(&self, at_most: Duration) -> Turn<'_> {
        let full = |now: &mut Now| now.taken >= self.places || now.installs > 0;
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, full);
        waited.unwrap_or_else(PoisonError::into_inner).0.taken += 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_all();
    }
}

/// How many processors Xen has; none without it.
fn xens(dir: &Path) -> Option<usize> {
    let names =
        fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let number =
        |name: &str| name.strip_prefix("xen_cpu").is_some_and(|number| number.parse::<u32>().is_ok());
    Some(names.filter(|name| number(name)).count()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn under_xen_all_processors_of_the_machine_count() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(xens(dir.path()), None);
        for name in ["xen_cpu0", "xen_cpu1", "xen_cpu12", "power", "uevent"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        assert_eq!(xens(dir.path()), Some(3));
        assert_eq!(xens(&dir.path().join("none")), None);
    }

    #[test]
    fn a_start_waits_but_not_for_ever() {
        let turns = Turns::new(1);
        let first = turns.to_install();
        let late = turns.to_start(SHORT);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.to_install()));
            drop(first);
            std::thread::sleep(SHORT);
            assert!(!waiting.is_finished(), "the late one still has a place");
            drop(late);
        });
        assert_eq!(turns.lock().taken, 0);
    }

    #[test]
    fn installs_go_before_starts_that_came_earlier() {
        let turns = Turns::new(1);
        let order = Mutex::new(Vec::new());
        let note = |name| order.lock().expect("whole").push(name);
        let held = turns.to_install();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _turn = turns.to_start(LONG);
                note("start");
            });
            std::thread::sleep(SHORT);
            scope.spawn(|| {
                let _turn = turns.to_install();
                note("install");
            });
            while turns.lock().installs == 0 {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(*order.lock().expect("whole"), ["install", "start"]);
    }
}
