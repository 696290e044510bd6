//! Unpacking data archives the way dpkg does, several packages at a time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use gatehouse_model::{Doing, Fault};
use md5::{Digest as _, Md5};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tar::{Entry, EntryType, Header};

use crate::archive::open_data;
use crate::claims::{Claims, Contest, Meta, Shape};
use crate::owners::Owners;
use crate::place::{Places, clean};
use crate::{Control, Deb};

/// A conffile waits under this name until the package is configured.
const NEW: &str = ".dpkg-new";

/// A package whose files are in the tree.
#[derive(Debug)]
pub struct Unpacked {
    /// What the package says about itself.
    pub control: Control,
    /// Paths for the package's `.list`, in the archive's order, without those another package took.
    pub files: Vec<String>,
    /// `md5sums` made on the way, for a package that brings none.
    pub md5sums: Option<String>,
    /// Paths that this package took from others, sorted.
    pub overlaps: Vec<Overlap>,
}

/// A path that two packages bring, or one that was in the tree before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The absolute path.
    pub path: String,
    /// The package that lost it; `None` where the file was in the tree before.
    pub other: Option<String>,
    /// The outcome depends on timing (a directory against a link, a hard link to a contested file): this tree
    /// must be thrown away and made by dpkg.
    pub undecided: bool,
}

/// Unpacks one package.
pub fn unpack(deb: &Path, root: &Path) -> Result<Unpacked, Fault> {
    let mut all = unpack_all(&[deb.to_owned()], root, 1, &|_, _| {})?;
    all.pop().ok_or_else(|| Fault::new("nothing was unpacked"))
}

/// Unpacks packages into a root, `base-files` first, the others on several threads; the last one in the list
/// wins a path that several bring. `progress` hears how many are done and which one just was.
pub fn unpack_all(
    debs: &[PathBuf],
    root: &Path,
    threads: usize,
    progress: &(dyn Fn(usize, &str) + Sync),
) -> Result<Vec<Unpacked>, Fault> {
    let everything: Vec<usize> = (0..debs.len()).collect();
    let controls: Vec<(usize, Control)> = controls(debs, threads)?.into_iter().enumerate().collect();
    let claims = Claims::new(root);
    let owners = {
        let mut places = Places::looking(&claims);
        let etc = root.join(places.directory(Path::new("etc"))?);
        Owners::read(&etc.join("passwd"), &etc.join("group"))?
    };
    let count = AtomicUsize::new(0);
    let work = |index: usize| {
        let name = controls[index].1.name();
        let done = Job::new(index, &controls[index].1, &claims, &owners)
            .run(&debs[index])
            .doing(|| format!("unpacking {name}"))?;
        progress(count.fetch_add(1, Ordering::Relaxed) + 1, name);
        Ok(done)
    };
    let (first, mut rest): (Vec<_>, Vec<_>) =
        everything.iter().copied().partition(|index| controls[*index].1.name() == "base-files");
    // Largest first, so that no long one is left for the end; the result does not depend on it.
    rest.sort_by_key(|index| std::cmp::Reverse(fs::metadata(&debs[*index]).map_or(0, |meta| meta.len())));
    let mut done = parallel(&first, 1, work)?;
    claims.settle();
    done.extend(parallel(&rest, threads, work)?);
    done.sort_unstable_by_key(|(index, _)| *index);
    let contests = claims.finish()?;
    Ok(settle(controls, done, &contests))
}

/// What each of some packages says about itself.
pub fn controls(debs: &[PathBuf], threads: usize) -> Result<Vec<Control>, Fault> {
    let everything: Vec<usize> = (0..debs.len()).collect();
    let all = parallel(&everything, threads, |index| Deb::open(&debs[index]).map(Deb::into_control))?;
    Ok(all.into_iter().map(|(_, control)| control).collect())
}

/// Runs `work` for every number on some threads, in the order given; the first failure stops the rest.
fn parallel<T: Send>(
    numbers: &[usize],
    threads: usize,
    work: impl Fn(usize) -> Result<T, Fault> + Sync,
) -> Result<Vec<(usize, T)>, Fault> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::with_capacity(numbers.len()));
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let result = work(*number);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((*number, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, numbers.len().max(1)) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(number, result)| result.map(|value| (number, value))).collect()
}

