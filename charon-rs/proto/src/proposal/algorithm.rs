//! Names and numbers of algorithms.

use espdp_api::{EspCipher, EspIntegrity};

use super::{IkeCipher, IkeIntegrity, KeyExchangeGroup, Prf};
use crate::wire::TransformType;

/// An algorithm that can be negotiated: how the wire, logs and configuration call it.
pub trait Algorithm: Copy + PartialEq + 'static {
    /// What it decides about an SA.
    const KIND: TransformType;

    /// All that there are, in the order in which messages about them list them.
    const ALL: &'static [Self];

    /// The transform ID, IANA's number.
    fn id(self) -> u16;

    /// The Key Length attribute, for those that have one.
    fn key_bits(self) -> Option<u16> {
        None
    }

    /// The name in strongSwan's logs and on its control socket, without the key length: `AES_GCM_16`.
    fn name(self) -> &'static str;

    /// The word in a proposal text: `aes256gcm16`.
    fn keyword(self) -> &'static str;
}

/// Names in Wireshark's tables of keys. ChaCha20-Poly1305 has one only in later versions than 4.0, which refuse the whole
/// table for it.
pub trait WiresharkName {
    /// The name in the table where the algorithm belongs: `ikev2_decryption_table` for algorithms of IKE, `esp_sa` for
    /// those of ESP.
    fn wireshark_name(self) -> &'static str;
}

/// What Wireshark's `ikev2_decryption_table` calls the integrity transform of an AEAD.
pub const WIRESHARK_NO_INTEGRITY: &str = "NONE [RFC4306]";

impl Algorithm for EspCipher {
    const KIND: TransformType = TransformType::Encryption;

    const ALL: &'static [Self] = &[
        Self::AesGcm16 { key_bits: 128 },
        Self::AesGcm16 { key_bits: 192 },
        Self::AesGcm16 { key_bits: 256 },
        Self::ChaCha20Poly1305,
        Self::AesGcm12 { key_bits: 128 },
        Self::AesGcm12 { key_bits: 192 },
        Self::AesGcm12 { key_bits: 256 },
        Self::AesGcm8 { key_bits: 128 },
        Self::AesGcm8 { key_bits: 192 },
        Self::AesGcm8 { key_bits: 256 },
        Self::AesCcm16 { key_bits: 128 },
        Self::AesCcm16 { key_bits: 192 },
        Self::AesCcm16 { key_bits: 256 },
        Self::AesCcm12 { key_bits: 128 },
        Self::AesCcm12 { key_bits: 192 },
        Self::AesCcm12 { key_bits: 256 },
        Self::AesCcm8 { key_bits: 128 },
        Self::AesCcm8 { key_bits: 192 },
        Self::AesCcm8 { key_bits: 256 },
        Self::AesGmac { key_bits: 128 },
        Self::AesGmac { key_bits: 192 },
        Self::AesGmac { key_bits: 256 },
        Self::AesCbc { key_bits: 128 },
        Self::AesCbc { key_bits: 192 },
        Self::AesCbc { key_bits: 256 },
        Self::AesCtr { key_bits: 128 },
        Self::AesCtr { key_bits: 192 },
        Self::AesCtr { key_bits: 256 },
        Self::Null,
    ];

    fn id(self) -> u16 {
        match self {
            Self::Null => 11,
            Self::AesCbc { .. } => 12,
            Self::AesCtr { .. } => 13,
            Self::AesCcm8 { .. } => 14,
            Self::AesCcm12 { .. } => 15,
            Self::AesCcm16 { .. } => 16,
            Self::AesGcm8 { .. } => 18,
            Self::AesGcm12 { .. } => 19,
            Self::AesGcm16 { .. } => 20,
            Self::AesGmac { .. } => 21,
            Self::ChaCha20Poly1305 => 28,
        }
    }

    fn key_bits(self) -> Option<u16> {
        match self {
            Self::AesGcm16 { key_bits }
            | Self::AesGcm12 { key_bits }
            | Self::AesGcm8 { key_bits }
            | Self::AesCcm16 { key_bits }
            | Self::AesCcm12 { key_bits }
            | Self::AesCcm8 { key_bits }
            | Self::AesGmac { key_bits }
            | Self::AesCbc { key_bits }
            | Self::AesCtr { key_bits } => Some(key_bits),
            // R7296-3.3.5-1: a fixed key length is not spelled out.
            Self::ChaCha20Poly1305 | Self::Null => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AesGcm16 { .. } => "AES_GCM_16",
            Self::AesGcm12 { .. } => "AES_GCM_12",
            Self::AesGcm8 { .. } => "AES_GCM_8",
            Self::AesCcm16 { .. } => "AES_CCM_16",
            Self::AesCcm12 { .. } => "AES_CCM_12",
            Self::AesCcm8 { .. } => "AES_CCM_8",
            Self::AesGmac { .. } => "NULL_AES_GMAC",
            Self::AesCbc { .. } => "AES_CBC",
            Self::AesCtr { .. } => "AES_CTR",
            Self::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            Self::Null => "NULL",
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::AesGcm16 { key_bits: 128 } => "aes128gcm16",
            Self::AesGcm16 { key_bits: 192 } => "aes192gcm16",
            Self::AesGcm16 { .. } => "aes256gcm16",
            Self::AesGcm12 { key_bits: 128 } => "aes128gcm12",
            Self::AesGcm12 { key_bits: 192 } => "aes192gcm12",
            Self::AesGcm12 { .. } => "aes256gcm12",
            Self::AesGcm8 { key_bits: 128 } => "aes128gcm8",
            Self::AesGcm8 { key_bits: 192 } => "aes192gcm8",
            Self::AesGcm8 { .. } => "aes256gcm8",
            Self::AesCcm16 { key_bits: 128 } => "aes128ccm16",
            Self::AesCcm16 { key_bits: 192 } => "aes192ccm16",
            Self::AesCcm16 { .. } => "aes256ccm16",
            Self::AesCcm12 { key_bits: 128 } => "aes128ccm12",
            Self::AesCcm12 { key_bits: 192 } => "aes192ccm12",
            Self::AesCcm12 { .. } => "aes256ccm12",
            Self::AesCcm8 { key_bits: 128 } => "aes128ccm8",
            Self::AesCcm8 { key_bits: 192 } => "aes192ccm8",
            Self::AesCcm8 { .. } => "aes256ccm8",
            Self::AesGmac { key_bits: 128 } => "aes128gmac",
            Self::AesGmac { key_bits: 192 } => "aes192gmac",
            Self::AesGmac { .. } => "aes256gmac",
            Self::AesCbc { key_bits: 128 } => "aes128",
            Self::AesCbc { key_bits: 192 } => "aes192",
            Self::AesCbc { .. } => "aes256",
            Self::AesCtr { key_bits: 128 } => "aes128ctr",
            Self::AesCtr { key_bits: 192 } => "aes192ctr",
            Self::AesCtr { .. } => "aes256ctr",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::Null => "null",
        }
    }
}

