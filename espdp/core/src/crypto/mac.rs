//! HMAC with truncation, the integrity beside CBC and NULL (RFC 2404, RFC 4868).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512, Key, Tag};
use espdp_api::EspIntegrity;

use crate::DropReason;

/// A keyed HMAC.
#[derive(Debug)]
pub(super) struct Mac {
    key: Key,
    icv_len: usize,
}

impl Mac {
    /// `None` for no integrity at all, or a key of the wrong length.
    pub(super) fn new(integrity: EspIntegrity, key: &[u8]) -> Option<Self> {
        let algorithm = match integrity {
            EspIntegrity::None => return None,
            EspIntegrity::HmacSha1_96 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            EspIntegrity::HmacSha2_256_128 => HMAC_SHA256,
            EspIntegrity::HmacSha2_384_192 => HMAC_SHA384,
            EspIntegrity::HmacSha2_512_256 => HMAC_SHA512,
        };
        let fits = key.len() == integrity.key_len();
        fits.then(|| Self { key: Key::new(algorithm, key), icv_len: integrity.icv_len() })
    }

    /// Octets of ICV.
    pub(super) fn len(&self) -> usize {
        self.icv_len
    }

    /// Writes the ICV at the end of `packet`, computed over all before it and `implicit`. `None` when it does not fit.
    pub(super) fn append(&self, packet: &mut [u8], implicit: &[u8]) -> Option<()> {
        let (covered, icv) = packet.split_at_mut_checked(packet.len().checked_sub(self.icv_len)?)?;
        icv.copy_from_slice(self.tag(covered, implicit).as_ref().get(..self.icv_len)?);
        Some(())
    }

    /// Compares the ICV at the end of `packet` in constant time.
    ///
    /// # Errors
    /// [`DropReason::BadIcv`], and [`DropReason::Short`] for a packet shorter than its ICV.
    pub(super) fn verify(&self, packet: &[u8], implicit: &[u8]) -> Result<(), DropReason> {
        let covered_len = packet.len().checked_sub(self.icv_len).ok_or(DropReason::Short)?;
        let (covered, icv) = packet.split_at_checked(covered_len).ok_or(DropReason::Short)?;
        let tag = self.tag(covered, implicit);
        let expected = tag.as_ref().get(..self.icv_len).ok_or(DropReason::BadIcv)?;
        verify_slices_are_equal(expected, icv).map_err(|_| DropReason::BadIcv)
    }

    fn tag(&self, covered: &[u8], implicit: &[u8]) -> Tag {
        let mut context = Context::with_key(&self.key);
        context.update(covered);
        if !implicit.is_empty() {
            context.update(implicit);
        }
        context.sign()
    }
}
