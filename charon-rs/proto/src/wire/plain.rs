//! A message with an Encrypted payload, before it is encrypted or after it was decrypted.

use super::chain::{encode_chain, first_type, parse_chain};
use super::error::WireError;
use super::header::Header;
use super::payload::Payload;
use super::payload_type::PayloadType;
use super::writer::{set_length, set_message_length};

/// A message whose Encrypted payload has nothing in it but payloads: no IV, no padding and no checksum, as if nobody
/// had to encrypt or to fragment it. Its lengths are those of what is there.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~           IKE header and any payloads in clear                ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ <-- content
/// ~                           Payloads                            ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PlainMessage {
    octets: Vec<u8>,
    content: usize,
}

/// Octets of the generic header of the Encrypted payload.
pub(super) const GENERIC_HEADER_LEN: usize = 4;

impl PlainMessage {
    /// A message whose `payloads` are all inside its Encrypted payload.
    ///
    /// # Errors
    /// [`WireError::TooLong`] when a payload or the message does not fit in its length field.
    pub fn new(header: &Header, payloads: &[Payload]) -> Result<Self, WireError> {
        let mut octets = Vec::with_capacity(TYPICAL_MESSAGE);
        header.encode(PayloadType::Encrypted, &mut octets);
        octets.extend_from_slice(&[first_type(payloads).number(), 0, 0, 0]);
        let content = octets.len();
        encode_chain(payloads, &mut octets)?;
        Self::with_lengths(octets, content)
    }

    /// Puts a message together of what stood before its content, generic header of the Encrypted payload included, and
    /// the content.
    pub(super) fn assemble<'a>(before: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> Result<Self, WireError> {
        let mut octets = before.to_vec();
        parts.for_each(|part| octets.extend_from_slice(part));
        Self::with_lengths(octets, before.len())
    }

    fn with_lengths(mut octets: Vec<u8>, content: usize) -> Result<Self, WireError> {
        set_length(&mut octets, PayloadType::Encrypted, content.saturating_sub(GENERIC_HEADER_LEN))?;
        set_message_length(&mut octets)?;
        Ok(Self { octets, content })
    }

    /// Parses the payloads that were inside the Encrypted payload. Offsets in errors count from the first of them.
    ///
    /// # Errors
    /// A [`WireError`]: what is wrong and where.
    pub fn payloads(&self) -> Result<Vec<Payload>, WireError> {
        parse_chain(self.first(), self.content(), 0)
    }

    /// All of it: what IntAuth authenticates of an IKE_INTERMEDIATE message, `IntAuth_A | IntAuth_P` (RFC 9242 §3.3.2,
    /// R9242-3.3.2-1).
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// What stands before the content.
    pub(super) fn before(&self) -> &[u8] {
        self.octets.get(..self.content).unwrap_or_default()
    }

    /// The payloads inside the Encrypted payload, as octets.
    pub(super) fn content(&self) -> &[u8] {
        self.octets.get(self.content..).unwrap_or_default()
    }

    /// The type of the first payload inside, which the generic header of the Encrypted payload tells.
    fn first(&self) -> PayloadType {
        let at = self.content.saturating_sub(GENERIC_HEADER_LEN);
        PayloadType::from_number(self.octets.get(at).copied().unwrap_or_default())
    }
}

/// Room that most messages do with.
const TYPICAL_MESSAGE: usize = 512;
