//! Certificates as OpenSSL sees them, and the requests as the server's nodes and strangers make them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

use super::authority::public_key;
use super::*;
use crate::server::Running;
use crate::server::fixture::{Client, Place, SOURCE, csr, enrolled, node};
use crate::wire::CertificateAnswer;

const GRID: &str = "[grid]\nbase = \"/C=IE/O=Grid/OU=gate\"\n\
    [[grid-user]]\nname = \"alice\"\nuid = 20001\ndn = \"/C=IE/O=Grid/OU=gate/CN=Alice (1)\"\n";

/// A directory in which OpenSSL works.
struct Openssl(TempDir);

impl Openssl {
    /// None where the machine does not have it.
    fn found() -> Option<Self> {
        if let Err(error) = Command::new("openssl").arg("version").output() {
            assert!(std::env::var_os("CI").is_none(), "openssl: {error}");
            println!("skipped, because openssl: {error}");
            return None;
        }
        Some(Self(tempfile::tempdir().expect("a directory")))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("written");
    }

    /// Its status and all that it says.
    fn run(&self, words: &str) -> (bool, String) {
        let mut command = Command::new("openssl");
        let output =
            command.args(words.split(' ')).current_dir(self.0.path()).output().expect("openssl is there");
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    }

    fn good(&self, words: &str) -> String {
        let (good, text) = self.run(words);
        assert!(good, "openssl {words}: {text}");
        text
    }

    /// A request for a new key, in the name of somebody else.
    fn csr(&self, key: &str) -> String {
        self.good(&format!(
            "req -new -newkey {key} -nodes -keyout key.pem -out csr.pem -subj /O=Grid/CN=root"
        ));
        fs::read_to_string(self.0.path().join("csr.pem")).expect("made")
    }
}

/// A Grid site, and a server of it whose `node1` may have what these lines of its source say.
fn grid_place(lines: &str) -> (Place, Running) {
    let mut place = Place::new();
    place.more = GRID.to_owned();
    let listed = format!("{SOURCE}!profile.components mADD(credentials)\n{lines}");
    fs::write(place.source("node1"), listed).expect("written");
    let server = place.start();
    (place, server)
}

fn ask(client: &Client, name: &str, csr: &str) -> (u16, String) {
    let body = serde_json::json!({ "name": name, "csr": csr }).to_string();
    let reply = client.post("/credentials/certificate", &body);
    let answer = serde_json::from_slice::<CertificateAnswer>(&reply.body);
    (reply.status, answer.map_or_else(|_| reply.text(), |answer| answer.certificate))
}

fn told(place: &Place, words: &str) -> bool {
    let events = place.board.status().events;
    let of = |event: &&gatehouse_model::Event| {
        event.phase == "server" && event.state == gatehouse_model::State::Failed
    };
    events.iter().filter(of).any(|event| event.message.contains(words))
}

