//! Nodes that come, go and change while the machine runs.

use std::sync::Arc;

use gatehouse_model::{NodeName, Site, State};

use super::{Lifecycle, STOP_GRACE, Wanted, phase};
use crate::control::Steward as _;
use crate::host::change::resized;

impl Lifecycle {
    /// Takes up a site that has replaced another one: begins the lives of new nodes, ends those of nodes that are no
    /// longer there, changes those that run and starts again those whose VM must be another one, if `restart` says so.
    pub fn take_up(self: &Arc<Self>, old: &Site, new: &Site, restart: bool) {
        self.means.board.take_up(new);
        for node in &old.nodes {
            match new.node(node.name.as_str()) {
                None => self.forget(&node.name),
                Some(now) => {
                    let started = self.started(&node.name);
                    let can = self.means.driver.capabilities();
                    let (restarts, at_once) = resized(node, now, started, can);
                    if restart && !restarts.is_empty() {
                        self.start_again(&node.name);
                    } else if !at_once.is_empty() {
                        self.hold_soon(&node.name);
                    }
                }
            }
        }
        for node in new.nodes.iter().filter(|node| old.node(node.name.as_str()).is_none()) {
            self.begin(node);
        }
    }

    /// Wakes the node's thread, which finds that there is no such node.
    fn forget(&self, node: &NodeName) {
        self.vacating.begin(node);
        self.lock().remove(node);
        self.changed.notify_all();
    }

    /// Stops a node that is to run, and starts it; returns at once.
    pub fn start_again(self: &Arc<Self>, node: &NodeName) {
        if self.wanted(node) != Wanted::Running {
            return;
        }
        self.vacating.begin(node);
        let (lifecycle, node) = (Arc::clone(self), node.clone());
        // It waits for the node to shut down, which must not keep the others waiting.
        std::thread::spawn(move || {
            if let Err(fault) = lifecycle.restart_node(&node) {
                lifecycle.means.board.say(&phase(&node), "restarting", State::Failed, fault.to_string());
            }
            lifecycle.vacating.end(&node);
        });
    }

    /// The last thing that a node's thread does. Its store stays: only people throw disks away.
    pub(super) fn part_with(&self, node: &NodeName) {
        let means = &self.means;
        means.tokens.revoke(node);
        means.approvals.forget(node);
        self.starts.leave(node);
        self.installs.leave(node);
        let (state, words) = match means.driver.stop(node, STOP_GRACE) {
            Ok(()) => {
                let stores = means.paths.stores(node);
                (State::Succeeded, format!("stopped; its disks stay in {}", stores.display()))
            }
            Err(fault) => (State::Failed, fault.to_string()),
        };
        if let Err(fault) = means.netboot.take_up(&means.current.get().site) {
            means.board.say("server", "serving machines of their own", State::Failed, fault.to_string());
        }
        self.vacating.end(node);
        means.board.say(&phase(node), "leaving the site", state, words);
    }
}
