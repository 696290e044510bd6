//! `gatehouse try --evaluate`: how long the commands of the tried site take, asked of its host as anybody would.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;

use gatehouse_lcfg::{Compiled, Sources, publish};
use gatehouse_model::evaluation::{self, Beside, Evaluation};
use gatehouse_model::{Doing as _, Fault, Refusal};

use super::Machine;
use super::source::Source;
use crate::cli::Try;
use crate::term;

/// What has to be known before anything is started: that one node can be evaluated on, and the other evaluation.
///
/// # Errors
/// No node's sources name tests, or those of several do; the other evaluation cannot be read.
pub(super) fn before(args: &Try, source: &Source) -> Result<Option<Evaluation>, Fault> {
    if args.evaluate.is_none() {
        return Ok(None);
    }
    let able = able(source);
    if able.len() != 1 {
        let what = match able.len() {
            0 => "no node of the site names tests to evaluate it by".to_owned(),
            _ => format!("several nodes of the site name tests: {}", able.join(", ")),
        };
        let help = "set evaluate.tests and add evaluate to profile.components in the sources of one node";
        return Err(Refusal::new(what, help).into());
    }
    args.against.as_deref().map(read).transpose()
}

fn read(file: &Path) -> Result<Evaluation, Fault> {
    let work = || Ok::<_, Fault>(serde_json::from_str(&fs::read_to_string(file)?)?);
    work().doing(|| format!("reading {}", file.display()))
}

/// The nodes whose profile will name tests. Sources with problems were refused before this.
fn able(source: &Source) -> Vec<String> {
    let mut sources = Sources::new();
    for (path, bytes) in &source.files {
        if let Some(name) = path.strip_prefix("lcfg/") {
            sources.insert(name, String::from_utf8_lossy(bytes).into_owned());
        }
    }
    let round = publish::fleet(&source.site, sources).compile(|_, compiled| Ok(names_tests(compiled)));
    round.into_iter().filter(|(_, named)| matches!(named, Ok(true))).map(|(node, _)| node).collect()
}

fn names_tests(compiled: &Compiled) -> bool {
    let words = |component: &str, resource: &str| {
        let found = compiled.components.get(component).and_then(|found| found.resources.get(resource));
        let value = found.map(|found| found.value.as_str()).unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let listed = words("profile", "components").iter().any(|name| name == "evaluate");
    listed && !words("evaluate", "tests").is_empty()
}

/// Has the site evaluated, shows what was found and leaves it in the trial's directory.
///
/// # Errors
/// The host refuses or fails; the files cannot be written.
pub(super) fn run(
    machine: &Machine,
    runs: u32,
    other: Option<&Evaluation>,
    dir: &Path,
) -> Result<Evaluation, Fault> {
    let text = ask(machine, runs).doing(|| "evaluating the site")?;
    let found: Evaluation = serde_json::from_str(&text).doing(|| "reading the evaluation")?;
    let (json, svg) = (dir.join("evaluation.json"), dir.join("evaluation.svg"));
    fs::write(&json, &text).doing(|| format!("writing {}", json.display()))?;
    let beside = Beside { vmm: other, ..Beside::default() };
    let chart = evaluation::chart(&found, beside);
    fs::write(&svg, chart).doing(|| format!("writing {}", svg.display()))?;
    for line in evaluation::table(&found, beside).lines() {
        term::say(line);
    }
    term::say(&format!("the evaluation is in {} and {}", json.display(), svg.display()));
    Ok(found)
}

fn ask(machine: &Machine, runs: u32) -> Result<String, Fault> {
    let slow = runs.min(evaluation::SLOW_RUNS).to_string();
    let runs = runs.to_string();
    let mut command = machine.ask(&["evaluate", "--json", "--runs", &runs, "--slow-runs", &slow]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take();
    let telling = std::thread::spawn(move || {
        let mut last = String::new();
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok)
        {
            term::say(&line);
            last = line;
        }
        last
    });
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    let last = telling.join().unwrap_or_default();
    if status.success() {
        return Ok(text);
    }
    Err(Fault::new(format!("gatectl ended with {status}: {last}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_can_be_evaluated_on_if_its_profile_names_tests() {
        let tests = "evaluate.tests a\nevaluate.command_a true\n";
        for (components, more, able) in [
            ("profile evaluate", tests, true),
            ("profile", tests, false),
            ("profile evaluate", "evaluate.tests\n", false),
            ("profile", "", false),
        ] {
            let mut sources = Sources::new();
            sources.insert("source/ui", format!("profile.components {components}\n{more}"));
            let mut fleet = gatehouse_lcfg::Fleet::new();
            fleet.set_sources(sources);
            fleet.set_nodes([("ui".to_owned(), String::new())]);
            let round = fleet.compile(|_, compiled| Ok(names_tests(compiled)));
            let found: Vec<_> = round.into_values().collect();
            assert_eq!(found, [Ok(able)], "{components} {more}");
        }
    }
}
