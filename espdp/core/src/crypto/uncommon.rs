//! AEADs that the fast library does not have: AES-GCM with shorter ICVs (RFC 4106 §6) and AES-CCM (RFC 4309).

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::{U8, U11, U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use ccm::Ccm;
use espdp_api::EspCipher;
use zeroize::Zeroize;

use super::{AssociatedData, ESP_HEADER_LEN};
use crate::DropReason;

/// A keyed AEAD. The nonce is the salt followed by the explicit IV, as in [`super::Aead`].
pub(super) struct UncommonAead {
    algorithm: Box<dyn Algorithm>,
    /// Three octets with CCM (RFC 4309 §4), four with GCM; the rest is zero.
    salt: [u8; SALT_ROOM],
    salt_len: usize,
    icv_len: usize,
}

/// Octets of the longest salt.
const SALT_ROOM: usize = 4;
const IV_LEN: usize = 8;

impl UncommonAead {
    /// `None` when the key's length is wrong, or the cipher is none of these.
    pub(super) fn new(cipher: EspCipher, key_and_salt: &[u8]) -> Option<Self> {
        let (key, own_salt) = key_and_salt.split_at_checked(cipher.key_len())?;
        let algorithm = match cipher {
            EspCipher::AesGcm12 { .. } => {
                keyed::<AesGcm<Aes128, U12, U12>, AesGcm<Aes192, U12, U12>, AesGcm<Aes256, U12, U12>>(key)
            }
            EspCipher::AesGcm8 { .. } => {
                keyed::<AesGcm<Aes128, U12, U8>, AesGcm<Aes192, U12, U8>, AesGcm<Aes256, U12, U8>>(key)
            }
            EspCipher::AesCcm16 { .. } => {
                keyed::<Ccm<Aes128, U16, U11>, Ccm<Aes192, U16, U11>, Ccm<Aes256, U16, U11>>(key)
            }
            EspCipher::AesCcm12 { .. } => {
                keyed::<Ccm<Aes128, U12, U11>, Ccm<Aes192, U12, U11>, Ccm<Aes256, U12, U11>>(key)
            }
            EspCipher::AesCcm8 { .. } => keyed::<Ccm<Aes128, U8, U11>, Ccm<Aes192, U8, U11>, Ccm<Aes256, U8, U11>>(key),
            EspCipher::AesGcm16 { .. }
            | EspCipher::ChaCha20Poly1305
            | EspCipher::AesGmac { .. }
            | EspCipher::AesCbc { .. }
            | EspCipher::AesCtr { .. }
            | EspCipher::Null => None,
        }?;
        let mut salt = [0; SALT_ROOM];
        salt.get_mut(..own_salt.len())?.copy_from_slice(own_salt);
        Some(Self { algorithm, salt, salt_len: own_salt.len(), icv_len: cipher.icv_len() })
    }

    /// Encrypts under the IV that stands in the packet.
    pub(super) fn seal(&self, packet: &mut [u8], associated_data: &AssociatedData) -> Option<()> {
        let (iv, payload, icv) = self.split(packet)?;
        let (nonce, nonce_len) = self.nonce(*iv);
        self.algorithm.seal(nonce.get(..nonce_len)?, associated_data.as_ref(), payload, icv)
    }

    pub(super) fn open(&self, packet: &mut [u8], associated_data: &AssociatedData) -> Result<(), DropReason> {
        let (iv, payload, icv) = self.split(packet).ok_or(DropReason::Short)?;
        let (nonce, nonce_len) = self.nonce(*iv);
        let nonce = nonce.get(..nonce_len).ok_or(DropReason::Crypto)?;
        self.algorithm.open(nonce, associated_data.as_ref(), payload, icv).ok_or(DropReason::BadIcv)
    }

    /// Salt, then IV, and how many octets both have.
    fn nonce(&self, iv: [u8; IV_LEN]) -> ([u8; SALT_ROOM + IV_LEN], usize) {
        let mut nonce = [0; SALT_ROOM + IV_LEN];
        let parts = self.salt.iter().take(self.salt_len).chain(&iv);
        for (octet, part) in nonce.iter_mut().zip(parts) {
            *octet = *part;
        }
        (nonce, self.salt_len + IV_LEN)
    }

    /// IV, payload with trailer, ICV.
    fn split<'p>(&self, packet: &'p mut [u8]) -> Option<(&'p mut [u8; IV_LEN], &'p mut [u8], &'p mut [u8])> {
        let (iv, rest) = packet.get_mut(ESP_HEADER_LEN..)?.split_first_chunk_mut()?;
        let (payload, icv) = rest.split_at_mut_checked(rest.len().checked_sub(self.icv_len)?)?;
        Some((iv, payload, icv))
    }
}

impl Drop for UncommonAead {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for UncommonAead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UncommonAead(..)")
    }
}

/// An AEAD with lengths that are known at run time only.
trait Algorithm: Send + Sync {
    /// `None` when a length is wrong.
    fn seal(&self, nonce: &[u8], associated_data: &[u8], payload: &mut [u8], icv: &mut [u8]) -> Option<()>;

    /// `None` when the ICV is, or a length.
    fn open(&self, nonce: &[u8], associated_data: &[u8], payload: &mut [u8], icv: &[u8]) -> Option<()>;
}

impl<A: AeadInOut + Send + Sync> Algorithm for A {
    fn seal(&self, nonce: &[u8], associated_data: &[u8], payload: &mut [u8], icv: &mut [u8]) -> Option<()> {
        let nonce = <&Nonce<A>>::try_from(nonce).ok()?;
        let icv = <&mut Tag<A>>::try_from(icv).ok()?;
        *icv = self.encrypt_inout_detached(nonce, associated_data, payload.into()).ok()?;
        Some(())
    }

    fn open(&self, nonce: &[u8], associated_data: &[u8], payload: &mut [u8], icv: &[u8]) -> Option<()> {
        let nonce = <&Nonce<A>>::try_from(nonce).ok()?;
        let icv = <&Tag<A>>::try_from(icv).ok()?;
        self.decrypt_inout_detached(nonce, associated_data, payload.into(), icv).ok()
    }
}

/// The one of three algorithms that has a key of this length.
fn keyed<A128, A192, A256>(key: &[u8]) -> Option<Box<dyn Algorithm>>
where
    A128: KeyInit + Algorithm + 'static,
    A192: KeyInit + Algorithm + 'static,
    A256: KeyInit + Algorithm + 'static,
{
    Some(match key.len() {
        16 => Box::new(A128::new_from_slice(key).ok()?),
        24 => Box::new(A192::new_from_slice(key).ok()?),
        _ => Box::new(A256::new_from_slice(key).ok()?),
    })
}
