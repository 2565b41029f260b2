//! The Encrypted payload (RFC 7296 §3.14, RFC 5282 §3).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~           IKE header and any payloads in clear                ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  |C|  RESERVED   |         Payload Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ <-- body
//! ~                     Initialization Vector                     ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~       Payloads, Padding (0 to 255 octets), Pad Length         ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                    Integrity Checksum Data                    ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! All octets before *body* are the associated data of an AEAD (RFC 5282 §5.1); a MAC goes over everything before the
//! checksum.

use super::chain::{encode_chain, first_type, parse_chain};
use super::error::WireError;
use super::header::{HEADER_LEN, Header};
use super::message::Encrypted;
use super::payload::Payload;
use super::payload_type::PayloadType;
use super::writer::{set_length, set_message_length};
use crate::SecureRandom;

/// The ciphers and keys for one direction of an IKE SA, as Encrypted payloads need them.
pub trait MessageProtection {
    /// Octets of the IV field.
    fn iv_len(&self) -> usize;

    /// What is encrypted, pad length octet included, is a multiple of this many octets; at least 1.
    fn block_len(&self) -> usize;

    /// Octets of the Integrity Checksum Data.
    fn icv_len(&self) -> usize;

    /// Protects a message in place. The message has its final length; `body` is where the IV field begins, so that
    /// `message[..body]` is the associated data. Between the IV field and the checksum, both still zero, stand the
    /// payloads with their padding. The call sets the IV, encrypts and sets the checksum.
    fn seal(&mut self, random: &mut dyn SecureRandom, message: &mut [u8], body: usize);

    /// Checks a message, whose IV field begins at `body` and which is the datagram exactly as received, and returns
    /// what was encrypted, padding included. What is encrypted is at least one octet and a multiple of
    /// [`Self::block_len`]: the caller has checked it.
    ///
    /// # Errors
    /// [`Inauthentic`] when the checksum does not fit.
    fn open(&self, message: &[u8], body: usize) -> Result<Vec<u8>, Inauthentic>;
}

/// The checksum of a message does not fit: nobody knows who sent it or what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the integrity check failed")]
pub struct Inauthentic;

/// Why an Encrypted payload gave no payloads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnprotectError {
    /// The message is not from the peer, or was damaged: nothing may come of it.
    #[error(transparent)]
    Inauthentic(#[from] Inauthentic),
    /// The message is from the peer, and malformed: the peer may be told (RFC 7296 §2.21.2).
    #[error(transparent)]
    Malformed(#[from] WireError),
}

/// Encodes a message whose `payloads` are all inside its Encrypted payload.
///
/// # Errors
/// [`WireError::TooLong`] when a payload or the message does not fit in its length field.
pub fn protect(
    header: &Header,
    payloads: &[Payload],
    protection: &mut dyn MessageProtection,
    random: &mut dyn SecureRandom,
) -> Result<Vec<u8>, WireError> {
    let mut message = Vec::with_capacity(TYPICAL_MESSAGE);
    header.encode(PayloadType::Encrypted, &mut message);
    message.extend_from_slice(&[first_type(payloads).number(), 0, 0, 0]);
    let body = message.len();
    append_zeros(&mut message, protection.iv_len());
    let plain = message.len();
    encode_chain(payloads, &mut message)?;
    pad(&mut message, plain, protection.block_len());
    append_zeros(&mut message, protection.icv_len());
    set_length(&mut message, PayloadType::Encrypted, HEADER_LEN)?;
    set_message_length(&mut message)?;
    protection.seal(random, &mut message, body);
    Ok(message)
}

/// Checks and decrypts the Encrypted payload of `datagram`, which [`super::Message::parse`] found there, and parses the
/// payloads inside.
///
/// # Errors
/// [`UnprotectError::Inauthentic`] when the checksum does not fit or the payload has no room for one, and
/// [`UnprotectError::Malformed`] when what was decrypted is wrong.
pub fn unprotect(
    datagram: &[u8],
    encrypted: &Encrypted,
    protection: &dyn MessageProtection,
) -> Result<Vec<Payload>, UnprotectError> {
    let overhead = protection.iv_len().saturating_add(protection.icv_len());
    let cipher_len = datagram.len().saturating_sub(encrypted.body).saturating_sub(overhead);
    if cipher_len == 0 || !cipher_len.is_multiple_of(protection.block_len().max(1)) {
        return Err(Inauthentic.into());
    }
    let plain = protection.open(datagram, encrypted.body)?;
    let payloads = strip_padding(&plain)?;
    Ok(parse_chain(encrypted.first, payloads, 0)?)
}

/// Room that most messages do with.
const TYPICAL_MESSAGE: usize = 512;

/// Appends padding and pad length, so that what begins at `plain` becomes a multiple of `block` octets.
fn pad(message: &mut Vec<u8>, plain: usize, block: usize) {
    let unpadded = message.len().saturating_sub(plain).saturating_add(1);
    let padding = unpadded.next_multiple_of(block.max(1)).saturating_sub(unpadded);
    append_zeros(message, padding);
    message.push(u8::try_from(padding).unwrap_or(u8::MAX));
}

fn append_zeros(message: &mut Vec<u8>, count: usize) {
    message.resize(message.len().saturating_add(count), 0);
}

/// What stands before the padding. Any length of padding that fits is right (RFC 7296 §3.14).
fn strip_padding(plain: &[u8]) -> Result<&[u8], WireError> {
    let (&pad_length, before) = plain.split_last().unwrap_or((&0, &[]));
    let end = before.len().checked_sub(usize::from(pad_length));
    end.and_then(|end| before.get(..end)).ok_or(WireError::Field {
        payload: PayloadType::Encrypted,
        offset: before.len(),
        field: "pad length",
        expected: "no more than what was encrypted",
        found: u64::from(pad_length),
    })
}
