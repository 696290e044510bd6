//! The terminal in raw mode, so that every key reaches a node; and as it was again, however the program ends.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::thread;

use gatehouse_model::{Doing as _, Fault};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{FlushArg, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr};

/// What a node may have left set: colours, a character set of lines, no cursor, no line wrap, the other screen, marks
/// around what is pasted, reports of the mouse (xterm's control sequences).
const AS_USUAL: &[u8] =
    b"\x1b[0m\x1b(B\x0f\x1b[?25h\x1b[?7h\x1b[?1047l\x1b[?2004l\x1b[?1000;1002;1003;1006l\r\n";

/// How long a terminal may take to be ready for these, in milliseconds.
const PATIENCE: u8 = 100;

/// A terminal in raw mode, if standard input is one; as it was again when this is dropped, or a signal ends the program.
pub(super) struct RawTerminal(Option<Termios>);

impl RawTerminal {
    /// Sets it. Called once, before other threads are started.
    pub fn enter() -> Result<Self, Fault> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin()).doing(|| "reading the terminal's settings")?;
        restore_at_signals(before.clone())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).doing(|| "setting the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            restore(before);
        }
    }
}

/// Without waiting for a terminal that is stopped. What was typed ahead was meant for the node.
fn restore(before: &Termios) {
    // Nothing better is left to do for a terminal that has gone.
    let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
    let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
    let out = io::stdout();
    let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    // Past the lock on standard output: whoever holds it may be waiting for the terminal.
    if out.is_terminal() && poll(&mut ready, PollTimeout::from(PATIENCE)).is_ok_and(|count| count > 0) {
        let _ = nix::unistd::write(&out, AS_USUAL);
    }
}

/// A thread of its own takes the signals: the others may be waiting for the terminal.
fn restore_at_signals(before: Termios) -> Result<(), Fault> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        ends.add(signal);
    }
    ends.thread_block().doing(|| "blocking signals")?;
    thread::spawn(move || {
        let Ok(signal) = ends.wait() else { return };
        restore(&before);
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
