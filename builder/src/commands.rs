//! The short commands; the long ones (`lock`, `image`, `trial`) have modules of their own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::{BufReader, ErrorKind, Write as _};
use std::mem::ManuallyDrop;
use std::path::Path;

use gatehouse_lcfg::{Difference, Fleet, Profile, Round, Why, publish, told_once};
use gatehouse_model::{Doing as _, Fault, Lock, PackageSet, Problem, Refusal, Site};
use serde::Serialize;

use crate::cache::Cache;
use crate::cli;
use crate::lock::{self, Archives};
use crate::remembered::Remembered;
use crate::share::Share;
use crate::site_dir::SiteDir;
use crate::{fetch, image, parallel, term};

/// A site with its lock, and every package of it in the cache.
#[derive(Debug)]
pub struct Prepared {
    /// The site directory.
    pub dir: SiteDir,
    /// What it says.
    pub site: Site,
    /// Its lock.
    pub lock: Lock,
    /// The cache.
    pub cache: Cache,
    /// The builder's own files.
    pub share: Share,
}

/// Checks a site, makes its lock if it has none, and fetches its packages.
///
/// # Errors
/// Problems of the site; faults of apt or of the mirror.
pub fn prepare(global: &cli::Global, site: &Path) -> Result<Prepared, Fault> {
    let dir = SiteDir::open(site)?;
    let site = checked(&dir)?;
    let share = Share::find(global.agent.as_deref())?;
    let cache = Cache::open(global.cache.as_deref())?;
    let lock = lock::ensure(&dir, &site, share.agent()?, &cache)?;
    fetch::fetch(&lock.packages.iter().collect::<Vec<_>>(), &Archives::of(&site)?, &cache)?;
    Ok(Prepared { dir, site, lock, cache, share })
}

/// `gatehouse new`.
///
/// # Errors
/// The directory exists already, or there is no such template.
pub fn new(global: &cli::Global, args: &cli::New) -> Result<(), Fault> {
    let templates = Share::find(global.agent.as_deref())?.templates();
    let from = templates.join(&args.template);
    if !from.join("site.toml").is_file() {
        let names = fs::read_dir(&templates).doing(|| "reading the templates")?.flatten();
        let mut names: Vec<_> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let what = format!("there is no template {:?}; write one of: {}", args.template, names.join(", "));
        return Err(Fault::of_problems(vec![Problem::at("--template", 0, what)]));
    }
    if args.dir.exists() {
        let what = format!("{} exists already", args.dir.display());
        return Err(Refusal::new(what, "name a directory that does not exist").into());
    }
    for name in SiteDir::open(&from)?.files()? {
        if name == "site.lock" {
            continue;
        }
        let to = args.dir.join(&name);
        fs::create_dir_all(to.parent().unwrap_or(&args.dir)).doing(|| format!("making {}", to.display()))?;
        fs::copy(from.join(&name), &to).doing(|| format!("writing {}", to.display()))?;
    }
    term::say(&format!("made {0}; edit {0}/site.toml, then run `gatehouse check {0}`", args.dir.display()));
    Ok(())
}

/// `gatehouse check`.
///
/// # Errors
/// All problems of the site.
pub fn check(args: &cli::SiteArg) -> Result<(), Fault> {
    let dir = SiteDir::open(&args.site)?;
    let site = checked(&dir)?;
    let nodes = site.nodes.len();
    term::say(&format!("{}: no problems; {nodes} node{}", site.name, if nodes == 1 { "" } else { "s" }));
    Ok(())
}

/// The site, with every problem of site.toml, or else of every node's sources.
fn checked(dir: &SiteDir) -> Result<Site, Fault> {
    let (site, mut fleet) = dir.site_and_fleet()?;
    let round = fleet.compile(|_, _| Ok(()));
    all_good(&fleet, round)?;
    Ok(site)
}

/// What was made of every node; or all problems of all nodes, each told once.
///
/// # Errors
/// Those problems.
pub fn all_good<R>(fleet: &Fleet, round: Round<R>) -> Result<BTreeMap<String, R>, Fault> {
    let mut problems: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
    let mut good = BTreeMap::new();
    for (node, made) in round {
        match made {
            Ok(made) => drop(good.insert(node, made)),
            Err(found) => drop(problems.insert(node, found)),
        }
    }
    let schemas = fleet.schema_problems();
    let told = problems.iter().map(|(node, problems)| (node.as_str(), problems.as_slice()));
    let told = told_once(told.chain([("", schemas.as_slice())]));
    if told.is_empty() { Ok(good) } else { Err(Fault::of_problems(told)) }
}

