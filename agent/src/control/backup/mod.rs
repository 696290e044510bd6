//! `gatectl`'s commands for backups.

mod bar;
mod host;
mod node;
pub(super) mod place;

use std::fs::File;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use gatehouse_model::{Doing as _, Exit, Fault, NodeName};
use serde_json::json;

use self::bar::{Bar, Interrupt};
use self::host::Became;
use self::node::Done;
use self::place::Place;
use super::ctl::print;
use crate::host::backup::manifest::{Manifest, Of, Wholeness};
use crate::host::backup::reader::{self, Take};
use crate::paths::Paths;

/// What stays of a backup that is given up.
const NOTHING: &str = "nothing of it is left";

/// `gatectl node backup`.
#[derive(Args, Clone, Debug)]
pub struct NodeBackupControl {
    /// The node's name
    node: NodeName,
    /// Where to: a file, `ssh://user@host/path`, or - for standard output
    #[arg(long, short, value_name = "FILE|ssh://…|-")]
    output: Place,
    /// Also where the node runs, does not hold still, and its disk cannot be had at one instant
    #[arg(long)]
    torn: bool,
    /// What became of it as JSON
    #[arg(long)]
    json: bool,
}

/// `gatectl node restore`.
#[derive(Args, Clone, Debug)]
pub struct NodeRestoreControl {
    /// The node's name
    node: NodeName,
    /// Its backup: a file, `ssh://user@host/path`, or - for standard input
    #[arg(value_name = "FILE|ssh://…|-")]
    from: Place,
    /// Give up what is on its disks now
    #[arg(long)]
    replace: bool,
    /// What became of it as JSON
    #[arg(long)]
    json: bool,
}

/// `gatectl backup`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[allow(clippy::struct_excessive_bools, reason = "each is a word on the command line")]
pub struct BackupOptions {
    /// What makes this host this host: its authorities, keys and site; encrypted to backup.recipient
    #[arg(long, required_unless_present = "all")]
    host: bool,
    /// The host and every installed node, into a directory
    #[arg(long, conflicts_with = "host")]
    all: bool,
    /// Where to: a file, `ssh://user@host/path`, or - for standard output; with --all a directory
    #[arg(long, short, value_name = "FILE|DIR|ssh://…|-", required = true)]
    output: Option<Place>,
    /// With --all: also nodes that do not hold still, and whose disks cannot be had at one instant
    #[arg(long, requires = "all")]
    torn: bool,
    /// What became of it as JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Look at a backup instead
    #[command(subcommand)]
    command: Option<BackupControl>,
}

