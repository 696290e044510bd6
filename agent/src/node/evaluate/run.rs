//! One run of a command: how long it took, and whether it did what it should.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::node::component::program::{TAIL, read_tail};

/// How long the end of what a command said is waited for, when something it started holds on to its output.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// From its start to its exit.
    seconds: f64,
    status: ExitStatus,
    /// Whether it was ended because it took too long.
    late: Option<Duration>,
    /// The end of what it said.
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs a command that has a process group of its own. It is waited for without polling: a pause between two looks
/// would be longer than many a command.
pub(super) fn timed(mut command: Command, limit: Duration) -> io::Result<Ended> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().map(listen);
    let stderr = child.stderr.take().map(listen);
    let (status, seconds, late) = wait(&mut child, begun, limit)?;
    let words = |listener: Option<Listener>| listener.map(Listener::end).unwrap_or_default();
    let (stdout, stderr) = (words(stdout), words(stderr));
    Ok(Ended { seconds, status, late: late.then_some(limit), stdout, stderr })
}

fn wait(child: &mut Child, begun: Instant, limit: Duration) -> io::Result<(ExitStatus, f64, bool)> {
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    thread::scope(|scope| {
        let (ended, end) = channel::<()>();
        let watch = scope.spawn(move || {
            let late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                // It may just have ended by itself; until it is waited for, its number is nobody else's.
                let _ = killpg(group, Signal::SIGKILL);
            }
            late
        });
        let status = child.wait();
        let seconds = begun.elapsed().as_secs_f64();
        drop(ended);
        let late = watch.join().unwrap_or_default();
        Ok((status?, seconds, late))
    })
}

/// Reads what a command says while it runs.
struct Listener {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

fn listen(reader: impl Read + Send + 'static) -> Listener {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&kept);
    Listener { kept, thread: thread::spawn(move || read_tail(reader, &into)) }
}

impl Listener {
    fn end(self) -> Vec<u8> {
        let begun = Instant::now();
        while !self.thread.is_finished() && begun.elapsed() < LAST_WORDS {
            thread::sleep(Duration::from_millis(1));
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ended {
    /// Whether it ended in time and well.
    pub(super) fn is_good(&self) -> bool {
        self.late.is_none() && self.status.success()
    }

    /// Its seconds, or what was wrong with it. `expect` has the words of which it must have said one.
    pub(super) fn verdict(&self, expect: &[String]) -> Result<f64, String> {
        let said = String::from_utf8_lossy(&self.stdout);
        if !self.is_good() {
            return Err(self.trouble());
        }
        if expect.is_empty() || expect.iter().any(|word| word == said.trim()) {
            return Ok(self.seconds);
        }
        Err(format!("it said {:?}, not {}", said.trim(), expect.join(" or ")))
    }

    /// How it ended, and the end of what it said.
    pub(super) fn trouble(&self) -> String {
        let how = self.late.map_or_else(
            || format!("ended with {}", self.status),
            |limit| format!("did not end within {} s", limit.as_secs_f64()),
        );
        let mut words = self.stdout.clone();
        words.extend_from_slice(&self.stderr);
        let words = String::from_utf8_lossy(&words[words.len().saturating_sub(TAIL)..]).trim().to_owned();
        if words.is_empty() { how } else { format!("{how}:\n{words}") }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    fn shell(line: &str, limit: Duration) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null()).process_group(0);
        timed(command, limit).expect("it starts")
    }

    #[test]
    fn a_run_counts_if_it_ends_well_and_says_what_it_should() {
        let long = Duration::from_secs(60);
        let wn = ["wn1".to_owned(), "wn2".to_owned()];
        let good = shell("echo noise >&2; sleep 0.2; echo wn2", long);
        let seconds = good.verdict(&wn).expect("good");
        assert!((0.2..20.0).contains(&seconds), "{seconds}");
        assert!(good.verdict(&[]).is_ok());
        for (line, said) in [
            ("echo ce", "it said \"ce\", not wn1 or wn2"),
            ("echo wn1 wn2", "it said \"wn1 wn2\", not wn1 or wn2"),
            ("echo wn1; echo no >&2; exit 3", "ended with exit status: 3:\nwn1\nno"),
            ("exit 1", "ended with exit status: 1"),
        ] {
            assert_eq!(shell(line, long).verdict(&wn), Err(said.to_owned()), "{line}");
        }
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let late = shell("echo here; sleep 600 & sleep 600", Duration::from_millis(300));
        assert_eq!(late.verdict(&[]), Err("did not end within 0.3 s:\nhere".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
