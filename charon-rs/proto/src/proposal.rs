//! Proposals: what we offer and accept, and what was chosen.
//!
//! A proposal lives in three forms: as text in strongSwan's notation ([`parse_ike_list`]), as the types here, and as it
//! is on the wire ([`crate::wire::WireProposal`]). Offers go out with [`ike_offer`] and [`esp_offer`]; [`negotiate_ike`]
//! and [`negotiate_esp`] choose from a peer's offer or say why they cannot ([`Mismatch`]); [`check_ike_answer`] and
//! [`check_esp_answer`] hold a peer to what it was offered.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use espdp_api::{EspAlgorithms, EspCipher, EspIntegrity, IpsecProtocol};

mod additional;
mod algorithm;
mod defaults;
mod keyword;
mod mismatch;
mod names;
mod negotiable;
mod negotiate;
mod offer;
#[cfg(test)]
mod tests;
mod text;

pub use additional::AdditionalGroups;
pub use algorithm::{Algorithm, WIRESHARK_NO_INTEGRITY, WiresharkName};
pub use defaults::{default_ah_proposals, default_esp_proposals, default_ike_proposals};
pub use mismatch::{Mismatch, Miss};
pub use names::{describe_proposal, describe_transform};
pub use negotiate::{
    BadAnswer, EspAgreement, IkeAgreement, Obstacle, check_esp_answer, check_ike_answer, negotiate_esp, negotiate_ike,
};
pub use offer::{esp_offer, ike_offer, without_groups};
pub use text::{ProposalError, ProposalProblem, parse_ah_list, parse_esp_list, parse_ike_list};

/// The cipher of an IKE SA's Encrypted payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IkeCipher {
    /// AES-GCM with a 16-octet ICV (RFC 5282).
    AesGcm16 {
        /// Key length in bits: 128, 192 or 256.
        key_bits: u16,
    },
    /// AES-CBC (RFC 3602).
    AesCbc {
        /// Key length in bits: 128, 192 or 256.
        key_bits: u16,
    },
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

impl IkeCipher {
    /// Whether it protects integrity as well.
    #[must_use]
    pub fn is_aead(self) -> bool {
        match self {
            Self::AesGcm16 { .. } | Self::ChaCha20Poly1305 => true,
            Self::AesCbc { .. } => false,
        }
    }
}

/// The integrity transform of an IKE SA whose cipher is not an AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IkeIntegrity {
    /// AUTH_HMAC_SHA1_96, only by explicit choice.
    HmacSha1_96,
    /// AUTH_HMAC_SHA2_256_128.
    HmacSha2_256_128,
    /// AUTH_HMAC_SHA2_384_192.
    HmacSha2_384_192,
    /// AUTH_HMAC_SHA2_512_256.
    HmacSha2_512_256,
}

/// The pseudo-random function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Prf {
    /// PRF_HMAC_SHA1, only by explicit choice.
    HmacSha1,
    /// PRF_HMAC_SHA2_256.
    HmacSha2_256,
    /// PRF_HMAC_SHA2_384.
    HmacSha2_384,
    /// PRF_HMAC_SHA2_512.
    HmacSha2_512,
}

/// A key exchange method (transform types 4 and 6 to 12); the value is the IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum KeyExchangeGroup {
    /// 2048-bit MODP (RFC 3526).
    Modp2048 = 14,
    /// 3072-bit MODP.
    Modp3072 = 15,
    /// 4096-bit MODP.
    Modp4096 = 16,
    /// NIST P-256 (RFC 5903).
    Ecp256 = 19,
    /// NIST P-384.
    Ecp384 = 20,
    /// NIST P-521.
    Ecp521 = 21,
    /// Curve25519 (RFC 8031).
    Curve25519 = 31,
    /// ML-KEM-512 (FIPS 203).
    MlKem512 = 35,
    /// ML-KEM-768.
    MlKem768 = 36,
    /// ML-KEM-1024.
    MlKem1024 = 37,
}

/// One IKE proposal: alternatives for each transform type, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Ciphers: either all AEADs or none of them is one.
    pub ciphers: Vec<IkeCipher>,
    /// Integrity transforms; empty for AEADs.
    pub integrity: Vec<IkeIntegrity>,
    /// PRFs, never empty.
    pub prfs: Vec<Prf>,
    /// Groups, never empty.
    pub groups: Vec<KeyExchangeGroup>,
    /// Additional key exchanges (RFC 9370), round by round; see [`Rounds`].
    pub additional: Rounds,
}

/// What is offered for each of the seven rounds of additional key exchanges, in order of preference; `None` among the
/// alternatives means that the round may be left out. A round without alternatives is not offered at all, which comes to
/// the same with a peer.
pub type Rounds = [Vec<Option<KeyExchangeGroup>>; 7];

/// One proposal for a Child SA, of ESP or AH: alternatives for each transform type, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// ESP or AH.
    pub protocol: IpsecProtocol,
    /// Ciphers: either all AEADs or none of them is one; empty for AH.
    pub ciphers: Vec<EspCipher>,
    /// Integrity transforms; empty for AEADs, never for AH.
    pub integrity: Vec<EspIntegrity>,
    /// Groups for PFS; empty means none. Not offered with the first Child SA, whose keys come from IKE_SA_INIT.
    pub groups: Vec<KeyExchangeGroup>,
    /// Additional key exchanges (RFC 9370), round by round; see [`Rounds`]. Without groups there are none. Not offered
    /// with the first Child SA either.
    pub additional: Rounds,
    /// Extended sequence numbers: `true` for ESN, `false` for 32 bits; both may be offered, in order; never empty.
    pub extended_sequence_numbers: Vec<bool>,
}

/// What was chosen for an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// The cipher.
    pub cipher: IkeCipher,
    /// The integrity transform, `None` if and only if the cipher is an AEAD.
    pub integrity: Option<IkeIntegrity>,
    /// The PRF.
    pub prf: Prf,
    /// The group.
    pub group: KeyExchangeGroup,
    /// The additional key exchanges.
    pub additional: AdditionalGroups,
}

/// What was chosen for a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// ESP or AH.
    pub protocol: IpsecProtocol,
    /// Ciphers and sequence numbers.
    pub algorithms: EspAlgorithms,
    /// The group of PFS.
    pub group: Option<KeyExchangeGroup>,
    /// The additional key exchanges.
    pub additional: AdditionalGroups,
}
