//! Which disk is installed to, or which two, and how each stands: what may be done with it. Pure.
//!
//! A disk with anything on it is refused. Three words overrule that, each for its own: `erase = "always"` in site.toml
//! for what others have left, `gatehouse.reinstall=ID` for an install of Gatehouse, and the claim that an install which
//! was cut off has left behind.

use gatehouse_model::site::{DiskRule, Erase};
use gatehouse_model::{Refusal, Site};
use serde::Serialize;

use crate::host::args::KernelArgs;
use crate::host::choose::{self, never};
use crate::host::claim::{Claim, ClaimKind};
use crate::host::facts::{DiskFact, Facts, PartFact, list};
use crate::host::signature::PROTECTIVE_MBR;

mod pair;

/// The partitions of an install that hold what cannot be made again.
const KEPT: [&str; 2] = ["gh-state", "gh-vms"];

/// The disk that is installed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Its kernel name.
    pub disk: String,
    /// How it stands.
    pub standing: Standing,
}

/// The disks that are installed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Targets {
    /// In the order in which they are written.
    pub disks: Vec<Target>,
    /// Whether they are to be halves of a mirror.
    pub mirror: bool,
    /// What the halves have in common, if they have been a mirror before.
    pub pair: Option<String>,
}

/// How a disk stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing is on it.
    Blank,
    /// Something is on it, and site.toml says that it may go.
    #[serde(rename_all = "kebab-case")]
    Erase {
        /// What that is.
        lost: String,
    },
    /// An install was begun on it and not finished.
    Resume(Claim),
    /// An install is on it, and whoever started the machine wants it done anew.
    #[serde(rename_all = "kebab-case")]
    Reinstall {
        /// The install's id.
        id: String,
        /// Whether state and the nodes' disks go too.
        lose_all: bool,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "disk {}: ", self.disk)?;
        match &self.standing {
            Standing::Blank => f.write_str("blank"),
            Standing::Erase { lost } => write!(f, "erased, as site.toml says; lost are: {lost}"),
            Standing::Resume(claim) => {
                write!(f, "goes on with the install of site {} that was begun", claim.site)
            }
            Standing::Reinstall { id, lose_all: false } => {
                write!(
                    f,
                    "reinstalled ({id}); both slots' system is lost, state and the nodes' disks are kept"
                )
            }
            Standing::Reinstall { id, lose_all: true } => {
                write!(f, "reinstalled ({id}); everything is lost: state with all keys, and the nodes' disks")
            }
        }
    }
}

/// What a choice is made by.
#[derive(Clone, Copy)]
struct Asked<'a> {
    site: &'a Site,
    rule: &'a DiskRule,
    facts: &'a Facts,
}

/// Chooses the disks: one, or those of a mirror that are not finished yet.
///
/// # Errors
/// The rule does not name as many, or one is not to be touched; every disk is listed with the reason.
pub fn targets(site: &Site, facts: &Facts, args: &KernelArgs) -> Result<Targets, Refusal> {
    let rule = rule(site)?;
    let asked = Asked { site, rule, facts };
    let named = args.reinstall.as_deref().map(|id| reinstalled(id, facts, args)).transpose()?;
    if rule.mirror {
        return pair::targets(asked, named);
    }
    let (disk, standing) = if let Some(named) = named {
        named
    } else {
        let disk = choose::disks(rule, facts)?[0];
        (disk, standing(disk, asked)?)
    };
    pair::check_kept(disk, &standing, false)?;
    let disks = vec![Target { disk: disk.name.clone(), standing }];
    Ok(Targets { disks, mirror: false, pair: None })
}

/// The rule, which may ask for one disk or for a mirror.
fn rule(site: &Site) -> Result<&DiskRule, Refusal> {
    if site.disk.mirror || site.disk.count == 1 {
        return Ok(&site.disk);
    }
    let what = "the system is installed to one disk, or to two that are a mirror, and its [[disk]] asks for another number";
    Err(Refusal::new(what, "write count = 1, or mirror = true"))
}

/// The disk of an id, whatever the rule says: it was named.
fn reinstalled<'a>(
    id: &str,
    facts: &'a Facts,
    args: &KernelArgs,
) -> Result<(&'a DiskFact, Standing), Refusal> {
    let free = || facts.disks.iter().filter(|disk| never(disk, facts).is_empty());
    let begun: Vec<(&DiskFact, &Claim)> =
        free().filter_map(|disk| Some((disk, begun_anew(disk, id)?))).collect();
    if let [(disk, claim), others @ ..] = begun.as_slice() {
        // Both halves of a mirror are claimed by the id of the one that was named.
        let halves = claim.pair.is_some() && others.iter().all(|(_, other)| other.pair == claim.pair);
        if others.is_empty() || (halves && others.len() == 1) {
            return Ok((disk, Standing::Resume((*claim).clone())));
        }
        return Err(several(id, begun.iter().map(|(disk, _)| *disk)));
    }
    let holds = |disk: &&DiskFact| disk.id.as_deref() == Some(id) && (disk.is_installed() || is_kept(disk));
    match free().filter(holds).collect::<Vec<_>>().as_slice() {
        [disk] => Ok((disk, Standing::Reinstall { id: id.to_owned(), lose_all: args.lose_all })),
        [] => Err(no_install(id, facts)),
        disks => Err(several(id, disks.iter().copied())),
    }
}

