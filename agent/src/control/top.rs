//! `gatectl top`: what host and nodes use, each second.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

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
    let mut before = ask(&mut asker)?;
    loop {
        thread::sleep(SECOND);
        let now = ask(&mut asker)?;
        let top = between(&before, now.clone());
        let text = if json { json!(top).to_string() + "\n" } else { render(&top) };
        // Home and clear to the end: no flicker, and no escape codes into a file.
        let clear = if !once && !json && io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
        print(&format!("{clear}{text}"))?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

fn ask(asker: &mut Asker) -> Result<SiteUsage, Fault> {
    match asker.ask(&Request::Usage)? {
        Answer::Usage(figures) => Ok(figures),
        _ => Err(other_answer()),
    }
}

fn between(before: &SiteUsage, now: SiteUsage) -> Top {
    let time = Duration::from_millis(now.at.saturating_sub(before.at).max(1));
    let row = |figures: NodeUsage| {
        let earlier = before.nodes.iter().find(|node| node.name == figures.name);
        let (old, new) = (earlier.and_then(|node| node.usage), figures.usage);
        // A VM that was started meanwhile counts anew.
        let same = old.zip(new).filter(|(old, new)| old.cpu_seconds <= new.cpu_seconds);
        let rate = |count: fn(&Usage) -> Option<u64>| {
            let (old, new) = same?;
            let grown = count(&new)?.checked_sub(count(&old)?)?;
            Some(grown.saturating_mul(1000) / u64::try_from(time.as_millis()).unwrap_or(1000))
        };
        let cpu = same.map(|(old, new)| (new.cpu_seconds - old.cpu_seconds) / time.as_secs_f64() * 100.0);
        Row {
            cpu_percent: cpu.map(|percent| (percent * 10.0).round() / 10.0),
            read_rate: rate(|usage| usage.read),
            written_rate: rate(|usage| usage.written),
            received_rate: rate(|usage| usage.received),
            sent_rate: rate(|usage| usage.sent),
            figures,
        }
    };
    Top { at: now.at, host: now.host, nodes: now.nodes.into_iter().map(row).collect() }
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
    use super::*;
    use crate::server::sample_site;

    fn figures(at: u64, usage: Option<Usage>) -> SiteUsage {
        let mut node = NodeUsage::of(&sample_site().nodes[0], None, usage, Some(1300 << 20));
        node.limits.cap = Some(50);
        node.not_held = vec!["cap 50 not held: no reason".to_owned()];
        let host =
            HostUsage { load: 0.5, processors: 2, memory: 4 << 30, memory_available: 1 << 30, disks: vec![] };
        SiteUsage { at, host, nodes: vec![node] }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let old = Usage { cpu_seconds: 10.0, memory: 1 << 20, received: Some(1000), ..Usage::default() };
        let new = Usage { cpu_seconds: 11.0, memory: 200 << 20, received: Some(2000), ..Usage::default() };
        let top = between(&figures(1000, Some(old)), figures(3000, Some(new)));
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
            let row = &between(&figures(1000, Some(old)), figures(2000, now)).nodes[0];
            assert_eq!((row.cpu_percent, row.received_rate), (None, None));
        }
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
