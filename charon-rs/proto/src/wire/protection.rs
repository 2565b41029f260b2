//! The Encrypted payload (RFC 7296 §3.14, RFC 5282 §3) and its fragments (RFC 7383 §2.5).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~           IKE header and any payloads in clear                ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  |C|  RESERVED   |         Payload Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! :        Fragment Number        :        Total Fragments        : (only in fragments)
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
//! checksum. Each fragment is protected like a message of its own, around a part of the payloads.

use super::error::WireError;
use super::header::{HEADER_LEN, NEXT_PAYLOAD_AT};
use super::message::{Encrypted, Fragment};
use super::payload_type::PayloadType as P;
use super::plain::{GENERIC_HEADER_LEN, PlainMessage};
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

impl PlainMessage {
    /// Encrypts the message as a whole.
    ///
    /// # Errors
    /// [`WireError::TooLong`] when it does not fit in its length field.
    pub fn seal(
        &self,
        protection: &mut dyn MessageProtection,
        random: &mut dyn SecureRandom,
    ) -> Result<Vec<u8>, WireError> {
        let start = self.before().len().saturating_sub(GENERIC_HEADER_LEN);
        seal_content(self.before().to_vec(), start, self.content(), protection, random)
    }

    /// Octets of the message when it is encrypted as a whole.
    pub fn sealed_len(&self, protection: &dyn MessageProtection) -> usize {
        let padded = self.content().len().saturating_add(1).next_multiple_of(protection.block_len().max(1));
        let overhead = protection.iv_len().saturating_add(protection.icv_len());
        self.before().len().saturating_add(padded).saturating_add(overhead)
    }

    /// Encrypts the message, which has no payloads in clear, in fragments (RFC 7383 §2.5). None has more than `longest`
    /// octets, IKE header included, unless that leaves next to no room for content.
    ///
    /// # Errors
    /// [`WireError::TooLong`] when a fragment does not fit in its length field.
    pub fn seal_in_fragments(
        &self,
        longest: usize,
        protection: &mut dyn MessageProtection,
        random: &mut dyn SecureRandom,
    ) -> Result<Vec<Vec<u8>>, WireError> {
        let parts = [self.before().len(), FRAGMENT_NUMBERS_LEN, protection.iv_len(), protection.icv_len()];
        let room = parts.into_iter().fold(longest, usize::saturating_sub);
        let blocks = room.saturating_sub(room.checked_rem(protection.block_len()).unwrap_or_default());
        // One octet is for the pad length.
        let size = blocks.saturating_sub(1).max(LEAST_CONTENT);
        let count = self.content().len().div_ceil(size).max(1);
        let (what, limit) = ("fragments", usize::from(u16::MAX));
        let total =
            u16::try_from(count).map_err(|_| WireError::TooLong { payload: P::None, what, found: count, limit })?;
        let mut chunks = self.content().chunks(size);
        (1..=total)
            .map(|number| {
                let before = self.before_fragment(Fragment { number, total });
                seal_content(before, HEADER_LEN, chunks.next().unwrap_or_default(), protection, random)
            })
            .collect()
    }

    /// The header of the message, and that of an Encrypted Fragment payload. Only the first one tells the type of the
    /// first payload inside (R7383-2.5-1).
    fn before_fragment(&self, fragment: Fragment) -> Vec<u8> {
        let mut before = self.before().to_vec();
        if let Some(kind) = before.get_mut(NEXT_PAYLOAD_AT) {
            *kind = P::EncryptedFragment.number();
        }
        if let Some(next) = before.get_mut(HEADER_LEN).filter(|_| fragment.number > 1) {
            *next = P::None.number();
        }
        before.extend_from_slice(&fragment.number.to_be_bytes());
        before.extend_from_slice(&fragment.total.to_be_bytes());
        before
    }

    /// Checks and decrypts `datagram`, whose Encrypted payload [`super::Message::parse`] found there; it is no fragment.
    ///
    /// # Errors
    /// [`UnprotectError::Inauthentic`] when the checksum does not fit or the payload has no room for one, and
    /// [`UnprotectError::Malformed`] when what was decrypted is wrong.
    pub fn open(
        datagram: &[u8],
        encrypted: &Encrypted,
        protection: &dyn MessageProtection,
    ) -> Result<Self, UnprotectError> {
        let content = open_content(datagram, encrypted, protection)?;
        let before = datagram.get(..encrypted.body).unwrap_or_default();
        Ok(Self::assemble(before, std::iter::once(content.as_slice()))?)
    }
}

