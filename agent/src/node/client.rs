//! The node's side of the install server's protocol: enrolment with the token, then everything else with the
//! certificate got by it. The site's authority is the only one believed.

mod orders;

use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatehouse_model::site::DiskRule;
use gatehouse_model::{Depot, Digest, Doing as _, Exit, Fault, Mac, NodeName};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use crate::wire::{Ack, EnrolAnswer, EnrolRequest, POOL_KEY_PATH, Passport};

/// Longest time without a single byte before a connection is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// Longest answer that is read into memory: profiles with thousands of packages stay far below.
pub(super) const LONGEST: u64 = 64 << 20;

/// Who a node is and which server it listens to; also `/etc/gatehouse/node.json` on the installed node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The install server's address.
    pub server: Ipv4Addr,
    /// Certificate of the site's authority, PEM.
    pub authority: String,
    /// The node's name.
    pub node: NodeName,
    /// The site's domain.
    pub domain: String,
    /// The node's hardware address.
    pub mac: Mac,
    /// The node's address.
    pub address: Ipv4Addr,
    /// Prefix length of the site's network.
    pub prefix: u8,
    /// Whether the node is a machine of its own.
    #[serde(default)]
    pub machine: bool,
}

impl From<&Passport> for Home {
    fn from(passport: &Passport) -> Self {
        Self {
            server: passport.server,
            authority: passport.authority.clone(),
            node: passport.node.clone(),
            domain: passport.domain.clone(),
            mac: passport.mac,
            address: passport.address,
            prefix: passport.prefix,
            machine: passport.token.is_none(),
        }
    }
}

/// A node's certificate and the key it was made for, both PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// The private key; made on the node, and never leaves it.
    pub key: String,
}

// Without the key, which belongs in no log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A node that the server knows now.
#[derive(Debug)]
pub struct Enrolled {
    /// The connection by which it is known.
    pub client: Client,
    /// What it is known by.
    pub own: Credentials,
    /// For a machine: which of its disks the node is on.
    pub disk: Option<DiskRule>,
}

/// A fetched profile.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its text.
    pub xml: String,
    /// What the server calls this version of it, without quotation marks.
    pub etag: String,
}

/// A connection to the install server.
#[derive(Clone, Debug)]
pub struct Client {
    home: Home,
    plain: String,
    secure: String,
    pub(super) agent: Agent,
}

