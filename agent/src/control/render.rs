//! How status and events look as lines of text, for terminals and consoles.

use std::fmt::Write as _;

use gatehouse_model::{Event, State};

use super::board::{NodeState, NodeStatus, Status};
use super::keeping::Standing;
use super::top::short;

pub(super) fn render_status(status: &Status) -> String {
    let mut out = format!("{}\n", status.site);
    for phase in &status.phases {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {:<12} {:>6.1} s", phase.phase, phase.seconds);
    }
    if !status.message.is_empty() {
        let _ = writeln!(out, "  {}", status.message);
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "  warning: {warning}");
    }
    out.push('\n');
    out.push_str(&render_nodes(&status.nodes));
    out
}

/// The table of `gatectl node list`, a line a node.
pub fn render_nodes(nodes: &[NodeStatus]) -> String {
    let heads = ["NODE", "ADDRESS", "STATE", "PROFILE", "DISK", "INSTALLED IN"].map(str::to_owned);
    let rows = nodes.iter().map(|node| {
        let seconds =
            node.install_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
        let (state, profile) = (state_word(node.state).to_owned(), profile_word(node).to_owned());
        let disk = node.allocated.map_or_else(|| "-".to_owned(), short);
        [node.name.to_string(), node.address.to_string(), state, profile, disk, seconds]
    });
    let rows: Vec<[String; 6]> = std::iter::once(heads).chain(rows).collect();
    let messages = std::iter::once(String::new()).chain(nodes.iter().map(trouble));
    let mut out = String::new();
    for (line, message) in columns(&rows).into_iter().zip(messages) {
        out.push_str(format!("{line}  {message}").trim_end());
        out.push('\n');
    }
    out
}

/// The rows of a table as lines of equal length.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

/// What a person has to know of a node, in one line: the rest is in `gatectl log` and on the status page.
fn trouble(node: &NodeStatus) -> String {
    let failed = node.profile.failed.first().map(|failure| {
        let output = failure.output.lines().last().unwrap_or_default();
        format!("{} {} failed: {output}", failure.component, failure.method)
    });
    let text = Some(&node.message).filter(|message| !message.is_empty()).cloned();
    let text = text.or_else(|| node.profile.problems.first().cloned()).or(failed).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn profile_word(node: &NodeStatus) -> &'static str {
    if !node.profile.problems.is_empty() {
        return "unpublished";
    }
    match node.profile.standing() {
        Standing::Unknown => "-",
        Standing::Current => "current",
        Standing::Stale => "stale",
        Standing::Failing => "failing",
    }
}

pub(super) fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Absent => "absent",
        NodeState::Asking => "asking",
        NodeState::Installing => "installing",
        NodeState::Stopped => "stopped",
        NodeState::Starting => "starting",
        NodeState::Running => "running",
        NodeState::Ailing => "ailing",
        NodeState::Failed => "failed",
    }
}

/// An event as one line.
pub fn render_event(event: &Event) -> String {
    let seconds = event.ts / 1000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let state = match event.state {
        State::Started => "started",
        State::Progress => "progress",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
    };
    let percent = event.percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    let text = format!(
        "{:02}:{:02}:{:02}Z {}: {}: {state}{percent}",
        hour, minute, second, event.phase, event.action
    );
    let message = if event.message.is_empty() { String::new() } else { format!(": {}", event.message) };
    format!("{text}{message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::keeping::{ProfileStatus, Seen};
    use crate::wire::Failure;

    fn node(name: &str, state: NodeState, seconds: Option<f64>, message: &str) -> NodeStatus {
        NodeStatus {
            name: name.parse().expect("a name"),
            address: "10.0.2.21".parse().expect("an address"),
            machine: false,
            state,
            install_seconds: seconds,
            phases: Vec::new(),
            message: message.to_owned(),
            profile: ProfileStatus::default(),
            not_held: Vec::new(),
            usage: None,
            allocated: None,
        }
    }

    #[test]
    fn nodes_are_a_table() {
        let mut wrong = node("se", NodeState::Running, Some(4.0), "");
        wrong.profile.problems.push("lcfg/source/se:3: no resource".into());
        let mut failing = node("ui", NodeState::Running, Some(4.0), "");
        let seen = Some(Seen { etag: "a".into(), at: 1 });
        let output = "reading motd\nno room".to_owned();
        let failed = Failure { component: "motd".into(), method: "configure".into(), output };
        failing.profile = ProfileStatus {
            published: seen.clone(),
            acknowledged: seen,
            failed: vec![failed],
            ..ProfileStatus::default()
        };
        let large =
            NodeStatus { allocated: Some(3 << 29), ..node("ce", NodeState::Running, Some(83.25), "") };
        let nodes =
            [large, wrong, failing, node("worker-01", NodeState::Failed, None, "no room\non its disk")];
        assert_eq!(
            render_nodes(&nodes),
            "NODE       ADDRESS    STATE    PROFILE      DISK  INSTALLED IN\n\
             ce         10.0.2.21  running  -            1.5G  83.2 s\n\
             se         10.0.2.21  running  unpublished  -     4.0 s         lcfg/source/se:3: no resource\n\
             ui         10.0.2.21  running  failing      -     4.0 s         motd configure failed: no room\n\
             worker-01  10.0.2.21  failed   -            -     -             no room\n"
        );
    }

    #[test]
    fn warnings_stand_above_the_nodes() {
        let mut status = Status {
            site: "gate".into(),
            phases: Vec::new(),
            nodes: vec![node("ce", NodeState::Running, None, "")],
            events: Vec::new(),
            message: String::new(),
            warnings: Vec::new(),
        };
        let nodes = render_nodes(&status.nodes);
        assert_eq!(render_status(&status), format!("gate\n\n{nodes}"));
        status.warnings.push("it ends tomorrow; act".into());
        assert_eq!(render_status(&status), format!("gate\n  warning: it ends tomorrow; act\n\n{nodes}"));
    }

    #[test]
    fn events_are_lines() {
        let event = Event {
            ts: 45_296_000,
            host: "node1".into(),
            phase: "node/node1".into(),
            action: "downloading layer".into(),
            state: State::Progress,
            percent: Some(40),
            message: "90 MiB/s".into(),
        };
        assert_eq!(
            render_event(&event),
            "12:34:56Z node/node1: downloading layer: progress 40 %: 90 MiB/s\n"
        );
    }
}
