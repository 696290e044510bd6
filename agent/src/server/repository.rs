//! The pool as an apt repository: its `Release`, signed by a key made here at the first start.
//!
//! The packages and their index are files of the depot. Nodes that are being installed need none of this: they know
//! every package's digest from the depot's list. It is for apt, on the nodes and in the operations centre.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Fault, Pool};

use super::keep;
use super::openpgp::Sqop;
use crate::wire::POOL_KEY_PATH;

/// The parts that are made on the machine.
#[derive(Debug)]
pub(super) struct Repository {
    release: String,
    path: String,
    signed: OnceLock<Signed>,
}

#[derive(Debug)]
struct Signed {
    in_release: String,
    key: String,
}

impl Repository {
    pub(super) fn new(pool: &Pool, site: &str, epoch: u64) -> Self {
        let path = format!("/dists/{}/InRelease", pool.suite);
        Self { release: release(pool, site, epoch), path, signed: OnceLock::new() }
    }

    /// Signs, or takes what an earlier start has signed if it says the same; makes the key where there is none.
    pub(super) fn sign(&self, dir: &Path, name: &str, sqop: &Sqop) -> Result<(), Fault> {
        let signed = self.sign_in(dir, name, sqop).doing(|| "signing the pool")?;
        // Set once, at the start; whoever came first has signed the same text.
        let _ = self.signed.set(signed);
        Ok(())
    }

    fn sign_in(&self, dir: &Path, name: &str, sqop: &Sqop) -> Result<Signed, Fault> {
        keep::private_dir(dir)?;
        let at = |name: &str| dir.join(name);
        let secret = if let Some(secret) = keep::read_if_there(&at("secret.asc"))? {
            secret
        } else {
            let secret = sqop.generate_key(name)?;
            keep::replace(&at("secret.asc"), 0o600, secret.as_bytes())?;
            secret
        };
        let key = sqop.certificate(&secret)?;
        let kept = (keep::read_if_there(&at("Release"))?, keep::read_if_there(&at("InRelease"))?);
        if let (Some(release), Some(in_release)) = kept
            && release == self.release
        {
            return Ok(Signed { in_release, key });
        }
        let in_release = sqop.sign(&at("secret.asc"), &self.release)?;
        keep::replace(&at("InRelease"), 0o644, in_release.as_bytes())?;
        // Last: it says what the other is the signature of.
        keep::replace(&at("Release"), 0o644, self.release.as_bytes())?;
        Ok(Signed { in_release, key })
    }

    /// The text at a path; none where it is not of this repository, or not signed yet.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let signed = self.signed.get()?;
        match path {
            POOL_KEY_PATH => Some(&signed.key),
            path if path == self.path => Some(&signed.in_release),
            _ => None,
        }
    }
}

/// The text of `Release`. Its date is the site's epoch, before which no clock of the site goes, so that apt never finds it
/// to be of the future. It has no `Valid-Until`: a site may live for years without a new image.
fn release(pool: &Pool, site: &str, epoch: u64) -> String {
    let dists = format!("dists/{}/", pool.suite);
    let mut text = format!(
        "Origin: Gatehouse\nLabel: {site}\nSuite: {0}\nCodename: {0}\nDate: {1}\nArchitectures: amd64\n\
         Components: main\nDescription: packages of the site {site}\nSHA256:\n",
        pool.suite,
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(epoch)),
    );
    for file in &pool.index {
        let name = file.path.strip_prefix(&dists).unwrap_or(&file.path);
        // Writing to a text cannot fail.
        let _ = writeln!(text, " {} {} {name}", file.sha256, file.size);
    }
    text
}

#[cfg(test)]
mod tests {
    use gatehouse_model::{Digest, FileRef};

    use super::*;

    #[test]
    fn release_names_the_index_by_its_digest_and_is_dated_by_the_epoch() {
        let file = |name: &str| FileRef {
            path: format!("dists/trixie/main/binary-amd64/{name}"),
            size: 12,
            sha256: Digest::of(name.as_bytes()),
        };
        let pool = Pool {
            suite: "trixie".into(),
            epoch: 0,
            index: vec![file("Packages"), file("Packages.gz")],
            packages: [].into(),
        };
        let expected = format!(
            "Origin: Gatehouse\nLabel: gate\nSuite: trixie\nCodename: trixie\n\
             Date: Thu, 01 Jan 2026 00:00:00 GMT\nArchitectures: amd64\nComponents: main\n\
             Description: packages of the site gate\nSHA256:\n \
             {} 12 main/binary-amd64/Packages\n {} 12 main/binary-amd64/Packages.gz\n",
            Digest::of(b"Packages"),
            Digest::of(b"Packages.gz"),
        );
        assert_eq!(release(&pool, "gate", 1_767_225_600), expected);
    }
}
