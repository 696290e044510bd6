//! Credentials for the site's services: certificates of the Grid authority, and secrets that nodes share. A node gets
//! what its own profile says and the site has, over its authenticated channel, and nothing else.

mod authority;
mod issued;
pub(super) mod routes;
mod table;

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gatehouse_model::site::Grid;
use gatehouse_model::{Doing as _, Fault, NodeName, Site};
use rcgen::PublicKey;

use self::authority::GridAuthority;
use self::issued::{Ending, Issued};
use self::table::Holder;
use super::signer::now;
use super::{keep, tokens};
use crate::paths::Paths;
use crate::tool::Program;

/// How many bytes a secret has: as many as munge wants.
const SECRET: usize = 128;
/// What to do about the Grid authority's certificate; its key stays, so that what it has signed stays good.
const RENEW: &str =
    "remove grid/ca.crt below /var/lib/gatehouse, and `systemctl restart gatehouse` on the host";

/// Where they are kept.
#[derive(Debug)]
pub(super) struct Store {
    grid: PathBuf,
    secrets: PathBuf,
    openssl: Program,
    /// Held while something is made or signed: once is enough.
    making: Mutex<()>,
}

impl Store {
    /// Below the state's directory.
    pub(super) fn new(paths: &Paths) -> Self {
        Self {
            grid: paths.state.join("grid"),
            secrets: paths.state.join("secrets"),
            openssl: Program::find("openssl", paths.tools.as_deref()),
            making: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, grid: &Grid, epoch: u64) -> Result<GridAuthority, Fault> {
        GridAuthority::open(&self.grid, grid, now(epoch), &self.openssl)
    }

    /// The Grid authority's certificate, PEM; it is made where there is none yet. None if this is no Grid site.
    pub(super) fn authority(&self, site: &Site) -> Result<Option<String>, Fault> {
        let _one = self.lock();
        let Some(grid) = &site.grid else { return Ok(None) };
        self.open(grid, site.epoch).map(|authority| Some(authority.certificate().to_owned()))
    }

    /// Certifies a node's or a user's key, which the node asked for by this name.
    fn certify(
        &self,
        (site, grid): (&Site, &Grid),
        (node, name): (&NodeName, &str),
        holder: &Holder,
        key: &PublicKey,
    ) -> Result<String, Fault> {
        let _one = self.lock();
        let authority = self.open(grid, site.epoch)?;
        let signed = authority.certify(key, holder, grid.certificate_days, now(site.epoch))?;
        let (node, name) = (node.clone(), name.to_owned());
        let new = Issued { node, name, from: signed.from, not_after: signed.until };
        issued::enter(&self.issued(), new, |old| is_held(site, old))?;
        Ok(signed.certificate)
    }

    /// A secret, which is made when it is asked for first.
    fn secret(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let _one = self.lock();
        keep::private_dir(&self.secrets)?;
        let path = self.secrets.join(name);
        if !path.exists() {
            keep::replace(&path, 0o600, &tokens::random::<SECRET>())?;
        }
        fs::read(&path).doing(|| format!("reading {}", path.display()))
    }

    fn issued(&self) -> PathBuf {
        self.grid.join("issued.json")
    }

    /// What is to be renewed soon; `asks` says whether a node still asks for a certificate by a name.
    pub(super) fn warnings(
        &self,
        site: &Site,
        own: (u64, u64),
        asks: impl Fn(&NodeName, &str) -> bool,
    ) -> Result<Vec<String>, Fault> {
        let ending = |what: &str, (from, until), help: &str| Ending {
            what: what.to_owned(),
            from,
            until,
            help: help.to_owned(),
        };
        let now = now(site.epoch);
        let help = "install the machine anew: nothing else changes what every node believes";
        let mut endings = vec![ending("the certificate of the site's authority", own, help)];
        if let Some(grid) = &site.grid {
            let _one = self.lock();
            let validity = self.open(grid, site.epoch)?.validity()?;
            endings.push(ending("the certificate of the Grid authority", validity, RENEW));
            // Asked last: it takes a look into the node's profile.
            let all = issued::read(&self.issued()).into_iter();
            let used = all.filter(|one| is_held(site, one)).map(|one| (of_node(&one), one));
            let used = used.filter(|(ending, one)| ending.is_soon(now) && asks(&one.node, &one.name));
            endings.extend(used.map(|(ending, _)| ending));
        }
        Ok(issued::warnings(&endings, now))
    }
}

/// Whether the site still has the node and the user.
fn is_held(site: &Site, one: &Issued) -> bool {
    let user = site.grid.as_ref().is_some_and(|grid| grid.user(&one.name).is_some());
    site.node(one.node.as_str()).is_some() && (user || one.name == table::HOST)
}

fn of_node(one: &Issued) -> Ending {
    let (node, name) = (&one.node, &one.name);
    let what = if name == table::HOST {
        format!("the Grid certificate of {node}")
    } else {
        format!("the Grid certificate of {name} on {node}")
    };
    let help = format!("{node} has not renewed it: see that it runs, and `gatectl node list`");
    Ending { what, from: one.from, until: one.not_after, help }
}

#[cfg(test)]
mod tests;
