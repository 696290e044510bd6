//! Ctrl-C: what is half made in a place of the user's goes, what is whole stays, and one line says what the same command
//! does next.
//!
//! What is half made in the cache lies below `tmp/` under this process's number; the next run removes it. Programs
//! that were started end with this one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use gatehouse_model::{Doing as _, Fault};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::term;

/// What shells report of a program that Ctrl-C ended.
const STATUS: i32 = 130;

/// What the same command does after this one was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// It goes on with what is not finished.
    #[default]
    GoesOn,
    /// A trial begins anew, with what was built.
    Tries,
    /// It writes a stick anew.
    Writes,
}

impl Next {
    fn words(self) -> &'static str {
        match self {
            Self::GoesOn => "what is finished is kept: run the same command again to go on",
            Self::Tries => "what was built is kept: run the same command again for a new trial",
            Self::Writes => {
                "what was begun to be written does not start: run the same command again to write all of it"
            }
        }
    }
}

static NEXT: OnceLock<Next> = OnceLock::new();
static SEEN: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static LISTENER: Mutex<Option<Sender<()>>> = Mutex::new(None);
static HALF_MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Takes Ctrl-C and SIGTERM from now on. A handler, not a blocked signal: a program started later would inherit that.
///
/// # Errors
/// The handler cannot be set.
pub fn begin(next: Next) -> Result<(), Fault> {
    // A second beginning changes nothing.
    let _ = NEXT.set(next);
    let doing = || "waiting for Ctrl-C";
    let seen = Arc::clone(SEEN.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&seen)).doing(doing)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).doing(doing)?;
    std::thread::spawn(move || signals.forever().for_each(|_| heard()));
    Ok(())
}

/// Hands every Ctrl-C from now on to the answer, instead of ending this process.
pub fn listen() -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    *held(&LISTENER) = Some(sender);
    receiver
}

/// Waits for the end that a Ctrl-C brings: it also ends the programs that were started, and what comes of that is
/// nothing to tell.
pub fn wait_if_seen() {
    let seen = SEEN.get().is_some_and(|seen| seen.load(Ordering::Relaxed));
    while seen && held(&LISTENER).is_none() {
        std::thread::park();
    }
}

fn heard() {
    if held(&LISTENER).as_ref().is_some_and(|listener| listener.send(()).is_ok()) {
        return;
    }
    // Held to the end, so that nothing new is begun.
    let half_made = held(&HALF_MADE);
    for path in half_made.iter() {
        remove(path);
    }
    term::clear();
    term::say(&format!("interrupted; {}", NEXT.get().copied().unwrap_or_default().words()));
    std::process::exit(STATUS);
}

/// A file or directory that is gone when this is dropped, or at Ctrl-C, unless it was moved away before.
#[derive(Debug)]
pub struct Fleeting(PathBuf);

impl Fleeting {
    /// Names what is about to be made.
    pub fn new(path: PathBuf) -> Self {
        held(&HALF_MADE).insert(path.clone());
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fleeting {
    fn drop(&mut self) {
        remove(&self.0);
        held(&HALF_MADE).remove(&self.0);
    }
}

/// Moved to its place is the usual case; what else cannot be removed is found again as stale.
fn remove(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

/// A thread that panicked has left these as good as they were.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_away_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["lost", "kept"] {
            let fleeting = Fleeting::new(at(name));
            std::fs::write(fleeting.path(), name).expect("written");
            if name == "kept" {
                std::fs::rename(fleeting.path(), at("there")).expect("moved");
            }
        }
        assert!(!at("lost").exists() && !at("kept").exists() && at("there").exists());
    }
}
