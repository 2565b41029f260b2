//! X.509 certificates (RFC 5280 §4), read once into what they say.

mod extensions;
pub(crate) mod oid;

use std::fmt;

use der::{Decode, Encode};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::dn::DistinguishedName;
use crate::general_name::GeneralName;
use crate::hash::HashAlgorithm;
use crate::key::{KeyError, KeyId, PublicKey};
use crate::pem::{self, PemError};
use crate::signature::{AlgorithmError, SignatureScheme};
use crate::signed::{SignatureError, Signed};
use crate::time::UnixTime;

pub(crate) use extensions::points;
pub use extensions::{
    BasicConstraints, DistributionPoint, Extensions, IpSubnet, KeyPurpose, NameConstraints, PolicyConstraints, Reasons,
    Subtree,
};
pub use x509_cert::ext::pkix::KeyUsage;

/// A certificate as somebody sent it. Nothing is verified yet; see [`crate::path`].
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    signed: Signed,
    version: u8,
    serial: SerialNumber,
    issuer: DistinguishedName,
    subject: DistinguishedName,
    not_before: UnixTime,
    not_after: UnixTime,
    public_key: Result<PublicKey, KeyError>,
    spki: Vec<u8>,
    extensions: Extensions,
}

/// The number that an issuer gave a certificate: the content of the DER INTEGER.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber(pub(crate) Vec<u8>);

/// Why octets are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not the DER of one.
    #[error("no certificate in DER: {0}")]
    Der(#[from] der::Error),
    /// The PEM around it is wrong.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// PEM without a certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// Larger than any certificate that means well.
    #[error("a certificate of {len} octets; at most {MAX_CERTIFICATE_LEN} are read")]
    TooLarge {
        /// Its octets.
        len: usize,
    },
    /// An extension whose value is not what it should be.
    #[error("the extension {name} is broken: {why}")]
    Extension {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        why: der::Error,
    },
    /// Two extensions of the same kind (RFC 5280 §4.2 forbids it).
    #[error("the extension {0} is there twice")]
    Twice(String),
    /// Extensions in a certificate of version 1 or 2.
    #[error("a certificate of version {0} must not have extensions")]
    Version(u8),
    /// The algorithm within the signed part and the one next to the signature differ (RFC 5280 §4.1.1.2).
    #[error("the signature algorithm inside and outside of the certificate differ")]
    AlgorithmsDiffer,
}

