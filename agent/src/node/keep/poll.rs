//! When the client looks for a new profile without being told: `client.poll`, and pauses while a server is away.

use std::time::Duration;

/// How often, and how much at random on top, so that a thousand nodes do not come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The least time between two looks.
    pub every: Duration,
    /// The most that is added to it.
    pub spread: Duration,
}

/// What holds where the profile says nothing that can be understood.
pub const USUAL: Poll = Poll { every: Duration::from_secs(600), spread: Duration::from_secs(120) };
/// Nobody looks more often than this.
const SHORTEST: Duration = Duration::from_secs(5);
/// The first and the longest pause while the server is away.
const AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Poll {
    /// Reads `10m+2m`: hours, minutes or seconds, and after a plus sign the spread.
    ///
    /// # Errors
    /// It is something else; what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (every, spread) = text.trim().split_once('+').unwrap_or((text.trim(), "0s"));
        let poll = duration(every).zip(duration(spread));
        let (every, spread) =
            poll.ok_or_else(|| format!("{text:?} is not a time; write for example 10m+2m"))?;
        Ok(Self { every: every.max(SHORTEST), spread })
    }

    /// The time until the next look, with a random number.
    pub fn next(self, random: u32) -> Duration {
        self.every + self.spread.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let factor = match text.chars().last()? {
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(factor).filter(|seconds| *seconds < 366 * 86_400).map(Duration::from_secs)
}

/// The pause after so many failed attempts in a row: longer each time, and with a part at random.
pub fn pause(failures: u32, random: u32) -> Duration {
    let (first, longest) = AWAY;
    let doubled = first.saturating_mul(1 << failures.min(10)).min(longest);
    doubled.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

/// A random number; the clock's fractions where the kernel has none yet.
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| {
        use std::io::Read as _;
        file.read_exact(&mut bytes)
    });
    match read {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos().wrapping_mul(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_of_lcfg() {
        let poll =
            |every, spread| Poll { every: Duration::from_secs(every), spread: Duration::from_secs(spread) };
        for (text, expected) in [
            ("10m+2m", poll(600, 120)),
            ("1h", poll(3600, 0)),
            (" 30s + 15s ", poll(30, 15)),
            ("2h+30m", poll(7200, 1800)),
            ("1s", poll(5, 0)),
        ] {
            assert_eq!(Poll::parse(text), Ok(expected), "{text}");
        }
        for text in
            ["", "10", "m", "10m+", "+2m", "-1m", "1d", "1.5h", "10m+2m+1m", "99999999999999999999s", "9é"]
        {
            assert!(Poll::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn looks_are_spread_and_pauses_grow() {
        let poll = Poll::parse("10m+2m").expect("right");
        assert_eq!(poll.next(0), Duration::from_secs(600));
        assert_eq!(poll.next(u32::MAX), Duration::from_secs(720));
        let whole: Vec<u64> = (0..9).map(|failures| pause(failures, u32::MAX).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(pause(40, 0) >= Duration::from_secs(40));
    }
}
