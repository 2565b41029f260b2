//! Checking signatures. All of it works on public values only.

use rsa::RsaPublicKey;
use rsa::pss::Pss;
use rsa::traits::PublicKeyParts;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use signature::hazmat::PrehashVerifier;

use super::SignatureScheme;
use super::sign::pkcs1;
use crate::hash::HashAlgorithm;
use crate::key::{KeyType, Point, PublicKey};

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The key is of another kind.
    #[error("a signature by {scheme} cannot be made by a key of type {key}")]
    WrongKey {
        /// The key's type.
        key: KeyType,
        /// What the signature claims to be.
        scheme: SignatureScheme,
    },
    /// The numbers do not fit: another key, another message, or no signature at all.
    #[error("the signature ({0}) is not of this key and message")]
    Wrong(SignatureScheme),
    /// A hash that is refused unless the configuration allows it.
    #[error("signatures over SHA-1 are not accepted")]
    Sha1,
}

impl PublicKey {
    /// Checks a signature of a message. SHA-1 is not refused here; whoever reads the scheme decides.
    ///
    /// RSA signatures must be as long as the modulus and smaller, PKCS#1 v1.5 padding must be octet for octet what
    /// encoding gives (RFC 8017 §8.2.2), PSS must have exactly the salt that the scheme says.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn verify(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let right = match (&self.point, scheme) {
            (Point::Rsa(key), SignatureScheme::RsaPkcs1(hash)) => {
                key.verify(pkcs1(hash), &hash.digest(message), signature).is_ok()
            }
            (Point::Rsa(key), SignatureScheme::RsaPss { hash, salt_len }) => {
                verify_pss(key, hash, usize::from(salt_len), message, signature)
            }
            (Point::P256(key), SignatureScheme::Ecdsa(hash)) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash.digest(message), &signature).is_ok()),
            (Point::P384(key), SignatureScheme::Ecdsa(hash)) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash.digest(message), &signature).is_ok()),
            (Point::P521(key), SignatureScheme::Ecdsa(hash)) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash.digest(message), &signature).is_ok()),
            (Point::Ed25519(key), SignatureScheme::Ed25519) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            _ => return Err(VerifyError::WrongKey { key: self.key_type(), scheme }),
        };
        if right { Ok(()) } else { Err(VerifyError::Wrong(scheme)) }
    }
}

fn verify_pss(key: &RsaPublicKey, hash: HashAlgorithm, salt: usize, message: &[u8], signature: &[u8]) -> bool {
    // What does not fit in the modulus was not made with it.
    if usize::from(hash.output_len()).saturating_add(salt).saturating_add(2) > key.size() {
        return false;
    }
    let hashed = hash.digest(message);
    match hash {
        HashAlgorithm::Sha1 => key.verify(Pss::<Sha1>::new_with_salt(salt), &hashed, signature),
        HashAlgorithm::Sha256 => key.verify(Pss::<Sha256>::new_with_salt(salt), &hashed, signature),
        HashAlgorithm::Sha384 => key.verify(Pss::<Sha384>::new_with_salt(salt), &hashed, signature),
        HashAlgorithm::Sha512 => key.verify(Pss::<Sha512>::new_with_salt(salt), &hashed, signature),
    }
    .is_ok()
}
