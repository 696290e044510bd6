//! Starts other programs: argument vectors only, their last words in the fault.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use gatehouse_model::{Doing as _, Fault};

/// How much of a program's stderr a fault quotes, in bytes.
const STDERR_TAIL: usize = 2048;

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; the fault quotes the end of its stderr.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, Fault> {
    start(program, Command::new(program).args(args))
}

/// As [`run`], with one variable more in its environment.
///
/// # Errors
/// As [`run`].
pub fn run_with<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    (name, value): (&str, &OsStr),
) -> Result<String, Fault> {
    start(program, Command::new(program).args(args).env(name, value))
}

/// As [`run`], in an environment in which nothing of the user's shows: `SOURCE_DATE_EPOCH` alone changes what
/// mkfs.erofs writes.
///
/// # Errors
/// As [`run`].
pub fn run_alone<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, Fault> {
    start(program, Command::new(program).args(args).env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC"))
}

fn start(program: &str, command: &mut Command) -> Result<String, Fault> {
    let output = command.stdin(Stdio::null()).output().doing(|| format!("starting {program}"))?;
    finish(program, &output)
}

fn finish(program: &str, output: &Output) -> Result<String, Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_last_words() {
        let fault = run("sh", &["-c", "echo no room >&2; exit 3"]).expect_err("status 3");
        assert_eq!(fault.to_string(), "sh ended with exit status: 3: no room");
    }
}
