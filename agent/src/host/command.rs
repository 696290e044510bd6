//! `gatehouse-agent survey` and `plan`: look, decide, print; nothing is touched.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gatehouse_model::{Contents, Digest, Doing as _, Fault, Site};
use serde::Serialize;

use super::args::KernelArgs;
use super::bring::plan::BringPlan;
use super::facts::{Facts, round};
use super::plan::{check_memory, plan};
use super::target::{Target, targets};
use super::{bring, choose, survey};
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
    /// What a medium installs (`slot-a/contents.json` on it): plan an install from that
    #[arg(long)]
    contents: Option<PathBuf>,
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
    lines.push(format!("serial number {}", facts.dmi.serial.as_deref().unwrap_or("none")));
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
    let site = read_site(&dir)?;
    match &options.contents {
        Some(contents) => print(options.json, &Install::of(&site, &facts, &args, contents)?),
        None => print(options.json, &plan(&site, &facts, &args)?),
    }
}

fn print(json: bool, plan: &(impl Serialize + Display)) -> Result<(), Fault> {
    if json {
        println!("{}", serde_json::to_string_pretty(plan).doing(|| "writing the plan")?);
    } else {
        print!("{plan}");
    }
    Ok(())
}

/// What an installer would do to one disk, or to each of two.
#[derive(Debug, Serialize)]
struct Install {
    disks: Vec<OneDisk>,
}

#[derive(Debug, Serialize)]
struct OneDisk {
    target: Target,
    plan: BringPlan,
}

impl Install {
    fn of(site: &Site, facts: &Facts, args: &KernelArgs, contents: &Path) -> Result<Self, Fault> {
        let doing = || format!("reading {}", contents.display());
        let list = fs::read(contents).doing(doing)?;
        let contents: Contents = serde_json::from_slice(&list).doing(doing)?;
        choose::nic(&site.network.nic, facts)?;
        check_memory(site, facts)?;
        let targets = targets(site, facts, args)?;
        let claim = bring::plan::claim(site.name.as_str(), &targets, Digest::of(&list), "a new one");
        let one = |target: &Target| {
            let disk = facts.disk(&target.disk).cloned().unwrap_or_default();
            let plan = bring::plan::plan(site, &disk, target, &claim, &contents)?;
            Ok(OneDisk { target: target.clone(), plan })
        };
        Ok(Self { disks: targets.disks.iter().map(one).collect::<Result<_, Fault>>()? })
    }
}

impl Display for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disks.iter().try_for_each(|one| write!(f, "{}\n{}", one.target, one.plan))
    }
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
