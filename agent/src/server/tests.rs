//! The server as nodes and strangers see it, over loopback at ports that are free.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gatehouse_model::evaluation::Counts;
use gatehouse_model::site::DiskRule;
use gatehouse_model::{Depot, Digest, Event, State};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

use super::Running;
use super::fixture::*;
use super::view::ViewKey;
use crate::control::board::NodeState;
use crate::wire::{Ack, EnrolAnswer, Failure, Given, Milestone, Order, Outcome, fingerprint};

#[test]
fn a_token_is_taken_once_and_only_from_its_node() {
    let place = Place::new();
    let server = place.start();
    let stranger = Client::new(&server, None);
    let (_, csr) = csr();
    let token = place.token("node1");
    for (name, shown) in [("node1", "0".repeat(64)), ("node2", token.clone()), ("other", token.clone())] {
        assert_eq!(stranger.enrol(name, &shown, &csr).status, 403, "{name}");
    }
    assert_eq!(stranger.enrol("node1", &token, "no request").status, 400);
    assert_eq!(stranger.enrol("node1", &token, &csr).status, 200);
    assert_eq!(stranger.enrol("node1", &token, &csr).status, 403, "used");
    assert_eq!(stranger.post("/enrol", "{}").status, 422);
    let events = place.board.status().events;
    let told: Vec<&str> = events
        .iter()
        .filter(|event| event.action == "refusing an enrolment" && event.state == State::Failed)
        .map(|event| event.message.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "127.0.0.1 asks to be node1, with a wrong token",
            "127.0.0.1 asks to be node2, with a wrong token",
            "127.0.0.1 asks to be other, which is no node of the site",
            "127.0.0.1 asks to be node1, with a token that was used already",
        ]
    );
}

#[test]
fn a_machine_is_let_in_once_somebody_has_approved_it() {
    let mut place = Place::new();
    place.machine = Some(DiskRule { bus: Some("nvme".into()), ..DiskRule::default() });
    let server = place.start();
    let stranger = Client::new(&server, None);
    let ((key, one), (_, other)) = (csr(), csr());
    assert_eq!(stranger.ask_in("node1", None, &one).status, 403, "a VM shows a token");
    let token = place.token("node2");
    assert_eq!(stranger.ask_in("node2", Some(&token), &one).status, 403, "a machine has none");
    for request in [&one, &other] {
        let answer = stranger.ask_in("node2", None, request);
        assert_eq!((answer.status, answer.text()), (202, String::new()));
    }
    let node = "node2".parse().expect("a name");
    let print = fingerprint(&key.subject_public_key_info());
    assert_eq!(place.approvals.waiting(&node).len(), 2);
    place.approvals.approve(&node, &print).expect("it asks");
    assert_eq!(stranger.ask_in("node2", None, &other).status, 202, "the other one was not meant");
    let answer = stranger.ask_in("node2", None, &one);
    assert_eq!(answer.status, 200);
    let answer: EnrolAnswer = serde_json::from_slice(&answer.body).expect("an answer");
    assert_eq!(answer.disk, place.machine);
    let known = Client::new(&server, Some((&answer.certificate, &key)));
    assert_eq!(known.get("/depot.json", &[]).status, 200);
}

