//! How many nodes are busy at the same time: one for each processor. More of them would only wait for each other,
//! and an emulated machine loses time at every change between them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Places for busy nodes.
#[derive(Debug)]
pub(super) struct Turns {
    places: usize,
    taken: Mutex<usize>,
    changed: Condvar,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// A place for each processor.
    pub fn of_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    fn new(places: usize) -> Self {
        Self { places, taken: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits for a place, no longer than that if it is given: then it takes one more than there are.
    pub fn take(&self, at_most: Option<Duration>) -> Turn<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut usize| *taken >= self.places;
        let mut taken = match at_most {
            Some(time) => {
                let waited = self.changed.wait_timeout_while(taken, time, full);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner),
        };
        *taken += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_waited_for_but_not_for_ever() {
        let turns = Turns::new(1);
        let first = turns.take(None);
        let late = turns.take(Some(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.take(None)));
            drop(first);
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished(), "the late one still has a place");
            drop(late);
        });
        assert_eq!(*turns.taken.lock().expect("whole"), 0);
    }
}
