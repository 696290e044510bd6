//! Tells when the site's sources change, by inotify.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// Nothing more for so long means that whoever writes has done: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(15);
/// However long somebody goes on writing, what is there by then is looked at.
const LONGEST: Duration = Duration::from_millis(200);

/// Watches the directories of a site, those that come later too.
#[derive(Debug)]
pub struct Watch {
    site: PathBuf,
    inotify: Inotify,
    directories: BTreeMap<WatchDescriptor, PathBuf>,
}

impl Watch {
    /// Watches `lcfg/` and `components/` of a site directory, and whether it is replaced as a whole.
    pub fn new(site: &Path) -> Result<Self, Fault> {
        let mut watch = Self { site: site.to_owned(), inotify: open()?, directories: BTreeMap::new() };
        watch.add_all();
        Ok(watch)
    }

    /// Waits for a change and until it has settled; none if there was none in time. The answer is the files that
    /// were written, as far as they are known by name.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<BTreeSet<PathBuf>>, Fault> {
        if !self.is_ready(timeout)? {
            return Ok(None);
        }
        let (begun, mut touched, mut other) = (Instant::now(), BTreeSet::new(), false);
        loop {
            let mut directories = false;
            for event in self.events()? {
                directories |= self.is_of_directories(&event);
                if let Some(path) = self.file(&event) {
                    touched.insert(path);
                }
            }
            if directories {
                self.renew()?;
                other = true;
            }
            if begun.elapsed() > LONGEST || !self.is_ready(QUIET)? {
                break;
            }
        }
        Ok((other || !touched.is_empty()).then_some(touched))
    }

    fn is_ready(&self, timeout: Duration) -> Result<bool, Fault> {
        let mut on = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut on, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error).doing(|| "waiting for changes of the sources"),
        }
    }

    fn events(&self) -> Result<Vec<InotifyEvent>, Fault> {
        match self.inotify.read_events() {
            Ok(events) => Ok(events),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error).doing(|| "reading changes of the sources"),
        }
    }

    /// Whether a directory came or went, so that other directories are to be watched; or events were lost.
    fn is_of_directories(&self, event: &InotifyEvent) -> bool {
        let gone = AddWatchFlags::IN_Q_OVERFLOW
            | AddWatchFlags::IN_IGNORED
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        if event.mask.intersects(gone) {
            return true;
        }
        event.mask.contains(AddWatchFlags::IN_ISDIR)
            && self.path(event).is_some_and(|path| self.is_ours(&path))
    }

    /// The file that an event is about, if it can be a source or a component.
    fn file(&self, event: &InotifyEvent) -> Option<PathBuf> {
        let path = self.path(event).filter(|path| self.is_ours(path))?;
        let name = path.file_name()?.to_str()?;
        let stray = name.starts_with('.') || name.ends_with('~');
        (!stray && !event.mask.contains(AddWatchFlags::IN_ISDIR)).then_some(path)
    }

    fn path(&self, event: &InotifyEvent) -> Option<PathBuf> {
        let directory = self.directories.get(&event.wd)?;
        event.name.as_ref().map(|name| directory.join(name))
    }

    /// Beside the site, and in it, other things happen that are no sources.
    fn is_ours(&self, path: &Path) -> bool {
        let tops = [self.site.join("lcfg"), self.site.join("components")];
        path == self.site || tops.iter().any(|top| path.starts_with(top))
    }

    fn renew(&mut self) -> Result<(), Fault> {
        self.inotify = open()?;
        self.directories.clear();
        self.add_all();
        Ok(())
    }

    fn add_all(&mut self) {
        let site = self.site.clone();
        for directory in site.parent().into_iter().chain([site.as_path()]) {
            self.add(directory);
        }
        for top in ["lcfg", "components"] {
            self.add_below(&self.site.join(top));
        }
    }

    fn add_below(&mut self, directory: &Path) {
        self.add(directory);
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_below(&entry.path());
            }
        }
    }

    /// A directory that is not there now is told by the one above when it comes.
    fn add(&mut self, directory: &Path) {
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        if let Ok(descriptor) = self.inotify.add_watch(directory, what) {
            self.directories.insert(descriptor, directory.to_owned());
        }
    }
}

fn open() -> Result<Inotify, Fault> {
    Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).doing(|| "watching the sources")
}
