//! What will be done to a machine, decided from its site, its facts and the kernel's command line. Pure.

use gatehouse_model::site::{InstallTo, VmmKind};
use gatehouse_model::{Refusal, Site, Size};
use serde::{Deserialize, Serialize};

use super::action::{Action, Wanted};
use super::args::KernelArgs;
use super::choose;
use super::facts::{DiskFact, Facts, LinkFact, list, part_device, round};
use super::mirror::{self, Array, Pair};
use super::run::Act as _;

/// Names and numbers of the partitions that first boot adds.
pub const ADDED: [(u32, &str); 4] = [(6, "gh-root-b"), (7, "gh-depot-b"), (8, "gh-state"), (9, "gh-vms")];

const MIB: u64 = 1 << 20;
/// State is this large where there is room, and never smaller than the least.
const STATE: u64 = Size::gib(4).as_bytes();
const LEAST_STATE: u64 = Size::gib(1).as_bytes();
/// mkfs.xfs makes nothing smaller.
const LEAST_VMS: u64 = Size::mib(300).as_bytes();
/// What Xen takes for itself and for the page tables of its domains.
const XEN_OVERHEAD: u64 = Size::mib(128).as_bytes();

/// What will be done, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The disk that the host lives on.
    pub disk: String,
    /// The NIC that is bridged.
    pub nic: LinkFact,
    /// The other disk of a mirror, if it is there.
    pub partner: Option<Partner>,
    /// Whether there is a mirror whose other disk is missing.
    pub alone: bool,
    /// In this order.
    pub actions: Vec<Action>,
}

/// What is done to the other disk of a mirror. That it cannot be done is no reason not to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partner {
    /// Kernel name of the disk.
    pub disk: String,
    /// Before the actions of the plan.
    pub before: Vec<Action>,
    /// After them.
    pub after: Vec<Action>,
}

impl Plan {
    /// Kernel name of the partition or mirror that holds the stores.
    pub fn stores(&self) -> Option<&str> {
        self.actions.iter().find_map(|action| match action {
            Action::MakeVms { device } => Some(device.as_str()),
            _ => None,
        })
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.partner {
            Some(partner) => writeln!(f, "disk {}, mirrored on {}", self.disk, partner.disk)?,
            None if self.alone => {
                writeln!(f, "disk {}, alone: the mirror's other disk is missing", self.disk)?;
            }
            None => writeln!(f, "disk {}", self.disk)?,
        }
        writeln!(f, "nic  {}", self.nic)?;
        let (before, after) = self.partner.as_ref().map(|partner| (&partner.before, &partner.after)).unzip();
        let all = before.into_iter().flatten().chain(&self.actions).chain(after.into_iter().flatten());
        for (number, action) in (1..).zip(all) {
            let mark = if action.destroys() { '!' } else { ' ' };
            writeln!(f, "{mark} {number} {action}")?;
        }
        Ok(())
    }
}

/// Makes the plan. On a machine that is installed it is the same plan again, and finds everything done.
///
/// # Errors
/// The machine will not be touched: nothing says where to install, the disk is too small, the NIC or the memory
/// is not as the site needs it.
pub fn plan(site: &Site, facts: &Facts, args: &KernelArgs) -> Result<Plan, Refusal> {
    let disk = boot_disk(facts, args)?;
    mirror::check_claimed(disk)?;
    let pair = mirror::pair(disk, facts)?;
    if disk.part("gh-state").is_none() {
        check_destination(site, facts, args)?;
        check_mirror(site, disk)?;
    }
    // A disk that has replaced another one is divided as its partner is.
    let model =
        pair.as_ref().and_then(|pair| pair.partner).filter(|partner| partner.part("gh-state").is_some());
    let model = model.filter(|_| disk.part("gh-state").is_none()).unwrap_or(disk);
    let parts = partitions(site, model, args)?;
    let nic = choose::nic(&site.network.nic, facts)?.clone();
    check_memory(site, facts)?;
    let partner = pair.as_ref().and_then(|pair| partner(pair, &parts));
    let mut actions = vec![Action::GrowTable { disk: disk.name.clone(), parts }];
    let device = |array: Array| match pair {
        Some(_) => array.device().to_owned(),
        None => part_device(&disk.name, number(array)),
    };
    let make_mirror = |array: Array| {
        let disks = [Some(disk), pair.as_ref()?.partner];
        let parts = disks.into_iter().flatten().map(|disk| disk.part_device(number(array))).collect();
        Some(Action::MakeMirror { array, parts })
    };
    actions.extend(make_mirror(Array::State));
    actions.extend([Action::MakeState { device: device(Array::State) }, Action::SeedState]);
    actions.extend(make_mirror(Array::Vms));
    actions.extend([
        Action::MakeVms { device: device(Array::Vms) },
        Action::ImportSite,
        Action::MakeMachineId,
        Action::MakeHostKeys,
    ]);
    let alone = pair.is_some() && partner.is_none();
    Ok(Plan { disk: disk.name.clone(), nic, partner, alone, actions })
}

