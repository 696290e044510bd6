//! `OpenPGP` by `sqop`, the stateless command line of Sequoia, which is also what Debian's apt verifies with.

use std::ffi::OsStr;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use crate::tool::Program;

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Sqop(Program);

impl Sqop {
    /// The system's own, or that of an unpacked tree.
    pub(super) fn find(tree: Option<&Path>) -> Self {
        Self(Program::find("sqop", tree))
    }

    /// A new secret key of some name, armored.
    pub(super) fn generate_key(&self, name: &str) -> Result<String, Fault> {
        self.0.run(&["generate-key", name], "").doing(|| "making an OpenPGP key")
    }

    /// The public part of a secret key, armored.
    pub(super) fn certificate(&self, key: &str) -> Result<String, Fault> {
        self.0.run(&["extract-cert"], key).doing(|| "extracting the public key")
    }

    /// A text between the lines of a cleartext signature.
    pub(super) fn sign(&self, key: &Path, text: &str) -> Result<String, Fault> {
        let args = [OsStr::new("inline-sign"), OsStr::new("--as=clearsigned"), key.as_os_str()];
        self.0.run(&args, text).doing(|| "signing with the OpenPGP key")
    }
}
