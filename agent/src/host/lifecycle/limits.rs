//! What nodes may take of the host, and what they do take.

use std::sync::Arc;
use std::time::Duration;

use gatehouse_model::site::Node;
use gatehouse_model::{Fault, NodeName, State};

use super::{BRIDGE, Lifecycle, number, phase};
use crate::vmm::usage::Usage;
use crate::vmm::{Vm, store};

/// How often usage is put on the board. Under an emulated Xen a look takes a second of the host's.
const LOOK: Duration = Duration::from_secs(60);

impl Lifecycle {
    /// A node as its driver sees it.
    pub(super) fn vm<'a>(&self, node: &'a Node) -> Result<Vm<'a>, Fault> {
        let index = number::of(&self.means.paths, &node.name)?;
        let stores = vec![self.means.paths.stores(&node.name).join("disk0")];
        Ok(Vm { node, index, stores, bridge: BRIDGE })
    }

    /// Makes a running node have what the site says. That something cannot be held stops no node: it is told.
    pub(super) fn hold(&self, node: &Node) {
        let board = &self.means.board;
        let lacks = match self.vm(node).and_then(|vm| self.means.driver.limit(&vm)) {
            Ok(lacks) => lacks,
            Err(fault) => {
                board.say(&phase(&node.name), "setting limits", State::Failed, fault.to_string());
                vec![fault.to_string()]
            }
        };
        if self.means.board.node(&node.name).is_some_and(|status| status.not_held != lacks) {
            for lack in &lacks {
                board.say(&phase(&node.name), "setting limits", State::Progress, lack);
            }
            board.update(&node.name, |status| status.not_held = lacks);
        }
    }

    /// The same for a node whose limits have changed, in a thread of its own: a vmm may take seconds.
    pub(super) fn hold_soon(self: &Arc<Self>, node: &NodeName) {
        let (lifecycle, name) = (Arc::clone(self), node.clone());
        std::thread::spawn(move || {
            if let Some(node) = lifecycle.node(&name) {
                lifecycle.hold(&node);
            }
        });
    }

    /// What a node has used, and the bytes that its disks take of the host's.
    pub(super) fn used(&self, node: &Node) -> (Option<Usage>, Option<u64>) {
        let Ok(vm) = self.vm(node) else { return (None, None) };
        let allocated = vm.stores.iter().map(|store| Some(store::allocated(store).ok()?.as_bytes()));
        let allocated = allocated.sum::<Option<u64>>();
        (self.means.driver.usage(&vm).unwrap_or(None), allocated)
    }

    /// Puts on the board what nodes use, for as long as the agent runs.
    pub(super) fn watch_usage(self: &Arc<Self>) {
        let lifecycle = Arc::clone(self);
        std::thread::spawn(move || {
            loop {
                for node in lifecycle.means.current.get().site.vms() {
                    let (usage, allocated) = lifecycle.used(node);
                    lifecycle.means.board.of_usage(&node.name, usage, allocated);
                }
                std::thread::sleep(LOOK);
            }
        });
    }
}
