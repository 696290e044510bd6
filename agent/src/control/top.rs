//! `gatectl top`: what host and nodes use, each second.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::Fault;
use gatehouse_model::site::Limits;
use serde::Serialize;
use serde_json::json;

use super::ctl::{other_answer, print};
use super::render::{columns, state_word};
use super::request::{Answer, Request};
use super::socket::Asker;
use super::usage::{HostUsage, NodeUsage, SiteUsage};
use crate::paths::Paths;
use crate::vmm::usage::Usage;

/// How long rates are counted.
const SECOND: Duration = Duration::from_secs(1);
/// How many seconds processor time is counted over, as soon as there are so many: Xen tells it in tenths of one.
const WINDOW: usize = 10;

/// What was seen, and when by a clock that nobody sets.
struct Look {
    when: Instant,
    figures: SiteUsage,
}

/// What is shown, between two looks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Top {
    at: u64,
    host: HostUsage,
    nodes: Vec<Row>,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    #[serde(flatten)]
    figures: NodeUsage,
    /// Percent of one processor.
    cpu_percent: Option<f64>,
    /// Bytes a second.
    read_rate: Option<u64>,
    written_rate: Option<u64>,
    received_rate: Option<u64>,
    sent_rate: Option<u64>,
}

/// Shows it until Ctrl-C, or once.
pub(super) fn run(paths: &Paths, once: bool, json: bool) -> Result<(), Fault> {
    let mut asker = Asker::connect(paths)?;
    let mut before = VecDeque::from([look(&mut asker)?]);
    loop {
        thread::sleep(SECOND);
        let now = look(&mut asker)?;
        let top = between(&before, &now);
        let text = if json { json!(top).to_string() + "\n" } else { render(&top) };
        // Home and clear to the end: no flicker, and no escape codes into a file.
        let clear = if !once && !json && io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
        print(&format!("{clear}{text}"))?;
        if once {
            return Ok(());
        }
        before.push_back(now);
        before.drain(..before.len().saturating_sub(WINDOW));
    }
}

fn look(asker: &mut Asker) -> Result<Look, Fault> {
    match asker.ask(&Request::Usage)? {
        Answer::Usage(figures) => Ok(Look { when: Instant::now(), figures }),
        _ => Err(other_answer()),
    }
}

/// Processor time over all the looks, all else since the newest of those before.
fn between(before: &VecDeque<Look>, now: &Look) -> Top {
    let row = |figures: &NodeUsage| {
        let rate = |count: fn(&Usage) -> Option<u64>| {
            let (time, old) = past(before, now, figures).next()?;
            let grown = count(&figures.usage?)?.checked_sub(count(&old)?)?;
            Some(grown.saturating_mul(1000) / u64::try_from(time.as_millis()).unwrap_or(1000).max(1))
        };
        let cpu = || {
            let (time, old) = past(before, now, figures).last()?;
            Some((figures.usage?.cpu_seconds - old.cpu_seconds) / time.as_secs_f64() * 100.0)
        };
        Row {
            cpu_percent: cpu().map(|percent| (percent * 10.0).round() / 10.0),
            read_rate: rate(|usage| usage.read),
            written_rate: rate(|usage| usage.written),
            received_rate: rate(|usage| usage.received),
            sent_rate: rate(|usage| usage.sent),
            figures: figures.clone(),
        }
    };
    let SiteUsage { at, host, nodes } = &now.figures;
    Top { at: *at, host: host.clone(), nodes: nodes.iter().map(row).collect() }
}

/// What a node had used at earlier looks, the newest first, and how long before this one. A VM that was started meanwhile
/// counts anew.
fn past(before: &VecDeque<Look>, now: &Look, node: &NodeUsage) -> impl Iterator<Item = (Duration, Usage)> {
    let mut later = node.usage;
    before.iter().rev().map_while(move |look| {
        let old = look.figures.nodes.iter().find(|other| other.name == node.name)?.usage?;
        let same = later.replace(old).is_some_and(|later| old.cpu_seconds <= later.cpu_seconds);
        same.then(|| (now.when.saturating_duration_since(look.when), old))
    })
}

