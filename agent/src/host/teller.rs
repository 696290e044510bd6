//! Tells people and programs of a start: short lines on every console, events as JSON on a trial's port.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::Sender;

use gatehouse_model::{Event, State};

use crate::control::board::now_millis;

/// Where a trial's emulator takes the events, if there is one.
const EVENT_PORT: &str = "/dev/virtio-ports/gatehouse.events";
/// Events kept for a report: far more than an install tells, and a machine that tells them for ever keeps its memory.
const KEPT: usize = 10_000;

/// The consoles and the event port of this machine. One that does not take a line is passed over: a start must
/// not hang on a terminal.
#[derive(Debug)]
pub struct Teller {
    /// The host's name, once the site has told it.
    pub host: String,
    phase: &'static str,
    /// Who else hears of events.
    pub also: Option<Sender<Event>>,
    consoles: Vec<File>,
    port: Option<File>,
    told: VecDeque<Event>,
}

impl Teller {
    /// Opens every console that the kernel writes to, and the event port; what is said belongs to a phase.
    pub fn new(phase: &'static str) -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let consoles = active.split_whitespace().filter_map(|name| open(&Path::new("/dev").join(name)));
        let (consoles, port) = (consoles.collect(), open(Path::new(EVENT_PORT)));
        Self { host: String::new(), phase, also: None, consoles, port, told: VecDeque::new() }
    }

    /// Tells an event of the start itself.
    pub fn say(&mut self, action: &str, state: State, message: &str) {
        let (host, phase) = (String::new(), self.phase.to_owned());
        let (action, message) = (action.to_owned(), message.to_owned());
        self.tell(Event { ts: now_millis(), host, phase, action, state, percent: None, message });
    }

    /// Tells an event.
    pub fn tell(&mut self, event: Event) {
        let event = Event { host: self.host.clone(), ..event };
        self.show(&line(&event));
        if let Some(port) = &mut self.port {
            let _ = writeln!(port, "{}", event.to_line());
        }
        if let Some(also) = &self.also {
            // Who has gone hears nothing.
            let _ = also.send(event.clone());
        }
        if self.told.len() == KEPT {
            self.told.pop_front();
        }
        self.told.push_back(event);
    }

    /// What was told, for a report.
    pub fn told(&self) -> Vec<Event> {
        self.told.iter().cloned().collect()
    }

    /// Writes a text to every console.
    pub fn show(&mut self, text: &str) {
        for console in &mut self.consoles {
            let _ = console.write_all(text.as_bytes());
        }
    }
}

/// Never waits for the other side, and never makes it this process's controlling terminal.
fn open(path: &Path) -> Option<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

fn line(event: &Event) -> String {
    let how = match event.state {
        State::Started => " …",
        State::Progress => "",
        State::Succeeded => ": done",
        State::Failed => ": failed",
    };
    let message = if event.message.is_empty() { String::new() } else { format!(": {}", event.message) };
    format!("gatehouse: {}{how}{message}\n", event.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_short() {
        let mut event = Event {
            ts: 0,
            host: String::new(),
            phase: "first-boot".into(),
            action: "filling /var".into(),
            state: State::Started,
            percent: None,
            message: String::new(),
        };
        assert_eq!(line(&event), "gatehouse: filling /var …\n");
        event.state = State::Failed;
        event.message = "no room".into();
        assert_eq!(line(&event), "gatehouse: filling /var: failed: no room\n");
    }
}
