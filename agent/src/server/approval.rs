//! Machines that ask to be a node: let in by a person, who compares what their console shows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatehouse_model::{Exit, Fault, NodeName};

use super::tokens::boot_time;

/// A machine asks every few seconds: one that was not heard of for so long is gone.
const GONE: Duration = Duration::from_secs(60);
/// So many machines are listened to for one node; more are none that anybody could compare.
const MOST: usize = 8;

/// The machines that ask.
#[derive(Debug, Default)]
pub struct Approvals {
    asking: Mutex<BTreeMap<NodeName, Vec<Ask>>>,
}

/// One machine that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What its console shows of its key.
    pub fingerprint: String,
    /// Its address.
    pub from: IpAddr,
    heard: Duration,
    approved: bool,
}

impl Approvals {
    /// Notes that a machine asks to be a node. Whether it was approved; it may ask again then, if the answer was lost.
    pub fn ask(&self, node: &NodeName, fingerprint: &str, from: IpAddr) -> bool {
        self.ask_at(node, fingerprint, from, boot_time())
    }

    fn ask_at(&self, node: &NodeName, fingerprint: &str, from: IpAddr, now: Duration) -> bool {
        let mut asking = self.fresh(now);
        let all = asking.entry(node.clone()).or_default();
        if let Some(ask) = all.iter_mut().find(|ask| ask.fingerprint == fingerprint) {
            (ask.heard, ask.from) = (now, from);
            return ask.approved;
        }
        if all.len() < MOST {
            all.push(Ask { fingerprint: fingerprint.to_owned(), from, heard: now, approved: false });
        }
        false
    }

    /// The machines that ask to be a node and were not answered yet.
    pub fn waiting(&self, node: &NodeName) -> Vec<Ask> {
        let asking = self.fresh(boot_time());
        asking.get(node).into_iter().flatten().filter(|ask| !ask.approved).cloned().collect()
    }

    /// Lets a machine in: the only one that asks, or the one with this fingerprint, of which the beginning is enough.
    ///
    /// # Errors
    /// None asks, or several do; those are listed.
    pub fn approve(&self, node: &NodeName, given: &str) -> Result<Ask, Fault> {
        let mut asking = self.fresh(boot_time());
        let all = asking.entry(node.clone()).or_default();
        let list: Vec<String> =
            all.iter().map(|ask| format!("  {} at {}", ask.fingerprint, ask.from)).collect();
        let mut fits: Vec<&mut Ask> =
            all.iter_mut().filter(|ask| !ask.approved && ask.fingerprint.starts_with(given)).collect();
        if let [ask] = fits.as_mut_slice() {
            ask.approved = true;
            return Ok(ask.clone());
        }
        let fault = if list.is_empty() {
            Fault::new(format!("no machine asks to be {node}"))
                .help("start it from the network, and wait until its console shows its fingerprint")
        } else {
            let what = if fits.is_empty() {
                "no machine with this fingerprint asks"
            } else {
                "several machines ask"
            };
            Fault::new(format!("{what} to be {node}:\n{}", list.join("\n")))
                .help("name the fingerprint that the right machine's console shows")
        };
        Err(fault.exit(Exit::Problem))
    }

    /// Forgets who asks to be a node that is gone, or is installed anew.
    pub fn forget(&self, node: &NodeName) {
        self.fresh(boot_time()).remove(node);
    }

    fn fresh(&self, now: Duration) -> MutexGuard<'_, BTreeMap<NodeName, Vec<Ask>>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        for all in asking.values_mut() {
            all.retain(|ask| now < ask.heard + GONE);
        }
        asking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 24));

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    #[test]
    fn only_who_was_approved_is_let_in() {
        let (all, node) = (Approvals::default(), name("wn"));
        assert!(all.approve(&node, "").expect_err("nobody").to_string().contains("no machine asks"));
        assert!(!all.ask(&node, "aaaa-1", FROM));
        assert!(!all.ask(&node, "abbb-2", FROM));
        let several = all.approve(&node, "a").expect_err("several").to_string();
        assert!(several.contains("aaaa-1 at 10.0.2.24") && several.contains("abbb-2"), "{several}");
        assert_eq!(all.approve(&node, "ab").expect("one").fingerprint, "abbb-2");
        assert!(!all.ask(&node, "aaaa-1", FROM));
        assert!(all.ask(&node, "abbb-2", FROM));
        assert!(all.ask(&node, "abbb-2", FROM), "the answer may have been lost");
        assert!(!all.ask(&name("se"), "abbb-2", FROM), "another node");
        assert_eq!(all.waiting(&node).len(), 1);
        all.forget(&node);
        assert!(!all.ask(&node, "abbb-2", FROM));
    }

    #[test]
    fn who_is_gone_is_forgotten_and_a_flood_is_not_kept() {
        let (all, node, start) = (Approvals::default(), name("wn"), boot_time());
        assert!(!all.ask_at(&node, "old", FROM, start.saturating_sub(GONE)));
        assert_eq!(all.waiting(&node), []);
        for number in 0..100 {
            assert!(!all.ask(&node, &number.to_string(), FROM));
        }
        assert_eq!(all.waiting(&node).len(), MOST);
    }
}
