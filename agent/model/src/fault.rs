//! Something broke while running, or will not start: the two ways to stop that are not a wrong input.

use std::error::Error;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The process's exit status; the numbers are part of the interface (DESIGN, commands of the builder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Something broke while running.
    Fault = 1,
    /// A wrong input.
    Problem = 2,
    /// A machine, disk or device that will not be touched.
    Refusal = 3,
    /// Another process uses the build directory.
    InUse = 4,
    /// A digest or signature does not match.
    Mismatch = 5,
    /// Two builds differ.
    NotReproducible = 6,
}

/// A thing that will not be done, with nothing changed, and what to change so that it will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The fact, in lower case, without a full stop; may have several lines.
    pub what: String,
    /// What to do, in the imperative.
    pub help: String,
}

impl Refusal {
    /// Makes a refusal from the fact and the advice.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

/// What ended a piece of work: a chain of gerunds ending in the system's own text.
///
/// Problems and refusals travel inside a fault through layers that only pass them on.
#[derive(Debug)]
pub struct Fault {
    doing: Vec<String>,
    cause: Cause,
    help: Option<String>,
    exit: Exit,
}

#[derive(Debug)]
enum Cause {
    Text(String),
    Other(Box<dyn Error + Send + Sync>),
    Problems(Vec<Problem>),
}

impl Fault {
    /// Makes a fault from the last link of the chain: a text such as `mkfs.ext4 ended with status 1`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { doing: Vec::new(), cause: Cause::Text(text.into()), help: None, exit: Exit::Fault }
    }

    /// Makes a fault that carries all problems of an input: `.map_err(Fault::of_problems)?`.
    ///
    /// Not a `From`: the standard library may yet make every list an error, so the compiler refuses it
    /// beside the conversion of all errors.
    pub fn of_problems(problems: Vec<Problem>) -> Self {
        Self { doing: Vec::new(), cause: Cause::Problems(problems), help: None, exit: Exit::Problem }
    }

    /// Adds or replaces the one line of advice, in the imperative.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the exit status that this fault ends the program with.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The exit status that this fault ends the program with.
    pub fn exit_status(&self) -> Exit {
        self.exit
    }

    /// The one line of advice, if there is any.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The wrong inputs, if that is what this is.
    pub fn problems(&self) -> &[Problem] {
        match &self.cause {
            Cause::Problems(all) => all,
            Cause::Text(_) | Cause::Other(_) => &[],
        }
    }

    /// The whole message for stderr: `error:` lines and at most one `help:` line, each ended by a newline.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if let Cause::Problems(all) = &self.cause {
            for problem in all {
                let _ = writeln!(out, "error: {problem}");
            }
            let noun = if all.len() == 1 { "problem" } else { "problems" };
            let _ = writeln!(out, "{} {noun}; nothing was changed", all.len());
        } else {
            let _ = writeln!(out, "error: {self}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "help: {help}");
        }
        out
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for link in self.doing.iter().rev() {
            write!(f, "{link}: ")?;
        }
        match &self.cause {
            Cause::Text(text) => write!(f, "{text}"),
            Cause::Other(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(deeper) = source {
                    write!(f, ": {deeper}")?;
                    source = deeper.source();
                }
                Ok(())
            }
            Cause::Problems(all) => {
                write!(f, "{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { doing: Vec::new(), cause: Cause::Other(Box::new(error)), help: None, exit: Exit::Fault }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Fault::new(refusal.what).help(refusal.help).exit(Exit::Refusal)
    }
}

/// Says what was being done when something broke.
pub trait Doing<T> {
    /// Wraps the error in a gerund phrase that names the thing: `reading site.toml`.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fault>;
}

impl<T, E: Into<Fault>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fault> {
        self.map_err(|error| {
            let mut fault = error.into();
            fault.doing.push(what().into());
            fault
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_one_sentence_with_help() {
        let io = std::io::Error::from_raw_os_error(28);
        let fault = Err::<(), _>(io)
            .doing(|| "writing fs/disk0")
            .doing(|| "installing web")
            .map_err(|f| f.help("free space and start again"))
            .expect_err("made as an error");
        assert_eq!(
            fault.render(),
            "error: installing web: writing fs/disk0: No space left on device (os error 28)\n\
             help: free space and start again\n"
        );
        assert_eq!(fault.exit_status(), Exit::Fault);
    }

    #[test]
    fn problems_are_all_listed() {
        let fault =
            Fault::of_problems(vec![Problem::at("site.toml", 3, "a"), Problem::at("site.toml", 0, "b")]);
        assert_eq!(
            fault.render(),
            "error: site.toml:3: a\nerror: site.toml: b\n2 problems; nothing was changed\n"
        );
        assert_eq!(fault.exit_status(), Exit::Problem);
    }
}
