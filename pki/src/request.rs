//! Certification requests (PKCS#10, RFC 2986).
//!
//! ```text
//! CertificationRequestInfo ::= SEQUENCE {
//!     version       INTEGER { v1(0) },
//!     subject       Name,
//!     subjectPKInfo SubjectPublicKeyInfo,
//!     attributes    [0] SET OF Attribute }      extensionRequest, challengePassword
//! ```

use std::fmt;

use der::asn1::{Any, BitString, SetOfVec};
use der::{Decode, Encode, Tag};
use rand_core::CryptoRng;
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::certificate::{CertificateError, Extensions, KeyPurpose, oid};
use crate::dn::DistinguishedName;
use crate::general_name::GeneralName;
use crate::issue::{IssueError, extended_key_usage, subject_alternative_name};
use crate::key::{KeyError, PrivateKey, PublicKey};
use crate::pem::{self, PemError};
use crate::signature::{AlgorithmError, SignatureScheme};
use crate::signed::{SignatureError, Signed};

/// A request whose signature was checked: whoever made it has the private key.
#[derive(Clone)]
pub struct Request {
    der: Vec<u8>,
    signed: Signed,
    subject: DistinguishedName,
    public_key: PublicKey,
    extensions: Extensions,
}

/// What stands in a request.
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    /// Who it shall be for.
    pub subject: DistinguishedName,
    /// Other names.
    pub alternative_names: Vec<GeneralName>,
    /// What it shall be for.
    pub purposes: Vec<KeyPurpose>,
    /// A password by which the CA knows who asks (RFC 2985 §5.4.1); it is written in the clear.
    pub challenge_password: Option<String>,
}

/// Why octets are no request that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the DER of one.
    #[error("no certification request in DER: {0}")]
    Der(#[from] der::Error),
    /// The PEM around it is wrong.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The key is none that we know.
    #[error("the key of the request cannot be used: {0}")]
    Key(#[from] KeyError),
    /// An extension that is asked for is broken.
    #[error(transparent)]
    Extension(#[from] CertificateError),
    /// It is not signed by its own key.
    #[error("the request is not signed by its own key: {0}")]
    Signature(#[from] SignatureError),
}

impl Request {
    /// Reads a request and checks that its own key signed it.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let signed = Signed::from_der(der)?;
        let info = CertReqInfo::from_der(&signed.content)?;
        let public_key = PublicKey::from_spki_der(&info.public_key.to_der()?)?;
        signed.verify(&public_key)?;
        let mut extensions = Vec::new();
        for attribute in info.attributes.iter().filter(|attribute| attribute.oid == oid::EXTENSION_REQUEST) {
            for value in attribute.values.iter() {
                extensions.extend(value.decode_as::<Vec<Extension>>()?);
            }
        }
        Ok(Self {
            der: der.to_vec(),
            subject: DistinguishedName::from_name(&info.subject)?,
            public_key,
            extensions: Extensions::read(&extensions)?,
            signed,
        })
    }

    /// Reads a file, PEM or DER.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn load(octets: &[u8]) -> Result<Self, RequestError> {
        if !pem::is_pem(octets) {
            return Self::from_der(octets);
        }
        match pem::parse(octets)?.iter().find(|block| PEM_LABELS.contains(&block.label.as_str())) {
            Some(block) => Self::from_der(&block.der),
            None => Err(PemError::Nothing.into()),
        }
    }

    /// The DER, as it came.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The request in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(PEM_LABELS[0], &self.der).to_string()
    }

    /// Who it shall be for.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The extensions that are asked for. Nobody need give them.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// How it is signed.
    ///
    /// # Errors
    /// None: the signature was checked already.
    pub fn signature_scheme(&self) -> Result<SignatureScheme, AlgorithmError> {
        self.signed.scheme()
    }
}