/// What was inside an Encrypted or Encrypted Fragment payload, without padding.
pub(super) fn open_content(
    datagram: &[u8],
    encrypted: &Encrypted,
    protection: &dyn MessageProtection,
) -> Result<Vec<u8>, UnprotectError> {
    let overhead = protection.iv_len().saturating_add(protection.icv_len());
    let cipher_len = datagram.len().saturating_sub(encrypted.body).saturating_sub(overhead);
    if cipher_len == 0 || !cipher_len.is_multiple_of(protection.block_len().max(1)) {
        return Err(Inauthentic.into());
    }
    let mut plain = protection.open(datagram, encrypted.body)?;
    let content = strip_padding(&plain)?.len();
    plain.truncate(content);
    Ok(plain)
}

/// Appends `content` to what stands before it, in the payload that begins at `start`, and encrypts it.
fn seal_content(
    mut message: Vec<u8>,
    start: usize,
    content: &[u8],
    protection: &mut dyn MessageProtection,
    random: &mut dyn SecureRandom,
) -> Result<Vec<u8>, WireError> {
    let body = message.len();
    append_zeros(&mut message, protection.iv_len());
    let plain = message.len();
    message.extend_from_slice(content);
    pad(&mut message, plain, protection.block_len());
    append_zeros(&mut message, protection.icv_len());
    set_length(&mut message, P::Encrypted, start)?;
    set_message_length(&mut message)?;
    protection.seal(random, &mut message, body);
    Ok(message)
}

/// Encodes a message with an Encrypted payload around `octets`, whatever they are; `first` is the type of what stands first.
#[cfg(test)]
pub(crate) fn protect_octets(
    header: &super::Header,
    (first, octets): (P, &[u8]),
    protection: &mut dyn MessageProtection,
    random: &mut dyn SecureRandom,
) -> Result<Vec<u8>, WireError> {
    let mut before = Vec::new();
    header.encode(P::Encrypted, &mut before);
    before.extend_from_slice(&[first.number(), 0, 0, 0]);
    seal_content(before, HEADER_LEN, octets, protection, random)
}

/// Octets of Fragment Number and Total Fragments.
pub(super) const FRAGMENT_NUMBERS_LEN: usize = 4;

/// A fragment has room for so many octets, however small it is to be: the longest message then has a thousand of them.
const LEAST_CONTENT: usize = 64;

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
        payload: P::Encrypted,
        offset: before.len(),
        field: "pad length",
        expected: "no more than what was encrypted",
        found: u64::from(pad_length),
    })
}

#[cfg(test)]
mod tests {
    use super::super::toy::Toy;
    use super::super::{ExchangeType, Header, Message, MessageKind, Notify, NotifyType, Payload, PayloadType, Role};
    use super::*;
    use crate::io::IkeSpi;
    use crate::testing::SeededRandom;