#[test]
fn a_node_fetches_its_own_profile_whatever_names_it_asked_for() {
    let place = Place::new();
    let server = place.start();
    let client = enrolled(&place, &server, "node1");
    let page = client.get("/profiles/example.org/node1/XML/profile.xml", &[]);
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.etag.starts_with('"') && page.etag.ends_with('"'), "{}", page.etag);
    for alias in ["/profiles/node1.example.org/XML/profile.xml", "/profiles/node1/XML/profile.xml"] {
        assert_eq!(client.get(alias, &[]).body, page.body, "{alias}");
    }
    for (path, status) in [
        ("/profiles/example.org/node2/XML/profile.xml", 403),
        ("/profiles/node2/XML/profile.xml", 403),
        ("/profiles/node2.example.org/XML/profile.xml", 403),
        ("/profiles/elsewhere.org/node1/XML/profile.xml", 404),
    ] {
        assert_eq!(client.get(path, &[]).status, status, "{path}");
    }
    let again = client.get("/profiles/node1/XML/profile.xml", &[("if-none-match", &page.etag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = client.get("/profiles/node1/XML/profile.xml", &[("if-none-match", "\"x\"")]);
    assert_eq!(other.status, 200);
}

#[test]
fn strangers_are_told_to_enrol() {
    let place = Place::new();
    let server = place.start();
    let stranger = Client::new(&server, None);
    for path in
        ["/depot.json", "/profiles/node1/XML/profile.xml", "/profiles/example.org/node1/XML/profile.xml"]
    {
        assert_eq!(stranger.get(path, &[]).status, 401, "{path}");
    }
    for path in ["/progress", "/ack"] {
        assert_eq!(stranger.post(path, "{}").status, 401, "{path}");
    }
    let depot: Depot =
        serde_json::from_slice(&enrolled(&place, &server, "node1").get("/depot.json", &[]).body)
            .expect("the depot");
    assert_eq!(depot.layers.len(), 1);
}

/// What a node may fetch without its own credential, by every address that is served over TLS.
#[test]
fn nothing_of_a_node_is_shown_to_strangers_or_to_other_nodes() {
    let place = Place::new();
    let program = "#!/bin/sh\n# a program with a key in it: SECRET\n";
    let digest = Digest::of(program.as_bytes());
    let site = place.paths().site();
    fs::create_dir_all(site.join("components")).expect("made");
    fs::write(site.join("components/motd"), program).expect("written");
    let more = "profile.comment SECRET\n!profile.components mADD(motd)\nmotd.text x\n";
    fs::write(place.source("node1"), format!("{SOURCE}{more}")).expect("written");
    let server = place.start();
    let own = enrolled(&place, &server, "node1");
    let failure = Failure { component: "motd".into(), method: "configure".into(), output: "SECRET".into() };
    let ack = Ack { failed: vec![failure], ..Ack::new(Milestone::Applied, "x") };
    assert_eq!(own.post("/ack", &serde_json::to_string(&ack).expect("text")).status, 204);

    let component = format!("/components/{digest}");
    let paths = [
        "/healthz",
        "/enrol",
        "/depot.json",
        "/gatehouse.asc",
        "/profiles/example.org/node1/XML/profile.xml",
        "/profiles/node1/XML/profile.xml",
        &component,
        "/progress",
        "/ack",
        "/orders",
        "/orders/0",
        "/credentials/certificate",
        "/credentials/authority",
        "/credentials/secrets/munge",
        "/status.json",
        "/status",
        "/metrics",
    ];
    let routes = include_str!("secure.rs").matches("        .route(").count();
    assert_eq!(paths.len(), routes, "a new address is looked at here too");
    let ours: Vec<String> = paths.iter().map(|path| own.get(path, &[]).text()).collect();
    for index in [4, 5, 6] {
        assert!(ours[index].contains("SECRET"), "{}: {}", paths[index], ours[index]);
    }
    let others = [Client::new(&server, None), enrolled(&place, &server, "node2"), Client::plain(&server)];
    for (who, other) in others.iter().enumerate() {
        for path in paths {
            for reply in
                [other.get(path, &[]), other.get(path, &[("if-none-match", "*")]), other.post(path, "{}")]
            {
                assert!(!reply.text().contains("SECRET"), "{who} sees {path}: {}", reply.text());
            }
        }
        for path in [paths[4], paths[5], paths[6]] {
            assert!([401, 403, 404].contains(&other.get(path, &[]).status), "{who} {path}");
        }
    }
    for name in ["motd", "0", "..%2f..%2fsite.toml"] {
        assert_eq!(own.get(&format!("/components/{name}"), &[]).status, 404, "{name}");
    }
    fs::write(site.join("components/motd"), "#!/bin/sh\n# changed: SECRET\n").expect("written");
    server.refresh_now();
    assert_eq!(own.get(&component, &[]).status, 404, "what the newest profile does not name is not given");
}

#[test]
fn a_certificate_of_another_authority_opens_nothing() {
    let place = Place::new();
    let server = place.start();
    let key = KeyPair::generate().expect("a key");
    let own =
        CertificateParams::new(["node1.example.org".into()]).and_then(|params| params.self_signed(&key));
    let client = Client::new(&server, Some((&own.expect("signed").pem(), &key)));
    let result = client.agent.get(format!("{}/depot.json", client.base)).call();
    assert!(result.is_err(), "the handshake is refused");
}

#[test]
fn progress_and_acknowledgements_reach_the_board_in_the_nodes_name() {
    let place = Place::new();
    let server = place.start();
    let client = enrolled(&place, &server, "node1");
    let event = Event {
        ts: 1,
        host: "node2".into(),
        phase: "node/node2".into(),
        action: "down\u{1b}[2Jloading".into(),
        state: State::Progress,
        percent: Some(200),
        message: String::new(),
    };
    assert_eq!(client.post("/progress", &format!("{}\n\n", event.to_line())).status, 204);
    // The server tells of its own work meanwhile.
    let events = place.board.status().events;
    let told = events.iter().find(|told| told.ts == event.ts).expect("an event");
    assert_eq!((told.host.as_str(), told.phase.as_str()), ("node1", "node/node1"));
    assert_eq!((told.action.as_str(), told.percent), ("down?[2Jloading", Some(100)));
    assert_eq!(client.post("/progress", "{}\n").status, 400);

    let ack = Ack::new(Milestone::Running, "\"x\"");
    assert_eq!(client.post("/ack", &serde_json::to_string(&ack).expect("text")).status, 204);
    assert_eq!(place.board.take_acks(&node("node1")), [ack]);
}

#[test]
fn files_of_the_depot_come_whole_or_in_part_and_nothing_else_does() {
    let place = Place::new();
    let server = place.start();
    let client = Client::plain(&server);
    assert_eq!(client.get("/healthz", &[]).text(), "ok\n");
    assert_eq!(client.get("/agent", &[]).text(), "the agent");
    let whole = client.get("/layers/a.tar.zst", &[]);
    assert!(whole.status == 200 && whole.body == place.layer);
    assert_eq!(whole.etag, format!("\"{}\"", Digest::of(&place.layer)));

    let part = client.get("/layers/a.tar.zst", &[("range", "bytes=1500000-")]);
    assert_eq!((part.status, part.range.as_str()), (206, "bytes 1500000-2999999/3000000"));
    assert!(part.body == place.layer[1_500_000..]);
    let outside = client.get("/layers/a.tar.zst", &[("range", "bytes=3000000-")]);
    assert_eq!((outside.status, outside.range.as_str()), (416, "bytes */3000000"));
    assert_eq!(client.get("/layers/a.tar.zst", &[("if-none-match", &whole.etag)]).status, 304);

    let head = reply(client.agent.head(format!("{}/layers/a.tar.zst", client.base)).call());
    assert_eq!((head.status, head.length.as_str(), head.body.len()), (200, "3000000", 0));
    for path in [
        "/secret",
        "/layers/../secret",
        "/layers/%2e%2e/secret",
        "/layers//a.tar.zst",
        "/layers/",
        "/depot.json",
    ] {
        assert_eq!(raw_status(&server, path), 404, "{path}");
    }
    fs::write(place.dir.path().join("depot/agent"), "shorter").expect("written");
    assert_eq!(client.get("/agent", &[]).status, 500);
}

/// Asks for a path as it stands: clients tidy `..` away before they ask.
fn raw_status(server: &Running, path: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(server.http()).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn the_pool_is_served_as_apt_asks_for_it_and_its_signature_when_there_is_one() {
    let place = Place::new();
    let server = place.start();
    let plain = Client::plain(&server);
    for path in ["/pool/main/g/g++_1~a.deb", "/pool/main/g/g%2b%2b_1%7ea.deb"] {
        assert_eq!(plain.get(path, &[]).text(), "a package", "{path}");
    }
    assert_eq!(plain.get("/dists/trixie/main/binary-amd64/Packages", &[]).text(), "Package: g++\n");
    for path in ["/pool/main/g/../../../../secret", "/pool/%2e%2e/secret", "/pool/", "/dists/trixie"] {
        assert_eq!(plain.get(path, &[]).status, 404, "{path}");
    }
    // Made by a program that not every machine has; the scenarios look at it as apt does.
    let key = plain.get("/gatehouse.asc", &[]);
    assert!([200, 404].contains(&key.status), "{}", key.text());
    assert!(!key.text().contains("PRIVATE"));
}

#[test]
fn strangers_see_no_addresses_and_no_texts() {
    let place = Place::new();
    let server = place.start();
    place.board.update(&node("node1"), |line| {
        line.state = NodeState::Failed;
        line.message = "console: kernel panic".into();
    });
    place.board.say("node/node1", "installing", State::Failed, "console: kernel panic");
    let stranger = Client::new(&server, None);
    let text = stranger.get("/status.json", &[]).text();
    assert!(text.contains("node1") && text.contains("failed"), "{text}");
    assert!(!text.contains("panic") && !text.contains("127.0.0."), "{text}");
    let text = enrolled(&place, &server, "node1").get("/status.json?key=", &[]).text();
    assert!(
        !text.contains("panic") && !text.contains("127.0.0."),
        "a node sees no more than a stranger: {text}"
    );
    let key = ViewKey::read(&place.paths()).expect("readable").expect("there is a key");
    let text = stranger.get(&format!("/status.json?key={key}"), &[]).text();
    assert!(text.contains("panic") && text.contains("127.0.0.21"), "{text}");
    let page = stranger.get("/status", &[]).text();
    assert!(page.contains("status.json") && !page.contains("http:") && !page.contains("https:"));
    let figures = stranger.get("/metrics", &[]).text();
    assert!(figures.contains("gatehouse_node_failed{node=\"node1\"} 1\n"), "{figures}");
}

#[test]
fn the_authority_outlives_the_server_and_its_key_is_private() {
    let place = Place::new();
    let (key, csr) = csr();
    let server = place.start();
    let answer = Client::new(&server, None).enrol("node1", &place.token("node1"), &csr);
    let answer: EnrolAnswer = serde_json::from_slice(&answer.body).expect("an answer");
    let authority = server.authority_pem();
    server.stop();
    let server = place.start();
    assert_eq!(server.authority_pem(), authority);
    let client = Client::new(&server, Some((&answer.certificate, &key)));
    assert_eq!(client.get("/depot.json", &[]).status, 200);
    let state = place.dir.path().join("state");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&state.join("authority")), 0o700);
    assert_eq!(mode(&state.join("authority/ca.key")), 0o600);
    assert_eq!(mode(&state.join("authority/view.key")), 0o600);
    assert_eq!(mode(&state.join("profiles/node1.xml")), 0o600);
}

#[test]
fn what_does_not_compile_leaves_the_last_good_profile() {
    let place = Place::new();
    let server = place.start();
    let profiles = server.profiles();
    let good = profiles.page(&node("node1")).expect("published");
    fs::write(place.source("node1"), "# broken\n").expect("written");
    server.server.refresh(&std::collections::BTreeSet::new(), &mut String::new());
    assert_eq!(profiles.page(&node("node1")), Some(good.clone()));
    assert!(!profiles.problems(&node("node1")).is_empty());
    assert!(profiles.problems(&node("node2")).is_empty());
    let told =
        place.board.status().events.into_iter().any(|event| event.message.contains("lcfg/source/node1"));
    assert!(told, "the board says why");

    server.stop();
    let server = place.start();
    assert_eq!(server.profiles().page(&node("node1")), Some(good), "kept over a restart");
}

#[test]
fn a_profile_that_says_the_same_keeps_its_bytes() {
    let place = Place::new();
    let server = place.start();
    let before = server.profiles().page(&node("node1")).expect("published");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5000);
    let file = fs::File::options().write(true).open(place.source("node1")).expect("there");
    file.set_modified(later).expect("touched");
    let done = server.profiles().refresh().expect("refreshed");
    assert!(done.is_none_or(|done| done.changed.is_empty()), "touched only");
    assert_eq!(server.profiles().page(&node("node1")), Some(before.clone()));

    fs::write(place.source("node1"), format!("{SOURCE}profile.comment changed\n")).expect("written");
    server.server.refresh(&std::collections::BTreeSet::new(), &mut String::new());
    assert_ne!(server.profiles().page(&node("node1")), Some(before));
}

