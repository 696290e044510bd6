//! What an install does to a disk, decided from what the medium has, the disk, and how the disk stands. Pure.

use gatehouse_model::{ContentPart, Contents, Digest, Refusal, Site};
use serde::Serialize;

use super::step::{Slice, Step};
use crate::host::claim::{Claim, ClaimKind};
use crate::host::facts::{DiskFact, round};
use crate::host::plan as first_boot;
use crate::host::run::Act as _;
use crate::host::target::{Standing, Target, Targets};

const MIB: u64 = 1 << 20;
/// GPT name of the boot partition.
pub const ESP: &str = "gh-esp";
/// Of the site partition.
pub const SITE: &str = "gh-site";
/// Of the BIOS boot partition.
pub const BIOS: &str = "gh-bios";
/// Of the host's root, slot A.
pub const ROOT: &str = "gh-root-a";
/// Of the depot, slot A.
pub const DEPOT: &str = "gh-depot-a";

/// What will be done to which disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BringPlan {
    /// Kernel name of the disk.
    pub disk: String,
    /// Bytes in a sector of it.
    pub sector_size: u64,
    /// The partitions that stay as they are: no table is written without them.
    pub kept: Vec<Slice>,
    /// In this order; the last one makes the disk bootable.
    pub steps: Vec<Step>,
}

impl BringPlan {
    /// The parts of a plan that several disks are brought to one after the other: the claim, what is copied, and what makes
    /// bootable.
    pub const PARTS: [fn(&Self) -> &[Step]; 3] = [
        |plan| plan.steps.get(..1).unwrap_or_default(),
        |plan| plan.steps.get(1..plan.steps.len().saturating_sub(1)).unwrap_or_default(),
        |plan| plan.steps.get(1.max(plan.steps.len().saturating_sub(1))..).unwrap_or_default(),
    ];
}

impl std::fmt::Display for BringPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            let mark = if step.destroys() { '!' } else { ' ' };
            writeln!(f, "{mark} {number} {step}")?;
        }
        Ok(())
    }
}

/// Makes the plan for one disk. `contents` is what the medium has.
///
/// # Errors
/// What an old install keeps leaves too little room for this version.
pub fn plan(
    site: &Site,
    disk: &DiskFact,
    target: &Target,
    claim: &Claim,
    contents: &Contents,
) -> Result<BringPlan, Refusal> {
    let (name, claim) = (disk.name.clone(), claim.clone());
    let slices = fresh(&contents.partitions, disk.sector_size);
    let (kept, first) = if keeps(&target.standing) {
        (kept(disk, &slices, &claim)?, Step::Withhold { disk: name.clone(), claim })
    } else {
        check_room(site, disk, &slices, claim.pair.is_some())?;
        (Vec::new(), Step::Clear { disk: name.clone(), claim })
    };
    let slice = |wanted: &str| {
        let found = slices.iter().find(|slice| slice.name == wanted).cloned();
        found.ok_or_else(|| {
            Refusal::new(
                format!("the medium names no partition {wanted}"),
                "write the image to the medium again",
            )
        })
    };
    let steps = vec![
        first,
        Step::CopyRoot { to: slice(ROOT)?, piece: contents.root.clone() },
        Step::CopyDepot { to: slice(DEPOT)?, piece: contents.depot.clone() },
        Step::MakeEsp { to: slice(ESP)? },
        Step::MakeSite { to: slice(SITE)? },
        Step::WriteTable { disk: name.clone(), slices },
    ];
    Ok(BringPlan { disk: name, sector_size: disk.sector_size, kept, steps })
}

/// Whether the first boot will find the room that it needs, before anything is lost.
fn check_room(site: &Site, disk: &DiskFact, slices: &[Slice], mirrored: bool) -> Result<(), Refusal> {
    let end = slices.iter().map(|slice| slice.start + slice.bytes).max().unwrap_or(MIB);
    let bytes = |name: &str| slices.iter().find(|slice| slice.name == name).map_or(0, |slice| slice.bytes);
    first_boot::share_out(site, disk, end, (bytes(ROOT), bytes(DEPOT)), mirrored).map(|_| ())
}

/// What every disk of an install is marked with; `digest` is that of the medium's list, `pair` names a mirror that is new.
/// An install that is resumed stays of the kind that it was begun as.
pub fn claim(site: &str, targets: &Targets, digest: Digest, pair: &str) -> Claim {
    let kind = targets.disks.iter().find_map(|target| match &target.standing {
        Standing::Blank | Standing::Erase { .. } => None,
        Standing::Resume(claim) => Some(claim.kind.clone()),
        Standing::Reinstall { id, lose_all } => {
            Some(ClaimKind::Reinstall { id: id.clone(), lose_all: *lose_all })
        }
    });
    let pair = targets.mirror.then(|| targets.pair.clone().unwrap_or_else(|| pair.to_owned()));
    Claim { contents: digest, site: site.to_owned(), kind: kind.unwrap_or(ClaimKind::Install), pair }
}

/// Whether state and the nodes' disks stay.
fn keeps(standing: &Standing) -> bool {
    matches!(
        standing,
        Standing::Reinstall { lose_all: false, .. }
            | Standing::Resume(Claim { kind: ClaimKind::Reinstall { lose_all: false, .. }, .. })
    )
}

/// One behind the other, from the first MiB on, as in the image; on a disk of large sectors a FAT32 must be larger.
fn fresh(parts: &[ContentPart], sector_size: u64) -> Vec<Slice> {
    let least = gatehouse_disk::FatSpec::smallest(sector_size).as_bytes();
    let mut next = MIB;
    let place = |part: &ContentPart| {
        let fat = [ESP, SITE].contains(&part.name.as_str());
        let bytes = if fat { part.bytes.max(least) } else { part.bytes }.next_multiple_of(MIB);
        let slice = Slice { number: part.number, name: part.name.clone(), start: next, bytes };
        next += bytes;
        slice
    };
    parts.iter().map(place).collect()
}

/// What stays on an installed disk, which must begin behind what is written. While its install is not finished the image's
/// own partitions are not in its table: they lie as they would on a fresh one.
fn kept(disk: &DiskFact, slices: &[Slice], claim: &Claim) -> Result<Vec<Slice>, Refusal> {
    let end = slices.iter().map(|slice| slice.start + slice.bytes).max().unwrap_or(0);
    let others = disk.partitions.iter().filter(|part| slices.iter().all(|slice| slice.number != part.number));
    let kept: Vec<Slice> = others
        .map(|part| Slice {
            number: part.number,
            name: part.name.clone(),
            start: part.start,
            bytes: part.bytes,
        })
        .collect();
    let Some(first) = kept.iter().min_by_key(|part| part.start) else {
        let what = format!("{} has no partition that could be kept", disk.name);
        return Err(Refusal::new(what, "add gatehouse.lose=all to install it as if it were blank"));
    };
    if end <= first.start {
        return Ok(kept);
    }
    let what = format!(
        "this version needs {} before what is kept on {} ({}), which begins at {}; claimed by {}",
        round(end),
        disk.name,
        first.name,
        round(first.start),
        claim.site
    );
    Err(Refusal::new(what, "back up the nodes, then reinstall with gatehouse.lose=all"))
}
