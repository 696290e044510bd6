//! The same work on many things, several at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gatehouse_model::Fault;

/// As many threads as there are processors.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// Does something to all items, so many at a time, and answers in their order; the first fault ends it.
///
/// # Errors
/// The fault of the first item, in the items' order, that has one.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, Fault> + Sync,
) -> Result<Vec<R>, Fault> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    results.lock().expect("no thread panics while it holds this").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("all threads have ended");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Two pieces of work at the same time.
///
/// # Errors
/// The first one's fault, else the second one's.
pub fn both<A: Send, B: Send>(
    first: impl FnOnce() -> Result<A, Fault> + Send,
    second: impl FnOnce() -> Result<B, Fault> + Send,
) -> Result<(A, B), Fault> {
    std::thread::scope(|scope| {
        let other = scope.spawn(second);
        let first = first();
        let second = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((first?, second?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_items_order() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(each(&items, 4, |item| Ok(*item * 2)).expect("no faults")[99], 198);
        let fault =
            each(&items, 1, |item| if *item > 7 { Err(Fault::new(item.to_string())) } else { Ok(()) });
        assert_eq!(fault.expect_err("from 8 on").to_string(), "8");
    }

    #[test]
    fn both_are_done_and_the_first_fault_counts() {
        assert_eq!(both(|| Ok(1), || Ok("b")).expect("no faults"), (1, "b"));
        let bad = |text: &'static str| move || Err::<(), _>(Fault::new(text));
        assert_eq!(both(bad("a"), bad("b")).expect_err("two faults").to_string(), "a");
        assert_eq!(both(|| Ok(()), bad("b")).expect_err("a fault").to_string(), "b");
    }
}
