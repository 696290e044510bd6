//! What a machine says while it starts, as events: its serial console is all that speaks before its agent does.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Event, Fault, State};

/// The parts of a start, each with what the console shows when it is over. The agent's events come another way: its
/// first ends the initramfs's part, and the install server's first the system's.
const STAGES: [(&str, &str); 4] = [
    ("boot/firmware", "gatehouse: started from"),
    ("boot/loader", "(XEN) Xen version"),
    ("boot/xen", "Linux version"),
    ("boot/kernel", "Begin: Loading essential drivers"),
];
const INITRAMFS: &str = "boot/initramfs";
const SYSTEM: &str = "boot/system";
/// The phase of the first event from the started system.
const SERVER: &str = "server";
/// What an installer does last: the parts of a start come again.
const RESTARTING: &str = "restarting";
/// What is said by a machine that will not come up, and by nothing else.
const TROUBLE: [&str; 3] =
    ["Kernel panic - not syncing", "Panic on CPU", "error: you need to load the kernel first"];
/// How often the console's file is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Recognises the parts of a start in the console's lines.
#[derive(Debug, Default)]
struct Stages {
    over: usize,
    last: f64,
}

impl Stages {
    /// The machine begins anew, so many seconds after power on.
    fn restarted(now: f64) -> Self {
        Self { over: 0, last: now }
    }

    /// A line, and the seconds since power on.
    fn line(&mut self, line: &str, now: f64) -> Option<(&'static str, State, String)> {
        if TROUBLE.iter().any(|mark| line.contains(mark)) {
            let later = if self.over == STAGES.len() { INITRAMFS } else { SYSTEM };
            let stage = STAGES.get(self.over).map_or(later, |(stage, _)| stage);
            return Some((stage, State::Failed, line.trim().to_owned()));
        }
        let passed = STAGES.iter().skip(self.over).position(|(_, mark)| line.contains(mark))?;
        // Where a part does not show, as Xen in an installer's start, its time is that of the part before it.
        let (stage, _) = STAGES[self.over];
        self.over += passed + 1;
        Some((stage, State::Succeeded, self.lap(now)))
    }

    /// The agent has told something of a phase.
    fn agent(&mut self, phase: &str, now: f64) -> Option<(&'static str, State, String)> {
        let count = STAGES.len();
        match self.over {
            // Of a start that could not be followed, the time in its last part is not known.
            over if over < count => {
                self.over = count + 2;
                None
            }
            over if over == count => {
                self.over = count + 1;
                Some((INITRAMFS, State::Succeeded, self.lap(now)))
            }
            over if over == count + 1 && phase == SERVER => {
                self.over = count + 2;
                Some((SYSTEM, State::Succeeded, self.lap(now)))
            }
            // First boot's own work is no part of the system's start.
            _ => {
                self.last = now;
                None
            }
        }
    }

    fn lap(&mut self, now: f64) -> String {
        let took = now - std::mem::replace(&mut self.last, now);
        format!("{took:.1} s, {now:.1} s after power on")
    }
}

/// Where lines come together: the stream for whoever follows the start, and a file.
#[derive(Debug)]
struct Out {
    host: String,
    begun: Instant,
    stages: Stages,
    pipe: PipeWriter,
    file: File,
}

impl Out {
    fn line(&mut self, line: &str) {
        // Nobody may follow any more, or the disk be full; the machine must not stop for that.
        let _ = writeln!(self.file, "{line}");
        let _ = self.pipe.write_all(format!("{line}\n").as_bytes());
    }

