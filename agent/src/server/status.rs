//! How it stands, for people and programs: one page, the same as JSON, and figures.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};
use axum::{Json, http::HeaderValue};
use gatehouse_model::Event;
use serde::Serialize;

use super::Server;
use crate::control::board::{NodeState, NodeStatus, Status};
use crate::control::keeping::{ProfileStatus, Standing};
use crate::vmm::usage::Usage;
use crate::wire::{Failure, PhaseTime};

/// The page needs nothing but itself.
const PAGE: &str = include_str!("status.html");
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// [`Status`] as anybody may see it: without addresses and without texts, which may hold lines of a console.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    site: String,
    redacted: bool,
    phases: Vec<PhaseTime>,
    nodes: Vec<ShownNode>,
    events: Vec<Event>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ShownNode {
    name: String,
    state: NodeState,
    install_seconds: Option<f64>,
    phases: Vec<PhaseTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    standing: Standing,
    profile: ProfileStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated: Option<u64>,
}

fn shown(status: Status, known: bool) -> Shown {
    let node = |node: NodeStatus| ShownNode {
        name: node.name.to_string(),
        state: node.state,
        install_seconds: node.install_seconds,
        phases: node.phases,
        address: known.then_some(node.address),
        message: known.then_some(node.message),
        usage: node.usage.filter(|_| known),
        allocated: node.allocated.filter(|_| known),
        standing: node.profile.standing(),
        profile: if known { node.profile } else { redacted(node.profile) },
    };
    let event = |event: Event| if known { event } else { Event { message: String::new(), ..event } };
    Shown {
        site: status.site,
        redacted: !known,
        phases: status.phases,
        nodes: status.nodes.into_iter().map(node).collect(),
        events: status.events.into_iter().map(event).collect(),
        warnings: if known { status.warnings } else { Vec::new() },
    }
}

/// What of a node's profile anybody may see: names and times, but no text that a program or a source has in it.
fn redacted(profile: ProfileStatus) -> ProfileStatus {
    let failure = |failure: Failure| Failure { output: String::new(), ..failure };
    ProfileStatus {
        problems: profile.problems.iter().map(|_| String::new()).collect(),
        failed: profile.failed.into_iter().map(failure).collect(),
        ..profile
    }
}

/// `GET /status.json`, with the page's key as `?key=…` or without.
pub(super) async fn json(RawQuery(query): RawQuery, State(server): State<Arc<Server>>) -> impl IntoResponse {
    let given = query.as_deref().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("key="));
    let known = given.is_some_and(|key| server.view.fits(key));
    (no_store(), Json(shown(server.board.status(), known)))
}

