//! Making certificates.
//!
//! What a [`Template`] says becomes extensions as strongSwan's `pki` makes them, so that both tools can be mixed. Besides
//! those, every certificate has a subjectKeyIdentifier, one that is issued an authorityKeyIdentifier, and one that is no
//! CA the key usage digitalSignature, all that IKE needs (RFC 4945 §5.1.3.2).

mod crl;
mod extensions;

use der::asn1::{BitString, ObjectIdentifier};
use der::{Decode, Document, Encode};
use rand_core::CryptoRng;
use signature::Keypair;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::time::Validity;

use crate::certificate::{Certificate, CertificateError, KeyPurpose, NameConstraints, PolicyConstraints, SerialNumber};
use crate::dn::DistinguishedName;
use crate::general_name::GeneralName;
use crate::key::{PrivateKey, PublicKey};
use crate::signature::{SignError, SignatureScheme};
use crate::time::UnixTime;

pub use crl::{CrlTemplate, RevokedCertificate};
pub(crate) use extensions::{distribution_points, extended_key_usage, extension, subject_alternative_name};

/// What stands in a certificate apart from issuer and key.
#[derive(Clone, Debug)]
pub struct Template {
    /// Whose it is; may be empty when there are alternative names.
    pub subject: DistinguishedName,
    /// Other names; [`GeneralName::Other`] cannot be written.
    pub alternative_names: Vec<GeneralName>,
    /// The serial number; [`random_serial`] makes one.
    pub serial: SerialNumber,
    /// The first second of validity.
    pub not_before: UnixTime,
    /// The last second of validity.
    pub not_after: UnixTime,
    /// Whether it is a CA.
    pub ca: Option<CaTemplate>,
    /// What it may be used for; empty for anything.
    pub purposes: Vec<KeyPurpose>,
    /// Whether it may sign CRLs though it is no CA.
    pub crl_sign: bool,
    /// Names that certificates below may have.
    pub name_constraints: NameConstraints,
    /// Policies.
    pub policies: Vec<Policy>,
    /// Policies of ours and what the subject calls them.
    pub policy_mappings: Vec<(ObjectIdentifier, ObjectIdentifier)>,
    /// From where on policies are needed.
    pub policy_constraints: Option<PolicyConstraints>,
    /// After how many certificates `anyPolicy` no longer counts.
    pub inhibit_any_policy: Option<u32>,
    /// Where CRLs are, and who signs them when it is not the issuer.
    pub crl_points: Vec<CrlPoint>,
    /// Where to ask by OCSP.
    pub ocsp_uris: Vec<String>,
    /// Other extensions: identifier, criticality and value. They replace what would be made with the same identifier.
    pub extra: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
}

/// What a CA certificate says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct CaTemplate {
    /// How many CAs may follow below; `None` for any number.
    pub path_len: Option<u8>,
}

/// A certificate policy (RFC 5280 §4.2.1.4).
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its identifier.
    pub id: ObjectIdentifier,
    /// Where its text is.
    pub cps_uri: Option<String>,
    /// Its text, or what the user shall know.
    pub notice: Option<String>,
}

/// Where a CRL is.
#[derive(Clone, Debug)]
pub struct CrlPoint {
    /// The URI.
    pub uri: String,
    /// Who signs it, when it is not the issuer of the certificate.
    pub issuer: Option<DistinguishedName>,
}

/// A CA that signs.
pub struct Issuer<'a> {
    certificate: &'a Certificate,
    key: &'a PrivateKey,
    scheme: SignatureScheme,
}

