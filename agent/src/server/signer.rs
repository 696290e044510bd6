//! A key that was made here, with its certificate: what every authority of the host is.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Fault};
use rcgen::{CertificateParams, DistinguishedName, Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::keep;

/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;

/// The key and its certificate.
#[derive(Debug)]
pub(super) struct Signer {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    /// Reads key and certificate from a directory, or makes them there.
    pub(super) fn open(
        dir: &Path,
        key: impl FnOnce() -> Result<KeyPair, Fault>,
        own: impl FnOnce() -> CertificateParams,
    ) -> Result<Self, Fault> {
        keep::private_dir(dir)?;
        let (key_path, certificate_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        // The key is written first: a power cut between the two leaves a key that has signed nothing yet.
        let key = match keep::read_if_there(&key_path)? {
            Some(text) => KeyPair::from_pem(&text).doing(|| format!("reading {}", key_path.display()))?,
            None if certificate_path.exists() => {
                return Err(Fault::new(format!(
                    "{} is gone but its certificate is there",
                    key_path.display()
                ))
                .help("put the key back from a backup, or remove ca.crt and install every node anew"));
            }
            None => {
                let key = key()?;
                keep::replace(&key_path, 0o600, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let certificate = if let Some(text) = keep::read_if_there(&certificate_path)? {
            text
        } else {
            let text = own().self_signed(&key)?.pem();
            keep::replace(&certificate_path, 0o644, text.as_bytes())?;
            text
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .doing(|| format!("reading {}", certificate_path.display()))?;
        Ok(Self { certificate, issuer })
    }

    /// The certificate, PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The certificate, DER.
    pub(super) fn certificate_der(&self) -> Result<CertificateDer<'static>, Fault> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .doing(|| "reading the authority's certificate")
    }

    /// From when and until when the certificate is good, in seconds since 1970.
    pub(super) fn validity(&self) -> Result<(u64, u64), Fault> {
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        self.read(|parsed| {
            let validity = parsed.validity();
            (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()))
        })
    }

    /// Whom the certificate names, as `O=…, CN=…`.
    pub(super) fn subject(&self) -> Result<String, Fault> {
        self.read(|parsed| parsed.subject().to_string())
    }

    fn read<T>(&self, what: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, Fault> {
        let der = self.certificate_der()?;
        let (_, parsed) = X509Certificate::from_der(&der).doing(|| "reading the authority's certificate")?;
        Ok(what(&parsed))
    }

    /// Signs a certificate for a key.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, Fault> {
        params.signed_by(key, &self.issuer).doing(|| "signing a certificate")
    }
}

/// The time by which certificates are made and judged: the machine's clock, but never before the site's epoch.
pub(super) fn now(epoch: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(epoch, |since| since.as_secs().max(epoch))
}

/// What is to be signed now, with an empty subject. It is good a day early: a node's or a browser's clock may be behind
/// the host's.
pub(super) fn dated(now: u64, until: u64) -> CertificateParams {
    let zero = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = zero + Duration::from_secs(now.saturating_sub(DAY));
    params.not_after = zero + Duration::from_secs(until);
    params
}
