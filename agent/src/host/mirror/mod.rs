//! A system on two disks. Each has its own copy of what it starts from; state and the stores are mirrors of md over one
//! partition of each. Which disks and partitions belong together is decided here, purely; `mdadm` does it.
//!
//! ```text
//! claim of the disk booted from: a pair ──► the other disk of the pair ──► halves: run, join, leave apart
//! ```
//! A half that is missing or broken never stops a start; one that comes back is filled again from the other.

pub mod finish;
pub mod mdadm;
pub mod watch;

use gatehouse_model::{Digest, Refusal};
use serde::{Deserialize, Serialize};

use super::facts::{DiskFact, Facts, PartFact, list};
use super::target::begun;

/// Two disks of a pair differ by no more than a hundredth of the larger one: makers round the same size differently.
const ALIKE: u64 = 100;
/// This much of a disk, a fiftieth, stays free in a mirror, so that the next disk of the same size is large enough.
const SPARE: u64 = 50;

/// One of the two mirrors. Their devices are numbered as the partitions that they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Array {
    /// Of `gh-state`.
    State,
    /// Of `gh-vms`.
    Vms,
}

impl Array {
    /// Both, in the order in which a start needs them.
    pub const ALL: [Self; 2] = [Self::State, Self::Vms];

    /// The name of its partitions, and its own.
    pub fn part(self) -> &'static str {
        match self {
            Self::State => "gh-state",
            Self::Vms => "gh-vms",
        }
    }

    /// Kernel name of its device.
    pub fn device(self) -> &'static str {
        match self {
            Self::State => "md8",
            Self::Vms => "md9",
        }
    }

    /// Its id in a pair of disks, 32 hexadecimal digits.
    pub fn id(self, pair: &str) -> String {
        Digest::of(format!("{pair} {}", self.part()).as_bytes()).to_string()[..32].to_owned()
    }
}

/// The disks of a mirrored system that are there.
#[derive(Clone, Debug)]
pub struct Pair<'a> {
    /// What they have in common.
    pub id: &'a str,
    /// The disk booted from.
    pub booted: &'a DiskFact,
    /// The other one, if it is there.
    pub partner: Option<&'a DiskFact>,
    /// Whether all of the other one is written but its table: the power failed between the last writes to both.
    pub unfinished: bool,
}

/// The pair of the disk booted from; none: its system lives on that disk alone.
///
/// # Errors
/// More than two disks say that they are of the pair.
pub fn pair<'a>(booted: &'a DiskFact, facts: &'a Facts) -> Result<Option<Pair<'a>>, Refusal> {
    let Some(id) = booted.claim.as_ref().and_then(|claim| claim.pair.as_deref()) else { return Ok(None) };
    let of_pair = |disk: &&DiskFact| {
        let same = disk.claim.as_ref().and_then(|claim| claim.pair.as_deref()) == Some(id);
        let fit = disk.name != booted.name && disk.trouble.is_none() && !disk.read_only;
        same && fit && (disk.is_installed() || is_unfinished(disk, booted))
    };
    let others: Vec<&DiskFact> = facts.disks.iter().filter(of_pair).collect();
    if others.len() > 1 {
        let what =
            format!("the mirror is of two disks, and these are of it too beside {booted}:{}", list(others));
        return Err(Refusal::new(what, "pull out the copy, and start again"));
    }
    let partner = others.first().copied();
    let unfinished = partner.is_some_and(|disk| !disk.is_installed());
    Ok(Some(Pair { id, booted, partner, unfinished }))
}

/// What is kept on a disk is half of a mirror only where the disk's claim names the pair: without it nothing is known of
/// the other half, and a half that is taken for a whole would be made anew.
///
/// # Errors
/// It is a half, and the claim is gone.
pub fn check_claimed(disk: &DiskFact) -> Result<(), Refusal> {
    let named = disk.claim.as_ref().is_some_and(|claim| claim.pair.is_some());
    let half = |array: &Array| disk.part(array.part()).filter(|part| part.member.is_some());
    let Some(part) = Array::ALL.iter().find_map(half).filter(|_| !named) else { return Ok(()) };
    let what = format!(
        "{} ({}) is half of a mirror, and the mark on the disk that names the other half is gone: {disk}",
        disk.part_device(part.number),
        part.name
    );
    Err(Refusal::new(
        what,
        "nothing was changed; start from the mirror's other disk, with a blank one in the place of this one; if there is no \
         other, mdadm --assemble --run in a rescue shell still reads what this one holds",
    ))
}

/// Whether a disk was begun in the install that has finished the disk booted from.
fn is_unfinished(disk: &DiskFact, booted: &DiskFact) -> bool {
    disk.claim == booted.claim
        && disk.claim.as_ref().is_some_and(|claim| begun(disk, claim))
        && check_alike(disk, booted).is_ok()
}

/// What becomes of the partitions of one mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    /// What the mirror is put together from; nothing: it was never made.
    pub run: Vec<String>,
    /// What is to be filled again from the other half.
    pub join: Option<String>,
    /// What is left as it is: each half has run without the other, so that both hold what the other one lacks.
    pub apart: Option<String>,
}

/// Decides it by what each half says of itself: the newest one counts.
pub fn halves(pair: &Pair<'_>, array: Array) -> Halves {
    let id = array.id(pair.id);
    let disks = [Some(pair.booted), pair.partner];
    let found = disks.into_iter().flatten().filter_map(|disk| Some((disk, disk.part(array.part())?)));
    let parts: Vec<(String, &PartFact)> =
        found.map(|(disk, part)| (disk.part_device(part.number), part)).collect();
    let members: Vec<_> = parts
        .iter()
        .filter_map(|(device, part)| Some((device, part.member.as_ref().filter(|own| own.array == id)?)))
        .collect();
    // Of two that are equal, that of the disk booted from.
    let whole = members.iter().rev().filter(|(_, own)| !own.filling);
    let Some((first, newest)) = whole.max_by_key(|(_, own)| own.events) else {
        // Nothing, or nothing that could be run: mdadm says why.
        let run = members.iter().map(|(device, _)| (*device).clone()).collect();
        return Halves { run, ..Halves::default() };
    };
    let mut halves = Halves { run: vec![(*first).clone()], ..Halves::default() };
    for (device, _) in parts.iter().filter(|(device, _)| device != *first) {
        match members.iter().find(|(member, _)| *member == device) {
            // Events are written to one half after the other.
            Some((_, own)) if !newest.alone && !own.alone && own.events + 1 >= newest.events => {
                halves.run.push(device.clone());
            }
            Some((_, own)) if own.alone => halves.apart = Some(device.clone()),
            _ => halves.join = Some(device.clone()),
        }
    }
    halves
}

/// How much of a disk is used.
pub fn usable(bytes: u64, mirrored: bool) -> u64 {
    if mirrored { bytes - bytes / SPARE } else { bytes }
}

/// Whether two disks can be halves of one mirror.
///
/// # Errors
/// Their sizes, or those of their sectors, differ.
pub fn check_alike(one: &DiskFact, other: &DiskFact) -> Result<(), Refusal> {
    let (less, more) = (one.bytes.min(other.bytes), one.bytes.max(other.bytes));
    if one.sector_size == other.sector_size && more - less <= more / ALIKE {
        return Ok(());
    }
    let what = format!(
        "a mirror is of two disks of the same size and kind, and these differ:{}",
        list([one, other])
    );
    Err(Refusal::new(what, "put in two equal disks, or name two by the keys of [[disk]] in site.toml"))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
