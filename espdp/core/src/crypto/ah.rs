//! The ICV of the Authentication Header (RFC 4302 §3.3.3, §3.4.4).

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::mac::{Icv, Mac};
use crate::DropReason;
use crate::ah::Place;

/// Fills in the ICV of a packet, which reaches from its IP header to its end. `implicit` is covered behind it. `None` when there is
/// no AH in it with room for the ICV.
pub(super) fn seal(mac: &Mac, packet: &mut [u8], implicit: &[u8]) -> Option<()> {
    let place = Place::find(packet)?;
    let icv = icv(mac, place, packet, implicit)?;
    place.icv(packet, mac.len())?.copy_from_slice(icv.as_ref());
    Some(())
}

/// Compares the ICV of a packet in constant time (R4302-3.4.4-1).
///
/// # Errors
/// [`DropReason::BadIcv`], and [`DropReason::Short`] when there is no AH in it with room for the ICV.
pub(super) fn verify(mac: &Mac, packet: &mut [u8], implicit: &[u8]) -> Result<(), DropReason> {
    let place = Place::find(packet).ok_or(DropReason::Short)?;
    let icv = icv(mac, place, packet, implicit).ok_or(DropReason::Short)?;
    let received = place.icv(packet, mac.len()).ok_or(DropReason::Short)?;
    verify_slices_are_equal(icv.as_ref(), received).map_err(|_| DropReason::BadIcv)
}

fn icv(mac: &Mac, place: Place, packet: &[u8], implicit: &[u8]) -> Option<Icv> {
    mac.icv(|feed| {
        place.cover(packet, mac.len(), feed)?;
        feed(implicit);
        Some(())
    })
}
