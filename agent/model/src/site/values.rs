//! The grammars of single values: times, keys, networks, names of archives.

use std::net::Ipv4Addr;

use super::Subnet;

/// Seconds since 1970 of a time such as `2026-01-01T00:00:00Z`.
pub(super) fn epoch(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a time in UTC; write it as 2026-01-01T00:00:00Z");
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(c, s): (char, char)| if s == 'd' { c.is_ascii_digit() } else { c == s };
    if text.len() != shape.len() || !text.chars().zip(shape.chars()).all(fits) {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().map_err(|_| wrong());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1980..2100).contains(&year) {
        // A FAT file system counts from 1980.
        return Err(format!("the year {year} is out of range; write 1980 to 2099"));
    }
    if !(1..=12).contains(&month)
        || day == 0
        || day > days(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return Err(wrong());
    }
    let years: u64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|m| days(year, m)).sum();
    Ok((((years + months + day - 1) * 24 + hour) * 60 + minute) * 60 + second)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A DNS domain in lower case.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 200 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a domain in lower case; write for example \"site1.example.org\""))
    }
}

/// A name or an address of a server.
pub(super) fn server(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() || domain(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is neither a name nor an address; write for example \"ntp.example.org\""))
    }
}

/// An IPv4 address.
pub(super) fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv4 address; write for example \"10.0.2.20\""))
}

/// An address of either family.
pub(super) fn any_address(text: &str) -> Result<std::net::IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address; write for example \"10.0.2.3\""))
}

/// The site's own network: a prefix of 1 to 30.
pub(super) fn subnet(text: &str) -> Result<Subnet, String> {
    network(text, 1, 30)
}

/// Any network, single addresses (`/32`) and everything (`0.0.0.0/0`) included.
pub(super) fn any_network(text: &str) -> Result<Subnet, String> {
    network(text, 0, 32)
}

fn network(text: &str, low: u8, high: u8) -> Result<Subnet, String> {
    let Some((address_text, prefix)) = text.split_once('/') else {
        return Err(format!("{text:?} has no prefix length; write for example \"{text}/24\""));
    };
    let given = address(address_text)?;
    let digits = prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix =
        Some(prefix).filter(|_| digits).and_then(|p| p.parse().ok()).filter(|p| (low..=high).contains(p));
    let prefix: u8 = prefix
        .ok_or_else(|| format!("the prefix length of {text:?} is out of range; write {low} to {high}"))?;
    let mask = Subnet { address: given, prefix }.mask();
    let subnet = Subnet { address: Ipv4Addr::from_bits(given.to_bits() & mask.to_bits()), prefix };
    if subnet.address == given {
        Ok(subnet)
    } else {
        Err(format!("{text:?} is an address in a network, not a network; write \"{subnet}\""))
    }
}

/// A glob for one line of text.
pub(super) fn glob(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) || text.trim() != text {
        Err(format!("{text:?} has control characters or blanks around it; write one line of plain text"))
    } else {
        Ok(text.to_owned())
    }
}

/// A word of lower-case letters, digits and hyphens.
pub(super) fn role(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a word; write lower-case letters, digits and hyphens"))
    }
}

/// A suite or a component of an archive.
pub(super) fn archive_word(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if text.chars().all(good) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a name of a suite or component; write for example \"trixie\" or \"main\""
        ))
    }
}

/// The name of a binary package.
pub(super) fn package(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.len() >= 2 && text.chars().all(good) && text.starts_with(first) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a package name; write the name alone, without version and architecture"))
    }
}

/// The address of an archive.
pub(super) fn mirror(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("file://").filter(|rest| rest.starts_with('/')).or_else(|| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        rest.filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
    });
    if rest.is_some() && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!(
            "{text:?} is not the address of an archive; write one with http://, https:// or file:///"
        ))
    }
}

const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// One line of an OpenSSH `.pub` file.
pub(super) fn public_key(text: &str) -> Result<String, String> {
    const WRITE: &str = "write the one line of the key's .pub file";
    if text.contains("PRIVATE KEY") {
        return Err(format!(
            "this is a private key, and no longer a secret; remove it, make a new one and {WRITE}"
        ));
    }
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(format!("this key has several lines; {WRITE}"));
    }
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    if !KEY_TYPES.contains(&kind) {
        let start: String = kind.chars().take(24).collect();
        return Err(format!(
            "{start:?} is not a type of OpenSSH public key; {WRITE}, such as \"ssh-ed25519 AAAA…\""
        ));
    }
    let blob = words.next().and_then(base64).unwrap_or_default();
    match fields(&blob) {
        Some(all) if all.len() > 1 && all[0] == kind.as_bytes() => Ok(text.to_owned()),
        _ => Err(format!("this {kind} key is damaged or cut off; {WRITE}")),
    }
}

pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push(u8::try_from(bits >> have & 0xff).ok()?);
            bits &= (1 << have) - 1;
        }
    }
    Some(bytes)
}

/// The length-prefixed fields that a key is made of, if they fill it exactly.
fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        all.push(field);
        blob = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1980-01-01T00:00:00Z", 315_532_800),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-01-01T00:00:00Z", 1_767_225_600),
            ("2099-12-31T23:59:59Z", 4_102_444_799),
        ] {
            assert_eq!(epoch(text), Ok(seconds), "{text}");
        }
        for text in [
            "2026-01-01",
            "2026-01-01T00:00:00+01:00",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "\u{e9}026-01-01T00:00:00Z",
            "1979-12-31T23:59:59Z",
        ] {
            assert!(epoch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        for good in ["10.0.2.0/24", "192.168.4.0/22", "128.0.0.0/1", "10.0.0.4/30"] {
            assert_eq!(subnet(good).map(|subnet| subnet.to_string()), Ok(good.to_owned()));
        }
        for good in ["0.0.0.0/0", "10.1.2.3/32"] {
            assert_eq!(any_network(good).map(|subnet| subnet.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["10.0.2.0", "10.0.2.1/24", "10.0.2.0/31", "10.0.2.0/+8", "10.0.2.0/ 8", "10.0.2/24", "::/8"]
        {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_name_their_type_inside() {
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        assert!(public_key(&format!("ssh-ed25519 {key}")).is_ok());
        assert!(public_key(&format!("  ssh-ed25519 {key} a comment\n")).is_ok());
        for bad in [
            format!("ssh-ed25519 {key}A"),
            format!("ssh-rsa {key}"),
            "ssh-ed25519".to_owned(),
            format!("from=\"*\" ssh-ed25519 {key}"),
        ] {
            assert!(public_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_addresses() {
        for good in ["http://a.example.org/debian", "https://[::1]:8080", "file:///srv/archive"] {
            assert_eq!(mirror(good), Ok(good.to_owned()));
        }
        assert_eq!(mirror("http://a.example.org/").as_deref(), Ok("http://a.example.org"));
        for bad in ["a.example.org", "http://", "file://archive", "http://a b/", "https:///debian"] {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }
}
