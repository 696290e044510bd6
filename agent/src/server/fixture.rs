//! For tests: a server over loopback at ports that are free, and one who asks it.

use std::fs;
use std::sync::Arc;

use gatehouse_model::site::DiskRule;
use gatehouse_model::{Depot, Digest, FileRef, Layer, Lock, NodeName, PackageId, PackageSet, Pool, Site};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::approval::Approvals;
use super::orders::Orders;
use super::tokens::Tokens;
use super::{Running, Server, ServerConfig};
use crate::control::board::Board;
use crate::current::Current;
use crate::paths::Paths;
use crate::wire::{EnrolAnswer, EnrolRequest};

const SITE: &str = r#"
schema = 1
[site]
name = "gate"
domain = "example.org"
epoch = "2026-01-01T00:00:00Z"
[[disk]]
min-size = "8GiB"
[network]
subnet = "127.0.0.0/24"
host = "127.0.0.1"
[[node]]
name = "node1"
address = "127.0.0.21"
memory = "512MiB"
disk = "4GiB"
[[node]]
name = "node2"
address = "127.0.0.22"
memory = "512MiB"
disk = "4GiB"
"#;
pub(super) const SOURCE: &str = "#include <gatehouse/site.h>\n\
    profile.domain SITE_DOMAIN\nprofile.components profile client\nclient.url SITE_SERVER_URL\n\
    profile.packages @site.pkgs\n";

/// A site with `node1` and `node2` at loopback addresses.
pub(crate) fn sample_site() -> Site {
    Site::parse(SITE).expect("a good site")
}

pub(super) fn sample_lock() -> Lock {
    let bash = PackageId { name: "bash".into(), version: "5.2-1".into(), architecture: "amd64".into() };
    let set = PackageSet { name: "node-1".into(), wishes: vec!["bash".into()], packages: vec![bash] };
    let zero = Digest::of(b"");
    Lock { schema: 1, agent: zero, request: zero, sets: vec![set], packages: Vec::new() }
}

pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) board: Arc<Board>,
    pub(crate) notify_port: u16,
    pub(super) tokens: Arc<Tokens>,
    pub(super) approvals: Arc<Approvals>,
    pub(super) orders: Arc<Orders>,
    /// Makes a machine of its own of `node2`.
    pub(super) machine: Option<DiskRule>,
    /// What the site has besides.
    pub(crate) more: String,
    pub(super) layer: Vec<u8>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let lcfg = dir.path().join("state/site/lcfg");
        fs::create_dir_all(lcfg.join("source")).expect("made");
        fs::create_dir_all(lcfg.join("packages")).expect("made");
        fs::write(lcfg.join("packages/site.pkgs"), "bash=*\n").expect("written");
        fs::write(lcfg.join("source/node1"), SOURCE).expect("written");
        fs::write(lcfg.join("source/node2"), SOURCE).expect("written");
        let layer: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::create_dir_all(dir.path().join("depot/layers")).expect("made");
        fs::write(dir.path().join("depot/layers/a.tar.zst"), &layer).expect("written");
        fs::write(dir.path().join("depot/agent"), "the agent").expect("written");
        fs::write(dir.path().join("depot/secret"), "not named").expect("written");
        let board = Arc::new(Board::new(&sample_site()));
        Self {
            dir,
            board,
            notify_port: 732,
            tokens: Arc::new(Tokens::new()),
            approvals: Arc::default(),
            orders: Arc::default(),
            machine: None,
            more: String::new(),
            layer,
        }
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::trial(self.dir.path(), &self.dir.path().join("depot"))
    }

    pub(crate) fn start(&self) -> Running {
        let file = |path: &str, bytes: &[u8]| FileRef {
            path: path.into(),
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        let layer = Layer { file: file("layers/a.tar.zst", &self.layer), unpacked: 1, entries: 1 };
        let depot = Depot {
            schema: 1,
            agent: file("agent", b"the agent"),
            kernels: [].into(),
            machine: None,
            layers: [(Digest::of(b"closure"), layer)].into(),
            pool: self.pool(),
        };
        let any = "127.0.0.1:0".parse().expect("an address");
        let mut site = Site::parse(&format!("{SITE}{}", self.more)).expect("a good site");
        site.server.notify_port = self.notify_port;
        site.nodes[1].machine.clone_from(&self.machine);
        let config = ServerConfig {
            current: Arc::new(Current::new(site, sample_lock())),
            paths: self.paths(),
            depot,
            board: Arc::clone(&self.board),
            tokens: Arc::clone(&self.tokens),
            approvals: Arc::clone(&self.approvals),
            orders: Arc::clone(&self.orders),
            http: any,
            tls: any,
            ack: any,
        };
        Server::start(config).expect("a server")
    }

    /// A pool of one package whose name apt writes with percent signs.
    fn pool(&self) -> Pool {
        let put = |path: &str, text: &str| {
            let to = self.dir.path().join("depot").join(path);
            fs::create_dir_all(to.parent().expect("a parent")).expect("made");
            fs::write(to, text).expect("written");
            FileRef { path: path.into(), size: text.len() as u64, sha256: Digest::of(text.as_bytes()) }
        };
        let package = "g++=1/amd64".parse().expect("an id");
        Pool {
            suite: "trixie".into(),
            epoch: 1_767_225_600,
            index: vec![put("dists/trixie/main/binary-amd64/Packages", "Package: g++\n")],
            packages: [(package, put("pool/main/g/g++_1~a.deb", "a package"))].into(),
        }
    }

    pub(crate) fn token(&self, name: &str) -> String {
        self.tokens.issue(&node(name))
    }

    pub(crate) fn source(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("state/site/lcfg/source").join(name)
    }
}

