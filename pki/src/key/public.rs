//! Public keys and their identifiers.

use std::fmt;

use der::asn1::{Any, BitString, ObjectIdentifier};
use der::{Decode, Encode};
use pkcs1::{DecodeRsaPublicKey, EncodeRsaPublicKey};
use rsa::RsaPublicKey;
use rsa::traits::PublicKeyParts;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::{Curve, KeyError, KeyType, MAX_RSA_BITS, Secret};
use crate::hash;

/// A public key that signatures can be verified with.
#[derive(Clone)]
pub struct PublicKey {
    pub(crate) point: Point,
    /// The SubjectPublicKeyInfo as it came.
    spki: Vec<u8>,
    key_id: KeyId,
}

#[derive(Clone)]
pub(crate) enum Point {
    Rsa(Box<RsaPublicKey>),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// A SHA-1 hash that names a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 20]);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), whoever it comes from.
    ///
    /// ```text
    /// SubjectPublicKeyInfo ::= SEQUENCE {
    ///     algorithm        AlgorithmIdentifier,    rsaEncryption, id-ecPublicKey with a named curve, id-Ed25519
    ///     subjectPublicKey BIT STRING }
    /// ```
    ///
    /// # Errors
    /// [`KeyError`] when the octets are anything else, also when something follows, and for numbers that make no key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoOwned::from_der(der)?;
        let bits = info.subject_public_key.as_bytes().ok_or(KeyError::Der(der::Tag::BitString.value_error().into()))?;
        let point = match info.algorithm.oid {
            RSA_ENCRYPTION => Point::Rsa(Box::new(rsa_key(bits)?)),
            EC_PUBLIC_KEY => {
                let parameters = info.algorithm.parameters.as_ref().ok_or(KeyError::UnknownCurve)?;
                let named = parameters.decode_as::<ObjectIdentifier>().map_err(|_| KeyError::UnknownCurve)?;
                Point::on_curve(Curve::from_oid(named).ok_or(KeyError::UnknownCurve)?, bits)?
            }
            ED25519 => Point::ed25519(bits)?,
            other => return Err(KeyError::UnknownAlgorithm(other)),
        };
        Ok(Self { point, spki: der.to_vec(), key_id: KeyId(hash::sha1(bits)) })
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The kind and size.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match &self.point {
            Point::Rsa(key) => KeyType::Rsa { bits: key.n().bits_vartime() },
            Point::P256(_) => KeyType::Ecdsa(Curve::P256),
            Point::P384(_) => KeyType::Ecdsa(Curve::P384),
            Point::P521(_) => KeyType::Ecdsa(Curve::P521),
            Point::Ed25519(_) => KeyType::Ed25519,
        }
    }

    /// The SHA-1 of the octets of subjectPublicKey: what certificates carry as subjectKeyIdentifier (RFC 5280 §4.2.1.2
    /// method 1), what `pki --keyid` prints as `subjkey`.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The SHA-1 of the whole SubjectPublicKeyInfo: what CERTREQ carries (RFC 7296 §3.7), what `pki --keyid` prints as
    /// `keyid`.
    #[must_use]
    pub fn spki_id(&self) -> KeyId {
        KeyId(hash::sha1(&self.spki))
    }

    /// The public half of a private key.
    pub(super) fn of(secret: &Secret) -> Result<Self, KeyError> {
        let (oid, parameters, bits) = match secret {
            Secret::Rsa(key) => {
                let public = key.to_public_key().to_pkcs1_der().map_err(|_| KeyError::BadRsa)?;
                (RSA_ENCRYPTION, Some(Any::null()), public.into_vec())
            }
            Secret::P256(key) => ec(Curve::P256, key.verifying_key().to_sec1_point(false).as_bytes())?,
            Secret::P384(key) => ec(Curve::P384, key.verifying_key().to_sec1_point(false).as_bytes())?,
            Secret::P521(key) => ec(Curve::P521, key.verifying_key().to_sec1_point(false).as_bytes())?,
            Secret::Ed25519(key) => (ED25519, None, key.verifying_key().as_bytes().to_vec()),
        };
        let info = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid, parameters },
            subject_public_key: BitString::from_bytes(&bits)?,
        };
        Self::from_spki_der(&info.to_der()?)
    }
}

impl Point {
    fn on_curve(curve: Curve, bits: &[u8]) -> Result<Self, KeyError> {
        let bad = |_| KeyError::BadPoint(KeyType::Ecdsa(curve));
        Ok(match curve {
            Curve::P256 => Self::P256(p256::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(bad)?),
            Curve::P384 => Self::P384(p384::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(bad)?),
            Curve::P521 => Self::P521(p521::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(bad)?),
        })
    }

    /// Points of small order are refused: with them a signature fits many messages.
    fn ed25519(bits: &[u8]) -> Result<Self, KeyError> {
        let bad = KeyError::BadPoint(KeyType::Ed25519);
        let octets = <&[u8; 32]>::try_from(bits).map_err(|_| bad.clone())?;
        match ed25519_dalek::VerifyingKey::from_bytes(octets) {
            Ok(key) if !key.is_weak() => Ok(Self::Ed25519(key)),
            _ => Err(bad),
        }
    }
}

/// The library refuses moduli that are even or have fewer than 1024 bits, and exponents that are even, 1, not below the
/// modulus or longer than 33 bits.
fn rsa_key(bits: &[u8]) -> Result<RsaPublicKey, KeyError> {
    let numbers = pkcs1::RsaPublicKeyRef::from_der(bits)?;
    let size = u32::try_from(numbers.modulus.as_bytes().len()).unwrap_or(u32::MAX).saturating_mul(8);
    if size > MAX_RSA_BITS {
        return Err(KeyError::RsaSize { bits: size });
    }
    RsaPublicKey::from_pkcs1_der(bits).map_err(|_| KeyError::BadRsa)
}

fn ec(curve: Curve, point: &[u8]) -> Result<(ObjectIdentifier, Option<Any>, Vec<u8>), KeyError> {
    Ok((EC_PUBLIC_KEY, Some(Any::encode_from(&curve.oid())?), point.to_vec()))
}

impl PartialEq for PublicKey {
    /// The same octets of SubjectPublicKeyInfo.
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type(), self.key_id)
    }
}

impl fmt::Display for KeyId {
    /// `1a:2b:…`, as strongSwan prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, octet)| {
            f.write_str(if index == 0 { "" } else { ":" })?;
            write!(f, "{octet:02x}")
        })
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 3279 §2.3.1
pub(super) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 5480 §2.1.1
pub(super) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8410 §3
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
