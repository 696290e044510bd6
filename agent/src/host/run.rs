//! Carries out a plan: look, act if needed, look again, write it down.

use gatehouse_model::{Doing as _, Event, Fault, State};
use serde::{Deserialize, Serialize};

use super::journal::{Journal, Phase};
use crate::control::board::now_millis;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing had to be done.
    Already,
    /// It was done now.
    Changed,
}

/// One entry of a plan, of one of the closed sets of such.
pub trait Act: std::fmt::Display {
    /// The phase that its events belong to.
    const PHASE: &'static str;

    /// Its name in the journal: the same at every boot, whatever the disks are called then.
    fn key(&self) -> &'static str;

    /// Whether doing it loses what was there. Once finished, it is never done again.
    fn destroys(&self) -> bool;
}

/// The machine that a plan is carried out on.
pub trait Host<A> {
    /// Whether an action's end is reached. Looks at the machine, never at the journal.
    ///
    /// # Errors
    /// It cannot be seen.
    fn holds(&mut self, action: &A) -> Result<bool, Fault>;

    /// Does it, whatever an earlier try has left.
    ///
    /// # Errors
    /// It breaks.
    fn apply(&mut self, action: &A) -> Result<(), Fault>;
}

/// What came of a plan: an outcome for each of its actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<(String, Outcome)>);

impl Report {
    /// Whether anything was changed.
    pub fn changed(&self) -> bool {
        self.0.iter().any(|(_, outcome)| *outcome == Outcome::Changed)
    }
}

/// Carries out the actions of a plan. After a fault or a power cut, calling it again continues.
///
/// # Errors
/// The first action that breaks; those before it are done.
pub fn run<A: Act>(
    actions: &[A],
    host: &mut impl Host<A>,
    journal: &mut impl Journal,
    told: &mut dyn FnMut(Event),
) -> Result<Report, Fault> {
    let mut report = Report::default();
    for action in actions {
        let outcome =
            step(action, host, journal, told).doing(|| action.to_string()).inspect_err(|fault| {
                // The fault that ended the action counts, not a second one of the journal.
                let _ = journal.add(action.key(), Phase::Failed, None, &fault.to_string());
                told(event(action, State::Failed, fault.to_string()));
            })?;
        report.0.push((action.key().to_owned(), outcome));
    }
    Ok(report)
}

fn step<A: Act>(
    action: &A,
    host: &mut impl Host<A>,
    journal: &mut impl Journal,
    told: &mut dyn FnMut(Event),
) -> Result<Outcome, Fault> {
    let key = action.key();
    if host.holds(action)? {
        if !journal.finished(key)? {
            journal.add(key, Phase::Done, Some(Outcome::Already), "")?;
        }
        return Ok(Outcome::Already);
    }
    if action.destroys() && journal.finished(key)? {
        return Err(Fault::new("it was done on this machine before, and its result cannot be seen any more")
            .help("look at the disk; write the image to it again only if nothing on it is needed"));
    }
    told(event(action, State::Started, String::new()));
    journal.add(key, Phase::Begin, None, "")?;
    host.apply(action)?;
    if !host.holds(action)? {
        return Err(Fault::new("it was done, and its result is not to be seen"));
    }
    journal.add(key, Phase::Done, Some(Outcome::Changed), "")?;
    told(event(action, State::Succeeded, String::new()));
    Ok(Outcome::Changed)
}

fn event<A: Act>(action: &A, state: State, message: String) -> Event {
    let (host, phase) = (String::new(), A::PHASE.to_owned());
    Event { ts: now_millis(), host, phase, action: action.to_string(), state, percent: None, message }
}
