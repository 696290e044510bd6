//! `gatehouse-agent bring`: installs onto the disk that the site's rule names, from a medium or over the network.
//!
//! ```text
//! survey -> medium -> its sites: which one? -> target: which disk, how does it stand? -> plan -> run -> reset
//! ```
//! Runs in the initramfs without a root: it needs nothing but what is in there. After a power cut it begins anew and
//! finds its own claim on the disk; what was copied by then is not copied again. Whatever goes wrong ends in front of
//! people, and nothing starts from a disk that is half written.

mod copy;
mod disk;
mod fat;
mod firmware;
mod medium;
mod net;
pub mod plan;
pub mod step;

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use gatehouse_model::site::InstallTo;
use gatehouse_model::{Digest, Doing as _, Event, Fault, Refusal, Site, State};
use nix::sys::reboot::{RebootMode, reboot};

use super::args::KernelArgs;
use super::claim::{Claim, ClaimKind};
use super::facts::Facts;
use super::import::SiteFiles;
use super::journal::LateJournal;
use super::report::{Account, Phase, Report as Left, kernel_log, medium as left};
use super::run::{Act as _, Host, run};
use super::target::{Target, targets};
use super::teller::Teller;
use crate::control::board::now_millis;

use super::late::{self, Watch};
use super::{boot, choose, command, links, plan as first_boot, random, sites};
use disk::NewDisk;
use fat::Fats;
use medium::{Medium, Stick};
use net::Served;
use plan::BringPlan;
use step::Step;

/// What is said above the fault that ends an install.
const NOT_INSTALLED: &str = "this machine is not installed";
/// How long the disk that the machine was started from may take to show: USB needs some seconds.
const MEDIUM: Duration = Duration::from_secs(60);
/// What would be the journal's file: there is no disk for it, and the claim on the disk is what counts.
const NO_JOURNAL: &str = "/run/gatehouse/no-state/journal.jsonl";

/// Installs this machine and resets it. Returns only if that fails; a refusal or fault is shown for ever.
///
/// # Errors
/// The machine cannot be reset.
pub fn run_bring() -> Result<(), Fault> {
    let teller = RefCell::new(Teller::new(Step::PHASE));
    let args = match command::kernel_args() {
        Ok(args) => args,
        Err(fault) => boot::wait(&mut teller.borrow_mut(), NOT_INSTALLED, &fault),
    };
    let mut machine = await_disks(&args);
    if let (Some(origin), Some(link)) = (&args.from, machine.facts.links.first()) {
        teller.borrow_mut().also = Some(net::tell(origin, link.mac));
    }
    let mut known = Known::default();
    let result = install(&teller, &args, &mut machine, &mut known);
    if let Err(fault) = &result {
        teller.borrow_mut().say("installing", State::Failed, &fault.to_string());
    }
    report(&mut teller.borrow_mut(), &machine.facts, &known, result.as_ref().err());
    if let Err(fault) = &result {
        boot::wait(&mut teller.borrow_mut(), NOT_INSTALLED, fault);
    }
    nix::unistd::sync();
    teller.borrow_mut().say("restarting", State::Succeeded, "");
    // So that consoles and those who follow the events get the last lines.
    std::thread::sleep(Duration::from_secs(1));
    reboot(RebootMode::RB_AUTOBOOT).doing(|| "restarting").map(|_| ())
}

/// What an install knows as soon as it knows it; a report needs the rest of it after a fault.
#[derive(Debug, Default)]
struct Known {
    contents: Option<Digest>,
    plan: Option<String>,
    /// The site partitions of the finished disks.
    site_parts: Vec<String>,
}

/// Leaves what happened on the medium, if it is one that can be written, and on the new disk, from which its first start
/// sends it on. That it cannot is no reason to stop.
fn report(teller: &mut Teller, facts: &Facts, known: &Known, fault: Option<&Fault>) {
    let account = Account {
        phase: Phase::SelfInstall,
        at: now_millis() / 1000,
        site: &teller.host,
        facts,
        contents: known.contents,
        plan: known.plan.as_deref(),
        events: &teller.told(),
        kernel_log: &kernel_log::read(),
    };
    let report = Left::of(&account, fault);
    let medium = facts.booted_from().and_then(|disk| Some((disk, disk.part(plan::SITE)?)));
    let medium = medium.map(|(disk, part)| format!("/dev/{}", disk.part_device(part.number)));
    for device in medium.iter().chain(&known.site_parts) {
        if let Err(fault) = left::leave_on(device, &report) {
            teller.say("writing the report", State::Failed, &fault.to_string());
        }
    }
}

