//! The node's side of requests for credentials: what the host's table of the node has, or a refusal.

use gatehouse_model::{Doing as _, Exit, Fault};
use ureq::Body;
use ureq::http::Response;

use super::client::{Client, LONGEST, good};
use crate::wire::{CertificateAnswer, CertificateRequest};

impl Client {
    /// Has a key certified by the site's Grid authority, in the name that the server gives it.
    ///
    /// # Errors
    /// The node's profile does not have this certificate, or the server cannot be reached.
    pub fn certificate(&self, name: &str, csr: &str) -> Result<String, Fault> {
        let url = self.tls("/credentials/certificate");
        let work = || {
            let body = CertificateRequest { name: name.to_owned(), csr: csr.to_owned() };
            let body = serde_json::to_string(&body)?;
            let answer = self.agent.post(&url).header("content-type", "application/json").send(body)?;
            let answer: CertificateAnswer = serde_json::from_slice(&granted(answer)?)?;
            Ok::<_, Fault>(answer.certificate)
        };
        work().doing(|| format!("sending to {url}"))
    }

    /// The certificate of the site's Grid authority, PEM.
    ///
    /// # Errors
    /// The site has none, or the server cannot be reached.
    pub fn grid_authority(&self) -> Result<Vec<u8>, Fault> {
        self.credential("/credentials/authority")
    }

    /// A secret that nodes share.
    ///
    /// # Errors
    /// The node's profile does not have it, or the server cannot be reached.
    pub fn secret(&self, name: &str) -> Result<Vec<u8>, Fault> {
        self.credential(&format!("/credentials/secrets/{name}"))
    }

    fn credential(&self, path: &str) -> Result<Vec<u8>, Fault> {
        let url = self.tls(path);
        let work = || granted(self.agent.get(&url).call()?);
        work().doing(|| format!("fetching {url}"))
    }
}

/// The body of an answer to a request for credentials; what the server's table does not have is a refusal.
fn granted(answer: Response<Body>) -> Result<Vec<u8>, Fault> {
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(answer.into_body().into_with_config().limit(LONGEST).read_to_vec()?);
    }
    let fault =
        good(answer, 1 << 16).err().unwrap_or_else(|| Fault::new(format!("the server answered {status}")));
    let help = match status {
        403 => {
            "name it in the node's LCFG sources (credentials.certificates, credentials.secrets), a user in [[grid-user]] too"
        }
        404 => "write [grid] in site.toml, or ask for nothing of the Grid here",
        400 => {
            let help = "make a key of RSA with 2048 bits or more, or of EC P-256, and a request with it";
            return Err(fault.help(help).exit(Exit::Problem));
        }
        _ => return Err(fault),
    };
    Err(fault.help(help).exit(Exit::Refusal))
}
