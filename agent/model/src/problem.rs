//! A wrong input: where it is, what is wrong, what to write instead.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong in an input file. Readers collect all of them before they give up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file as the user named it, relative to the site directory where it lies in one.
    pub file: String,
    /// Line from 1; 0 where the problem is the whole file.
    pub line: usize,
    /// What is wrong and what to write instead, in lower case, without a full stop.
    pub what: String,
}

impl Problem {
    /// Makes a problem at a line of a file.
    pub fn at(file: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.what)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.what)
        }
    }
}