fn render(top: &Top) -> String {
    let host = &top.host;
    let mut out = format!("host: load {:.2} on {} processors", host.load, host.processors);
    // Writing to a string cannot fail.
    let _ = write!(out, "; {} of {} of memory free", short(host.memory_available), short(host.memory));
    for disk in &host.disks {
        let _ =
            write!(out, "; {} of {} free below {}", short(disk.free), short(disk.size), disk.dir.display());
    }
    out.push_str("\n\n");
    let heads = [
        "NODE",
        "STATE",
        "CPU %",
        "WEIGHT",
        "CAP",
        "MEMORY",
        "DISK",
        "READ/s",
        "WRITTEN/s",
        "RECEIVED/s",
        "SENT/s",
    ];
    let rows: Vec<[String; 11]> =
        std::iter::once(heads.map(str::to_owned)).chain(top.nodes.iter().map(cells)).collect();
    for line in columns(&rows) {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    for node in &top.nodes {
        for lack in &node.figures.not_held {
            let _ = writeln!(out, "{}: {lack}", node.figures.name);
        }
    }
    out
}

fn cells(row: &Row) -> [String; 11] {
    fn or_dash(text: Option<String>) -> String {
        text.unwrap_or_else(|| "-".to_owned())
    }
    let NodeUsage { name, state, memory, disk, limits, allocated, usage, .. } = &row.figures;
    let Limits { weight, cap, .. } = limits;
    let of =
        |part: Option<u64>, whole: u64| or_dash(part.map(|part| format!("{}/{}", short(part), short(whole))));
    let rate = |bytes: Option<u64>| or_dash(bytes.map(short));
    [
        name.to_string(),
        state_word(*state).to_owned(),
        or_dash(row.cpu_percent.map(|percent| format!("{percent:.1}"))),
        weight.to_string(),
        or_dash(cap.map(|cap| cap.to_string())),
        of(usage.map(|usage| usage.memory), memory.as_bytes()),
        of(*allocated, disk.as_bytes()),
        rate(row.read_rate),
        rate(row.written_rate),
        rate(row.received_rate),
        rate(row.sent_rate),
    ]
}

/// A number of bytes in few letters.
pub(super) fn short(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let tenths = ((bytes >> (shift - 10)) * 10) >> 10;
    if tenths >= 100 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::server::sample_site;

    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

    /// A look so many seconds after the first.
    fn look(seconds: u64, usage: Option<Usage>) -> Look {
        let mut node = NodeUsage::of(&sample_site().nodes[0], None, usage, Some(1300 << 20));
        node.limits.cap = Some(50);
        node.not_held = vec!["cap 50 not held: no reason".to_owned()];
        let host =
            HostUsage { load: 0.5, processors: 2, memory: 4 << 30, memory_available: 1 << 30, disks: vec![] };
        let figures = SiteUsage { at: 0, host, nodes: vec![node] };
        Look { when: *BEGUN + Duration::from_secs(seconds), figures }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let old = Usage { cpu_seconds: 10.0, memory: 1 << 20, received: Some(1000), ..Usage::default() };
        let new = Usage { cpu_seconds: 11.0, memory: 200 << 20, received: Some(2000), ..Usage::default() };
        let top = between(&[look(1, Some(old))].into(), &look(3, Some(new)));
        assert_eq!(
            render(&top),
            "host: load 0.50 on 2 processors; 1.0G of 4.0G of memory free\n\n\
             NODE   STATE   CPU %  WEIGHT  CAP  MEMORY     DISK       READ/s  WRITTEN/s  RECEIVED/s  SENT/s\n\
             node1  absent  50.0   256     50   200M/512M  1.2G/4.0G  -       -          500B        -\n\
             node1: cap 50 not held: no reason\n"
        );
        let json = json!(top);
        assert_eq!(json["nodes"][0]["cpu-percent"], 50.0);
        assert_eq!(json["nodes"][0]["limits"]["cap"], 50);
        // It was started anew, or is off.
        for now in [Some(Usage { cpu_seconds: 1.0, ..new }), None] {
            let row = &between(&[look(1, Some(old))].into(), &look(2, now)).nodes[0];
            assert_eq!((row.cpu_percent, row.received_rate), (None, None));
        }
    }

    #[test]
    fn processor_time_is_counted_over_all_looks_at_the_same_vm() {
        let at = |seconds, cpu_seconds, sent| {
            look(seconds, Some(Usage { cpu_seconds, sent: Some(sent), ..Usage::default() }))
        };
        let before = || VecDeque::from([at(0, 7.0, 0), at(1, 7.3, 10), at(2, 7.4, 30)]);
        let row = &between(&before(), &at(4, 7.6, 90)).nodes[0];
        assert_eq!((row.cpu_percent, row.sent_rate), (Some(15.0), Some(30)));
        // It was started between the second look and the third.
        let started = VecDeque::from([at(0, 1.0, 0), at(1, 7.3, 10), at(2, 2.0, 30)]);
        let row = &between(&started, &at(4, 9.0, 90)).nodes[0];
        assert_eq!((row.cpu_percent, row.sent_rate), (Some(350.0), Some(30)));
        assert_eq!(between(&before(), &look(4, None)).nodes[0].cpu_percent, None);
    }

    #[test]
    fn bytes_are_short() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.5K"), (10 << 20, "10M"), (u64::MAX, "16777215T")]
        {
            assert_eq!(short(bytes), text);
        }
    }
}
