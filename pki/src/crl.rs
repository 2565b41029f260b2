//! Certificate revocation lists (RFC 5280 §5).
//!
//! ```text
//! from_der → Crl ──verify(issuer)→ VerifiedCrl ──status(certificate, all of them)→ Status
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use der::asn1::ObjectIdentifier;
use der::{Decode, Sequence};
use x509_cert::certificate::Version;
use x509_cert::crl::RevokedCert;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName as Encoded, GeneralNames};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, FreshestCrl};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::certificate::{Certificate, DistributionPoint, Reasons, SerialNumber, oid, points};
use crate::dn::DistinguishedName;
use crate::general_name::GeneralName;
use crate::hash::HashAlgorithm;
use crate::path::Strength;
use crate::pem::{self, PemError};
use crate::revocation::Reason;
use crate::signature::AlgorithmError;
use crate::signed::{SignatureError, Signed};
use crate::time::UnixTime;

mod status;

pub use status::status;

/// A CRL as somebody sent it. Nothing is believed of it yet.
#[derive(Clone)]
pub struct Crl {
    der: Vec<u8>,
    fingerprint: Vec<u8>,
    signed: Signed,
    issuer: DistinguishedName,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    number: Option<SerialNumber>,
    base_number: Option<SerialNumber>,
    authority_key_id: Option<Vec<u8>>,
    scope: Scope,
    freshest: Vec<DistributionPoint>,
    unknown_critical: Vec<ObjectIdentifier>,
    /// By serial number; in an indirect CRL there can be several of one number.
    revoked: BTreeMap<SerialNumber, Vec<Entry>>,
}

/// A CRL whose signature, issuer and extensions were checked.
#[derive(Clone, Debug)]
pub struct VerifiedCrl {
    /// Shared: a CRL can be large, and a copy of this is cheap.
    crl: Arc<Crl>,
}

/// A revoked certificate in a CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Since when.
    pub time: UnixTime,
    /// Why.
    pub reason: Reason,
    /// Who issued the certificate.
    issuer: Arc<DistinguishedName>,
}

/// What a CRL is about (RFC 5280 §5.2.5); by default all certificates and all reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scope {
    names: Vec<GeneralName>,
    only_user_certificates: bool,
    only_ca_certificates: bool,
    only_attribute_certificates: bool,
    reasons: Option<Reasons>,
    indirect: bool,
}

/// Why octets are no CRL, or one that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// Not the DER of one.
    #[error("no CRL in DER: {0}")]
    Der(#[from] der::Error),
    /// The PEM around it is wrong.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The algorithm within the signed part and the one next to the signature differ.
    #[error("the signature algorithm inside and outside of the CRL differ")]
    AlgorithmsDiffer,
    /// Another CA issued it.
    #[error("the CRL is issued by `{has}`, not by `{wanted}`")]
    Issuer {
        /// The issuer it names.
        has: String,
        /// Who should have issued it.
        wanted: String,
    },
    /// The key usage of the issuer does not allow it.
    #[error("`{0}` must not sign CRLs: its key usage lacks cRLSign")]
    KeyUsage(String),
    /// The key of the issuer cannot be used.
    #[error("the key of `{issuer}` cannot be used: {why}")]
    Key {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        why: crate::key::KeyError,
    },
    /// The signature is wrong.
    #[error("the signature of `{issuer}` on its CRL does not count: {why}")]
    Signature {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        why: SignatureError,
    },
    /// The hash of the signature is too weak.
    #[error("the signature of `{issuer}` on its CRL is not allowed: {wanted}")]
    Weak {
        /// The issuer.
        issuer: String,
        /// What is allowed.
        wanted: String,
    },
    /// A critical extension that we do not know.
    #[error("the CRL of `{issuer}` has the critical extension {extension}, which is not known")]
    CriticalExtension {
        /// The issuer.
        issuer: String,
        /// The extension.
        extension: ObjectIdentifier,
    },
}

