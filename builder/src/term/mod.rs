//! Progress for people and machines, all of it on stderr: bars on a terminal, plain lines elsewhere, or one event
//! of JSON a line.

mod pace;

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use gatehouse_model::{Event, Fault, State};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use pace::Pace;

/// Who tells, in events: this program, whatever machine it runs on.
const TELLER: &str = "builder";

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, else lines
    #[default]
    Auto,
    /// Bars with rate and time left
    Bars,
    /// Plain lines, at most one per ten percent or ten seconds of a step
    Lines,
    /// One event a line, as JSON: {ts, host, phase, action, state, percent, message}
    Json,
    /// Nothing but faults
    None,
}

/// How this process shows progress.
#[derive(Debug)]
struct Stage {
    shown: Shown,
    phase: &'static str,
}

#[derive(Debug)]
enum Shown {
    Bars(MultiProgress),
    Lines,
    Json,
    Nothing,
}

static STAGE: OnceLock<Stage> = OnceLock::new();

fn stage() -> &'static Stage {
    STAGE.get_or_init(|| Stage { shown: Shown::Lines, phase: "build" })
}

/// Says once, before anything is told, how it is to be told, and in the course of which command.
pub fn begin(progress: Progress, phase: &'static str) {
    let bars = || Shown::Bars(MultiProgress::new());
    let shown = match progress {
        Progress::Auto if std::io::stderr().is_terminal() => bars(),
        Progress::Bars => bars(),
        Progress::Auto | Progress::Lines => Shown::Lines,
        Progress::Json => Shown::Json,
        Progress::None => Shown::Nothing,
    };
    // A second beginning changes nothing.
    let _ = STAGE.set(Stage { shown, phase });
}

/// Where bars are drawn; none where there are none.
pub fn bars() -> Option<&'static MultiProgress> {
    match &stage().shown {
        Shown::Bars(bars) => Some(bars),
        Shown::Lines | Shown::Json | Shown::Nothing => None,
    }
}

/// Takes away what is drawn, because nothing goes on.
pub fn clear() {
    if let Some(bars) = bars() {
        // Bars that cannot be cleared are only untidy.
        let _ = bars.clear();
    }
}

/// Tells one line.
pub fn say(line: &str) {
    match &stage().shown {
        Shown::Bars(bars) => bars.suspend(|| put(line)),
        Shown::Lines => put(line),
        Shown::Json => tell("telling", State::Progress, None, line.to_owned()),
        Shown::Nothing => {}
    }
}

/// Tells of an event of another teller.
pub fn pass_on(event: &Event, line: &str) {
    match &stage().shown {
        Shown::Json => put(&event.to_line()),
        Shown::Bars(_) | Shown::Lines | Shown::Nothing => say(line),
    }
}

/// Tells what ended the command.
pub fn fail(fault: &Fault) {
    let text = fault.render();
    match &stage().shown {
        Shown::Bars(bars) => bars.suspend(|| put(text.trim_end())),
        Shown::Lines | Shown::Nothing => put(text.trim_end()),
        Shown::Json => tell("ending", State::Failed, None, text.trim_end().to_owned()),
    }
}

fn put(line: &str) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn tell(action: &str, state: State, percent: Option<u8>, message: String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let event = Event {
        ts: u64::try_from(now.as_millis()).unwrap_or(0),
        host: TELLER.to_owned(),
        phase: stage().phase.to_owned(),
        action: action.to_owned(),
        state,
        percent,
        message,
    };
    put(&event.to_line());
}

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
    pace: Mutex<Pace>,
    drawn: Option<ProgressBar>,
    ended: AtomicBool,
}

/// Begins a long step: a gerund phrase, and how much there is to do.
pub fn bar(what: impl Into<String>, unit: Unit, total: u64) -> Bar {
    let what = what.into();
    match &stage().shown {
        Shown::Lines if unit != Unit::Time => put(&format!("{what} ...")),
        Shown::Json => tell(&what, State::Started, None, String::new()),
        Shown::Bars(_) | Shown::Lines | Shown::Nothing => {}
    }
    let drawn = bars().map(|bars| draw(bars, &what, unit, total));
    let pace = Mutex::new(Pace::default());
    let (done, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    Bar { what, unit, total, done, begun: Instant::now(), pace, drawn, ended }
}

fn draw(bars: &MultiProgress, what: &str, unit: Unit, total: u64) -> ProgressBar {
    let template = match unit {
        Unit::Bytes => "{prefix:36!} {bar:24} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left",
        Unit::Items => "{prefix:36!} {bar:24} {pos}/{len} {rate} {eta} left  {wide_msg}",
        Unit::Time => "{prefix:36!} {spinner} {elapsed}",
    };
    let bar = bars.add(ProgressBar::new(total));
    let style = ProgressStyle::with_template(template).expect("the templates above are right");
    // Whatever the writer is, a bar with a gap in it is no reason to stop.
    let rate = |state: &ProgressState, to: &mut dyn fmt::Write| {
        let _ = write!(to, "{:.0}/s", state.per_sec());
    };
    bar.set_style(style.with_key("rate", rate));
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

impl Bar {
    /// So much more is done.
    pub fn add(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        if let Some(bar) = &self.drawn {
            bar.set_position(done);
            return;
        }
        let percent = (done * 100 / self.total.max(1)).min(100);
        let due = self.pace.lock().is_ok_and(|mut pace| pace.due(percent, self.begun.elapsed()));
        match &stage().shown {
            Shown::Lines if due => put(&format!("{}: {percent}%", self.what)),
            Shown::Json if due => {
                tell(&self.what, State::Progress, u8::try_from(percent).ok(), String::new());
            }
            Shown::Bars(_) | Shown::Lines | Shown::Json | Shown::Nothing => {}
        }
    }

    /// Says what is being done just now.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.drawn {
            bar.set_message(text.to_owned());
        }
    }

    /// Ends the step with one line that stays.
    pub fn finish(self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let done = self.done.load(Ordering::Relaxed);
        let amount = match self.unit {
            Unit::Bytes => format!("{} MB, ", done / 1_000_000),
            Unit::Items => format!("{done}, "),
            Unit::Time => String::new(),
        };
        match &stage().shown {
            Shown::Json => tell(&self.what, State::Succeeded, Some(100), format!("{amount}{seconds:.1} s")),
            Shown::Bars(_) | Shown::Lines | Shown::Nothing => {
                say(&format!("{}: {amount}{seconds:.1} s", self.what));
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
        if matches!(stage().shown, Shown::Json) {
            tell(&self.what, State::Failed, None, String::new());
        }
    }
}
