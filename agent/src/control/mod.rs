//! What people and programs see and say: the board of states and events, the socket, `gatectl`.

pub mod board;
mod console;
pub mod ctl;
pub mod keeping;
pub mod socket;

use gatehouse_model::{Fault, NodeName};

/// Who carries out what is asked over the control socket; the host's lifecycle is one.
///
/// Every call returns as soon as the thing is on its way: the board says how it goes on.
pub trait Steward: Send + Sync {
    /// Starts a node from its own disk.
    ///
    /// # Errors
    /// It is not installed, or its vmm will not start it.
    fn start_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Stops a node; it stays stopped until it is started by command or with the host.
    ///
    /// # Errors
    /// Its vmm cannot stop it.
    fn stop_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Stops a node and starts it again.
    ///
    /// # Errors
    /// As stopping and starting.
    fn restart_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// Installs a node anew; what is on its disk is lost.
    ///
    /// # Errors
    /// It is being installed already.
    fn install_node(&self, node: &NodeName) -> Result<(), Fault>;

    /// What would be done now, in lines for people; touches nothing.
    fn plan(&self) -> String;
}
