//! The host's start, in the initramfs: after the root is mounted and before it is switched to.
//!
//! ```text
//! survey -> boot disk -> state there? mount it -> read the site (state's copy, else the site partition)
//!        -> plan -> run -> depot, stores, /var, /etc -> switch_root
//! ```
//! Whatever goes wrong ends here, in front of people: a machine never starts half.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use gatehouse_model::{CONTENTS, Digest, Doing as _, Fault, Site, State};
use nix::mount::MsFlags;

use super::action::Action;
use super::args::{KernelArgs, Slot};
use super::facts::{DiskFact, Facts};
use super::files::write_whole;
use super::import::{self, SiteFiles};
use super::journal::LateJournal;
use super::mirror::{self, Array, mdadm};
use super::plan::{self, Plan};
use super::real::{self, RealHost};
use super::report::queue::Queue;
use super::report::{Account, Ending, Machine, Phase, Report, kernel_log, medium};
use super::run::{self, Act as _, run};
use super::teller::Teller;
use super::{command, etc, links, mounts, survey, tree};
use crate::control::board::now_millis;

/// Where the site partition is mounted, for as long as it takes.
const SITE: &str = "/run/gatehouse/site";
/// Where the boot partition is mounted, likewise.
const ESP: &str = "/run/gatehouse/esp";
/// Holds what differs from the slot's /etc; gone at power off.
const ETC: &str = "/run/gatehouse/etc";

/// How long a mirror's other disk may take to show.
const PARTNER: Duration = Duration::from_secs(15);

/// What is said above the fault that ends a start.
const STOPPED: &str = "this machine does not start";

/// `gatehouse-agent boot`.
#[derive(Clone, Debug, Args)]
pub struct BootOptions {
    /// Where the initramfs has mounted the root
    #[arg(long)]
    root: PathBuf,
}

/// What a start knows as soon as it knows it; a report needs the rest of it after a fault.
#[derive(Debug)]
struct Start {
    root: PathBuf,
    args: KernelArgs,
    facts: Facts,
    teller: Teller,
    plan: Option<String>,
    /// Reports that are on the disk's site partition: of the installer, and of the start before.
    found: Vec<Report>,
}

/// Starts the host. Returns only when all is well; else it says why, on every console and on the stick, and
/// waits for somebody.
///
/// # Errors
/// None: that is what waiting is for.
pub fn run_boot(options: &BootOptions) -> Result<(), Fault> {
    let mut teller = Teller::new(Action::PHASE);
    let (args, facts) = match command::kernel_args() {
        Ok(args) => {
            let facts = survey::of_this_machine(&args);
            (args, facts)
        }
        Err(fault) => wait(&mut teller, STOPPED, &fault),
    };
    let root = options.root.clone();
    let mut start = Start { root, args, facts, teller, plan: None, found: Vec::new() };
    let result = start.boot();
    start.report(&result);
    start.leave(result.is_ok());
    if let Err(fault) = &result {
        wait(&mut start.teller, STOPPED, fault);
    }
    Ok(())
}

/// Shows a fault for ever, again from time to time for those who connect later.
pub fn wait(teller: &mut Teller, what: &str, fault: &Fault) -> ! {
    let text = format!(
        "\ngatehouse: {what}\n{}\
         gatehouse: nothing else is done; switch it off, or start it again: the boot menu (Esc stops it) has a rescue \
         shell\n",
        fault.render()
    );
    loop {
        teller.show(&text);
        std::thread::sleep(Duration::from_secs(300));
    }
}

impl Start {
    /// Answers what was done.
    fn boot(&mut self) -> Result<run::Report, Fault> {
        for dir in ["dev", "proc", "sys"] {
            mounts::bind_once(&Path::new("/").join(dir), &self.root.join(dir))?;
        }
        let disk = plan::boot_disk(&self.facts, &self.args)?.clone();
        self.teller.say("survey", State::Succeeded, &format!("booted from {disk}"));
        let state = self.state(&disk)?;
        let (site, to_import) = self.site(&disk, state.as_deref())?;
        let host = RealHost::new(&self.root, to_import, &disk);
        self.teller.host = site.name.to_string();
        set_clock(site.epoch)?;
        if site.network.nic.link.is_some() {
            links::await_carriers(&mut self.facts, Some(&self.root));
        }
        let plan = plan::plan(&site, &self.facts, &self.args)?;
        self.plan = Some(plan.to_string());
        let done = self.carry_out(&plan, host)?;
        self.arrange(&plan, &site)?;
        Ok(done)
    }

