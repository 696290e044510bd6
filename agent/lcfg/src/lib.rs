//! The LCFG language: sources, schemas and package lists compiled to a profile, and the profile's XML.
//!
//! Text goes in, values or [`Problem`](gatehouse_model::Problem)s come out; no file is opened here. What is
//! covered of LCFG: include files and macros the way of `cpp -traditional`, assignments, mutations, references,
//! contexts, tag lists, types, `.def` schemas with validation, spanning maps, package lists with all prefixes, and
//! the profile format 1.1. Not covered: mutations written in Perl, which are refused with a problem that says so.
#![forbid(unsafe_code)]

mod assign;
mod compile;
mod context;
mod cpp;
mod diff;
mod expand;
mod fleet;
mod glob;
mod maps;
mod memory;
mod mutate;
mod packages;
mod parallel;
mod profile;
pub mod publish;
mod reference;
mod report;
mod resolve;
mod schema;
mod schemas;
mod sources;
mod statement;
mod template;
mod values;
mod why;
mod xml;

pub use assign::Step;
pub use compile::Compiled;
pub use context::Contexts;
pub use diff::{Changes, Difference};
pub use fleet::{Fleet, Round, compile, told_once};
pub use maps::Contributions;
pub use memory::Memory;
pub use packages::PackageSpec;
pub use profile::{Profile, Published};
pub use reference::reference;
pub use sources::Sources;
pub use values::{Component, Derivation, Kind, Resource};
pub use why::{Value, Why};