#[test]
fn openssl_believes_what_is_certified() {
    let Some(openssl) = Openssl::found() else { return };
    let (place, server) = grid_place("credentials.certificates host alice\n");
    let client = enrolled(&place, &server, "node1");
    openssl.write("ca.pem", &client.get("/credentials/authority", &[]).text());
    let text = openssl.good("x509 -in ca.pem -noout -subject -nameopt compat -ext basicConstraints,keyUsage");
    assert!(text.contains("subject=/C=IE/O=Grid/OU=gate/CN=Authority"), "{text}");
    assert!(text.contains("critical\n    CA:TRUE") && text.contains("Certificate Sign, CRL Sign"), "{text}");
    let mut serials = Vec::new();
    for (name, key, subject, purposes) in [
        ("host", "rsa:2048", "/CN=node1.example.org", ["sslserver", "sslclient"].as_slice()),
        ("host", "rsa:3072", "/CN=node1.example.org", &["sslserver", "sslclient"]),
        ("alice", "rsa:2048", "/CN=Alice (1)", &["sslclient"]),
        ("alice", "ec -pkeyopt ec_paramgen_curve:P-256", "/CN=Alice (1)", &["sslclient"]),
    ] {
        let (status, text) = ask(&client, name, &openssl.csr(key));
        assert_eq!(status, 200, "{text}");
        openssl.write("cert.pem", &text);
        for purpose in purposes {
            openssl.good(&format!("verify -x509_strict -CAfile ca.pem -purpose {purpose} cert.pem"));
        }
        let (server, _) = openssl.run("verify -CAfile ca.pem -purpose sslserver cert.pem");
        assert_eq!(server, name == "host");
        let text = openssl.good("x509 -in cert.pem -noout -subject -nameopt compat -serial -text");
        assert!(text.contains(&format!("subject=/C=IE/O=Grid/OU=gate{subject}\n")), "{text}");
        assert!(text.contains("Basic Constraints: critical\n                CA:FALSE"), "{text}");
        assert!(
            text.contains("Key Usage: critical\n                Digital Signature, Key Encipherment"),
            "{text}"
        );
        assert_eq!(text.contains("DNS:node1.example.org, DNS:node1\n"), name == "host", "{text}");
        assert!(!text.contains("root"), "what was asked for counts for nothing: {text}");
        // The certificate is for the key of the request.
        let own = openssl.good("pkey -in key.pem -pubout");
        assert_eq!(openssl.good("x509 -in cert.pem -noout -pubkey"), own);
        serials.push(text.lines().find(|line| line.starts_with("serial=")).map(str::to_owned));
        openssl.good("x509 -in cert.pem -noout -checkend 34000000");
        assert!(!openssl.run("x509 -in cert.pem -noout -checkend 34214400").0, "395 days");
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4);
    let issued = issued::read(&place.dir.path().join("state/grid/issued.json"));
    let names: Vec<&str> = issued.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["host", "alice"], "a renewal takes the old one's place");
}

#[test]
fn weak_and_odd_keys_and_requests_of_others_keys_are_not_certified() {
    let Some(openssl) = Openssl::found() else { return };
    for (key, good) in [
        ("rsa:1024", false),
        ("rsa:2048", true),
        ("ec -pkeyopt ec_paramgen_curve:P-256", true),
        ("ec -pkeyopt ec_paramgen_curve:P-384 -sha384", true),
        ("ec -pkeyopt ec_paramgen_curve:P-384 -sha256", false),
        ("ed25519", false),
    ] {
        assert_eq!(public_key(&openssl.csr(key)).is_ok(), good, "{key}");
    }
    // The last character before the padding is of the signature.
    let csr = openssl.csr("rsa:2048");
    let at = csr.find("\n-----END").expect("an end") - 8;
    let other = if csr.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = [&csr[..at], other, &csr[at + 1..]].concat();
    assert!(public_key(&forged).is_err());
    assert!(public_key("").is_err());
}

#[test]
fn a_node_gets_what_its_own_profile_says_and_refusals_are_told() {
    let (place, server) = grid_place("credentials.certificates host bob\ncredentials.secrets munge\n");
    let (one, two) = (enrolled(&place, &server, "node1"), enrolled(&place, &server, "node2"));
    let (_, csr) = csr();
    assert_eq!(ask(&one, "host", &csr).0, 200);
    assert_eq!(ask(&one, "host", "none").0, 400);
    for (client, name, words) in [
        (&one, "alice", "node1 asks for a certificate by the name \"alice\": credentials.certificates"),
        (&one, "bob", "node1 asks for a certificate by the name \"bob\": the site has no grid-user"),
        (&two, "host", "node2 asks for a certificate by the name \"host\": credentials.certificates"),
    ] {
        let (status, text) = ask(client, name, &csr);
        assert_eq!(status, 403, "{text}");
        assert!(text.contains(words) && told(&place, words), "{text}");
    }
    let munge = one.get("/credentials/secrets/munge", &[]);
    assert_eq!((munge.status, munge.body.len()), (200, 128));
    assert_eq!(one.get("/credentials/secrets/munge", &[]).body, munge.body, "made once");
    assert_eq!(two.get("/credentials/secrets/munge", &[]).status, 403);
    assert!(told(&place, "node2 asks for the secret \"munge\""));
    for path in ["/credentials/secrets/other", "/credentials/secrets/..%2fmunge"] {
        assert_eq!(one.get(path, &[]).status, 403, "{path}");
    }
    let mode = |path: &str| {
        let about = fs::metadata(place.dir.path().join("state").join(path)).expect("there");
        about.permissions().mode() & 0o777
    };
    assert_eq!([mode("grid"), mode("secrets")], [0o700, 0o700]);
    for path in ["grid/ca.key", "grid/issued.json", "secrets/munge"] {
        assert_eq!(mode(path), 0o600, "{path}");
    }
}