    const HEADER: Header = Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::Informational,
        sender: Role::OriginalResponder,
        kind: MessageKind::Response,
        message_id: 9,
    };

    fn sealed(payloads: &[Payload], block: usize) -> Vec<u8> {
        let plain = PlainMessage::new(&HEADER, payloads).unwrap();
        let datagram = plain.seal(&mut Toy { block }, &mut SeededRandom::new(1)).unwrap();
        assert_eq!(plain.sealed_len(&Toy { block }), datagram.len());
        datagram
    }

    fn opened(datagram: &[u8], block: usize) -> Result<Vec<Payload>, UnprotectError> {
        let message = Message::parse(datagram).map_err(UnprotectError::Malformed)?;
        let plain = PlainMessage::open(datagram, &message.encrypted.unwrap(), &Toy { block })?;
        Ok(plain.payloads()?)
    }

    /// A datagram with an Encrypted payload around `plain`, whatever that is.
    fn around(first: u8, plain: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        HEADER.encode(PayloadType::Encrypted, &mut datagram);
        datagram.extend([first, 0, 0, 0]);
        datagram.extend([0; 8]);
        datagram.extend(plain);
        datagram.extend([0; 2]);
        set_length(&mut datagram, PayloadType::Encrypted, HEADER_LEN).unwrap();
        set_message_length(&mut datagram).unwrap();
        Toy { block: 1 }.seal(&mut SeededRandom::new(1), &mut datagram, 32);
        datagram
    }

    #[test]
    fn what_is_protected_comes_back() {
        let payloads =
            [Payload::VendorId(b"vendor".to_vec()), Payload::Notify(Notify::new(NotifyType::InitialContact))];
        for block in [1, 4, 16] {
            for payloads in [&payloads[..], &payloads[..1], &[]] {
                let datagram = sealed(payloads, block);
                assert_eq!(opened(&datagram, block), Ok(payloads.to_vec()));
                assert_eq!((datagram.len() - 32 - 8 - 2) % block, 0);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_makes_a_message_inauthentic_or_malformed() {
        let datagram = sealed(&[Payload::VendorId(b"vendor".to_vec())], 4);
        for index in 0..datagram.len() {
            let mut damaged = datagram.clone();
            damaged[index] ^= 1;
            let header_or_chain_is_broken =
                Message::parse(&damaged).map_or(true, |message| message.encrypted.is_none());
            assert!(header_or_chain_is_broken || opened(&damaged, 4) == Err(UnprotectError::Inauthentic(Inauthentic)));
        }
    }

    #[test]
    fn payloads_in_clear_before_the_encrypted_one_are_associated_data() {
        // R5282-5.1-1
        let inner = around(0, &[0]);
        let mut datagram = inner[..28].to_vec();
        datagram[16] = PayloadType::VendorId.number();
        datagram.extend([PayloadType::Encrypted.number(), 0, 0, 5, b'v']);
        datagram.extend(&inner[28..]);
        set_message_length(&mut datagram).unwrap();
        let body = 28 + 5 + 4;
        datagram[body + 8] ^= 0x55;
        Toy { block: 1 }.seal(&mut SeededRandom::new(1), &mut datagram, body);
        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.encrypted.unwrap().body, body);
        assert_eq!(opened(&datagram, 1), Ok(vec![]));
    }

    #[test]
    fn short_packet_padding_longer_than_the_content_is_malformed() {
        for (plain, fits) in [(&[0][..], true), (&[9, 1], true), (&[1], false), (&[9, 9, 3], false), (&[255], false)] {
            let result = opened(&around(0, plain), 1);
            assert_eq!(result == Ok(vec![]), fits, "{plain:?}");
            assert!(
                fits || matches!(result, Err(UnprotectError::Malformed(WireError::Field { field: "pad length", .. })))
            );
        }
        // Any length of padding that fits is right, and any content.
        let plain = [&[0xee; 255][..], &[255]].concat();
        assert_eq!(opened(&around(0, &plain), 1), Ok(vec![]));
    }

    #[test]
    fn an_encrypted_payload_without_room_for_iv_and_checksum_is_inauthentic() {
        for content in 0..=10 {
            let mut datagram = around(0, &[0]);
            datagram.truncate(32 + content);
            set_length(&mut datagram, PayloadType::Encrypted, HEADER_LEN).unwrap();
            set_message_length(&mut datagram).unwrap();
            assert_eq!(opened(&datagram, 1), Err(UnprotectError::Inauthentic(Inauthentic)), "{content} octets");
        }
        assert_eq!(opened(&around(0, &[0; 5]), 4), Err(UnprotectError::Inauthentic(Inauthentic)), "half a block");
    }

    #[test]
    fn an_encrypted_payload_inside_another_is_malformed() {
        // R7296-3.1-1
        for kind in [46, 53] {
            let result = opened(&around(kind, &[0, 0, 0, 8, 1, 1, 1, 1, 0]), 1);
            assert_eq!(result, Err(UnprotectError::Malformed(WireError::MisplacedEncrypted { offset: 0 })));
        }
    }

    #[test]
    fn unknown_critical_payloads_inside_are_named() {
        // R7296-2.5-3, R7296-2.5-4
        let payload = |critical: u8| [0, critical, 0, 5, 7, 0];
        let error = WireError::UnsupportedCritical { payload: 200, offset: 0 };
        assert_eq!(opened(&around(200, &payload(0x80)), 1), Err(UnprotectError::Malformed(error)));
        let skipped = Payload::Opaque { kind: PayloadType::Other(200), body: vec![7] };
        assert_eq!(opened(&around(200, &payload(0)), 1), Ok(vec![skipped]));
    }

    #[test]
    fn a_truncated_payload_behind_a_good_checksum_is_malformed() {
        // R7296-2.21.2-1
        let result = opened(&around(PayloadType::VendorId.number(), &[0, 0, 0, 9, 1, 0]), 1);
        assert!(matches!(result, Err(UnprotectError::Malformed(WireError::Truncated { .. }))));
    }

    #[test]
    fn what_does_not_fit_in_the_length_field_is_not_sent() {
        let payloads = [Payload::VendorId(vec![0; 40_000]), Payload::VendorId(vec![0; 40_000])];
        let result = PlainMessage::new(&HEADER, &payloads);
        assert!(matches!(result.err(), Some(WireError::TooLong { .. })));
    }
}
