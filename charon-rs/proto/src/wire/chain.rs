//! Chains of payloads: generic headers (RFC 7296 §3.2).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  |C|  RESERVED   |         Payload Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::error::WireError;
use super::payload::{MAX_PAYLOADS, Payload};
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::writer::set_length;

/// Octets of the generic header, which the payload's length counts.
const GENERIC_HEADER_LEN: u16 = 4;

const FLAG_CRITICAL: u8 = 0x80;

/// Goes along a chain.
pub(super) struct Chain<'a> {
    next: PayloadType,
    reader: Reader<'a>,
    seen: usize,
}

/// A payload whose body was not looked into.
pub(super) struct RawPayload<'a> {
    /// Where its generic header begins.
    pub(super) offset: usize,
    /// Its body, marked with its type.
    pub(super) body: Reader<'a>,
}

impl<'a> Chain<'a> {
    /// The chain in `octets`, which stand at `offset` and begin with a payload of type `first`.
    pub(super) fn new(first: PayloadType, octets: &'a [u8], offset: usize) -> Self {
        Self { next: first, reader: Reader::new(PayloadType::None, octets, offset), seen: 0 }
    }

    /// The next payload, or `None` after the last.
    ///
    /// Unknown types are an error if they are critical (R7296-2.5-4) and else are for the caller to skip (R7296-2.5-3).
    /// For known types the critical bit means nothing (R7296-3.2-1).
    pub(super) fn next(&mut self) -> Result<Option<RawPayload<'a>>, WireError> {
        let kind = self.next;
        if kind == PayloadType::None {
            self.reader.finish()?;
            return Ok(None);
        }
        let offset = self.reader.offset();
        if self.seen == MAX_PAYLOADS {
            let (payload, what, limit) = (PayloadType::None, "payloads", MAX_PAYLOADS);
            return Err(WireError::TooMany { payload, offset, what, limit });
        }
        self.seen = self.seen.saturating_add(1);
        let mut reader = self.reader.of(kind);
        let [next, flags] = reader.array()?;
        let stated = reader.u16()?;
        let Some(length) = stated.checked_sub(GENERIC_HEADER_LEN) else {
            return Err(reader.wrong(offset, "payload length", "at least 4 octets", stated));
        };
        let body = reader.part(usize::from(length))?;
        if flags & FLAG_CRITICAL != 0 && !kind.is_known() {
            return Err(WireError::UnsupportedCritical { payload: kind.number(), offset });
        }
        self.next = PayloadType::from_number(next);
        self.reader = reader.of(PayloadType::None);
        Ok(Some(RawPayload { offset, body }))
    }

    /// Whether octets are left.
    pub(super) fn is_at_end(&self) -> bool {
        self.reader.is_empty()
    }
}

/// Parses a chain in which no Encrypted payload may be.
pub(super) fn parse_chain(first: PayloadType, octets: &[u8], offset: usize) -> Result<Vec<Payload>, WireError> {
    let mut chain = Chain::new(first, octets, offset);
    let mut payloads = Vec::new();
    while let Some(raw) = chain.next()? {
        if matches!(raw.body.payload(), PayloadType::Encrypted | PayloadType::EncryptedFragment) {
            return Err(WireError::MisplacedEncrypted { offset: raw.offset });
        }
        payloads.push(Payload::parse(raw.body)?);
    }
    Ok(payloads)
}

/// Appends `payloads`, none of them critical (R7296-2.5-5).
pub(super) fn encode_chain(payloads: &[Payload], out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut rest = payloads;
    while let Some((payload, behind)) = rest.split_first() {
        let start = out.len();
        out.extend_from_slice(&[first_type(behind).number(), 0, 0, 0]);
        payload.encode(out)?;
        set_length(out, payload.kind(), start)?;
        rest = behind;
    }
    Ok(())
}

/// What goes into the Next Payload field before `payloads`.
pub(super) fn first_type(payloads: &[Payload]) -> PayloadType {
    payloads.first().map_or(PayloadType::None, Payload::kind)
}
