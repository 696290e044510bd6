//! Where a number lies on an axis, and which numbers are written on it.

/// Where the longest is more than so many times the shortest, a linear axis would hide the shortest.
const SPREAD: f64 = 20.0;

/// An axis from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Axis {
    /// From 0 to this, with a mark at every step.
    Linear { to: f64, step: f64 },
    /// From one power of ten to another.
    Logarithmic { from: i32, to: i32 },
}

impl Axis {
    /// An axis on which all of these can be read.
    pub(super) fn of(seconds: impl Iterator<Item = f64>) -> Self {
        let good: Vec<f64> = seconds.filter(|seconds| *seconds > 0.0).collect();
        let max = good.iter().copied().fold(0.0, f64::max);
        let min = good.iter().copied().fold(f64::INFINITY, f64::min);
        if good.is_empty() {
            return Self::Linear { to: 1.0, step: 0.25 };
        }
        if max <= SPREAD * min {
            let power = 10_f64.powi(exponent(max));
            let step = [0.2, 0.5, 1.0, 2.0].map(|part| part * power);
            let step = step.into_iter().find(|step| max / step <= 5.0).unwrap_or(2.0 * power);
            return Self::Linear { to: step * (max / step).ceil(), step };
        }
        // A bar of no length could not be seen.
        let from = if min < 1.5 * 10_f64.powi(exponent(min)) { exponent(min) - 1 } else { exponent(min) };
        let to = if max > 10_f64.powi(exponent(max)) { exponent(max) + 1 } else { exponent(max) };
        Self::Logarithmic { from, to }
    }

    /// Where this lies, from 0 to 1.
    pub(super) fn place(&self, seconds: f64) -> f64 {
        let place = match self {
            Self::Linear { to, .. } => seconds / to,
            Self::Logarithmic { from, to } => {
                (seconds.max(f64::MIN_POSITIVE).log10() - f64::from(*from)) / f64::from(to - from)
            }
        };
        place.clamp(0.0, 1.0)
    }

    /// The marks with what is written at them.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self {
            Self::Linear { to, step } => (0..=100)
                .map(|count| f64::from(count) * step)
                .take_while(|mark| *mark <= to * 1.001)
                .collect(),
            Self::Logarithmic { from, to } => (*from..=*to).map(|power| 10_f64.powi(power)).collect(),
        };
        values.into_iter().map(|value| (self.place(value), plain(value))).collect()
    }

    /// What it is called below it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "mean, seconds",
            Self::Logarithmic { .. } => "mean, seconds (logarithmic)",
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the exponent of any number of seconds is small")]
fn exponent(value: f64) -> i32 {
    // Just below a power of ten for want of digits is that power.
    (value.log10() + 1e-9).floor() as i32
}

/// A mark without digits that say nothing.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_follows_the_spread() {
        for (seconds, axis) in [
            (&[0.06, 10.3][..], Axis::Logarithmic { from: -2, to: 2 }),
            (&[0.01, 10.0], Axis::Logarithmic { from: -3, to: 1 }),
            (&[1.0, 4.2], Axis::Linear { to: 5.0, step: 1.0 }),
            (&[0.001, 0.0012], Axis::Linear { to: 0.0014, step: 0.0005 }),
            (&[], Axis::Linear { to: 1.0, step: 0.25 }),
            (&[0.0], Axis::Linear { to: 1.0, step: 0.25 }),
        ] {
            let found = Axis::of(seconds.iter().copied());
            match (&found, &axis) {
                // 0.0012 needs three steps of 0.0005, whatever the last digit is.
                (Axis::Linear { to, step }, Axis::Linear { step: wanted, .. }) => {
                    assert!((step - wanted).abs() < 1e-9, "{seconds:?}: {found:?}");
                    assert!(seconds.iter().all(|seconds| seconds <= to), "{seconds:?}: {found:?}");
                }
                _ => assert_eq!(found, axis, "{seconds:?}"),
            }
        }
    }

    #[test]
    fn marks_lie_on_the_axis() {
        let marks = Axis::Logarithmic { from: -2, to: 2 }.marks();
        let words: Vec<&str> = marks.iter().map(|(_, word)| word.as_str()).collect();
        assert_eq!(words, ["0.01", "0.1", "1", "10", "100"]);
        assert!((marks[2].0 - 0.5).abs() < 1e-9);
        let linear = Axis::of([1.0, 4.2].into_iter());
        assert_eq!(linear.marks().last().map(|(place, word)| (*place, word.as_str())), Some((1.0, "5")));
    }
}
