//! Fragments, against a reassembly that was written another time.

use std::collections::BTreeMap;

use ike_proto::crypto::protection::MessageCipher;
use ike_proto::io::IkeSpi;
use ike_proto::proposal::{ike_offer, negotiate_ike, parse_ike_list};
use ike_proto::testing::SeededRandom;
use ike_proto::wire::{
    Added, ExchangeType, HEADER_LEN, Header, MAX_FRAGMENTS, Message, MessageKind, MessageProtection, Payload,
    PayloadType, PlainMessage, Reassembly, Role, encode_message,
};

use crate::cursor::{Cursor, counted};

/// The input is how a message is cut, and for each of the peer's fragments its message, its number, their total, the type
/// of what is inside and its content behind its count.
pub(crate) fn run(input: &[u8]) {
    let mut input = Cursor::new(input);
    let Some(mut cipher) = cipher() else { return };
    round_trip(input.octet(), input, &mut cipher);
    let mut reassembly = Reassembly::default();
    let mut model = Model::default();
    while !input.is_empty() {
        let message_id = u32::from(input.octet() % 3);
        let (number, total, first) = (input.short(), input.short(), input.octet());
        let content = input.counted();
        let datagram = fragment(message_id, (number, total), first, content, &mut cipher);
        // What is parsed but has impossible numbers is dropped there.
        let Ok(message) = Message::parse(&datagram) else {
            assert!(number == 0 || number > total, "{number} of {total} was refused");
            continue;
        };
        let Some((encrypted, fragment)) = message.encrypted.and_then(|found| Some((found, found.fragment?))) else {
            continue;
        };
        let added = reassembly.add(&datagram, &message, (&encrypted, fragment), &cipher);
        let expected = model.add(message_id, number, total, content);
        match (added, expected) {
            (Ok(Added::Complete { message, .. }), Expected::Complete(content)) => {
                assert!(message.octets().ends_with(&content), "the content is not that of the fragments");
                drop(message.payloads());
            }
            (Ok(Added::Kept), Expected::Kept) | (Ok(Added::Ignored), Expected::Ignored) => {}
            (Err(_), Expected::TooLong) => model = Model::default(),
            (added, expected) => {
                let is = added.map(|added| matches!(added, Added::Complete { .. }));
                panic!("fragment {number} of {total}: {expected:?} was expected, completes: {is:?}");
            }
        }
        assert_eq!(reassembly.is_empty(), model.contents.is_empty());
    }
}

/// A fragment of [`run`].
pub(crate) fn record(message_id: u8, (number, total): (u16, u16), first: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![message_id];
    record.extend(number.to_be_bytes());
    record.extend(total.to_be_bytes());
    record.push(first);
    record.extend(counted(content));
    record
}

/// Whatever is cut and put together, in whatever order, is the same.
fn round_trip(how: u8, mut input: Cursor<'_>, cipher: &mut MessageCipher) {
    let body = input.rest().to_vec();
    let Ok(plain) = PlainMessage::new(&header(1), &[Payload::VendorId(body)]) else { return };
    let longest = 100 + 10 * usize::from(how);
    let mut packets = plain.seal_in_fragments(longest, cipher, &mut SeededRandom::new(1)).unwrap_or_default();
    if how.is_multiple_of(2) {
        packets.reverse();
    }
    assert!(packets.iter().all(|packet| packet.len() <= longest.max(150)), "a fragment is longer than it may be");
    let mut reassembly = Reassembly::default();
    let mut whole = None;
    for packet in &packets {
        let Ok(message) = Message::parse(packet) else { panic!("a fragment of ours is malformed") };
        let Some((encrypted, fragment)) = message.encrypted.and_then(|found| Some((found, found.fragment?))) else {
            panic!("a fragment of ours is none");
        };
        if let Ok(Added::Complete { message, .. }) = reassembly.add(packet, &message, (&encrypted, fragment), cipher) {
            whole = Some(message);
        }
    }
    assert!(whole.is_some_and(|whole| whole == plain), "what was cut does not come back");
}

/// What RFC 7383 §2.6 says, as plainly as it can be written.
#[derive(Default)]
struct Model {
    message_id: u32,
    total: u16,
    contents: BTreeMap<u16, Vec<u8>>,
}

#[derive(Debug)]
enum Expected {
    Ignored,
    Kept,
    Complete(Vec<u8>),
    TooLong,
}

impl Model {
    fn add(&mut self, message_id: u32, number: u16, total: u16, content: &[u8]) -> Expected {
        let same = self.message_id == message_id && !self.contents.is_empty();
        if total > MAX_FRAGMENTS
            || same && (total < self.total || total == self.total && self.contents.contains_key(&number))
        {
            return Expected::Ignored;
        }
        if !same || total > self.total {
            *self = Self { message_id, total, contents: BTreeMap::new() };
        }
        self.contents.insert(number, content.to_vec());
        let before = if self.contents.contains_key(&1) { HEADER_LEN + 4 } else { 0 };
        if before + self.contents.values().map(Vec::len).sum::<usize>() > 0xffff {
            return Expected::TooLong;
        }
        if self.contents.len() < usize::from(total) {
            return Expected::Kept;
        }
        Expected::Complete(std::mem::take(&mut self.contents).into_values().flatten().collect())
    }
}

fn header(message_id: u32) -> Header {
    Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::IkeAuth,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id,
    }
}

fn cipher() -> Option<MessageCipher> {
    let proposals = parse_ike_list("aes128gcm16-prfsha256-x25519").ok()?;
    let suite = negotiate_ike(&proposals, &ike_offer(&proposals, None)).ok()?.suite;
    MessageCipher::new(suite, &vec![3; 20].into(), &vec![].into()).ok()
}

/// A protected fragment, right in all but what the input says.
fn fragment(
    message_id: u32,
    (number, total): (u16, u16),
    first: u8,
    content: &[u8],
    cipher: &mut MessageCipher,
) -> Vec<u8> {
    let mut datagram = encode_message(&header(message_id), &[]).unwrap_or_default();
    let payload = 4 + 4 + cipher.iv_len() + content.len() + 1 + cipher.icv_len();
    datagram.splice(16..17, [PayloadType::EncryptedFragment.number()]);
    datagram.extend([first, 0]);
    datagram.extend(u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes());
    datagram.extend(number.to_be_bytes());
    datagram.extend(total.to_be_bytes());
    let body = datagram.len();
    datagram.resize(body + cipher.iv_len(), 0);
    datagram.extend(content);
    datagram.push(0);
    datagram.resize(datagram.len() + cipher.icv_len(), 0);
    let length = u32::try_from(datagram.len()).unwrap_or_default();
    datagram.splice(24..28, length.to_be_bytes());
    cipher.seal(&mut SeededRandom::new(1), &mut datagram, body);
    datagram
}
