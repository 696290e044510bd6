//! The agent's part of backups: it knows what runs, has nodes hold still, and puts in place what was restored.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatehouse_model::site::{Node, SiteFile};
use gatehouse_model::{Digest, Doing as _, Exit, Fault, NodeName, Refusal, Site, Size, State};

use super::manifest::{Manifest, NodeBackup, Of, SCHEMA, Store, Wholeness};
use super::ranges;
use super::snapshot::{self, Snapshot, how};
use super::swap::Places;
use crate::control::Backups;
use crate::control::board::{Board, NodeState, now_millis};
use crate::current::Current;
use crate::host::lifecycle::record::Record;
use crate::host::lifecycle::{Lifecycle, room};
use crate::paths::Paths;
use crate::server::orders::Orders;
use crate::vmm::Power;
use crate::wire::{Order, Outcome};

/// How long a node may take to hold still once it is asked to, and to go on.
const FREEZING: Duration = Duration::from_secs(20);
const THAWING: Duration = Duration::from_secs(10);
/// After how many seconds a node goes on by itself: where its stores' blocks are shared, which takes no time, and where
/// they are copied.
const SHARED_SECONDS: u16 = 10;
const COPIED_SECONDS: u16 = 40;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    current: Arc<Current>,
    paths: Paths,
    board: Arc<Board>,
    orders: Arc<Orders>,
    lifecycle: Arc<Lifecycle>,
    authority: Digest,
}

/// A snapshot with what is to be said of it.
#[derive(Debug)]
pub struct Taken {
    /// What a backup of it begins with.
    pub manifest: Manifest,
    /// The stores.
    pub snapshot: Snapshot,
}

/// A place for a node's disks that come in; thrown away with what is in it unless it is put in place.
#[derive(Debug)]
pub struct Reception {
    places: Places,
    node: NodeBackup,
    made: u64,
    kept: bool,
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.kept {
            self.places.discard();
        }
    }
}

impl Backups for Desk {
    fn snapshot(&self, name: &NodeName, torn: bool) -> Result<Taken, Fault> {
        let (node, places) = self.lifecycle.places(name)?;
        let record = self.lifecycle.record(name)?;
        let record = record.filter(|_| !places.waits()).ok_or_else(|| {
            Refusal::new(format!("{name} has no disks that could be backed up"), "wait until it is installed")
        })?;
        let snapshot = Snapshot::prepare(&self.paths, name)?;
        let state = self.take(&node, &snapshot, torn).doing(|| format!("taking a snapshot of {name}"))?;
        let stores = vec![store(&snapshot, "disk0")?];
        let site = self.current.get();
        let node = NodeBackup {
            name: name.clone(),
            vmm: self.lifecycle.driver().kind(),
            node: self.section(name)?,
            mac: node.mac,
            record,
            state,
            stores,
        };
        Ok(Taken { manifest: self.manifest(&site.site, Of::Node(node)), snapshot })
    }

    fn receive(&self, name: &NodeName, manifest: &Manifest, replace: bool) -> Result<Reception, Fault> {
        let (node, places) = self.lifecycle.places(name)?;
        let has = self.lifecycle.has_disks(name) && !replace;
        let backup = fits(manifest, &node, self.authority, has)?.clone();
        room::check_for(&self.paths.vms, manifest.data())?;
        places.receive()?;
        Ok(Reception { places, node: backup, made: manifest.made, kept: false })
    }

    fn put(&self, mut reception: Reception) -> Result<(), Fault> {
        let name = reception.node.name.clone();
        let record = Record { restored: Some(reception.made), ..reception.node.record.clone() };
        let record = serde_json::to_vec_pretty(&record).doing(|| "writing installed.json")?;
        reception.places.commit(&record)?;
        reception.kept = true;
        self.board.say(&format!("node/{name}"), "restoring", State::Started, "");
        self.lifecycle.start_restored(&name)
    }
}

impl Reception {
    /// Where the disks go, as files of their stores' names.
    pub fn dir(&self) -> PathBuf {
        self.places.restoring().join("fs")
    }
}

impl Desk {
    /// A desk for these nodes, which believe an authority whose certificate has this SHA-256. What an agent has left that
    /// is gone is removed.
    pub fn open(
        current: &Arc<Current>,
        paths: &Paths,
        board: &Arc<Board>,
        orders: Arc<Orders>,
        lifecycle: &Arc<Lifecycle>,
        authority: Digest,
    ) -> Self {
        for node in current.get().site.vms() {
            snapshot::clear(paths, &node.name);
            Places::of(paths, &node.name).discard();
        }
        let (current, board, lifecycle) = (Arc::clone(current), Arc::clone(board), Arc::clone(lifecycle));
        Self { current, paths: paths.clone(), board, orders, lifecycle, authority }
    }