#[test]
fn strangers_get_nothing_and_a_site_without_a_grid_has_none() {
    let place = Place::new();
    let listed = format!("{SOURCE}!profile.components mADD(credentials)\ncredentials.certificates host\n");
    fs::write(place.source("node1"), listed).expect("written");
    let server = place.start();
    let (_, csr) = csr();
    let stranger = Client::new(&server, None);
    assert_eq!(ask(&stranger, "host", &csr).0, 401);
    for path in ["/credentials/authority", "/credentials/secrets/munge"] {
        assert_eq!(stranger.get(path, &[]).status, 401, "{path}");
    }
    let own = enrolled(&place, &server, "node1");
    let (status, text) = ask(&own, "host", &csr);
    assert!(status == 403 && text.contains("[grid]"), "{text}");
    assert_eq!(own.get("/credentials/authority", &[]).status, 404);
    assert!(!place.dir.path().join("state/grid").exists());
}

#[test]
fn what_ends_soon_stands_on_the_board_until_it_is_renewed() {
    let (place, server) = grid_place("credentials.certificates host alice\n");
    assert!(place.dir.path().join("state/grid/ca.key").exists(), "made at the first start");
    assert_eq!(place.board.status().warnings, [""; 0]);
    let path = place.dir.path().join("state/grid/issued.json");
    let soon = crate::control::board::now_millis() / 1000 + 10 * super::super::signer::DAY;
    let old = |name: &str, by: &str| Issued { node: node(name), name: by.into(), from: 0, not_after: soon };
    // Of a node that no longer asks for it, of one that is gone, and of a user who is.
    let all = [old("node1", "host"), old("node2", "host"), old("gone", "host"), old("node1", "carol")];
    fs::write(&path, serde_json::to_string(&all).expect("text")).expect("written");
    server.server.look_at_ends();
    let warnings = place.board.status().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("the Grid certificate of node1 ends in "), "{warnings:?}");
    let text = Client::new(&server, None).get("/status.json", &[]).text();
    assert!(!text.contains("Grid certificate"), "strangers see no texts: {text}");

    let client = enrolled(&place, &server, "node1");
    assert_eq!(ask(&client, "host", &csr().1).0, 200);
    assert_eq!(place.board.status().warnings, [""; 0]);
}

#[test]
fn the_grid_authority_stays_with_its_subject_and_its_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::new(&Paths { state: dir.path().to_owned(), ..Paths::trial(dir.path(), dir.path()) });
    let base = include_str!("../../../../site-templates/minimal/site.toml");
    let site = |text: &str| Site::parse(&format!("{base}\n{text}")).expect("a site");
    let first = store.authority(&site("[grid]")).expect("made");
    assert_eq!(store.authority(&site("[grid]")).expect("there"), first);
    let other = store.authority(&site("[grid]\nbase = \"/O=Other\"")).expect_err("another one");
    assert!(other.render().contains("O=Grid, OU=minimal, CN=Authority"), "{}", other.render());

    let key = fs::read(dir.path().join("grid/ca.key")).expect("there");
    fs::remove_file(dir.path().join("grid/ca.crt")).expect("removed");
    let own = (0, u64::MAX);
    let short = site("[grid]\nauthority-days = 2\ncertificate-days = 1");
    let warnings = store.warnings(&short, own, |_, _| true).expect("looked at");
    assert_eq!(warnings, [""; 0], "a new one with the same key");
    assert_eq!(fs::read(dir.path().join("grid/ca.key")).expect("there"), key);
    assert_ne!(store.authority(&short).expect("there"), first);
}
