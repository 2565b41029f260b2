//! The hash functions that signatures are made over.

use std::fmt;
use std::str::FromStr;

use der::asn1::ObjectIdentifier;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// SHA-1: 20 octets. Broken; only for old peers and only where somebody asked for it.
    Sha1,
    /// SHA2-256: 32 octets.
    Sha256,
    /// SHA2-384: 48 octets.
    Sha384,
    /// SHA2-512: 64 octets.
    Sha512,
}

impl HashAlgorithm {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The octets of a hash.
    #[must_use]
    pub const fn output_len(self) -> u16 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The number in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7).
    #[must_use]
    pub const fn ike_number(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
        }
    }

    /// The hash of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha384 => Sha384::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    pub(crate) const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Sha1 => "1.3.14.3.2.26",
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        })
    }

    pub(crate) fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.oid() == oid)
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

/// A name that is no hash function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no hash is called `{0}`; there are sha1, sha256, sha384 and sha512")]
pub struct UnknownHash(pub String);

impl FromStr for HashAlgorithm {
    type Err = UnknownHash;

    /// Reads `sha256` and `SHA-256`.
    fn from_str(text: &str) -> Result<Self, UnknownHash> {
        match text.to_ascii_lowercase().replace('-', "").as_str() {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(UnknownHash(text.to_owned())),
        }
    }
}

pub(crate) fn sha1(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_the_length_it_says_and_reads_its_own_name() {
        for hash in HashAlgorithm::ALL {
            assert_eq!(hash.digest(b"abc").len(), usize::from(hash.output_len()));
            assert_eq!(hash.to_string().parse(), Ok(hash));
            assert_eq!(HashAlgorithm::from_oid(hash.oid()), Some(hash));
        }
        assert!("md5".parse::<HashAlgorithm>().unwrap_err().to_string().contains("`md5`"));
    }
}
