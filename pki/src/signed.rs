//! The frame that certificates, requests, CRLs and OCSP responses share.
//!
//! ```text
//! SEQUENCE {
//!     content            SEQUENCE,                 what is signed
//!     signatureAlgorithm AlgorithmIdentifier,
//!     signature          BIT STRING }
//! ```

use der::asn1::BitStringRef;
use der::{Decode, Reader, SliceReader, Tag};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::key::PublicKey;
use crate::signature::{AlgorithmError, SignatureScheme, VerifyError};

/// The signed octets and the signature over them, both as they came: nothing is verified over a new encoding.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) content: Vec<u8>,
    /// What was put next to the signature; the same should stand within `content`.
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) signature: Vec<u8>,
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The algorithm is none that we accept.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// The signature is wrong.
    #[error(transparent)]
    Wrong(#[from] VerifyError),
}

impl Signed {
    /// Reads the frame. Octets may follow it: an OCSP response has certificates there.
    pub(crate) fn read<'a>(reader: &mut impl Reader<'a>) -> der::Result<Self> {
        Tag::peek(reader)?.assert_eq(Tag::Sequence)?;
        let content = reader.tlv_bytes()?;
        let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
        let signature = BitStringRef::decode(reader)?;
        let signature = signature.as_bytes().ok_or_else(|| der::Error::from(Tag::BitString.value_error()))?;
        Ok(Self { content: content.to_vec(), algorithm, signature: signature.to_vec() })
    }

    pub(crate) fn from_der(der: &[u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let signed = reader.sequence(Self::read)?;
        reader.finish()?;
        Ok(signed)
    }

    pub(crate) fn scheme(&self) -> Result<SignatureScheme, AlgorithmError> {
        SignatureScheme::from_identifier(&self.algorithm)
    }

    pub(crate) fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        Ok(key.verify(self.scheme()?, &self.content, &self.signature)?)
    }
}
