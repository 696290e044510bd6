//! Names with a grammar.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A node's name: one DNS label in lower case (RFC 1123), at most 32 characters so that it fits everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = !text.is_empty()
            && text.len() <= 32
            && text.chars().all(inner)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a name; write 1 to 32 lower-case letters, digits and hyphens, a letter first"
            ))
        }
    }
}

as_text!(NodeName);

/// A hardware address of Ethernet; written as six pairs of lower-case digits with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The locally administered address derived from a text, the same at every build and on every hypervisor.
    pub fn derived(from: &str) -> Self {
        let digest = Digest::of(from.as_bytes());
        let mut mac = [0; 6];
        mac.copy_from_slice(&digest.bytes()[..6]);
        mac[0] = 0x02;
        Self(mac)
    }

    /// The six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0[0])?;
        self.0[1..].iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a hardware address; write six pairs such as 02:00:5e:00:00:01");
        let mut mac = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut mac {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_labels() {
        for good in ["ce", "wn-01", "a"] {
            assert_eq!(good.parse::<NodeName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "CE", "1ce", "ce-", "a.b", "a_b"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn macs_print_and_parse() {
        let mac = Mac::derived("minimal/node1");
        assert_eq!(mac.bytes()[0], 2);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert!("02:00".parse::<Mac>().is_err());
    }
}