/// What one package's job leaves behind.
#[derive(Debug, Default)]
struct Done {
    /// Path for the list, and where it really lies.
    files: Vec<(String, PathBuf)>,
    md5sums: Option<String>,
    /// Where the targets of hard links really lie.
    linked: HashSet<PathBuf>,
}

/// Takes lost paths out of the losers' lists and tells the winners.
fn settle(controls: Vec<(usize, Control)>, done: Vec<(usize, Done)>, contests: &[Contest]) -> Vec<Unpacked> {
    let names: Vec<String> = controls.iter().map(|(_, control)| control.database_name()).collect();
    let linked: HashSet<PathBuf> = done.iter().flat_map(|(_, done)| done.linked.iter().cloned()).collect();
    let by_path: HashMap<&Path, &Contest> = contests.iter().map(|c| (c.path.as_path(), c)).collect();
    let lost =
        |index: usize, real: &Path| by_path.get(real).is_some_and(|c| !c.clash && c.losers.contains(&index));
    let mut all = Vec::with_capacity(done.len());
    for ((index, control), (_, done)) in controls.into_iter().zip(done) {
        let mine = contests.iter().filter(|contest| contest.winner == index);
        let overlaps = mine.flat_map(|contest| {
            let overlap = |other: Option<String>| Overlap {
                path: format!("/{}", contest.path.display()),
                other,
                undecided: contest.clash || (!contest.losers.is_empty() && linked.contains(&contest.path)),
            };
            let before = contest.replaced.then(|| overlap(None));
            let losers = contest.losers.iter().filter_map(|loser| names.get(*loser));
            before.into_iter().chain(losers.map(move |name| overlap(Some(name.clone())))).collect::<Vec<_>>()
        });
        let overlaps = overlaps.collect();
        let files = done.files.into_iter().filter(|(_, real)| !lost(index, real)).map(|(path, _)| path);
        all.push(Unpacked { control, files: files.collect(), md5sums: done.md5sums, overlaps });
    }
    all
}

/// One package being unpacked.
struct Job<'a> {
    index: usize,
    claims: &'a Claims,
    places: Places<'a>,
    owners: &'a Owners,
    conffiles: HashSet<PathBuf>,
    /// Digests by cleaned path, for a package without `md5sums`.
    digests: Option<HashMap<PathBuf, String>>,
    sums: String,
    done: Done,
    buffer: Vec<u8>,
}

impl<'a> Job<'a> {
    fn new(index: usize, control: &Control, claims: &'a Claims, owners: &'a Owners) -> Self {
        let conffiles = control.conffiles().into_iter().filter(|file| !file.remove_on_upgrade);
        Self {
            index,
            claims,
            places: Places::new(claims),
            owners,
            conffiles: conffiles.map(|file| PathBuf::from(file.path.trim_start_matches('/'))).collect(),
            digests: (!control.has_md5sums()).then(HashMap::new),
            sums: String::new(),
            done: Done::default(),
            buffer: vec![0; 256 * 1024],
        }
    }

