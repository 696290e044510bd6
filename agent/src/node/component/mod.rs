//! The components that come with the agent: each makes of its resources files of a node's root, and tells the
//! services whose files have changed. The same code fills a new root and keeps a running node true to its profile.

mod apt;
mod auth;
mod boot;
mod cron;
mod file;
mod fstab;
mod grub;
mod hosts;
mod kernel;
mod network;
pub mod nfs;
mod ntp;
mod openssh;
pub mod program;
mod work;

use gatehouse_lcfg::Profile;
use gatehouse_model::{Digest, Doing as _, Fault};

use self::work::Work;
use crate::node::client::{Client, Home};
use crate::node::keep::journal::Journal;
use crate::node::keep::plan;
use crate::node::target::Target;

type Configure = fn(&mut Work<'_>) -> Result<(), Fault>;

/// Those that have something to do on a node. `profile`, `install` and `client` are read by the client itself,
/// `packages` and `updaterpms` by what changes the packages.
const BUILT_IN: [(&str, Configure); 13] = [
    ("apt", apt::configure),
    ("auth", auth::configure),
    ("boot", boot::configure),
    ("cron", cron::configure),
    ("file", file::configure),
    ("fstab", fstab::configure),
    ("grub", grub::configure),
    ("hosts", hosts::configure),
    ("kernel", kernel::configure),
    ("network", network::configure),
    ("nfs", nfs::configure),
    ("ntp", ntp::configure),
    ("openssh", openssh::configure),
];

/// Who configures a component.
#[derive(Clone, Copy, Debug)]
pub enum Doer {
    /// The agent.
    BuiltIn(Configure),
    /// The site's own program.
    Program(Digest),
}

/// Who configures a component on this node: the site's program where it has one, else the agent; nobody where the
/// component only carries values.
pub fn doer(profile: &Profile, component: &str) -> Option<Doer> {
    let known = || BUILT_IN.iter().find(|(name, _)| *name == component);
    plan::program(profile, component)
        .map(Doer::Program)
        .or_else(|| known().map(|(_, function)| Doer::BuiltIn(*function)))
}

/// The names of the components that the agent configures itself.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// What a profile is applied with.
#[derive(Debug)]
pub struct Means<'a> {
    /// The profile, as it holds now.
    pub profile: &'a Profile,
    /// Who the node is.
    pub home: &'a Home,
    /// Its root.
    pub target: &'a Target,
    /// The install server.
    pub client: &'a Client,
}

/// Runs a method of a component and writes down that it was applied; a component that nobody configures only carries
/// values.
///
/// # Errors
/// Its resources cannot be understood, or what it does fails.
pub fn run(means: &Means<'_>, journal: &mut Journal, component: &str, method: &str) -> Result<(), Fault> {
    journal.begin(component)?;
    match doer(means.profile, component) {
        Some(Doer::Program(digest)) => program::run(means, component, method, &digest)?,
        Some(Doer::BuiltIn(configure)) => {
            let mut work = Work::new(means, journal, component);
            configure(&mut work)
                .and_then(|()| work.settle().map(drop))
                .doing(|| format!("configuring {component}"))?;
        }
        None => {}
    }
    journal.applied(component, plan::digest(means.profile, component))
}

#[cfg(test)]
mod tests;