/// `gatehouse profile`.
///
/// # Errors
/// Problems of the site's sources; the node is not in the site or its packages are not locked.
pub fn profile(global: &cli::Global, args: &cli::Profile) -> Result<(), Fault> {
    let dir = SiteDir::open(&args.site)?;
    // What is read takes longer than what is made of it, so the node's sources are read beside the rest.
    let read = || Ok((dir.site()?, Remembered::read(global, &dir)?));
    let ((site, mut memory), sources) = parallel::both(read, || dir.sources())?;
    // The program ends when this does: to free all that piece by piece would take a tenth of its time.
    let mut fleet = ManuallyDrop::new(sources.into_fleet(&site));
    memory.recall(&mut fleet);
    if let Some(resource) = &args.why {
        let why = Why::of(&mut fleet, &args.node, resource).map_err(Fault::of_problems)?;
        return answer(args.json, &why);
    }
    let (compiled, _) =
        publish::compile_node(&site, &mut fleet, &args.node, None).map_err(Fault::of_problems)?;
    memory.keep(&fleet);
    let wishes = publish::wishes(&compiled);
    let set = set_for(global, &dir, &site, &wishes)?;
    let solve = |_: &[String]| Ok(set.packages.clone());
    let profile = publish::profile_of(&site, &solve, &compiled, &args.node).map_err(Fault::of_problems)?;
    let Some(old) = &args.diff else {
        return print(&profile.to_xml());
    };
    let text = fs::read_to_string(old).doing(|| format!("reading {}", old.display()))?;
    let old = Profile::from_xml(&text).map_err(|problems| {
        let file = old.display().to_string();
        let named = |problem: Problem| Problem { file: file.clone(), ..problem };
        Fault::of_problems(problems.into_iter().map(named).collect())
    })?;
    answer(args.json, &Difference::between(&old, &profile))
}

/// Prints an answer, for people or as JSON.
fn answer<T: Display + Serialize>(json: bool, answer: &T) -> Result<(), Fault> {
    if json {
        print(&(serde_json::to_string_pretty(answer).doing(|| "printing the answer")? + "\n"))
    } else {
        print(&answer.to_string())
    }
}

/// Prints what may be long; whoever reads it may stop in the middle.
fn print(text: &str) -> Result<(), Fault> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.doing(|| "printing"),
    }
}

/// What site.lock has for a node's wishes, as it is if it has that; else as one that answers all that the site asks.
fn set_for(global: &cli::Global, dir: &SiteDir, site: &Site, wishes: &[String]) -> Result<PackageSet, Fault> {
    let name = PackageSet::name_for(wishes);
    let there = dir.open_file("site.lock")?.map(|lock| PackageSet::find(BufReader::new(lock), &name));
    let there = there.transpose().doing(|| "reading site.lock")?.flatten();
    if let Some(set) = there.filter(|set| set.wishes == wishes) {
        return Ok(set);
    }
    let share = Share::find(global.agent.as_deref())?;
    let lock = lock::ensure(dir, site, share.agent()?, &Cache::open(global.cache.as_deref())?)?;
    let set = lock.set_for_wishes(wishes).cloned();
    set.ok_or_else(|| Fault::new(format!("the new site.lock has no set {name}")))
}

/// `gatehouse lock`.
///
/// # Errors
/// Problems of the site; faults of apt.
pub fn lock(global: &cli::Global, args: &cli::SiteArg) -> Result<(), Fault> {
    let dir = SiteDir::open(&args.site)?;
    let site = checked(&dir)?;
    let share = Share::find(global.agent.as_deref())?;
    let lock = lock::renew(&dir, &site, share.agent()?, &Cache::open(global.cache.as_deref())?)?;
    let bytes: u64 = lock.packages.iter().map(|package| package.size).sum();
    term::say(&format!("site.lock: {} packages, {} MB", lock.packages.len(), bytes / 1_000_000));
    Ok(())
}

/// `gatehouse build`.
///
/// # Errors
/// Whatever preparing or assembling ends with.
pub fn build(global: &cli::Global, args: &cli::Build) -> Result<(), Fault> {
    let prepared = prepare(global, &args.site)?;
    let manifest = image::build(&prepared, &args.out, &args.format)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&manifest).doing(|| "printing the manifest")?);
    }
    Ok(())
}