impl WiresharkName for EspCipher {
    fn wireshark_name(self) -> &'static str {
        match self {
            // With the shorter name `AES-GCM [RFC4106]`, Wireshark 4 takes the ICV for data and shows nothing.
            Self::AesGcm16 { .. } => "AES-GCM with 16 octet ICV [RFC4106]",
            Self::AesGcm12 { .. } => "AES-GCM with 12 octet ICV [RFC4106]",
            Self::AesGcm8 { .. } => "AES-GCM with 8 octet ICV [RFC4106]",
            Self::AesCcm16 { .. } => "AES-CCM with 16 octet ICV [RFC4309]",
            Self::AesCcm12 { .. } => "AES-CCM with 12 octet ICV [RFC4309]",
            Self::AesCcm8 { .. } => "AES-CCM with 8 octet ICV [RFC4309]",
            Self::AesGmac { .. } => "AES-GMAC [RFC4543]",
            Self::AesCbc { .. } => "AES-CBC [RFC3602]",
            Self::AesCtr { .. } => "AES-CTR [RFC3686]",
            Self::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
            Self::Null => "NULL",
        }
    }
}

impl Algorithm for IkeCipher {
    const KIND: TransformType = TransformType::Encryption;

    const ALL: &'static [Self] = &[
        Self::AesGcm16 { key_bits: 128 },
        Self::AesGcm16 { key_bits: 192 },
        Self::AesGcm16 { key_bits: 256 },
        Self::ChaCha20Poly1305,
        Self::AesCbc { key_bits: 128 },
        Self::AesCbc { key_bits: 192 },
        Self::AesCbc { key_bits: 256 },
    ];

    fn id(self) -> u16 {
        EspCipher::from(self).id()
    }

    fn key_bits(self) -> Option<u16> {
        EspCipher::from(self).key_bits()
    }

    fn name(self) -> &'static str {
        EspCipher::from(self).name()
    }

    fn keyword(self) -> &'static str {
        EspCipher::from(self).keyword()
    }
}

