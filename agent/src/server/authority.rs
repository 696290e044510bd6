//! The site's certificate authority: made here at first start, kept in state, believed by every node.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatehouse_model::{Doing as _, Fault, NodeName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::keep;
use crate::wire::fingerprint;

const DAY: u64 = 86_400;
/// How long what the authority signs is good for: longer than any machine lasts, as nobody would renew it.
const LIFETIME: u64 = 20 * 365 * DAY;

/// The authority with its key.
#[derive(Debug)]
pub struct Authority {
    domain: String,
    epoch: u64,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority from a directory, or makes one there.
    ///
    /// # Errors
    /// The directory cannot be written or holds something else.
    pub fn open(dir: &Path, domain: &str, epoch: u64) -> Result<Self, Fault> {
        Self::open_in(dir, domain, epoch).doing(|| "opening the site's authority")
    }

    fn open_in(dir: &Path, domain: &str, epoch: u64) -> Result<Self, Fault> {
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
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                keep::replace(&key_path, 0o600, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let certificate = if let Some(text) = keep::read_if_there(&certificate_path)? {
            text
        } else {
            let text = own_params(domain, epoch).self_signed(&key)?.pem();
            keep::replace(&certificate_path, 0o644, text.as_bytes())?;
            text
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .doing(|| format!("reading {}", certificate_path.display()))?;
        Ok(Self { domain: domain.to_owned(), epoch, certificate, issuer })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's certificate, DER.
    ///
    /// # Errors
    /// The file in state is not PEM.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, Fault> {
        use rustls::pki_types::pem::PemObject as _;
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .doing(|| "reading the authority's certificate")
    }

    /// Signs a node's certificate (PEM). Only the request's public key counts; its names are the server's to give.
    ///
    /// # Errors
    /// The request is not one, or is not signed by its own key.
    pub fn issue(&self, csr_pem: &str, node: &NodeName) -> Result<String, Fault> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .doing(|| format!("reading the certificate request of {node}"))?;
        let name = SanType::DnsName(format!("{node}.{}", self.domain).try_into()?);
        let params = leaf(self.epoch, node.as_str(), vec![name], ExtendedKeyUsagePurpose::ClientAuth);
        Ok(self.sign(&params, &request.public_key)?.pem())
    }

    /// What people compare of a certificate request's key.
    ///
    /// # Errors
    /// The request is not one.
    pub fn fingerprint_of(csr_pem: &str) -> Result<String, Fault> {
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).doing(|| "reading a certificate request")?;
        Ok(fingerprint(&request.public_key.subject_public_key_info()))
    }

    /// Makes a key and certificate for the server itself. Anew at every start and never on a disk: nodes believe
    /// the authority, so nothing is pinned to this one.
    ///
    /// # Errors
    /// The host's name is not one that a certificate can hold.
    pub fn server_identity(
        &self,
        host: &NodeName,
        addresses: &[Ipv4Addr],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Fault> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut names = Vec::new();
        for name in [format!("{host}.{}", self.domain), host.to_string()] {
            names.push(SanType::DnsName(name.try_into()?));
        }
        names.extend(addresses.iter().map(|address| SanType::IpAddress((*address).into())));
        let params = leaf(self.epoch, host.as_str(), names, ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = self.sign(&params, &key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }

    fn sign(
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

fn own_params(domain: &str, epoch: u64) -> CertificateParams {
    let mut params = dated(epoch);
    params.distinguished_name.push(DnType::CommonName, format!("Gatehouse authority of {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf(epoch: u64, name: &str, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = dated(epoch);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

// A day early: a node's or a browser's clock may be behind the host's.
fn dated(epoch: u64) -> CertificateParams {
    let zero = rcgen::date_time_ymd(1970, 1, 1);
    let from = now(epoch).saturating_sub(DAY);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = zero + Duration::from_secs(from);
    params.not_after = zero + Duration::from_secs(from + LIFETIME);
    params
}
