//! HMAC (RFC 2104) over the hashes that IKEv2 uses.

use ::hmac::{EagerHash, Hmac, KeyInit, Mac};
use espdp_api::Secret;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// A hash function to build an HMAC with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Octets of its output.
    pub(super) fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The HMAC of all `parts`, one after the other. The key may have any length: RFC 2104 §2 hashes a longer one and pads
    /// a shorter one with zeros.
    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Secret<Vec<u8>> {
        match self {
            Self::Sha1 => hmac::<Sha1>(key, parts),
            Self::Sha256 => hmac::<Sha256>(key, parts),
            Self::Sha384 => hmac::<Sha384>(key, parts),
            Self::Sha512 => hmac::<Sha512>(key, parts),
        }
    }
}

fn hmac<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Secret<Vec<u8>> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length, so there is no length to be refused")]
    let mut mac = Hmac::<D>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Secret::new(mac.finalize().as_bytes().to_vec())
}
