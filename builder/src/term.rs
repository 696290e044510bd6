//! Progress for people: bars on a terminal, plain lines elsewhere. Everything goes to stderr.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line tells of a long step.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown with a rate.
    Bytes,
    /// Things.
    Items,
    /// Nothing: only time passes.
    Time,
}

/// One long step.
#[derive(Debug)]
pub struct Bar {
    what: String,
    unit: Unit,
    total: u64,
    done: AtomicU64,
    begun: Instant,
    told: Mutex<Instant>,
    shown: Option<ProgressBar>,
}

/// Begins a long step: a gerund phrase, and how much there is to do.
pub fn bar(what: impl Into<String>, unit: Unit, total: u64) -> Bar {
    let what = what.into();
    let shown = std::io::stderr().is_terminal().then(|| {
        let template = match unit {
            Unit::Bytes => "{msg:36!} {bar:24} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
            Unit::Items => "{msg:36!} {bar:24} {pos}/{len} {eta}",
            Unit::Time => "{msg:36!} {spinner} {elapsed}",
        };
        let bar = ProgressBar::new(total);
        bar.set_style(ProgressStyle::with_template(template).expect("the templates above are right"));
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    if shown.is_none() && unit != Unit::Time {
        say(&format!("{what} ..."));
    }
    let now = Instant::now();
    Bar { what, unit, total, done: AtomicU64::new(0), begun: now, told: Mutex::new(now), shown }
}

/// Tells one line.
pub fn say(line: &str) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Bar {
    /// So much more is done.
    pub fn add(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        if let Some(bar) = &self.shown {
            bar.set_position(done);
        } else if let Ok(mut told) = self.told.lock()
            && told.elapsed() >= PLAIN_EVERY
        {
            *told = Instant::now();
            say(&format!("{}: {}%", self.what, done * 100 / self.total.max(1)));
        }
    }

    /// Says what is being done just now.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.shown {
            bar.set_message(format!("{}: {text}", self.what));
        }
    }

    /// Ends the step with one line that stays.
    pub fn finish(self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let done = self.done.load(Ordering::Relaxed);
        let amount = match self.unit {
            Unit::Bytes => format!("{} MB, ", done / 1_000_000),
            Unit::Items => format!("{done}, "),
            Unit::Time => String::new(),
        };
        say(&format!("{}: {amount}{seconds:.1} s", self.what));
    }
}
