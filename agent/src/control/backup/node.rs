//! `gatectl node backup` and `restore`: the data goes between this program and the files; the agent has the node hold
//! still, and puts in place what came in.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use gatehouse_model::{Doing as _, Exit, Fault, NodeName};
use serde::Serialize;

use super::bar::{Bar, Interrupt};
use super::place::{Out, Place};
use crate::control::ctl::other_answer;
use crate::control::request::{Answer, Request};
use crate::control::socket::Asker;
use crate::host::backup::manifest::{Manifest, Of, Wholeness};
use crate::host::backup::ranges;
use crate::host::backup::reader::{self, Take};
use crate::host::backup::writer::Writer;
use crate::paths::Paths;

/// What became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Done {
    /// The node; `host` for the host.
    pub(super) of: String,
    /// Where it is, or came from.
    pub(super) place: String,
    /// How whole what the node's stores hold is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<Wholeness>,
    /// How large its disks are, in bytes.
    pub(super) bytes: u64,
    /// How many bytes of them hold data.
    pub(super) data: u64,
    /// How many bytes the backup has; none where it was read from a pipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<u64>,
    /// How long it took.
    pub(super) seconds: f64,
    /// What names the backup.
    pub(super) digest: String,
}

impl Done {
    /// In a line for people.
    pub(super) fn line(&self, what: &str) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let state = self.state.map(|state| format!("; {state}")).unwrap_or_default();
        let written =
            self.written.map(|bytes| format!(", {} MiB compressed", mib(bytes))).unwrap_or_default();
        format!(
            "{} {what} {}: {} MiB of data{written}, in {:.1} s{state}\n",
            self.of,
            self.place,
            mib(self.data),
            self.seconds
        )
    }

    /// What a backup says of itself.
    pub(super) fn of(manifest: &Manifest, place: &Place) -> Self {
        let (of, state, bytes) = match &manifest.of {
            Of::Node(node) => {
                (node.name.to_string(), Some(node.state), node.stores.iter().map(|store| store.bytes).sum())
            }
            Of::Host(host) => ("host".to_owned(), None, host.bytes),
        };
        let data = manifest.data();
        let place = place.to_string();
        Self { of, place, state, bytes, data, written: None, seconds: 0.0, digest: String::new() }
    }
}

/// Backs a node up.
pub(super) fn backup(
    paths: &Paths,
    node: &NodeName,
    (place, torn): (&Place, bool),
    interrupt: &Interrupt,
) -> Result<Done, Fault> {
    let begun = Instant::now();
    // First: a node should not hold still for a file that cannot be written.
    let out = Out::open(place)?;
    let mut asker = Asker::connect(paths)?;
    let Answer::Snapshot { dir, manifest } = asker.ask(&Request::Snapshot { node: node.clone(), torn })?
    else {
        return Err(other_answer());
    };
    let Of::Node(backup) = &manifest.of else { return Err(other_answer()) };
    let mut bar = Bar::begin(node.to_string(), manifest.data(), interrupt.clone())?;
    let mut writer = Writer::begin(out, &manifest)?;
    for store in &backup.stores {
        let path = dir.join(&store.name);
        let doing = || format!("reading {}", path.display());
        let file = File::open(&path).doing(doing)?;
        let found = ranges::of_file(&file).doing(doing)?;
        writer.store(&format!("stores/{}", store.name), &file, &found, &mut |bytes| bar.advance(bytes))?;
    }
    let (out, digest) = writer.finish()?;
    // The snapshot is there until here.
    drop(asker);
    interrupt.check()?;
    let written = Some(out.written);
    out.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Done { written, seconds, digest: digest.to_string(), ..Done::of(&manifest, place) })
}

/// Restores a node.
pub(super) fn restore(
    paths: &Paths,
    node: &NodeName,
    (place, replace): (&Place, bool),
    interrupt: &Interrupt,
) -> Result<Done, Fault> {
    let begun = Instant::now();
    let input = place.read()?;
    let asker = Asker::connect(paths)?;
    let mut incoming =
        Incoming { asker, node: node.clone(), replace, dir: None, bar: None, interrupt: interrupt.clone() };
    let whole = reader::read(input, &mut incoming).doing(|| format!("restoring {node} from {place}"))?;
    interrupt.check()?;
    drop(incoming.bar.take());
    match incoming.asker.ask(&Request::Put)? {
        Answer::Done => {}
        _ => return Err(other_answer()),
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Done { seconds, digest: whole.digest.to_string(), ..Done::of(&whole.manifest, place) })
}

/// A node's backup on its way in.
struct Incoming {
    asker: Asker,
    node: NodeName,
    replace: bool,
    dir: Option<PathBuf>,
    bar: Option<Bar>,
    interrupt: Interrupt,
}

impl Take for Incoming {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Fault> {
        let (node, manifest_of) = (self.node.clone(), Box::new(manifest.clone()));
        let request = Request::Receive { node, manifest: manifest_of, replace: self.replace };
        match self.asker.ask(&request)? {
            Answer::Place(dir) => self.dir = Some(dir),
            _ => return Err(other_answer()),
        }
        self.bar = Some(Bar::begin(self.node.to_string(), manifest.data(), self.interrupt.clone())?);
        Ok(())
    }

    fn store(&mut self, name: &str) -> Result<Option<File>, Fault> {
        let path = self.dir.as_ref().ok_or_else(other_answer)?.join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.map(Some).doing(|| format!("making {}", path.display()))
    }

    fn file(&mut self, name: &str, _: u32, _: &[u8]) -> Result<(), Fault> {
        Err(Fault::new(format!("{name} has no place in the backup of a node")).exit(Exit::Mismatch))
    }

    fn tell(&mut self, bytes: u64) -> Result<(), Fault> {
        self.bar.as_mut().map_or(Ok(()), |bar| bar.advance(bytes))
    }
}
