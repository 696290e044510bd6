//! What people ask of a node's life.

use std::fs;

use gatehouse_model::site::Node;
use gatehouse_model::{Doing as _, Fault, NodeName};

use super::record::Record;
use super::{Lifecycle, STOP_GRACE, Wanted, next_step};
use crate::control::Steward;
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
}

impl Steward for Lifecycle {
    fn start_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn stop_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        Ok(())
    }

    fn restart_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn install_node(&self, node: &NodeName) -> Result<(), Fault> {
        self.known(node)?;
        self.want(node, Wanted::Stopped);
        self.means.driver.stop(node, STOP_GRACE)?;
        let record = Record::path(&self.means.paths, node);
        if record.exists() {
            fs::remove_file(&record).doing(|| format!("removing {}", record.display()))?;
        }
        self.want(node, Wanted::Running);
        Ok(())
    }

    fn plan(&self) -> String {
        let line = |node: &Node| {
            let installed = Record::path(&self.means.paths, &node.name).exists();
            let power = self.means.driver.power(&node.name).unwrap_or(Power::Off);
            format!("{} {}", next_step(installed, power, self.wanted(&node.name)), node.name)
        };
        self.means.current.get().site.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