impl Certificate {
    /// Reads a certificate, whoever it comes from.
    ///
    /// # Errors
    /// [`CertificateError`] for anything else, also when something follows.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(CertificateError::TooLarge { len: der.len() });
        }
        let signed = Signed::from_der(der)?;
        let tbs = TbsCertificate::from_der(&signed.content)?;
        if *tbs.signature() != signed.algorithm {
            return Err(CertificateError::AlgorithmsDiffer);
        }
        let version = match tbs.version() {
            Version::V1 => 1,
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let extensions = match tbs.extensions() {
            Some(_) if version < 3 => return Err(CertificateError::Version(version)),
            Some(extensions) => Extensions::read(extensions)?,
            None => Extensions::default(),
        };
        let spki = tbs.subject_public_key_info().to_der()?;
        Ok(Self {
            der: der.to_vec(),
            version,
            serial: SerialNumber::of(tbs.serial_number())?,
            issuer: DistinguishedName::from_name(tbs.issuer())?,
            subject: DistinguishedName::from_name(tbs.subject())?,
            not_before: tbs.validity().not_before.into(),
            not_after: tbs.validity().not_after.into(),
            public_key: PublicKey::from_spki_der(&spki),
            spki,
            extensions,
            signed,
        })
    }

    /// Reads a file: one certificate in DER, or all those in PEM.
    ///
    /// # Errors
    /// [`CertificateError`] when there is none or one of them is broken.
    pub fn load(octets: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if !pem::is_pem(octets) {
            return Ok(vec![Self::from_der(octets)?]);
        }
        let certificates: Vec<_> = pem::parse(octets)?
            .iter()
            .filter(|block| PEM_LABELS.contains(&block.label.as_str()))
            .map(|block| Self::from_der(&block.der))
            .collect::<Result<_, _>>()?;
        if certificates.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(certificates) }
    }

    /// The DER, as it came.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der).to_string()
    }

    /// 1, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The serial number.
    #[must_use]
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// Whose certificate it is; may be empty when there are alternative names.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// Who signed it.
    #[must_use]
    pub fn issuer(&self) -> &DistinguishedName {
        &self.issuer
    }

    /// The first second of its validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The key that it is about.
    ///
    /// # Errors
    /// [`KeyError`] when it is of a kind that we do not know, or no key at all.
    pub fn public_key(&self) -> Result<&PublicKey, &KeyError> {
        self.public_key.as_ref()
    }

    /// The SHA-1 of the SubjectPublicKeyInfo, as CERTREQ carries it (RFC 7296 §3.7). It exists for unknown keys too.
    #[must_use]
    pub fn spki_id(&self) -> KeyId {
        KeyId(crate::hash::sha1(&self.spki))
    }

    /// The octets of the key without its algorithm, as OCSP hashes them.
    pub(crate) fn key_bits(&self) -> der::Result<&[u8]> {
        let info = SubjectPublicKeyInfoRef::from_der(&self.spki)?;
        info.subject_public_key.as_bytes().ok_or_else(|| der::Tag::BitString.value_error().into())
    }

    /// The SHA-256 of the whole certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<u8> {
        HashAlgorithm::Sha256.digest(&self.der)
    }

    /// How it is signed.
    ///
    /// # Errors
    /// [`AlgorithmError`] when we do not know or accept the algorithm.
    pub fn signature_scheme(&self) -> Result<SignatureScheme, AlgorithmError> {
        self.signed.scheme()
    }

    /// The extensions.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The alternative names of the subject.
    #[must_use]
    pub fn alternative_names(&self) -> &[GeneralName] {
        &self.extensions.subject_alternative_names
    }

    /// Whether it says of itself that it is a CA (RFC 5280 §4.2.1.9).
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Whether issuer and subject are the same name (RFC 5280 §6.1).
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject.same_as(&self.issuer)
    }

    /// Whether it is signed by its own key. SHA-1 counts here: nothing follows from it.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.is_self_issued() && self.public_key().is_ok_and(|key| self.verify_signature(key).is_ok())
    }

    /// Checks the signature with the key of the issuer, and nothing else.
    ///
    /// # Errors
    /// [`SignatureError`]
    pub fn verify_signature(&self, issuer: &PublicKey) -> Result<(), SignatureError> {
        self.signed.verify(issuer)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, serial {}, issuer {})", self.subject, self.serial, self.issuer)
    }
}

impl PartialEq for Certificate {
    /// The same octets.
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl SerialNumber {
    /// A positive number from its octets, the highest first.
    ///
    /// `None` when there is none, or more than 20 octets would be needed (RFC 5280 §4.1.2.2).
    #[must_use]
    pub fn positive(octets: &[u8]) -> Option<Self> {
        let skipped = octets.iter().take_while(|octet| **octet == 0).count();
        let digits = octets.get(skipped..)?;
        let high = *digits.first()?;
        let content = if high < 0x80 { digits.to_vec() } else { [&[0], digits].concat() };
        (content.len() <= MAX_SERIAL_LEN).then_some(Self(content))
    }

    /// The number after it, for CRLs; `None` when it would need more than 20 octets.
    #[must_use]
    pub fn successor(&self) -> Option<Self> {
        let mut octets = [&[0], self.0.as_slice()].concat();
        for octet in octets.iter_mut().rev() {
            *octet = octet.wrapping_add(1);
            if *octet != 0 {
                break;
            }
        }
        Self::positive(&octets)
    }

    /// By this numbers that are not negative are in order.
    #[must_use]
    pub fn ordering(&self) -> (usize, &[u8]) {
        (self.0.len(), &self.0)
    }

    pub(crate) fn of<P: x509_cert::certificate::Profile>(
        serial: &x509_cert::serial_number::SerialNumber<P>,
    ) -> der::Result<Self> {
        Ok(Self(der::asn1::Any::encode_from(serial)?.value().to_vec()))
    }

    pub(crate) fn encoded(&self) -> der::Result<x509_cert::serial_number::SerialNumber> {
        der::asn1::Any::new(der::Tag::Integer, self.0.as_slice())?.decode_as()
    }
}

impl fmt::Display for SerialNumber {
    /// `01:ab:…`, as strongSwan prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0.as_slice() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            digits => digits,
        };
        digits.iter().enumerate().try_for_each(|(index, octet)| {
            f.write_str(if index == 0 { "" } else { ":" })?;
            write!(f, "{octet:02x}")
        })
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// More than any certificate needs that is used for IKE; keeps the work on a hostile one small.
pub const MAX_CERTIFICATE_LEN: usize = 64 << 10;

const MAX_SERIAL_LEN: usize = 20;

const PEM_LABELS: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];

#[cfg(test)]
mod tests;
