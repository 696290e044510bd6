//! `gatehouse customize`: other sites in a built image. Only its site partition is written, and of that only what
//! differs; everything else of the image is for any site that wants the same packages. What tells of the image, and
//! what machines that start from the network are given, has the same sites afterwards.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use gatehouse_disk::Part;
use gatehouse_lcfg::publish;
use gatehouse_model::site::{BOOT_CFG, InstallTo, Match, boot_cfg};
use gatehouse_model::{Doing as _, Fault, Lock, Problem, Site};

use super::Delivery;
use crate::image::netboot::{PXE, Renewed};
use crate::image::{Content, LOCK, SITE, describe_anew, next, site_as_it_is, site_part};
use crate::site_dir::SiteDir;
use crate::{cli, commands, lock, term};

/// A site that goes into an image.
struct New {
    dir: SiteDir,
    shown: String,
    site: Site,
}

/// `gatehouse customize`.
///
/// # Errors
/// Problems of any of the sites, all of them; a site wants packages that the image does not have; another process
/// changes the image (exit 4).
pub fn run(args: &cli::Customize) -> Result<(), Fault> {
    let (delivery, _held) = Delivery::hold(&args.out)?;
    let image = &delivery.image;
    let part = partition(&delivery)?;
    // What a cut has left half written there cannot be read.
    next::put(image, &part)?;
    let there = site_as_it_is(image)?;
    let text = there.iter().find(|(path, _)| path == LOCK || path.ends_with(&format!("/{LOCK}")));
    let text = text.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    let text = text.ok_or_else(|| Fault::new("the image has no lock on its site partition"))?;
    let locked = Lock::parse(&text).map_err(Fault::of_problems)?;
    let sites = checked(&args.sites, &locked)?;
    let files = contents(&sites, &text)?;
    let changed = put(&delivery, &part, files)?;
    for new in sites.iter().filter(|new| sites.len() > 1 && new.site.matches == Match::default()) {
        term::say(&format!(
            "{}: has no [match], so that it is taken only with gatehouse.site={}",
            new.shown, new.site.name
        ));
    }
    let names: Vec<String> = sites.iter().map(|new| new.site.name.to_string()).collect();
    term::say(&format!("{}: {} ({} KiB written)", image.display(), names.join(", "), changed >> 10));
    Ok(())
}

fn partition(delivery: &Delivery) -> Result<Part, Fault> {
    let part = delivery.table()?.parts.into_iter().find(|part| part.name == SITE);
    part.ok_or_else(|| Fault::new("the image has no site partition"))
}

/// The sites, or all problems of all of them.
fn checked(paths: &[PathBuf], locked: &Lock) -> Result<Vec<New>, Fault> {
    let (mut sites, mut problems, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for path in paths {
        let shown = path.display().to_string();
        match open(path, locked) {
            Ok(new) => {
                let twice = !names.insert(new.site.name.clone());
                let what = twice.then(|| {
                    format!("another site on the medium is called {} too; rename one of them", new.site.name)
                });
                let wrong = what.into_iter().chain(overruled(paths.len(), new.site.install.to));
                problems.extend(wrong.map(|what| Problem::at(format!("{shown}/site.toml"), 0, what)));
                sites.push(new);
            }
            Err(fault) if fault.problems().is_empty() => return Err(fault),
            Err(fault) => problems.extend(fault.problems().iter().map(|problem| {
                let file = format!("{shown}/{}", problem.file);
                Problem { file, ..problem.clone() }
            })),
        }
    }
    if problems.is_empty() { Ok(sites) } else { Err(Fault::of_problems(problems)) }
}

/// Where a medium installs to is said once for all of its sites, before anybody knows which of them a machine is.
fn overruled(sites: usize, to: Option<InstallTo>) -> Option<String> {
    (sites > 1 && to == Some(InstallTo::SelfDisk)).then(|| {
        "[install] to = \"self\" cannot be on a medium with several sites, which installs to the disk that the rule \
         names; write to = \"rule\" or leave it out, or give this site a medium of its own"
            .to_owned()
    })
}

fn open(path: &Path, locked: &Lock) -> Result<New, Fault> {
    let dir = SiteDir::open(path)?;
    let (site, mut fleet) = dir.site_and_fleet()?;
    let round = fleet.compile(|_, compiled| Ok(publish::wishes(compiled)));
    let wishes = commands::all_good(&fleet, round)?;
    let mut problems = Vec::new();
    for (node, wishes) in wishes {
        if locked.set_for_wishes(&wishes).is_none() {
            let what = "wants packages that the image was not built for; build an image of this site instead";
            problems.push(Problem::at(format!("lcfg/source/{node}"), 0, what));
        }
    }
    for (set, wishes) in lock::of_host(&site) {
        if locked.set(&set).is_none_or(|there| there.wishes != wishes) {
            let what = format!(
                "the packages of set {set} ([packages], [host] vmm) are not those of the image; \
                 write what the image was built with, or build an image of this site"
            );
            problems.push(Problem::at("site.toml", 0, what));
        }
    }
    if !problems.is_empty() {
        return Err(Fault::of_problems(problems));
    }
    Ok(New { dir, shown: path.display().to_string(), site })
}

/// The files of the site partition: one site at its top, several in directories.
fn contents(sites: &[New], locked: &str) -> Result<Vec<Content>, Fault> {
    let one = match sites {
        [only] => Some(&only.site),
        _ => None,
    };
    let to = one.map_or(Some(InstallTo::Rule), |site| site.install.to);
    let mut files = vec![(BOOT_CFG.to_owned(), boot_cfg(one, to).into_bytes())];
    for new in sites {
        let prefix =
            if one.is_some() { String::new() } else { format!("{}{}/", site_part::SITES, new.site.name) };
        for (name, bytes) in site_part::of_directory(&new.dir)? {
            files.push((format!("{prefix}{name}"), bytes));
        }
        files.push((format!("{prefix}{LOCK}"), locked.as_bytes().to_vec()));
    }
    files.sort();
    Ok(files)
}

/// Puts the sites into the image and into all that tells of it; says how much of the image was written. A cut at any
/// moment is mended by the next run.
fn put(delivery: &Delivery, part: &Part, files: Vec<Content>) -> Result<usize, Fault> {
    let Delivery { dir, image, manifest } = delivery;
    let pxe = delivery.pxe().map(|pxe| Renewed::of(&pxe, &files)).transpose()?;
    let mut file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    next::keep(image, &site_part::filesystem(&mut file, part, delivery.epoch(), files)?)?;
    let changed = next::put(image, part)?;
    describe_anew(dir, image, manifest.as_ref())?;
    if let Some(pxe) = pxe {
        pxe.put()?;
        term::say(&format!("{PXE}/ has the same sites; where `gatehouse serve` runs, start it again"));
    }
    next::done(image)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_site_of_several_installs_to_the_medium() {
        for (sites, to, wrong) in [
            (1, Some(InstallTo::SelfDisk), false),
            (2, Some(InstallTo::SelfDisk), true),
            (2, Some(InstallTo::Rule), false),
            (2, None, false),
        ] {
            assert_eq!(overruled(sites, to).is_some(), wrong, "{sites} {to:?}");
        }
    }
}
