//! A node's stores as they were at one instant, beside the node that goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gatehouse_model::{Doing as _, Fault, NodeName};

use super::manifest::Wholeness;
use super::ranges;
use crate::host::sys;
use crate::paths::Paths;

/// How much is copied while a node waits, where its filesystem is one whose files cannot share blocks: two seconds of
/// an ordinary disk for each 200 MiB.
const FROZEN_COPY: u64 = 2 << 30;

/// A directory with the stores as they were; gone when this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    dir: PathBuf,
    /// Whether its files share blocks with the stores, so that they are of one instant.
    shares: bool,
}

/// How a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Whether the node is asked to wait meanwhile.
    pub freeze: bool,
    /// What comes of it where the node did not wait.
    pub otherwise: Wholeness,
}

/// How a snapshot of so many bytes of data is made: of a node that runs, and answers; of stores that share blocks.
pub fn how(runs: bool, answers: bool, shares: bool, data: u64) -> How {
    let otherwise = match (runs, shares) {
        (false, _) => Wholeness::Off,
        (true, true) => Wholeness::PowerCut,
        (true, false) => Wholeness::Torn,
    };
    How { freeze: runs && answers && (shares || data <= FROZEN_COPY), otherwise }
}

/// Where a node's snapshot is.
fn dir(paths: &Paths, node: &NodeName) -> PathBuf {
    paths.vms.join(node.as_str()).join("snapshot")
}

/// Removes a snapshot that an agent has left that is gone.
pub fn clear(paths: &Paths, node: &NodeName) {
    // One that cannot be removed is in the way of the next, which then says so.
    let _ = fs::remove_dir_all(dir(paths, node));
}

impl Snapshot {
    /// Makes room for one, and finds out how it can be made.
    ///
    /// # Errors
    /// There is one: another backup of the node is being made.
    pub fn prepare(paths: &Paths, node: &NodeName) -> Result<Self, Fault> {
        let dir = dir(paths, node);
        fs::create_dir(&dir).doing(|| format!("making {}", dir.display())).map_err(|fault| {
            fault.help("wait until the other backup of this node is made; each node has one at a time")
        })?;
        let mut made = Self { dir, shares: false };
        made.shares = made.can_share().doing(|| format!("writing to {}", made.dir.display()))?;
        Ok(made)
    }

    fn can_share(&self) -> io::Result<bool> {
        let (one, other) = (self.dir.join("probe"), self.dir.join("probe2"));
        fs::write(&one, [1; 4096])?;
        let can = sys::clone_file(File::open(&one)?.as_fd(), File::create(&other)?.as_fd()).is_ok();
        fs::remove_file(one)?;
        fs::remove_file(other)?;
        Ok(can)
    }

    /// Whether its files will share blocks with the stores.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes a store in.
    ///
    /// # Errors
    /// The disk is full, most likely.
    pub fn add(&self, store: &Path) -> Result<(), Fault> {
        let name = store.file_name().unwrap_or_default();
        let take = || {
            let from = File::open(store)?;
            let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.dir.join(name))?;
            if self.shares { sys::clone_file(from.as_fd(), to.as_fd()) } else { copy(&from, &to) }
        };
        take().doing(|| format!("taking a snapshot of {}", store.display()))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // As in `clear`.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Copies what holds data.
fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    for range in ranges::of_file(from)? {
        from.seek(SeekFrom::Start(range.start))?;
        to.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut from.take(range.length), &mut to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn only_what_is_quick_is_waited_for() {
        let (little, much) = (FROZEN_COPY, FROZEN_COPY + 1);
        for (runs, answers, shares, data, freeze, otherwise) in [
            (false, false, false, much, false, Wholeness::Off),
            (true, true, true, much, true, Wholeness::PowerCut),
            (true, false, true, little, false, Wholeness::PowerCut),
            (true, true, false, little, true, Wholeness::Torn),
            (true, true, false, much, false, Wholeness::Torn),
            (true, false, false, little, false, Wholeness::Torn),
        ] {
            assert_eq!(how(runs, answers, shares, data), How { freeze, otherwise });
        }
    }

    #[test]
    fn a_snapshot_is_as_sparse_as_its_store_and_goes_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        let node: NodeName = "ce".parse().expect("a name");
        fs::create_dir_all(paths.stores(&node)).expect("made");
        let store = paths.stores(&node).join("disk0");
        fs::write(&store, [7; 10_000]).expect("written");
        File::options().write(true).open(&store).and_then(|file| file.set_len(50 << 20)).expect("long");
        {
            let snapshot = Snapshot::prepare(&paths, &node).expect("room");
            assert!(Snapshot::prepare(&paths, &node).is_err(), "one at a time");
            snapshot.add(&store).expect("taken");
            let taken = File::open(snapshot.dir().join("disk0")).expect("there");
            assert_eq!(taken.metadata().expect("there").len(), 50 << 20);
            assert!(ranges::total(&ranges::of_file(&taken).expect("read")) < 1 << 20);
            let (mut one, mut other) = ([0; 10_001], [0; 10_001]);
            taken.read_exact_at(&mut one, 0).expect("read");
            File::open(&store).and_then(|file| file.read_exact_at(&mut other, 0)).expect("read");
            assert!(one == other);
        }
        assert!(!paths.vms.join("ce/snapshot").exists());
    }
}
