//! What was refused to whom, told on the board: a few for each address in a while, so that a flood does not drive out
//! everything else that the board remembers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::tokens::boot_time;

/// How long the count of an address runs.
const WHILE: Duration = Duration::from_secs(60);
/// How many are told of one address in that time.
const TOLD: u64 = 5;
/// How many addresses are counted; those beyond share a count.
const MOST: usize = 16;
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The refusals of the last while, by address.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: Mutex<BTreeMap<IpAddr, Count>>,
}

#[derive(Debug)]
struct Count {
    begun: Duration,
    refused: u64,
}

impl Refusals {
    /// Counts a refusal, and whether it is to be told; with how many before it were not.
    pub(super) fn count(&self, from: IpAddr) -> Option<u64> {
        self.count_at(from, boot_time())
    }

    fn count_at(&self, from: IpAddr, now: Duration) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was not told to its end stays for somewhat longer, so that the next one says so.
        counts.retain(|_, count| {
            now < count.begun + WHILE || (count.refused > TOLD && now < count.begun + 10 * WHILE)
        });
        let from = if counts.len() < MOST || counts.contains_key(&from) { from } else { OTHERS };
        let count = counts.entry(from).or_insert(Count { begun: now, refused: 0 });
        let mut untold = 0;
        if now >= count.begun + WHILE {
            untold = count.refused.saturating_sub(TOLD);
            *count = Count { begun: now, refused: 0 };
        }
        count.refused += 1;
        (count.refused <= TOLD).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 2, number].into()
    }

    #[test]
    fn a_flood_is_counted_and_told_in_part() {
        let (refusals, start) = (Refusals::default(), Duration::from_secs(1000));
        let told = |from, seconds| refusals.count_at(address(from), start + Duration::from_secs(seconds));
        for _ in 0..TOLD {
            assert_eq!(told(1, 0), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(told(1, 59), None);
        }
        assert_eq!(told(2, 59), Some(0), "another one is not hidden by it");
        assert_eq!(told(1, 60), Some(100));
        assert_eq!(told(1, 61), Some(0));
        assert_eq!(told(2, 700), Some(0));
    }

    #[test]
    fn a_flood_from_everywhere_is_told_in_part_too() {
        let refusals = Refusals::default();
        let told = (0..=255).flat_map(|number| [number; 10]);
        let told =
            told.filter(|number| refusals.count_at(address(*number), Duration::ZERO).is_some()).count();
        assert_eq!(told, (MOST + 1) * 5);
    }
}
