//! A machine's event stream as people see it: bars on a terminal, a line per event elsewhere.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gatehouse_model::{Event, State};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::board::Board;
use super::phases::Phases;
use super::ssh;
use crate::term;

/// The phase of a medium's installer.
const INSTALL: &str = "self-install";

/// What the stream brought.
pub enum Seen {
    /// Something the board may show.
    Change,
    /// Something that does not.
    Event,
    /// Nothing new.
    Nothing,
    /// The machine does not install, and waits for somebody.
    Refused(String),
    /// The stream ended: the machine is gone.
    End,
}

/// Follows one stream.
pub struct Progress {
    lines: Receiver<String>,
    by_phase: BTreeMap<String, ProgressBar>,
    phases: Phases,
}

impl Progress {
    /// Reads the stream in a thread of its own, to its end.
    pub fn follow(events: Box<dyn BufRead + Send>, power_on: Instant) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in events.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { lines, by_phase: BTreeMap::new(), phases: Phases::since(power_on) }
    }

    /// Shows what comes next, waiting for it at most so long.
    pub fn next(&mut self, at_most: Duration) -> Seen {
        match self.lines.recv_timeout(at_most) {
            Ok(line) => {
                let Ok(event) = serde_json::from_str::<Event>(&line) else { return Seen::Event };
                self.phases.note(&event, Instant::now());
                match term::bars() {
                    Some(bars) => self.draw(bars, &event),
                    None => tell(&event),
                }
                if event.phase == INSTALL && event.action == "installing" && event.state == State::Failed {
                    return Seen::Refused(event.message);
                }
                if shows_on_board(&event) { Seen::Change } else { Seen::Event }
            }
            Err(RecvTimeoutError::Timeout) => Seen::Nothing,
            Err(RecvTimeoutError::Disconnected) => Seen::End,
        }
    }

    fn draw(&mut self, bars: &MultiProgress, event: &Event) {
        let bar = self.by_phase.entry(event.phase.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix:16!} {bar:24} {msg}");
            let bar = ProgressBar::new(100).with_style(style.expect("the template is right"));
            bar.set_prefix(event.phase.clone());
            bars.add(bar)
        });
        bar.set_message(format!("{} {}", event.action, event.message));
        match (event.state, event.percent) {
            (_, Some(percent)) => bar.set_position(percent.into()),
            (State::Started, None) => bar.set_position(0),
            (State::Succeeded, None) => bar.set_position(100),
            _ => {}
        }
    }

    /// Ends with a line per phase and a table of the nodes.
    pub fn finish(&self, board: &Board, begun: Instant, ways: &ssh::Ways) {
        for bar in self.by_phase.values() {
            bar.finish_and_clear();
        }
        let of_board = board.phases.iter().map(|phase| (phase.phase.clone(), phase.seconds));
        let of_nodes = board.nodes.iter().flat_map(|node| {
            let name = |phase: &str| format!("{}: {phase}", node.name);
            node.phases.iter().map(move |phase| (name(&phase.phase), phase.seconds))
        });
        for (name, seconds) in self.phases.ended().iter().cloned().chain(of_board).chain(of_nodes) {
            term::say(&format!("{name:24} {seconds:8.1} s"));
        }
        term::say(&format!("{:16} {:16} {:10} {:>12}  ssh", "node", "address", "state", "install"));
        for node in &board.nodes {
            let seconds = node.install_seconds.map(|s| format!("{s:.1} s")).unwrap_or_default();
            let port = ways.of(&node.name).map(|way| way.port).unwrap_or_default();
            let line = format!(
                "{:16} {:16} {:10} {seconds:>12}  127.0.0.1:{port}",
                node.name, node.address, node.state
            );
            term::say(&line);
        }
        term::say(&format!("all nodes are up after {:.1} s", begun.elapsed().as_secs_f64()));
    }
}

/// Whether an event changes what the board says of a node being up. Asking for the board costs an emulated
/// machine seconds, so it is not asked at every event.
fn shows_on_board(event: &Event) -> bool {
    let ended = matches!(event.state, State::Succeeded | State::Failed);
    let of_node = event.phase.starts_with("node/");
    let action = matches!(event.action.as_str(), "starting" | "adopting" | "running" | "installing");
    ended && of_node && action
}

fn tell(event: &Event) {
    let percent = event.percent.map(|p| format!(" {p}%")).unwrap_or_default();
    let state = match event.state {
        State::Started => "started",
        State::Progress => "",
        State::Succeeded => "done",
        State::Failed => "FAILED",
    };
    let line = format!("{}: {} {state}{percent} {}", event.phase, event.action, event.message);
    term::pass_on(event, line.trim_end());
}
