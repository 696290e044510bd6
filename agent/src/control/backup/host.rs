//! `gatectl backup` and `restore`: what makes a host this host, and all of a site.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Exit, Fault, NodeName, Refusal, Site};

use super::bar::Interrupt;
use super::node::{self, Done};
use super::place::{Out, Place};
use crate::control::socket::Asker;
use crate::host::backup::identity::{self, Arrival};
use crate::host::backup::manifest::{Manifest, Of};
use crate::host::backup::reader;
use crate::host::command::read_site;
use crate::host::keeper::fits;
use crate::host::lifecycle::record::Record;
use crate::paths::Paths;
use crate::tool;

/// Names in the directory of a whole site's backup.
const HOST: &str = "host.tar.zst.age";
const NODE: &str = ".tar.zst";
/// What age begins with (age-encryption.org/v1).
const ENCRYPTED: &[u8] = b"age-encryption.org/";
/// How long the agent may take to answer after its restart: it stops its nodes first.
const BACK: Duration = Duration::from_secs(600);

/// How a host is restored.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// What its nodes have is given up.
    pub(super) replace: bool,
    /// One that was restored from this backup already is left alone nevertheless: the rest of it is gone on with.
    pub(super) go_on: bool,
}

/// What came of restoring a host.
pub(super) enum Became {
    /// It is that host.
    It(Done),
    /// It was, and is not changed.
    Already,
    /// It is when the trial is started again.
    Later(Done),
}

/// Backs the host up.
pub(super) fn back_up(paths: &Paths, place: &Place, interrupt: &Interrupt) -> Result<Done, Fault> {
    let begun = Instant::now();
    let site = read_site(&paths.site())?;
    let recipient = recipient(&site)?;
    let mut out = Out::open(place)?;
    let (bytes, manifest, digest) = identity::back_up(paths, &site)?;
    let bytes = age(&["-r", recipient], &bytes).doing(|| "encrypting the backup of the host")?;
    out.write_all(&bytes).doing(|| format!("writing to {place}"))?;
    let written = Some(out.written);
    interrupt.check()?;
    out.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Done { written, seconds, digest: digest.to_string(), ..Done::of(&manifest, place) })
}

fn recipient(site: &Site) -> Result<&str, Fault> {
    let found = site.backup.as_ref().map(|backup| backup.recipient.as_str());
    found.ok_or_else(|| {
        Refusal::new(
            "the backup of a host holds its keys, and site.toml does not say who may read it",
            "make a key with `age-keygen -o KEYFILE`, keep it elsewhere, and write its public key as recipient below \
             [backup] into site.toml",
        )
        .into()
    })
}

/// Backs up the host and every installed node into a directory.
pub(super) fn back_up_all(
    paths: &Paths,
    (dir, torn): (&Path, bool),
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(&Done) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let site = read_site(&paths.site())?;
    recipient(&site)?;
    fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    tell(&back_up(paths, &Place::File(dir.join(HOST)), interrupt)?)?;
    let there = identity::installed(paths, &site);
    let mut failed = Failed::default();
    for node in site.vms() {
        let (name, file) = (&node.name, dir.join(format!("{}{NODE}", node.name)));
        if !there.contains(name) {
            let old = if file.exists() { ", and the backup in the directory is of earlier" } else { "" };
            eprintln!("{name}: it is not installed, and has nothing to be backed up{old}");
            continue;
        }
        failed.note(
            name,
            node::backup(paths, name, (&Place::File(file), torn), interrupt),
            interrupt,
            tell,
        )?;
    }
    failed.end("not backed up", "see to what is told of each, and back them up with `gatectl node backup`")
}

/// The nodes of several that something could not be done for: the others must not miss it because of them.
#[derive(Debug, Default)]
struct Failed {
    nodes: Vec<String>,
    exit: Option<Exit>,
}

impl Failed {
    fn note(
        &mut self,
        node: &NodeName,
        done: Result<Done, Fault>,
        interrupt: &Interrupt,
        tell: &mut dyn FnMut(&Done) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match done {
            Ok(done) => tell(&done),
            Err(fault) => {
                interrupt.check()?;
                eprint!("{}", fault.render());
                self.nodes.push(node.to_string());
                self.exit.get_or_insert(fault.exit_status());
                Ok(())
            }
        }
    }

    fn end(self, what: &str, help: &str) -> Result<(), Fault> {
        match self.exit {
            None => Ok(()),
            Some(exit) => Err(Fault::new(format!("{what}: {}", self.nodes.join(", "))).help(help).exit(exit)),
        }
    }
}

/// Makes this machine the host of a backup.
pub(super) fn restore(
    paths: &Paths,
    place: &Place,
    identity: Option<&Path>,
    how: How,
) -> Result<Became, Fault> {
    let begun = Instant::now();
    let key = identity.ok_or_else(|| {
        Fault::new("the backup of a host is encrypted")
            .help("name the file with the secret key: --identity KEYFILE")
            .exit(Exit::Problem)
    })?;
    let key = key.display().to_string();
    let bytes = age(&["-d", "-i", &key], &encrypted(place)?).doing(|| format!("decrypting {place}"))?;
    let manifest = reader::read_head(&bytes[..]).doing(|| format!("reading {place}"))?;
    if is_it(paths, &manifest, how)? {
        return Ok(Became::Already);
    }
    let done = |digest: String| {
        let seconds = begun.elapsed().as_secs_f64();
        Done { seconds, digest, ..Done::of(&manifest, place) }
    };
    may_replace(paths, how.replace)?;
    let mut arrival = Arrival::begin(paths)?;
    let whole = reader::read(&bytes[..], &mut arrival).doing(|| format!("restoring from {place}"))?;
    let (site, kept) = arrival.suit(&paths.site())?;
    if paths.trial.is_none() {
        fits(&site, paths)?;
    }
    if !kept.is_empty() {
        eprintln!("site.toml keeps what it said of this machine: {}", kept.join(", "));
    }
    arrival.commit()?;
    if paths.trial.is_some() {
        return Ok(Became::Later(done(whole.digest.to_string())));
    }
    restart(paths)?;
    Ok(Became::It(done(whole.digest.to_string())))
}