pub(super) fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

/// One who asks: what he believes, and the certificate he shows.
pub(super) struct Client {
    pub(super) agent: ureq::Agent,
    pub(super) base: String,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) etag: String,
    pub(super) range: String,
    pub(super) length: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(super) fn new(server: &Running, identity: Option<(&str, &KeyPair)>) -> Self {
        let authority = Certificate::from_pem(server.authority_pem().as_bytes()).expect("a certificate");
        let shown = identity.map(|(certificate, key)| {
            let certificate = Certificate::from_pem(certificate.as_bytes()).expect("a certificate");
            let key = key.serialize_pem();
            ClientCert::new_with_certs(&[certificate], PrivateKey::from_pem(key.as_bytes()).expect("a key"))
        });
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[authority]))
            .client_cert(shown)
            .build();
        // A connection for each request: the server closes one whose body it has not read.
        let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
        let config = config.max_idle_connections(0).build();
        Self { agent: config.into(), base: format!("https://{}", server.tls()) }
    }

    pub(super) fn plain(server: &Running) -> Self {
        Self { base: format!("http://{}", server.http()), ..Self::new(server, None) }
    }

    pub(super) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request.call())
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Reply {
        let request = self.agent.post(format!("{}{path}", self.base));
        reply(request.header("content-type", "application/json").send(body))
    }

    pub(super) fn enrol(&self, name: &str, token: &str, csr: &str) -> Reply {
        self.ask_in(name, Some(token), csr)
    }

    pub(super) fn ask_in(&self, name: &str, token: Option<&str>, csr: &str) -> Reply {
        let request = EnrolRequest { node: node(name), token: token.map(str::to_owned), csr: csr.into() };
        self.post("/enrol", &serde_json::to_string(&request).expect("text"))
    }
}

pub(super) fn reply(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut response = result.expect("an answer");
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (status, etag, range, length) =
        (response.status().as_u16(), header("etag"), header("content-range"), header("content-length"));
    let body = response.body_mut().read_to_vec().expect("a body");
    Reply { status, etag, range, length, body }
}

/// A request for a certificate with names that the server must not give.
pub(super) fn csr() -> (KeyPair, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params =
        CertificateParams::new(["node2.example.org".into(), "gate.example.org".into()]).expect("names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "node2");
    let text = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    (key, text)
}

pub(super) fn enrolled(place: &Place, server: &Running, name: &str) -> Client {
    let (key, csr) = csr();
    let answer = Client::new(server, None).enrol(name, &place.token(name), &csr);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer: EnrolAnswer = serde_json::from_slice(&answer.body).expect("an answer");
    Client::new(server, Some((&answer.certificate, &key)))
}
