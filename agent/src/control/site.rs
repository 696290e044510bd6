//! `gatectl site`: what a change would do, taking it up, the history; and the two hooks of the site's repository.

use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use gatehouse_model::site::Access;
use gatehouse_model::{Doing as _, Exit, Fault, Problem, Site};
use serde_json::json;

use super::ctl::{other_answer, print};
use super::request::{Answer, Request};
use super::socket::Asker;
use crate::host::change::Change;
use crate::host::git::{BRANCH, Repository};
use crate::host::import::{self, SiteFiles};
use crate::paths::Paths;

/// What git gives for a branch that is not there.
const NONE: &str = "0000000000000000000000000000000000000000";

/// The commands of `gatectl site`.
#[derive(Clone, Debug, Subcommand)]
pub enum SiteControl {
    /// What a site directory would change here; changes nothing
    Diff {
        /// The site directory, or - for a tar stream on standard input; else the one on this machine, as it was edited
        dir: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a site directory and make it the one that counts
    Import {
        /// The site directory, or - for a tar stream on standard input (`tar -C DIR -c . | ssh root@HOST gatectl site import -`)
        dir: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// The sites that have counted here, newest first
    Log,
    /// Before a push is accepted (called by git)
    #[command(hide = true)]
    Receive,
    /// After a push was accepted (called by git)
    #[command(hide = true)]
    Received,
}

/// Does what the command says.
pub(super) fn run(paths: &Paths, command: SiteControl) -> Result<(), Fault> {
    match command {
        SiteControl::Diff { dir, json } => {
            let files = brought(dir.as_deref().unwrap_or(&paths.site()))?;
            let change = ask(paths, &files, |dir| Request::SiteDiff { dir, after: None })?;
            show(&change, json)
        }
        SiteControl::Import { dir, json } => {
            let by = who();
            let files = brought(&dir)?;
            still_lets_in(&files)?;
            let change = ask(paths, &files, |dir| Request::SiteImport { dir, by: by.clone(), commit: None })?;
            show(&change, json)
        }
        SiteControl::Log => match Asker::connect(paths)?.ask(&Request::SiteLog)? {
            Answer::Text(text) => print(&text),
            _ => Err(other_answer()),
        },
        SiteControl::Receive => updates()?.iter().try_for_each(|update| receive(paths, update)),
        SiteControl::Received => updates()?.iter().try_for_each(|update| received(paths, update)),
    }
}

/// Whoever sits there, for the site's history.
pub(super) fn who() -> String {
    let by = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    by.unwrap_or_else(|_| "root".to_owned())
}

fn brought(dir: &Path) -> Result<SiteFiles, Fault> {
    if dir == Path::new("-") {
        return import::from_tar(io::stdin().lock());
    }
    if !dir.join("site.toml").is_file() {
        let what = format!("{} has no site.toml; name a site directory", dir.display());
        return Err(Fault::new(what).exit(Exit::Problem));
    }
    import::read(dir)
}

/// Lays files out where the agent can read them, and asks.
fn ask(paths: &Paths, files: &SiteFiles, request: impl FnOnce(PathBuf) -> Request) -> Result<Change, Fault> {
    // Before the files: without an agent they are of no use.
    let mut asker = Asker::connect(paths)?;
    let dir = paths.incoming();
    import::write(files, &dir)?;
    let answer = asker.ask(&request(dir.clone()));
    std::fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
    match answer? {
        Answer::Change(change) => Ok(change),
        _ => Err(other_answer()),
    }
}

fn show(change: &Change, json: bool) -> Result<(), Fault> {
    print(&if json { json!(change).to_string() + "\n" } else { change.to_string() })
}

/// One branch that a push moves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Update {
    old: String,
    new: String,
    name: String,
}

/// What git writes to its hooks.
fn updates() -> Result<Vec<Update>, Fault> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).doing(|| "reading what git says of the push")?;
    Ok(text.lines().filter_map(update).collect())
}

fn update(line: &str) -> Option<Update> {
    let mut words = line.split(' ').map(str::to_owned);
    Some(Update { old: words.next()?, new: words.next()?, name: words.next()? })
}