    /// The device of state, if there is one yet. Mirrors are put together, and run with one half where there is no more.
    fn state(&mut self, disk: &DiskFact) -> Result<Option<String>, Fault> {
        if disk.claim.as_ref().is_none_or(|claim| claim.pair.is_none()) {
            return Ok(disk.part(Array::State.part()).map(|part| disk.part_device(part.number)));
        }
        self.await_partner(disk);
        let Some(pair) = mirror::pair(disk, &self.facts)? else { return Ok(None) };
        if pair.partner.is_none() {
            let message = "the other disk is missing, or cannot be read: the system goes on with this one";
            self.teller.say("looking for the mirror's other disk", State::Failed, message);
        }
        for array in Array::ALL {
            let halves = mirror::halves(&pair, array);
            mdadm::assemble(&self.root, array, &halves)?;
            if let Some(apart) = halves.apart {
                let what = format!(
                    "{apart} has run without the other half, which is newer; it is left as it is. To give it up, run \
                     mdadm --zero-superblock /dev/{apart} and start again"
                );
                self.teller.say("joining the mirror's halves", State::Failed, &what);
            }
        }
        Ok(mdadm::runs(Array::State).then(|| Array::State.device().to_owned()))
    }

    /// Another controller may take its time.
    fn await_partner(&mut self, disk: &DiskFact) {
        let begun = Instant::now();
        let there = |facts: &Facts| {
            !matches!(mirror::pair(disk, facts), Ok(Some(mirror::Pair { partner: None, .. })))
        };
        while !there(&self.facts) && begun.elapsed() < PARTNER {
            std::thread::sleep(Duration::from_millis(500));
            self.facts = survey::of_this_machine(&self.args);
        }
    }

    /// State's copy of the site, once it is there; before, that of the site partition.
    fn site(&mut self, disk: &DiskFact, state: Option<&str>) -> Result<(Site, Option<SiteFiles>), Fault> {
        if let Some(device) = state
            && real::state_is_made(device)?
        {
            real::mount_state(&self.root, device)?;
        }
        let kept = real::kept(&self.root).join("site");
        let on_stick = site_partition(disk, &mut self.found, &Machine::of(&self.facts));
        if kept.join("site.toml").is_file() {
            self.compare(&on_stick, &import::read(&kept)?);
            return Ok((command::read_site(&kept)?, None));
        }
        let files = on_stick?;
        let bytes = files.as_ref().and_then(|files| files.get("site.toml")).ok_or_else(|| {
            Fault::new(format!("the disk booted from has no site.toml on a partition gh-site: {disk}"))
                .help("put the site directory on the partition GATEHOUSE and start again")
        })?;
        let site = Site::parse(&String::from_utf8_lossy(bytes)).map_err(Fault::of_problems)?;
        Ok((site, files))
    }

