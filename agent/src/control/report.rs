//! `gatectl report`: the reports of this machine, and whether they have been sent. They are files: this needs no agent
//! but for sending.

use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use gatehouse_model::{Doing as _, Exit, Fault};
use serde_json::{Value, json};

use super::ctl::{other_answer, print};
use super::request::{Answer, Request};
use super::socket::Asker;
use crate::host::report::Report;
use crate::host::report::queue::{Queue, Queued, Verdict};
use crate::paths::Paths;

/// The commands of `gatectl report`.
#[derive(Clone, Debug, Subcommand)]
pub enum ReportControl {
    /// What stands in a report
    Show {
        /// Its number
        number: u32,
        /// All of it as JSON, as it is sent
        #[arg(long)]
        json: bool,
    },
    /// Send those that wait, and those that were refused, now
    Send {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what the command says; without one it lists the reports.
pub(super) fn run(paths: &Paths, command: Option<&ReportControl>, json: bool) -> Result<(), Fault> {
    let queue = Queue::of(&paths.state);
    match command {
        None => list(&queue, json),
        Some(ReportControl::Show { number, json }) => show(&queue, *number, *json),
        Some(ReportControl::Send { json }) => match Asker::connect(paths)?.ask(&Request::SendReports)? {
            Answer::Text(text) if *json => print(&format!("{}\n", json!({ "done": text.trim() }))),
            Answer::Text(text) => print(&text),
            _ => Err(other_answer()),
        },
    }
}

fn read(queue: &Queue, queued: &Queued) -> Result<Report, Fault> {
    serde_json::from_str(&queue.body(queued)?).doing(|| format!("reading report {}", queued.number))
}

fn list(queue: &Queue, json: bool) -> Result<(), Fault> {
    let mut all = Vec::new();
    for queued in queue.list()? {
        let report = read(queue, &queued)?;
        all.push((queued, report));
    }
    if json {
        let all: Vec<Value> = all.iter().map(|(queued, report)| as_json(queued, report)).collect();
        return print(&format!("{}\n", json!(all)));
    }
    print(&all.iter().map(|(queued, report)| line(queued, report)).collect::<String>())
}

fn as_json(queued: &Queued, report: &Report) -> Value {
    json!({
        "number": queued.number,
        "at": report.at,
        "site": report.site,
        "machine": report.machine,
        "phase": report.phase,
        "result": report.result,
        "answer": queued.answer,
    })
}

fn line(queued: &Queued, report: &Report) -> String {
    let stands = queued.answer.as_ref().map_or("not sent yet".to_owned(), |answer| {
        let how = match answer.verdict {
            Verdict::Accepted => "sent",
            Verdict::Refused => "refused",
            Verdict::Later => "waiting since",
        };
        format!("{how} {}, {}: {}", date(answer.at), answer.url, answer.words)
    });
    format!("{:>4}  {}  {}: {}; {stands}\n", queued.number, date(report.at), report.phase, report.result)
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn show(queue: &Queue, number: u32, json: bool) -> Result<(), Fault> {
    let all = queue.list()?;
    let queued = all.iter().find(|queued| queued.number == number).ok_or_else(|| {
        Fault::new(format!("there is no report {number}"))
            .help("run gatectl report for all of them")
            .exit(Exit::Problem)
    })?;
    if json {
        return print(&(queue.body(queued)? + "\n"));
    }
    print(&read(queue, queued)?.summary)
}
