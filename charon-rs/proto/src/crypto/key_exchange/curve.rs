//! The NIST curves P-256, P-384 and P-521 (RFC 5903) and Curve25519 (RFC 8031), with the implementations of AWS-LC, which
//! take the same time whatever the private value is.
//!
//! On the wire a point of a NIST curve is x and y, each in the full length of the field (RFC 5903 §7, R5903-7-1). That is the
//! uncompressed form of SEC 1 without the octet 4 in front. A point of Curve25519 is u, least significant octet first.

use aws_lc_rs::agreement::{Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, X25519, agree};
use espdp_api::Secret;

use crate::random::SecureRandom;

/// One of the curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
    Curve25519,
}

/// A private scalar, which the library wipes when it is dropped.
pub(super) struct Scalar {
    curve: Curve,
    key: PrivateKey,
}

impl Curve {
    /// Draws a private scalar: of a NIST curve uniformly from 1 to the order of the curve less 1.
    pub(super) fn generate(self, random: &mut dyn SecureRandom) -> Scalar {
        let mut octets = Secret::new(vec![0; self.scalar_len()]);
        loop {
            random.fill_secret(octets.expose_mut());
            // Bits above the order are cleared, and what still is too large is drawn again, which keeps the distribution
            // even. The chance of a second draw is 2^-32 for P-256 and far lower for the others. RFC 7748 §5: of
            // Curve25519 the library sets and clears the bits that must be.
            if let (Self::P521, Some(first)) = (self, octets.expose_mut().first_mut()) {
                *first &= P521_FIRST_OCTET;
            }
            if let Ok(key) = PrivateKey::from_private_key(self.algorithm(), octets.expose()) {
                return Scalar { curve: self, key };
            }
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::P384 => &ECDH_P384,
            Self::P521 => &ECDH_P521,
            Self::Curve25519 => &X25519,
        }
    }

    fn scalar_len(self) -> usize {
        match self {
            Self::P256 | Self::Curve25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// What stands before a point of the wire where the library takes it.
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::P256 | Self::P384 | Self::P521 => &[UNCOMPRESSED],
            Self::Curve25519 => &[],
        }
    }
}

impl Scalar {
    /// The public point, as the KE payload carries it.
    #[expect(clippy::expect_used, reason = "the library multiplied the point when it took the scalar")]
    pub(super) fn public(&self) -> Vec<u8> {
        let point = self.key.compute_public_key().expect("every scalar has a point");
        point.as_ref().iter().skip(self.curve.prefix().len()).copied().collect()
    }

    /// The x coordinate of the shared point (RFC 5903 §9: nothing else), for Curve25519 u.
    ///
    /// `None` if `peer_public` is not a point of a NIST curve with coordinates below the field's prime (RFC 6989 §2.3,
    /// R6989-2.3-1). The point at infinity cannot be written in this form, and as the order of these curves is prime, no
    /// other point leads to it. Of Curve25519 the library ignores the top bit and reduces what is not below the prime, as
    /// RFC 7748 §5 says (R8031-3.2-1); `None` means that the result is all zero, because the point is of small order
    /// (RFC 8031 §3.2, RFC 7748 §6.1).
    pub(super) fn agree(&self, peer_public: &[u8]) -> Option<Secret<Vec<u8>>> {
        let encoded = [self.curve.prefix(), peer_public].concat();
        let peer = UnparsedPublicKey::new(self.curve.algorithm(), encoded);
        agree(&self.key, peer, (), |shared| Ok(Secret::new(shared.to_vec()))).ok()
    }
}

/// What stands before x and y in SEC 1.
const UNCOMPRESSED: u8 = 4;

/// The order of P-521 has one bit in its first octet.
const P521_FIRST_OCTET: u8 = 1;
