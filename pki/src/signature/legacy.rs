//! The signature methods that IKEv2 had before RFC 7427.

use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use rand_core::CryptoRng;

use super::{SignError, SignatureScheme, VerifyError};
use crate::hash::HashAlgorithm;
use crate::key::{Curve, KeyType, Point, PrivateKey, PublicKey, Secret};

/// An authentication method with a fixed kind of signature; the value is the Auth Method of RFC 7296 §3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LegacyMethod {
    /// RSA Digital Signature: RSASSA-PKCS1-v1_5 with a hash that is not negotiated, by default SHA-1.
    Rsa = 1,
    /// ECDSA with SHA-256 on P-256 (RFC 4754).
    Ecdsa256 = 9,
    /// ECDSA with SHA-384 on P-384 (RFC 4754).
    Ecdsa384 = 10,
    /// ECDSA with SHA-512 on P-521 (RFC 4754).
    Ecdsa521 = 11,
}

impl LegacyMethod {
    /// The method with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Rsa, Self::Ecdsa256, Self::Ecdsa384, Self::Ecdsa521].into_iter().find(|method| method.number() == number)
    }

    /// The Auth Method of the AUTH payload (RFC 7296 §3.8).
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the enum is of u8")]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The method that a kind of key signs by; Ed25519 has none.
    #[must_use]
    pub fn of_key(key: KeyType) -> Option<Self> {
        match key {
            KeyType::Rsa { .. } => Some(Self::Rsa),
            KeyType::Ecdsa(Curve::P256) => Some(Self::Ecdsa256),
            KeyType::Ecdsa(Curve::P384) => Some(Self::Ecdsa384),
            KeyType::Ecdsa(Curve::P521) => Some(Self::Ecdsa521),
            KeyType::Ed25519 => None,
        }
    }

    /// The scheme of its signatures, apart from how ECDSA's two numbers are written.
    fn scheme(self, rsa_hash: HashAlgorithm) -> SignatureScheme {
        match self {
            Self::Rsa => SignatureScheme::RsaPkcs1(rsa_hash),
            Self::Ecdsa256 => SignatureScheme::Ecdsa(HashAlgorithm::Sha256),
            Self::Ecdsa384 => SignatureScheme::Ecdsa(HashAlgorithm::Sha384),
            Self::Ecdsa521 => SignatureScheme::Ecdsa(HashAlgorithm::Sha512),
        }
    }
}

impl PrivateKey {
    /// Signs a message by the legacy method of this kind of key. `rsa_hash` is for RSA only: SHA-1 is what every old peer
    /// understands, and nothing that should be sent unless the configuration says so.
    ///
    /// ```text
    /// method 9 to 11 (RFC 4754 §7): r and s, each filled up with zeros to the length of the group order
    ///  0              32              64
    /// +---------------+---------------+
    /// |       r       |       s       |       32, 48 or 66 octets each
    /// +---------------+---------------+
    /// ```
    ///
    /// # Errors
    /// [`SignError`]; [`SignError::WrongKey`] for Ed25519.
    pub fn sign_legacy(
        &self,
        rsa_hash: HashAlgorithm,
        message: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(LegacyMethod, Vec<u8>), SignError> {
        let method = LegacyMethod::of_key(self.key_type())
            .ok_or(SignError::WrongKey { key: self.key_type(), scheme: SignatureScheme::RsaPkcs1(rsa_hash) })?;
        let scheme = method.scheme(rsa_hash);
        let hashed = scheme.hash().unwrap_or(rsa_hash).digest(message);
        let failed = |_| SignError::Failed(scheme);
        let signature = match &self.secret {
            Secret::P256(key) => {
                let signed: p256::ecdsa::Signature = key.sign_prehash(&hashed).map_err(failed)?;
                signed.to_bytes().to_vec()
            }
            Secret::P384(key) => {
                let signed: p384::ecdsa::Signature = key.sign_prehash(&hashed).map_err(failed)?;
                signed.to_bytes().to_vec()
            }
            Secret::P521(key) => {
                let signed: p521::ecdsa::Signature = key.sign_prehash(&hashed).map_err(failed)?;
                signed.to_bytes().to_vec()
            }
            Secret::Rsa(_) | Secret::Ed25519(_) => self.sign(scheme, message, rng)?,
        };
        Ok((method, signature))
    }
}

impl PublicKey {
    /// Checks a signature made by a legacy method and says over which hash it is. For RSA the hash is not told, so all are
    /// tried; SHA-1 counts only with `accept_sha1`.
    ///
    /// # Errors
    /// [`VerifyError`]; [`VerifyError::Sha1`] for a signature that is right but over SHA-1.
    pub fn verify_legacy(
        &self,
        method: LegacyMethod,
        message: &[u8],
        signature: &[u8],
        accept_sha1: bool,
    ) -> Result<HashAlgorithm, VerifyError> {
        let scheme = method.scheme(HashAlgorithm::Sha1);
        let hashed = |hash: HashAlgorithm| hash.digest(message);
        let hash = match (&self.point, method) {
            (Point::Rsa(_), LegacyMethod::Rsa) => HashAlgorithm::ALL
                .into_iter()
                .find(|hash| self.verify(SignatureScheme::RsaPkcs1(*hash), message, signature).is_ok()),
            (Point::P256(key), LegacyMethod::Ecdsa256) => p256::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify_prehash(&hashed(HashAlgorithm::Sha256), &signature))
                .map_or(None, |()| Some(HashAlgorithm::Sha256)),
            (Point::P384(key), LegacyMethod::Ecdsa384) => p384::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify_prehash(&hashed(HashAlgorithm::Sha384), &signature))
                .map_or(None, |()| Some(HashAlgorithm::Sha384)),
            (Point::P521(key), LegacyMethod::Ecdsa521) => p521::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify_prehash(&hashed(HashAlgorithm::Sha512), &signature))
                .map_or(None, |()| Some(HashAlgorithm::Sha512)),
            _ => return Err(VerifyError::WrongKey { key: self.key_type(), scheme }),
        };
        match hash {
            Some(HashAlgorithm::Sha1) if !accept_sha1 => Err(VerifyError::Sha1),
            Some(hash) => Ok(hash),
            None => Err(VerifyError::Wrong(scheme)),
        }
    }
}
