//! Backups: of nodes, while they run, and of what makes a host this host.
//!
//! ```text
//! freeze (an order) ─► snapshot ─► thaw ─► manifest, data, digests ─► tar in zstd ─► a file, ssh, standard output
//! input ─► restoring/ ─► checked whole ─► restored/ ─► the node's thread: off, swap, start
//! ```
//! `gatectl` reads and writes the data itself, as root; the agent, which owns the nodes' lives, makes snapshots and has
//! what was restored put in place.

pub mod desk;
pub mod identity;
pub mod manifest;
pub mod ranges;
pub mod reader;
pub mod snapshot;
pub mod swap;
pub mod writer;
