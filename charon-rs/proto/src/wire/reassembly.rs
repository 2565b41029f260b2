//! Putting fragments together (RFC 7383 §2.6).

use std::collections::BTreeMap;

use super::error::WireError;
use super::header::Header;
use super::message::{Encrypted, Fragment, Message};
use super::payload_type::PayloadType;
use super::plain::PlainMessage;
use super::protection::{FRAGMENT_NUMBERS_LEN, MessageProtection, UnprotectError, open_content};

/// Fragments of one message. All that a message can hold fits in a quarter of them on any path that lets 576 octets
/// through.
pub const MAX_FRAGMENTS: u16 = 512;

/// What has come of one message of the peer in fragments. There is room for one message: fragments of another one, or
/// more and smaller ones of the same, take the place of what was kept. It never holds more content than the longest
/// message has, 64 KiB, in no more than [`MAX_FRAGMENTS`] parts.
#[derive(Default)]
pub struct Reassembly {
    partial: Option<Partial>,
}

/// A message of which fragments are still to come.
struct Partial {
    header: Header,
    total: u16,
    /// What stands before the content of the whole message, which fragment 1 tells.
    before: Vec<u8>,
    contents: BTreeMap<u16, Vec<u8>>,
    /// Octets of `before` and `contents`.
    plain_octets: usize,
    /// Octets of the datagrams.
    wire_octets: usize,
}

/// What became of a fragment.
#[derive(PartialEq, Eq)]
pub enum Added {
    /// It is not from the peer, or it is of no use: nothing has changed.
    Ignored,
    /// It is kept until the others are there.
    Kept,
    /// It was the last one.
    Complete {
        /// The message, as if it had come whole.
        message: PlainMessage,
        /// How many fragments it had.
        fragments: u16,
        /// How many octets all their datagrams had.
        octets: usize,
    },
}

impl Reassembly {
    /// Takes `fragment` of the message in `datagram`, which `message` was parsed of. Only what the peer has protected is
    /// kept; what would be of no use is not even decrypted.
    ///
    /// # Errors
    /// A [`WireError`] about a fragment that is from the peer and malformed, or makes the message too long. Then nothing
    /// of the message is kept.
    pub fn add(
        &mut self,
        datagram: &[u8],
        message: &Message,
        (encrypted, fragment): (&Encrypted, Fragment),
        protection: &dyn MessageProtection,
    ) -> Result<Added, WireError> {
        let header = message.header;
        let same = self.partial.as_ref().filter(|partial| partial.header == header);
        if fragment.total > MAX_FRAGMENTS || same.is_some_and(|partial| !partial.lacks(fragment)) {
            return Ok(Added::Ignored);
        }
        let content = match open_content(datagram, encrypted, protection) {
            Ok(content) => content,
            Err(UnprotectError::Inauthentic(_)) => return Ok(Added::Ignored),
            Err(UnprotectError::Malformed(error)) => {
                self.partial = None;
                return Err(error);
            }
        };
        // R7383-2.6-2: more fragments than before means that the peer made them smaller, and begins anew.
        let goes_on = |partial: &Partial| partial.header == header && partial.total == fragment.total;
        let mut partial = self.partial.take().filter(goes_on).unwrap_or_else(|| Partial::new(header, fragment.total));
        if fragment.number == 1 {
            partial.set_before(before_whole(datagram, encrypted));
        }
        partial.plain_octets = partial.plain_octets.saturating_add(content.len());
        partial.wire_octets = partial.wire_octets.saturating_add(datagram.len());
        partial.contents.insert(fragment.number, content);
        if partial.plain_octets > LONGEST_MESSAGE {
            let (what, found, limit) = ("octets in fragments", partial.plain_octets, LONGEST_MESSAGE);
            return Err(WireError::TooLong { payload: PayloadType::EncryptedFragment, what, found, limit });
        }
        if partial.contents.len() < usize::from(fragment.total) {
            self.partial = Some(partial);
            return Ok(Added::Kept);
        }
        let parts = partial.contents.values().map(Vec::as_slice);
        let message = PlainMessage::assemble(&partial.before, parts)?;
        Ok(Added::Complete { message, fragments: fragment.total, octets: partial.wire_octets })
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none()
    }
}

impl Partial {
    fn new(header: Header, total: u16) -> Self {
        let (before, contents) = (Vec::new(), BTreeMap::new());
        Self { header, total, before, contents, plain_octets: 0, wire_octets: 0 }
    }

    /// Whether a fragment of the same message is news (R7383-2.6-1).
    fn lacks(&self, fragment: Fragment) -> bool {
        fragment.total > self.total || fragment.total == self.total && !self.contents.contains_key(&fragment.number)
    }