/// IKE and ESP share the names and numbers of their ciphers.
impl From<IkeCipher> for EspCipher {
    fn from(cipher: IkeCipher) -> Self {
        match cipher {
            IkeCipher::AesGcm16 { key_bits } => Self::AesGcm16 { key_bits },
            IkeCipher::AesCbc { key_bits } => Self::AesCbc { key_bits },
            IkeCipher::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

impl WiresharkName for IkeCipher {
    fn wireshark_name(self) -> &'static str {
        match self {
            Self::AesGcm16 { key_bits: 128 } => "AES-GCM-128 with 16 octet ICV [RFC5282]",
            Self::AesGcm16 { key_bits: 192 } => "AES-GCM-192 with 16 octet ICV [RFC5282]",
            Self::AesGcm16 { .. } => "AES-GCM-256 with 16 octet ICV [RFC5282]",
            Self::AesCbc { key_bits: 128 } => "AES-CBC-128 [RFC3602]",
            Self::AesCbc { key_bits: 192 } => "AES-CBC-192 [RFC3602]",
            Self::AesCbc { .. } => "AES-CBC-256 [RFC3602]",
            Self::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
        }
    }
}

impl Algorithm for EspIntegrity {
    const KIND: TransformType = TransformType::Integrity;

    const ALL: &'static [Self] =
        &[Self::HmacSha2_256_128, Self::HmacSha2_384_192, Self::HmacSha2_512_256, Self::HmacSha1_96, Self::AesCmac96];

    fn id(self) -> u16 {
        match self {
            Self::None => 0,
            Self::HmacSha1_96 => 2,
            Self::AesCmac96 => 8,
            Self::HmacSha2_256_128 => 12,
            Self::HmacSha2_384_192 => 13,
            Self::HmacSha2_512_256 => 14,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::HmacSha1_96 => "HMAC_SHA1_96",
            Self::AesCmac96 => "AES_CMAC_96",
            Self::HmacSha2_256_128 => "HMAC_SHA2_256_128",
            Self::HmacSha2_384_192 => "HMAC_SHA2_384_192",
            Self::HmacSha2_512_256 => "HMAC_SHA2_512_256",
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::HmacSha1_96 => "sha1",
            Self::AesCmac96 => "aescmac",
            Self::HmacSha2_256_128 => "sha256",
            Self::HmacSha2_384_192 => "sha384",
            Self::HmacSha2_512_256 => "sha512",
        }
    }
}

impl WiresharkName for EspIntegrity {
    fn wireshark_name(self) -> &'static str {
        match self {
            Self::None => "NULL",
            Self::HmacSha1_96 => "HMAC-SHA-1-96 [RFC2404]",
            Self::AesCmac96 => "AES-CMAC-96 [RFC4494]",
            Self::HmacSha2_256_128 => "HMAC-SHA-256-128 [RFC4868]",
            Self::HmacSha2_384_192 => "HMAC-SHA-384-192 [RFC4868]",
            Self::HmacSha2_512_256 => "HMAC-SHA-512-256 [RFC4868]",
        }
    }
}

impl Algorithm for IkeIntegrity {
    const KIND: TransformType = TransformType::Integrity;

    const ALL: &'static [Self] =
        &[Self::HmacSha2_256_128, Self::HmacSha2_384_192, Self::HmacSha2_512_256, Self::HmacSha1_96];

    fn id(self) -> u16 {
        EspIntegrity::from(self).id()
    }

    fn name(self) -> &'static str {
        EspIntegrity::from(self).name()
    }

    fn keyword(self) -> &'static str {
        EspIntegrity::from(self).keyword()
    }
}

/// IKE and ESP share the names and numbers of their integrity transforms.
impl From<IkeIntegrity> for EspIntegrity {
    fn from(integrity: IkeIntegrity) -> Self {
        match integrity {
            IkeIntegrity::HmacSha1_96 => Self::HmacSha1_96,
            IkeIntegrity::HmacSha2_256_128 => Self::HmacSha2_256_128,
            IkeIntegrity::HmacSha2_384_192 => Self::HmacSha2_384_192,
            IkeIntegrity::HmacSha2_512_256 => Self::HmacSha2_512_256,
        }
    }
}