impl Client {
    /// A client that shows a certificate, or none before enrolment.
    ///
    /// # Errors
    /// A certificate or key that is not PEM.
    pub fn new(home: &Home, credentials: Option<&Credentials>) -> Result<Self, Fault> {
        let authority =
            Certificate::from_pem(home.authority.as_bytes()).doing(|| "reading the site authority")?;
        let mut tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(vec![authority])));
        if let Some(own) = credentials {
            let certificate = Certificate::from_pem(own.certificate.as_bytes())
                .doing(|| "reading the node's certificate")?;
            let key = PrivateKey::from_pem(own.key.as_bytes()).doing(|| "reading the node's key")?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&[certificate], key)));
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .input_buffer_size(1 << 20)
            .build()
            .new_agent();
        let (plain, secure) = (format!("http://{}", home.server), format!("https://{}", home.server));
        Ok(Self { home: home.clone(), plain, secure, agent })
    }

    /// The same for a server at other ports than a host's.
    #[cfg(test)]
    #[must_use]
    pub fn at(self, http: std::net::SocketAddr, tls: std::net::SocketAddr) -> Self {
        Self { plain: format!("http://{http}"), secure: format!("https://{tls}"), ..self }
    }

    /// The install server's address.
    pub fn server(&self) -> Ipv4Addr {
        self.home.server
    }

    pub(super) fn tls(&self, path: &str) -> String {
        format!("{}{path}", self.secure)
    }

    /// Waits until the server answers at all; the first packets of a new bridge port are lost.
    ///
    /// # Errors
    /// It does not in this time; the fault has what the last attempt met.
    pub fn wait_for_server(&self, at_most: Duration) -> Result<(), Fault> {
        let url = format!("{}/healthz", self.plain);
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let attempt = self
                .agent
                .get(&url)
                .config()
                .timeout_connect(Some(Duration::from_secs(2)))
                .build()
                .call()
                .map_err(Fault::from)
                .and_then(|answer| good(answer, LONGEST));
            match attempt {
                Ok(_) => return Ok(()),
                Err(fault) if begun.elapsed() > at_most => {
                    return Err(fault).doing(|| format!("waiting {} s for {url}", at_most.as_secs()));
                }
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Has a key certified, in exchange for the token or because somebody has approved it. None if nobody has yet.
    ///
    /// # Errors
    /// The server refuses, or is not the one that the site's authority vouches for.
    pub fn enrol(&self, key: &KeyPair, token: Option<&str>) -> Result<Option<Enrolled>, Fault> {
        let request = CertificateParams::new(vec![self.home.node.to_string()])
            .and_then(|params| params.serialize_request(key))
            .and_then(|request| request.pem())
            .doing(|| "making the certificate request")?;
        let token = token.map(str::to_owned);
        let body = EnrolRequest { node: self.home.node.clone(), token, csr: request };
        let text = self.post("/enrol", "application/json", &serde_json::to_string(&body)?)?;
        if text.is_empty() {
            return Ok(None);
        }
        let answer: EnrolAnswer =
            serde_json::from_str(&text).doing(|| "reading the answer to the enrolment")?;
        let own = Credentials { certificate: answer.certificate, key: key.serialize_pem() };
        let known = Self::new(&self.home, Some(&own))?;
        let (plain, secure) = (self.plain.clone(), self.secure.clone());
        Ok(Some(Enrolled { client: Self { plain, secure, ..known }, own, disk: answer.disk }))
    }

    /// The node's profile.
    ///
    /// # Errors
    /// The server has none for this node, or cannot be reached.
    pub fn profile(&self) -> Result<Fetched, Fault> {
        let fetched = self.newer_profile("")?;
        fetched.ok_or_else(|| {
            Fault::new("the server says that nothing has changed, and nothing was there before")
        })
    }

    /// The node's profile, unless it is still the version with this ETag (without quotation marks).
    ///
    /// # Errors
    /// As [`Client::profile`].
    pub fn newer_profile(&self, known: &str) -> Result<Option<Fetched>, Fault> {
        let url = self.tls(&format!("/profiles/{}/{}/XML/profile.xml", self.home.domain, self.home.node));
        let work = || {
            let mut request = self.agent.get(&url);
            if !known.is_empty() {
                request = request.header("if-none-match", format!("\"{known}\""));
            }
            let answer = request.call()?;
            if answer.status().as_u16() == 304 {
                return Ok(None);
            }
            let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            Ok::<_, Fault>(Some(Fetched { etag, xml: good(answer, LONGEST)? }))
        };
        work().doing(|| format!("fetching {url}"))
    }

    /// The program of a component that the node's profile names by this digest.
    ///
    /// # Errors
    /// The server does not give it to this node, or what comes has another digest.
    pub fn program(&self, digest: &Digest) -> Result<Vec<u8>, Fault> {
        let url = self.tls(&format!("/components/{digest}"));
        let work = || {
            let answer = self.agent.get(&url).call()?;
            if !answer.status().is_success() {
                good(answer, 1 << 16)?;
                return Err(Fault::new("the server has no such program"));
            }
            let bytes = answer.into_body().into_with_config().limit(LONGEST).read_to_vec()?;
            let found = Digest::of(&bytes);
            if found == *digest {
                return Ok(bytes);
            }
            Err(Fault::new(format!("its digest is {found}"))
                .help("the program was changed on its way or while it was read; it is fetched again later")
                .exit(Exit::Mismatch))
        };
        work().doing(|| format!("fetching {url}"))
    }

    /// What the server has: kernels and layers.
    ///
    /// # Errors
    /// It cannot be reached, or says something else.
    pub fn depot(&self) -> Result<Depot, Fault> {
        let url = self.tls("/depot.json");
        let work = || Ok::<_, Fault>(serde_json::from_str(&good(self.agent.get(&url).call()?, LONGEST)?)?);
        work().doing(|| format!("fetching {url}"))
    }

    /// The key that the pool is signed with, armored; none while the server has not signed it.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn pool_key(&self) -> Result<Option<String>, Fault> {
        let url = self.tls(POOL_KEY_PATH);
        let work = || {
            let answer = self.agent.get(&url).call()?;
            if answer.status().as_u16() == 503 {
                return Ok(None);
            }
            good(answer, LONGEST).map(Some)
        };
        work().doing(|| format!("fetching {url}"))
    }

    /// Tells progress: events as JSON lines.
    ///
    /// # Errors
    /// The server cannot be reached or does not want them.
    pub fn progress(&self, lines: &str) -> Result<(), Fault> {
        self.post("/progress", "application/json", lines).map(drop)
    }

    /// Acknowledges a milestone.
    ///
    /// # Errors
    /// The server cannot be reached or does not want it.
    pub fn acknowledge(&self, ack: &Ack) -> Result<(), Fault> {
        self.post("/ack", "application/json", &serde_json::to_string(ack)?).map(drop)
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> Result<String, Fault> {
        let url = self.tls(path);
        let work = || good(self.agent.post(&url).header("content-type", kind).send(body)?, LONGEST);
        work().doing(|| format!("sending to {url}"))
    }

    /// Opens a file of the depot over plain HTTP, from a byte on; who reads it checks its digest.
    ///
    /// # Errors
    /// The server cannot be reached, has no such file, or does not begin where it was asked to.
    pub fn depot_file(&self, path: &str, from: u64) -> Result<impl Read + Send + use<>, Fault> {
        let url = format!("{}/{path}", self.plain);
        let work = || {
            let mut request = self.agent.get(&url);
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let answer = request.call()?;
            let expected = if from > 0 { 206 } else { 200 };
            if answer.status().as_u16() != expected {
                let status = answer.status();
                good(answer, 1 << 16)?;
                return Err(Fault::new(format!("the server answered {status}, not {expected}")));
            }
            Ok::<_, Fault>(answer.into_body().into_with_config().limit(u64::MAX).reader())
        };
        work().doing(|| format!("fetching {url}"))
    }
}

/// The body of an answer, or a fault that quotes it when its status is not one of success.
pub(super) fn good(answer: Response<Body>, longest: u64) -> Result<String, Fault> {
    let status = answer.status();
    let text = answer.into_body().into_with_config().limit(longest).read_to_string()?;
    if status.is_success() {
        return Ok(text);
    }
    let words: String = text.trim().chars().take(400).collect();
    Err(Fault::new(format!("the server answered {status}: {words}")))
}
