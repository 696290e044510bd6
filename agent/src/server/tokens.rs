//! One-time tokens: what a node shows at its first contact to be believed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::{Digest, NodeName};
use nix::time::{ClockId, clock_gettime};

/// How long a token may wait for its node: far more than a VM takes to boot its installer.
pub const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// The tokens that are out; one for each node at most. Only digests are kept.
#[derive(Debug, Default)]
pub struct Tokens {
    out: Mutex<BTreeMap<NodeName, Token>>,
}

#[derive(Debug)]
struct Token {
    digest: Digest,
    ends: Duration,
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
        let token = Token { digest: Digest::of(text.as_bytes()), ends: now + LIFETIME };
        self.lock().insert(node.clone(), token);
        text
    }

    /// Whether this is the node's token and still good; if so it is used up.
    pub fn redeem(&self, node: &NodeName, text: &str) -> bool {
        self.redeem_at(node, text, boot_time())
    }

    fn redeem_at(&self, node: &NodeName, text: &str, now: Duration) -> bool {
        let mut out = self.lock();
        let given = Digest::of(text.as_bytes());
        let good = out.get(node).is_some_and(|token| same(&token.digest, &given) && now < token.ends);
        if good {
            out.remove(node);
        }
        good
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
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("every kernel that runs this has getrandom(2)");
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
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
        assert!(!tokens.redeem_at(&other, &token, start), "another node's");
        assert!(!tokens.redeem_at(&node, &token[..63], start), "a part");
        assert!(!tokens.redeem_at(&node, "", start), "nothing");
        assert!(!tokens.redeem_at(&node, &token, start + LIFETIME), "too late");
        assert!(tokens.redeem_at(&node, &token, Duration::from_secs(99) + LIFETIME));
        assert!(!tokens.redeem_at(&node, &token, start), "used");
    }

    #[test]
    fn a_new_token_voids_the_old_one_and_revoking_voids_it_too() {
        let tokens = Tokens::new();
        let node = name("node1");
        let old = tokens.issue(&node);
        let new = tokens.issue(&node);
        assert_ne!(old, new);
        assert!(!tokens.redeem(&node, &old));
        tokens.revoke(&node);
        assert!(!tokens.redeem(&node, &new));
    }

    #[test]
    fn the_token_itself_is_not_kept() {
        let tokens = Tokens::new();
        let token = tokens.issue(&name("node1"));
        assert!(!format!("{tokens:?}").contains(&token));
    }
}
