//! One-time tokens: what a node shows at its first contact to be believed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::{Digest, NodeName};
use nix::time::{ClockId, clock_gettime};

/// How long a token may wait for its node: far more than a VM takes to boot its installer.
pub const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It is not the node's.
    Wrong,
    /// It is the node's, and was taken already.
    Used,
    /// It is the node's, and nobody came with it in time.
    Late,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "with a wrong token",
            Self::Used => "with a token that was used already",
            Self::Late => "with a token that is too old",
        })
    }
}

/// The tokens that are out or were used; one for each node at most. Only digests are kept.
#[derive(Debug, Default)]
pub struct Tokens {
    out: Mutex<BTreeMap<NodeName, Token>>,
}

#[derive(Debug)]
struct Token {
    digest: Digest,
    ends: Duration,
    used: bool,
}

impl Tokens {
    /// No token is out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a node's token, 64 hexadecimal digits; one given to it earlier is void.
    pub fn issue(&self, node: &NodeName) -> String {
        self.issue_at(node, boot_time())
    }

    fn issue_at(&self, node: &NodeName, now: Duration) -> String {
        let text = secret();
        let token = Token { digest: Digest::of(text.as_bytes()), ends: now + LIFETIME, used: false };
        self.lock().insert(node.clone(), token);
        text
    }

    /// Takes the node's token, which is used up by that.
    ///
    /// # Errors
    /// It is not the node's, or no longer good.
    pub fn redeem(&self, node: &NodeName, text: &str) -> Result<(), TokenFault> {
        self.redeem_at(node, text, boot_time())
    }

    fn redeem_at(&self, node: &NodeName, text: &str, now: Duration) -> Result<(), TokenFault> {
        let mut out = self.lock();
        let given = Digest::of(text.as_bytes());
        let token = out.get_mut(node).filter(|token| same(&token.digest, &given)).ok_or(TokenFault::Wrong)?;
        if token.used {
            return Err(TokenFault::Used);
        }
        if now >= token.ends {
            return Err(TokenFault::Late);
        }
        token.used = true;
        Ok(())
    }

    /// Makes a node's token void, if one is out.
    pub fn revoke(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Token>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 64 random hexadecimal digits.
pub(super) fn secret() -> String {
    let bytes: [u8; 32] = random();
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// So many random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("every kernel that runs this has getrandom(2)");
    bytes
}

/// Compares in the same time wherever the first difference is.
pub(super) fn same(a: &Digest, b: &Digest) -> bool {
    let difference = a.bytes().iter().zip(b.bytes()).fold(0, |all, (x, y)| all | (x ^ y));
    std::hint::black_box(difference) == 0
}

/// Time since boot, sleep included: the clock on the wall may jump by years at first boot.
pub(super) fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock since 2.6.39").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_token_is_good_once_for_its_node_and_for_its_time() {
        let tokens = Tokens::new();
        let (node, other, start) = (name("node1"), name("node2"), Duration::from_secs(100));
        let token = tokens.issue_at(&node, start);
        assert_eq!(token.len(), 64);
        let wrong = Err(TokenFault::Wrong);
        assert_eq!(tokens.redeem_at(&other, &token, start), wrong, "another node's");
        assert_eq!(tokens.redeem_at(&node, &token[..63], start), wrong, "a part");
        assert_eq!(tokens.redeem_at(&node, "", start), wrong, "nothing");
        assert_eq!(tokens.redeem_at(&node, &token, start + LIFETIME), Err(TokenFault::Late));
        assert_eq!(tokens.redeem_at(&node, &token, Duration::from_secs(99) + LIFETIME), Ok(()));
        assert_eq!(tokens.redeem_at(&node, &token, start), Err(TokenFault::Used));
        assert_eq!(tokens.redeem_at(&node, &token, start + LIFETIME), Err(TokenFault::Used));
    }

    #[test]
    fn a_new_token_voids_the_old_one_and_revoking_voids_it_too() {
        let tokens = Tokens::new();
        let node = name("node1");
        let old = tokens.issue(&node);
        let new = tokens.issue(&node);
        assert_ne!(old, new);
        assert_eq!(tokens.redeem(&node, &old), Err(TokenFault::Wrong));
        tokens.revoke(&node);
        assert_eq!(tokens.redeem(&node, &new), Err(TokenFault::Wrong));
    }

    #[test]
    fn the_token_itself_is_not_kept() {
        let tokens = Tokens::new();
        let token = tokens.issue(&name("node1"));
        assert!(!format!("{tokens:?}").contains(&token));
    }
}
