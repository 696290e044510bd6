//! How what was restored takes the place of what was there: step by step, each seen from what is on the disk, so that
//! whatever a power cut leaves is gone on with.
//!
//! ```text
//! restoring/{fs,installed.json}  what comes in; worth nothing
//! restored/{fs,installed.json}   whole, and checked: it counts from the rename on
//! fs, conf/installed.json        the node
//! replaced/                      what was there before, with its record; gone once the node is up
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Exit, Fault, NodeName};

use crate::paths::Paths;

/// The record's name, wherever it is.
const RECORD: &str = "installed.json";

/// What is there of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a file that is there or not")]
struct Seen {
    /// Something restored waits.
    restored: bool,
    /// Its stores are not in place yet.
    restored_fs: bool,
    /// The node's stores are there.
    fs: bool,
    /// Its record is.
    record: bool,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Put the old record to the old stores.
    KeepRecord,
    /// Put the old stores aside.
    KeepStores,
    /// Put the restored stores in place.
    PutStores,
    /// Put their record in place.
    PutRecord,
}

fn next(seen: Seen) -> Option<Step> {
    match seen {
        Seen { restored: false, .. } => None,
        Seen { restored_fs: true, fs: true, record: true, .. } => Some(Step::KeepRecord),
        Seen { restored_fs: true, fs: true, .. } => Some(Step::KeepStores),
        Seen { restored_fs: true, .. } => Some(Step::PutStores),
        Seen { .. } => Some(Step::PutRecord),
    }
}

/// The places of one node's.
#[derive(Debug)]
pub struct Places {
    node: PathBuf,
    conf: PathBuf,
    fs: PathBuf,
}

impl Places {
    /// Those of a node.
    pub fn of(paths: &Paths, node: &NodeName) -> Self {
        Self { node: paths.vms.join(node.as_str()), conf: paths.conf(node), fs: paths.stores(node) }
    }

    fn restored(&self) -> PathBuf {
        self.node.join("restored")
    }

    fn replaced(&self) -> PathBuf {
        self.node.join("replaced")
    }

    /// Where what comes in is put.
    pub fn restoring(&self) -> PathBuf {
        self.node.join("restoring")
    }

    /// Whether something restored waits to take its place.
    pub fn waits(&self) -> bool {
        self.restored().is_dir()
    }

