//! The site's Grid authority: made here at first start, and believed by Grid software on nodes and elsewhere.

use std::path::Path;

use gatehouse_model::site::Grid;
use gatehouse_model::{Doing as _, Fault, Subject, SubjectPart};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512, PublicKey, PublicKeyData as _, SanType, SerialNumber,
};

use super::table::Holder;
use crate::server::signer::{DAY, Signer, dated};
use crate::server::tokens::random;
use crate::tool::Program;

/// The Grid authority with its key.
#[derive(Debug)]
pub(super) struct GridAuthority {
    signer: Signer,
}

/// A certificate that was signed, and when it is good.
#[derive(Debug)]
pub(super) struct Signed {
    /// PEM.
    pub(super) certificate: String,
    /// Seconds since 1970.
    pub(super) from: u64,
    /// Seconds since 1970.
    pub(super) until: u64,
}

impl GridAuthority {
    /// Reads the authority from a directory, or makes one there.
    pub(super) fn open(dir: &Path, grid: &Grid, now: u64, openssl: &Program) -> Result<Self, Fault> {
        let open = || {
            let until = now + u64::from(grid.authority_days) * DAY;
            let subject = subject(&grid.authority())?;
            let own = || {
                let mut params = dated(now, until);
                params.distinguished_name = subject;
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
                params.serial_number = Some(serial());
                params
            };
            let signer = Signer::open(dir, || key(openssl), own)?;
            // A site may cease to be a Grid site, and come back below another subject.
            let (made_for, wanted) = (signer.subject()?, x509_text(&grid.authority()));
            if made_for != wanted {
                let what = format!("it was made for {made_for}, and the site wants {wanted}");
                return Err(Fault::new(format!("{what}; write grid.base as it was")));
            }
            Ok(Self { signer })
        };
        open().doing(|| "opening the Grid authority")
    }

    /// Its certificate, PEM.
    pub(super) fn certificate(&self) -> &str {
        self.signer.certificate()
    }

    /// From when and until when that is good.
    pub(super) fn validity(&self) -> Result<(u64, u64), Fault> {
        self.signer.validity()
    }

    /// Certifies a key, for so many days but for no longer than the authority itself is good.
    pub(super) fn certify(
        &self,
        key: &PublicKey,
        holder: &Holder,
        days: u32,
        now: u64,
    ) -> Result<Signed, Fault> {
        let (_, end) = self.validity()?;
        if end <= now {
            return Err(Fault::new(format!("the Grid authority's certificate has ended; {}", super::RENEW)));
        }
        let until = end.min(now + u64::from(days) * DAY);
        let params = leaf(holder, dated(now, until))?;
        Ok(Signed { certificate: self.signer.sign(&params, key)?.pem(), from: now, until })
    }
}

/// A new key: of RSA, because Globus signs proxies by the digest with which the user's certificate was signed, and knows
/// those of RSA only. The library that signs makes no such keys.
fn key(openssl: &Program) -> Result<KeyPair, Fault> {
    let args = ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"];
    KeyPair::from_pem(&openssl.run(&args, "")?).doing(|| "making the key")
}

fn leaf(holder: &Holder, mut params: CertificateParams) -> Result<CertificateParams, Fault> {
    params.serial_number = Some(serial());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    match holder {
        Holder::Host { subject: own, names } => {
            params.distinguished_name = subject(own)?;
            for name in names {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        Holder::User(own) => {
            params.distinguished_name = subject(own)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    Ok(params)
}

fn subject(subject: &Subject) -> Result<DistinguishedName, Fault> {
    let mut name = DistinguishedName::new();
    for (part, text) in subject.parts() {
        let kind = match part {
            SubjectPart::Country => DnType::CountryName,
            SubjectPart::State => DnType::StateOrProvinceName,
            SubjectPart::Locality => DnType::LocalityName,
            SubjectPart::Organization => DnType::OrganizationName,
            SubjectPart::Unit => DnType::OrganizationalUnitName,
            SubjectPart::Name => DnType::CommonName,
        };
        let value = match part {
            // X.520 has no other form of it.
            SubjectPart::Country => DnValue::PrintableString(text.as_str().try_into()?),
            _ => DnValue::Utf8String(text.clone()),
        };
        name.push(kind, value);
    }
    Ok(name)
}

/// A subject as X.509 readers print it.
fn x509_text(subject: &Subject) -> String {
    let parts: Vec<String> = subject.parts().iter().map(|(part, text)| format!("{part}={text}")).collect();
    parts.join(", ")
}

/// Random, and positive as ASN.1 wants it.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// The public key of a certificate request that is signed by its own key; the names in it count for nothing.
///
/// # Errors
/// It is none, or the key is too weak or of a kind that is not signed here.
pub(super) fn public_key(csr_pem: &str) -> Result<PublicKey, Fault> {
    let request =
        CertificateSigningRequestParams::from_pem(csr_pem).doing(|| "reading a certificate request")?;
    let key = request.public_key;
    // The kind of key is taken from how the request is signed, which says nothing of an elliptic curve.
    let (kind, length) = (key.algorithm(), key.der_bytes().len());
    let rsa = [&PKCS_RSA_SHA256, &PKCS_RSA_SHA384, &PKCS_RSA_SHA512].contains(&kind);
    let curve = (kind == &PKCS_ECDSA_P256_SHA256 && length == 65)
        || (kind == &PKCS_ECDSA_P384_SHA384 && length == 97);
    if rsa || curve { Ok(key) } else { Err(Fault::new("the key is of a kind that is not certified")) }
}
