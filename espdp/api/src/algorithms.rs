//! ESP transforms and their sizes.

use serde::{Deserialize, Serialize};

/// What may compute ciphers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CryptoEngine {
    /// Our own engines, where the processor has the instructions and they compute known answers right; the library for all else.
    #[default]
    Auto,
    /// The library only.
    Library,
}

/// The cipher of an ESP SA. Keys of AES have 128, 192 or 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EspCipher {
    /// AES-GCM with a 16-octet ICV (RFC 4106); the key is followed by a 4-octet salt.
    AesGcm16 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-GCM with a 12-octet ICV (RFC 4106), for old peers.
    AesGcm12 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-GCM with an 8-octet ICV (RFC 4106), for old peers.
    AesGcm8 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-CCM with a 16-octet ICV (RFC 4309); the key is followed by a 3-octet salt.
    AesCcm16 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-CCM with a 12-octet ICV (RFC 4309).
    AesCcm12 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-CCM with an 8-octet ICV (RFC 4309), for devices that count every octet (RFC 8221 §5).
    AesCcm8 {
        /// Key length in bits.
        key_bits: u16,
    },
    /// ChaCha20-Poly1305 (RFC 7634); key of 256 bits followed by a 4-octet salt.
    ChaCha20Poly1305,
    /// No encryption, and integrity by AES-GMAC (RFC 4543); the key is followed by a 4-octet salt.
    AesGmac {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES-CBC (RFC 3602).
    AesCbc {
        /// Key length in bits.
        key_bits: u16,
    },
    /// AES in counter mode (RFC 3686); the key is followed by a 4-octet salt, there called nonce.
    AesCtr {
        /// Key length in bits.
        key_bits: u16,
    },
    /// No encryption (RFC 2410); never without integrity (RFC 4303 §3.2).
    Null,
}

impl EspCipher {
    /// Whether the cipher protects integrity as well, so that no separate transform is used.
    #[must_use]
    pub fn is_aead(self) -> bool {
        self.icv_len() != 0
    }

    /// Octets of key that the cipher takes from KEYMAT, without the salt.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::AesGcm16 { key_bits }
            | Self::AesGcm12 { key_bits }
            | Self::AesGcm8 { key_bits }
            | Self::AesCcm16 { key_bits }
            | Self::AesCcm12 { key_bits }
            | Self::AesCcm8 { key_bits }
            | Self::AesGmac { key_bits }
            | Self::AesCbc { key_bits }
            | Self::AesCtr { key_bits } => usize::from(key_bits / 8),
            Self::ChaCha20Poly1305 => 32,
            Self::Null => 0,
        }
    }

    /// Octets of salt that follow the key in KEYMAT.
    #[must_use]
    pub fn salt_len(self) -> usize {
        match self {
            Self::AesGcm16 { .. }
            | Self::AesGcm12 { .. }
            | Self::AesGcm8 { .. }
            | Self::AesGmac { .. }
            | Self::AesCtr { .. }
            | Self::ChaCha20Poly1305 => 4,
            Self::AesCcm16 { .. } | Self::AesCcm12 { .. } | Self::AesCcm8 { .. } => 3,
            Self::AesCbc { .. } | Self::Null => 0,
        }
    }

    /// Octets of explicit IV in each packet.
    #[must_use]
    pub fn iv_len(self) -> usize {
        match self {
            Self::AesCbc { .. } => 16,
            Self::Null => 0,
            Self::AesGcm16 { .. }
            | Self::AesGcm12 { .. }
            | Self::AesGcm8 { .. }
            | Self::AesCcm16 { .. }
            | Self::AesCcm12 { .. }
            | Self::AesCcm8 { .. }
            | Self::AesGmac { .. }
            | Self::AesCtr { .. }
            | Self::ChaCha20Poly1305 => 8,
        }
    }

    /// Octets of ICV that the cipher itself makes; 0 when it makes none.
    #[must_use]
    pub fn icv_len(self) -> usize {
        match self {
            Self::AesGcm16 { .. } | Self::AesCcm16 { .. } | Self::AesGmac { .. } | Self::ChaCha20Poly1305 => 16,
            Self::AesGcm12 { .. } | Self::AesCcm12 { .. } => 12,
            Self::AesGcm8 { .. } | Self::AesCcm8 { .. } => 8,
            Self::AesCbc { .. } | Self::AesCtr { .. } | Self::Null => 0,
        }
    }

    /// The payload with its trailer is padded to a multiple of this many octets (RFC 4303 §2.4: at least 4).
    #[must_use]
    pub fn pad_block(self) -> usize {
        if matches!(self, Self::AesCbc { .. }) { 16 } else { 4 }
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
    /// AES-CMAC-96 (RFC 4494); key of 128 bits.
    AesCmac96,
}

impl EspIntegrity {
    /// Octets of key taken from KEYMAT.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::AesCmac96 => 16,
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
            Self::HmacSha1_96 | Self::AesCmac96 => 12,
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

    /// Octets of ICV at the end of each packet: the cipher's or the integrity transform's, one of which makes none.
    #[must_use]
    pub fn icv_len(self) -> usize {
        self.cipher.icv_len() + self.integrity.icv_len()
    }

    /// Octets of KEYMAT for one direction: cipher key, salt, integrity key, in this order (RFC 7296 §2.17).
    #[must_use]
    pub fn keymat_len(self) -> usize {
        self.cipher.key_len() + self.cipher.salt_len() + self.integrity.key_len()
    }
}
