//! What `xl list` has said last, for as long as that is new enough for whoever asks.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatehouse_model::Fault;

use super::domain::Domains;

/// What was seen last; shared by all nodes' threads.
#[derive(Debug, Default)]
pub(super) struct Seen {
    now: Mutex<Now>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    /// Grows with whatever makes an answer doubtful that is on its way.
    doubts: u64,
    /// When somebody began to ask whose answer is not there yet.
    asking: Option<Instant>,
    /// The newest answer, and when it was asked for.
    last: Option<(Instant, Domains)>,
}

impl Seen {
    /// The domains as they were at most so long ago; `ask` is called without a lock. Whom an answer will do that is on
    /// its way waits for that, but no longer than it would do: an `xl` that hangs holds up its own caller alone.
    pub fn domains(
        &self,
        stale: Duration,
        ask: impl FnOnce() -> Result<Domains, Fault>,
    ) -> Result<Domains, Fault> {
        let mut now = self.lock();
        loop {
            if let Some((when, domains)) = &now.last
                && when.elapsed() < stale
            {
                return Ok(domains.clone());
            }
            let left = now.asking.and_then(|begun| stale.checked_sub(begun.elapsed()));
            let Some(left) = left.filter(|left| !left.is_zero()) else { break };
            now = self.answered.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (begun, doubts) = (Instant::now(), now.doubts);
        now.asking = Some(begun);
        drop(now);
        let answer = ask();
        self.take(begun, doubts, answer.as_ref().ok());
        answer
    }

    fn take(&self, begun: Instant, doubts: u64, answer: Option<&Domains>) {
        let mut now = self.lock();
        if now.asking == Some(begun) {
            now.asking = None;
        }
        let newest = now.last.as_ref().is_none_or(|(when, _)| *when < begun);
        if let Some(domains) = answer
            && now.doubts == doubts
            && newest
        {
            now.last = Some((begun, domains.clone()));
        }
        self.answered.notify_all();
    }

    /// Something has changed: what was seen, and what is being asked for, counts no more.
    pub fn doubt(&self) {
        let mut now = self.lock();
        *now = Now { doubts: now.doubts + 1, ..Now::default() };
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::domain::read_list;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn list(id: usize) -> Domains {
        read_list(&format!("heading\nce {id} 512 1 -b---- 1.0\n"))
    }

    /// Answers with how often it was asked.
    fn ask(count: &AtomicUsize) -> Domains {
        list(count.fetch_add(1, Ordering::SeqCst) + 1)
    }

    #[test]
    fn an_answer_counts_until_it_is_old_or_doubted() {
        let (seen, count) = (Seen::default(), AtomicUsize::new(0));
        let domains = |stale| seen.domains(stale, || Ok(ask(&count))).expect("answered");
        assert_eq!((domains(LONG), domains(LONG)), (list(1), list(1)));
        assert_eq!((domains(Duration::ZERO), domains(LONG)), (list(2), list(2)));
        seen.doubt();
        assert_eq!(domains(LONG), list(3));
        seen.domains(Duration::ZERO, || Err(Fault::new("no"))).expect_err("a fault is no answer");
        assert_eq!(domains(LONG), list(3));
        // What was asked for before something changed is not what there is after it.
        let before = seen.domains(Duration::ZERO, || {
            seen.doubt();
            Ok(ask(&count))
        });
        assert_eq!((before.expect("answered"), domains(LONG)), (list(4), list(5)));
    }

    #[test]
    fn one_question_serves_all_who_can_wait_and_holds_up_nobody_else() {
        let (seen, count) = (Seen::default(), AtomicUsize::new(0));
        let slow = || {
            while count.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            Ok(list(9))
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(|| seen.domains(LONG, slow).expect("answered"));
            while seen.lock().asking.is_none() {
                std::thread::yield_now();
            }
            let waits = scope.spawn(|| seen.domains(LONG, || Err(Fault::new("asked twice"))));
            // Its answer would be too old for this one.
            assert_eq!(seen.domains(Duration::ZERO, || Ok(ask(&count))).expect("answered"), list(1));
            assert_eq!(first.join().expect("no panic"), list(9));
            waits.join().expect("no panic").expect("one question for both");
        });
    }
}