/// ```text
/// TBSCertList ::= SEQUENCE {
///     version             Version OPTIONAL,          absent in version 1, which OpenSSL writes by default
///     signature           AlgorithmIdentifier,
///     issuer              Name,
///     thisUpdate          Time,
///     nextUpdate          Time OPTIONAL,
///     revokedCertificates SEQUENCE OF SEQUENCE { userCertificate, revocationDate, crlEntryExtensions OPTIONAL } OPTIONAL,
///     crlExtensions       [0] Extensions OPTIONAL }
/// ```
#[derive(Sequence)]
struct Content {
    version: Option<Version>,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    this_update: Time,
    next_update: Option<Time>,
    revoked: Option<Vec<RevokedCert>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

impl Crl {
    /// Reads a CRL, whoever it comes from.
    ///
    /// # Errors
    /// [`CrlError`] for anything else, also when something follows.
    pub fn from_der(der: &[u8]) -> Result<Self, CrlError> {
        let signed = Signed::from_der(der)?;
        let content = Content::from_der(&signed.content)?;
        if content.signature != signed.algorithm {
            return Err(CrlError::AlgorithmsDiffer);
        }
        let issuer = DistinguishedName::from_name(&content.issuer)?;
        let mut crl = Self {
            der: der.to_vec(),
            fingerprint: HashAlgorithm::Sha256.digest(der),
            signed,
            this_update: content.this_update.into(),
            next_update: content.next_update.map(UnixTime::from),
            number: None,
            base_number: None,
            authority_key_id: None,
            scope: Scope::default(),
            freshest: Vec::new(),
            unknown_critical: Vec::new(),
            revoked: BTreeMap::new(),
            issuer,
        };
        for extension in content.extensions.iter().flatten() {
            crl.take(extension)?;
        }
        crl.take_entries(content.revoked.unwrap_or_default())?;
        Ok(crl)
    }

    /// Reads a file, PEM or DER.
    ///
    /// # Errors
    /// [`CrlError`]
    pub fn load(octets: &[u8]) -> Result<Self, CrlError> {
        if !pem::is_pem(octets) {
            return Self::from_der(octets);
        }
        match pem::parse(octets)?.iter().find(|block| block.label == PEM_LABEL) {
            Some(block) => Self::from_der(&block.der),
            None => Err(PemError::Nothing.into()),
        }
    }

    /// The DER, as it came.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The CRL in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(PEM_LABEL, &self.der).to_string()
    }

    /// The SHA-256 of the whole CRL.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// Who signed it.
    #[must_use]
    pub fn issuer(&self) -> &DistinguishedName {
        &self.issuer
    }

    /// When it was made.
    #[must_use]
    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// When the next one will be there.
    #[must_use]
    pub fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// Its number; later ones have higher numbers.
    #[must_use]
    pub fn number(&self) -> Option<&SerialNumber> {
        self.number.as_ref()
    }

    /// The number of the CRL that this one adds to, if it is a delta CRL.
    #[must_use]
    pub fn base_number(&self) -> Option<&SerialNumber> {
        self.base_number.as_ref()
    }

    /// Where delta CRLs to it are.
    #[must_use]
    pub fn freshest(&self) -> &[DistributionPoint] {
        &self.freshest
    }

    /// How it is signed.
    ///
    /// # Errors
    /// [`AlgorithmError`] when we do not know or accept the algorithm.
    pub fn signature_scheme(&self) -> Result<crate::signature::SignatureScheme, AlgorithmError> {
        self.signed.scheme()
    }

    /// The revoked certificates, by serial number.
    pub fn entries(&self) -> impl Iterator<Item = (&SerialNumber, &Entry)> {
        self.revoked.iter().flat_map(|(serial, entries)| entries.iter().map(move |entry| (serial, entry)))
    }

    /// Checks who signed it. `issuer` is trusted by whoever calls: the CA of the certificates in question, or, for a CRL that
    /// a certificate says another one signs, that one with a valid path of its own.
    ///
    /// # Errors
    /// [`CrlError`]
    pub fn verify(self, issuer: &Certificate, strength: &Strength) -> Result<VerifiedCrl, CrlError> {
        let name = || issuer.subject().to_string();
        if !self.issuer.same_as(issuer.subject()) {
            return Err(CrlError::Issuer { has: self.issuer.to_string(), wanted: name() });
        }
        if issuer.extensions().key_usage.as_ref().is_some_and(|usage| !usage.crl_sign()) {
            return Err(CrlError::KeyUsage(name()));
        }
        let key = issuer.public_key().map_err(|why| CrlError::Key { issuer: name(), why: why.clone() })?;
        self.signed.verify(key).map_err(|why| CrlError::Signature { issuer: name(), why })?;
        if let Ok(scheme) = self.signed.scheme() {
            strength.check_signature(scheme).map_err(|wanted| CrlError::Weak { issuer: name(), wanted })?;
        }
        match self.unknown_critical.first() {
            Some(extension) => Err(CrlError::CriticalExtension { issuer: name(), extension: *extension }),
            None => Ok(VerifiedCrl { crl: Arc::new(self) }),
        }
    }

