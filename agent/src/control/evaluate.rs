//! `gatectl evaluate`: how long the site's commands take.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gatehouse_model::evaluation::{self, Beside, Counts, Evaluation};
use gatehouse_model::{Doing as _, Fault, NodeName, Problem};

use super::ctl::{other_answer, print};
use super::request::{Answer, Request};
use super::socket::Asker;
use crate::paths::Paths;

/// `gatectl evaluate`.
#[derive(Args, Clone, Debug)]
pub struct EvaluateControl {
    /// How often each command is run
    #[arg(long, default_value_t = evaluation::RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How often those are run that take long
    #[arg(long, default_value_t = evaluation::SLOW_RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    slow_runs: u32,
    /// The node that runs them [default: the one whose profile names tests]
    #[arg(long)]
    node: Option<NodeName>,
    /// An evaluation under the other hypervisor, as --json has printed it, for ratios beside the paper's
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// An evaluation on another node, as --json has printed it, for a second bar beside each
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Also draw it as a bar chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Has the site evaluated and prints what was found; how far it is goes to standard error.
pub(super) fn run(paths: &Paths, options: &EvaluateControl) -> Result<(), Fault> {
    // Read first: a mistake in its name should not be found after half an hour.
    let [vmm, node] = [&options.against, &options.beside].map(|file| file.as_deref().map(read).transpose());
    let (vmm, node) = (vmm?, node?);
    let beside = Beside { vmm: vmm.as_ref(), node: node.as_ref() };
    let counts = Counts { runs: options.runs, slow_runs: options.slow_runs };
    let found = ask(paths, options.node.clone(), counts)?;
    if let Some(file) = &options.svg {
        let chart = evaluation::chart(&found, beside);
        fs::write(file, chart).doing(|| format!("writing {}", file.display()))?;
    }
    if options.json {
        return print(&(serde_json::to_string(&found).doing(|| "writing the evaluation")? + "\n"));
    }
    print(&evaluation::table(&found, beside))
}

fn read(file: &Path) -> Result<Evaluation, Fault> {
    let text = fs::read_to_string(file).doing(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| {
        let what = format!("is no evaluation ({error}); name what `gatectl evaluate --json` has printed");
        Fault::of_problems(vec![Problem::at(file.display().to_string(), error.line(), what)])
    })
}

fn ask(paths: &Paths, node: Option<NodeName>, counts: Counts) -> Result<Evaluation, Fault> {
    let mut asker = Asker::connect(paths)?;
    let mut answer = asker.ask(&Request::Evaluate { node, counts })?;
    let mut last = String::new();
    loop {
        match answer {
            Answer::Event(event) => {
                // A line a command, not one a percent.
                if let Some(percent) = event.percent.filter(|_| event.message != last) {
                    eprintln!("{percent:3} %: {}", event.message);
                    last = event.message;
                }
            }
            Answer::Evaluation(found) => return Ok(found),
            _ => return Err(other_answer()),
        }
        answer = asker.more()?;
    }
}
