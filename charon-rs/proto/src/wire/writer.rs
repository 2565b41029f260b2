//! Lengths and counts that are known only when what they are about is written.

use super::error::WireError;
use super::header::LENGTH_AT;
use super::payload_type::PayloadType;

/// Sets the length of a structure that goes from `start` to the end of `out`. Payloads, proposals and transforms all
/// have it in the third and fourth octet.
pub(super) fn set_length(out: &mut [u8], payload: PayloadType, start: usize) -> Result<(), WireError> {
    let length = octets_from(out, payload, start)?;
    put(out, start.saturating_add(2), &length.to_be_bytes());
    Ok(())
}

/// Sets the length in the IKE header, which stands at the start of `out`. UDP carries no more than 16 bits of it.
pub(super) fn set_message_length(out: &mut [u8]) -> Result<(), WireError> {
    let length = octets_from(out, PayloadType::None, 0)?;
    put(out, LENGTH_AT, &u32::from(length).to_be_bytes());
    Ok(())
}

/// `count` as the one octet that the format has for it.
pub(super) fn count_octet(payload: PayloadType, what: &'static str, count: usize) -> Result<u8, WireError> {
    let limit = usize::from(u8::MAX);
    u8::try_from(count).map_err(|_| WireError::TooLong { payload, what, found: count, limit })
}

fn octets_from(out: &[u8], payload: PayloadType, start: usize) -> Result<u16, WireError> {
    let found = out.len().saturating_sub(start);
    let limit = usize::from(u16::MAX);
    u16::try_from(found).map_err(|_| WireError::TooLong { payload, what: "octets", found, limit })
}

fn put(out: &mut [u8], at: usize, octets: &[u8]) {
    for (place, &octet) in out.iter_mut().skip(at).zip(octets) {
        *place = octet;
    }
}
