//! The socket of a console: people come, say what they want in a line of JSON, see what was there before and what comes,
//! and type. Lines of our own stand among what the node writes, in brackets.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault};
use serde::{Deserialize, Serialize};

use super::hub::{Hub, Next};
use super::keyboard::Wish;
use super::log::{harmless, last};

/// The longest first line, in bytes, and how long it may take.
const FIRST_LINE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the next one is let in when one could not be.
const PAUSE: Duration = Duration::from_millis(300);

/// What somebody says who comes to a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Whether they want to type.
    pub keyboard: Wish,
    /// How many lines of what was before they want to see; all if not said.
    pub lines: Option<usize>,
    /// Who they are, for the others.
    pub by: String,
}

/// Opens the socket of a console, for this user alone, and serves it in threads of its own.
///
/// # Errors
/// It cannot be made.
pub fn serve(at: &Path, hub: &Arc<Hub>) -> Result<(), Fault> {
    let listener = bind(at).doing(|| format!("opening {}", at.display()))?;
    let hub = Arc::clone(hub);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // The process has no file descriptor left, most likely; others give theirs back.
                thread::sleep(PAUSE);
                continue;
            };
            let hub = Arc::clone(&hub);
            // Whoever hangs up in the middle ends their own thread only.
            thread::spawn(move || drop(receive(&hub, stream)));
        }
    });
    Ok(())
}

fn bind(at: &Path) -> io::Result<UnixListener> {
    // Under another name first: under its own it never has any but its final mode.
    let fresh = at.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, at)?;
    Ok(listener)
}

fn receive(hub: &Arc<Hub>, mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let hello: Hello = serde_json::from_slice(&first_line(&stream)?)?;
    stream.set_read_timeout(None)?;
    let (id, before) = match hub.join(hello.keyboard, &hello.by) {
        Ok(joined) => joined,
        Err(fault) => return stream.write_all(&notice(&fault.to_string())),
    };
    let keys = stream.try_clone()?;
    let (typed_to, lines) = (Arc::clone(hub), hello.lines);
    thread::spawn(move || {
        pass_keys(&typed_to, id, &hello, keys);
        typed_to.leave(id);
    });
    let shown = last(before, lines).and_then(|before| stream.write_all(&harmless(&before)));
    let ended = shown.and_then(|()| follow(hub, id, &mut stream));
    hub.leave(id);
    // Ends the other thread, too.
    let _ = stream.shutdown(Shutdown::Both);
    ended
}

/// Byte by byte: what follows the line is typed.
fn first_line(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < FIRST_LINE && stream.read(&mut byte)? > 0 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(line)
}

fn pass_keys(hub: &Hub, id: u64, hello: &Hello, mut keys: UnixStream) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = keys.read(&mut bytes) {
        hub.typed(id, &hello.by, hello.keyboard, &bytes[..count]);
    }
}

fn follow(hub: &Hub, id: u64, stream: &mut UnixStream) -> io::Result<()> {
    loop {
        match hub.next(id) {
            Next::Bytes(bytes) => stream.write_all(&bytes)?,
            Next::Notice(text) => stream.write_all(&notice(&text))?,
            Next::End => return Ok(()),
        }
    }
}

fn notice(text: &str) -> Vec<u8> {
    format!("\r\n[gatehouse: {text}]\r\n").into_bytes()
}
