//! What a node's services get from the host: a component calls these while the client applies the profile, so that
//! none of them waits for the client.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use gatehouse_model::{Doing as _, Exit, Fault};

use super::Node;

/// Prints the certificate for the key of a request.
pub(super) fn certificate(node: &Node, name: &str, csr: &Path) -> Result<(), Fault> {
    let read = || fs::read_to_string(csr).doing(|| format!("reading {}", csr.display()));
    let csr = read()
        .map_err(|fault| fault.exit(Exit::Problem).help("make it by `openssl req -new -key KEY -subj /`"))?;
    out(node.client.certificate(name, &csr)?.as_bytes())
}

/// Prints the Grid authority's certificate.
pub(super) fn authority(node: &Node) -> Result<(), Fault> {
    out(&node.client.grid_authority()?)
}

/// Writes a secret.
pub(super) fn secret(node: &Node, name: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(good) {
        return Err(Fault::new(format!("{name:?} is not a secret's name"))
            .help("write a word of credentials.secrets, such as munge")
            .exit(Exit::Problem));
    }
    out(&node.client.secret(name)?)
}

fn out(bytes: &[u8]) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).doing(|| "writing to stdout")
}
