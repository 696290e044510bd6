//! Whether a node's VM is there, as far as the vmm can be asked.

use std::sync::PoisonError;
use std::time::Duration;

use gatehouse_model::{NodeName, State};

use super::{Lifecycle, phase};
use crate::vmm::Power;

/// The pause before a vmm is asked again that could not be.
const PAUSE: Duration = Duration::from_secs(2);

impl Lifecycle {
    /// Whether a node's VM is there; nothing where the vmm cannot be asked now. That is told once, until it can be again:
    /// nothing is done to a node of which nothing is known.
    pub(super) fn power(&self, name: &NodeName) -> Option<Power> {
        let asked = self.means.driver.power(name);
        let mut unasked = self.unasked.lock().unwrap_or_else(PoisonError::into_inner);
        let say = |state, text| self.means.board.say(&phase(name), "asking the vmm", state, text);
        match asked {
            Ok(power) => {
                if unasked.remove(name) {
                    say(State::Succeeded, "it answers again".to_owned());
                }
                Some(power)
            }
            Err(fault) => {
                if unasked.insert(name.clone()) {
                    // No failure of the node's: one that fails to install is tried again only where nothing has failed.
                    say(State::Progress, format!("it is left as it is until the vmm answers: {fault}"));
                }
                None
            }
        }
    }

    /// The same, once it is known.
    pub(super) fn known_power(&self, name: &NodeName) -> Power {
        loop {
            if let Some(power) = self.power(name) {
                return power;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
