//! Sizes with a unit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size in bytes; read and written with a binary unit (`512MiB`, `4GiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// A size of so many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of so many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A size of so many GiB.
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The number of whole MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in UNITS {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim();
        if unit.is_empty() {
            return Err(format!("size {text:?} has no unit; write MiB, GiB or TiB behind the number"));
        }
        let factor =
            UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes).ok_or_else(|| {
                format!("size {text:?} has the unit {unit:?}, which is not known; write KiB, MiB, GiB or TiB")
            })?;
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("size {text:?} is not a whole number and a unit; write for example 4GiB"))?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0).map(Size).ok_or_else(|| {
            format!("size {text:?} is out of range; write a size above 0 and below 16777216TiB")
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        for (text, bytes) in [("512MiB", 512 << 20), ("4GiB", 4 << 30), ("1TiB", 1 << 40), ("3KiB", 3072)] {
            assert_eq!(text.parse(), Ok(Size::bytes(bytes)));
            assert_eq!(Size::bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, wrong) in [
            ("2", "size \"2\" has no unit; write MiB, GiB or TiB behind the number"),
            ("2GB", "size \"2GB\" has the unit \"GB\", which is not known; write KiB, MiB, GiB or TiB"),
            ("x4GiB", "size \"x4GiB\" is not a whole number and a unit; write for example 4GiB"),
            ("0GiB", "size \"0GiB\" is out of range; write a size above 0 and below 16777216TiB"),
        ] {
            assert_eq!(text.parse::<Size>(), Err(wrong.to_owned()));
        }
    }
}