impl RequestTemplate {
    /// Makes a request.
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn sign(
        &self,
        key: &PrivateKey,
        scheme: SignatureScheme,
        rng: &mut dyn CryptoRng,
    ) -> Result<Request, IssueError> {
        if self.subject.is_empty() && self.alternative_names.is_empty() {
            return Err(IssueError::NoName);
        }
        let info = CertReqInfo {
            version: Version::V1,
            subject: self.subject.to_name()?,
            public_key: SubjectPublicKeyInfoOwned::from_der(key.public_key().spki_der())?,
            attributes: self.attributes()?,
        };
        let signature = BitString::from_bytes(&key.sign(scheme, &info.to_der()?, rng)?)?;
        let request = CertReq { info, algorithm: scheme.to_identifier()?, signature };
        Request::from_der(&request.to_der()?).map_err(|error| IssueError::Name(error.to_string()))
    }

    fn attributes(&self) -> Result<SetOfVec<Attribute>, IssueError> {
        let mut extensions = Vec::new();
        if !self.alternative_names.is_empty() {
            extensions.push(subject_alternative_name(&self.alternative_names, self.subject.is_empty())?);
        }
        if !self.purposes.is_empty() {
            extensions.push(extended_key_usage(&self.purposes)?);
        }
        let mut attributes = Vec::new();
        if !extensions.is_empty() {
            let values = SetOfVec::try_from(vec![Any::encode_from(&extensions)?])?;
            attributes.push(Attribute { oid: oid::EXTENSION_REQUEST, values });
        }
        if let Some(password) = &self.challenge_password {
            let values = SetOfVec::try_from(vec![Any::new(Tag::Utf8String, password.as_bytes())?])?;
            attributes.push(Attribute { oid: oid::CHALLENGE_PASSWORD, values });
        }
        Ok(SetOfVec::try_from(attributes)?)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.subject)
    }
}

const PEM_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Curve, KeyType};
    use crate::signature::RsaPadding;
    use crate::test_support::{key, rng};

    fn template() -> RequestTemplate {
        RequestTemplate {
            subject: "C=CH, CN=moon".parse().unwrap(),
            alternative_names: vec!["moon.example.org".parse().unwrap()],
            purposes: vec![KeyPurpose::ServerAuth],
            challenge_password: Some("secret".into()),
        }
    }

    #[test]
    fn a_request_says_what_was_asked_for() {
        for key_type in [KeyType::Rsa { bits: 2048 }, KeyType::Ecdsa(Curve::P384), KeyType::Ed25519] {
            let key = key(key_type);
            let scheme = SignatureScheme::natural(key_type, RsaPadding::Pss);
            let made = template().sign(key, scheme, &mut rng(1)).unwrap();
            let read = Request::load(made.to_pem().as_bytes()).unwrap();
            assert_eq!(read.subject().to_string(), "C=CH, CN=moon");
            assert_eq!(read.public_key(), key.public_key());
            assert_eq!(read.extensions().subject_alternative_names, template().alternative_names);
            assert_eq!(read.extensions().extended_key_usage, Some(vec![KeyPurpose::ServerAuth]));
            assert_eq!(read.signature_scheme(), Ok(scheme));
        }
    }

    #[test]
    fn nobody_asks_in_the_name_of_another_key() {
        let ed25519 = key(KeyType::Ed25519);
        let good = template().sign(ed25519, SignatureScheme::Ed25519, &mut rng(1)).unwrap();
        for at in 0..good.der().len() {
            let mut der = good.der().to_vec();
            der[at] ^= 1;
            assert!(Request::from_der(&der).is_err(), "{at}");
        }
        let nameless = RequestTemplate {
            subject: DistinguishedName::from_der(&[0x30, 0]).unwrap(),
            alternative_names: Vec::new(),
            ..template()
        };
        assert!(matches!(nameless.sign(ed25519, SignatureScheme::Ed25519, &mut rng(1)), Err(IssueError::NoName)));
    }
}
