//! When a long step is told of again where there are no bars: never twice of the same percent, seldom, but before
//! anyone asks whether it still goes on.

use std::time::Duration;

/// No two lines of one step are nearer than this.
const SHORTEST: Duration = Duration::from_secs(2);
/// After so long a line is due even if little has changed.
const LONGEST: Duration = Duration::from_secs(10);

/// The last line of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    percent: u64,
    at: Duration,
}

impl Pace {
    /// Whether a line is due at so many percent, so long after the step's beginning; it is then the last one.
    pub fn due(&mut self, percent: u64, at: Duration) -> bool {
        let since = at.saturating_sub(self.at);
        let far = percent / 10 > self.percent / 10 && since >= SHORTEST;
        // The line that ends the step says that all is done.
        let due = percent < 100 && (far || (percent > self.percent && since >= LONGEST));
        if due {
            *self = Self { percent, at };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_ten_percent_or_ten_seconds() {
        let told = |steps: &[(u64, u64)]| -> Vec<u64> {
            let mut pace = Pace::default();
            let due = steps.iter().filter(|(percent, at)| pace.due(*percent, Duration::from_secs(*at)));
            due.map(|(percent, _)| *percent).collect()
        };
        assert_eq!(told(&[(1, 1), (11, 3), (19, 4), (20, 4), (21, 6), (99, 8)]), [11, 21, 99]);
        assert_eq!(told(&[(3, 9), (4, 11), (5, 12), (6, 21)]), [4, 6]);
        assert_eq!(told(&[(98, 3), (98, 13), (98, 40), (99, 41), (100, 60)]), [98, 99]);
        assert!(told(&[(50, 1), (100, 2)]).is_empty());
    }
}
