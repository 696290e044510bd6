//! `gatectl diagnose`: one file with what somebody needs who is to find out what is wrong, without secrets. It takes what
//! it can get: also where the agent does not answer.

mod pieces;
mod redact;
mod source;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use gatehouse_model::{Doing as _, Fault, NodeName};
use serde::Serialize;
use serde_json::json;

use super::ctl::print;
use super::request::{Answer, Request};
use super::socket::Asker;
use crate::host::command::read_site;
use crate::paths::Paths;
use crate::server::view::ViewKey;
use pieces::From;
use redact::{Rules, redact};

/// How long the agent or a program may take for one piece, in seconds.
const LIMIT: u64 = 15;
/// How much of a file or of what a program prints is taken, in bytes, from its end: a console log and the one before it
/// are whole with that.
const MOST: u64 = 4 << 20;
/// Where a site's own files may hold anything: they are counted, not taken.
const NOT_TAKEN: [&str; 2] = ["files", "components"];

/// `gatectl diagnose`.
#[derive(Args, Clone, Debug)]
pub struct DiagnoseOptions {
    /// The file to write, a tar archive in zstd; `-` for standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say what is inside as JSON
    #[arg(long)]
    pub json: bool,
}

/// One file of the bundle, as its table of contents has it.
#[derive(Debug, Serialize)]
struct Inside {
    name: String,
    bytes: usize,
    /// How many secrets were taken out.
    removed: usize,
}

