//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634), which share their layout in ESP.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use espdp_api::EspCipher;
use zeroize::Zeroize;

use super::{AssociatedData, ESP_HEADER_LEN};
use crate::DropReason;

/// A keyed AEAD. The nonce is the salt followed by the explicit IV, which is the 64-bit sequence number: it never repeats
/// under one key, because the sequence number never does (RFC 4303 §3.3.3).
pub(super) struct Aead {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;

impl Aead {
    /// `None` when the key's length is wrong.
    pub(super) fn new(cipher: EspCipher, key_and_salt: &[u8]) -> Option<Self> {
        let algorithm: &'static Algorithm = match cipher {
            EspCipher::AesGcm16 { key_bits: 128 } => &AES_128_GCM,
            EspCipher::AesGcm16 { key_bits: 192 } => &AES_192_GCM,
            EspCipher::AesGcm16 { key_bits: 256 } => &AES_256_GCM,
            EspCipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            EspCipher::AesGcm16 { .. }
            | EspCipher::AesGcm12 { .. }
            | EspCipher::AesGcm8 { .. }
            | EspCipher::AesCcm16 { .. }
            | EspCipher::AesCcm12 { .. }
            | EspCipher::AesCcm8 { .. }
            | EspCipher::AesGmac { .. }
            | EspCipher::AesCbc { .. }
            | EspCipher::AesCtr { .. }
            | EspCipher::Null => return None,
        };
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, salt: *salt })
    }

    /// Encrypts under the IV that stands in the packet.
    #[inline]
    pub(super) fn seal(&self, packet: &mut [u8], associated_data: &AssociatedData) -> Option<()> {
        let (iv, payload, icv) = split(packet)?;
        let nonce = self.nonce(*iv);
        self.key.seal_in_place_scatter(nonce, Aad::from(associated_data), payload, &[], icv).ok()
    }

    #[inline]
    pub(super) fn open(&self, packet: &mut [u8], associated_data: &AssociatedData) -> Result<(), DropReason> {
        let (iv, payload, icv) = split(packet).ok_or(DropReason::Short)?;
        let nonce = self.nonce(*iv);
        let opened = self.key.open_in_place_separate_tag(nonce, Aad::from(associated_data), icv, payload);
        opened.map(drop).map_err(|_| DropReason::BadIcv)
    }

    /// RFC 4106 §4, RFC 7634 §2: salt, then IV.
    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let [s0, s1, s2, s3] = self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
    }
}

impl Drop for Aead {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for Aead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aead({:?}, ..)", self.key.algorithm())
    }
}

/// IV, payload with trailer, ICV.
fn split(packet: &mut [u8]) -> Option<(&mut [u8; IV_LEN], &mut [u8], &mut [u8; ICV_LEN])> {
    let (iv, rest) = packet.get_mut(ESP_HEADER_LEN..)?.split_first_chunk_mut()?;
    let (payload, icv) = rest.split_last_chunk_mut()?;
    Some((iv, payload, icv))
}
