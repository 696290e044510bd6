//! `[backup]`: who can read what the host keeps elsewhere.

use super::Backup;
use super::read::{Reader, Section};
use super::values;

pub(super) const BACKUP: &[&str] = &["recipient"];

/// What age takes of the kinds of OpenSSH keys.
const SSH_KINDS: [&str; 2] = ["ssh-ed25519 ", "ssh-rsa "];
/// What is written instead of anything else.
const WRITE: &str = "write what `age-keygen` calls the public key (age1…), or an OpenSSH public key";

pub(super) fn backup(r: &mut Reader, top: &Section<'_>) -> Option<Backup> {
    let section = top.section(r, "backup", "backup");
    section.only(r, BACKUP);
    if !top.has("backup") {
        return None;
    }
    let recipient = section.read(r, "recipient", recipient);
    let recipient = section.require(r, "recipient", recipient, "\"age1…\"");
    Some(Backup { recipient: recipient?.value })
}

fn recipient(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
        return Err(format!("this is a secret key, and no longer a secret; make a new one and {WRITE}"));
    }
    if SSH_KINDS.iter().any(|kind| text.starts_with(kind)) || text.contains("PRIVATE KEY") {
        return values::public_key(text);
    }
    if !text.starts_with("age1") {
        return Err(format!("{text:?} is nobody that age can encrypt to; {WRITE}"));
    }
    // An X25519 key has 32 bytes: 52 digits, and 6 of the checksum.
    if text.len() == "age1".len() + 58 && is_bech32(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("the recipient is damaged or cut off; {WRITE}"))
    }
}

/// Whether the checksum of a text is right (BIP 173).
fn is_bech32(text: &str) -> bool {
    const DIGITS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let Some((prefix, data)) = text.rsplit_once('1') else { return false };
    let digits: Option<Vec<u32>> =
        data.chars().map(|digit| DIGITS.find(digit).and_then(|at| u32::try_from(at).ok())).collect();
    let Some(digits) = digits else { return false };
    let high = prefix.bytes().map(|byte| u32::from(byte >> 5));
    let low = prefix.bytes().map(|byte| u32::from(byte & 31));
    let all = high.chain([0]).chain(low).chain(digits);
    let sum = all.fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ value;
        GENERATOR
            .iter()
            .enumerate()
            .fold(next, |next, (bit, by)| if top >> bit & 1 == 1 { next ^ by } else { next })
    });
    sum == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: &str = "age197cty7366alfzmrqycxt6n8waetzazjxkw72vzw0wcvj5p8rxerq0up4kn";

    #[test]
    fn only_whole_public_keys() {
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKLEW3Vsmdz1BKxPcbxZqqSwxPHZbt9LWCSyWzDGF0QP ops@example.org";
        for good in [AGE, ssh] {
            assert_eq!(recipient(good).as_deref(), Ok(good));
        }
        for (wrong, says) in [
            (&AGE[..61], "cut off"),
            (&AGE.replace("rxer", "rxre"), "damaged"),
            (&AGE.to_uppercase(), "nobody"),
            ("AGE-SECRET-KEY-1QQQ", "no longer a secret"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "no longer a secret"),
            ("ssh-ed25519 AAAA", "damaged"),
            ("ecdsa-sha2-nistp256 AAAA", "nobody"),
        ] {
            let said = recipient(wrong).expect_err(wrong);
            assert!(said.contains(says), "{wrong}: {said}");
        }
    }
}
