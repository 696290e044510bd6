//! The evaluation of the site: the node whose profile says what is measured is told to measure, and its figures are
//! put beside what the host knows.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_lcfg::Profile;
use gatehouse_model::evaluation::{Counts, Evaluation, Figures, Install};
use gatehouse_model::{Doing as _, Event, Fault, NodeName, Refusal};

use crate::control::Evaluations;
use crate::control::board::{Board, NodeState};
use crate::current::Current;
use crate::node::evaluate::Suite;
use crate::paths::Paths;
use crate::server::orders::Orders;
use crate::wire::{Order, Outcome};

/// How often whoever asks is told what is new.
const LOOK: Duration = Duration::from_millis(500);
/// The longest that an evaluation may take, whatever the profile says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What QEMU calls its processor where it emulates one; with KVM it has the name of the machine's own.
const EMULATED: &str = "QEMU Virtual CPU";

/// Evaluates.
#[derive(Debug)]
pub struct Evaluator {
    current: Arc<Current>,
    paths: Paths,
    board: Arc<Board>,
    orders: Arc<Orders>,
}

impl Evaluations for Evaluator {
    fn evaluate(
        &self,
        node: Option<&NodeName>,
        counts: Counts,
        tell: &mut dyn FnMut(Option<&Event>) -> bool,
    ) -> Result<Evaluation, Fault> {
        let (node, suite) = choose(self.suites()?, node)?;
        let state = self.board.node(&node).map(|status| status.state);
        if state != Some(NodeState::Running) {
            return Err(Refusal::new(format!("{node} is not running"), "see `gatectl status`").into());
        }
        let events = self.board.listen();
        let phase = format!("node/{node}");
        let order = Order::Evaluate(counts);
        let pending = self.orders.give(&node, order, suite.longest(counts).min(LONGEST))?;
        let doing = || format!("evaluating the site on {node}");
        loop {
            let outcome = pending.wait(LOOK).doing(doing)?;
            let of_node = |event: &Event| event.phase == phase && event.action == "evaluating";
            let heard = events.try_iter().filter(of_node).all(|event| tell(Some(&event)));
            match outcome {
                Some(Outcome::Evaluated(tests)) => return Ok(self.with_installs(&node, tests)),
                Some(Outcome::Failed(text)) => return Err(Fault::new(text)).doing(doing),
                Some(Outcome::Frozen | Outcome::Thawed(_)) => {
                    return Err(Fault::new(format!("{node} has answered something else"))).doing(doing);
                }
                // Withdrawn by leaving: the node stops at its next look.
                None if !heard || !tell(None) => return Err(Fault::new("nobody waits for it")).doing(doing),
                None => {}
            }
        }
    }
}

impl Evaluator {
    /// An evaluator of the site; the profiles are below these paths, and the server hands its orders out.
    pub fn new(current: &Arc<Current>, paths: &Paths, board: &Arc<Board>, orders: &Arc<Orders>) -> Self {
        let (current, board, orders) = (Arc::clone(current), Arc::clone(board), Arc::clone(orders));
        Self { current, paths: paths.clone(), board, orders }
    }

    /// The nodes whose published profile names tests.
    fn suites(&self) -> Result<Vec<(NodeName, Suite)>, Fault> {
        let mut all = Vec::new();
        for node in &self.current.get().site.nodes {
            // One that was never published names none.
            let Ok(text) = fs::read_to_string(self.paths.profile(&node.name)) else { continue };
            let profile = Profile::from_xml(&text).map_err(Fault::of_problems)?;
            all.extend(Suite::of(&profile).map(|suite| (node.name.clone(), suite)));
        }
        Ok(all)
    }

    fn with_installs(&self, node: &NodeName, tests: Vec<Figures>) -> Evaluation {
        let install = |seconds: Option<f64>, node| Some(Install { node, seconds: seconds? });
        let status = self.board.status();
        let installs =
            status.nodes.into_iter().filter_map(|it| install(it.install_seconds, it.name)).collect();
        let site = &self.current.get().site;
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Evaluation {
            site: site.name.to_string(),
            node: node.clone(),
            vmm: site.host.vmm,
            emulated: is_emulated(&cpus),
            tests,
            installs,
        }
    }
}

/// The node to evaluate on: the one that was asked for, or the only one that can.
fn choose<T>(mut able: Vec<(NodeName, T)>, asked: Option<&NodeName>) -> Result<(NodeName, T), Fault> {
    let names: Vec<String> = able.iter().map(|(name, _)| name.to_string()).collect();
    let at = match asked {
        Some(asked) => able.iter().position(|(name, _)| name == asked),
        None => (able.len() == 1).then_some(0),
    };
    if let Some(at) = at {
        return Ok(able.swap_remove(at));
    }
    let refusal = match (asked, names.is_empty()) {
        (_, true) => Refusal::new(
            "no node's profile names tests",
            "set evaluate.tests and evaluate.command_TAG in the sources of one node",
        ),
        (Some(asked), false) => Refusal::new(
            format!("the profile of {asked} names no tests"),
            format!("name one that does: {}", names.join(", ")),
        ),
        (None, false) => Refusal::new(
            format!("the profiles of several nodes name tests: {}", names.join(", ")),
            "choose one with --node",
        ),
    };
    Err(refusal.into())
}

fn is_emulated(cpuinfo: &str) -> bool {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.is_some_and(|(_, name)| name.trim().starts_with(EMULATED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    #[test]
    fn the_node_is_the_only_one_or_the_one_asked_for() {
        let able = |names: &[&str]| names.iter().map(|text| (name(text), ())).collect::<Vec<_>>();
        for (able, asked, found) in [
            (able(&["ui"]), None, Ok("ui")),
            (able(&["ui", "ui2"]), Some("ui2"), Ok("ui2")),
            (able(&["ui", "ui2"]), None, Err("the profiles of several nodes name tests: ui, ui2")),
            (able(&["ui"]), Some("ce"), Err("the profile of ce names no tests")),
            (able(&[]), None, Err("no node's profile names tests")),
            (able(&[]), Some("ce"), Err("no node's profile names tests")),
        ] {
            let asked = asked.map(name);
            let chosen = choose(able, asked.as_ref()).map(|(name, ())| name.to_string());
            match found {
                Ok(found) => assert_eq!(chosen.expect("one"), found),
                Err(text) => assert_eq!(chosen.expect_err("none").to_string(), text),
            }
        }
    }

    #[test]
    fn an_emulated_processor_is_known_by_its_name() {
        assert!(is_emulated("processor\t: 0\nmodel name\t: QEMU Virtual CPU version 2.5+\n"));
        assert!(!is_emulated("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.40GHz\n"));
        assert!(!is_emulated(""));
    }
}
