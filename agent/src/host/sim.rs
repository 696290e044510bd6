//! A simulated machine that loses power before, during and after any action, and a journal that is torn with it.

use std::collections::BTreeMap;

use gatehouse_model::Fault;
use proptest::prelude::*;

use super::action::{Action, Wanted};
use super::facts::LinkFact;
use super::journal::{Entry, Journal, Phase, parse};
use super::mirror::Array;
use super::plan::Plan;
use super::run::{Act as _, Host, Outcome, Report, run};

/// How far an action's work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Half,
    Whole,
}

/// The disks: they stay as they are when the power fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disks {
    made: BTreeMap<&'static str, Made>,
    applied: BTreeMap<&'static str, u32>,
    journal: String,
}

/// A machine that has power for so many steps; each look, each half of an action and each line is one.
struct Sim<'a> {
    disks: &'a mut Disks,
    power: u32,
}

impl Sim<'_> {
    fn spend(&mut self) -> Result<(), Fault> {
        self.power = self.power.checked_sub(1).ok_or_else(|| Fault::new("the power fails"))?;
        Ok(())
    }
}

struct Power<'a, 'b>(&'a std::cell::RefCell<Sim<'b>>);

impl Host<Action> for Power<'_, '_> {
    fn holds(&mut self, action: &Action) -> Result<bool, Fault> {
        self.0.borrow_mut().spend()?;
        Ok(self.0.borrow().disks.made.get(action.key()) == Some(&Made::Whole))
    }

    fn apply(&mut self, action: &Action) -> Result<(), Fault> {
        let mut sim = self.0.borrow_mut();
        for made in [Made::Half, Made::Whole] {
            sim.spend()?;
            sim.disks.made.insert(action.key(), made);
        }
        *sim.disks.applied.entry(action.key()).or_default() += 1;
        Ok(())
    }
}

/// Lines reach the disk in two halves; a torn one is dropped at the next start.
struct SimJournal<'a, 'b>(&'a std::cell::RefCell<Sim<'b>>);

impl Journal for SimJournal<'_, '_> {
    fn finished(&mut self, key: &str) -> Result<bool, Fault> {
        let (entries, _) = parse(&self.0.borrow().disks.journal)?;
        Ok(entries.iter().any(|entry| entry.key == key && entry.phase == Phase::Done))
    }

    fn add(&mut self, key: &str, phase: Phase, outcome: Option<Outcome>, message: &str) -> Result<(), Fault> {
        let mut sim = self.0.borrow_mut();
        let (key, message) = (key.to_owned(), message.to_owned());
        let line = Entry { key, phase, outcome, message, boot: "b".into() }.to_line();
        let (first, second) = line.split_at(line.len() / 2);
        for half in [first, second] {
            sim.spend()?;
            sim.disks.journal.push_str(half);
        }
        Ok(())
    }
}

/// One boot.
fn boot(plan: &Plan, disks: &mut Disks, power: u32) -> Result<Report, Fault> {
    let (_, whole) = parse(&disks.journal)?;
    disks.journal.truncate(whole);
    let sim = std::cell::RefCell::new(Sim { disks, power });
    run(&plan.actions, &mut Power(&sim), &mut SimJournal(&sim), &mut |_| ())
}

fn plan() -> Plan {
    let mirror = |array: Array| {
        let parts = ["vda", "vdb"].map(|disk| format!("{disk} {}", array.part()));
        Action::MakeMirror { array, parts: parts.to_vec() }
    };
    let wanted = Wanted { number: 6, name: "gh-root-b".into(), bytes: 1 << 30 };
    Plan {
        disk: "vda".into(),
        nic: LinkFact {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            driver: None,
            carrier: None,
            speed: None,
            path: None,
        },
        partner: None,
        alone: false,
        actions: vec![
            Action::GrowTable { disk: "vda".into(), parts: vec![wanted] },
            mirror(Array::State),
            Action::MakeState { device: "md8".into() },
            Action::SeedState,
            mirror(Array::Vms),
            Action::MakeVms { device: "md9".into() },
            Action::ImportSite,
            Action::MakeMachineId,
            Action::MakeHostKeys,
        ],
    }
}

#[test]
fn an_installed_machine_is_left_alone() {
    let (plan, mut disks) = (plan(), Disks::default());
    assert!(boot(&plan, &mut disks, u32::MAX).unwrap().changed());
    let before = disks.clone();
    let report = boot(&plan, &mut disks, u32::MAX).unwrap();
    assert!(report.0.iter().all(|(_, outcome)| *outcome == Outcome::Already));
    assert_eq!(disks, before);
}

#[test]
fn what_was_finished_and_is_lost_is_not_made_again() {
    let (plan, mut disks) = (plan(), Disks::default());
    boot(&plan, &mut disks, u32::MAX).unwrap();
    disks.made.remove("make-vms");
    let fault = boot(&plan, &mut disks, u32::MAX).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "making xfs on md9 for the stores: it was done on this machine before, and its result cannot be seen any more"
    );
    assert_eq!(disks.applied["make-vms"], 1);
}

proptest! {
    #[test]
    fn any_cuts_end_where_no_cut_ends(cuts in proptest::collection::vec(0_u32..60, 0..12)) {
        let (plan, mut uncut, mut cut) = (plan(), Disks::default(), Disks::default());
        boot(&plan, &mut uncut, u32::MAX).unwrap();
        for power in cuts {
            let before = cut.clone();
            let _ = boot(&plan, &mut cut, power);
            for (key, made) in &before.made {
                // Nothing that was whole is touched again.
                if *made == Made::Whole {
                    prop_assert_eq!(cut.made.get(key), Some(&Made::Whole));
                    prop_assert_eq!(cut.applied.get(key), before.applied.get(key));
                }
            }
        }
        boot(&plan, &mut cut, u32::MAX).unwrap();
        prop_assert_eq!(&cut.made, &uncut.made);
        let again = boot(&plan, &mut cut, u32::MAX).unwrap();
        prop_assert!(!again.changed());
    }
}
