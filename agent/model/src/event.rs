//! The one type in which progress is told: on terminals, serial consoles, pages, sticks and webhooks.

use serde::{Deserialize, Serialize};

/// How far an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It began.
    Started,
    /// It goes on; `percent` says how far.
    Progress,
    /// It ended well.
    Succeeded,
    /// It broke; `message` says how.
    Failed,
}

/// One line of progress. Written as one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970 by the teller's clock.
    pub ts: u64,
    /// Who tells: the host's or a node's name.
    pub host: String,
    /// The part of the work: `survey`, `disk`, `network`, `server`, `node/<name>` …
    pub phase: String,
    /// What is being done, in a few words without the phase's name: `downloading layer`.
    pub action: String,
    /// How far it is.
    pub state: State,
    /// 0 to 100 while it goes on, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Figures or the fault's text; empty where there is nothing to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Event {
    /// The event as one line of JSON without its newline.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("an event holds only text and numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_reads_back() {
        let event = Event {
            ts: 1,
            host: "minimal".into(),
            phase: "node/node1".into(),
            action: "downloading layer".into(),
            state: State::Progress,
            percent: Some(40),
            message: String::new(),
        };
        let line = event.to_line();
        assert_eq!(
            line,
            r#"{"ts":1,"host":"minimal","phase":"node/node1","action":"downloading layer","state":"progress","percent":40}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).expect("read back"), event);
    }
}