/// `gatectl restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreOptions {
    /// The host's backup: a file, `ssh://user@host/path`, or - for standard input; or a directory of `gatectl backup --all`,
    /// whose nodes are restored too
    #[arg(value_name = "FILE|DIR|ssh://…|-")]
    from: Place,
    /// The file with the secret key that the backup of the host is read with
    #[arg(long, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// Give up what the nodes have that this host serves now
    #[arg(long)]
    replace: bool,
    /// What became of it as JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// The commands of `gatectl backup`.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupControl {
    /// What a backup says of itself
    Inspect {
        /// The backup: a file, `ssh://user@host/path`, or - for standard input
        #[arg(value_name = "FILE|ssh://…|-")]
        from: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a backup to its end and compare every digest
    Verify {
        /// The backup: a file, `ssh://user@host/path`, or - for standard input
        #[arg(value_name = "FILE|ssh://…|-")]
        from: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Backs a node up.
pub(super) fn back_up_node(paths: &Paths, options: &NodeBackupControl) -> Result<(), Fault> {
    one_or_the_other(&options.output, options.json)?;
    let place = (&options.output, options.torn);
    let work = |interrupt: &Interrupt| node::backup(paths, &options.node, place, interrupt);
    let done = Interrupt::during(NOTHING, work)?;
    show_written(&done, &options.output, options.json)
}

fn one_or_the_other(place: &Place, as_json: bool) -> Result<(), Fault> {
    if *place == Place::Pipe && as_json {
        return Err(Fault::new("standard output takes either the backup or JSON")
            .help("leave out --json, or name a file with -o")
            .exit(Exit::Problem));
    }
    Ok(())
}

fn show_written(done: &Done, place: &Place, as_json: bool) -> Result<(), Fault> {
    if *place == Place::Pipe {
        eprint!("{}", done.line("is in"));
        return Ok(());
    }
    show(done, "is in", as_json)
}

/// Restores a node.
pub(super) fn restore_node(paths: &Paths, options: &NodeRestoreControl) -> Result<(), Fault> {
    let place = (&options.from, options.replace);
    let work = |interrupt: &Interrupt| node::restore(paths, &options.node, place, interrupt);
    let done = Interrupt::during("what has not come in whole is thrown away", work)?;
    if done.state == Some(Wholeness::Torn) {
        eprintln!("what this backup holds may not fit together: {}", Wholeness::Torn);
    }
    show(&done, "is restored from", options.json)
}

/// Backs up the host, or all; or looks at a backup.
pub(super) fn run(paths: &Paths, options: &BackupOptions) -> Result<(), Fault> {
    match (&options.command, &options.output) {
        (Some(BackupControl::Inspect { from, json }), _) => inspect(from, *json),
        (Some(BackupControl::Verify { from, json }), _) => verify(from, *json),
        (None, Some(Place::File(dir))) if options.all => {
            let mut tell = |done: &Done| show(done, "is in", options.json);
            Interrupt::during("what is told to be in the directory is whole", |interrupt| {
                host::back_up_all(paths, (dir, options.torn), interrupt, &mut tell)
            })
        }
        (None, Some(place)) if options.all => {
            Err(Fault::new(format!("{place} is no directory")).help("name one with -o").exit(Exit::Problem))
        }
        (None, Some(place)) => {
            one_or_the_other(place, options.json)?;
            let done = Interrupt::during(NOTHING, |interrupt| host::back_up(paths, place, interrupt))?;
            show_written(&done, place, options.json)
        }
        (None, None) => {
            Err(Fault::new("where to is not said").help("name a file with -o").exit(Exit::Problem))
        }
    }
}

/// Restores a host, and its nodes from a directory.
pub(super) fn restore(paths: &Paths, options: &RestoreOptions) -> Result<(), Fault> {
    let dir = match &options.from {
        Place::File(path) if path.is_dir() => Some(path.as_path()),
        _ => None,
    };
    let place = dir.map_or_else(|| options.from.clone(), |dir| Place::File(host::host_in(dir)));
    let mut tell = |done: &Done| show(done, "is restored from", options.json);
    let how = host::How { replace: options.replace, go_on: dir.is_some() };
    match host::restore(paths, &place, options.identity.as_deref(), how)? {
        Became::It(done) => tell(&done)?,
        Became::Already => {
            let anew = if dir.is_none() { "; --replace restores it anew" } else { "" };
            eprintln!("this machine is that host already, and nothing of it is changed{anew}");
        }
        Became::Later(done) => {
            tell(&done)?;
            eprintln!(
                "stop the trial and start it again with --resume: it is this host then, and waits for its nodes' backups"
            );
            return Ok(());
        }
    }
    if let Some(dir) = dir {
        return Interrupt::during("the same command goes on", |interrupt| {
            host::restore_nodes(paths, (dir, options.replace), interrupt, &mut tell)
        });
    }
    eprintln!(
        "its nodes wait for their backups: `gatectl node restore NODE FILE`; start the machine again when all is there"
    );
    Ok(())
}

fn show(done: &Done, what: &str, as_json: bool) -> Result<(), Fault> {
    print(&if as_json { json!(done).to_string() + "\n" } else { done.line(what) })
}

fn inspect(from: &Place, as_json: bool) -> Result<(), Fault> {
    let manifest = reader::read_head(from.read()?).doing(|| format!("reading {from}"))?;
    if as_json {
        return print(&(json!(manifest).to_string() + "\n"));
    }
    print(&describe(&manifest))
}

fn describe(manifest: &Manifest) -> String {
    let made = std::time::UNIX_EPOCH + std::time::Duration::from_millis(manifest.made);
    let mut lines = vec![
        format!("{} of {}", manifest.subject(), manifest.site),
        format!("made      {} by agent {}", httpdate::fmt_http_date(made), manifest.agent),
        format!("authority {}", manifest.authority.short()),
    ];
    match &manifest.of {
        Of::Node(node) => {
            lines.push(format!("vmm       {}", node.vmm));
            lines.push(format!("profile   {}", node.record.profile));
            lines.push(format!("state     {}", node.state));
            lines.extend(node.stores.iter().map(|store| {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                format!("{:9} {} MiB, {} MiB of data", store.name, mib(store.bytes), mib(store.data))
            }));
        }
        Of::Host(host) => {
            let names: Vec<String> = host.nodes.iter().map(ToString::to_string).collect();
            lines.push(format!("nodes     {}", names.join(", ")));
        }
    }
    lines.join("\n") + "\n"
}

fn verify(from: &Place, as_json: bool) -> Result<(), Fault> {
    let begun = std::time::Instant::now();
    let whole = Interrupt::during("nothing was found to be wrong until there", |interrupt| {
        let mut looking = Looking { bar: None, interrupt: interrupt.clone() };
        reader::read(from.read()?, &mut looking).doing(|| format!("verifying {from}"))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let done = Done { seconds, digest: whole.digest.to_string(), ..Done::of(&whole.manifest, from) };
    show(&done, "is whole in", as_json)
}

/// Who only looks.
struct Looking {
    bar: Option<Bar>,
    interrupt: Interrupt,
}

impl Take for Looking {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Fault> {
        self.bar = Some(Bar::begin(manifest.subject(), manifest.data(), self.interrupt.clone())?);
        Ok(())
    }

    fn store(&mut self, _: &str) -> Result<Option<File>, Fault> {
        Ok(None)
    }

    fn file(&mut self, _: &str, _: u32, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn tell(&mut self, bytes: u64) -> Result<(), Fault> {
        self.bar.as_mut().map_or(Ok(()), |bar| bar.advance(bytes))
    }
}
