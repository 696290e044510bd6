//! QEMU's monitor protocol: one command over a socket, a line of JSON each way.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault};
use serde_json::{Value, json};

/// How long an answer may take: QEMU gives it at once, unless its machine has no processor left for it.
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
    let mut monitor = UnixStream::connect(socket)?;
    monitor.set_read_timeout(Some(PATIENCE))?;
    monitor.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(monitor.try_clone()?.take(MOST));
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
}
