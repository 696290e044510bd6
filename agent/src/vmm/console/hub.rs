//! One node's console, for all who look at it: it is written down, remembered for a while, and each reader follows at a
//! pace of their own. Nothing here waits for a reader.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gatehouse_model::Fault;

use super::keyboard::{Keyboard, Wish};
use super::log::{Log, snapshot};

/// How far a reader may be behind, in bytes, before something is left out for them: some seconds of a node's start.
const REMEMBERED: usize = 256 << 10;
/// How much a reader is given at once, in bytes.
const PIECE: usize = 16 << 10;
/// The most readers of one console: more are refused rather than given memory.
pub const MOST_READERS: usize = 32;

/// What comes next for a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// What the node has written.
    Bytes(Vec<u8>),
    /// A line of ours.
    Notice(String),
    /// They have gone.
    End,
}

/// A node's console.
#[derive(Debug)]
pub struct Hub {
    log: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    logs: Vec<Log>,
    ring: VecDeque<u8>,
    /// How many bytes there have ever been: the place behind the last one in the ring.
    end: u64,
    /// Where keys go while the node runs.
    keys: Option<SyncSender<Vec<u8>>>,
    /// Told apart from those of earlier starts.
    start: u64,
    readers: BTreeMap<u64, Reader>,
    last_reader: u64,
    keyboard: Keyboard,
}

#[derive(Debug, Default)]
struct Reader {
    at: u64,
    notices: VecDeque<String>,
}

