//! Starts other programs: argument vectors only, their last words in the fault.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault};

/// How much of a program's stderr a fault quotes, in bytes.
const STDERR_TAIL: usize = 2048;

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; the fault quotes the end of its stderr.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, Fault> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("starting {program}"))?;
    finish(program, &output)
}

/// Runs a program that must not hang: after so long it is ended, with what it has started. coreutils' `timeout` sees to
/// that, also when the agent ends meanwhile.
///
/// # Errors
/// As [`run`]; it was ended.
pub fn run_within<S: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    args: &[S],
    input: Stdio,
) -> Result<String, Fault> {
    let seconds = limit.as_secs().to_string();
    let output = Command::new("timeout")
        .args(["--kill-after=5", &seconds, program])
        .args(args)
        .stdin(input)
        .output()
        .doing(|| format!("starting {program}"))?;
    // It ends with its own group where it has to kill.
    if output.status.code() == Some(124) || output.status.signal() == Some(9) {
        return Err(Fault::new(format!("{program} was ended after {seconds} s")));
    }
    finish(program, &output)
}

/// Runs a program to its end with some text on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<String, Fault> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("starting {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on stderr, which finish() quotes.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().doing(|| format!("waiting for {program}"))?;
    finish(program, &output)
}

/// What a program that has ended printed.
///
/// # Errors
/// It ended with another status than 0; the fault quotes the end of its stderr.
pub fn finish(program: &str, output: &Output) -> Result<String, Fault> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut start = stderr.len().saturating_sub(STDERR_TAIL);
    while !stderr.is_char_boundary(start) {
        start += 1;
    }
    Err(Fault::new(format!("{program} ended with {}: {}", output.status, stderr[start..].trim())))
}

/// A program of the system, or of an unpacked tree where the machine may lack it.
#[derive(Clone, Debug)]
pub struct Program {
    program: String,
    first: Vec<OsString>,
}

impl Program {
    /// The system's own program, or that of a tree, with the tree's loader and libraries.
    pub fn find(name: &str, tree: Option<&Path>) -> Self {
        let Some(tree) = tree else { return Self { program: name.to_owned(), first: Vec::new() } };
        let libraries = tree.join("usr/lib/x86_64-linux-gnu");
        let first = ["--library-path".into(), libraries, tree.join("usr/bin").join(name)];
        Self {
            program: tree.join("usr/lib64/ld-linux-x86-64.so.2").to_string_lossy().into_owned(),
            first: first.map(OsString::from).into(),
        }
    }

    /// Runs it to its end with some text on its standard input.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Result<String, Fault> {
        let first = self.first.iter().map(AsRef::as_ref);
        let all: Vec<&OsStr> = first.chain(args.iter().map(AsRef::as_ref)).collect();
        run_with_input(&self.program, &all, input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_last_words() {
        let fault = run("sh", &["-c", "echo no room >&2; exit 3"]).expect_err("status 3");
        assert_eq!(fault.to_string(), "sh ended with exit status: 3: no room");
        assert_eq!(run_with_input("cat", &["-"], "x").ok().as_deref(), Some("x"));
    }

    #[test]
    fn what_hangs_is_ended() {
        let within = |script| run_within(Duration::from_secs(1), "sh", &["-c", script], Stdio::null());
        assert_eq!(within("echo done").ok().as_deref(), Some("done\n"));
        let fault = within("echo no room >&2; exit 3").expect_err("status 3");
        assert_eq!(fault.to_string(), "sh ended with exit status: 3: no room");
        // What it has started holds its output, too.
        let fault = within("sleep 60 & wait").expect_err("it hangs");
        assert_eq!(fault.to_string(), "sh was ended after 1 s");
    }
}
