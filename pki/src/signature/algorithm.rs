//! Signature schemes as AlgorithmIdentifiers.
//!
//! ```text
//! AlgorithmIdentifier ::= SEQUENCE {
//!     algorithm  OBJECT IDENTIFIER,
//!     parameters ANY OPTIONAL }              NULL for RSA, absent for ECDSA and Ed25519, for PSS:
//!
//! RSASSA-PSS-params ::= SEQUENCE {           RFC 8017 appendix A.2.3
//!     hashAlgorithm    [0] AlgorithmIdentifier DEFAULT sha1,
//!     maskGenAlgorithm [1] AlgorithmIdentifier DEFAULT mgf1SHA1,
//!     saltLength       [2] INTEGER DEFAULT 20,
//!     trailerField     [3] INTEGER DEFAULT 1 }
//! ```

use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::SignatureScheme;
use crate::hash::HashAlgorithm;

/// Why an AlgorithmIdentifier names no signature that we accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AlgorithmError {
    /// Not the DER of one.
    #[error("no algorithm identifier in DER: {0}")]
    Der(#[from] der::Error),
    /// An algorithm we do not know.
    #[error("unknown signature algorithm {0}")]
    Unknown(ObjectIdentifier),
    /// Parameters where none belong, or none where they do.
    #[error("the parameters of signature algorithm {0} are wrong")]
    Parameters(ObjectIdentifier),
    /// PSS whose mask is made with another hash than the message's, or by another function than MGF1.
    #[error("the mask of RSASSA-PSS must be made by MGF1 with the same hash")]
    PssMask,
    /// PSS with more salt than fits in any modulus we accept.
    #[error("RSASSA-PSS with {0} octets of salt")]
    PssSalt(u32),
    /// SHA-1: named, or meant by PSS parameters that are left out (RFC 8247 §3.2 forbids both).
    #[error("the signature is made over a SHA-1 hash")]
    Sha1,
}

#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt_len: Option<u32>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u8>,
}

impl SignatureScheme {
    /// The DER that RFC 7427 appendix A gives, with DEFAULT values left out as DER wants it (X.690 §11.5).
    #[must_use]
    #[expect(clippy::expect_used, reason = "all parts are ours and small")]
    pub fn algorithm_identifier(self) -> Vec<u8> {
        self.to_identifier().and_then(|identifier| identifier.to_der()).expect("all parts are small")
    }

    /// Reads an AlgorithmIdentifier out of a certificate. RSA and ECDSA over SHA-1 are read, for somebody may have asked
    /// for them; PSS over SHA-1 is refused.
    ///
    /// # Errors
    /// [`AlgorithmError`]
    pub fn from_algorithm_identifier(der: &[u8]) -> Result<Self, AlgorithmError> {
        Self::from_identifier(&AlgorithmIdentifierOwned::from_der(der)?)
    }

    /// Reads the AlgorithmIdentifier out of an AUTH payload (RFC 7427 §3). SHA-1 is refused in every form
    /// (R8247-3.2-1).
    ///
    /// # Errors
    /// [`AlgorithmError`]
    pub fn from_ike(der: &[u8]) -> Result<Self, AlgorithmError> {
        match Self::from_algorithm_identifier(der)? {
            scheme if scheme.hash() == Some(HashAlgorithm::Sha1) => Err(AlgorithmError::Sha1),
            scheme => Ok(scheme),
        }
    }

    /// R8247-3.2-2.
    pub(crate) fn from_identifier(identifier: &AlgorithmIdentifierOwned) -> Result<Self, AlgorithmError> {
        let oid = identifier.oid;
        if oid == RSASSA_PSS {
            // RFC 7427 appendix A.4.1: parameters that are left out mean SHA-1.
            let parameters = identifier.parameters.as_ref().ok_or(AlgorithmError::Sha1)?;
            return pss(&parameters.decode_as().map_err(|_| AlgorithmError::Parameters(oid))?);
        }
        let scheme = SIMPLE.iter().find(|(known, _)| *known == oid).ok_or(AlgorithmError::Unknown(oid))?.1;
        match (scheme, is_null_or_absent(identifier)) {
            // RFC 8410 §3 leaves no choice; with the others NULL is sometimes there and sometimes not.
            (Self::Ed25519, _) if identifier.parameters.is_some() => Err(AlgorithmError::Parameters(oid)),
            (_, true) => Ok(scheme),
            (_, false) => Err(AlgorithmError::Parameters(oid)),
        }
    }