    /// What a backup begins with.
    fn manifest(&self, site: &Site, of: Of) -> Manifest {
        Manifest {
            schema: SCHEMA,
            made: now_millis(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            site: format!("{}.{}", site.name, site.domain),
            authority: self.authority,
            of,
        }
    }

    fn section(&self, name: &NodeName) -> Result<serde_json::Value, Fault> {
        let path = self.paths.site().join("site.toml");
        let text = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        let file = SiteFile::parse(&text).map_err(Fault::of_problems)?;
        let section = file.node.into_iter().find(|section| section.name == name.as_str());
        serde_json::to_value(section).doing(|| "writing the manifest")
    }

    fn take(&self, node: &Node, snapshot: &Snapshot, torn: bool) -> Result<Wholeness, Fault> {
        let name = &node.name;
        let store = self.paths.stores(name).join("disk0");
        let file = fs::File::open(&store).doing(|| format!("opening {}", store.display()))?;
        let data = ranges::total(&ranges::of_file(&file).doing(|| format!("reading {}", store.display()))?);
        if !snapshot.shares() {
            room::check_for(&self.paths.vms, data)?;
        }
        let power = || self.lifecycle.driver().power(name);
        let runs = power()? == Power::On;
        let shown = self.board.node(name).map(|status| status.state);
        let answers = matches!(shown, Some(NodeState::Running | NodeState::Ailing));
        let how = how(runs, answers, snapshot.shares(), data);
        let frozen = if how.freeze { self.freeze(name, snapshot.shares())? } else { None };
        if frozen.is_none() {
            allowed(name, how.otherwise, torn)?;
        }
        let added = snapshot.add(&store);
        let held = frozen.is_some_and(|frozen| self.thaw(name, frozen));
        added?;
        let state = if held { Wholeness::Frozen } else { how.otherwise };
        allowed(name, state, torn)?;
        if state == Wholeness::Off && power()? == Power::On {
            return Err(Fault::new(format!("{name} was started meanwhile")).help("try again"));
        }
        Ok(state)
    }

    /// Has a node hold still; none where it does not in time, which is told.
    fn freeze(&self, name: &NodeName, shares: bool) -> Result<Option<Frozen>, Fault> {
        let seconds = if shares { SHARED_SECONDS } else { COPIED_SECONDS };
        let asked = Instant::now();
        let answer = self.orders.give(name, Order::Freeze(seconds), FREEZING)?.wait(FREEZING);
        let why = match answer {
            Ok(Some(Outcome::Frozen)) => {
                let surely = asked + Duration::from_secs(seconds.into());
                return Ok(Some(Frozen { since: Instant::now(), surely }));
            }
            Ok(Some(Outcome::Failed(text))) => text,
            Ok(_) => "it has not answered".to_owned(),
            Err(fault) => fault.to_string(),
        };
        self.board.say(&format!("node/{name}"), "freezing", State::Failed, why);
        Ok(None)
    }

    /// Lets a node go on; if it cannot be told, it does so by itself. Answers whether it held still until now.
    fn thaw(&self, name: &NodeName, frozen: Frozen) -> bool {
        let surely = Instant::now() < frozen.surely;
        let order = self.orders.give(name, Order::Thaw, THAWING);
        let answer = order.and_then(|pending| pending.wait(THAWING));
        let seconds = frozen.since.elapsed().as_secs_f64();
        let (state, words, held) = match answer {
            // A client that was started anew meanwhile has let go, whatever the time says.
            Ok(Some(Outcome::Thawed(held))) => (State::Succeeded, format!("{seconds:.1} s"), held),
            _ => (State::Failed, "it has not said that it goes on; it does so by itself".to_owned(), surely),
        };
        self.board.say(&format!("node/{name}"), "freezing", state, words);
        held
    }
}

/// A node that holds still.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    since: Instant,
    /// Until then in any case: its time began after it was asked.
    surely: Instant,
}

/// Whether a snapshot may be so, where somebody has said that it may be torn or not.
fn allowed(name: &NodeName, state: Wholeness, torn: bool) -> Result<(), Refusal> {
    if state != Wholeness::Torn || torn {
        return Ok(());
    }
    Err(Refusal::new(
        format!("{name} runs and does not hold still for as long as its disk takes to be copied"),
        format!("`gatectl node stop {name}` first, or say --torn to have what may not fit together"),
    ))
}

fn store(snapshot: &Snapshot, name: &str) -> Result<Store, Fault> {
    let path = snapshot.dir().join(name);
    let doing = || format!("reading {}", path.display());
    let file = fs::File::open(&path).doing(doing)?;
    let data = ranges::total(&ranges::of_file(&file).doing(doing)?);
    Ok(Store { name: name.to_owned(), bytes: file.metadata().doing(doing)?.len(), data })
}

/// Whether a backup is one of this node, and can be it here; `has` says that it has disks which must not be lost.
fn fits<'a>(
    manifest: &'a Manifest,
    node: &Node,
    authority: Digest,
    has: bool,
) -> Result<&'a NodeBackup, Fault> {
    let name = &node.name;
    let problem = |what: String, help: &str| Err(Fault::new(what).help(help).exit(Exit::Problem));
    let refusal = |what: String, help: String| Err(Refusal::new(what, help).into());
    let Of::Node(backup) = &manifest.of else {
        return problem("this is the backup of a host".into(), "use `gatectl restore` for it");
    };
    if backup.name != *name {
        let help = format!("`gatectl node restore {}`, where the site has that node", backup.name);
        return problem(format!("this is a backup of {}, not of {name}", backup.name), &help);
    }
    if manifest.authority != authority {
        return refusal(
            format!("{name} of {} believes another authority than this host's", manifest.site),
            format!(
                "bring its host here first (`gatectl restore`), or install the node anew (`gatectl node install {name}`)"
            ),
        );
    }
    if backup.mac != node.mac {
        return refusal(
            format!(
                "{name} knows its network by the mac {}, and site.toml gives it {}",
                backup.mac, node.mac
            ),
            format!("write mac = \"{}\" for it into site.toml", backup.mac),
        );
    }
    let bytes = backup.stores.iter().map(|store| store.bytes).max().unwrap_or(0);
    if bytes > node.disk.as_bytes() {
        let size = Size::bytes(bytes);
        return refusal(
            format!("the disk of {name} had {size}, and site.toml gives it {}", node.disk),
            format!("write disk = \"{size}\" or more for it into site.toml"),
        );
    }
    if has {
        return refusal(
            format!("{name} is installed here, and what is on its disks would be lost"),
            "say --replace to give it up".to_owned(),
        );
    }
    Ok(backup)
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
