//! Tells how far the install is: short lines on the console, events to the server. Telling never holds the
//! install up; what cannot be sent is dropped.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gatehouse_model::{Event, NodeName, State};

use crate::control::board::now_millis;
use crate::node::client::Client;

/// How long events are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(500);
/// How many events are kept while the server cannot be told.
const KEPT: usize = 200;

/// Tells events; the ones from before the server is known are sent when it is.
#[derive(Debug)]
pub struct Teller {
    node: NodeName,
    begun: Instant,
    early: Vec<Event>,
    sender: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    /// A teller for a node, known to the console only.
    pub fn new(node: NodeName) -> Self {
        Self { node, begun: Instant::now(), early: Vec::new(), sender: None, thread: None }
    }

    /// From now on the server is told too.
    pub fn connect(&mut self, client: Client) {
        let (sender, receiver) = channel();
        for event in self.early.drain(..) {
            // The receiver lives until the sender is gone.
            let _ = sender.send(event);
        }
        self.sender = Some(sender);
        self.thread = Some(thread::spawn(move || send_on(&client, &receiver)));
    }

    /// Tells one event.
    pub fn say(&mut self, action: &str, state: State, percent: Option<u8>, message: &str) {
        let word = match state {
            State::Started => "...",
            State::Progress => "",
            State::Succeeded => "done",
            State::Failed => "FAILED",
        };
        let share = percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
        let rest = format!("{word}{share} {message}");
        println!("[{:6.1}] {}: {action} {}", self.begun.elapsed().as_secs_f64(), self.node, rest.trim());
        let event = Event {
            ts: now_millis(),
            host: self.node.to_string(),
            phase: format!("node/{}", self.node),
            action: action.to_owned(),
            state,
            percent,
            message: message.to_owned(),
        };
        match &self.sender {
            Some(sender) => {
                let _ = sender.send(event);
            }
            None if self.early.len() < KEPT => self.early.push(event),
            None => {}
        }
    }

    /// Sends what is left, waiting for it no longer than this.
    pub fn finish(&mut self, at_most: Duration) {
        self.sender = None;
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < at_most {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn send_on(client: &Client, events: &Receiver<Event>) {
    let mut lines = String::new();
    while let Ok(first) = events.recv() {
        lines.clear();
        put(&mut lines, &first);
        let begun = Instant::now();
        while let Ok(event) = events.recv_timeout(GATHER.saturating_sub(begun.elapsed())) {
            put(&mut lines, &event);
        }
        // Progress that is not heard is lost; the acknowledgement at the end is what counts.
        let _ = client.progress(&lines);
    }
}

fn put(lines: &mut String, event: &Event) {
    lines.push_str(&event.to_line());
    lines.push('\n');
}
