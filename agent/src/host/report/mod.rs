//! Reports: what became of an install or of a first start, for people far away.
//!
//! ```text
//! self-install: Report ─► medium's site partition, and that of the new disk ┐
//! first boot:   Report ─► the disk's site partition                         ├─► queue in state ─► daemon ─► report.url
//!                             reports found there, a failed start's as well ┘
//! ```
//! A report holds what was seen, planned and done, and the kernel's log; it has no secret in it, because none of its
//! sources knows one: the site's files are not among them. A machine that was not installed leaves its report on its
//! medium and shows it on its consoles: it has neither a key to sign with nor, most often, a network.

pub mod kernel_log;
pub mod medium;
pub mod outbox;
pub mod queue;
pub mod send;

use std::fmt::Write as _;

use gatehouse_model::{Digest, Event, Exit, Fault, State};
use serde::{Deserialize, Serialize};

use super::command::describe;
use super::facts::Facts;
use crate::control::render::render_event;

/// So much of the kernel's log, in bytes: its end.
const LOG_LIMIT: usize = 256 << 10;
/// So many bytes of events, as lines: the last ones.
const EVENTS_LIMIT: usize = 1 << 20;

/// The part of a machine's way that a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Installing onto a disk.
    SelfInstall,
    /// A start from a disk, which is made whole at its first.
    FirstBoot,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SelfInstall => "self-install",
            Self::FirstBoot => "first-boot",
        })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Well.
    Installed,
    /// The machine, or what was to be put on it, was not taken; nothing was changed.
    Refused,
    /// Something broke.
    Failed,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Installed => "installed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        })
    }
}

impl Ending {
    fn of(fault: Option<&Fault>) -> Self {
        match fault.map(Fault::exit_status) {
            None => Self::Installed,
            Some(Exit::Refusal | Exit::Problem) => Self::Refused,
            Some(_) => Self::Failed,
        }
    }
}

/// Which machine: what is printed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Machine {
    /// Serial number.
    pub serial: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Hardware addresses of its network interfaces.
    pub macs: Vec<String>,
}

impl Machine {
    /// The machine that was surveyed.
    pub fn of(facts: &Facts) -> Self {
        Self {
            serial: facts.dmi.serial.clone(),
            product: facts.dmi.product.clone(),
            vendor: facts.dmi.vendor.clone(),
            macs: facts.links.iter().map(|link| link.mac.to_string()).collect(),
        }
    }

    /// Whether both are one: by the serial number, else by a network interface. Not every start sees all of those.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.serial, &other.serial) {
            (Some(one), Some(two)) => one == two,
            _ => self.macs.iter().any(|mac| other.macs.contains(mac)),
        }
    }

    /// Its serial number, else its first hardware address.
    pub fn id(&self) -> &str {
        self.serial.as_ref().or_else(|| self.macs.first()).map_or("unknown", String::as_str)
    }
}

/// What became of one start of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Version of this format: 1.
    pub schema: u32,
    /// Seconds since 1970 by the machine's clock, which may be wrong.
    pub at: u64,
    /// What it is about.
    pub phase: Phase,
    /// How that ended.
    pub result: Ending,
    /// The site's name; none if it never came to know which.
    pub site: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// Digest of the list of what the image holds.
    pub contents: Option<Digest>,
    /// The machine's ssh host key, public part, which a report that is sent is signed with.
    #[serde(default)]
    pub host_key: Option<String>,
    /// What was planned, in lines for people; none if it never came to that.
    pub plan: Option<String>,
    /// What the survey saw.
    pub facts: Facts,
    /// All of it for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// The kernel's log, its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_log: String,
}

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// What it is about.
    pub phase: Phase,
    /// Seconds since 1970.
    pub at: u64,
    /// The site's name; empty if it is not known.
    pub site: &'a str,
    /// What the survey saw.
    pub facts: &'a Facts,
    /// Digest of the list of what the image holds.
    pub contents: Option<Digest>,
    /// What was planned.
    pub plan: Option<&'a str>,
    /// What was told: [`super::teller::Teller::told`].
    pub events: &'a [Event],
    /// The kernel's log: [`kernel_log::read`].
    pub kernel_log: &'a str,
}

impl Report {
    /// Whether somebody has to do something about it.
    pub fn is_bad(&self) -> bool {
        self.result != Ending::Installed
    }

    /// Makes the report of what ended well, or with a fault.
    pub fn of(account: &Account<'_>, fault: Option<&Fault>) -> Self {
        Self {
            schema: 1,
            at: account.at,
            phase: account.phase,
            result: Ending::of(fault),
            site: Some(account.site.to_owned()).filter(|site| !site.is_empty()),
            machine: Machine::of(account.facts),
            contents: account.contents,
            host_key: None,
            plan: account.plan.map(str::to_owned),
            facts: account.facts.clone(),
            summary: summary(account, fault),
            events: newest(account.events),
            kernel_log: end_of(account.kernel_log, LOG_LIMIT).to_owned(),
        }
    }
}

/// All that people need to know at first, with lines ended by newlines.
fn summary(account: &Account<'_>, fault: Option<&Fault>) -> String {
    let Account { phase, at, site, facts, .. } = account;
    let machine = Machine::of(facts);
    let called = [&machine.vendor, &machine.product].into_iter().flatten().cloned().collect::<Vec<_>>();
    let called = if called.is_empty() { String::new() } else { format!(" ({})", called.join(" ")) };
    let site = if site.is_empty() { "no site".to_owned() } else { format!("site {site}") };
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*at);
    let mut out = format!(
        "{phase}: {}\n{site}, machine {}{called}\n{} by the machine's clock\n",
        Ending::of(fault),
        machine.id(),
        httpdate::fmt_http_date(time)
    );
    let mut part = |title: &str, text: &str| {
        if !text.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\n{title}\n{}\n", text.trim_end());
        }
    };
    part("Why:", &fault.map(Fault::render).unwrap_or_default());
    part("Planned:", account.plan.unwrap_or_default());
    let steps = account.events.iter().filter(|event| event.state != State::Progress);
    part("Done (times by the machine's clock):", &steps.map(render_event).collect::<String>());
    part("Seen:", &describe(facts));
    out
}

/// The last events that fit.
fn newest(events: &[Event]) -> Vec<Event> {
    let mut bytes = 0;
    let fit = events.iter().rev().take_while(|event| {
        bytes += event.to_line().len() + 1;
        bytes <= EVENTS_LIMIT
    });
    let count = fit.count();
    events[events.len() - count..].to_vec()
}

/// The last whole lines of a text that fit.
fn end_of(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let cut = text.len() - limit;
    let newline = text.bytes().skip(cut - 1).position(|byte| byte == b'\n');
    newline.and_then(|at| text.get(cut + at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
