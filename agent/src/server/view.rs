//! The key of the status page: who has it in the page's address sees texts and addresses, others only names and
//! states. It opens nothing else, so that the address can be sent to a phone.

use std::path::{Path, PathBuf};

use gatehouse_model::{Digest, Fault};

use super::keep::{private_dir, read_if_there, replace};
use super::tokens::{same, secret};
use crate::paths::Paths;

/// The key, of which only the digest is kept in memory.
#[derive(Debug)]
pub struct ViewKey(Digest);

impl ViewKey {
    /// The machine's key, made at the first time.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn open(paths: &Paths) -> Result<Self, Fault> {
        let path = path(paths);
        if let Some(text) = read_if_there(&path)? {
            return Ok(Self(Digest::of(text.trim().as_bytes())));
        }
        let text = secret();
        private_dir(path.parent().unwrap_or(Path::new("/")))?;
        replace(&path, 0o600, text.as_bytes())?;
        Ok(Self(Digest::of(text.as_bytes())))
    }

    /// Whether this is the key.
    pub(super) fn fits(&self, given: &str) -> bool {
        same(&self.0, &Digest::of(given.as_bytes()))
    }

    /// The key as it is kept; none before the server has started for the first time.
    ///
    /// # Errors
    /// This user may not read it.
    pub fn read(paths: &Paths) -> Result<Option<String>, Fault> {
        read_if_there(&path(paths))
    }
}

fn path(paths: &Paths) -> PathBuf {
    paths.state.join("authority/view.key")
}