/// Why no certificate, request or CRL was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// Something does not fit in DER.
    #[error("this cannot be written in DER: {0}")]
    Der(#[from] der::Error),
    /// A name that cannot be written.
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
    /// The certificate of the issuer does not belong to its key.
    #[error("the CA certificate {certificate} does not belong to the CA key")]
    WrongKey {
        /// The subject of the certificate.
        certificate: String,
    },
    /// The issuer is no CA.
    #[error("`{0}` must not sign this: it is no CA, or its key usage forbids it")]
    NotCa(String),
    /// The end is before the beginning, or beyond that of the issuer.
    #[error("the validity from {not_before} to {not_after} is empty")]
    Validity {
        /// The first second.
        not_before: UnixTime,
        /// The last second.
        not_after: UnixTime,
    },
    /// Neither subject nor alternative name.
    #[error("a certificate needs a subject or an alternative name")]
    NoName,
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// What was made cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Template {
    /// A certificate for `subject` and nothing else.
    #[must_use]
    pub fn new(subject: DistinguishedName, serial: SerialNumber, not_before: UnixTime, not_after: UnixTime) -> Self {
        Self {
            subject,
            serial,
            not_before,
            not_after,
            alternative_names: Vec::new(),
            ca: None,
            purposes: Vec::new(),
            crl_sign: false,
            name_constraints: NameConstraints::default(),
            policies: Vec::new(),
            policy_mappings: Vec::new(),
            policy_constraints: None,
            inhibit_any_policy: None,
            crl_points: Vec::new(),
            ocsp_uris: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Makes a certificate that its own key signs.
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn self_signed(
        &self,
        key: &PrivateKey,
        scheme: SignatureScheme,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.sign(key.public_key(), &self.subject, None, key, scheme, rng)
    }

    fn sign(
        &self,
        subject_key: &PublicKey,
        issuer: &DistinguishedName,
        issuer_key_id: Option<&[u8]>,
        key: &PrivateKey,
        scheme: SignatureScheme,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        let (not_before, not_after) = (self.not_before, self.not_after);
        if not_after < not_before {
            return Err(IssueError::Validity { not_before, not_after });
        }
        if self.subject.is_empty() && self.alternative_names.is_empty() {
            return Err(IssueError::NoName);
        }
        let names = Names { issuer: issuer.to_name()?, subject: self.subject.to_name()? };
        let validity = Validity::new(not_before.to_x509(), not_after.to_x509());
        let spki = SubjectPublicKeyInfoOwned::from_der(subject_key.spki_der())?;
        let mut builder =
            CertificateBuilder::new(names, self.serial.encoded()?, validity, spki).map_err(builder_error)?;
        for extension in self.extensions(subject_key, issuer_key_id)? {
            builder.add_extension(extension)?;
        }
        let signer = Signer { key: key.public_key(), scheme };
        let content = builder.finalize(&signer).map_err(builder_error)?;
        let signature = BitString::from_bytes(&key.sign(scheme, &content, rng)?)?;
        let certificate = builder.assemble(signature, &signer).map_err(builder_error)?;
        Ok(Certificate::from_der(&certificate.to_der()?)?)
    }
}

impl<'a> Issuer<'a> {
    /// A CA with its key, and how it signs.
    ///
    /// # Errors
    /// [`IssueError::WrongKey`] when the two do not belong together, [`IssueError::NotCa`].
    pub fn new(certificate: &'a Certificate, key: &'a PrivateKey, scheme: SignatureScheme) -> Result<Self, IssueError> {
        let may_sign = certificate.extensions().key_usage.as_ref().is_none_or(|usage| usage.key_cert_sign());
        if !certificate.is_ca() || !may_sign {
            return Err(IssueError::NotCa(certificate.subject().to_string()));
        }
        Self::of_pair(certificate, key, scheme)
    }

    /// Who signs CRLs: a CA, or a certificate that is made for it.
    ///
    /// # Errors
    /// [`IssueError::WrongKey`] when the two do not belong together, [`IssueError::NotCa`] when it must not sign CRLs.
    pub fn of_crls(
        certificate: &'a Certificate,
        key: &'a PrivateKey,
        scheme: SignatureScheme,
    ) -> Result<Self, IssueError> {
        let may_sign = match &certificate.extensions().key_usage {
            Some(usage) => usage.crl_sign(),
            None => certificate.is_ca(),
        };
        if !may_sign {
            return Err(IssueError::NotCa(certificate.subject().to_string()));
        }
        Self::of_pair(certificate, key, scheme)
    }

    fn of_pair(certificate: &'a Certificate, key: &'a PrivateKey, scheme: SignatureScheme) -> Result<Self, IssueError> {
        if certificate.public_key() == Ok(key.public_key()) {
            Ok(Self { certificate, key, scheme })
        } else {
            Err(IssueError::WrongKey { certificate: certificate.subject().to_string() })
        }
    }

    /// Whoever signs here: tests need issuers that are not allowed to.
    #[cfg(test)]
    pub(crate) fn unchecked(certificate: &'a Certificate, key: &'a PrivateKey, scheme: SignatureScheme) -> Self {
        Self { certificate, key, scheme }
    }

    /// Makes a certificate for a key.
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn issue(
        &self,
        template: &Template,
        subject_key: &PublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        let key_id = self.key_id();
        template.sign(subject_key, self.certificate.subject(), Some(&key_id), self.key, self.scheme, rng)
    }

    /// The certificate of the CA.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        self.certificate
    }

    pub(crate) fn key(&self) -> (&PrivateKey, SignatureScheme) {
        (self.key, self.scheme)
    }

    /// How certificates and CRLs of this CA name its key: as its own certificate does.
    pub(crate) fn key_id(&self) -> Vec<u8> {
        let own = self.certificate.extensions().subject_key_id.clone();
        own.unwrap_or_else(|| self.key.public_key().key_id().0.to_vec())
    }
}

/// A serial number of 16 random octets: more than CAs need to keep them apart and attackers from guessing.
#[must_use]
pub fn random_serial(rng: &mut dyn CryptoRng) -> SerialNumber {
    let mut octets = [0; 16];
    rng.fill_bytes(&mut octets);
    // Never zero, never negative, always of the same length.
    octets[0] = octets[0] & 0x7f | 0x40;
    SerialNumber(octets.to_vec())
}

/// Issuer and subject for the library's builder, which adds no extensions of its own then.
struct Names {
    issuer: Name,
    subject: Name,
}

impl BuilderProfile for Names {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(Vec::new())
    }
}

/// What the library's builder wants to know of the signer; signing itself happens outside.
struct Signer<'a> {
    key: &'a PublicKey,
    scheme: SignatureScheme,
}

impl Keypair for Signer<'_> {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        self.key.clone()
    }
}

impl DynSignatureAlgorithmIdentifier for Signer<'_> {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        Ok(self.scheme.to_identifier()?)
    }
}

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> x509_cert::spki::Result<Document> {
        Ok(Document::try_from(self.spki_der())?)
    }
}

fn builder_error(error: x509_cert::builder::Error) -> IssueError {
    if let x509_cert::builder::Error::Asn1(error) = error {
        IssueError::Der(error)
    } else {
        IssueError::Name(error.to_string())
    }
}
