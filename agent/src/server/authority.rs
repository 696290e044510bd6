//! The site's certificate authority: made here at first start, kept in state, believed by every node.

use std::net::Ipv4Addr;
use std::path::Path;

use gatehouse_model::{Doing as _, Fault, NodeName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::signer::{DAY, Signer, dated, now};
use crate::wire::fingerprint;

/// How long what the authority signs is good for: longer than any machine lasts, as nobody would renew it.
const LIFETIME: u64 = 20 * 365 * DAY;

/// The authority with its key.
#[derive(Debug)]
pub struct Authority {
    domain: String,
    epoch: u64,
    signer: Signer,
}

impl Authority {
    /// Reads the authority from a directory, or makes one there.
    ///
    /// # Errors
    /// The directory cannot be written or holds something else.
    pub fn open(dir: &Path, domain: &str, epoch: u64) -> Result<Self, Fault> {
        let key = || Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let signer = Signer::open(dir, key, || own_params(domain, epoch));
        Ok(Self {
            domain: domain.to_owned(),
            epoch,
            signer: signer.doing(|| "opening the site's authority")?,
        })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        self.signer.certificate()
    }

    /// The authority's certificate, DER.
    ///
    /// # Errors
    /// The file in state is not PEM.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, Fault> {
        self.signer.certificate_der()
    }

    /// From when and until when the authority's certificate is good, in seconds since 1970.
    ///
    /// # Errors
    /// The file in state is no certificate.
    pub fn validity(&self) -> Result<(u64, u64), Fault> {
        self.signer.validity()
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
        Ok(self.signer.sign(&params, &request.public_key)?.pem())
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
        let certificate = self.signer.sign(&params, &key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }
}

fn own_params(domain: &str, epoch: u64) -> CertificateParams {
    let mut params = lasting(epoch);
    params.distinguished_name.push(DnType::CommonName, format!("Gatehouse authority of {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf(epoch: u64, name: &str, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = lasting(epoch);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn lasting(epoch: u64) -> CertificateParams {
    let now = now(epoch);
    dated(now, now + LIFETIME)
}
