//! Integrity by AES-GMAC without encryption (RFC 4543).

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use espdp_api::EspCipher;
use zeroize::Zeroize;

use super::ESP_HEADER_LEN;
use crate::DropReason;

/// A keyed GMAC: AES-GCM that covers everything and encrypts nothing. The nonce is the salt followed by the explicit IV, as in
/// [`super::Aead`].
pub(super) struct Gmac {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;
/// Octets of the SPI, behind which the high half of an extended sequence number is covered.
const SPI_LEN: usize = 4;
/// Octets of that half.
const HIGH_LEN: usize = 4;

impl Gmac {
    /// `None` when the key's length is wrong.
    pub(super) fn new(cipher: EspCipher, key_and_salt: &[u8]) -> Option<Self> {
        let algorithm = match cipher.key_len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, salt: *salt })
    }

    /// Writes the ICV, under the IV that stands in the packet; never shortened (R4543-3.4-1).
    pub(super) fn seal(&self, packet: &mut [u8], high: Option<[u8; HIGH_LEN]>) -> Option<()> {
        let tag = self.tag(packet, high)?;
        *packet.last_chunk_mut()? = tag;
        Some(())
    }

    /// Compares the ICV in constant time. What stood in its place is gone afterwards.
    ///
    /// # Errors
    /// [`DropReason::BadIcv`], and [`DropReason::Short`] for a packet without room for IV and ICV.
    pub(super) fn open(&self, packet: &mut [u8], high: Option<[u8; HIGH_LEN]>) -> Result<(), DropReason> {
        let received: [u8; ICV_LEN] = *packet.last_chunk().ok_or(DropReason::Short)?;
        let tag = self.tag(packet, high).ok_or(DropReason::Short)?;
        verify_slices_are_equal(&tag, &received).map_err(|_| DropReason::BadIcv)
    }

    /// The ICV over all before its place. The high half of an extended sequence number is covered right behind the SPI
    /// (RFC 4543 §3.3), where it does not stand: all behind moves to make room for it, into the place of the ICV, and back.
    fn tag(&self, packet: &mut [u8], high: Option<[u8; HIGH_LEN]>) -> Option<[u8; ICV_LEN]> {
        let covered_len = packet.len().checked_sub(ICV_LEN)?;
        let iv: [u8; IV_LEN] = *packet.get(ESP_HEADER_LEN..covered_len)?.first_chunk()?;
        let nonce = self.nonce(iv);
        let Some(high) = high else { return self.tag_over(nonce, packet.get(..covered_len)?) };
        packet.copy_within(SPI_LEN..covered_len, SPI_LEN + HIGH_LEN);
        *packet.get_mut(SPI_LEN..)?.first_chunk_mut()? = high;
        let tag = self.tag_over(nonce, packet.get(..covered_len + HIGH_LEN)?);
        packet.copy_within(SPI_LEN + HIGH_LEN..covered_len + HIGH_LEN, SPI_LEN);
        tag
    }

    fn tag_over(&self, nonce: Nonce, covered: &[u8]) -> Option<[u8; ICV_LEN]> {
        let mut tag = [0; ICV_LEN];
        self.key.seal_in_place_scatter(nonce, Aad::from(covered), &mut [], &[], &mut tag).ok()?;
        Some(tag)
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let [s0, s1, s2, s3] = self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
    }
}

impl Drop for Gmac {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for Gmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gmac({:?}, ..)", self.key.algorithm())
    }
}
