//! ESP transforms and their sizes.

use serde::{Deserialize, Serialize};

/// The cipher of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EspCipher {
    /// AES-GCM with a 16-octet ICV (RFC 4106); key of 128, 192 or 256 bits followed by a 4-octet salt.
    AesGcm16 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-CBC (RFC 3602); key of 128, 192 or 256 bits.
    AesCbc {
        /// Key length in bits.
        key_bits: u16,
    },
    /// ChaCha20-Poly1305 (RFC 7634); key of 256 bits followed by a 4-octet salt.
    ChaCha20Poly1305,
    /// No encryption (RFC 2410); never without integrity (RFC 4303 §3.2).
    Null,
}

impl EspCipher {
    /// Whether the cipher protects integrity as well, so that no separate transform is used.
    #[must_use]
    pub fn is_aead(self) -> bool {
        match self {
            Self::AesGcm16 { .. } | Self::ChaCha20Poly1305 => true,
            Self::AesCbc { .. } | Self::Null => false,
        }
    }

    /// Octets of key that the cipher takes from KEYMAT, without the salt.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::AesGcm16 { key_bits } | Self::AesCbc { key_bits } => usize::from(key_bits / 8),
            Self::ChaCha20Poly1305 => 32,
            Self::Null => 0,
        }
    }

    /// Octets of salt that follow the key in KEYMAT.
    #[must_use]
    pub fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    /// Octets of explicit IV in each packet.
    #[must_use]
    pub fn iv_len(self) -> usize {
        match self {
            Self::AesGcm16 { .. } | Self::ChaCha20Poly1305 => 8,
            Self::AesCbc { .. } => 16,
            Self::Null => 0,
        }
    }

    /// The payload with its trailer is padded to a multiple of this many octets (RFC 4303 §2.4: at least 4).
    #[must_use]
    pub fn pad_block(self) -> usize {
        match self {
            Self::AesCbc { .. } => 16,
            Self::AesGcm16 { .. } | Self::ChaCha20Poly1305 | Self::Null => 4,
        }
    }
}

/// The integrity transform beside a cipher that is not an AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EspIntegrity {
    /// None: the cipher is an AEAD.
    None,
    /// HMAC-SHA1-96 (RFC 2404), for old peers.
    HmacSha1_96,
    /// HMAC-SHA2-256-128 (RFC 4868).
    HmacSha2_256_128,
    /// HMAC-SHA2-384-192 (RFC 4868).
    HmacSha2_384_192,
    /// HMAC-SHA2-512-256 (RFC 4868).
    HmacSha2_512_256,
}

impl EspIntegrity {
    /// Octets of key taken from KEYMAT.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::HmacSha1_96 => 20,
            Self::HmacSha2_256_128 => 32,
            Self::HmacSha2_384_192 => 48,
            Self::HmacSha2_512_256 => 64,
        }
    }

    /// Octets of ICV on the wire.
    #[must_use]
    pub fn icv_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::HmacSha1_96 => 12,
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }
}

/// What protects the packets of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EspAlgorithms {
    /// The cipher.
    pub cipher: EspCipher,
    /// The integrity transform; [`EspIntegrity::None`] if and only if the cipher is an AEAD.
    pub integrity: EspIntegrity,
    /// Extended (64-bit) sequence numbers (RFC 4303 §2.2.1).
    pub extended_sequence_numbers: bool,
}

impl EspAlgorithms {
    /// Whether the combination is one that ESP allows: integrity exactly where the cipher brings none (RFC 4303 §3.2).
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.cipher.is_aead() == (self.integrity == EspIntegrity::None)
    }

    /// Octets of ICV at the end of each packet.
    #[must_use]
    pub fn icv_len(self) -> usize {
        if self.cipher.is_aead() { 16 } else { self.integrity.icv_len() }
    }

    /// Octets of KEYMAT for one direction: cipher key, salt, integrity key, in this order (RFC 7296 §2.17).
    #[must_use]
    pub fn keymat_len(self) -> usize {
        self.cipher.key_len() + self.cipher.salt_len() + self.integrity.key_len()
    }
}
