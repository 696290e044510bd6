//! `gatectl node console`: this terminal as the console of a node, until Ctrl-] is typed. `gatectl node log`: what it has
//! shown.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::Args;
use gatehouse_model::{Doing as _, Fault, NodeName};

use super::terminal::RawTerminal;
use crate::paths::Paths;
use crate::vmm::console::{Hello, Wish, harmless, last, snapshot, socket};

/// Ctrl-], as telnet, virsh and xl have it.
const ESCAPE: u8 = 0x1d;
/// How often a log is looked at that is followed.
const LOOK: Duration = Duration::from_millis(200);

/// `gatectl node console`.
#[derive(Args, Clone, Debug)]
pub struct ConsoleOptions {
    /// The node's name
    pub node: NodeName,
    /// Show so many lines of what was on the console before
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
    pub lines: usize,
    /// Show all that is kept of what was before
    #[arg(long, conflicts_with = "lines")]
    pub all: bool,
    /// Only look: no key reaches the node
    #[arg(long)]
    pub read_only: bool,
    /// Take the keyboard, whoever has it; that one reads along and is told
    #[arg(long, conflicts_with = "read_only")]
    pub take: bool,
}

/// `gatectl node log`.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// The node's name
    pub node: NodeName,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub lines: Option<usize>,
    /// What the node's last install has shown, whatever came after it
    #[arg(long)]
    pub install: bool,
}

/// Attaches until Ctrl-] is typed or the agent is gone.
///
/// # Errors
/// The node was not started since the agent was; the terminal cannot be set.
pub(super) fn attach(paths: &Paths, options: &ConsoleOptions) -> Result<(), Fault> {
    let (node, path) = (&options.node, socket(paths, &options.node));
    let mut console = UnixStream::connect(&path)
        .doing(|| format!("opening the console of {node} at {}", path.display()))
        .map_err(|fault| {
            let help = "`gatectl node start` starts a node, `gatectl node log` shows what was on its console";
            fault.help(help)
        })?;
    eprintln!("this is the console of {node}. {}", what_to_type(options));
    let keyboard = match (options.read_only, options.take) {
        (true, _) => Wish::Never,
        (_, true) => Wish::Take,
        _ => Wish::Free,
    };
    let hello = Hello { keyboard, lines: (!options.all).then_some(options.lines), by: who() };
    let hello = serde_json::to_string(&hello).doing(|| "writing a request")? + "\n";
    console.write_all(hello.as_bytes()).doing(|| "asking for the console")?;
    let terminal = RawTerminal::enter()?;
    let mut typed_to = console.try_clone().doing(|| "sharing the console")?;
    // Not joined: it may wait for a key for ever when the agent has gone.
    thread::spawn(move || {
        // Input that merely ends (a pipe, /dev/null) leaves the console in view.
        if matches!(pass_keys(&mut io::stdin().lock(), &mut typed_to), Ok(Keys::Escaped)) {
            let _ = typed_to.shutdown(Shutdown::Both);
        }
    });
    let shown = pass_output(console);
    drop(terminal);
    match shown {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.doing(|| format!("showing the console of {node}")),
    }
}

fn what_to_type(options: &ConsoleOptions) -> &'static str {
    if options.read_only {
        "You only read along; Ctrl-] leaves it"
    } else {
        "What you type goes to it; Ctrl-] leaves it"
    }
}

/// Who this is, for others at the same console.
fn who() -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uid = nix::unistd::getuid();
    let user = || if uid.is_root() { "root".to_owned() } else { format!("user {uid}") };
    let user = set("SUDO_USER").or_else(|| set("USER")).unwrap_or_else(user);
    // `ADDRESS PORT ADDRESS PORT` (ssh(1)).
    let from = set("SSH_CONNECTION").and_then(|all| Some(format!(" from {}", all.split(' ').next()?)));
    let at = nix::unistd::ttyname(io::stdin())
        .ok()
        .and_then(|name| Some(format!(" at {}", name.strip_prefix("/dev/").ok()?.display())));
    [Some(user), from, at].into_iter().flatten().collect()
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

fn pass_keys(keys: &mut impl Read, console: &mut impl Write) -> io::Result<Keys> {
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

/// Prints a console's log; needs no agent.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn show_log(paths: &Paths, options: &LogOptions) -> Result<(), Fault> {
    let node = &options.node;
    let path = if options.install { paths.install_log(node) } else { paths.console_log(node) };
    let doing = || format!("reading {}", path.display());
    let files = snapshot(&path).doing(doing)?;
    let Some(newest) = files.last() else {
        let what = format!("there is no console log of a node {node} in {}", path.display());
        return Err(Fault::new(what).help("name a node that was started here: `gatectl node list`"));
    };
    let newest = newest.get_ref().try_clone().doing(doing)?;
    let out = io::stdout().lock();
    let mut out: Box<dyn Write> = if out.is_terminal() { Box::new(Harmless(out)) } else { Box::new(out) };
    let written = last(files, options.lines).doing(doing)?;
    let shown = out
        .write_all(&written)
        .and_then(|()| out.flush())
        .and_then(|()| if options.follow { follow(newest, &path, &mut out) } else { Ok(()) });
    match shown {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.doing(doing),
    }
}

/// A terminal, which is shown nothing that it would take for an order: a node writes to its console what it likes. An
/// order that comes in two pieces is shown as the letters that it is made of.
struct Harmless<W>(W);

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&harmless(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Prints what is written to a log, which may be moved aside and begun anew, until nobody reads.
fn follow(mut file: File, path: &Path, out: &mut impl Write) -> io::Result<()> {
    loop {
        let moved = std::fs::metadata(path)
            .is_ok_and(|now| file.metadata().is_ok_and(|this| this.ino() != now.ino()));
        io::copy(&mut file, out)?;
        out.flush()?;
        if moved {
            file = File::open(path)?;
        } else {
            thread::sleep(LOOK);
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

    #[test]
    fn a_terminal_is_given_no_orders() {
        let mut shown = Harmless(Vec::new());
        shown.write_all(b"a\x1b[2Jb\x1b[").and_then(|()| shown.write_all(b"6nc\n")).expect("written");
        assert_eq!(shown.0, b"ab6nc\n");
    }

    #[test]
    fn a_log_is_followed_when_it_is_moved_aside() {
        /// Ends once it has seen everything.
        struct Until(Vec<u8>);
        impl Write for Until {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                if self.0.ends_with(b"three") { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
            }
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console-ce.log");
        std::fs::write(&path, "one").expect("written");
        let file = File::open(&path).expect("opened");
        std::fs::write(&path, "onetwo").expect("written");
        std::fs::rename(&path, path.with_extension("log.1")).expect("moved");
        std::fs::write(&path, "three").expect("written");
        let mut out = Until(Vec::new());
        assert!(follow(file, &path, &mut out).is_err());
        assert_eq!(out.0, b"onetwothree");
    }
}
