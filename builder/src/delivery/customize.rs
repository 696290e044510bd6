//! `gatehouse customize`: other sites in a built image. Only its site partition is written, and of that only what
//! differs; everything else of the image is for any site that wants the same packages.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use gatehouse_lcfg::publish;
use gatehouse_model::site::{BOOT_CFG, InstallTo, Match, boot_cfg};
use gatehouse_model::{Doing as _, Fault, Lock, Problem, Site};

use super::Delivery;
use crate::image::{Content, LOCK, SITE, describe_anew, site_of, site_part};
use crate::site_dir::SiteDir;
use crate::{cli, commands, lock, term};

/// What is compared and written at a time.
const BLOCK: usize = 64 << 10;

/// A site that goes into an image.
struct New {
    dir: SiteDir,
    shown: String,
    site: Site,
}

/// `gatehouse customize`.
///
/// # Errors
/// Problems of any of the sites, all of them; a site wants packages that the image does not have.
pub fn run(args: &cli::Customize) -> Result<(), Fault> {
    let delivery = Delivery::open(&args.out)?;
    let there = site_of(&delivery.image)?;
    let text = there.iter().find(|(path, _)| path == LOCK || path.ends_with(&format!("/{LOCK}")));
    let text = text.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    let text = text.ok_or_else(|| Fault::new("the image has no lock on its site partition"))?;
    let locked = Lock::parse(&text).map_err(Fault::of_problems)?;
    let sites = checked(&args.sites, &locked)?;
    let files = contents(&sites, &text)?;
    let changed = put(&delivery, files)?;
    describe_anew(&delivery.dir, &delivery.image, delivery.manifest.as_ref())?;
    for new in sites.iter().filter(|new| sites.len() > 1 && new.site.matches == Match::default()) {
        term::say(&format!(
            "{}: has no [match], so that it is taken only with gatehouse.site={}",
            new.shown, new.site.name
        ));
    }
    let names: Vec<String> = sites.iter().map(|new| new.site.name.to_string()).collect();
    term::say(&format!("{}: {} ({} KiB written)", delivery.image.display(), names.join(", "), changed >> 10));
    Ok(())
}

/// The sites, or all problems of all of them.
fn checked(paths: &[PathBuf], locked: &Lock) -> Result<Vec<New>, Fault> {
    let (mut sites, mut problems, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for path in paths {
        let shown = path.display().to_string();
        match open(path, locked) {
            Ok(new) if names.insert(new.site.name.clone()) => sites.push(new),
            Ok(new) => {
                let what =
                    format!("another site on the medium is called {} too; rename one of them", new.site.name);
                problems.push(Problem::at(format!("{shown}/site.toml"), 0, what));
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

/// Writes what differs; says how much that was.
fn put(delivery: &Delivery, files: Vec<Content>) -> Result<usize, Fault> {
    let doing = || format!("writing {}", delivery.image.display());
    let table = delivery.table()?;
    let part = table.parts.iter().find(|part| part.name == SITE);
    let part = part.ok_or_else(|| Fault::new("the image has no site partition"))?;
    let mut image = OpenOptions::new().read(true).write(true).open(&delivery.image).doing(doing)?;
    let new = site_part::filesystem(&mut image, part, delivery.epoch(), files)?;
    let (start, mut changed, mut old) = (part.start(crate::image::SECTOR), 0, vec![0; BLOCK]);
    for (at, block) in (start..).step_by(BLOCK).zip(new.chunks(BLOCK)) {
        let old = &mut old[..block.len()];
        image.read_exact_at(old, at).doing(doing)?;
        if old != block {
            image.write_all_at(block, at).doing(doing)?;
            changed += block.len();
        }
    }
    image.sync_data().doing(doing)?;
    Ok(changed)
}
