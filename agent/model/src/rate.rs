//! Rates with a unit: of disks in bytes, of networks in bits, as those who sell them count.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes a second; read and written with a binary unit (`50MiB/s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(u64);

/// Bits a second; read and written with a decimal unit (`100Mbit/s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(u64);

const BYTES: [(&str, u64); 3] = [("GiB/s", 1 << 30), ("MiB/s", 1 << 20), ("KiB/s", 1 << 10)];
const BITS: [(&str, u64); 3] = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)];

impl ByteRate {
    /// The lowest that can be written: below it a node would not come up in any reasonable time.
    const LOWEST: u64 = 64 << 10;

    /// The number of bytes a second.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl BitRate {
    /// The lowest that can be written, in which a profile still takes seconds only.
    const LOWEST: u64 = 64_000;

    /// The number of bits a second.
    pub const fn as_bits(self) -> u64 {
        self.0
    }
}

fn read(text: &str, units: [(&str, u64); 3], lowest: u64) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let [large, middle, small] = units.map(|(name, _)| name);
    let Some((_, factor)) = units.into_iter().find(|(name, _)| *name == unit) else {
        return Err(format!("rate {text:?} has no unit that is known; write {small}, {middle} or {large}"));
    };
    let number: u64 = digits.parse().map_err(|_| {
        format!("rate {text:?} is not a whole number and a unit; write for example 50{middle}")
    })?;
    let rate = number.checked_mul(factor).filter(|rate| (lowest..=1 << 50).contains(rate));
    rate.ok_or_else(|| format!("rate {text:?} is out of range; write {} or more", written(lowest, units)))
}

fn written(rate: u64, units: [(&str, u64); 3]) -> String {
    let whole = units.into_iter().find(|(_, factor)| rate.is_multiple_of(*factor));
    let (unit, factor) = whole.unwrap_or(units[2]);
    format!("{}{unit}", rate / factor)
}

macro_rules! rate {
    ($name:ident, $units:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&written(self.0, $units))
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                read(text, $units, Self::LOWEST).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

rate!(ByteRate, BYTES);
rate!(BitRate, BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        for (text, bytes) in [("50MiB/s", 50 << 20), ("1GiB/s", 1 << 30), ("64KiB/s", 64 << 10)] {
            let rate: ByteRate = text.parse().expect("a rate");
            assert_eq!((rate.as_bytes(), rate.to_string().as_str()), (bytes, text));
        }
        for (text, bits) in
            [("100Mbit/s", 100_000_000), ("1Gbit/s", 1_000_000_000), ("1500kbit/s", 1_500_000)]
        {
            let rate: BitRate = text.parse().expect("a rate");
            assert_eq!((rate.as_bits(), rate.to_string().as_str()), (bits, text));
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, wrong) in [
            ("100", "rate \"100\" has no unit that is known; write kbit/s, Mbit/s or Gbit/s"),
            ("100MB/s", "rate \"100MB/s\" has no unit that is known; write kbit/s, Mbit/s or Gbit/s"),
            ("1.5Gbit/s", "rate \"1.5Gbit/s\" is not a whole number and a unit; write for example 50Mbit/s"),
            ("1kbit/s", "rate \"1kbit/s\" is out of range; write 64kbit/s or more"),
        ] {
            assert_eq!(text.parse::<BitRate>(), Err(wrong.to_owned()));
        }
        let wrong = "rate \"0MiB/s\" is out of range; write 64KiB/s or more";
        assert_eq!("0MiB/s".parse::<ByteRate>(), Err(wrong.to_owned()));
    }
}