#[test]
fn a_taken_port_names_its_holder() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let fault = super::bind(holder.local_addr().expect("bound")).expect_err("taken");
    assert!(fault.render().contains("help: stop "), "{}", fault.render());
    assert!(fault.render().contains(&format!("(process {})", std::process::id())), "{}", fault.render());
}

#[test]
fn an_order_is_for_its_node_alone_and_answered_once() {
    let place = Place::new();
    let server = place.start();
    let (own, other) = (enrolled(&place, &server, "node1"), enrolled(&place, &server, "node2"));
    assert_eq!(own.get("/orders", &[]).status, 204);
    let order = Order::Evaluate(Counts { runs: 3, slow_runs: 1 });
    let hour = std::time::Duration::from_secs(3600);
    let pending = place.orders.give(&node("node1"), order, hour).expect("given");
    assert_eq!(other.get("/orders", &[]).status, 204);
    let answer = own.get("/orders", &[]);
    let given: Given = serde_json::from_slice(&answer.body).expect("an order");
    assert_eq!(given.order, order);
    let path = format!("/orders/{}", given.id);
    let outcome = serde_json::to_string(&Outcome::Failed("no \u{1b}[31mroom".into())).expect("text");
    let stranger = Client::new(&server, None);
    assert_eq!((stranger.get("/orders", &[]).status, stranger.post(&path, &outcome).status), (401, 401));
    assert_eq!(other.post(&path, &outcome).status, 404);
    assert_eq!(own.post("/orders/x", &outcome).status, 404);
    assert_eq!(own.post(&path, "{\"ran\":[]}").status, 422);
    assert_eq!(own.post(&path, &outcome).status, 204);
    assert_eq!(own.post(&path, &outcome).status, 404, "again");
    let told = pending.wait(hour).expect("in time").expect("an answer");
    assert_eq!(told, Outcome::Failed("no ?[31mroom".into()), "what a terminal can show");
}