/// The claim of a reinstall by an id that was begun on a disk and not finished.
fn begun_anew<'a>(disk: &'a DiskFact, id: &str) -> Option<&'a Claim> {
    let named = |claim: &&Claim| matches!(&claim.kind, ClaimKind::Reinstall { id: was, .. } if was == id);
    let claim = disk.claim.as_ref().filter(named)?;
    let broken = disk.trouble.is_some() && !keeps(claim);
    (broken || goes_on(disk, claim)).then_some(claim)
}

fn no_install(id: &str, facts: &Facts) -> Refusal {
    let seen = list(facts.disks.iter().map(|disk| {
        let id = disk.id.as_deref().unwrap_or("no id");
        let against = never(disk, facts);
        let why = if against.is_empty() { String::new() } else { format!(": {}", against.join(", ")) };
        format!("{id}: {disk}{why}")
    }));
    let what = format!("no install has the id {id} of gatehouse.reinstall; seen:{seen}");
    Refusal::new(what, "write the id of the disk that is to be installed anew")
}

/// A disk that was copied whole has the id of its original.
fn several<'a>(id: &str, disks: impl Iterator<Item = &'a DiskFact>) -> Refusal {
    let what = format!("several disks have the id {id} of gatehouse.reinstall:{}", list(disks));
    Refusal::new(what, "pull out those that are copies, and start again")
}

/// Whether an install has left on it what cannot be made again.
fn is_kept(disk: &DiskFact) -> bool {
    KEPT.iter().any(|name| disk.part(name).is_some())
}

fn keeps(claim: &Claim) -> bool {
    matches!(claim.kind, ClaimKind::Reinstall { lose_all: false, .. })
}

/// Whether an install has begun with a disk and not finished it, be it one that keeps what is there.
pub fn begun(disk: &DiskFact, claim: &Claim) -> bool {
    goes_on(disk, claim) || goes_on(disk, &Claim { kind: ClaimKind::Install, ..claim.clone() })
}

/// Whether a disk is as the install that has claimed it may have left it. The mark itself outlives an install, and may
/// then lie under whatever came later.
fn goes_on(disk: &DiskFact, claim: &Claim) -> bool {
    let own = |part: &PartFact| {
        part.number <= 5 && part.name.starts_with("gh-") && !KEPT.contains(&part.name.as_str())
    };
    match claim.kind {
        _ if disk.is_installed() => false,
        ClaimKind::Reinstall { lose_all: false, .. } => {
            is_kept(disk) && disk.partitions.iter().all(|part| part.number > 5)
        }
        // It is cleared first, and its table comes last, from the copy at the end on.
        ClaimKind::Install | ClaimKind::Reinstall { lose_all: true, .. } => {
            disk.trouble.is_none()
                && disk.holds.iter().all(|kind| kind == PROTECTIVE_MBR)
                && (disk.partitions.is_empty() || (disk.primary_lost && disk.partitions.iter().all(own)))
        }
    }
}

fn standing(disk: &DiskFact, asked: Asked<'_>) -> Result<Standing, Refusal> {
    let Asked { site, rule, facts } = asked;
    if let Some(claim) = disk.claim.as_ref().filter(|claim| goes_on(disk, claim)) {
        if keeps(claim) && claim.site != site.name.as_str() {
            let what = format!(
                "site {} was being reinstalled on the disk, and this is {}: {disk}",
                claim.site, site.name
            );
            return Err(Refusal::new(what, "start from the medium with which that was begun"));
        }
        return Ok(Standing::Resume(claim.clone()));
    }
    if disk.is_installed() || is_kept(disk) {
        let id = disk.id.as_deref().unwrap_or_default();
        let what = format!(
            "the disk holds an install of Gatehouse (id {id}), which is never erased by a rule: {disk}{}",
            facts.beside(disk)
        );
        let help = format!(
            "start it, or start with gatehouse.reinstall={id}, which keeps state and the nodes' disks \
             (gatehouse.lose=all does not)"
        );
        return Err(Refusal::new(what, help));
    }
    let lost = disk.contents();
    if disk.holds.is_empty() && disk.partitions.is_empty() && disk.trouble.is_none() {
        return Ok(Standing::Blank);
    }
    if rule.erase == Erase::Always {
        return Ok(Standing::Erase { lost });
    }
    let what = format!("the disk that the rule names is not blank: {disk}{}", facts.beside(disk));
    Err(Refusal::new(
        what,
        "take another disk, or write erase = \"always\" for it in site.toml if all of that may go",
    ))
}

#[cfg(test)]
mod tests;