    fn stage(&mut self, found: Option<(&'static str, State, String)>) {
        let Some((phase, state, message)) = found else { return };
        let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let event = Event {
            ts: u64::try_from(ts).unwrap_or(u64::MAX),
            host: self.host.clone(),
            phase: phase.to_owned(),
            action: "starting".to_owned(),
            state,
            percent: None,
            message,
        };
        self.line(&event.to_line());
    }

    fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn console_line(&mut self, line: &str) {
        let now = self.now();
        let found = self.stages.line(line, now);
        self.stage(found);
    }

    fn agent_line(&mut self, line: &str) {
        let now = self.now();
        let event = serde_json::from_str::<Event>(line).ok();
        let found = self.stages.agent(event.as_ref().map_or("", |event| &event.phase), now);
        self.stage(found);
        self.line(line);
        if event.is_some_and(|event| event.action == RESTARTING) {
            self.stages = Stages::restarted(now);
        }
    }
}

/// Brings a machine's events and what its console shows together in one stream, which ends with the machine.
///
/// # Errors
/// The file for the events cannot be written.
pub fn follow(host: &str, events: ChildStdout, console: &Path, keep: &Path) -> Result<PipeReader, Fault> {
    let (reader, pipe) = io::pipe().doing(|| "making a pipe")?;
    let file = OpenOptions::new().create(true).append(true).open(keep);
    let file = file.doing(|| format!("opening {}", keep.display()))?;
    let stages = Stages::default();
    let out = Out { host: host.to_owned(), begun: Instant::now(), stages, pipe, file };
    let out = Arc::new(Mutex::new(out));
    let ended = Arc::new(AtomicBool::new(false));
    let (other_out, other_ended, console) = (Arc::clone(&out), Arc::clone(&ended), console.to_owned());
    std::thread::spawn(move || watch(&console, &other_out, &other_ended));
    std::thread::spawn(move || {
        // Read to the end whoever listens: a full pipe would stop the machine's writers.
        for line in BufReader::new(events).lines().map_while(Result::ok) {
            out.lock().unwrap_or_else(PoisonError::into_inner).agent_line(&line);
        }
        ended.store(true, Ordering::Relaxed);
    });
    Ok(reader)
}

/// Reads the console's file as it grows.
fn watch(console: &PathBuf, out: &Mutex<Out>, ended: &AtomicBool) {
    let Ok(mut file) = File::open(console) else { return };
    let mut pending = Vec::new();
    loop {
        let last = ended.load(Ordering::Relaxed);
        // A file that cannot be read gives no events; the machine runs all the same.
        let _ = file.read_to_end(&mut pending);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            out.lock().unwrap_or_else(PoisonError::into_inner).console_line(&String::from_utf8_lossy(&line));
        }
        if last {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told_by_its_parts() {
        let mut stages = Stages::default();
        let mut told = Vec::new();
        for (now, line) in [
            (0.5, "\u{1b}[H\u{1b}[Jgatehouse: started from hd0\r"),
            (1.0, "  Booting `Gatehouse, slot a'"),
            (4.5, "(XEN) Xen version 4.20.4-pre (Debian 4.20.3)"),
            (19.0, "[    0.000000] Linux version 6.12.107+deb13-amd64"),
            (50.0, "Begin: Loading essential drivers ... done."),
            (51.0, "Begin: Running /scripts/init-premount ... done."),
        ] {
            told.extend(stages.line(line, now).map(|(stage, _, text)| format!("{stage} {text}")));
        }
        for (now, phase) in [(60.0, "first-boot"), (70.0, "first-boot"), (80.0, "server"), (81.0, "server")] {
            told.extend(stages.agent(phase, now).map(|(stage, _, text)| format!("{stage} {text}")));
        }
        assert_eq!(
            told,
            [
                "boot/firmware 0.5 s, 0.5 s after power on",
                "boot/loader 4.0 s, 4.5 s after power on",
                "boot/xen 14.5 s, 19.0 s after power on",
                "boot/kernel 31.0 s, 50.0 s after power on",
                "boot/initramfs 10.0 s, 60.0 s after power on",
                "boot/system 10.0 s, 80.0 s after power on"
            ]
        );
    }

    #[test]
    fn an_installer_has_no_xen_and_is_followed_by_a_whole_start() {
        let mut stages = Stages::default();
        let mut told = Vec::new();
        for (now, line) in [
            (1.0, "gatehouse: started from hd0"),
            (1.5, "gatehouse: loading the installer"),
            (3.0, "[    0.000000] Linux version 6.12.107+deb13-amd64"),
            (9.0, "Begin: Loading essential drivers ... done."),
        ] {
            told.extend(stages.line(line, now).map(|(stage, _, text)| format!("{stage} {text}")));
        }
        told.extend(stages.agent("self-install", 12.0).map(|(stage, _, text)| format!("{stage} {text}")));
        assert_eq!(stages.agent("self-install", 30.0), None);
        stages = Stages::restarted(40.0);
        for (now, line) in [
            (41.0, "gatehouse: started from hd0"),
            (42.0, "gatehouse: handing over to hd1,gpt2"),
            (43.0, "gatehouse: started from hd1"),
            (46.0, "(XEN) Xen version 4.20.4-pre (Debian 4.20.3)"),
        ] {
            told.extend(stages.line(line, now).map(|(stage, _, text)| format!("{stage} {text}")));
        }
        assert_eq!(
            told,
            [
                "boot/firmware 1.0 s, 1.0 s after power on",
                "boot/loader 2.0 s, 3.0 s after power on",
                "boot/kernel 6.0 s, 9.0 s after power on",
                "boot/initramfs 3.0 s, 12.0 s after power on",
                "boot/firmware 1.0 s, 41.0 s after power on",
                "boot/loader 5.0 s, 46.0 s after power on"
            ]
        );
    }

    #[test]
    fn a_panic_is_told() {
        let mut stages = Stages::default();
        stages.line("(XEN) Xen version 4.20", 4.0);
        let told = stages.line("(XEN) Panic on CPU 0:\r", 5.0);
        assert_eq!(told, Some(("boot/xen", State::Failed, "(XEN) Panic on CPU 0:".to_owned())));
    }
}