/// Why a push cannot be what it seems to be, whatever is in it.
fn refusal(update: &Update, follows: impl FnOnce(&str, &str) -> bool) -> Option<Fault> {
    if update.name != format!("refs/heads/{BRANCH}") {
        let what = format!("{} is no branch of this machine's; {BRANCH} is the site", update.name);
        return Some(Fault::new(what).help(format!("write `git push … HEAD:{BRANCH}`")));
    }
    if update.new == NONE {
        let help = "take nodes out of site.toml to be rid of them";
        return Some(Fault::new(format!("{BRANCH} is the site and cannot be deleted")).help(help));
    }
    if update.old == NONE || follows(&update.new, &update.old) {
        return None;
    }
    let help = format!("`git pull --rebase … {BRANCH}` first, then push again");
    Some(Fault::new("the site has changes here that this push would undo").help(help))
}

fn receive(paths: &Paths, update: &Update) -> Result<(), Fault> {
    let repository = Repository::at(paths);
    if let Some(fault) = refusal(update, |new, old| repository.follows(new, old)) {
        return Err(fault.exit(Exit::Problem));
    }
    let files = repository.files(&update.new)?;
    let after = (update.old != NONE).then(|| update.old.clone());
    let change = ask(paths, &files, |dir| Request::SiteDiff { dir, after })?;
    still_lets_in(&files)?;
    // To the terminal of whoever pushes.
    show(&change, false)
}

/// Refuses a site that would shut out whoever brings it over the network: nobody may be near the machine.
fn still_lets_in(files: &SiteFiles) -> Result<(), Fault> {
    // What sshd says: the client's address and port, and ours. Without it somebody sits at the console.
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let Some(client) = connection.split(' ').next().and_then(|word| word.parse().ok()) else { return Ok(()) };
    let text = files.get("site.toml").map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    let problem = Site::parse(&text).ok().and_then(|site| shuts_out(&site.access, client));
    problem.map_or(Ok(()), |problem| Err(Fault::of_problems(vec![problem])))
}

/// Why somebody from an address could not come back under new rules.
fn shuts_out(access: &Access, client: Ipv4Addr) -> Option<Problem> {
    let why = if access.keys.is_empty() {
        "access.keys is empty, and nobody could log in any more; write your key into it".to_owned()
    } else if access.from.iter().any(|network| network.contains(client)) {
        return None;
    } else {
        format!(
            "access.from would shut out {client}, from where you bring this; add \"{client}/32\" or its network"
        )
    };
    let why = format!("{why}, or import the site at the host's console");
    Some(Problem::at("site.toml", 0, why))
}

fn received(paths: &Paths, update: &Update) -> Result<(), Fault> {
    let repository = Repository::at(paths);
    let files = repository.files(&update.new)?;
    let (by, commit) = (repository.author(&update.new)?, Some(update.new.clone()));
    ask(paths, &files, |dir| Request::SiteImport { dir, by, commit })?;
    print("taken up; `gatectl log --follow` says how it goes on\n")
}

#[cfg(test)]
mod tests {
    use gatehouse_model::site::Subnet;

    use super::*;

    #[test]
    fn nobody_shuts_himself_out() {
        let access = |keys: &[&str], address: [u8; 4], prefix| Access {
            keys: keys.iter().map(ToString::to_string).collect(),
            from: vec![Subnet { address: address.into(), prefix }],
        };
        let why = |access| shuts_out(&access, Ipv4Addr::new(192, 0, 2, 7)).map(|problem| problem.what);
        assert_eq!(why(access(&["a key"], [192, 0, 2, 0], 24)), None);
        assert_eq!(why(access(&["a key"], [0; 4], 0)), None);
        let said = why(access(&["a key"], [10, 0, 2, 0], 24)).unwrap_or_default();
        assert!(said.contains("add \"192.0.2.7/32\""), "{said}");
        let said = why(access(&[], [192, 0, 2, 0], 24)).unwrap_or_default();
        assert!(said.contains("access.keys is empty"), "{said}");
    }

    #[test]
    fn only_what_follows_on_main_is_looked_at() {
        let line = |old: &str, new: &str, name: &str| update(&format!("{old} {new} {name}")).expect("a line");
        let why = |update: &Update, follows| refusal(update, |_, _| follows).map(|fault| fault.to_string());
        let main = "refs/heads/main";
        assert_eq!(why(&line("a", "b", main), true), None);
        assert_eq!(why(&line(NONE, "b", main), false), None);
        for (update, says) in [
            (line("a", "b", "refs/heads/other"), "refs/heads/other is no branch"),
            (line("a", "b", "refs/tags/main"), "refs/tags/main is no branch"),
            (line("a", NONE, main), "cannot be deleted"),
            (line("a", "b", main), "this push would undo"),
        ] {
            let said = why(&update, false).unwrap_or_default();
            assert!(said.contains(says), "{said}");
        }
        assert_eq!(update(""), None);
    }
}
