//! `gatectl node console`: this terminal as the console of a node, until Ctrl-] is typed.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use gatehouse_model::{Doing as _, Fault, NodeName};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::paths::Paths;

/// Ctrl-], as telnet, virsh and xl have it.
const ESCAPE: u8 = 0x1d;
/// How much of what was on the console before is shown.
const BEFORE: u64 = 4096;

/// Attaches until Ctrl-] is typed, the input ends or the node is gone.
pub(super) fn attach(paths: &Paths, node: &NodeName) -> Result<(), Fault> {
    let path = paths.run.join(format!("console-{node}.sock"));
    let console = UnixStream::connect(&path)
        .doing(|| format!("opening the console of {node} at {}", path.display()))
        .map_err(|fault| fault.help(format!("start it with `gatectl node start {node}`")))?;
    eprintln!("this is the console of {node}; leave it with Ctrl-]");
    show_before(paths, node)?;
    let raw = RawTerminal::enter()?;
    let mut typed_to = console.try_clone().doing(|| "sharing the console")?;
    // Not joined: it may wait for a key for ever when the node has gone.
    thread::spawn(move || {
        // Input that merely ends (a pipe, /dev/null) leaves the console in view.
        if matches!(pass_keys(&mut io::stdin().lock(), &mut typed_to), Ok(Keys::Escaped)) {
            let _ = typed_to.shutdown(Shutdown::Both);
        }
    });
    let shown = pass_output(console);
    drop(raw);
    eprintln!();
    shown.doing(|| format!("showing the console of {node}"))
}

fn show_before(paths: &Paths, node: &NodeName) -> Result<(), Fault> {
    let log = paths.console_log(node);
    let Ok(mut file) = File::open(&log) else { return Ok(()) };
    let mut text = Vec::new();
    let read = |file: &mut File, text: &mut Vec<u8>| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BEFORE)))?;
        file.read_to_end(text)?;
        io::stdout().write_all(text)?;
        io::stdout().flush()
    };
    read(&mut file, &mut text).doing(|| format!("reading {}", log.display()))
}

fn pass_output(mut console: UnixStream) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut bytes = [0; 4096];
    loop {
        match console.read(&mut bytes)? {
            0 => return Ok(()),
            count => out.write_all(&bytes[..count])?,
        }
        out.flush()?;
    }
}

/// Why no more keys are passed on.
#[derive(Debug, PartialEq, Eq)]
enum Keys {
    Escaped,
    Ended,
}

fn pass_keys(keys: &mut impl io::Read, console: &mut impl io::Write) -> io::Result<Keys> {
    let mut bytes = [0; 256];
    loop {
        let count = keys.read(&mut bytes)?;
        let typed = &bytes[..count];
        let end = typed.iter().position(|byte| *byte == ESCAPE);
        console.write_all(&typed[..end.unwrap_or(count)])?;
        if end.is_some() {
            return Ok(Keys::Escaped);
        }
        if count == 0 {
            return Ok(Keys::Ended);
        }
    }
}

/// The terminal in raw mode, so that every key reaches the node; as it was again when this is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Result<Self, Fault> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin()).doing(|| "reading the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).doing(|| "setting the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing better is left to do for a terminal that has gone.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_pass_until_the_escape() {
        for (typed, passed, why) in [
            (&b"ls\r"[..], &b"ls\r"[..], Keys::Ended),
            (b"ab\x1dcd", b"ab", Keys::Escaped),
            (b"\x1d", b"", Keys::Escaped),
        ] {
            let mut out = Vec::new();
            assert_eq!(pass_keys(&mut &typed[..], &mut out).ok(), Some(why));
            assert_eq!(out, passed);
        }
    }
}
