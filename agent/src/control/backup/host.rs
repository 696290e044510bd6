//! `gatectl backup` and `restore`: what makes a host this host, and all of a site.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Exit, Fault, Refusal, Site};

use super::bar::Interrupt;
use super::node::{self, Done};
use super::place::{Out, Place};
use crate::control::socket::Asker;
use crate::host::backup::identity::{self, Arrival};
use crate::host::backup::manifest::Of;
use crate::host::backup::reader;
use crate::host::command::read_site;
use crate::paths::Paths;
use crate::tool;

/// Names in the directory of a whole site's backup.
const HOST: &str = "host.tar.zst.age";
const NODE: &str = ".tar.zst";
/// What age begins with (age-encryption.org/v1).
const ENCRYPTED: &[u8] = b"age-encryption.org/";
/// How long the agent may take to answer after its restart: it stops its nodes first.
const BACK: Duration = Duration::from_secs(600);

/// What came of restoring a host.
pub(super) enum Became {
    /// It is that host.
    It(Done),
    /// It is when the trial is started again.
    Later(Done),
}

/// Backs the host up.
pub(super) fn back_up(paths: &Paths, place: &Place) -> Result<Done, Fault> {
    let begun = Instant::now();
    let site = read_site(&paths.site())?;
    let recipient = recipient(&site)?;
    let mut out = Out::open(place)?;
    let (bytes, manifest, digest) = identity::back_up(paths, &site)?;
    let bytes = age(&["-r", recipient], &bytes).doing(|| "encrypting the backup of the host")?;
    out.write_all(&bytes).doing(|| format!("writing to {place}"))?;
    let written = Some(out.written);
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
    tell(&back_up(paths, &Place::File(dir.join(HOST)))?)?;
    for name in identity::installed(paths, &site) {
        let place = Place::File(dir.join(format!("{name}{NODE}")));
        tell(&node::backup(paths, &name, (&place, torn), interrupt)?)?;
    }
    Ok(())
}

/// Makes this machine the host of a backup.
pub(super) fn restore(
    paths: &Paths,
    place: &Place,
    identity: Option<&Path>,
    replace: bool,
) -> Result<Became, Fault> {
    let begun = Instant::now();
    let key = identity.ok_or_else(|| {
        Fault::new("the backup of a host is encrypted")
            .help("name the file with the secret key: --identity KEYFILE")
            .exit(Exit::Problem)
    })?;
    let mut bytes = Vec::new();
    place.read()?.read_to_end(&mut bytes).doing(|| format!("reading {place}"))?;
    if !bytes.starts_with(ENCRYPTED) {
        return Err(Fault::new(format!("{place} is not the backup of a host, which age has encrypted"))
            .help("look at it with `gatectl backup inspect`; a node's is for `gatectl node restore`")
            .exit(Exit::Problem));
    }
    let key = key.display().to_string();
    let bytes = age(&["-d", "-i", &key], &bytes).doing(|| format!("decrypting {place}"))?;
    let manifest = reader::read_head(&bytes[..]).doing(|| format!("reading {place}"))?;
    let done = |digest: String| {
        let seconds = begun.elapsed().as_secs_f64();
        Done { seconds, digest, ..Done::of(&manifest, place) }
    };
    if matches!(manifest.of, Of::Host(_))
        && identity::authority(paths)? == Some(manifest.authority)
        && !replace
    {
        return Ok(Became::It(done(String::new())));
    }
    may_replace(paths, replace)?;
    let mut arrival = Arrival::begin(paths)?;
    let whole = reader::read(&bytes[..], &mut arrival).doing(|| format!("restoring from {place}"))?;
    let vmm = read_site(&paths.site())?.host.vmm;
    if let Some(had) = arrival.suit(vmm)? {
        eprintln!(
            "the nodes ran under {had}; site.toml says {vmm} from now on, as this machine's image has that"
        );
    }
    arrival.commit()?;
    if paths.trial.is_some() {
        return Ok(Became::Later(done(whole.digest.to_string())));
    }
    restart(paths)?;
    Ok(Became::It(done(whole.digest.to_string())))
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
    let there = identity::installed(paths, &site);
    for node in site.vms() {
        let file = dir.join(format!("{}{NODE}", node.name));
        if !file.exists() {
            eprintln!("{}: no backup in {}", node.name, dir.display());
        } else if there.contains(&node.name) && !replace {
            eprintln!("{}: it is installed, and stays as it is", node.name);
        } else {
            tell(&node::restore(paths, &node.name, (&Place::File(file), replace), interrupt)?)?;
        }
    }
    Ok(())
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