    /// Says what waits on the site partition; an installed machine needs it no more.
    fn compare(&mut self, on_stick: &Result<Option<SiteFiles>, Fault>, kept: &SiteFiles) {
        let action = "comparing the site partition";
        match on_stick {
            Err(fault) => self.teller.say(action, State::Failed, &fault.to_string()),
            Ok(None) => {}
            Ok(Some(files)) => {
                let differing = import::differences(files, kept);
                if !differing.is_empty() {
                    let what = differing.join(", ");
                    self.teller.say(action, State::Progress, &format!("pending until imported: {what}"));
                }
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan, mut host: RealHost) -> Result<run::Report, Fault> {
        let path = real::kept(&self.root).join("journal.jsonl");
        let mut journal = LateJournal::new(&path, &self.facts.boot_id);
        let teller = &mut self.teller;
        let mut go =
            |actions: &[Action]| run(actions, &mut host, &mut journal, &mut |event| teller.tell(event));
        // What fails of the other disk has been told, and is no reason to stop.
        let partner = plan.partner.as_ref();
        let mut before = partner.and_then(|partner| go(&partner.before).ok()).unwrap_or_default();
        let done = go(&plan.actions)?;
        let after = partner.and_then(|partner| go(&partner.after).ok()).unwrap_or_default();
        before.0.extend(done.0.into_iter().chain(after.0));
        Ok(before)
    }

    /// Puts everything where the running system looks for it.
    fn arrange(&mut self, plan: &Plan, site: &Site) -> Result<(), Fault> {
        // The facts are from before the table grew, but what the image brings does not move.
        let depot = format!("gh-depot-{}", self.args.slot.letter());
        let disk = self.facts.disk(&plan.disk);
        let number = disk.and_then(|disk| disk.part(&depot)).map(|part| part.number);
        let number = number.ok_or_else(|| Fault::new(format!("the disk has no partition {depot}")))?;
        let device = format!("/dev/{}", super::facts::part_device(&plan.disk, number));
        mounts::mount_once("erofs", &device, &self.root.join("depot"), MsFlags::MS_RDONLY, "")?;
        let vms = format!("/dev/{}", plan.stores().unwrap_or_default());
        mounts::mount_once("xfs", &vms, &self.root.join("srv/vms"), MsFlags::MS_NOATIME, "")?;
        tree::add_missing(&self.root.join("var"), &self.root.join("state/var"))?;
        File::create(self.root.join("state/var/.updated")).doing(|| "writing /var/.updated")?;
        mounts::bind_once(&self.root.join("state/var"), &self.root.join("var"))?;
        self.write_etc(plan, site)
    }

    /// /etc is the slot's with a tmpfs over it, so that no old copy ever hides what a new slot brings.
    fn write_etc(&mut self, plan: &Plan, site: &Site) -> Result<(), Fault> {
        let etc = self.root.join("etc");
        let over = Path::new(ETC);
        mounts::mount_once("tmpfs", "tmpfs", over, MsFlags::MS_NODEV, "mode=0755,size=32m")?;
        for dir in ["upper", "work"] {
            fs::create_dir_all(over.join(dir)).doing(|| format!("making {ETC}/{dir}"))?;
        }
        let options = format!("lowerdir={},upperdir={ETC}/upper,workdir={ETC}/work", etc.display());
        mounts::mount_once("overlay", "overlay", &etc, MsFlags::empty(), &options)?;
        let id = real::machine_id(&self.root).ok_or_else(|| Fault::new("the machine has no id"))?;
        for file in etc::render(site, plan.nic.mac, &id) {
            write_whole(&etc.join(file.path), file.text.as_bytes(), file.mode)?;
        }
        Ok(())
    }

    /// Leaves the report of this start on the disk and in the queue, if there is anything to tell. That it cannot is no
    /// reason to stop, or to say anything else.
    fn report(&mut self, result: &Result<run::Report, Fault>) {
        let queue = Queue::of(&real::kept(&self.root));
        let told = match result {
            Ok(done) => self.queue(&queue).and_then(|news| {
                if done.changed() || news { queue.put(self.leave_report(None)) } else { Ok(()) }
            }),
            Err(fault) => {
                self.leave_report(Some(fault));
                Ok(())
            }
        };
        if let Err(fault) = told {
            self.teller.say("queueing the report", State::Failed, &fault.to_string());
        }
    }

    /// Takes the reports that were found into the queue. Answers whether a report of this start is due, although it has
    /// changed nothing: the one before failed, or was cut off.
    fn queue(&mut self, queue: &Queue) -> Result<bool, Fault> {
        let failed_before = |report: &Report| report.phase == Phase::FirstBoot && report.is_bad();
        let failed = self.found.iter().any(failed_before);
        self.found.drain(..).try_for_each(|report| queue.put(report))?;
        Ok(failed || !queue.has(Phase::FirstBoot, Ending::Installed))
    }

    /// Puts the report of this start onto the disk's site partition.
    fn leave_report(&mut self, fault: Option<&Fault>) -> Report {
        let disk = self.facts.booted_from().cloned();
        let report = self.account(disk.as_ref(), fault);
        if let Some((disk, part)) = disk.as_ref().and_then(|disk| Some((disk, disk.part("gh-site")?))) {
            let device = format!("/dev/{}", disk.part_device(part.number));
            if let Err(fault) = medium::leave_on(&device, &report) {
                self.teller.say("writing the report", State::Failed, &fault.to_string());
            }
        }
        report
    }

    fn account(&self, disk: Option<&DiskFact>, fault: Option<&Fault>) -> Report {
        let account = Account {
            phase: Phase::FirstBoot,
            at: now_millis() / 1000,
            site: &self.teller.host,
            facts: &self.facts,
            contents: disk.and_then(|disk| contents(disk, &self.args)),
            plan: self.plan.as_deref(),
            events: &self.teller.told(),
            kernel_log: &kernel_log::read(),
        };
        Report::of(&account, fault)
    }

    /// Takes away what only the initramfs needs.
    fn leave(&mut self, well: bool) {
        for dir in ["dev", "proc", "sys"] {
            if let Err(fault) = mounts::unmount(&self.root.join(dir)) {
                self.teller.say("leaving the initramfs", State::Failed, &fault.to_string());
            }
        }
        if well {
            self.teller.say("starting the system", State::Started, "");
        }
    }
}

/// The files of the site partition of the disk booted from, none if it has none; reports on it are added to `found`.
fn site_partition(
    disk: &DiskFact,
    found: &mut Vec<Report>,
    machine: &Machine,
) -> Result<Option<SiteFiles>, Fault> {
    let Some(part) = disk.part("gh-site") else { return Ok(None) };
    let source = format!("/dev/{}", disk.part_device(part.number));
    let at = Path::new(SITE);
    let read = mounts::mount_once("vfat", &source, at, MsFlags::MS_RDONLY, "utf8").and_then(|()| {
        found.extend(medium::read_from(at, machine));
        import::read(at)
    });
    mounts::unmount(at)?;
    read.map(Some)
}

/// Digest of the image's list of contents, by which a report says what is installed; none where it cannot be read.
fn contents(disk: &DiskFact, args: &KernelArgs) -> Option<Digest> {
    let part = disk.part("gh-esp").filter(|_| args.slot == Slot::A)?;
    let source = format!("/dev/{}", disk.part_device(part.number));
    let at = Path::new(ESP);
    let mounted = mounts::mount_once("vfat", &source, at, MsFlags::MS_RDONLY, "utf8");
    let bytes = mounted.ok().and_then(|()| fs::read(at.join(CONTENTS)).ok());
    mounts::unmount(at).ok()?;
    bytes.map(|bytes| Digest::of(&bytes))
}

/// A dead clock battery must not make every certificate one of the future.
pub fn set_clock(epoch: u64) -> Result<(), Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let Ok(seconds) = i64::try_from(epoch) else { return Ok(()) };
    if now.as_secs() >= epoch {
        return Ok(());
    }
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time).doing(|| "setting the clock")
}
