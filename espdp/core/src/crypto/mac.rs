//! The integrity beside CBC, counter mode and NULL: HMAC with truncation (RFC 2404, RFC 4868), AES-CMAC-96 (RFC 4494).

use aes::Aes128;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512, Key};
use cmac::digest::KeyInit;
use cmac::{Cmac, Mac as _};
use espdp_api::EspIntegrity;

use crate::DropReason;

/// A keyed MAC.
#[derive(Debug)]
pub(super) struct Mac {
    keyed: Keyed,
    icv_len: usize,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the long one is the common one")]
enum Keyed {
    Hmac(Key),
    Cmac(Box<Cmac<Aes128>>),
}

impl Mac {
    /// `None` for no integrity at all, or a key of the wrong length.
    pub(super) fn new(integrity: EspIntegrity, key: &[u8]) -> Option<Self> {
        if key.len() != integrity.key_len() {
            return None;
        }
        let keyed = match integrity {
            EspIntegrity::None => return None,
            EspIntegrity::HmacSha1_96 => Keyed::Hmac(Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key)),
            EspIntegrity::HmacSha2_256_128 => Keyed::Hmac(Key::new(HMAC_SHA256, key)),
            EspIntegrity::HmacSha2_384_192 => Keyed::Hmac(Key::new(HMAC_SHA384, key)),
            EspIntegrity::HmacSha2_512_256 => Keyed::Hmac(Key::new(HMAC_SHA512, key)),
            EspIntegrity::AesCmac96 => Keyed::Cmac(Box::new(Cmac::new_from_slice(key).ok()?)),
        };
        Some(Self { keyed, icv_len: integrity.icv_len() })
    }

    /// Octets of ICV.
    pub(super) fn len(&self) -> usize {
        self.icv_len
    }

    /// Writes the ICV at the end of `packet`, computed over all before it and `implicit`. `None` when it does not fit.
    pub(super) fn append(&self, packet: &mut [u8], implicit: &[u8]) -> Option<()> {
        let (covered, place) = packet.split_at_mut_checked(packet.len().checked_sub(self.icv_len)?)?;
        place.copy_from_slice(self.icv_over(covered, implicit).as_ref());
        Some(())
    }

    /// Compares the ICV at the end of `packet` in constant time.
    ///
    /// # Errors
    /// [`DropReason::BadIcv`], and [`DropReason::Short`] for a packet shorter than its ICV.
    pub(super) fn verify(&self, packet: &[u8], implicit: &[u8]) -> Result<(), DropReason> {
        let covered_len = packet.len().checked_sub(self.icv_len).ok_or(DropReason::Short)?;
        let (covered, received) = packet.split_at_checked(covered_len).ok_or(DropReason::Short)?;
        verify_slices_are_equal(self.icv_over(covered, implicit).as_ref(), received).map_err(|_| DropReason::BadIcv)
    }

    /// Computes the ICV over what `cover` hands out, piece by piece. `None` when `cover` gives up.
    pub(super) fn icv(&self, cover: impl FnOnce(&mut dyn FnMut(&[u8])) -> Option<()>) -> Option<Icv> {
        match &self.keyed {
            Keyed::Hmac(key) => {
                let mut context = Context::with_key(key);
                cover(&mut |piece| context.update(piece))?;
                Some(Icv::new(context.sign().as_ref(), self.icv_len))
            }
            Keyed::Cmac(keyed) => {
                let mut cmac = Cmac::clone(keyed);
                cover(&mut |piece| cmac.update(piece))?;
                Some(Icv::new(&cmac.finalize().into_bytes(), self.icv_len))
            }
        }
    }

    fn icv_over(&self, covered: &[u8], implicit: &[u8]) -> Icv {
        let cover = |feed: &mut dyn FnMut(&[u8])| {
            feed(covered);
            if !implicit.is_empty() {
                feed(implicit);
            }
            Some(())
        };
        self.icv(cover).unwrap_or_default()
    }
}

/// A tag, cut to the length of an ICV.
#[derive(Default)]
pub(super) struct Icv {
    octets: [u8; Self::ROOM],
    len: usize,
}

impl Icv {
    /// Octets of the longest ICV, that of HMAC-SHA2-512-256.
    const ROOM: usize = 32;

    fn new(tag: &[u8], len: usize) -> Self {
        let mut icv = Self { octets: [0; Self::ROOM], len };
        for (octet, from) in icv.octets.iter_mut().zip(tag) {
            *octet = *from;
        }
        icv
    }
}

impl AsRef<[u8]> for Icv {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or(&self.octets)
    }
}