    /// Makes an empty place for what comes in.
    ///
    /// # Errors
    /// Something restored waits already, or comes in; the disk is full.
    pub fn receive(&self) -> Result<PathBuf, Fault> {
        let busy = |what: &str, help: &str| Err(Fault::new(what).help(help).exit(Exit::InUse));
        if self.waits() {
            return busy(
                "what was restored last has not taken its place yet",
                "wait until the node has stopped, and try again",
            );
        }
        let dir = self.restoring();
        let made = fs::create_dir_all(&self.node).and_then(|()| fs::create_dir(&dir));
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            return busy("the node is being restored", "wait until that restore has ended");
        }
        let fs = dir.join("fs");
        made.and_then(|()| fs::create_dir(&fs)).doing(|| format!("making {}", fs.display()))?;
        Ok(fs)
    }

    /// Throws away what came in.
    pub fn discard(&self) {
        // What stays is in the way of the next restore until the agent starts anew.
        let _ = fs::remove_dir_all(self.restoring());
    }

    /// Makes what came in count, with this record; all of it is on the disk before.
    ///
    /// # Errors
    /// The disk is full.
    pub fn commit(&self, record: &[u8]) -> Result<(), Fault> {
        let from = self.restoring();
        let doing = || format!("writing to {}", from.display());
        crate::host::files::write_whole(&from.join(RECORD), record, 0o644)?;
        sync(&from.join("fs")).and_then(|()| sync(&from)).doing(doing)?;
        // Of before the restore before this one.
        remove(&self.replaced())?;
        fs::rename(&from, self.restored()).and_then(|()| sync(&self.node)).doing(doing)
    }

    /// Puts what waits in place. The node must be off.
    ///
    /// # Errors
    /// A file cannot be moved; what is done stays done, and the next call goes on.
    pub fn take_up(&self) -> Result<(), Fault> {
        while let Some(step) = next(self.seen()) {
            self.act(step)
                .doing(|| format!("putting what was restored in place of {}", self.node.display()))?;
        }
        Ok(())
    }

    /// Throws away what was there before. Answers whether there was something.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn settle(&self) -> Result<bool, Fault> {
        let was = self.replaced().exists();
        remove(&self.replaced())?;
        Ok(was)
    }

    fn seen(&self) -> Seen {
        let restored = self.restored();
        Seen {
            restored: restored.is_dir(),
            restored_fs: restored.join("fs").is_dir(),
            fs: self.fs.is_dir(),
            record: self.conf.join(RECORD).exists(),
        }
    }

    fn act(&self, step: Step) -> io::Result<()> {
        let (restored, own) = (self.restored(), self.conf.join(RECORD));
        match step {
            Step::KeepRecord => fs::rename(&own, self.fs.join(RECORD))?,
            Step::KeepStores => fs::rename(&self.fs, self.replaced())?,
            Step::PutStores => fs::rename(restored.join("fs"), &self.fs)?,
            Step::PutRecord => {
                fs::create_dir_all(&self.conf)?;
                let record = restored.join(RECORD);
                if record.exists() {
                    fs::rename(record, &own)?;
                    sync(&self.conf)?;
                }
                fs::remove_dir(&restored)?;
            }
        }
        sync(&self.node)
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove(dir: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &Path) -> Places {
        Places::of(&Paths::trial(dir, dir), &"ce".parse().expect("a name"))
    }

    fn text(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    /// A node with old disks, or some of it, and something that came in whole.
    fn begin(places: &Places, fs_there: bool, record: bool) {
        if fs_there {
            fs::create_dir_all(&places.fs).expect("made");
            fs::write(places.fs.join("disk0"), "old").expect("written");
        }
        fs::create_dir_all(&places.conf).expect("made");
        if record {
            fs::write(places.conf.join(RECORD), "old record").expect("written");
        }
        let fs = places.receive().expect("room");
        fs::write(fs.join("disk0"), "new").expect("written");
    }

    #[test]
    fn a_cut_at_any_moment_leaves_the_old_node_or_the_new_one() {
        for (fs_there, record) in [(true, true), (true, false), (false, false)] {
            for cut in 0..6 {
                let dir = tempfile::tempdir().expect("a directory");
                let places = places(dir.path());
                begin(&places, fs_there, record);
                // Before it counts, the old node is as it was.
                let old = (text(places.fs.join("disk0")), text(places.conf.join(RECORD)));
                assert!(next(places.seen()).is_none());
                assert_eq!(old.1, if record { "old record" } else { "" });
                places.commit(b"new record").expect("committed");
                for _ in 0..cut {
                    if let Some(step) = next(places.seen()) {
                        places.act(step).expect("done");
                    }
                }
                // Whoever looks now goes on.
                places.take_up().expect("gone on with");
                let new = (text(places.fs.join("disk0")), text(places.conf.join(RECORD)));
                assert_eq!(new, ("new".into(), "new record".into()), "{fs_there} {record} {cut}");
                let kept = [text(places.replaced().join("disk0")), text(places.replaced().join(RECORD))];
                let expected = if fs_there { "old" } else { "" };
                assert_eq!(kept, [expected, if record { "old record" } else { "" }]);
                assert!(!places.waits());
                assert_eq!(places.settle().expect("settled"), fs_there);
                assert!(!places.replaced().exists());
            }
        }
    }

    #[test]
    fn what_came_in_in_part_is_worth_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = places(dir.path());
        begin(&places, true, true);
        places.take_up().expect("nothing to do");
        assert_eq!(text(places.fs.join("disk0")), "old");
        assert!(places.receive().is_err(), "one at a time");
        places.discard();
        assert!(!places.restoring().exists());
        begin(&places, true, true);
        places.commit(b"x").expect("committed");
        assert!(places.receive().is_err(), "it must take its place first");
    }
}
