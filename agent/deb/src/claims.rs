//! Who put what where: lets packages be unpacked at the same time with a result that depends on their order alone.
//!
//! A claim is looked up and its file made under one lock, so a name in the tree and its claim never disagree;
//! contents are written afterwards, to a file that may by then have lost its name.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gatehouse_model::{Doing, Fault};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

const SHARDS: usize = 64;

/// Owner, mode and time of something in the tree.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime: u64,
}

impl Meta {
    /// Gives a path that is no link its owner, mode and time.
    pub fn apply(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))?;
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        self.apply_time(path)
    }

    /// Gives a path, link or not, its time.
    pub fn apply_time(&self, path: &Path) -> io::Result<()> {
        let time = TimeSpec::new(i64::try_from(self.mtime).unwrap_or(i64::MAX), 0);
        Ok(utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }
}

/// What somebody wants to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A symbolic link; gives way to a directory.
    Link,
    /// Anything else but a directory.
    File,
}

#[derive(Debug)]
enum Held {
    /// `made` by us; then the lowest claimant's entry says what it looks like.
    Directory {
        made: bool,
        meta: Option<(usize, Meta)>,
    },
    Name,
}

#[derive(Debug)]
struct Claim {
    held: Held,
    winner: usize,
    others: Vec<usize>,
    /// Directory for one, link for another, and which came first depends on the scheduler.
    clash: bool,
    /// Placed before the parallel part began.
    settled: bool,
    /// It took the place of a file that was there before.
    replaced: bool,
}

impl Claim {
    fn new(held: Held, winner: usize) -> Self {
        Self { held, winner, others: Vec::new(), clash: false, settled: false, replaced: false }
    }
}

/// A path that more than one package, or a package and the tree before it, have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contest {
    pub path: PathBuf,
    pub winner: usize,
    pub losers: Vec<usize>,
    pub clash: bool,
    pub replaced: bool,
}

/// All claims of one run over one root.
#[derive(Debug)]
pub struct Claims {
    root: PathBuf,
    shards: Vec<Mutex<HashMap<PathBuf, Claim>>>,
}

impl Claims {
    /// Starts with no claims.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The root that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn shard(&self, key: &Path) -> MutexGuard<'_, HashMap<PathBuf, Claim>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let number = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        // A claim is inserted whole, so a panic elsewhere leaves nothing half done.
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a directory, or leaves the one that is there. `key` has real directories above it.
    pub fn directory(&self, key: &Path, entry: Option<(usize, Meta)>) -> Result<(), Fault> {
        let mut shard = self.shard(key);
        let by = entry.map_or(usize::MAX, |(by, _)| by);
        let path = self.root.join(key);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).doing(|| format!("making directory /{}", key.display()))?;
                shard.insert(key.to_owned(), Claim::new(Held::Directory { made: true, meta: entry }, by));
                return Ok(());
            }
            found => found.doing(|| format!("looking at /{}", key.display()))?,
        };
        if !found.is_dir() && !found.is_symlink() {
            return Err(Fault::new(format!("/{} is there and is not a directory", key.display())));
        }
        match shard.get_mut(key) {
            Some(Claim { held: Held::Directory { made: true, meta }, .. }) => {
                let lower = meta.is_none_or(|(first, _)| by < first);
                if lower && entry.is_some() {
                    *meta = entry;
                }
            }
            Some(claim) if matches!(claim.held, Held::Name) && claim.winner != by && !claim.settled => {
                claim.clash = true;
                claim.others.push(by);
            }
            None if found.is_dir() => {
                shard.insert(key.to_owned(), Claim::new(Held::Directory { made: false, meta: None }, by));
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Makes a file called `suffix` behind its claimed name, unless a later package has the claim.
    ///
    /// `make` must fail with `AlreadyExists` where something is, and leave it alone.
    pub fn place<T>(
        &self,
        (key, suffix): (&Path, &str),
        by: usize,
        shape: Shape,
        make: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<Option<T>, Fault> {
        let mut shard = self.shard(key);
        let earlier = shard.get_mut(key);
        if let Some(claim) = earlier {
            if let Held::Directory { made, .. } = claim.held {
                if shape == Shape::File {
                    return Err(Fault::new(format!("/{} is there and is a directory", key.display())));
                }
                claim.clash |= made && !claim.settled;
                claim.others.push(by);
                return Ok(None);
            }
            if claim.winner != by {
                claim.others.push(by.min(claim.winner));
            }
            if claim.winner > by {
                return Ok(None);
            }
            claim.winner = by;
            claim.held = Held::Name;
            return Ok(self.make(key, suffix, shape, make)?.0);
        }
        let (placed, replaced) = self.make(key, suffix, shape, make)?;
        let directory = Held::Directory { made: false, meta: None };
        let mut claim = Claim::new(if placed.is_some() { Held::Name } else { directory }, by);
        claim.replaced = replaced;
        shard.insert(key.to_owned(), claim);
        Ok(placed)
    }

    fn make<T>(
        &self,
        key: &Path,
        suffix: &str,
        shape: Shape,
        make: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<(Option<T>, bool), Fault> {
        let mut path = self.root.join(key).into_os_string();
        path.push(suffix);
        let path = PathBuf::from(path);
        let first = make(&path);
        if !matches!(&first, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            return Ok((Some(first.doing(|| format!("making /{}{suffix}", key.display()))?), false));
        }
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            return match shape {
                Shape::Link => Ok((None, false)),
                Shape::File => Err(Fault::new(format!("/{} is there and is a directory", key.display()))),
            };
        }
        let again = fs::remove_file(&path).and_then(|()| make(&path));
        Ok((Some(again.doing(|| format!("replacing /{}{suffix}", key.display()))?), true))
    }

    /// Ends the serial part: what was placed so far is there for every later package.
    pub fn settle(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values_mut().for_each(|claim| claim.settled = true);
        }
    }

    /// Gives directories their looks, once nothing more is put into them, and lists what was contested.
    pub fn finish(self) -> Result<Vec<Contest>, Fault> {
        let mut contests = Vec::new();
        for shard in self.shards {
            for (path, mut claim) in shard.into_inner().unwrap_or_else(PoisonError::into_inner) {
                if let Held::Directory { made: true, meta } = claim.held {
                    look(&self.root.join(&path), meta.map(|(_, meta)| meta))
                        .doing(|| format!("setting owner and mode of /{}", path.display()))?;
                }
                if claim.clash {
                    let all = claim.others.iter().copied().chain([claim.winner]);
                    let last = all.filter(|index| *index != usize::MAX).max();
                    claim.others.push(std::mem::replace(&mut claim.winner, last.unwrap_or(usize::MAX)));
                }
                claim.others.sort_unstable();
                claim.others.dedup();
                claim.others.retain(|other| *other != claim.winner);
                if !claim.others.is_empty() || claim.replaced {
                    let Claim { winner, others: losers, clash, replaced, .. } = claim;
                    contests.push(Contest { path, winner, losers, clash, replaced });
                }
            }
        }
        contests.sort_unstable();
        Ok(contests)
    }
}

/// A directory that no package has an entry for is made as dpkg's own are; its time stays.
fn look(path: &Path, meta: Option<Meta>) -> io::Result<()> {
    match meta {
        Some(meta) => meta.apply(path),
        None => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
    }
}