/// All of a backup that age has encrypted. Of anything else, which may be of any size, only the beginning is read.
fn encrypted(place: &Place) -> Result<Vec<u8>, Fault> {
    let doing = || format!("reading {place}");
    let (mut input, mut bytes) = (place.read()?, Vec::new());
    input.by_ref().take(ENCRYPTED.len() as u64).read_to_end(&mut bytes).doing(doing)?;
    if bytes != ENCRYPTED {
        return Err(Fault::new(format!("{place} is not the backup of a host, which age has encrypted"))
            .help("look at it with `gatectl backup inspect`; a node's is for `gatectl node restore`")
            .exit(Exit::Problem));
    }
    input.read_to_end(&mut bytes).doing(doing)?;
    Ok(bytes)
}

/// Whether this machine is the host of a backup, and shall stay as it is.
fn is_it(paths: &Paths, manifest: &Manifest, how: How) -> Result<bool, Fault> {
    if !matches!(manifest.of, Of::Host(_)) || identity::authority(paths)? != Some(manifest.authority) {
        return Ok(false);
    }
    let from_it = how.go_on && identity::restored_from(paths)?.is_some_and(|from| from == *manifest);
    Ok(!how.replace || from_it)
}

/// Whether nothing is lost that somebody has not given up.
fn may_replace(paths: &Paths, replace: bool) -> Result<(), Fault> {
    let site = read_site(&paths.site())?;
    let nodes: Vec<String> = identity::installed(paths, &site).iter().map(ToString::to_string).collect();
    if replace || nodes.is_empty() {
        return Ok(());
    }
    let what = format!(
        "this host has nodes of its own, which would not be known to it any more: {}",
        nodes.join(", ")
    );
    Err(Refusal::new(what, "say --replace to give them up").into())
}

/// The agent puts it in place when it starts, and sshd takes the host's keys up.
fn restart(paths: &Paths) -> Result<(), Fault> {
    tool::run("systemctl", &["restart", "gatehouse.service"]).doing(|| "restarting the agent")?;
    let begun = Instant::now();
    while Asker::connect(paths).is_err() {
        if begun.elapsed() > BACK {
            return Err(Fault::new("the agent does not answer").help("see `journalctl -u gatehouse`"));
        }
        thread::sleep(Duration::from_secs(1));
    }
    tool::run("systemctl", &["restart", "ssh.service"]).doing(|| "restarting sshd").map(drop)
}

/// Restores the nodes that have a backup in a directory and do not run from it already.
pub(super) fn restore_nodes(
    paths: &Paths,
    (dir, replace): (&Path, bool),
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(&Done) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let site = read_site(&paths.site())?;
    let mut failed = Failed::default();
    for node in site.vms() {
        let (name, file) = (&node.name, dir.join(format!("{}{NODE}", node.name)));
        if !file.exists() {
            eprintln!("{name}: no backup in {}", dir.display());
            continue;
        }
        let done = match stays(paths, name, (&file, replace)) {
            Ok(Some(why)) => {
                eprintln!("{name}: {why}");
                continue;
            }
            Ok(None) => node::restore(paths, name, (&Place::File(file), replace), interrupt),
            Err(fault) => Err(fault),
        };
        failed.note(name, done, interrupt, tell)?;
    }
    failed.end("not restored", "see to what is told of each; the same command goes on with them")
}

/// Why a node is not restored, if it is not: a second run of the same command must not throw away what it has written since.
fn stays(
    paths: &Paths,
    node: &NodeName,
    (file, replace): (&Path, bool),
) -> Result<Option<&'static str>, Fault> {
    let Some(record) = Record::load(paths, node)? else { return Ok(None) };
    if !replace {
        return Ok(Some("it is installed, and stays as it is"));
    }
    // What is no backup is told of by who reads it all.
    let made = Place::File(file.to_owned()).read().ok().and_then(|file| reader::read_head(file).ok());
    let from_it = record.restored.is_some() && record.restored == made.map(|manifest| manifest.made);
    Ok(from_it.then_some("it is restored from this backup already, and stays as it is"))
}

/// The host's backup in a directory.
pub(super) fn host_in(dir: &Path) -> PathBuf {
    dir.join(HOST)
}

/// Runs age on some bytes. It asks on the terminal where a key has a passphrase.
fn age(args: &[&str], input: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut child = Command::new("age")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| "starting age")?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends before it has read everything says why on stderr.
            stdin.map(|mut stdin| stdin.write_all(input))
        });
        child.wait_with_output()
    });
    let output = output.doing(|| "waiting for age")?;
    tool::finish("age", &output)?;
    Ok(output.stdout)
}
