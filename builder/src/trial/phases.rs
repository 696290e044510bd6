//! How long each part of a start took, as its events came in.

use std::collections::BTreeMap;
use std::time::Instant;

use gatehouse_model::{Event, State};

/// The parts that have ended, in the order in which they did, each with its seconds.
#[derive(Debug)]
pub struct Phases {
    last: Instant,
    open: BTreeMap<(String, String), Instant>,
    ended: Vec<(String, f64)>,
}

impl Phases {
    /// Counts from power on.
    pub fn since(power_on: Instant) -> Self {
        Self { last: power_on, open: BTreeMap::new(), ended: Vec::new() }
    }

    /// Takes an event that came at some time. The parts of a phase are added up. What the board tells itself
    /// (the server, a node's install) is passed over.
    pub fn note(&mut self, event: &Event, now: Instant) {
        let key = (event.phase.clone(), event.action.clone());
        match event.state {
            State::Started => {
                self.open.insert(key, now);
            }
            State::Succeeded => {
                // The parts of a boot only end: each begins where the one before it ended.
                let begun = self.open.remove(&key).unwrap_or(self.last);
                if let Some(name) = name(event) {
                    self.add(name, now.duration_since(begun).as_secs_f64());
                }
                self.last = now;
            }
            State::Progress | State::Failed => {}
        }
    }

    fn add(&mut self, name: String, seconds: f64) {
        match self.ended.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += seconds,
            None => self.ended.push((name, seconds)),
        }
    }

    /// What has ended so far.
    pub fn ended(&self) -> &[(String, f64)] {
        &self.ended
    }
}

fn name(event: &Event) -> Option<String> {
    match event.phase.strip_prefix("node/") {
        Some(node) if event.action == "starting" => Some(format!("{node}: starting")),
        Some(_) => None,
        None if event.phase == "server" => None,
        None => Some(event.phase.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_of_a_boot_follow_each_other_and_actions_are_added_up() {
        let power_on = Instant::now();
        let mut phases = Phases::since(power_on);
        for (at, phase, action, state) in [
            (2, "boot/firmware", "starting", State::Succeeded),
            (7, "boot/xen", "starting", State::Succeeded),
            (10, "first-boot", "gh-state", State::Started),
            (11, "first-boot", "gh-state", State::Succeeded),
            (12, "first-boot", "gh-vms", State::Started),
            (14, "first-boot", "gh-vms", State::Succeeded),
            (15, "node/a", "installing", State::Started),
            (16, "node/b", "starting", State::Started),
            (20, "node/a", "installing", State::Succeeded),
            (26, "node/b", "starting", State::Succeeded),
        ] {
            let (host, message) = (String::new(), String::new());
            let (phase, action) = (phase.to_owned(), action.to_owned());
            let event = Event { ts: 0, host, phase, action, state, percent: None, message };
            phases.note(&event, power_on + Duration::from_secs(at));
        }
        let told: Vec<_> = phases.ended().iter().map(|(name, seconds)| format!("{name} {seconds}")).collect();
        assert_eq!(told, ["boot/firmware 2", "boot/xen 5", "first-boot 3", "b: starting 10"]);
    }
}
