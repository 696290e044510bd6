//! Debian version numbers: epoch, upstream version and revision, compared as dpkg compares them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A version as Debian writes it; equal and ordered as dpkg sees it, so `1.0` equals `0:1.00`.
#[derive(Clone, Debug)]
pub struct Version {
    epoch: u32,
    upstream: String,
    revision: String,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} is not a Debian version: {why}"));
        let trimmed = text.trim();
        let (epoch, rest) = match trimmed.split_once(':') {
            None => (0, trimmed),
            Some((digits, rest)) => match digits.parse::<u32>() {
                Ok(epoch) if i32::try_from(epoch).is_ok() => (epoch, rest),
                Ok(_) | Err(_) => return wrong("its epoch is not a number"),
            },
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        if upstream.is_empty() {
            return wrong("it has no upstream part");
        }
        if rest.ends_with('-') {
            return wrong("its revision is empty");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-+._~:".contains(c);
        if !upstream.chars().all(allowed) || !revision.chars().all(|c| allowed(c) && c != ':') {
            return wrong("only letters, digits and - + . _ ~ : may stand in it");
        }
        Ok(Self { epoch, upstream: upstream.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch != 0 {
            write!(f, "{}:", self.epoch)?;
        }
        write!(f, "{}", self.upstream)?;
        if self.revision.is_empty() { Ok(()) } else { write!(f, "-{}", self.revision) }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream.as_bytes(), other.upstream.as_bytes()))
            .then_with(|| compare_part(self.revision.as_bytes(), other.revision.as_bytes()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// Weight of a byte in a run of non-digits: `~` before the end, the end before letters, letters before the rest.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) if !b.is_ascii_digit() => i32::from(b) + 256,
        None | Some(_) => 0,
    }
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let digit = |part: &[u8]| part.first().is_some_and(u8::is_ascii_digit);
    while !a.is_empty() || !b.is_empty() {
        while (!a.is_empty() && !digit(a)) || (!b.is_empty() && !digit(b)) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (x, y) = (take_number(&mut a), take_number(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the leading digits without their leading zeros.
fn take_number<'a>(part: &mut &'a [u8]) -> &'a [u8] {
    let end = part.iter().position(|b| !b.is_ascii_digit()).unwrap_or(part.len());
    let (number, rest) = part.split_at(end);
    *part = rest;
    let start = number.iter().position(|b| *b != b'0').unwrap_or(number.len());
    &number[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn compares_as_dpkg_does() {
        let table = [
            ("1.0", "1.0", Ordering::Equal),
            ("1.0", "0:1.0", Ordering::Equal),
            ("1.00", "1.0", Ordering::Equal),
            ("1.0-0", "1.0", Ordering::Equal),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0~~", "1.0~", Ordering::Less),
            ("1.0~~a", "1.0~", Ordering::Less),
            ("1.0", "1.0a", Ordering::Less),
            ("1.0a", "1.0+", Ordering::Less),
            ("1.0+b1", "1.0+deb13u1", Ordering::Less),
            ("1.0-1", "1.0-1+b1", Ordering::Less),
            ("1.0-1+deb13u2", "1.0-1+deb13u10", Ordering::Less),
            ("9", "10", Ordering::Less),
            ("1:0.1", "2.0", Ordering::Greater),
            ("2:1", "10:0", Ordering::Less),
            ("1.2.3", "1.2", Ordering::Greater),
            ("1-2-3", "1-2-4", Ordering::Less),
            ("6.12.107-1", "6.12.9-1", Ordering::Greater),
            ("257.13-1~deb13u1", "257.13-1", Ordering::Less),
            ("20240203", "20231127", Ordering::Greater),
            ("0.0a", "0.0.1", Ordering::Less),
        ];
        for (a, b, order) in table {
            assert_eq!(version(a).cmp(&version(b)), order, "{a} against {b}");
            assert_eq!(version(b).cmp(&version(a)), order.reverse(), "{b} against {a}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "a:1", "1:", "1-", "1 0", "1.0/2", "-1:1", "99999999999:1"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_is_identity(text in "([1-9]:)?[0-9][a-z0-9.+~]{0,8}(-[a-z0-9.+~]{1,4})?") {
            prop_assert_eq!(version(&text).to_string(), text);
        }

        #[test]
        fn the_order_is_total(a in "[0-9a~.+]{1,6}", b in "[0-9a~.+]{1,6}", c in "[0-9a~.+]{1,6}") {
            let (a, b, c) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
