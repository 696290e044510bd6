//! How far a backup or a restore is, and whether somebody has pressed Ctrl-C.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatehouse_model::{Doing as _, Fault};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// What a program ends with that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;
/// How many lines are told where there is no terminal.
const LINES: u64 = 10;

/// Set by the first Ctrl-C; the second one ends the program as it stands.
#[derive(Clone, Debug)]
pub struct Interrupt {
    set: Arc<AtomicBool>,
    stays: &'static str,
}

impl Interrupt {
    /// Does something that Ctrl-C ends. At a terminal it reaches ssh as well, so that a pipe may break before anybody looks:
    /// what is told then is why, and what of it stays.
    ///
    /// # Errors
    /// What `work` ends with; somebody pressed Ctrl-C; the system does not let us listen.
    pub fn during<T>(stays: &'static str, work: impl FnOnce(&Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let set = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&set))
                .and_then(|_| flag::register(signal, Arc::clone(&set)))
                .doing(|| "listening for Ctrl-C")?;
        }
        let interrupt = Self { set, stays };
        work(&interrupt).map_err(|fault| interrupt.check().err().unwrap_or(fault))
    }

    /// Ends what is being done.
    ///
    /// # Errors
    /// It was pressed.
    pub fn check(&self) -> Result<(), Fault> {
        if self.set.load(Ordering::Relaxed) {
            return Err(Fault::new(format!("interrupted; {}", self.stays)));
        }
        Ok(())
    }
}

/// A bar with rate and time left on a terminal, a line for every tenth elsewhere.
#[derive(Debug)]
pub struct Bar {
    shown: Option<ProgressBar>,
    what: String,
    all: u64,
    done: u64,
    interrupt: Interrupt,
}

impl Bar {
    /// A bar for so many bytes.
    ///
    /// # Errors
    /// Its template is wrong.
    pub fn begin(what: String, all: u64, interrupt: Interrupt) -> Result<Self, Fault> {
        let shown = if std::io::stderr().is_terminal() {
            let template = "{prefix:16!} {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            let style = ProgressStyle::with_template(template).doing(|| "drawing a bar")?;
            Some(ProgressBar::new(all).with_style(style).with_prefix(what.clone()))
        } else {
            None
        };
        Ok(Self { shown, what, all, done: 0, interrupt })
    }

    /// So many bytes more are done.
    ///
    /// # Errors
    /// Somebody has pressed Ctrl-C.
    pub fn advance(&mut self, bytes: u64) -> Result<(), Fault> {
        let line = |done: u64| done.saturating_mul(LINES).checked_div(self.all).unwrap_or(LINES);
        let (before, now) = (line(self.done), line(self.done + bytes));
        self.done += bytes;
        match &self.shown {
            Some(bar) => bar.inc(bytes),
            None if now > before && now < LINES => eprintln!("{}: {} %", self.what, now * 100 / LINES),
            None => {}
        }
        self.interrupt.check()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
