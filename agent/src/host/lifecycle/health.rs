//! What a node says of its own health, on the board.

use std::time::Instant;

use gatehouse_model::{NodeName, State};

use super::{Lifecycle, phase};
use crate::control::board::NodeState;
use crate::wire::{Ack, Milestone};

/// Where a node stands after what it has said; nothing where that changes nothing.
fn standing(now: NodeState, ack: &Ack) -> Option<(NodeState, String)> {
    let words = || {
        let last = |text: &str| text.trim().lines().next_back().unwrap_or_default().to_owned();
        let all =
            ack.failed.iter().map(|failure| format!("{}: {}", failure.component, last(&failure.output)));
        all.collect::<Vec<_>>().join("; ")
    };
    match (ack.milestone, now) {
        (Milestone::Running, _) => Some((NodeState::Running, String::new())),
        // Said before its checks are made: at a start, or by a client that has started anew.
        (Milestone::Up, _) if ack.failed.is_empty() => None,
        (Milestone::Up, NodeState::Running | NodeState::Ailing) => Some((NodeState::Ailing, words())),
        (Milestone::Up, _) => Some((NodeState::Starting, format!("waits for {}", words()))),
        (Milestone::Installed | Milestone::Applied, _) => None,
    }
}

impl Lifecycle {
    /// Puts on the board what a node has said of itself; `since` is when its start or watch began.
    pub(super) fn hear(&self, name: &NodeName, acks: &[Ack], since: Instant) {
        for ack in acks {
            let Some(before) = self.shown(name) else { return };
            let Some((state, message)) = standing(before, ack) else { continue };
            self.set_shown(name, state, message.clone());
            let (action, told, words) = match (before, state) {
                (NodeState::Running, NodeState::Running) | (_, NodeState::Starting) => continue,
                (NodeState::Ailing, NodeState::Running) => {
                    ("running", State::Succeeded, "well again".to_owned())
                }
                (_, NodeState::Running) => {
                    ("starting", State::Succeeded, format!("{:.1} s", since.elapsed().as_secs_f64()))
                }
                _ => ("running", State::Failed, message),
            };
            self.means.board.say(&phase(name), action, told, words);
        }
    }

    /// A node runs and does not become well, or is not heard of: it counts as ailing, and is watched on.
    pub(super) fn give_up_waiting(&self, name: &NodeName) {
        let waits = self.means.board.node(name).map(|status| status.message).filter(|text| !text.is_empty());
        let waits = waits.unwrap_or_else(|| "it runs, and is not heard of".to_owned());
        self.set_shown(name, NodeState::Ailing, waits.clone());
        self.means.board.say(&phase(name), "running", State::Failed, waits);
    }

    pub(super) fn shown(&self, name: &NodeName) -> Option<NodeState> {
        self.means.board.node(name).map(|status| status.state)
    }

    pub(super) fn set_shown(&self, name: &NodeName, state: NodeState, message: String) {
        self.means.board.update(name, |status| (status.state, status.message) = (state, message));
    }
}

#[cfg(test)]
mod tests {
    use super::NodeState::{Ailing, Running, Starting};
    use super::*;
    use crate::wire::Failure;

    #[test]
    fn a_node_says_how_it_is() {
        let ack = |milestone, outputs: &[(&str, &str)]| {
            let failure = |(tag, output): &(&str, &str)| Failure {
                component: (*tag).into(),
                method: "check".into(),
                output: (*output).into(),
            };
            Ack { failed: outputs.iter().map(failure).collect(), ..Ack::new(milestone, "x") }
        };
        let (well, up) = (ack(Milestone::Running, &[]), ack(Milestone::Up, &[]));
        let ill = ack(Milestone::Up, &[("gatekeeper", "first\nrefused\n"), ("queue", "")]);
        let words = "gatekeeper: refused; queue: ";
        let waits = format!("waits for {words}");
        for (now, ack, then) in [
            (Starting, &up, None),
            (Starting, &ill, Some((Starting, waits.as_str()))),
            (Starting, &well, Some((Running, ""))),
            (Running, &up, None),
            (Running, &ill, Some((Ailing, words))),
            (Ailing, &ill, Some((Ailing, words))),
            (Ailing, &well, Some((Running, ""))),
            (Running, &ack(Milestone::Applied, &[]), None),
        ] {
            let then = then.map(|(state, words)| (state, words.to_owned()));
            assert_eq!(standing(now, ack), then, "{now:?} {:?}", ack.milestone);
        }
    }
}
