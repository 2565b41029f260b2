//! Signatures as certificates and IKEv2 use them.
//!
//! [`SignatureScheme`] is the algorithm with its hash, as the AlgorithmIdentifier of RFC 7427 §3 names it; [`LegacyMethod`]
//! is what IKEv2 had before (RFC 7296 §3.8, RFC 4754). Signing and verifying take the message, not its hash.

mod algorithm;
mod legacy;
mod sign;
mod verify;

use std::fmt;

use crate::hash::HashAlgorithm;
use crate::key::{Curve, KeyType};

pub use algorithm::AlgorithmError;
pub use legacy::LegacyMethod;
pub use sign::SignError;
pub use verify::VerifyError;

/// A signature algorithm with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2).
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS (RFC 8017 §8.1), mask generation MGF1 with the same hash.
    RsaPss {
        /// The hash.
        hash: HashAlgorithm,
        /// Octets of salt.
        salt_len: u16,
    },
    /// ECDSA, the signature as DER of `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 §2.2.3).
    Ecdsa(HashAlgorithm),
    /// Ed25519 over the message itself (RFC 8032, RFC 8420).
    Ed25519,
}

/// How RSA signatures are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RsaPadding {
    /// PKCS#1 v1.5.
    #[default]
    Pkcs1,
    /// PSS with a salt as long as the hash.
    Pss,
}

impl SignatureScheme {
    /// RFC 8420 §2: "hash algorithm" of signatures over the message itself.
    pub const IDENTITY_HASH: u16 = 5;

    /// PSS with a salt as long as the hash.
    #[must_use]
    pub const fn pss(hash: HashAlgorithm) -> Self {
        Self::RsaPss { hash, salt_len: hash.output_len() }
    }

    /// The scheme that fits the strength of a key: SHA-256 up to RSA-3072 and for P-256, SHA-384 up to RSA-7680 and for
    /// P-384, SHA-512 above.
    #[must_use]
    pub fn natural(key: KeyType, padding: RsaPadding) -> Self {
        Self::with_hash(key, natural_hash(key), padding)
    }

    /// The scheme of this kind of key with a hash; Ed25519 has its own and takes no other.
    #[must_use]
    pub fn with_hash(key: KeyType, hash: HashAlgorithm, padding: RsaPadding) -> Self {
        match (key, padding) {
            (KeyType::Rsa { .. }, RsaPadding::Pkcs1) => Self::RsaPkcs1(hash),
            (KeyType::Rsa { .. }, RsaPadding::Pss) => Self::pss(hash),
            (KeyType::Ecdsa(_), _) => Self::Ecdsa(hash),
            (KeyType::Ed25519, _) => Self::Ed25519,
        }
    }

    /// What to sign with for a peer that sent this list in SIGNATURE_HASH_ALGORITHMS: the hash that fits the key, else
    /// the next stronger, else the next weaker, but never SHA-1 (RFC 7427 §4, RFC 8247 §3.2). `None` when there is none
    /// (R7427-4-1, R8420-2-1).
    #[must_use]
    pub fn for_peer(key: KeyType, peer_hashes: &[u16], padding: RsaPadding) -> Option<Self> {
        if key == KeyType::Ed25519 {
            return peer_hashes.contains(&Self::IDENTITY_HASH).then_some(Self::Ed25519);
        }
        let natural = natural_hash(key);
        let usable = |hash: &HashAlgorithm| *hash != HashAlgorithm::Sha1 && peer_hashes.contains(&hash.ike_number());
        let stronger = HashAlgorithm::ALL.into_iter().filter(usable).find(|hash| *hash >= natural);
        let hash = stronger.or_else(|| HashAlgorithm::ALL.into_iter().rev().find(usable))?;
        Some(Self::with_hash(key, hash, padding))
    }

    /// The hash; `None` for Ed25519, which signs the message itself.
    #[must_use]
    pub fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss { hash, .. } | Self::Ecdsa(hash) => Some(hash),
            Self::Ed25519 => None,
        }
    }

    /// The number that a peer must have sent in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7, RFC 8420 §2).
    #[must_use]
    pub fn ike_hash_number(self) -> u16 {
        self.hash().map_or(Self::IDENTITY_HASH, HashAlgorithm::ike_number)
    }

    /// Whether keys of this kind can make such a signature.
    #[must_use]
    pub fn fits(self, key: KeyType) -> bool {
        matches!(
            (self, key),
            (Self::RsaPkcs1(_) | Self::RsaPss { .. }, KeyType::Rsa { .. })
                | (Self::Ecdsa(_), KeyType::Ecdsa(_))
                | (Self::Ed25519, KeyType::Ed25519)
        )
    }
}

impl fmt::Display for SignatureScheme {
    /// `RSA with SHA-256`, `RSA-PSS with SHA-256`, `ECDSA with SHA-384`, `ED25519`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA with {hash}"),
            Self::RsaPss { hash, salt_len } if *salt_len == hash.output_len() => write!(f, "RSA-PSS with {hash}"),
            Self::RsaPss { hash, salt_len } => write!(f, "RSA-PSS with {hash} and {salt_len} octets of salt"),
            Self::Ecdsa(hash) => write!(f, "ECDSA with {hash}"),
            Self::Ed25519 => f.write_str("ED25519"),
        }
    }
}

fn natural_hash(key: KeyType) -> HashAlgorithm {
    match key {
        KeyType::Rsa { bits: ..=3072 } | KeyType::Ecdsa(Curve::P256) => HashAlgorithm::Sha256,
        KeyType::Rsa { bits: ..=7680 } | KeyType::Ecdsa(Curve::P384) => HashAlgorithm::Sha384,
        KeyType::Rsa { .. } | KeyType::Ecdsa(Curve::P521) | KeyType::Ed25519 => HashAlgorithm::Sha512,
    }
}

#[cfg(test)]
mod tests;
