//! Against a receiver over loopback that answers as it is told to.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::*;
use crate::host::report::queue::Verdict;
use crate::host::report::send::{NAMESPACE, SIGNATURE};
use crate::host::report::tests::{put_key, report};
use crate::host::report::{Phase, Report};
use crate::server::authority::Authority;
use crate::server::sample_site;

/// A request as it came.
struct Got {
    signature: String,
    body: String,
}

struct Place {
    dir: TempDir,
    current: Arc<Current>,
    board: Arc<Board>,
    outbox: Arc<Outbox>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        put_key(dir.path());
        let lock = gatehouse_model::Lock {
            schema: 1,
            agent: gatehouse_model::Digest::of(b""),
            request: gatehouse_model::Digest::of(b""),
            sets: Vec::new(),
            packages: Vec::new(),
        };
        let current = Arc::new(Current::new(sample_site(), lock));
        let board = Arc::new(Board::new(&sample_site()));
        let outbox = Outbox::new(Queue::of(dir.path()), Arc::clone(&current), Arc::clone(&board));
        Self { dir, current, board, outbox: Arc::new(outbox) }
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.dir.path().join("authority"), "example.org", 0).unwrap()
    }

    /// From now on the site says that reports go there.
    fn send_to(&self, address: SocketAddr) {
        let mut site = sample_site();
        let authority = Some(self.authority().certificate().to_owned());
        site.report = Some(ReportTo { url: format!("https://{address}/in"), authority });
        self.current.replace(site, self.current.get().lock.clone());
    }

    fn put(&self, phase: Phase, boot: &str) {
        let mut report = report(phase, None);
        report.facts.boot_id = boot.into();
        Queue::of(self.dir.path()).put(report).unwrap();
    }

    /// A receiver that gives these answers one after the other, and what it gets.
    fn receiver(&self, listener: TcpListener, answers: Vec<u16>) -> Receiver<Got> {
        let name = "gate".parse().unwrap();
        let (certificate, key) =
            self.authority().server_identity(&name, &["127.0.0.1".parse().unwrap()]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (sender, got) = channel();
        let config = Arc::new(config);
        thread::spawn(move || {
            for status in answers {
                let (stream, _) = listener.accept().unwrap();
                serve(stream, &config, status, &sender);
            }
        });
        got
    }

    fn verdicts(&self) -> Vec<Option<Verdict>> {
        let all = Queue::of(self.dir.path()).list().unwrap();
        all.into_iter().map(|queued| queued.answer.map(|answer| answer.verdict)).collect()
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>, status: u16, got: &Sender<Got>) {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line);
    }
    assert!(head[0].starts_with("POST /in HTTP/1.1"), "{}", head[0]);
    let header = |name: &str| {
        let pairs = head.iter().filter_map(|line| line.split_once(':'));
        pairs
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .next()
    };
    let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 9\r\nconnection: close\r\n\r\nno thanks");
    reader.get_mut().write_all(answer.as_bytes()).unwrap();
    reader.get_mut().conn.send_close_notify();
    let _ = reader.get_mut().flush();
    let body = String::from_utf8(body).unwrap();
    got.send(Got { signature: header(SIGNATURE).unwrap(), body }).unwrap();
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// As README.md tells whoever receives a report to do it.
fn is_signed(dir: &Path, body: &str, signature: &str, key: &str) -> bool {
    let lines: Vec<&str> =
        signature.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let armored =
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"));
    fs::write(dir.join("report.sig"), armored).unwrap();
    fs::write(dir.join("allowed"), format!("machine {key}\n")).unwrap();
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", "machine", "-n", NAMESPACE, "-f"])
        .arg(dir.join("allowed"))
        .arg("-s")
        .arg(dir.join("report.sig"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn reports_wait_for_a_receiver_and_go_out_in_order_signed() {
    let place = Place::new();
    place.put(Phase::SelfInstall, "1");
    place.put(Phase::FirstBoot, "2");
    assert_eq!(place.outbox.round().unwrap(), Round::default(), "nobody wants them");
    // A port that nobody listens at.
    let (nobody, address) = listener();
    drop(nobody);
    place.send_to(address);
    assert_eq!(place.outbox.round().unwrap(), Round { waiting: 2, ..Round::default() });
    assert_eq!(place.verdicts(), [Some(Verdict::Later), None]);
    let message = place.board.status().message;
    assert!(
        message.starts_with(&format!("report 1 waits to be sent to https://{address}/in: ")),
        "{message}"
    );

    let (listener, address) = listener();
    place.send_to(address);
    let got = place.receiver(listener, vec![503, 200, 204]);
    assert_eq!(place.outbox.round().unwrap(), Round { waiting: 2, ..Round::default() });
    assert_eq!(place.outbox.round().unwrap(), Round { sent: 2, ..Round::default() });
    assert_eq!(place.outbox.round().unwrap(), Round::default());
    assert_eq!(place.verdicts(), [Some(Verdict::Accepted), Some(Verdict::Accepted)]);
    assert_eq!(place.board.status().message, "");
    let got: Vec<Got> = got.iter().collect();
    let reports: Vec<Report> = got.iter().map(|got| serde_json::from_str(&got.body).unwrap()).collect();
    let phases: Vec<Phase> = reports.iter().map(|report| report.phase).collect();
    assert_eq!(phases, [Phase::SelfInstall, Phase::SelfInstall, Phase::FirstBoot]);
    for (got, report) in got.iter().zip(&reports) {
        let key = report.host_key.as_deref().unwrap();
        assert!(is_signed(place.dir.path(), &got.body, &got.signature, key));
        assert!(!is_signed(place.dir.path(), &got.body.replacen('1', "2", 1), &got.signature, key));
        assert!(!got.body.contains("PRIVATE KEY"));
    }
}

#[test]
fn what_is_refused_is_kept_and_sent_again_only_when_somebody_says_so() {
    let place = Place::new();
    place.put(Phase::SelfInstall, "1");
    place.put(Phase::FirstBoot, "2");
    let (listener, address) = listener();
    place.send_to(address);
    let got = place.receiver(listener, vec![403, 200, 200]);
    assert_eq!(place.outbox.round().unwrap(), Round { refused: 1, sent: 1, waiting: 0 });
    assert_eq!(place.outbox.round().unwrap(), Round::default());
    assert_eq!(place.verdicts(), [Some(Verdict::Refused), Some(Verdict::Accepted)]);
    let message = place.board.status().message;
    assert_eq!(message, format!("report 1 is refused by https://{address}/in: 403 no thanks"));
    let events = place.board.status().events;
    assert!(events.iter().any(|event| event.state == State::Failed && event.message.contains("403")));
    assert_eq!(Reports::send(&*place.outbox).unwrap(), "1 sent, 0 refused, 0 waiting\n");
    assert_eq!(got.iter().count(), 3);
    assert_eq!(place.board.status().message, "");
}

#[test]
fn a_receiver_that_another_authority_vouches_for_gets_nothing() {
    let place = Place::new();
    place.put(Phase::FirstBoot, "1");
    let (listener, address) = listener();
    place.send_to(address);
    let mut site = place.current.get().site.clone();
    site.report = site.report.map(|to| ReportTo { authority: None, ..to });
    place.current.replace(site, place.current.get().lock.clone());
    // It sees a handshake that breaks off.
    let told = thread::spawn(move || {
        let mut hello = [0; 1];
        listener.accept().unwrap().0.read_exact(&mut hello).unwrap();
        hello
    });
    assert_eq!(place.outbox.round().unwrap(), Round { waiting: 1, ..Round::default() });
    assert_eq!(told.join().unwrap(), [22], "a TLS handshake");
}

#[test]
fn a_thread_of_its_own_sends_as_soon_as_the_site_says_where() {
    let place = Place::new();
    place.put(Phase::FirstBoot, "1");
    place.outbox.start().unwrap();
    let (listener, address) = listener();
    let got = place.receiver(listener, vec![200]);
    place.send_to(address);
    assert!(got.recv_timeout(Duration::from_secs(60)).is_ok());
}

#[test]
fn pauses_grow_up_to_a_quarter_of_an_hour() {
    let seconds: Vec<u64> = (1..=9).map(|tries| pause(tries).as_secs()).collect();
    assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 900]);
    assert_eq!((pause(0), pause(u32::MAX)), (LONGEST_PAUSE, LONGEST_PAUSE));
}
