//! The agent: `host/` first boot and upkeep, `server/` install server, `vmm/` drivers, `control/` commands and
//! socket, `node/` the installer and client on a node. `wire.rs` is what server and nodes say to each other.

pub mod cli;
pub mod control;
pub mod current;
pub mod host;
pub mod node;
pub mod paths;
pub mod server;
pub mod tool;
pub mod vmm;
pub mod wire;
