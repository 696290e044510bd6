//! `OpenPGP` by `sqop`, the stateless command line of Sequoia, which is also what Debian's apt verifies with.

use std::ffi::OsString;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault};

use crate::tool;

/// The program, as it is started.
#[derive(Clone, Debug)]
pub(super) struct Sqop {
    program: String,
    first: Vec<OsString>,
}

impl Sqop {
    /// The system's own program, or that of an unpacked tree, with the tree's loader and libraries.
    pub(super) fn find(tree: Option<&Path>) -> Self {
        let Some(tree) = tree else { return Self { program: "sqop".into(), first: Vec::new() } };
        let first =
            ["--library-path".into(), tree.join("usr/lib/x86_64-linux-gnu"), tree.join("usr/bin/sqop")];
        Self {
            program: tree.join("usr/lib64/ld-linux-x86-64.so.2").to_string_lossy().into_owned(),
            first: first.map(OsString::from).into(),
        }
    }

    /// A new secret key of some name, armored.
    pub(super) fn generate_key(&self, name: &str) -> Result<String, Fault> {
        self.run(&["generate-key".into(), name.into()], "").doing(|| "making an OpenPGP key")
    }

    /// The public part of a secret key, armored.
    pub(super) fn certificate(&self, key: &str) -> Result<String, Fault> {
        self.run(&["extract-cert".into()], key).doing(|| "extracting the public key")
    }

    /// A text between the lines of a cleartext signature.
    pub(super) fn sign(&self, key: &Path, text: &str) -> Result<String, Fault> {
        let args = ["inline-sign".into(), "--as=clearsigned".into(), key.into()];
        self.run(&args, text).doing(|| "signing with the OpenPGP key")
    }

    fn run(&self, args: &[OsString], input: &str) -> Result<String, Fault> {
        let all: Vec<&OsString> = self.first.iter().chain(args).collect();
        tool::run_with_input(&self.program, &all, input)
    }
}