    fn take(&mut self, extension: &Extension) -> Result<(), CrlError> {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            oid::AUTHORITY_KEY_ID => {
                let id = AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                self.authority_key_id = id.map(|id| id.as_bytes().to_vec());
            }
            oid::CRL_NUMBER => self.number = Some(number(value)?),
            oid::DELTA_CRL_INDICATOR => self.base_number = Some(number(value)?),
            oid::ISSUING_DISTRIBUTION_POINT => self.scope = Scope::read(&IssuingDistributionPoint::from_der(value)?)?,
            oid::FRESHEST_CRL => self.freshest = points(&FreshestCrl::from_der(value)?.0)?,
            other if extension.critical => self.unknown_critical.push(other),
            _ => {}
        }
        Ok(())
    }

    /// RFC 5280 §5.3: in an indirect CRL an entry without issuer has that of the entry before.
    fn take_entries(&mut self, entries: Vec<RevokedCert>) -> Result<(), CrlError> {
        let mut issuer = Arc::new(self.issuer.clone());
        for entry in entries {
            let mut reason = Reason::Unspecified;
            for extension in entry.crl_entry_extensions.iter().flatten() {
                let value = extension.extn_value.as_bytes();
                match extension.extn_id {
                    oid::CRL_REASON => reason = reason_of(value)?,
                    oid::CERTIFICATE_ISSUER => {
                        issuer = directory_name(&GeneralNames::from_der(value)?)?.map_or(issuer, Arc::new);
                    }
                    other if extension.critical => self.unknown_critical.push(other),
                    _ => {}
                }
            }
            let serial = SerialNumber::of(&entry.serial_number)?;
            let found = Entry { time: entry.revocation_date.into(), reason, issuer: Arc::clone(&issuer) };
            self.revoked.entry(serial).or_default().push(found);
        }
        Ok(())
    }
}

impl VerifiedCrl {
    /// The CRL.
    #[must_use]
    pub fn crl(&self) -> &Crl {
        &self.crl
    }
}

impl Scope {
    fn read(point: &IssuingDistributionPoint) -> der::Result<Self> {
        let names = match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => {
                names.iter().map(GeneralName::from_encoded).collect::<der::Result<_>>()?
            }
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => Vec::new(),
        };
        Ok(Self {
            names,
            only_user_certificates: point.only_contains_user_certs,
            only_ca_certificates: point.only_contains_ca_certs,
            only_attribute_certificates: point.only_contains_attribute_certs,
            reasons: point.only_some_reasons.map(|reasons| Reasons(reasons.bits())),
            indirect: point.indirect_crl,
        })
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({}, {}, {} revoked)", self.issuer, self.this_update, self.revoked.len())
    }
}

/// A number that counts CRLs; as the content of a DER INTEGER it compares like one of its length.
fn number(value: &[u8]) -> der::Result<SerialNumber> {
    let number = der::asn1::Uint::from_der(value)?;
    SerialNumber::positive(number.as_bytes()).map_or_else(
        || {
            if number.as_bytes().iter().all(|octet| *octet == 0) {
                Ok(SerialNumber(vec![0]))
            } else {
                Err(der::Tag::Integer.length_error().into())
            }
        },
        Ok,
    )
}

/// A CRLReason: an ENUMERATED.
pub(crate) fn reason_of(value: &[u8]) -> der::Result<Reason> {
    let any = der::asn1::AnyRef::from_der(value)?;
    match (der::Tagged::tag(&any), any.value()) {
        (der::Tag::Enumerated, [number]) => Ok(Reason::from_number(u32::from(*number))),
        _ => Err(der::Tag::Enumerated.value_error().into()),
    }
}

fn directory_name(names: &GeneralNames) -> der::Result<Option<DistinguishedName>> {
    let directory = names.iter().find_map(|name| match name {
        Encoded::DirectoryName(name) => Some(name),
        Encoded::OtherName(_)
        | Encoded::Rfc822Name(_)
        | Encoded::DnsName(_)
        | Encoded::EdiPartyName(_)
        | Encoded::UniformResourceIdentifier(_)
        | Encoded::IpAddress(_)
        | Encoded::RegisteredId(_) => None,
    });
    directory.map(DistinguishedName::from_name).transpose()
}

const PEM_LABEL: &str = "X509 CRL";

#[cfg(test)]
mod tests;
