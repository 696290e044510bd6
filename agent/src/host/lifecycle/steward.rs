//! What people ask of a node's life.

use std::fs;

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Exit, Fault, NodeName, Refusal};

use super::record::Record;
use super::{Lifecycle, STOP_GRACE, Wanted, next_step};
use crate::control::Steward;
use crate::control::board::{NodeState, now_millis};
use crate::control::usage::{HostUsage, NodeUsage, SiteUsage};
use crate::vmm::Power;

impl Lifecycle {
    fn known(&self, node: &NodeName) -> Result<(), Fault> {
        let now = self.means.current.get();
        if now.site.node(node.as_str()).is_some() {
            return Ok(());
        }
        let names: Vec<_> = now.site.nodes.iter().map(|node| node.name.to_string()).collect();
        Err(Fault::new(format!("there is no node {node}")).help(format!("name one of: {}", names.join(", "))))
    }

    /// Whether a node is a machine of its own.
    fn is_machine(&self, node: &NodeName) -> bool {
        self.means.current.get().site.node(node.as_str()).is_some_and(|node| node.machine.is_some())
    }

    /// What only a VM can be asked for.
    pub(super) fn known_vm(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        if self.is_machine(node) {
            return Err(Fault::new(format!("{node} is a machine of its own, which this one cannot switch"))
                .help("use its own power button or management, or log in to it")
                .exit(Exit::Problem));
        }
        Ok(())
    }

    /// A node that waits for its backup would be installed.
    fn may_start(&self, node: &NodeName) -> Result<(), Fault> {
        self.known_vm(node)?;
        if !self.awaits(node) {
            return Ok(());
        }
        let help = format!(
            "bring it back with `gatectl node restore {node} FILE`; `gatectl node install {node}` does without"
        );
        Err(Refusal::new(format!("{node} waits for its backup"), help).into())
    }

    /// Stops a node before it is begun anew: whoever looks then must not be told what was before.
    fn stop_now(&self, node: &NodeName) -> Result<(), Fault> {
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        self.set_shown(node, NodeState::Stopped, String::new());
        Ok(())
    }

    fn forget_install(&self, node: &NodeName) -> Result<(), Fault> {
        let record = Record::path(&self.means.paths, node);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", record.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Steward for Lifecycle {
    fn start_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.may_start(node)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn stop_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known_vm(node)?;
        self.want(node, Wanted::Stopped);
        Ok(())
    }

    fn restart_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.may_start(node)?;
        self.stop_now(node)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn install_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        if self.is_machine(node) {
            // It is installed when it starts from the network next, and somebody approves it.
            self.means.approvals.forget(node);
            return self.forget_install(node);
        }
        self.stop_now(node)?;
        self.forget_install(node)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn approve_node(&self, node: &NodeName, fingerprint: &str) -> Result<String, Fault> {
        self.known(node)?;
        let refused =
            |what: String, help: &str| Err(Fault::new(what).help(help.to_owned()).exit(Exit::Problem));
        if !self.is_machine(node) {
            return refused(
                format!("{node} is a VM of this machine"),
                "only machines of their own are approved",
            );
        }
        if self.has_disks(node) {
            let help = format!("`gatectl node install {node}` forgets that; then approve it");
            return refused(format!("{node} is installed"), &help);
        }
        self.approve(node, fingerprint)
    }

    fn plan(&self) -> String {
        let line = |node: &Node| {
            if node.machine.is_some() {
                return self.plan_of_machine(node);
            }
            let record = Record::load(&self.means.paths, &node.name).ok().flatten();
            let has = self.has(&node.name, record.as_ref());
            let power = self.means.driver.power(&node.name).unwrap_or(Power::Off);
            format!("{} {}", next_step(has, power, self.wanted(&node.name)), node.name)
        };
        self.means.current.get().site.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn usage(&self) -> SiteUsage {
        let node = |node: &Node| {
            let (usage, allocated) = self.used(node);
            let status = self.means.board.node(&node.name);
            NodeUsage::of(node, status, usage, allocated)
        };
        let nodes = self.means.current.get().site.vms().map(node).collect();
        let dirs = [&self.means.paths.vms, &self.means.paths.state];
        SiteUsage { at: now_millis(), host: HostUsage::of_this(&dirs), nodes }
    }
}
