//! QEMU's monitor protocol: one command over a socket, a line of JSON each way.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Fault};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use serde_json::{Value, json};

/// How long a conversation may take: QEMU answers at once, unless its machine has no processor left for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than QEMU ever says between a command and its answer.
const MOST: u64 = 1 << 20;

/// Has a running QEMU do one thing. It serves one caller at a time; others wait.
///
/// # Errors
/// It does not listen or answer, or says no.
pub(super) fn ask(socket: &Path, command: &str) -> Result<Value, Fault> {
    say(socket, command).doing(|| format!("asking {} for {command}", socket.display()))
}

fn say(socket: &Path, command: &str) -> Result<Value, Fault> {
    let mut monitor = connect(socket)?;
    monitor.set_write_timeout(Some(PATIENCE))?;
    let heard = Patient { monitor: monitor.try_clone()?, until: Instant::now() + PATIENCE };
    let mut lines = BufReader::new(heard.take(MOST));
    // The greeting.
    lines.read_line(&mut String::new())?;
    let mut answer = Value::Null;
    for command in ["qmp_capabilities", command] {
        writeln!(monitor, "{}", json!({ "execute": command }))?;
        answer = loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Err(Fault::new("it ended the conversation"));
            }
            if let Some(answer) = answer_in(&line)? {
                break answer;
            }
        };
    }
    Ok(answer)
}

/// Connects without waiting. QEMU lets one caller wait beside the one it serves; the next would wait for ever where it
/// stands still.
fn connect(path: &Path) -> Result<UnixStream, Fault> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::EAGAIN) => return Err(Fault::new("it does not listen: others wait already")),
        connected => connected?,
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// What QEMU says until a moment, however little it says at once.
struct Patient {
    monitor: UnixStream,
    until: Instant,
}

impl Read for Patient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.monitor.set_read_timeout(Some(left))?;
        self.monitor.read(bytes)
    }
}

/// The answer that a line holds; none where it tells of an event.
fn answer_in(line: &str) -> Result<Option<Value>, Fault> {
    let mut said: Value = serde_json::from_str(line).doing(|| "reading what QEMU says")?;
    if let Some(error) = said.get("error") {
        return Err(Fault::new(error["desc"].as_str().unwrap_or("QEMU says no").to_owned()));
    }
    Ok(said.get_mut("return").map(Value::take))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::Backlog;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_is_neither_an_event_nor_an_error() {
        assert_eq!(answer_in(r#"{"event":"RTC_CHANGE","data":{}}"#).expect("read"), None);
        assert_eq!(
            answer_in(r#"{"return":{"running":true}}"#).expect("read"),
            Some(json!({"running": true}))
        );
        let fault =
            answer_in(r#"{"error":{"class":"GenericError","desc":"no such thing"}}"#).expect_err("no");
        assert_eq!(fault.to_string(), "no such thing");
        answer_in("not JSON").expect_err("no JSON");
    }

    #[test]
    fn a_command_comes_after_the_capabilities() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&at).expect("bound");
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let mut heard = Vec::new();
            writeln!(stream, r#"{{"QMP":{{}}}}"#).expect("greeted");
            for answer in [r#"{"return":{}}"#, r#"{"event":"POWERDOWN"}"#] {
                heard.push(lines.next().expect("a line").expect("read"));
                writeln!(stream, "{answer}").expect("answered");
            }
            writeln!(stream, r#"{{"return":{{"status":"running"}}}}"#).expect("answered");
            heard
        });
        let answer = ask(&at, "query-status").expect("answered");
        assert_eq!(answer["status"], "running");
        let heard = qemu.join().expect("no panic");
        assert_eq!(heard, [r#"{"execute":"qmp_capabilities"}"#, r#"{"execute":"query-status"}"#]);
        ask(&dir.path().join("none"), "quit").expect_err("nobody listens");
    }

    #[test]
    fn one_that_stands_still_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("qmp.sock");
        let qemu = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .expect("a socket");
        socket::bind(qemu.as_raw_fd(), &UnixAddr::new(&at).expect("a path")).expect("bound");
        socket::listen(&qemu, Backlog::new(1).expect("a number")).expect("it listens");
        let begun = Instant::now();
        // Whoever has given up still counts.
        let refused = (0..3).find_map(|_| connect(&at).err()).expect("somebody is too many");
        assert_eq!(refused.to_string(), "it does not listen: others wait already");
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn a_conversation_ends_in_time() {
        let (monitor, mut qemu) = UnixStream::pair().expect("a pair");
        let talking = std::thread::spawn(move || {
            while qemu.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let heard = Patient { monitor, until: Instant::now() + Duration::from_millis(200) };
        let ended = BufReader::new(heard).read_line(&mut String::new()).expect_err("no line comes");
        assert!(matches!(ended.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{ended}");
        talking.join().expect("no panic");
    }
}