    fn set_before(&mut self, before: Vec<u8>) {
        self.plain_octets = self.plain_octets.saturating_add(before.len());
        self.before = before;
    }
}

/// What would stand before the content if the message were whole: what stands there in fragment 1, except for the type
/// of the Encrypted payload and the numbers of the fragment. What other fragments have there says nothing
/// (R7383-2.5-1).
fn before_whole(datagram: &[u8], encrypted: &Encrypted) -> Vec<u8> {
    let end = encrypted.body.saturating_sub(FRAGMENT_NUMBERS_LEN);
    let mut before = datagram.get(..end).unwrap_or_default().to_vec();
    if let Some(kind) = before.get_mut(encrypted.kind_at) {
        *kind = PayloadType::Encrypted.number();
    }
    before
}

/// What fits in the length fields of a message that is not fragmented.
const LONGEST_MESSAGE: usize = 0xffff;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::header::HEADER_LEN;
    use super::super::toy::Toy;
    use super::super::writer::{set_length, set_message_length};
    use super::super::{ExchangeType, Inauthentic, MessageKind, Payload, Role};
    use super::*;
    use crate::SecureRandom;
    use crate::io::IkeSpi;
    use crate::testing::SeededRandom;

    const HEADER: Header = Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::IkeAuth,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id: 1,
    };

    /// A message with so many octets of content.
    fn plain(octets: usize) -> PlainMessage {
        plain_as(HEADER, octets)
    }

    fn plain_as(header: Header, octets: usize) -> PlainMessage {
        let body = (0..octets - 4).map(|index| u8::try_from(index % 251).unwrap()).collect();
        PlainMessage::new(&header, &[Payload::VendorId(body)]).unwrap()
    }

    const BLOCK: usize = 4;

    fn fragments(message: &PlainMessage, longest: usize) -> Vec<Vec<u8>> {
        message.seal_in_fragments(longest, &mut Toy { block: BLOCK }, &mut SeededRandom::new(1)).unwrap()
    }

    /// Counts what is decrypted.
    struct Counting(Cell<usize>);

    impl MessageProtection for Counting {
        fn iv_len(&self) -> usize {
            Toy { block: BLOCK }.iv_len()
        }

        fn block_len(&self) -> usize {
            BLOCK
        }

        fn icv_len(&self) -> usize {
            Toy { block: BLOCK }.icv_len()
        }

        fn seal(&mut self, _: &mut dyn SecureRandom, _: &mut [u8], _: usize) {
            panic!("nothing is sent here");
        }

        fn open(&self, message: &[u8], body: usize) -> Result<Vec<u8>, Inauthentic> {
            self.0.set(self.0.get() + 1);
            Toy { block: BLOCK }.open(message, body)
        }
    }

    /// Gives a datagram to the reassembly; tells what came of it and whether it was decrypted.
    fn add(reassembly: &mut Reassembly, datagram: &[u8]) -> (Result<Added, WireError>, bool) {
        let counting = Counting(Cell::new(0));
        let message = Message::parse(datagram).unwrap();
        let encrypted = message.encrypted.unwrap();
        let added = reassembly.add(datagram, &message, (&encrypted, encrypted.fragment.unwrap()), &counting);
        (added, counting.0.get() > 0)
    }

    fn is_kept(reassembly: &mut Reassembly, datagram: &[u8]) -> bool {
        matches!(add(reassembly, datagram), (Ok(Added::Kept), true))
    }

    fn is_ignored_unread(reassembly: &mut Reassembly, datagram: &[u8]) -> bool {
        matches!(add(reassembly, datagram), (Ok(Added::Ignored), false))
    }

    fn completes(reassembly: &mut Reassembly, datagram: &[u8], expected: &PlainMessage) -> bool {
        matches!(add(reassembly, datagram).0, Ok(Added::Complete { message, .. }) if message == *expected)
    }

    /// A fragment made octet by octet: what stands before its numbers, the numbers and what is encrypted, padding
    /// included.
    fn fragment(before: &[u8], numbers: [u16; 2], encrypted: &[u8]) -> Vec<u8> {
        let mut datagram = before.to_vec();
        let start = datagram.len() - 4;
        datagram.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        let body = datagram.len();
        datagram.extend([0; 8]);
        datagram.extend(encrypted);
        datagram.extend([0; 2]);
        set_length(&mut datagram, PayloadType::EncryptedFragment, start).unwrap();
        set_message_length(&mut datagram).unwrap();
        Toy { block: BLOCK }.seal(&mut SeededRandom::new(1), &mut datagram, body);
        datagram
    }

    /// An IKE header and the generic header of an Encrypted Fragment payload.
    fn before(next: PayloadType) -> Vec<u8> {
        let mut before = Vec::new();
        HEADER.encode(PayloadType::EncryptedFragment, &mut before);
        before.extend([next.number(), 0, 0, 0]);
        before
    }

    /// R9242-3.3.2-1: what comes out is the message as it was before, to the octet.
    #[test]
    fn fragments_in_any_order_give_the_message_and_none_is_longer_than_it_may_be() {
        for (octets, longest) in [(40, 2000), (40, 130), (1000, 130), (1000, 200), (5000, 548), (60_000, 1252)] {
            let message = plain(octets);
            let mut packets = fragments(&message, longest);
            assert!(packets.iter().all(|packet| packet.len() <= longest), "{longest}");
            assert!(packets.len() == 1 || packets[0].len() + BLOCK > longest, "they are no shorter than they must be");
            let wire_octets: usize = packets.iter().map(Vec::len).sum();
            for turn in 0..2 {
                let mut reassembly = Reassembly::default();
                let last = packets.pop().unwrap();
                for packet in &packets {
                    assert!(is_kept(&mut reassembly, packet), "{octets} in {longest}, turn {turn}");
                }
                let Ok(Added::Complete { message: whole, fragments, octets }) = add(&mut reassembly, &last).0 else {
                    panic!("{octets} in {longest}, turn {turn}");
                };
                assert!(whole == message);
                assert_eq!((usize::from(fragments), octets), (packets.len() + 1, wire_octets));
                assert_eq!(whole.payloads(), message.payloads());
                packets.push(last);
                packets.reverse();
            }
        }
    }

    /// R7383-2.5-1.
    #[test]
    fn only_the_first_fragment_tells_what_is_inside_and_the_header_is_that_of_the_message() {
        let packets = fragments(&plain(1000), 200);
        assert!(packets.len() > 3);
        for (index, packet) in packets.iter().enumerate() {
            let expected = if index == 0 { PayloadType::VendorId } else { PayloadType::None };
            assert_eq!(packet[HEADER_LEN], expected.number());
            assert_eq!((packet[16], Message::parse(packet).unwrap().header), (53, HEADER));
        }
    }

    /// R7383-2.5-1: what a peer writes there in other fragments is of no account.
    #[test]
    fn the_next_payload_of_later_fragments_is_ignored() {
        let message = plain(8);
        let content = message.content().to_vec();
        let mut reassembly = Reassembly::default();
        let second = fragment(&before(PayloadType::Nonce), [2, 2], &[&content[4..], &[0, 0, 0, 3]].concat());
        assert!(is_kept(&mut reassembly, &second));
        let first = fragment(&before(PayloadType::VendorId), [1, 2], &[&content[..4], &[0, 0, 0, 3]].concat());
        assert!(completes(&mut reassembly, &first, &message));
    }

    /// RFC 7383 §2.5.3.
    #[test]
    fn payloads_in_clear_come_with_the_first_fragment_and_stay() {
        let mut clear = Vec::new();
        HEADER.encode(PayloadType::VendorId, &mut clear);
        clear.extend([
            PayloadType::EncryptedFragment.number(),
            0,
            0,
            5,
            b'v',
            PayloadType::VendorId.number(),
            0x7f,
            0,
            0,
        ]);
        let content = [0, 0, 0, 5, 9];
        let mut reassembly = Reassembly::default();
        assert!(is_kept(&mut reassembly, &fragment(&before(PayloadType::None), [2, 2], &[5, 9, 0, 1])));
        let first = fragment(&clear, [1, 2], &[0, 0, 0, 0]);
        let (Ok(Added::Complete { message, .. }), _) = add(&mut reassembly, &first) else { panic!() };
        let mut expected = clear.clone();
        expected[28] = PayloadType::Encrypted.number();
        expected.extend(content);
        expected[35..37].copy_from_slice(&9u16.to_be_bytes());
        set_message_length(&mut expected).unwrap();
        assert_eq!(message.octets(), expected, "also what is reserved (RFC 9242 §3.3.2)");
        assert_eq!(message.payloads(), Ok(vec![Payload::VendorId(vec![9])]));
    }

    /// R7383-2.6-1.
    #[test]
    fn repetitions_are_ignored_without_being_read() {
        let message = plain(1000);
        let packets = fragments(&message, 400);
        assert_eq!(packets.len(), 3);
        let mut reassembly = Reassembly::default();
        for packet in &packets[..2] {
            assert!(is_kept(&mut reassembly, packet));
        }
        for packet in &packets[..2] {
            assert!(is_ignored_unread(&mut reassembly, packet));
        }
        assert!(completes(&mut reassembly, &packets[2], &message));
        assert!(is_kept(&mut reassembly, &packets[0]), "nothing is left of the message");
    }

    /// R7383-2.6-1.
    #[test]
    fn what_the_peer_has_not_protected_changes_nothing() {
        let message = plain(1000);
        let packets = fragments(&message, 400);
        let other = fragments(&plain_as(Header { message_id: 2, ..HEADER }, 1000), 400);
        let more = fragments(&message, 300);
        let mut reassembly = Reassembly::default();
        assert!(is_kept(&mut reassembly, &packets[0]));
        for packet in [&packets[1], &packets[2], &other[0], &more[0]] {
            let mut forged = packet.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(matches!(add(&mut reassembly, &forged), (Ok(Added::Ignored), true)));
        }
        assert!(is_kept(&mut reassembly, &packets[1]));
        assert!(completes(&mut reassembly, &packets[2], &message));
    }

    /// R7383-2.6-2.
    #[test]
    fn more_and_smaller_fragments_begin_anew_and_fewer_are_ignored() {
        let message = plain(1000);
        let (large, small) = (fragments(&message, 400), fragments(&message, 300));
        assert!(large.len() < small.len());
        let mut reassembly = Reassembly::default();
        assert!(is_kept(&mut reassembly, &large[0]));
        assert!(is_kept(&mut reassembly, &large[1]));
        assert!(is_kept(&mut reassembly, &small[0]));
        assert!(is_ignored_unread(&mut reassembly, &large[2]), "or it would complete what is not there any more");
        let (last, others) = small[1..].split_last().unwrap();
        assert!(others.iter().all(|packet| is_kept(&mut reassembly, packet)));
        assert!(completes(&mut reassembly, last, &message));
    }

    #[test]
    fn another_message_takes_the_place_of_what_was_kept() {
        let (first, second) = (plain(500), plain_as(Header { message_id: 2, ..HEADER }, 500));
        let (first_packets, second_packets) = (fragments(&first, 400), fragments(&second, 400));
        let mut reassembly = Reassembly::default();
        assert!(is_kept(&mut reassembly, &first_packets[0]));
        assert!(is_kept(&mut reassembly, &second_packets[0]));
        assert!(completes(&mut reassembly, &second_packets[1], &second));
        assert!(reassembly.is_empty());
        assert!(is_kept(&mut reassembly, &first_packets[1]));
        assert!(!reassembly.is_empty());
    }

    /// R7383-2.6-1.
    #[test]
    fn frag_total_65535_allocates_nothing_and_is_not_even_read() {
        let mut reassembly = Reassembly::default();
        for total in [MAX_FRAGMENTS + 1, u16::MAX] {
            let packet = fragment(&before(PayloadType::VendorId), [1, total], &[0; 4]);
            assert!(is_ignored_unread(&mut reassembly, &packet));
        }
        assert!(reassembly.is_empty());
        assert!(is_kept(&mut reassembly, &fragment(&before(PayloadType::VendorId), [1, MAX_FRAGMENTS], &[0; 4])));
    }

    #[test]
    fn a_message_of_as_many_fragments_as_are_allowed_is_put_together() {
        let message = plain(usize::from(MAX_FRAGMENTS) * 64);
        let packets = fragments(&message, 28 + 4 + 4 + 8 + 2 + 68);
        assert!(packets.len() > 400, "far more than the 64 that peers with a small MTU need: {}", packets.len());
        let mut reassembly = Reassembly::default();
        let (last, others) = packets.split_last().unwrap();
        assert!(others.iter().all(|packet| is_kept(&mut reassembly, packet)));
        assert!(completes(&mut reassembly, last, &message));
    }

    #[test]
    fn fragments_of_more_than_a_message_holds_are_refused_and_forgotten() {
        let mut reassembly = Reassembly::default();
        let content = vec![0; 30_000];
        for number in [3, 2] {
            assert!(is_kept(&mut reassembly, &fragment(&before(PayloadType::None), [number, 3], &content)));
        }
        let first = fragment(&before(PayloadType::VendorId), [1, 3], &content);
        assert!(matches!(add(&mut reassembly, &first).0, Err(WireError::TooLong { limit: 0xffff, .. })));
        assert!(reassembly.is_empty());
    }

    #[test]
    fn a_fragment_with_impossible_padding_is_malformed() {
        let mut reassembly = Reassembly::default();
        let packet = fragment(&before(PayloadType::VendorId), [1, 2], &[0, 0, 0, 4]);
        assert!(matches!(add(&mut reassembly, &packet).0, Err(WireError::Field { field: "pad length", .. })));
    }

    #[test]
    fn empty_fragments_are_fragments() {
        let mut reassembly = Reassembly::default();
        let nothing = [0, 0, 0, 3];
        assert!(is_kept(&mut reassembly, &fragment(&before(PayloadType::None), [1, 2], &nothing)));
        let last = fragment(&before(PayloadType::None), [2, 2], &nothing);
        assert!(completes(&mut reassembly, &last, &PlainMessage::new(&HEADER, &[]).unwrap()));
    }
}
