//! The LCFG language: sources, schemas and package lists compiled to a profile, and the profile's XML.
//!
//! Text goes in, values or [`Problem`](gatehouse_model::Problem)s come out; no file is opened here. What is
//! covered of LCFG: include files and macros the way of `cpp -traditional`, assignments, mutations, references,
//! tag lists, types, `.def` schemas, package lists with all prefixes, and the profile format 1.1. Not covered:
//! contexts in sources, spanning maps, validation expressions and mutations written in Perl; each is refused
//! with a problem that says so.
#![forbid(unsafe_code)]

mod compile;
mod context;
mod cpp;
mod diff;
mod expand;
mod mutate;
mod packages;
mod profile;
pub mod publish;
mod report;
mod resolve;
mod schema;
mod sources;
mod statement;
mod template;
mod values;
mod xml;

pub use compile::{Compiled, compile};
pub use diff::{ComponentDiff, Difference, ProfileDiff, diff};
pub use packages::PackageSpec;
pub use profile::{Profile, Published};
pub use sources::Sources;
pub use values::{Component, Derivation, Kind, Resource};