/// `GET /status`.
pub(super) async fn page() -> impl IntoResponse {
    let policy = (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    ([policy, no_store()[0].clone()], Html(PAGE))
}

fn no_store() -> [(HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

/// `GET /metrics`, in Prometheus' text format.
pub(super) async fn metrics(State(server): State<Arc<Server>>) -> String {
    render_metrics(&server.board.status())
}

fn render_metrics(status: &Status) -> String {
    let mut out = String::from("# TYPE gatehouse_node_running gauge\n");
    for node in &status.nodes {
        let running = u8::from(node.state == NodeState::Running);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "gatehouse_node_running{{node=\"{}\"}} {running}", node.name);
    }
    out.push_str("# TYPE gatehouse_node_failed gauge\n");
    for node in &status.nodes {
        let failed = u8::from(node.state == NodeState::Failed);
        let _ = writeln!(out, "gatehouse_node_failed{{node=\"{}\"}} {failed}", node.name);
    }
    out.push_str("# TYPE gatehouse_node_install_seconds gauge\n");
    for node in &status.nodes {
        if let Some(seconds) = node.install_seconds {
            let _ = writeln!(out, "gatehouse_node_install_seconds{{node=\"{}\"}} {seconds}", node.name);
        }
    }
    profile_metrics(status, &mut out);
    usage_metrics(status, &mut out);
    out
}

/// A figure of each node, by name.
type Figure = (&'static str, fn(&ProfileStatus) -> Option<u64>);

/// Figures of how nodes stand to their profiles; those that are not known are left out.
const FIGURES: [Figure; 7] = [
    ("profile_published_timestamp_seconds", |profile| Some(profile.published.as_ref()?.at / 1000)),
    ("profile_fetched_timestamp_seconds", |profile| Some(profile.fetched.as_ref()?.at / 1000)),
    ("profile_acknowledged_timestamp_seconds", |profile| Some(profile.acknowledged.as_ref()?.at / 1000)),
    ("profile_heard_timestamp_seconds", |profile| Some(profile.heard? / 1000)),
    ("profile_stale", |profile| Some(u64::from(profile.standing() == Standing::Stale))),
    ("profile_failing", |profile| Some(u64::from(!profile.failed.is_empty()))),
    ("profile_problems", |profile| u64::try_from(profile.problems.len()).ok()),
];

fn profile_metrics(status: &Status, out: &mut String) {
    for (name, figure) in FIGURES {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE gatehouse_node_{name} gauge");
        for node in &status.nodes {
            if let Some(value) = figure(&node.profile) {
                let _ = writeln!(out, "gatehouse_node_{name}{{node=\"{}\"}} {value}", node.name);
            }
        }
    }
}

/// What nodes use, by name and kind; what is not known is left out.
const USED: [(&str, &str, Used); 7] = [
    ("cpu_seconds_total", "counter", |node| Some(node.usage?.cpu_seconds.to_string())),
    ("memory_bytes", "gauge", |node| Some(node.usage?.memory.to_string())),
    ("received_bytes_total", "counter", |node| Some(node.usage?.received?.to_string())),
    ("sent_bytes_total", "counter", |node| Some(node.usage?.sent?.to_string())),
    ("read_bytes_total", "counter", |node| Some(node.usage?.read?.to_string())),
    ("written_bytes_total", "counter", |node| Some(node.usage?.written?.to_string())),
    ("disk_allocated_bytes", "gauge", |node| Some(node.allocated?.to_string())),
];

type Used = fn(&NodeStatus) -> Option<String>;

fn usage_metrics(status: &Status, out: &mut String) {
    for (name, kind, used) in USED {
        let values: Vec<_> = status.nodes.iter().filter_map(|node| Some((&node.name, used(node)?))).collect();
        if values.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE gatehouse_node_{name} {kind}");
        for (node, value) in values {
            let _ = writeln!(out, "gatehouse_node_{name}{{node=\"{node}\"}} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::board::Board;
    use crate::server::sample_site;

    #[test]
    fn figures_are_of_what_is_known() {
        let site = sample_site();
        let board = Board::new(&site);
        let before = render_metrics(&board.status());
        let usage = Usage { cpu_seconds: 2.5, memory: 1 << 20, sent: Some(9), ..Usage::default() };
        board.of_usage(&site.nodes[0].name, Some(usage), Some(4096));
        let status = board.status();
        let after = render_metrics(&status);
        assert_eq!(
            after.strip_prefix(&before),
            Some(
                "# TYPE gatehouse_node_cpu_seconds_total counter\ngatehouse_node_cpu_seconds_total{node=\"node1\"} 2.5\n\
                 # TYPE gatehouse_node_memory_bytes gauge\ngatehouse_node_memory_bytes{node=\"node1\"} 1048576\n\
                 # TYPE gatehouse_node_sent_bytes_total counter\ngatehouse_node_sent_bytes_total{node=\"node1\"} 9\n\
                 # TYPE gatehouse_node_disk_allocated_bytes gauge\ngatehouse_node_disk_allocated_bytes{node=\"node1\"} 4096\n"
            )
        );
        assert_eq!(shown(status.clone(), true).nodes[0].usage, Some(usage));
        assert_eq!(shown(status, false).nodes[0].usage, None, "strangers see names and states");
    }
}
