//! Making signatures.

use rand_core::CryptoRng;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::pss::Pss;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use signature::Signer;
use signature::hazmat::PrehashSigner;

use super::SignatureScheme;
use crate::hash::HashAlgorithm;
use crate::key::{KeyType, PrivateKey, Secret};

/// Why no signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key is of another kind.
    #[error("a key of type {key} cannot sign by {scheme}")]
    WrongKey {
        /// The key's type.
        key: KeyType,
        /// What was asked for.
        scheme: SignatureScheme,
    },
    /// The salt and the hash do not fit in the modulus, or a fault was seen in the result.
    #[error("signing by {0} failed")]
    Failed(SignatureScheme),
}

impl PrivateKey {
    /// Signs a message.
    ///
    /// RSA blinds with `rng` and takes the salt from it; ECDSA is deterministic (RFC 6979) and Ed25519 by nature.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError::Failed(scheme);
        match (&self.secret, scheme) {
            (Secret::Rsa(key), SignatureScheme::RsaPkcs1(hash)) => {
                key.sign_with_rng(rng, pkcs1(hash), &hash.digest(message)).map_err(|_| SignError::Failed(scheme))
            }
            (Secret::Rsa(key), SignatureScheme::RsaPss { hash, salt_len }) => {
                let (hashed, salt) = (hash.digest(message), usize::from(salt_len));
                match hash {
                    HashAlgorithm::Sha1 => key.sign_with_rng(rng, Pss::<Sha1>::new_with_salt(salt), &hashed),
                    HashAlgorithm::Sha256 => key.sign_with_rng(rng, Pss::<Sha256>::new_with_salt(salt), &hashed),
                    HashAlgorithm::Sha384 => key.sign_with_rng(rng, Pss::<Sha384>::new_with_salt(salt), &hashed),
                    HashAlgorithm::Sha512 => key.sign_with_rng(rng, Pss::<Sha512>::new_with_salt(salt), &hashed),
                }
                .map_err(|_| SignError::Failed(scheme))
            }
            (Secret::P256(key), SignatureScheme::Ecdsa(hash)) => {
                let signed: p256::ecdsa::Signature = key.sign_prehash(&hash.digest(message)).map_err(failed)?;
                Ok(signed.to_der().as_bytes().to_vec())
            }
            (Secret::P384(key), SignatureScheme::Ecdsa(hash)) => {
                let signed: p384::ecdsa::Signature = key.sign_prehash(&hash.digest(message)).map_err(failed)?;
                Ok(signed.to_der().as_bytes().to_vec())
            }
            (Secret::P521(key), SignatureScheme::Ecdsa(hash)) => {
                let signed: p521::ecdsa::Signature = key.sign_prehash(&hash.digest(message)).map_err(failed)?;
                Ok(signed.to_der().as_bytes().to_vec())
            }
            (Secret::Ed25519(key), SignatureScheme::Ed25519) => {
                Ok(key.try_sign(message).map_err(failed)?.to_bytes().to_vec())
            }
            _ => Err(SignError::WrongKey { key: self.key_type(), scheme }),
        }
    }
}

/// The padding with its DigestInfo (RFC 8017 §9.2).
pub(super) fn pkcs1(hash: HashAlgorithm) -> Pkcs1v15Sign {
    match hash {
        HashAlgorithm::Sha1 => Pkcs1v15Sign::new::<Sha1>(),
        HashAlgorithm::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        HashAlgorithm::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        HashAlgorithm::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}
