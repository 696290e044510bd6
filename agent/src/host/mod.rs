//! First boot and upkeep of the host: survey, plan, run; the daemon that keeps server and nodes going.
//!
//! ```text
//! /sys /proc /dev --survey--> Facts ┐
//! site.toml ------------------ Site ├- plan() -> Plan | Refusal -> run(plan, host, journal) -> Report
//! kernel arguments --------- KernelArgs ┘
//! ```

pub mod action;
pub mod args;
pub mod backup;
pub mod boot;
pub mod bring;
pub mod by_path;
pub mod change;
pub mod choose;
pub mod claim;
pub mod command;
pub mod consoles;
pub mod daemon;
pub mod etc;
pub mod evaluate;
pub mod facts;
pub mod files;
pub mod git;
pub mod import;
pub mod journal;
pub mod keeper;
pub mod late;
pub mod lifecycle;
pub mod links;
pub mod machines;
pub mod md;
pub mod mirror;
pub mod mounts;
pub mod plan;
pub mod proposal;
pub mod random;
pub mod real;
pub mod report;
pub mod run;
pub mod signature;
#[cfg(test)]
mod sim;
pub mod sites;
pub mod survey;
pub mod sys;
pub mod target;
pub mod teller;
pub mod tree;
pub mod trial;
