//! How many conditional requests for an unchanged profile the server answers in a second: TLS on loopback, each
//! connection kept, client and server in one process on the same processors. `ci/bench 304` runs it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatehouse_agent::control::board::Board;
use gatehouse_agent::paths::Paths;
use gatehouse_agent::server::tokens::Tokens;
use gatehouse_agent::server::{Running, Server, ServerConfig};
use gatehouse_agent::wire::{EnrolAnswer, EnrolRequest};
use gatehouse_model::{Depot, Digest, FileRef, Lock, NodeName, PackageId, PackageSet, Pool, Site};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How many nodes the site has.
const NODES: usize = 1000;
/// How many of them ask at the same time.
const CONNECTIONS: usize = 8;
/// How long is measured.
const TIME: Duration = Duration::from_secs(3);
const SOURCE: &str = "#include <gatehouse/site.h>\nprofile.domain SITE_DOMAIN\nprofile.components profile client\n\
    profile.packages @site.pkgs\n";

fn main() {
    // In memory: a thousand profiles are published and synced before the first answer, which is not what is measured.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (server, tokens) = start(dir.path());
    let clients: Vec<Client> = (0..CONNECTIONS).map(|number| Client::new(&server, &tokens, number)).collect();
    let runs: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let (begun, mut count) = (Instant::now(), 0_u32);
                while begun.elapsed() < TIME {
                    client.ask();
                    count += 1;
                }
                f64::from(count) / begun.elapsed().as_secs_f64()
            })
        })
        .collect();
    let all: f64 = runs.into_iter().map(|run| run.join().expect("a run")).sum();
    println!("{all:.0}");
}

fn start(dir: &Path) -> (Running, Arc<Tokens>) {
    let site = site();
    let paths = Paths::trial(dir, &dir.join("depot"));
    let lcfg = paths.site().join("lcfg");
    for folder in ["source", "packages"] {
        fs::create_dir_all(lcfg.join(folder)).expect("made");
    }
    fs::write(lcfg.join("packages/site.pkgs"), "bash=*\n").expect("written");
    for node in &site.nodes {
        fs::write(lcfg.join("source").join(node.name.as_str()), SOURCE).expect("written");
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let tokens = Arc::new(Tokens::new());
    let config = ServerConfig {
        board: Arc::new(Board::new(&site)),
        tokens: Arc::clone(&tokens),
        approvals: Arc::default(),
        orders: Arc::default(),
        depot: depot(),
        current: Arc::new(gatehouse_agent::current::Current::new(site, lock())),
        paths,
        http: any,
        tls: any,
        ack: any,
    };
    (Server::start(config).expect("a server"), tokens)
}

fn site() -> Site {
    let mut text =
        "schema = 1\n[site]\nname = \"gate\"\ndomain = \"example.org\"\nepoch = \"2026-01-01T00:00:00Z\"\n\
        [[disk]]\nmin-size = \"8GiB\"\n[network]\nsubnet = \"127.0.0.0/16\"\nhost = \"127.0.0.1\"\n"
            .to_owned();
    for number in 0..NODES {
        let address = format!("127.0.{}.{}", 1 + number / 200, 1 + number % 200);
        let node = format!(
            "[[node]]\nname = \"n{number}\"\naddress = \"{address}\"\nmemory = \"64MiB\"\ndisk = \"1GiB\"\n"
        );
        text.push_str(&node);
    }
    Site::parse(&text).expect("a good site")
}

fn lock() -> Lock {
    let bash = PackageId { name: "bash".into(), version: "5.2-1".into(), architecture: "amd64".into() };
    let set = PackageSet { name: "node-1".into(), wishes: vec!["bash".into()], packages: vec![bash] };
    let zero = Digest::of(b"");
    Lock { schema: 1, agent: zero, request: zero, sets: vec![set], packages: Vec::new() }
}

fn depot() -> Depot {
    let agent = FileRef { path: "agent".into(), size: 0, sha256: Digest::of(b"") };
    let pool = Pool { suite: "trixie".into(), epoch: 0, index: Vec::new(), packages: [].into() };
    Depot { schema: 1, agent, kernels: [].into(), machine: None, layers: [].into(), pool }
}

/// One node with its connection.
struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    request: String,
}

impl Client {
    fn new(server: &Running, tokens: &Tokens, number: usize) -> Self {
        let node: NodeName = format!("n{number}").parse().expect("a name");
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::new(vec![node.to_string()])
            .and_then(|params| params.serialize_request(&key))
            .and_then(|request| request.pem())
            .expect("a request");
        let authority =
            CertificateDer::from_pem_slice(server.authority_pem().as_bytes()).expect("a certificate");
        let body = EnrolRequest { token: Some(tokens.issue(&node)), node: node.clone(), csr };
        let body = serde_json::to_string(&body).expect("text");
        let mut stranger = connect(server.tls(), &authority, None);
        let length = body.len();
        let head = "POST /enrol HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n";
        write!(stranger.get_mut(), "{head}content-length: {length}\r\n\r\n{body}").expect("sent");
        let (status, _, text) = answer(&mut stranger);
        assert_eq!(status, 200, "{text}");
        let enrolled: EnrolAnswer = serde_json::from_str(&text).expect("an answer");
        let certificate =
            CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let mut stream = connect(server.tls(), &authority, Some((certificate, key)));
        let get = format!("GET /profiles/example.org/{node}/XML/profile.xml HTTP/1.1\r\nhost: gate\r\n");
        write!(stream.get_mut(), "{get}\r\n").expect("sent");
        let (status, etag, text) = answer(&mut stream);
        assert_eq!(status, 200, "{text}");
        Self { stream, request: format!("{get}if-none-match: {etag}\r\n\r\n") }
    }

    fn ask(&mut self) {
        self.stream.get_mut().write_all(self.request.as_bytes()).expect("sent");
        assert_eq!(answer(&mut self.stream).0, 304);
    }
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(
    to: SocketAddr,
    authority: &CertificateDer<'static>,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Stream {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate], key).expect("a credential")
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::from(to.ip());
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let socket = TcpStream::connect(to).expect("connected");
    socket.set_nodelay(true).expect("set");
    BufReader::new(StreamOwned::new(connection, socket))
}

/// Status, entity tag and body of an answer.
fn answer(stream: &mut Stream) -> (u16, String, String) {
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (mut etag, mut length) = (String::new(), 0);
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name {
            "etag" => value.clone_into(&mut etag),
            "content-length" => length = value.parse().expect("a length"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(stream, &mut body).expect("a body");
    (status, etag, String::from_utf8_lossy(&body).into_owned())
}
