//! Key exchange: private values, public values as the KE payload carries them, shared secrets.

mod ecp;
mod modp;

use std::fmt;

use espdp_api::Secret;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::proposal::KeyExchangeGroup;
use crate::random::SecureRandom;

/// Our half of a key exchange. The private value is wiped when this is dropped.
pub struct KeyExchange {
    group: KeyExchangeGroup,
    private: Private,
    public: Vec<u8>,
}

/// Why a public value of the peer was refused. None of it is worth an answer in IKE_SA_INIT: the message may be forged, and
/// the right one may still come (RFC 6989 §2.5, R6989-2.5-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyExchangeError {
    /// The value has not the length that the group fixes.
    #[error("public value of {actual} octets where {group:?} has {expected}")]
    WrongLength {
        /// The group.
        group: KeyExchangeGroup,
        /// Octets that a value of this group has.
        expected: usize,
        /// Octets that came.
        actual: usize,
    },
    /// The value is no element of the group, or one that gives the secret away: 0, 1, p-1 or more of a MODP group, no point
    /// of a curve, a point of small order of Curve25519.
    #[error("public value that is not a sound element of {group:?}")]
    NotInGroup {
        /// The group.
        group: KeyExchangeGroup,
    },
}

enum Private {
    Modp(modp::Group, Secret<Vec<u8>>),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
    Curve25519(StaticSecret),
}

impl KeyExchange {
    /// Draws a private value and computes the public one.
    pub fn generate(group: KeyExchangeGroup, random: &mut dyn SecureRandom) -> Self {
        let private = match group {
            KeyExchangeGroup::Modp2048 => Private::modp(modp::Group::Modp2048, random),
            KeyExchangeGroup::Modp3072 => Private::modp(modp::Group::Modp3072, random),
            KeyExchangeGroup::Modp4096 => Private::modp(modp::Group::Modp4096, random),
            KeyExchangeGroup::Ecp256 => Private::P256(ecp::generate(random)),
            KeyExchangeGroup::Ecp384 => Private::P384(ecp::generate(random)),
            KeyExchangeGroup::Ecp521 => Private::P521(ecp::generate(random)),
            KeyExchangeGroup::Curve25519 => {
                let mut octets = Secret::new([0; 32]);
                random.fill_secret(octets.expose_mut());
                Private::Curve25519(StaticSecret::from(*octets.expose()))
            }
        };
        let public = private.public();
        Self { group, private, public }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> KeyExchangeGroup {
        self.group
    }

    /// Our public value, as the KE payload carries it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with the owner of `peer_public`, g^ir of the key schedule. Can be called again with another value
    /// when the first turned out to be forged.
    ///
    /// # Errors
    ///
    /// If the peer's value has the wrong length or is not a sound element of the group.
    pub fn agree(&self, peer_public: &[u8]) -> Result<Secret<Vec<u8>>, KeyExchangeError> {
        let expected = self.group.public_len();
        if peer_public.len() != expected {
            return Err(KeyExchangeError::WrongLength { group: self.group, expected, actual: peer_public.len() });
        }
        self.private.agree(peer_public).ok_or(KeyExchangeError::NotInGroup { group: self.group })
    }
}

impl Private {
    fn modp(group: modp::Group, random: &mut dyn SecureRandom) -> Self {
        Self::Modp(group, group.generate(random))
    }

    fn public(&self) -> Vec<u8> {
        match self {
            Self::Modp(group, exponent) => group.public(exponent),
            Self::P256(scalar) => ecp::public(scalar),
            Self::P384(scalar) => ecp::public(scalar),
            Self::P521(scalar) => ecp::public(scalar),
            Self::Curve25519(scalar) => PublicKey::from(scalar).as_bytes().to_vec(),
        }
    }

    /// The shared secret, or `None` if the peer's value is not sound.
    fn agree(&self, peer_public: &[u8]) -> Option<Secret<Vec<u8>>> {
        match self {
            Self::Modp(group, exponent) => group.agree(exponent, peer_public),
            Self::P256(scalar) => ecp::agree(scalar, peer_public),
            Self::P384(scalar) => ecp::agree(scalar, peer_public),
            Self::P521(scalar) => ecp::agree(scalar, peer_public),
            Self::Curve25519(scalar) => {
                // R8031-3.2-1: the library ignores the top bit and reduces what is not below the prime, as RFC 7748 §5 says.
                // RFC 8031 §3.2, RFC 7748 §6.1: an all-zero result comes from a point of small order.
                let peer = <[u8; 32]>::try_from(peer_public).ok()?;
                let shared = scalar.diffie_hellman(&PublicKey::from(peer));
                shared.was_contributory().then(|| Secret::new(shared.as_bytes().to_vec()))
            }
        }
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyExchange").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KeyExchangeGroup {
    /// Octets of a public value on the wire: the length of the modulus (RFC 7296 §3.4), x and y of a point (RFC 5903 §7), or
    /// u of Curve25519 (RFC 8031 §3.1).
    #[must_use]
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::Curve25519 => 32,
        }
    }
}