/// What could not be had or is not taken, and why.
#[derive(Debug, Serialize)]
struct LeftOut {
    name: String,
    why: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Contents {
    file: String,
    inside: Vec<Inside>,
    left_out: Vec<LeftOut>,
}

/// Writes the bundle, and says what is in it.
///
/// # Errors
/// The file cannot be written.
pub(super) fn run(paths: &Paths, options: &DiagnoseOptions) -> Result<(), Fault> {
    let name = name(paths);
    let output = options.output.clone().unwrap_or_else(|| format!("{name}.tar.zst").into());
    let to_stdout = output == Path::new("-");
    let contents = if to_stdout {
        bundle(paths, &name, io::stdout().lock()).doing(|| "writing to standard output")?
    } else {
        let doing = || format!("writing {}", output.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&output).doing(doing)?;
        bundle(paths, &name, file).doing(doing)?
    };
    let contents = Contents { file: output.display().to_string(), ..contents };
    if options.json && !to_stdout {
        return print(&format!("{}\n", json!(contents)));
    }
    for line in describe(&contents).lines() {
        eprintln!("{line}");
    }
    Ok(())
}

/// Of the site and of the moment, in seconds since 1970.
fn name(paths: &Paths) -> String {
    let site = read_site(&paths.site()).map_or_else(|_| "unknown".to_owned(), |site| site.name.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("gatehouse-diagnose-{site}-{now}")
}

fn describe(contents: &Contents) -> String {
    let inside = contents.inside.iter().map(|Inside { name, bytes, removed }| {
        let removed = if *removed > 0 { format!("; {removed} secrets removed") } else { String::new() };
        format!("{name}: {bytes} bytes{removed}\n")
    });
    let left_out = contents
        .left_out
        .iter()
        .map(|LeftOut { name, why }| format!("  {name}: {}\n", why.lines().next().unwrap_or_default()));
    let (inside, left_out): (String, String) = (inside.collect(), left_out.collect());
    let file = &contents.file;
    format!("{inside}left out:\n{left_out}the bundle is in {file}; look at it before you pass it on\n")
}

fn bundle(paths: &Paths, name: &str, to: impl Write) -> Result<Contents, Fault> {
    let (site, mut left_out) = of_site(&paths.site());
    let known = known(paths);
    let mut contents = Contents::default();
    let mut tar = tar::Builder::new(zstd::Encoder::new(to, 0)?);
    for piece in pieces::all(paths, &site, &nodes(paths)) {
        match get(paths, &piece.from) {
            Ok(bytes) => {
                let rules = Rules { known: &known, form: piece.form };
                let (text, removed) = redact(&String::from_utf8_lossy(&bytes), rules);
                add(&mut tar, name, &piece.name, text.as_bytes())?;
                contents.inside.push(Inside { name: piece.name, bytes: text.len(), removed });
            }
            Err(fault) => left_out.push(LeftOut { name: piece.name, why: fault.to_string() }),
        }
    }
    left_out.push(LeftOut {
        name: "secrets".into(),
        why: "keys, tokens and password hashes are never taken: state/authority, grid, secrets, host/ssh"
            .into(),
    });
    contents.left_out = left_out;
    add(&mut tar, name, "contents.json", json!(contents).to_string().as_bytes())?;
    let mut to = tar.into_inner()?.finish()?;
    to.flush()?;
    Ok(contents)
}

fn add(tar: &mut tar::Builder<impl Write>, top: &str, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(0o600);
    tar.append_data(&mut header, format!("{top}/{name}"), bytes).doing(|| format!("adding {name}"))
}

/// The values that are known to be secret on this machine and could stand in a text.
fn known(paths: &Paths) -> Vec<String> {
    let key = ViewKey::read(paths).ok().flatten();
    key.map(|key| key.trim().to_owned()).into_iter().collect()
}

/// The nodes that have left something here, whether the site still has them or not.
fn nodes(paths: &Paths) -> Vec<NodeName> {
    let entries = fs::read_dir(&paths.vms).into_iter().flatten().flatten();
    let mut nodes: Vec<NodeName> =
        entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    nodes.sort();
    nodes
}

/// The names of the site's files that are taken, and those that are not.
fn of_site(dir: &Path) -> (Vec<String>, Vec<LeftOut>) {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    let mut dirs = vec![PathBuf::new()];
    while let Some(below) = dirs.pop() {
        for entry in fs::read_dir(dir.join(&below)).into_iter().flatten().flatten() {
            let path = below.join(entry.file_name());
            let name = path.display().to_string();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if !kind.is_file() => {}
                _ if NOT_TAKEN.iter().any(|top| path.starts_with(top)) => {
                    let why = "a site's own file may hold anything".to_owned();
                    left.push(LeftOut { name: format!("site/{name}"), why });
                }
                _ => taken.push(name),
            }
        }
    }
    taken.sort();
    left.sort_by(|a, b| a.name.cmp(&b.name));
    (taken, left)
}

fn get(paths: &Paths, from: &From) -> Result<Vec<u8>, Fault> {
    match from {
        From::Agent(request) => ask(paths, request),
        From::Program(argv) => output(argv),
        From::File(path) => end_of(path).doing(|| format!("reading {}", path.display())),
    }
}

/// What the agent answers; one that does not in time is left behind with its thread.
fn ask(paths: &Paths, request: &Request) -> Result<Vec<u8>, Fault> {
    let (sender, answered) = mpsc::channel();
    let (paths, request) = (paths.clone(), request.clone());
    thread::spawn(move || sender.send(converse(&paths, &request)));
    let late = |_| Fault::new(format!("the agent did not answer within {LIMIT} s"));
    answered.recv_timeout(Duration::from_secs(LIMIT)).map_err(late)?
}

fn converse(paths: &Paths, request: &Request) -> Result<Vec<u8>, Fault> {
    let mut asker = Asker::connect(paths)?;
    let mut answer = asker.ask(request)?;
    let mut text = String::new();
    loop {
        match answer {
            Answer::Event(event) => text.push_str(&(event.to_line() + "\n")),
            Answer::Status(status) => return Ok(serde_json::to_vec_pretty(&status)?),
            Answer::Plan(plan) | Answer::Text(plan) => return Ok(plan.into_bytes()),
            _ => return Ok(text.into_bytes()),
        }
        answer = asker.more()?;
    }
}

/// What a program prints, with its complaints behind it.
fn output(argv: &[String]) -> Result<Vec<u8>, Fault> {
    let limit = LIMIT.to_string();
    let ended = Command::new("timeout")
        .args(["-k", "5", &limit])
        .args(argv)
        // Programs of the system's administration are not found by ordinary users.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .doing(|| "starting timeout")?;
    let complaint = String::from_utf8_lossy(&ended.stderr);
    if ended.stdout.is_empty() && !ended.status.success() {
        return Err(Fault::new(format!("{} ended with {}: {}", argv[0], ended.status, complaint.trim())));
    }
    let mut all = ended.stdout;
    let most = usize::try_from(MOST)?;
    all.drain(..all.len().saturating_sub(most));
    all.extend(complaint.bytes());
    Ok(all)
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MOST {
        file.seek(SeekFrom::Start(length - MOST))?;
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_a_bundle_that_needs_no_agent() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHplanted\n-----END PRIVATE KEY-----\n";
        let token = "5eed".repeat(16);
        let hash = "$6$planted$0123456789012345678901";
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        let node: NodeName = "node1".parse().expect("a name");
        write(paths.state.join("authority/ca.key"), key);
        write(paths.state.join("authority/view.key"), "viewkeyviewkeyviewkey");
        write(paths.site().join("site.toml"), include_str!("../../../../site-templates/minimal/site.toml"));
        write(
            paths.site().join("lcfg/source/node1"),
            &format!("auth.rootpwd {hash}\nldap.password hunter-planted\nhello world\n"),
        );
        write(paths.site().join("files/host/key.pem"), key);
        write(paths.stores(&node).join("disk0"), "planted");
        let console =
            format!("before\n{key}token {token}\nhttps://h/status?key=viewkeyviewkeyviewkey\nlast words\n");
        write(paths.console_log(&node), &console);
        write(paths.install_log(&node), &console);
        write(dir.path().join("agent.log"), &console);

        let mut bytes = Vec::new();
        let contents = bundle(&paths, "x", &mut bytes).expect("written");
        let mut all = String::new();
        let mut archive = tar::Archive::new(zstd::Decoder::new(&bytes[..]).expect("zstd"));
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("whole");
            let name = entry.path().expect("a name").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("a text");
            all.extend([name, text, "\n".to_owned()]);
        }
        for secret in ["planted", token.as_str(), "viewkeyviewkey", "0123456789012345"] {
            assert!(!all.contains(secret), "{secret} is in the bundle");
        }
        for there in ["x/nodes/node1/console.log", "last words", "hello world", "x/machine/mounts.txt"] {
            assert!(all.contains(there), "{there} is missing");
        }
        let left: Vec<&str> = contents.left_out.iter().map(|left| left.name.as_str()).collect();
        assert!(left.contains(&"agent/status.json") && left.contains(&"site/files/host/key.pem"), "{left:?}");
        assert!(
            contents.inside.iter().any(|inside| inside.name == "journal/trial.txt" && inside.removed >= 3)
        );
    }
}