impl WiresharkName for IkeIntegrity {
    fn wireshark_name(self) -> &'static str {
        match self {
            Self::HmacSha1_96 => "HMAC_SHA1_96 [RFC2404]",
            Self::HmacSha2_256_128 => "HMAC_SHA2_256_128 [RFC4868]",
            Self::HmacSha2_384_192 => "HMAC_SHA2_384_192 [RFC4868]",
            Self::HmacSha2_512_256 => "HMAC_SHA2_512_256 [RFC4868]",
        }
    }
}

impl IkeIntegrity {
    /// The PRF of the same hash, which a proposal text means when it names none.
    #[must_use]
    pub fn matching_prf(self) -> Prf {
        match self {
            Self::HmacSha1_96 => Prf::HmacSha1,
            Self::HmacSha2_256_128 => Prf::HmacSha2_256,
            Self::HmacSha2_384_192 => Prf::HmacSha2_384,
            Self::HmacSha2_512_256 => Prf::HmacSha2_512,
        }
    }
}

impl Algorithm for Prf {
    const KIND: TransformType = TransformType::PseudoRandomFunction;

    const ALL: &'static [Self] = &[Self::HmacSha2_256, Self::HmacSha2_384, Self::HmacSha2_512, Self::HmacSha1];

    fn id(self) -> u16 {
        match self {
            Self::HmacSha1 => 2,
            Self::HmacSha2_256 => 5,
            Self::HmacSha2_384 => 6,
            Self::HmacSha2_512 => 7,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "PRF_HMAC_SHA1",
            Self::HmacSha2_256 => "PRF_HMAC_SHA2_256",
            Self::HmacSha2_384 => "PRF_HMAC_SHA2_384",
            Self::HmacSha2_512 => "PRF_HMAC_SHA2_512",
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::HmacSha1 => "prfsha1",
            Self::HmacSha2_256 => "prfsha256",
            Self::HmacSha2_384 => "prfsha384",
            Self::HmacSha2_512 => "prfsha512",
        }
    }
}

impl KeyExchangeGroup {
    /// The group with IANA's number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|group| group.id() == number)
    }
}

impl Algorithm for KeyExchangeGroup {
    const KIND: TransformType = TransformType::KeyExchange;

    const ALL: &'static [Self] = &[
        Self::Curve25519,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::MlKem512,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    fn id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::Curve25519 => 31,
            Self::MlKem512 => 35,
            Self::MlKem768 => 36,
            Self::MlKem1024 => 37,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Modp2048 => "MODP_2048",
            Self::Modp3072 => "MODP_3072",
            Self::Modp4096 => "MODP_4096",
            Self::Ecp256 => "ECP_256",
            Self::Ecp384 => "ECP_384",
            Self::Ecp521 => "ECP_521",
            Self::Curve25519 => "CURVE_25519",
            Self::MlKem512 => "ML_KEM_512",
            Self::MlKem768 => "ML_KEM_768",
            Self::MlKem1024 => "ML_KEM_1024",
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::Ecp256 => "ecp256",
            Self::Ecp384 => "ecp384",
            Self::Ecp521 => "ecp521",
            Self::Curve25519 => "x25519",
            Self::MlKem512 => "mlkem512",
            Self::MlKem768 => "mlkem768",
            Self::MlKem1024 => "mlkem1024",
        }
    }
}

/// The two kinds of sequence numbers of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceNumbers {
    /// 32 bits.
    Short,
    /// 64 bits, of which half is sent (RFC 4303 §2.2.1).
    Extended,
}

impl From<bool> for SequenceNumbers {
    fn from(extended: bool) -> Self {
        if extended { Self::Extended } else { Self::Short }
    }
}

impl From<SequenceNumbers> for bool {
    fn from(numbers: SequenceNumbers) -> Self {
        numbers == SequenceNumbers::Extended
    }
}

impl Algorithm for SequenceNumbers {
    const KIND: TransformType = TransformType::SequenceNumbers;

    const ALL: &'static [Self] = &[Self::Short, Self::Extended];

    fn id(self) -> u16 {
        match self {
            Self::Short => 0,
            Self::Extended => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Short => "NO_EXT_SEQ",
            Self::Extended => "EXT_SEQ",
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::Short => "noesn",
            Self::Extended => "esn",
        }
    }
}