impl Hub {
    /// The console of a node that is off, with its log in a file.
    pub fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), state: Mutex::default(), changed: Condvar::new() }
    }

    // Whoever panicked while they held the lock has at worst left one piece unshown.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node is on: what it writes goes into these logs, what is typed to `keys`. Returns the number of this start.
    pub fn begin(&self, logs: Vec<Log>, keys: SyncSender<Vec<u8>>) -> u64 {
        let mut state = self.lock();
        (state.logs, state.keys) = (logs, Some(keys));
        state.start += 1;
        state.start
    }

    /// Whether the node's console is kept at present.
    pub fn is_live(&self) -> bool {
        self.lock().keys.is_some()
    }

    /// The node has written something.
    pub fn add(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for log in &mut state.logs {
            // A full disk must not stop the node: its console is then only seen by those attached.
            let _ = log.add(bytes);
        }
        state.ring.extend(bytes);
        let over = state.ring.len().saturating_sub(REMEMBERED);
        state.ring.drain(..over);
        state.end += length(bytes.len());
        self.changed.notify_all();
    }

    /// The node is off, if it was not started again meanwhile.
    pub fn end(&self, start: u64, notice: &str) {
        let mut state = self.lock();
        if state.start != start {
            return;
        }
        (state.logs, state.keys) = (Vec::new(), None);
        state.tell_all(notice);
        self.changed.notify_all();
    }

    /// Lets somebody in, who sees what comes from now on; and the log's files as they are now, for what was before.
    ///
    /// # Errors
    /// There are too many already, or the log cannot be opened.
    pub fn join(&self, wish: Wish, by: &str) -> Result<(u64, Vec<io::Take<File>>), Fault> {
        let mut state = self.lock();
        if state.readers.len() >= MOST_READERS {
            return Err(Fault::new(format!("{MOST_READERS} are looking at this console already")));
        }
        let before = snapshot(&self.log)?;
        state.last_reader += 1;
        let (id, at) = (state.last_reader, state.end);
        state.readers.insert(id, Reader { at, notices: VecDeque::new() });
        if wish == Wish::Take
            && let Some((lost, name)) = state.keyboard.take(id, by)
        {
            state.tell(id, format!("you have the keyboard, which {name} had"));
            state.tell(lost, format!("{by} has taken the keyboard over; you read along"));
        }
        if let Some(name) = state.keyboard.other_than(id) {
            let text = format!("{name} has the keyboard; you read along (--take takes it over)");
            state.tell(id, text);
        }
        self.changed.notify_all();
        Ok((id, before))
    }

    /// Somebody has typed.
    pub fn typed(&self, id: u64, by: &str, wish: Wish, bytes: &[u8]) {
        let mut state = self.lock();
        let notice = if wish == Wish::Never {
            Some("you only read this console; leave it and come back without --read-only to type".to_owned())
        } else if let Err(name) = state.keyboard.typed(id, by) {
            Some(format!("{name} has the keyboard; leave, and come back with --take to take it over"))
        } else {
            match &state.keys {
                None => Some("the node is off".to_owned()),
                Some(keys) => match keys.try_send(bytes.to_vec()) {
                    Ok(()) => None,
                    Err(TrySendError::Full(_)) => Some("the node does not read what is typed".to_owned()),
                    Err(TrySendError::Disconnected(_)) => Some("nothing can be typed to the node".to_owned()),
                },
            }
        };
        if let Some(notice) = notice {
            state.tell(id, notice);
        }
        self.changed.notify_all();
    }

    /// Somebody has gone.
    pub fn leave(&self, id: u64) {
        let mut state = self.lock();
        state.readers.remove(&id);
        state.keyboard.leave(id);
        self.changed.notify_all();
    }

    /// Waits for what comes next for a reader.
    pub fn next(&self, id: u64) -> Next {
        let mut state = self.lock();
        loop {
            let (end, remembered) = (state.end, length(state.ring.len()));
            let Some(reader) = state.readers.get_mut(&id) else { return Next::End };
            let behind = end - reader.at;
            if behind > remembered {
                reader.at = end - remembered;
                return Next::Notice(format!(
                    "{} bytes are left out: this terminal is too slow",
                    behind - remembered
                ));
            }
            if behind > 0 {
                let skip = usize::try_from(remembered - behind).unwrap_or(0);
                let at = reader.at;
                let bytes: Vec<u8> = state.ring.iter().skip(skip).take(PIECE).copied().collect();
                if let Some(reader) = state.readers.get_mut(&id) {
                    reader.at = at + length(bytes.len());
                }
                return Next::Bytes(bytes);
            }
            if let Some(notice) = reader.notices.pop_front() {
                return Next::Notice(notice);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn tell(&mut self, id: u64, notice: String) {
        // Said once, whatever is typed meanwhile.
        if let Some(reader) = self.readers.get_mut(&id)
            && reader.notices.back() != Some(&notice)
        {
            reader.notices.push_back(notice);
        }
    }

    fn tell_all(&mut self, notice: &str) {
        let all: Vec<u64> = self.readers.keys().copied().collect();
        for id in all {
            self.tell(id, notice.to_owned());
        }
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn hub() -> (tempfile::TempDir, Hub) {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::new(&dir.path().join("console-ce.log"));
        (dir, hub)
    }

    #[test]
    fn a_reader_who_stops_keeps_nobody_waiting() {
        let (_dir, hub) = hub();
        let (keys, _typed) = mpsc::sync_channel(1);
        hub.begin(Vec::new(), keys);
        let (slow, _) = hub.join(Wish::Free, "ann").expect("let in");
        let (quick, _) = hub.join(Wish::Free, "bob").expect("let in");
        for _ in 0..40 {
            hub.add(&[b'x'; PIECE]);
            assert_eq!(hub.next(quick), Next::Bytes(vec![b'x'; PIECE]));
        }
        hub.add(b"end");
        let over = 40 * PIECE + 3 - REMEMBERED;
        let notice = format!("{over} bytes are left out: this terminal is too slow");
        assert_eq!(hub.next(slow), Next::Notice(notice));
        let mut seen = Vec::new();
        while seen.len() < REMEMBERED {
            let Next::Bytes(bytes) = hub.next(slow) else { panic!("there is more") };
            seen.extend(bytes);
        }
        assert!(seen.ends_with(b"xend"));
    }

    #[test]
    fn who_types_is_told_and_tells() {
        let (_dir, hub) = hub();
        let (keys, typed) = mpsc::sync_channel(2);
        let start = hub.begin(Vec::new(), keys);
        let (ann, _) = hub.join(Wish::Free, "ann").expect("let in");
        hub.typed(ann, "ann", Wish::Free, b"a");
        let (bob, _) = hub.join(Wish::Free, "bob").expect("let in");
        hub.typed(bob, "bob", Wish::Free, b"b");
        hub.typed(bob, "bob", Wish::Free, b"b");
        let (eve, _) = hub.join(Wish::Never, "eve").expect("let in");
        hub.typed(eve, "eve", Wish::Never, b"e");
        let (sue, _) = hub.join(Wish::Take, "sue").expect("let in");
        hub.typed(sue, "sue", Wish::Take, b"s");
        assert_eq!(typed.try_iter().collect::<Vec<_>>(), [b"a", b"s"]);
        let told = |id, count| -> Vec<String> {
            let notice = |_| match hub.next(id) {
                Next::Notice(text) => text,
                other => panic!("{other:?}"),
            };
            (0..count).map(notice).collect()
        };
        assert_eq!(told(ann, 1), ["sue has taken the keyboard over; you read along"]);
        assert_eq!(told(sue, 1), ["you have the keyboard, which ann had"]);
        assert!(told(bob, 2).iter().all(|text| text.starts_with("ann has the keyboard; ")));
        assert!(told(eve, 2)[1].starts_with("you only read"));

        hub.leave(sue);
        hub.typed(bob, "bob", Wish::Free, b"b");
        assert_eq!(typed.try_iter().collect::<Vec<_>>(), [b"b"]);
        // An earlier start's end is not this one's.
        hub.end(start - 1, "the node is off");
        assert!(hub.is_live());
        hub.end(start, "the node is off");
        assert!(!hub.is_live());
        assert_eq!(told(bob, 1), ["the node is off"]);
        assert_eq!(hub.next(sue), Next::End);
    }
}
