//! Disks that show late. A controller looks for its disks one after the other, some of them after minutes, and the kernel
//! does not wait for that: what is decided by the disks must not be decided by the first of them.

use std::time::{Duration, Instant};

use gatehouse_model::Refusal;
use gatehouse_model::site::DiskRule;

use super::args::KernelArgs;
use super::choose::is_exact;
use super::facts::Facts;
use super::survey;
use crate::node::machine::uptime;

/// How long no disk may have come before a rule counts that just one disk, or two, can be meant by.
pub const QUIET: Duration = Duration::from_secs(5);
/// How long where the rule picks from several: the right one may be behind a slower controller, on which the disks spin up
/// one after the other.
const QUIET_OF_SEVERAL: Duration = Duration::from_secs(30);
/// How long after power on a disk may be missing: by then the slowest controllers have looked at all places.
const ALL_THERE: Duration = Duration::from_secs(120);
/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// The time since power on, and what is there.
type Seen = (Duration, Facts);

/// A machine whose disks are watched.
pub struct Watch<'a> {
    /// As it was seen last.
    pub facts: Facts,
    now: Duration,
    changed: Duration,
    look: Box<dyn FnMut() -> Seen + 'a>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("now", &self.now)
            .field("changed", &self.changed)
            .finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// Watches the machine that this runs on.
    pub fn of_this_machine(args: &'a KernelArgs) -> Self {
        let power_on = Duration::try_from_secs_f64(uptime()).unwrap_or_default();
        let begun = Instant::now();
        let mut is_first = true;
        Self::new(move || {
            if !std::mem::take(&mut is_first) {
                std::thread::sleep(EVERY);
            }
            (power_on + begun.elapsed(), survey::of_this_machine(args))
        })
    }

    fn new(mut look: impl FnMut() -> Seen + 'a) -> Self {
        let (now, facts) = look();
        Self { facts, now, changed: now, look: Box::new(look) }
    }

    /// Looks again, after a moment.
    pub fn look(&mut self) {
        let (now, facts) = (self.look)();
        let names = |facts: &Facts| facts.disks.iter().map(|disk| disk.name.clone()).collect::<Vec<_>>();
        if names(&facts) != names(&self.facts) || facts.boot_disk != self.facts.boot_disk {
            self.changed = now;
        }
        (self.now, self.facts) = (now, facts);
    }

    /// Whether no disk has come or gone for so long.
    pub fn is_quiet(&self, long: Duration) -> bool {
        self.now.saturating_sub(self.changed) >= long
    }

    /// Decides by the disks, once they have been quiet for so long, or all of them must be there; refuses only then. `waits`
    /// hears what is waited for.
    ///
    /// # Errors
    /// The last refusal.
    pub fn decide<T>(
        &mut self,
        quiet: Duration,
        decide: impl Fn(&Facts) -> Result<T, Refusal>,
        waits: &mut dyn FnMut(&str),
    ) -> Result<T, Refusal> {
        let mut told = None;
        loop {
            let decided = decide(&self.facts);
            if self.now >= ALL_THERE || (decided.is_ok() && self.is_quiet(quiet)) {
                return decided;
            }
            let why = match &decided {
                Ok(_) => "others may still show".to_owned(),
                Err(refusal) => refusal.what.clone(),
            };
            if told.as_ref() != Some(&why) {
                waits(&why);
                told = Some(why);
            }
            self.look();
        }
    }
}

/// How long no disk may have come before a rule counts: `least`, or longer where the rule may pick from several.
pub fn quiet(rule: &DiskRule, least: Duration) -> Duration {
    let of_several = (rule.sort.is_some() || rule.mirror) && !is_exact(rule);
    if of_several { QUIET_OF_SEVERAL.max(least) } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::choose;
    use crate::host::facts::{DiskFact, Firmware};
    use gatehouse_model::site::DiskSort;

    fn facts(disks: &[(u64, &str, u64)], now: u64) -> Facts {
        let there = disks.iter().filter(|(from, ..)| *from <= now);
        let disk = |(_, name, gib): &(u64, &str, u64)| DiskFact {
            name: (*name).into(),
            bytes: gib << 30,
            sector_size: 512,
            serial: Some((*name).to_uppercase()),
            ..DiskFact::default()
        };
        Facts {
            disks: there.map(disk).collect(),
            links: Vec::new(),
            memory: None,
            cpus: 1,
            firmware: Firmware::Bios,
            hypervisor: None,
            virtualisation: Vec::new(),
            boot_disk: None,
            boot_id: String::new(),
            dmi: crate::host::facts::Dmi::default(),
        }
    }

    /// Which disk is chosen, and when, on a machine that is looked at every second from some time on and whose disks show
    /// at those times.
    fn chosen(rule: &DiskRule, from: u64, disks: &[(u64, &str, u64)]) -> (Option<String>, u64, usize) {
        let mut next = from;
        let mut watch = Watch::new(|| {
            let now = next;
            next += 1;
            (Duration::from_secs(now), facts(disks, now))
        });
        let mut told = 0;
        let decide = |facts: &Facts| choose::disks(rule, facts).map(|disks| disks[0].name.clone());
        let decided = watch.decide(quiet(rule, QUIET), decide, &mut |_| told += 1).ok();
        let now = watch.now.as_secs();
        (decided, now, told)
    }

    #[test]
    fn late_disks_are_waited_for() {
        let any = DiskRule { count: 1, ..DiskRule::default() };
        let sorted = DiskRule { sort: Some(DiskSort::Largest), ..any.clone() };
        let serial = DiskRule { serial: Some("SDB".into()), ..sorted.clone() };
        let (one, two) = ([(0, "sda", 8)], [(0, "sda", 8), (40, "sdb", 16)]);
        let name = |name: &str| Some(name.to_owned());
        // One that is there is taken as soon as it is quiet; two are refused, but not before all must have come.
        assert_eq!(chosen(&any, 20, &one), (name("sda"), 25, 1));
        assert_eq!(chosen(&any, 50, &two), (None, 120, 1));
        // One that is not is waited for, until all must have come.
        assert_eq!(chosen(&any, 20, &[(40, "sdb", 16)]), (name("sdb"), 45, 2));
        assert_eq!(chosen(&any, 20, &[]), (None, 120, 1));
        assert_eq!(chosen(&any, 200, &[]), (None, 200, 0));
        // Of several the largest one, though it shows late; one that is named by its serial number at once.
        assert_eq!(chosen(&sorted, 20, &two), (name("sdb"), 70, 1));
        assert_eq!(chosen(&sorted, 110, &two), (name("sdb"), 120, 1));
        assert_eq!(chosen(&serial, 20, &two), (name("sdb"), 45, 2));
        assert_eq!(chosen(&serial, 60, &two), (name("sdb"), 65, 1));
    }
}
