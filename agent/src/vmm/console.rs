//! Consoles: kept from the first byte in a capped log, and open to people through a socket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gatehouse_model::{Doing as _, Fault, NodeName};

use crate::paths::Paths;

/// A console log is moved aside at this size; with the one before it, a node's console takes twice that.
const CAP: u64 = 4 << 20;

/// A log that is moved to `.1` when it is full.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    /// Opens a log at its end.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        }
        let file = append(path).doing(|| format!("opening {}", path.display()))?;
        let length = file.metadata().doing(|| format!("reading {}", path.display()))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full, most likely.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length >= CAP {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = append(&self.path)?;
            self.length = 0;
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        self.file.write_all(bytes)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The socket at which people attach to a node's console.
pub fn socket(paths: &Paths, node: &NodeName) -> PathBuf {
    paths.run.join(format!("console-{node}.sock"))
}

type Listeners = Arc<Mutex<Vec<UnixStream>>>;

/// Keeps a console: reads it to its end in a thread of its own, and lets people attach meanwhile.
///
/// # Errors
/// The log or the socket cannot be opened.
pub fn keep(
    paths: &Paths,
    node: &NodeName,
    mut output: impl Read + Send + 'static,
    input: impl Write + Send + 'static,
) -> Result<(), Fault> {
    let mut log = Log::open(&paths.console_log(node))?;
    let at = socket(paths, node);
    // Left by an agent that was killed; a live console's socket is replaced with its console.
    let _ = fs::remove_file(&at);
    let listener = UnixListener::bind(&at).doing(|| format!("opening {}", at.display()))?;
    let listeners = Listeners::default();
    let attached = Arc::clone(&listeners);
    let input = Arc::new(Mutex::new(input));
    std::thread::spawn(move || attach(&listener, &attached, &input));
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count) = output.read(&mut buffer) {
            if count == 0 {
                break;
            }
            let bytes = &buffer[..count];
            // A full disk must not stop the node: its console is then only seen by those attached.
            let _ = log.add(bytes);
            let mut all = listeners.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain_mut(|stream| stream.write_all(bytes).is_ok());
        }
        let _ = fs::remove_file(&at);
    });
    Ok(())
}

fn attach(listener: &UnixListener, listeners: &Listeners, input: &Arc<Mutex<impl Write + Send + 'static>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let Ok(mut reader) = stream.try_clone() else { continue };
        listeners.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        let input = Arc::clone(input);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count) = reader.read(&mut buffer) {
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                if count == 0 || input.write_all(&buffer[..count]).and_then(|()| input.flush()).is_err() {
                    break;
                }
            }
        });
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
    use std::time::Duration;

    #[test]
    fn a_console_is_logged_and_can_be_attached_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::trial(dir.path(), dir.path());
        fs::create_dir_all(&paths.run).expect("made");
        let node: NodeName = "ce".parse().expect("a name");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut machine = ours;
        keep(&paths, &node, theirs.try_clone().expect("cloned"), theirs).expect("kept");
        let mut person = UnixStream::connect(socket(&paths, &node)).expect("attached");
        person.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        person.write_all(b"root\n").expect("written");
        let mut typed = [0; 5];
        machine.read_exact(&mut typed).expect("read");
        assert_eq!(&typed, b"root\n");
        machine.write_all(b"Password: ").expect("written");
        let mut seen = [0; 10];
        person.read_exact(&mut seen).expect("read");
        assert_eq!(&seen, b"Password: ");
        assert_eq!(tail(&paths, &node, 3), "Password:");
    }

    #[test]
    fn a_full_log_is_moved_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console-ce.log");
        let mut log = Log::open(&path).expect("opened");
        for _ in 0..5 {
            log.add(&vec![b'x'; 1 << 20]).expect("added");
        }
        assert_eq!(fs::metadata(&path).expect("there").len(), 1 << 20);
        assert_eq!(fs::metadata(dir.path().join("console-ce.log.1")).expect("there").len(), 4 << 20);
    }
}