fn install(
    teller: &RefCell<Teller>,
    args: &KernelArgs,
    machine: &mut Watch<'_>,
    known: &mut Known,
) -> Result<(), Fault> {
    let medium = open_medium(args, &machine.facts)?;
    let (contents, digest) = medium::contents(&*medium)?;
    known.contents = Some(digest);
    let (site, files) = choose_site(&*medium, &machine.facts, args)?;
    teller.borrow_mut().host = site.name.to_string();
    boot::set_clock(site.epoch)?;
    by_rule(&site, args)?;
    if site.network.nic.link.is_some() {
        links::await_carriers(&mut machine.facts, None);
    }
    choose::nic(&site.network.nic, &machine.facts)?;
    first_boot::check_memory(&site, &machine.facts)?;
    let targets = machine.decide(quiet(&site, args), |facts| targets(&site, facts, args), &mut |why| {
        teller.borrow_mut().say("waiting for disks", State::Progress, why);
    })?;
    let facts = &machine.facts;
    let pair = format!("{:032x}", u128::from_be_bytes(random::id()?));
    let claim = plan::claim(site.name.as_str(), &targets, digest, &pair);
    let plan = |target: &Target| {
        let disk = facts.disk(&target.disk).ok_or_else(|| Fault::new(format!("{} is gone", target.disk)))?;
        let plan = plan::plan(&site, disk, target, &claim, &contents)?;
        let summary = format!("installing site {} to {disk}\n{target}\n{plan}", site.name);
        Ok((plan, summary))
    };
    let (plans, summaries): (Vec<BringPlan>, Vec<String>) =
        targets.disks.iter().map(plan).collect::<Result<Vec<_>, Fault>>()?.into_iter().unzip();
    teller.borrow_mut().show(&format!("gatehouse: {}", summaries.join("\n")));
    known.plan = Some(summaries.join("\n"));
    let filesystems = Fats::new(medium.list(), &site, &files, was(&claim));
    let mut disks = Vec::new();
    for plan in &plans {
        let progress = Box::new(|event| teller.borrow_mut().tell(event));
        disks.push(NewDisk::open(plan, &*medium, &contents, filesystems.clone(), progress)?);
    }
    carry_out(&plans, &mut disks, &facts.boot_id, &mut |event| teller.borrow_mut().tell(event))?;
    known.site_parts = plans.iter().zip(&disks).filter_map(|(plan, disk)| disk.site_part(plan)).collect();
    if firmware::is_uefi() {
        set_boot_order(&plans, &mut teller.borrow_mut());
    }
    Ok(())
}

/// A firmware that does not take it is no reason to stop: the disks are bootable.
fn set_boot_order(plans: &[BringPlan], teller: &mut Teller) {
    let esp = |plan: &BringPlan| {
        plan.steps.iter().find_map(|step| match step {
            Step::MakeEsp { to } => Some((plan.disk.clone(), to.number)),
            _ => None,
        })
    };
    let action = "setting the firmware's boot order";
    match firmware::start_first(&plans.iter().filter_map(esp).collect::<Vec<_>>()) {
        Err(fault) => teller.say(action, State::Failed, &fault.to_string()),
        Ok(()) => teller.say(action, State::Succeeded, ""),
    }
}

/// All disks are claimed before anything is copied, and all are whole before one is made bootable.
fn carry_out(
    plans: &[BringPlan],
    disks: &mut [impl Host<Step>],
    boot_id: &str,
    told: &mut dyn FnMut(Event),
) -> Result<(), Fault> {
    let journal = || LateJournal::new(Path::new(NO_JOURNAL), boot_id);
    // A journal for each: what was done to one disk is not done to the other.
    let mut journals: Vec<LateJournal> = plans.iter().map(|_| journal()).collect();
    for part in BringPlan::PARTS {
        for ((plan, disk), journal) in plans.iter().zip(&mut *disks).zip(&mut journals) {
            run(part(plan), disk, journal, told)?;
        }
    }
    Ok(())
}

/// The machine, once the disk that it was started from is there, and those that come after it.
fn await_disks(args: &KernelArgs) -> Watch<'_> {
    let begun = Instant::now();
    let mut machine = Watch::of_this_machine(args);
    while begun.elapsed() < MEDIUM {
        let there = machine.facts.boot_disk.is_some() || args.from.is_some();
        if there && machine.is_quiet(late::QUIET) {
            break;
        }
        machine.look();
    }
    machine
}

/// How long no disk may have come before the choice counts; one that was named by its id is not chosen by the rule.
fn quiet(site: &Site, args: &KernelArgs) -> Duration {
    let by_id = args.reinstall.is_some() && !site.disk.mirror;
    if by_id { late::QUIET } else { late::quiet(&site.disk, late::QUIET) }
}

fn open_medium(args: &KernelArgs, facts: &Facts) -> Result<Box<dyn Medium>, Fault> {
    if let Some(origin) = &args.from {
        return Ok(Box::new(Served::open(origin)?));
    }
    let disk = facts.booted_from().ok_or_else(|| {
        let root = args.boot.as_deref().unwrap_or("none named");
        let seen = super::facts::list(&facts.disks);
        Fault::new(format!(
            "no disk has the partition that the machine was started from ({root}); seen:{seen}"
        ))
        .help("put the stick back and start the machine again")
    })?;
    Ok(Box::new(Stick::open(disk)?))
}

/// The one site of the medium that this machine is to be, with its files.
fn choose_site(medium: &dyn Medium, facts: &Facts, args: &KernelArgs) -> Result<(Site, SiteFiles), Fault> {
    let mut split = sites::split(medium.sites());
    let parsed = split.iter().map(|(name, files)| (name.clone(), sites::parse(files))).collect();
    let name = sites::choose(&parsed, facts, args)?;
    let files = split.remove(&name).unwrap_or_default();
    let site = sites::parse(&files).map_err(Fault::of_problems)?;
    Ok((site, files))
}

/// Somebody must have said that the rule's disk is meant.
fn by_rule(site: &Site, args: &KernelArgs) -> Result<(), Refusal> {
    if args.install_to.or(site.install.to) == Some(InstallTo::Rule) {
        return Ok(());
    }
    let what =
        "neither site.toml nor the kernel's command line says that the rule's disk is to be installed to";
    let help = "write to = \"rule\" under [install] in site.toml, or start with gatehouse.install-to=rule; to run from \
                the medium itself, take that entry of the menu";
    Err(Refusal::new(what, help))
}

/// The id of the install that this one replaces.
fn was(claim: &Claim) -> Option<&str> {
    match &claim.kind {
        ClaimKind::Install => None,
        ClaimKind::Reinstall { id, .. } => Some(id),
    }
}