    pub(crate) fn to_identifier(self) -> der::Result<AlgorithmIdentifierOwned> {
        if let Self::RsaPss { hash, salt_len } = self {
            let digest = AlgorithmIdentifierOwned { oid: hash.oid(), parameters: Some(Any::null()) };
            let mask = AlgorithmIdentifierOwned { oid: MGF1, parameters: Some(Any::encode_from(&digest)?) };
            let parameters = PssParameters {
                hash: Some(digest),
                mask: Some(mask),
                salt_len: Some(u32::from(salt_len)).filter(|len| *len != DEFAULT_SALT_LEN),
                trailer: None,
            };
            return Ok(AlgorithmIdentifierOwned { oid: RSASSA_PSS, parameters: Some(Any::encode_from(&parameters)?) });
        }
        let oid = SIMPLE.iter().find(|(_, scheme)| *scheme == self).map_or(RSASSA_PSS, |(oid, _)| *oid);
        let parameters = matches!(self, Self::RsaPkcs1(_)).then(Any::null);
        Ok(AlgorithmIdentifierOwned { oid, parameters })
    }
}

fn pss(parameters: &PssParameters) -> Result<SignatureScheme, AlgorithmError> {
    let digest = parameters.hash.as_ref().ok_or(AlgorithmError::Sha1)?;
    let hash = HashAlgorithm::from_oid(digest.oid).ok_or(AlgorithmError::Unknown(digest.oid))?;
    if hash == HashAlgorithm::Sha1 {
        return Err(AlgorithmError::Sha1);
    }
    if !is_null_or_absent(digest) || parameters.trailer.is_some_and(|trailer| trailer != 1) {
        return Err(AlgorithmError::Parameters(RSASSA_PSS));
    }
    let mask = parameters.mask.as_ref().filter(|mask| mask.oid == MGF1).ok_or(AlgorithmError::PssMask)?;
    let mask_hash = mask.parameters.as_ref().and_then(|hash| hash.decode_as::<AlgorithmIdentifierOwned>().ok());
    if !mask_hash.is_some_and(|mask_hash| mask_hash.oid == digest.oid && is_null_or_absent(&mask_hash)) {
        return Err(AlgorithmError::PssMask);
    }
    let salt_len = parameters.salt_len.unwrap_or(DEFAULT_SALT_LEN);
    match u16::try_from(salt_len) {
        Ok(salt_len) if salt_len <= MAX_SALT_LEN => Ok(SignatureScheme::RsaPss { hash, salt_len }),
        _ => Err(AlgorithmError::PssSalt(salt_len)),
    }
}

fn is_null_or_absent(identifier: &AlgorithmIdentifierOwned) -> bool {
    identifier.parameters.as_ref().is_none_or(|any| any.tag() == Tag::Null && any.value().is_empty())
}

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");

const DEFAULT_SALT_LEN: u32 = 20;
/// What fits with SHA-256 in a modulus of 8192 bits: 1024 - 32 - 2 octets.
const MAX_SALT_LEN: u16 = 990;

/// RFC 7427 appendix A, RFC 8420 appendix A.
const SIMPLE: [(ObjectIdentifier, SignatureScheme); 9] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), SignatureScheme::RsaPkcs1(HashAlgorithm::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), SignatureScheme::RsaPkcs1(HashAlgorithm::Sha512)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), SignatureScheme::Ecdsa(HashAlgorithm::Sha1)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), SignatureScheme::Ecdsa(HashAlgorithm::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), SignatureScheme::Ecdsa(HashAlgorithm::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), SignatureScheme::Ecdsa(HashAlgorithm::Sha512)),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), SignatureScheme::Ed25519),
];