/// The number of a mirror's partitions.
fn number(array: Array) -> u32 {
    ADDED.iter().find(|(_, name)| *name == array.part()).map_or(0, |(number, _)| *number)
}

/// What is done to the other disk: it gets the partitions that it lacks, as large as those of the first one, and halves
/// that are behind are filled again. None where all of that has come to its end.
fn partner(pair: &Pair<'_>, parts: &[Wanted]) -> Option<Partner> {
    let disk = pair.partner?;
    let own = |part: &Wanted| Wanted {
        bytes: disk.part(&part.name).map_or(part.bytes, |there| there.bytes),
        ..part.clone()
    };
    let grow = Action::GrowTable { disk: disk.name.clone(), parts: parts.iter().map(own).collect() };
    let behind = |array: Array| {
        let halves = mirror::halves(pair, array);
        let lacks = |disk: &&DiskFact| disk.part(array.part()).is_none() && !halves.run.is_empty();
        let new = || Some([pair.booted, disk].into_iter().find(lacks)?.part_device(number(array)));
        let part = halves.join.clone().or_else(new)?;
        Some(Action::JoinMirror { array, part })
    };
    let after = Array::ALL.into_iter().filter_map(behind).collect();
    let (name, from) = (disk.name.clone(), pair.booted.name.clone());
    let finish = pair.unfinished.then(|| Action::FinishDisk { disk: name.clone(), from });
    Some(Partner { disk: name, before: finish.into_iter().chain([grow]).collect(), after })
}

/// A site that wants a mirror is not put on one disk.
fn check_mirror(site: &Site, disk: &DiskFact) -> Result<(), Refusal> {
    let is_half = disk.claim.as_ref().is_some_and(|claim| claim.pair.is_some());
    if is_half || !site.disk.mirror {
        return Ok(());
    }
    let what =
        format!("site.toml wants a mirror of two disks, and this start would put the site on one: {disk}");
    Err(Refusal::new(
        what,
        "start the installer, which is an entry of the medium's menu; or remove mirror from [[disk]] in site.toml",
    ))
}

/// The disk that the system was booted from.
///
/// # Errors
/// It is not among the disks seen, or cannot be read or written.
pub fn boot_disk<'a>(facts: &'a Facts, args: &KernelArgs) -> Result<&'a DiskFact, Refusal> {
    let Some(disk) = facts.booted_from() else {
        let root = args.boot.as_deref().unwrap_or("none named");
        let seen = list(&facts.disks);
        let what = format!("no disk has the partition that the system was booted from ({root}); seen:{seen}");
        return Err(Refusal::new(what, "start the machine with root=PARTUUID=… of the image's gh-root-a"));
    };
    if disk.read_only {
        let what = format!("the disk booted from is write protected: {disk}");
        return Err(Refusal::new(what, "remove the write protection and start again"));
    }
    if let Some(trouble) = &disk.trouble {
        let what = format!("the disk booted from cannot be read: {}: {trouble}", disk.name);
        return Err(Refusal::new(what, "replace the disk, or write the image to it again"));
    }
    Ok(disk)
}

/// A system starts on the disk that it is to live on; whoever means another disk starts the installer.
fn check_destination(site: &Site, facts: &Facts, args: &KernelArgs) -> Result<(), Refusal> {
    let seen = list(&facts.disks);
    match args.install_to.or(site.install.to) {
        Some(InstallTo::SelfDisk) => Ok(()),
        None => Err(Refusal::new(
            format!("neither site.toml nor the kernel's command line says where to install to; seen:{seen}"),
            "write to = \"self\" under [install] in site.toml, or start with gatehouse.install-to=self; \
             it is the disk booted from then, and no other is touched",
        )),
        Some(InstallTo::Rule) => Err(Refusal::new(
            format!(
                "the rule's disk is meant, and this is the start of a system on its own disk; seen:{seen}"
            ),
            "start the installer, which is an entry of the medium's menu; or start with gatehouse.install-to=self",
        )),
    }
}

