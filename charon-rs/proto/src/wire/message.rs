//! A message as a whole (RFC 7296 §3, RFC 7383 §2.5).

use super::chain::{Chain, encode_chain, first_type};
use super::error::WireError;
use super::header::{HEADER_LEN, Header, NEXT_PAYLOAD_AT, parse_header};
use super::payload::Payload;
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::writer::set_message_length;

/// What can be read of a message without keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header.
    pub header: Header,
    /// The payloads in clear, in the order in which they came. Nothing is said about their origin, not even next to an
    /// Encrypted payload that proves authentic later: they are covered by its checksum, but no exchange has a use for
    /// them there.
    pub payloads: Vec<Payload>,
    /// The Encrypted payload, which is always the last.
    pub encrypted: Option<Encrypted>,
}

/// Where the Encrypted payload of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Where in the datagram the octet is that tells that the payload is an Encrypted one.
    pub kind_at: usize,
    /// Where in the datagram the IV begins, and the associated data ends.
    pub body: usize,
    /// For an Encrypted Fragment payload (RFC 7383): which of how many.
    pub fragment: Option<Fragment>,
}

/// The place of an Encrypted Fragment among its siblings (RFC 7383 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its number, from 1.
    pub number: u16,
    /// How many they are, not less than `number`.
    pub total: u16,
}

impl Message {
    /// Parses a datagram, without the non-ESP marker, as far as this goes without keys.
    ///
    /// # Errors
    /// A [`WireError`]: what is wrong and where. Nothing authenticates any of it yet.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let (header, first) = parse_header(datagram)?;
        let octets = datagram.get(HEADER_LEN..).unwrap_or_default();
        let mut chain = Chain::new(first, octets, HEADER_LEN);
        let (mut payloads, mut kind_at) = (Vec::new(), NEXT_PAYLOAD_AT);
        while let Some(raw) = chain.next()? {
            let kind = raw.body.payload();
            if !matches!(kind, PayloadType::Encrypted | PayloadType::EncryptedFragment) {
                payloads.push(Payload::parse(raw.body)?);
                kind_at = raw.offset;
                continue;
            }
            // R7296-3.1-1. The Next Payload field belongs to what is inside, so only the length tells.
            if !chain.is_at_end() {
                return Err(WireError::MisplacedEncrypted { offset: raw.offset });
            }
            let mut body = raw.body;
            let fragmented = kind == PayloadType::EncryptedFragment;
            let fragment = fragmented.then(|| Fragment::parse(&mut body)).transpose()?;
            let encrypted = Some(Encrypted { kind_at, body: body.offset(), fragment });
            return Ok(Self { header, payloads, encrypted });
        }
        Ok(Self { header, payloads, encrypted: None })
    }
}

impl Fragment {
    /// Both numbers must make sense (R7383-2.6-1).
    ///
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |        Fragment Number        |        Total Fragments        |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let offset = body.offset();
        let (number, total) = (body.u16()?, body.u16()?);
        if number == 0 || number > total {
            return Err(body.wrong(offset, "fragment number", "1 to the number of fragments", number));
        }
        Ok(Self { number, total })
    }
}

/// Encodes a message in clear.
///
/// # Errors
/// [`WireError::TooLong`] when something does not fit in its length field.
pub fn encode_message(header: &Header, payloads: &[Payload]) -> Result<Vec<u8>, WireError> {
    let mut message = Vec::with_capacity(HEADER_LEN);
    header.encode(first_type(payloads), &mut message);
    encode_chain(payloads, &mut message)?;
    set_message_length(&mut message)?;
    Ok(message)
}
