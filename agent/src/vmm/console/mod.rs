//! Consoles: kept from the first byte in capped logs, and open to people through a socket.

mod attach;
mod hub;
mod keyboard;
mod log;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use gatehouse_model::{Fault, NodeName};

pub use attach::Hello;
use hub::Hub;
pub use keyboard::Wish;
use log::Log;
pub use log::{aside, harmless, last, last_lines, snapshot};

use crate::paths::Paths;

/// How many pieces of what is typed wait for a node that does not read.
const TYPED: usize = 64;

/// The socket at which people attach to a node's console.
pub fn socket(paths: &Paths, node: &NodeName) -> PathBuf {
    paths.run.join(format!("console-{node}.sock"))
}

/// The consoles of a driver's nodes. Each stays open to people while its node is off and started again.
#[derive(Debug)]
pub struct Consoles {
    paths: Paths,
    hubs: Mutex<BTreeMap<NodeName, Arc<Hub>>>,
}

impl Consoles {
    /// None yet.
    pub fn new(paths: Paths) -> Self {
        Self { paths, hubs: Mutex::default() }
    }

    /// Whether a node's console is being kept.
    pub fn has(&self, node: &NodeName) -> bool {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner).get(node).is_some_and(|hub| hub.is_live())
    }

    /// Keeps the console of a node that has been started: reads it to its end, and passes on what is typed, in threads of
    /// its own. What an install shows is kept apart as well, until the next one.
    ///
    /// # Errors
    /// The log or the socket cannot be opened.
    pub fn keep(
        &self,
        node: &NodeName,
        install: bool,
        mut output: impl Read + Send + 'static,
        mut input: impl Write + Send + 'static,
    ) -> Result<(), Fault> {
        let hub = self.hub(node)?;
        let mut logs = vec![Log::open(&self.paths.console_log(node))?];
        if install {
            logs.push(Log::anew(&self.paths.install_log(node))?);
        }
        let (keys, typed) = mpsc::sync_channel::<Vec<u8>>(TYPED);
        let start = hub.begin(logs, keys);
        thread::spawn(move || {
            for bytes in typed {
                if input.write_all(&bytes).and_then(|()| input.flush()).is_err() {
                    break;
                }
            }
        });
        let off = format!("{node} is off");
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                match output.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(count @ 1..) => hub.add(&buffer[..count]),
                    _ => break,
                }
            }
            hub.end(start, &off);
        });
        Ok(())
    }

    fn hub(&self, node: &NodeName) -> Result<Arc<Hub>, Fault> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(node) {
            return Ok(Arc::clone(hub));
        }
        let hub = Arc::new(Hub::new(&self.paths.console_log(node)));
        attach::serve(&socket(&self.paths, node), &hub)?;
        hubs.insert(node.clone(), Arc::clone(&hub));
        Ok(hub)
    }
}

/// The last lines of a node's console, for a message.
pub fn tail(paths: &Paths, node: &NodeName, lines: usize) -> String {
    let text = fs::read(paths.console_log(node)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn attach(paths: &Paths, node: &NodeName, keyboard: Wish, by: &str) -> UnixStream {
        let mut stream = UnixStream::connect(socket(paths, node)).expect("attached");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let hello = Hello { keyboard, lines: Some(1), by: by.to_owned() };
        let line = serde_json::to_string(&hello).expect("json") + "\n";
        stream.write_all(line.as_bytes()).expect("written");
        stream
    }

    /// Reads until some text has come.
    fn see(stream: &mut UnixStream, text: &str) {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(text.as_bytes()) {
            let read = stream.read_exact(&mut byte);
            assert!(read.is_ok(), "{text:?} is not in {:?}: {read:?}", String::from_utf8_lossy(&seen));
            seen.extend(byte);
        }
    }

    #[test]
    fn a_console_is_kept_and_shared() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        fs::create_dir_all(&paths.run).expect("made");
        let node: NodeName = "ce".parse().expect("a name");
        let consoles = Consoles::new(paths.clone());
        let (mut machine, theirs) = UnixStream::pair().expect("a pair");
        let output = theirs.try_clone().expect("cloned");
        consoles.keep(&node, true, output, theirs).expect("kept");
        assert!(consoles.has(&node));
        machine.write_all(b"before\r\nPassword: ").expect("written");
        while tail(&paths, &node, 3) != "before\nPassword:" {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut ann = attach(&paths, &node, Wish::Free, "ann");
        let mut bob = attach(&paths, &node, Wish::Take, "bob");
        see(&mut ann, "Password: ");
        see(&mut bob, "Password: ");
        bob.write_all(b"root\n").expect("written");
        let mut typed = [0; 5];
        machine.read_exact(&mut typed).expect("read");
        assert_eq!(&typed, b"root\n");
        ann.write_all(b"x").expect("written");
        see(
            &mut ann,
            "[gatehouse: bob has the keyboard; leave, and come back with --take to take it over]\r\n",
        );
        machine.write_all(b"Welcome").expect("written");
        see(&mut ann, "Welcome");
        see(&mut bob, "Welcome");

        // The node ends and is started again; who looks on sees both.
        drop(machine);
        see(&mut bob, "[gatehouse: ce is off]\r\n");
        assert!(!consoles.has(&node));
        let (mut machine, theirs) = UnixStream::pair().expect("a pair");
        consoles.keep(&node, false, theirs.try_clone().expect("cloned"), theirs).expect("kept");
        machine.write_all(b"again").expect("written");
        see(&mut bob, "again");
        let install = fs::read_to_string(paths.install_log(&node)).expect("read");
        assert_eq!(install, "before\r\nPassword: Welcome");
    }
}