    fn run(mut self, deb: &Path) -> Result<Done, Fault> {
        let mut archive = tar::Archive::new(open_data(deb)?);
        for entry in archive.entries()? {
            let mut entry = entry.doing(|| "reading the data archive")?;
            let path = clean(&entry.path_bytes())?;
            self.entry(&mut entry, &path).doing(|| format!("unpacking /{}", path.display()))?;
        }
        // Checksums stand at the end of the compressed stream, behind the archive's last block.
        io::copy(&mut archive.into_inner(), &mut io::sink()).doing(|| "reading the data archive's end")?;
        self.done.md5sums = self.digests.is_some().then_some(self.sums);
        Ok(self.done)
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), Fault> {
        if path.as_os_str().is_empty() {
            self.done.files.push(("/.".to_owned(), PathBuf::new()));
            return Ok(());
        }
        let real = self.places.entry(path)?;
        let meta = self.meta(entry.header())?;
        match entry.header().entry_type() {
            EntryType::Directory => self.claims.directory(&real, Some((self.index, meta)))?,
            EntryType::Regular | EntryType::Continuous => self.file(entry, path, &real, meta)?,
            EntryType::Symlink => self.symlink(entry, path, &real, meta)?,
            EntryType::Link => self.hard_link(entry, path, &real)?,
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                self.special(entry.header(), path, &real, meta)?;
            }
            other => return Err(Fault::new(format!("archive entries of type {other:?} are not known"))),
        }
        self.done.files.push((format!("/{}", path.display()), real));
        Ok(())
    }

    fn meta(&self, header: &Header) -> Result<Meta, Fault> {
        let number = |id: u64| u32::try_from(id).map_err(|_| Fault::new("an owner's number is too large"));
        Ok(Meta {
            uid: self.owners.user(header.username_bytes().unwrap_or_default(), number(header.uid()?)?),
            gid: self.owners.group(header.groupname_bytes().unwrap_or_default(), number(header.gid()?)?),
            mode: header.mode()? & 0o7777,
            mtime: header.mtime()?,
        })
    }

    fn suffix(&self, path: &Path) -> &'static str {
        if self.conffiles.contains(path) { NEW } else { "" }
    }

    fn file(&mut self, entry: &mut impl Read, path: &Path, real: &Path, meta: Meta) -> Result<(), Fault> {
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let made = self.claims.place((real, self.suffix(path)), self.index, Shape::File, create)?;
        let digest = self.copy(entry, made.as_ref())?;
        if let (Some(digests), Some(digest)) = (&mut self.digests, digest) {
            self.sums += &sum_line(&digest, path);
            digests.insert(path.to_owned(), digest);
        }
        let Some(file) = made else { return Ok(()) };
        fchown(&file, Some(meta.uid), Some(meta.gid)).doing(|| "setting its owner")?;
        file.set_permissions(fs::Permissions::from_mode(meta.mode)).doing(|| "setting its mode")?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(meta.mtime);
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).doing(|| "setting its time")
    }

    /// Copies an entry's contents, to nowhere if the name was lost; answers the digest if one is wanted.
    fn copy(&mut self, entry: &mut impl Read, mut file: Option<&File>) -> Result<Option<String>, Fault> {
        let mut md5 = self.digests.is_some().then(Md5::new);
        loop {
            let count = entry.read(&mut self.buffer).doing(|| "reading the data archive")?;
            if count == 0 {
                break;
            }
            let data = &self.buffer[..count];
            if let Some(md5) = &mut md5 {
                md5.update(data);
            }
            if let Some(file) = &mut file {
                file.write_all(data).doing(|| "writing")?;
            }
        }
        Ok(md5.map(hex))
    }

    fn symlink(
        &mut self,
        entry: &Entry<'_, impl Read>,
        path: &Path,
        real: &Path,
        meta: Meta,
    ) -> Result<(), Fault> {
        let target = entry.link_name_bytes().ok_or_else(|| Fault::new("the link has no target"))?;
        let make = |path: &Path| {
            symlink(std::ffi::OsStr::from_bytes(&target), path)?;
            lchown(path, Some(meta.uid), Some(meta.gid))?;
            meta.apply_time(path)
        };
        self.claims.place((real, self.suffix(path)), self.index, Shape::Link, make).map(|_| ())
    }

    fn hard_link(&mut self, entry: &Entry<'_, impl Read>, path: &Path, real: &Path) -> Result<(), Fault> {
        let target = clean(&entry.link_name_bytes().ok_or_else(|| Fault::new("the link has no target"))?)?;
        let key = self.places.entry(&target)?;
        let mut from = self.claims.root().join(&key).into_os_string();
        from.push(self.suffix(&target));
        let make = |path: &Path| fs::hard_link(&from, path);
        self.claims.place((real, self.suffix(path)), self.index, Shape::File, make)?;
        self.done.linked.insert(key);
        let known = self.digests.as_ref().and_then(|digests| digests.get(&target)).cloned();
        if let (Some(digests), Some(digest)) = (&mut self.digests, known) {
            self.sums += &sum_line(&digest, path);
            digests.insert(path.to_owned(), digest);
        }
        Ok(())
    }

    fn special(&mut self, header: &Header, path: &Path, real: &Path, meta: Meta) -> Result<(), Fault> {
        let kind = match header.entry_type() {
            EntryType::Char => SFlag::S_IFCHR,
            EntryType::Block => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let major = header.device_major()?.unwrap_or(0);
        let device = makedev(major.into(), header.device_minor()?.unwrap_or(0).into());
        let make = |path: &Path| {
            mknod(path, kind, Mode::from_bits_truncate(0o600), device)?;
            meta.apply(path)
        };
        self.claims.place((real, self.suffix(path)), self.index, Shape::File, make).map(|_| ())
    }
}

fn sum_line(digest: &str, path: &Path) -> String {
    format!("{digest}  {}\n", path.display())
}

fn hex(md5: Md5) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    md5.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
