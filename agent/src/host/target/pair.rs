//! The two disks of a mirror: how each stands, seen together with the other one.

use gatehouse_model::Refusal;

use super::{Asked, Standing, Target, Targets, goes_on, is_kept, keeps, standing};
use crate::host::choose::{self, never};
use crate::host::claim::{Claim, ClaimKind};
use crate::host::facts::{DiskFact, list};
use crate::host::mirror::{check_alike, check_claimed};

/// The disks of a mirror that are to be written: both, or that which is not finished.
pub(super) fn targets(asked: Asked<'_>, named: Option<(&DiskFact, Standing)>) -> Result<Targets, Refusal> {
    let (disks, pair) = match named {
        Some((disk, standing)) => reinstalled(asked, (disk, standing))?,
        None => by_rule(asked)?,
    };
    Ok(Targets { disks, mirror: true, pair })
}

/// What is kept on one disk cannot become a mirror, nor a mirror's half the system of one disk.
pub(super) fn check_kept(disk: &DiskFact, standing: &Standing, mirror: bool) -> Result<(), Refusal> {
    let kept = match standing {
        Standing::Resume(claim) => keeps(claim),
        Standing::Reinstall { lose_all, .. } => !lose_all,
        Standing::Blank | Standing::Erase { .. } => false,
    };
    if !kept {
        return Ok(());
    }
    check_claimed(disk)?;
    if mirror == pair_of(disk).is_some() {
        return Ok(());
    }
    let (is, wants, write) = if mirror {
        ("on one disk", "a mirror of two", "remove mirror from [[disk]] in site.toml")
    } else {
        ("a mirror of two disks", "one disk", "write mirror = true under [[disk]] in site.toml")
    };
    let what = format!("the install is {is}, and site.toml wants {wants}: {disk}");
    Err(Refusal::new(
        what,
        format!("{write}, or add gatehouse.lose=all, which loses state and the nodes' disks"),
    ))
}

fn pair_of(disk: &DiskFact) -> Option<&str> {
    disk.claim.as_ref()?.pair.as_deref()
}

/// The claim of an install that has begun with a disk and not finished it.
fn begun(disk: &DiskFact) -> Option<&Claim> {
    disk.claim.as_ref().filter(|claim| claim.pair.is_some() && goes_on(disk, claim))
}

type Chosen = (Vec<Target>, Option<String>);

fn by_rule(asked: Asked<'_>) -> Result<Chosen, Refusal> {
    let chosen = choose::disks(asked.rule, asked.facts)?;
    let [one, other] = chosen.as_slice() else {
        return Err(Refusal::new("a mirror is of two disks", "write count = 2, or remove it"));
    };
    let resumed = [*one, *other].into_iter().find_map(|disk| begun(disk));
    let mut disks = Vec::new();
    for disk in [*one, *other] {
        let standing = match resumed.filter(|claim| claim.pair.as_deref() == pair_of(disk)) {
            Some(claim) => together(disk, claim, asked)?,
            None => Some(standing(disk, asked)?),
        };
        disks.extend(standing.map(|standing| (disk, standing)));
    }
    check_alike(one, other)?;
    for (disk, standing) in &disks {
        check_kept(disk, standing, true)?;
    }
    let pair = resumed.and_then(|claim| claim.pair.clone());
    Ok((disks.into_iter().map(target).collect(), pair))
}

fn target((disk, standing): (&DiskFact, Standing)) -> Target {
    Target { disk: disk.name.clone(), standing }
}

/// How a disk stands whose pair's install was begun with a claim; none if it is finished.
fn together(disk: &DiskFact, begun: &Claim, asked: Asked<'_>) -> Result<Option<Standing>, Refusal> {
    let own = disk.claim.as_ref();
    if disk.is_installed() && own == Some(begun) {
        return Ok(None);
    }
    match &begun.kind {
        // Its turn had not come.
        ClaimKind::Reinstall { id, lose_all } if disk.is_installed() => {
            Ok(Some(Standing::Reinstall { id: id.clone(), lose_all: *lose_all }))
        }
        // It has replaced another disk, so that nothing is kept on it.
        ClaimKind::Reinstall { lose_all: false, .. } if own == Some(begun) && !is_kept(disk) => {
            if super::begun(disk, begun) {
                Ok(Some(Standing::Blank))
            } else {
                standing(disk, asked).map(Some)
            }
        }
        _ => standing(disk, asked).map(Some),
    }
}

/// The disk that was named and the other one of its pair, or a disk that takes that one's place.
fn reinstalled(asked: Asked<'_>, (disk, standing): (&DiskFact, Standing)) -> Result<Chosen, Refusal> {
    check_kept(disk, &standing, true)?;
    let (pair, partner) = (pair_of(disk), partner(disk, asked)?);
    let claim = match &standing {
        Standing::Resume(claim) => Some(claim),
        _ => None,
    };
    let other = if let Some(partner) = partner {
        companion(partner, &standing, claim, asked)?.map(|standing| (partner, standing))
    } else {
        let partner = replacement(disk, asked)?;
        check_alike(disk, partner)?;
        Some((partner, super::standing(partner, asked)?))
    };
    let disks = std::iter::once((disk, standing)).chain(other).map(target).collect();
    Ok((disks, pair.map(str::to_owned)))
}

/// The other disk of a mirror, if it is there.
fn partner<'a>(disk: &DiskFact, asked: Asked<'a>) -> Result<Option<&'a DiskFact>, Refusal> {
    let Some(pair) = pair_of(disk) else { return Ok(None) };
    let of_pair = |other: &&DiskFact| {
        other.name != disk.name && pair_of(other) == Some(pair) && never(other, asked.facts).is_empty()
    };
    let others: Vec<&DiskFact> = asked.facts.disks.iter().filter(of_pair).collect();
    if others.len() > 1 {
        let what =
            format!("the mirror is of two disks, and these are of it too beside {disk}:{}", list(others));
        return Err(Refusal::new(what, "pull out those that are not meant, and start again"));
    }
    Ok(others.first().copied())
}

fn companion(
    partner: &DiskFact,
    named: &Standing,
    claim: Option<&Claim>,
    asked: Asked<'_>,
) -> Result<Option<Standing>, Refusal> {
    match (claim, named) {
        (Some(claim), _) => together(partner, claim, asked),
        (None, Standing::Reinstall { .. }) if partner.is_installed() || is_kept(partner) => {
            Ok(Some(named.clone()))
        }
        _ => standing(partner, asked).map(Some),
    }
}

/// The disk that the rule names beside the one that is installed already.
fn replacement<'a>(disk: &DiskFact, asked: Asked<'a>) -> Result<&'a DiskFact, Refusal> {
    let help = "put the mirror's other disk back, or put in a blank one of the same size that the rule names";
    let chosen =
        choose::disks(asked.rule, asked.facts).map_err(|refusal| Refusal::new(refusal.what, help))?;
    match chosen.as_slice() {
        [one, other] if one.name == disk.name => Ok(other),
        [other, one] if one.name == disk.name => Ok(other),
        _ => {
            let what =
                format!("the rule names other disks than that of the install, {disk}:{}", list(chosen));
            Err(Refusal::new(what, "change the keys of [[disk]] so that they name it and a blank disk"))
        }
    }
}
