//! The Authentication payload (RFC 7296 §3.8).

use std::fmt;

use super::error::WireError;
use super::reader::Reader;

/// The proof that somebody is who the Identification payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// What kind of proof it is.
    pub method: AuthenticationMethod,
    /// The proof.
    pub data: Vec<u8>,
}

/// Kinds of proof, from IANA's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthenticationMethod {
    /// RSA Digital Signature, 1.
    RsaSignature,
    /// Shared Key Message Integrity Code, 2.
    SharedKey,
    /// Digital Signature, 14 (RFC 7427).
    DigitalSignature,
    /// Any other number.
    Other(u8),
}

impl AuthenticationMethod {
    /// The method with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::RsaSignature,
            2 => Self::SharedKey,
            14 => Self::DigitalSignature,
            other => Self::Other(other),
        }
    }

    /// The number of this method.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::RsaSignature => 1,
            Self::SharedKey => 2,
            Self::DigitalSignature => 14,
            Self::Other(number) => number,
        }
    }

    /// Whether it is a signature by a key that a certificate, or something in its place, vouches for: RFC 7427's, or one of
    /// those that it replaces (RSA, and ECDSA of RFC 4754). DSS is not among them: nobody has such keys any more.
    #[must_use]
    pub fn is_signature(self) -> bool {
        matches!(self, Self::RsaSignature | Self::DigitalSignature | Self::Other(9..=11))
    }
}

impl fmt::Display for AuthenticationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaSignature => "RSA signature",
            Self::SharedKey => "pre-shared key",
            Self::Other(3) => "DSS signature",
            Self::Other(9) => "ECDSA with SHA-256 on P-256",
            Self::Other(10) => "ECDSA with SHA-384 on P-384",
            Self::Other(11) => "ECDSA with SHA-512 on P-521",
            Self::Other(12) => "secure password",
            Self::Other(13) => "NULL authentication",
            Self::DigitalSignature => "digital signature",
            Self::Other(number) => return write!(f, "authentication method {number}"),
        })
    }
}

impl Authentication {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |  Auth Method  |                   RESERVED                    |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                      Authentication Data                      ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(super) fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let [method, _, _, _] = body.array()?;
        Ok(Self { method: AuthenticationMethod::from_number(method), data: body.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.number(), 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }
}