/// The partitions to add; those of an installed disk as they are.
fn partitions(site: &Site, disk: &DiskFact, args: &KernelArgs) -> Result<Vec<Wanted>, Refusal> {
    let there: Vec<Wanted> = ADDED
        .iter()
        .filter_map(|(_, name)| disk.part(name))
        .map(|part| Wanted { number: part.number, name: part.name.clone(), bytes: part.bytes })
        .collect();
    let numbers_fit = there.iter().all(|part| ADDED.contains(&(part.number, part.name.as_str())));
    if there.len() == ADDED.len() && numbers_fit {
        return Ok(there);
    }
    let taken: Vec<String> = disk
        .partitions
        .iter()
        .filter(|part| ADDED.iter().any(|(number, name)| part.number == *number || part.name == *name))
        .map(|part| format!("{} {:?}", part.number, part.name))
        .collect();
    if !taken.is_empty() {
        let what = format!(
            "the partitions of {} are neither the image's nor those of an install: {}",
            disk.name,
            taken.join(", ")
        );
        return Err(Refusal::new(what, "write the image to the disk again"));
    }
    room(site, disk, args)
}

fn room(site: &Site, disk: &DiskFact, args: &KernelArgs) -> Result<Vec<Wanted>, Refusal> {
    let slot = |kind: &str| {
        let name = format!("gh-{kind}-{}", args.slot.letter());
        disk.part(&name).map(|part| part.bytes.next_multiple_of(MIB)).ok_or_else(|| {
            let what = format!("the disk booted from has no partition {name}: {disk}");
            Refusal::new(what, "write the image to the disk again")
        })
    };
    let slot_b = (slot("root")?, slot("depot")?);
    let end = disk.partitions.iter().map(|part| part.start + part.bytes).max().unwrap_or(MIB);
    let mirrored = disk.claim.as_ref().is_some_and(|claim| claim.pair.is_some());
    let sizes = share_out(site, disk, end.next_multiple_of(MIB), slot_b, mirrored)?;
    let parts = ADDED.iter().zip(sizes);
    Ok(parts
        .map(|((number, name), bytes)| Wanted { number: *number, name: (*name).to_owned(), bytes })
        .collect())
}

/// The sizes of the partitions of [`ADDED`] on a disk that is free from a byte on; a mirror leaves some of it free.
///
/// # Errors
/// They do not fit: how much is needed for what.
pub fn share_out(
    site: &Site,
    disk: &DiskFact,
    begin: u64,
    (root, depot): (u64, u64),
    mirrored: bool,
) -> Result<[u64; 4], Refusal> {
    // The backup table: 128 entries of 128 bytes and its header.
    let backup = (128 * 128) + disk.sector_size;
    let limit = mirror::usable(disk.bytes, mirrored).saturating_sub(backup) / MIB * MIB;
    let vms = stores(site);
    let needs = begin + root + depot + LEAST_STATE + vms;
    let Some(spare) = limit.checked_sub(needs) else {
        return Err(too_small(
            disk,
            &[
                ("the image", begin),
                ("slot B", root + depot),
                ("state", LEAST_STATE),
                ("the nodes' disks", vms),
            ],
        ));
    };
    let state = LEAST_STATE + spare.min(STATE - LEAST_STATE);
    Ok([root, depot, state, limit - begin - root - depot - state])
}

/// What the stores may come to need: all nodes' disks, full, and a fiftieth for xfs itself.
pub fn stores(site: &Site) -> u64 {
    let disks: u64 = site.nodes.iter().map(|node| node.disk.as_bytes()).sum();
    (disks + disks / 50).next_multiple_of(MIB).max(LEAST_VMS)
}

fn too_small(disk: &DiskFact, parts: &[(&str, u64)]) -> Refusal {
    let needs = parts.iter().map(|(_, bytes)| bytes).sum::<u64>() + MIB;
    let list = list(parts.iter().map(|(what, bytes)| format!("{what}: {}", round(*bytes))));
    let what = format!(
        "the disk is too small: {} has {}, this site needs {}:{list}",
        disk.name,
        round(disk.bytes),
        round(needs)
    );
    Refusal::new(what, "take a larger disk, or give the nodes smaller disks in site.toml")
}

/// Whether the machine has the memory that host and nodes take.
///
/// # Errors
/// It has less.
pub fn check_memory(site: &Site, facts: &Facts) -> Result<(), Refusal> {
    let Some(memory) = facts.memory else { return Ok(()) };
    let overhead = if site.host.vmm == VmmKind::Xen { XEN_OVERHEAD } else { 0 };
    let nodes: u64 = site.vms().map(|node| node.memory.as_bytes()).sum();
    let needs = site.host.memory.as_bytes() + nodes + overhead;
    if needs <= memory {
        return Ok(());
    }
    let list = list(site.vms().map(|node| format!("{}: {}", node.name, round(node.memory.as_bytes()))));
    let what = format!(
        "the machine has too little memory: {}; needed are {}:\n  the host: {}{list}",
        round(memory),
        round(needs),
        round(site.host.memory.as_bytes() + overhead),
    );
    Err(Refusal::new(what, "add memory, or give the nodes less in site.toml"))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
