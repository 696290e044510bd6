//! Which of the sites on a medium a machine is to be.

use std::collections::BTreeMap;

use gatehouse_model::{Problem, Refusal, Site};

use super::args::KernelArgs;
use super::choose::matches;
use super::facts::{Facts, list};
use super::import::SiteFiles;

/// Several sites are directories in this one; a single one lies at the top.
const SITES: &str = "sites/";

/// The sites of a medium by their directories' names; one that lies at the top has none.
pub fn split(files: &SiteFiles) -> BTreeMap<String, SiteFiles> {
    let mut sites: BTreeMap<String, SiteFiles> = BTreeMap::new();
    for (path, bytes) in files {
        let inside = path.strip_prefix(SITES).and_then(|rest| rest.split_once('/'));
        let (name, path) = inside.unwrap_or(("", path));
        sites.entry(name.to_owned()).or_default().insert(path.to_owned(), bytes.clone());
    }
    // Somebody's notes beside the directories are no site.
    sites.retain(|_, files| files.contains_key("site.toml"));
    sites
}

/// What a site directory's site.toml says.
///
/// # Errors
/// All its problems.
pub fn parse(files: &SiteFiles) -> Result<Site, Vec<Problem>> {
    let bytes = files.get("site.toml").ok_or_else(|| vec![Problem::at("site.toml", 0, "is missing")])?;
    Site::parse(&String::from_utf8_lossy(bytes))
}

/// The directory's name of the site that this machine is to be: the one that the kernel's command line names, else the
/// only one that the machine matches.
///
/// # Errors
/// None or several are meant; or the one that is meant has problems.
pub fn choose(
    sites: &BTreeMap<String, Result<Site, Vec<Problem>>>,
    facts: &Facts,
    args: &KernelArgs,
) -> Result<String, Refusal> {
    let fits: Vec<&String> = match &args.site {
        Some(wanted) => {
            let called = |name: &str, site: &Site| name == wanted || site.name.as_str() == wanted;
            let named = |(name, site): &(&String, &Result<Site, Vec<Problem>>)| match site {
                Ok(site) => called(name, site),
                Err(_) => *name == wanted,
            };
            sites.iter().filter(named).map(|(name, _)| name).collect()
        }
        None => sites
            .iter()
            .filter(|(_, site)| is_meant(site, sites.len(), facts))
            .map(|(name, _)| name)
            .collect(),
    };
    let [only] = fits.as_slice() else { return Err(refusal(sites, facts, args, fits.len())) };
    match &sites[*only] {
        Ok(_) => Ok((*only).clone()),
        Err(problems) => {
            let what = format!("the site directory {only:?} of the medium has problems:{}", list(problems));
            Err(Refusal::new(what, "correct it on any computer (partition GATEHOUSE), then start again"))
        }
    }
}

/// Without `[match]` only a single site is meant. One that cannot be read is meant only if it is the only one.
fn is_meant(site: &Result<Site, Vec<Problem>>, count: usize, facts: &Facts) -> bool {
    let Ok(site) = site else { return count == 1 };
    let rule = &site.matches;
    if rule.serial.is_empty() && rule.mac.is_empty() {
        return count == 1;
    }
    let serial = |glob: &String| facts.dmi.serial.as_ref().is_some_and(|serial| matches(glob, serial));
    rule.serial.iter().any(serial) || facts.links.iter().any(|link| rule.mac.contains(&link.mac))
}

/// What the machine is, and what each site wants.
fn refusal(
    sites: &BTreeMap<String, Result<Site, Vec<Problem>>>,
    facts: &Facts,
    args: &KernelArgs,
    fits: usize,
) -> Refusal {
    let asked = args.site.as_ref().map_or(String::new(), |name| format!(" called {name}"));
    let macs: Vec<String> = facts.links.iter().map(|link| link.mac.to_string()).collect();
    let serial = facts.dmi.serial.as_deref().unwrap_or("none");
    let wants = |(name, site): (&String, &Result<Site, Vec<Problem>>)| {
        let directory = if name.is_empty() { "site.toml".to_owned() } else { format!("sites/{name}") };
        match site {
            Err(problems) => format!("{directory}: has {} problems", problems.len()),
            Ok(site) => format!("{directory}: {}", wants(site)),
        }
    };
    let number = if fits == 0 { "no".to_owned() } else { fits.to_string() };
    let noun = if fits == 1 { "site" } else { "sites" };
    let what = format!(
        "the medium has {number} {noun}{asked} for this machine (serial number {serial}; network interfaces {}):{}",
        if macs.is_empty() { "none".to_owned() } else { macs.join(", ") },
        list(sites.iter().map(wants))
    );
    Refusal::new(what, "name this machine under [match] of one site, or start with gatehouse.site=NAME")
}

fn wants(site: &Site) -> String {
    let rule = &site.matches;
    let serials = rule.serial.iter().map(|glob| format!("serial {glob:?}"));
    let all: Vec<String> = serials.chain(rule.mac.iter().map(|mac| format!("mac {mac}"))).collect();
    if all.is_empty() {
        format!("{}, for any machine", site.name)
    } else {
        format!("{}, for {}", site.name, all.join(" or "))
    }
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
