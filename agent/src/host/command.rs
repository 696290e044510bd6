//! `gatehouse-agent survey` and `plan`: look, decide, print; nothing is touched.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gatehouse_model::{Doing as _, Fault, Site};

use super::args::KernelArgs;
use super::facts::{Facts, round};
use super::plan::plan;
use super::survey;
use crate::paths::Paths;

/// `gatehouse-agent survey`.
#[derive(Clone, Copy, Debug, Args)]
pub struct SurveyOptions {
    /// Print the facts as JSON
    #[arg(long)]
    json: bool,
}

/// `gatehouse-agent plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanOptions {
    /// The site directory; else the one that counts on this machine
    #[arg(long)]
    site: Option<PathBuf>,
    /// Recorded facts (`survey --json`); else those of this machine
    #[arg(long)]
    facts: Option<PathBuf>,
    /// The kernel's command line; else this machine's
    #[arg(long)]
    cmdline: Option<String>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

/// Reads this machine's kernel command line.
///
/// # Errors
/// An argument of Gatehouse's own is wrong.
pub fn kernel_args() -> Result<KernelArgs, Fault> {
    let line = fs::read_to_string("/proc/cmdline").doing(|| "reading /proc/cmdline")?;
    KernelArgs::parse(&line).map_err(Fault::of_problems)
}

/// Prints what the survey sees.
///
/// # Errors
/// The kernel's command line is wrong.
pub fn run_survey(options: SurveyOptions) -> Result<(), Fault> {
    let facts = survey::of_this_machine(&kernel_args()?);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&facts).doing(|| "writing the facts")?);
    } else {
        print!("{}", describe(&facts));
    }
    Ok(())
}

/// What was seen, a line each.
pub fn describe(facts: &Facts) -> String {
    let mut lines: Vec<String> = facts.disks.iter().map(|disk| format!("disk {disk}")).collect();
    lines.extend(facts.links.iter().map(|link| format!("nic  {link}")));
    let memory = facts.memory.map_or("not known".to_owned(), round);
    lines.push(format!("memory {memory}, {} processors", facts.cpus));
    lines.push(format!("booted from {}", facts.boot_disk.as_deref().unwrap_or("no disk of these")));
    lines.join("\n") + "\n"
}

/// Prints what first boot would do, or has done.
///
/// # Errors
/// The site cannot be read; the machine would be refused.
pub fn run_plan(options: &PlanOptions) -> Result<(), Fault> {
    let dir = options.site.clone().unwrap_or_else(|| Paths::host().site());
    let args = match &options.cmdline {
        Some(line) => KernelArgs::parse(line).map_err(Fault::of_problems)?,
        None => kernel_args()?,
    };
    let facts = match &options.facts {
        Some(path) => read_facts(path)?,
        None => survey::of_this_machine(&args),
    };
    let plan = plan(&read_site(&dir)?, &facts, &args)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&plan).doing(|| "writing the plan")?);
    } else {
        print!("{plan}");
    }
    Ok(())
}

fn read_facts(path: &Path) -> Result<Facts, Fault> {
    let doing = || format!("reading {}", path.display());
    serde_json::from_slice(&fs::read(path).doing(doing)?).doing(doing)
}

/// Reads a directory's site.toml.
///
/// # Errors
/// All its problems.
pub fn read_site(dir: &Path) -> Result<Site, Fault> {
    let path = dir.join("site.toml");
    let text = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    Site::parse(&text).map_err(Fault::of_problems)
}
