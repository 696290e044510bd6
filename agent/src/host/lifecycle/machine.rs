//! A node on a machine of its own: offered its installer over the network, approved by a person, then only watched.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gatehouse_model::site::Node;
use gatehouse_model::{Fault, NodeName, State};

use super::record::Record;
use super::{Lifecycle, phase};
use crate::control::board::NodeState;
use crate::wire::{Ack, Milestone};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often an installed machine is tried, and how long an answer may take.
const TRY: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(2);
/// A machine that has not answered for so long is off, or is starting.
const SILENT: Duration = Duration::from_secs(60);

/// What was seen of a machine since its thread began to look.
struct Seen {
    approved: Option<Instant>,
    tried: Option<Instant>,
    answered: Instant,
    /// What it was shown as when it fell silent.
    before: Option<NodeState>,
}

/// What a machine that answers is shown as: what it was before it fell silent. Of one that was up before the host was
/// nothing is known, and it says so at its next look where it is not well; one that is starting says when it is.
fn answering(shown: Option<NodeState>, before: Option<NodeState>) -> Option<NodeState> {
    match (shown, before) {
        (Some(NodeState::Running | NodeState::Ailing | NodeState::Starting), _) => None,
        (_, Some(NodeState::Starting)) => Some(NodeState::Starting),
        _ => Some(NodeState::Running),
    }
}

fn answers(node: &Node, seen: &mut Seen) -> bool {
    seen.tried = Some(Instant::now());
    TcpStream::connect_timeout(&SocketAddr::from((node.address, 22)), ANSWER).is_ok()
}

impl Lifecycle {
    /// Looks after a machine for as long as the site says the same of it.
    pub(super) fn attend(&self, node: &Node) -> Result<(), Fault> {
        self.means.netboot.take_up(&self.means.current.get().site)?;
        let mut seen = Seen { approved: None, tried: None, answered: Instant::now(), before: None };
        while self.node(&node.name).as_ref() == Some(node) {
            let record = Record::load(&self.means.paths, &node.name)?;
            let passport = record.is_none().then(|| self.passport(node, None));
            self.means.netboot.offer(node, passport.as_ref())?;
            let acks = self.means.board.take_acks(&node.name);
            match record {
                None => self.await_machine(node, &acks, &mut seen)?,
                Some(record) => self.watch_machine(node, &record, &acks, &mut seen),
            }
            self.means.board.wait(LOOK);
        }
        Ok(())
    }

    /// Until its installer has acknowledged.
    fn await_machine(&self, node: &Node, acks: &[Ack], seen: &mut Seen) -> Result<(), Fault> {
        let name = &node.name;
        if let Some(ack) = acks.iter().rfind(|ack| ack.milestone == Milestone::Installed) {
            return self.machine_installed(node, ack, seen);
        }
        let asking = self.means.approvals.waiting(name);
        let (state, message) = match asking.first() {
            Some(ask) => {
                let more = if asking.len() > 1 {
                    format!("; so do {} more", asking.len() - 1)
                } else {
                    String::new()
                };
                let print = &ask.fingerprint;
                let how = format!("if its console shows that too: gatectl node approve {name} {print}");
                (NodeState::Asking, format!("{print} at {} asks to be installed{more}; {how}", ask.from))
            }
            None => {
                (NodeState::Absent, format!("waits for the machine {} to start from the network", node.mac))
            }
        };
        let installing = self.shown(name) == Some(NodeState::Installing);
        if installing {
            seen.approved.get_or_insert_with(Instant::now);
        }
        if !installing || state == NodeState::Asking {
            if self.shown(name) != Some(state) && state == NodeState::Asking {
                self.means.board.say(&phase(name), "asking", State::Started, message.clone());
            }
            self.set_shown(name, state, message);
        }
        Ok(())
    }

    fn machine_installed(&self, node: &Node, ack: &Ack, seen: &mut Seen) -> Result<(), Fault> {
        let name = &node.name;
        let seconds = seen.approved.take().map_or(0.0, |approved| approved.elapsed().as_secs_f64());
        let root = ack.root.clone().unwrap_or_default();
        let record = Record {
            profile: ack.profile.clone(),
            root,
            seconds,
            phases: ack.phases.clone(),
            restored: None,
        };
        record.save(&self.means.paths, name)?;
        self.means.approvals.forget(name);
        seen.answered = Instant::now();
        self.show(node, NodeState::Starting, &record);
        self.means.board.say(&phase(name), "installing", State::Succeeded, format!("{seconds:.1} s"));
        Ok(())
    }

    /// Whether it is up is all that can be seen of an installed machine.
    fn watch_machine(&self, node: &Node, record: &Record, acks: &[Ack], seen: &mut Seen) {
        let name = &node.name;
        let up =
            !acks.is_empty() || (seen.tried.is_none_or(|tried| tried.elapsed() > TRY) && answers(node, seen));
        self.hear(name, acks, seen.answered);
        let shown = self.shown(name);
        if up {
            seen.answered = Instant::now();
            let Some(state) = answering(shown, seen.before.take()) else { return };
            self.show(node, state, record);
            if state == NodeState::Running {
                self.means.board.say(&phase(name), "starting", State::Succeeded, "");
            }
        } else if seen.answered.elapsed() > SILENT && shown != Some(NodeState::Stopped) {
            seen.before = shown;
            self.show(node, NodeState::Stopped, record);
            self.set_shown(name, NodeState::Stopped, format!("does not answer at {}", node.address));
        }
    }

    /// Lets a machine in; its installer asks again within seconds.
    pub(super) fn approve(&self, name: &NodeName, fingerprint: &str) -> Result<String, Fault> {
        let ask = self.means.approvals.approve(name, fingerprint)?;
        self.set_shown(name, NodeState::Installing, String::new());
        let text = format!("{} at {} becomes {name}", ask.fingerprint, ask.from);
        self.means.board.say(&phase(name), "installing", State::Started, text.clone());
        Ok(format!("{text}; `gatectl log --follow` shows how far it is\n"))
    }

    pub(super) fn plan_of_machine(&self, node: &Node) -> String {
        let step = if self.has_disks(&node.name) { "watch" } else { "wait for the machine of" };
        format!("{step} {}", node.name)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeState::{Ailing, Running, Starting, Stopped};
    use super::*;

    #[test]
    fn a_machine_that_answers_is_what_it_was() {
        for (shown, before, then) in [
            (Some(Stopped), Some(Starting), Some(Starting)),
            (Some(Stopped), Some(Running), Some(Running)),
            (Some(Stopped), None, Some(Running)),
            (Some(Starting), None, None),
            (Some(Ailing), None, None),
        ] {
            assert_eq!(answering(shown, before), then, "{shown:?} {before:?}");
        }
    }
}
