//! Keys: what they are, how they are made, and how they are named.

mod encoding;
mod public;

use std::fmt;

use p256::elliptic_curve::Generate;
use rand_core::CryptoRng;
use rsa::RsaPrivateKey;
use zeroize::Zeroizing;

pub use encoding::{KeyFileError, KeyFormat};
pub(crate) use public::Point;
pub use public::{KeyId, PublicKey};

/// The kind and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Bits of the modulus.
        bits: u32,
    },
    /// ECDSA on a NIST curve.
    Ecdsa(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// A NIST curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// secp521r1
    P521,
}

/// A private key. It has no `Debug` and is wiped when dropped.
pub struct PrivateKey {
    pub(crate) secret: Secret,
    public: PublicKey,
}

/// The secret numbers; each type wipes itself.
pub(crate) enum Secret {
    Rsa(Box<RsaPrivateKey>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

/// Why something is no key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the DER of a key.
    #[error("no key in DER: {0}")]
    Der(#[from] der::Error),
    /// An algorithm we do not know.
    #[error("unknown kind of key ({0})")]
    UnknownAlgorithm(der::asn1::ObjectIdentifier),
    /// A curve we do not know, or one spelled out instead of named.
    #[error("the elliptic curve is none of P-256, P-384 and P-521")]
    UnknownCurve,
    /// Numbers that make no RSA key: an even or too small modulus, an exponent that is even, 1 or huge.
    #[error("these numbers are no RSA key")]
    BadRsa,
    /// A size that we do not use.
    #[error("an RSA key of {bits} bits; it must have {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    RsaSize {
        /// The size.
        bits: u32,
    },
    /// A point that is not on the curve, or a scalar that is zero or too large.
    #[error("these octets are no {0} key")]
    BadPoint(KeyType),
    /// The public half that came with a private key is not its own.
    #[error("the public key does not belong to the private key")]
    Mismatch,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`KeyError::RsaSize`] when an RSA key is to be smaller than 2048 or larger than 8192 bits, or no multiple of 8.
    pub fn generate(key_type: KeyType, rng: &mut dyn CryptoRng) -> Result<Self, KeyError> {
        let secret = match key_type {
            KeyType::Rsa { bits } if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) || bits % 8 != 0 => {
                return Err(KeyError::RsaSize { bits });
            }
            KeyType::Rsa { bits } => {
                let bits = usize::try_from(bits).map_err(|_| KeyError::BadRsa)?;
                Secret::Rsa(Box::new(RsaPrivateKey::new(rng, bits).map_err(|_| KeyError::BadRsa)?))
            }
            KeyType::Ecdsa(Curve::P256) => Secret::P256(p256::ecdsa::SigningKey::generate_from_rng(rng)),
            KeyType::Ecdsa(Curve::P384) => Secret::P384(p384::ecdsa::SigningKey::generate_from_rng(rng)),
            KeyType::Ecdsa(Curve::P521) => Secret::P521(p521::ecdsa::SigningKey::generate_from_rng(rng)),
            KeyType::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                rng.fill_bytes(&mut *seed);
                Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
            }
        };
        Self::from_secret(secret)
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The kind and size.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.public.key_type()
    }

    fn from_secret(secret: Secret) -> Result<Self, KeyError> {
        let public = PublicKey::of(&secret)?;
        Ok(Self { secret, public })
    }
}

impl KeyType {
    /// The bits that people give with it: of the modulus, or of the curve.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Rsa { bits } => bits,
            Self::Ecdsa(curve) => curve.bits(),
            Self::Ed25519 => 256,
        }
    }
}

impl Curve {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The size of the curve.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// Octets of a coordinate or scalar.
    pub(crate) const fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// RFC 5480 §2.1.1.1.
    pub(crate) const fn oid(self) -> der::asn1::ObjectIdentifier {
        der::asn1::ObjectIdentifier::new_unwrap(match self {
            Self::P256 => "1.2.840.10045.3.1.7",
            Self::P384 => "1.3.132.0.34",
            Self::P521 => "1.3.132.0.35",
        })
    }

    pub(crate) fn from_oid(oid: der::asn1::ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.oid() == oid)
    }
}

impl fmt::Display for KeyType {
    /// `RSA 3072 bits`, `ECDSA 384 bits`, `ED25519 256 bits`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Rsa { .. } => "RSA",
            Self::Ecdsa(_) => "ECDSA",
            Self::Ed25519 => "ED25519",
        };
        write!(f, "{name} {} bits", self.bits())
    }
}

/// The smallest RSA key we make or sign with.
pub const MIN_RSA_BITS: u32 = 2048;
/// The largest RSA key we make, sign with or verify with; larger ones only burn time.
pub const MAX_RSA_BITS: u32 = 8192;

#[cfg(test)]
mod tests;
