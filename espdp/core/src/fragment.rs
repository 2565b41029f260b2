//! IPv4 fragmentation (RFC 791 §2.3, §3.2).

use crate::checksum::Sum;
use crate::packet::{Header, IPV4_HEADER_LEN};
use crate::segment::put;

/// Cuts an IPv4 packet, perhaps a fragment itself, in fragments of at most `mtu` octets. Nothing is copied before
/// [`Self::write`].
///
/// ```text
///  ┌────────┬─────────┬──────────────┬──────────────┬──────┐
///  │ header │ options │ chunk        │ chunk        │ rest │
///  └────────┴─────────┴──────────────┴──────────────┴──────┘
///   first fragment: header, all options, one chunk; later ones: header, the options that are copied, one chunk
///   chunks are multiples of eight octets, all but the last one as long as the longer header allows
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fragmenter<'a> {
    packet: &'a [u8],
    header_len: usize,
    /// Octets of the packet's data in each fragment but the last.
    chunk_len: usize,
}

impl<'a> Fragmenter<'a> {
    /// Prepares to cut `packet`. `None` when it is no whole IPv4 packet, may not be fragmented, or not even eight octets of its
    /// data fit.
    #[must_use]
    pub fn new(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let header = Header::parse(packet)?;
        if !header.is_ipv4() || header.dont_fragment {
            return None;
        }
        let header_len = header.transport_at;
        let room = mtu.checked_sub(header_len)?;
        let chunk_len = room.checked_sub(room % UNIT)?;
        let packet = packet.get(..header.total_len)?;
        (chunk_len > 0).then_some(Self { packet, header_len, chunk_len })
    }

    /// How many fragments there are; one when all of it fits.
    #[must_use]
    pub fn count(&self) -> usize {
        self.packet.len().saturating_sub(self.header_len).div_ceil(self.chunk_len).max(1)
    }

    /// Octets of fragment `index`.
    #[must_use]
    pub fn len(&self, index: usize) -> usize {
        self.head_len(index).saturating_add(self.chunk(index).len())
    }

    /// Writes fragment `index` to `out`, which is exactly as long as [`Self::len`] says. `None` when it is not, or when the
    /// packet's own offset leaves no room for another one.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Option<()> {
        let chunk = self.chunk(index);
        let (head, data) = out.split_at_mut_checked(self.head_len(index))?;
        if data.len() != chunk.len() {
            return None;
        }
        data.copy_from_slice(chunk);
        self.write_options(index, head.get_mut(IPV4_HEADER_LEN..)?)?;
        let fixed = head.first_chunk_mut::<IPV4_HEADER_LEN>()?;
        fixed.copy_from_slice(self.packet.get(..IPV4_HEADER_LEN)?);
        let words = u8::try_from(head.len() / 4).ok()?;
        let version_ihl = head.first_mut()?;
        *version_ihl = 0x40 | words;
        let total_len = u16::try_from(head.len().checked_add(chunk.len())?).ok()?;
        put(head, 2, total_len.to_be_bytes())?;
        put(head, FLAGS_AT, self.flags_and_offset(index)?.to_be_bytes())?;
        put(head, CHECKSUM_AT, [0, 0])?;
        let checksum = Sum::of(head).checksum();
        put(head, CHECKSUM_AT, checksum)
    }

    /// The fragment's place in the original packet, and whether more follows, be it of this packet or of the one that it is a
    /// fragment of.
    fn flags_and_offset(&self, index: usize) -> Option<u16> {
        let own = u16::from_be_bytes(*self.packet.get(FLAGS_AT..)?.first_chunk()?);
        let units = self.chunk_len.checked_div(UNIT)?.checked_mul(index)?;
        let offset = (own & OFFSET).checked_add(u16::try_from(units).ok()?).filter(|offset| *offset <= OFFSET)?;
        let is_last = index.checked_add(1)? >= self.count();
        let more = if is_last { own & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        Some(own & !(OFFSET | MORE_FRAGMENTS) | more | offset)
    }

    fn chunk(&self, index: usize) -> &'a [u8] {
        let data = self.packet.get(self.header_len..).unwrap_or_default();
        data.chunks(self.chunk_len).nth(index).unwrap_or_default()
    }

    fn head_len(&self, index: usize) -> usize {
        if index == 0 { self.header_len } else { IPV4_HEADER_LEN.saturating_add(self.copied_options_len()) }
    }

    fn copied_options_len(&self) -> usize {
        self.options().filter(|option| is_copied(option)).map(<[u8]>::len).sum::<usize>().next_multiple_of(4)
    }

    fn write_options(&self, index: usize, out: &mut [u8]) -> Option<()> {
        if index == 0 {
            out.copy_from_slice(self.packet.get(IPV4_HEADER_LEN..self.header_len)?);
            return Some(());
        }
        // Zeros behind the last option end the list.
        out.fill(0);
        let mut rest = out;
        for option in self.options().filter(|option| is_copied(option)) {
            let (place, next) = rest.split_at_mut_checked(option.len())?;
            place.copy_from_slice(option);
            rest = next;
        }
        Some(())
    }

    fn options(&self) -> Options<'a> {
        Options(self.packet.get(IPV4_HEADER_LEN..self.header_len).unwrap_or_default())
    }
}

/// RFC 791 §3.1: the first bit of an option's type says whether it stands in all fragments.
fn is_copied(option: &[u8]) -> bool {
    option.first().is_some_and(|kind| kind & 0x80 != 0)
}

/// The options of an IPv4 header up to their end, or to the first one that is malformed.
#[derive(Clone, Copy)]
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = match self.0 {
            [END, ..] | [] => return None,
            [NO_OPERATION, ..] => 1,
            [_, len, ..] if *len >= 2 => usize::from(*len),
            _ => return None,
        };
        let (option, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(option)
    }
}

/// Offsets count in units of this many octets.
const UNIT: usize = 8;
const FLAGS_AT: usize = 6;
const CHECKSUM_AT: usize = 10;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], flags_and_offset: u16, data_len: usize) -> Vec<u8> {
        let header_len = 20 + options.len();
        let mut packet = vec![0x40 | (header_len / 4) as u8, 0xb9];
        packet.extend(((header_len + data_len) as u16).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(flags_and_offset.to_be_bytes());
        packet.extend([63, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
        packet.extend(options);
        let checksum = Sum::of(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum);
        packet.extend((0..data_len).map(|at| (at * 7 + at / 256) as u8));
        packet
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let fragmenter = Fragmenter::new(packet, mtu).unwrap();
        let write = |index| {
            let mut out = vec![0; fragmenter.len(index)];
            fragmenter.write(index, &mut out).unwrap();
            out
        };
        (0..fragmenter.count()).map(write).collect()
    }

    /// Offset in octets, whether more follows, and the data.
    fn piece(fragment: &[u8]) -> (usize, bool, &[u8]) {
        let header_len = usize::from(fragment[0] & 15) * 4;
        assert!(Sum::of(&fragment[..header_len]).is_right());
        assert_eq!(usize::from(u16::from_be_bytes([fragment[2], fragment[3]])), fragment.len());
        let field = u16::from_be_bytes([fragment[6], fragment[7]]);
        (usize::from(field & OFFSET) * 8, field & MORE_FRAGMENTS != 0, &fragment[header_len..])
    }

    #[test]
    fn a_packet_is_cut_at_multiples_of_eight_octets() {
        let whole = packet(&[], 0, 1480);
        let fragments = cut(&whole, 1006);
        let lens: Vec<_> = fragments.iter().map(|fragment| (piece(fragment).0, fragment.len())).collect();
        assert_eq!(lens, [(0, 1004), (984, 516)]);
        assert!(fragments.iter().all(|fragment| fragment[1] == 0xb9 && fragment[4..6] == [0x12, 0x34]));
    }

    #[test]
    fn only_options_that_ask_for_it_stand_in_later_fragments() {
        // Router alert (copied), no operation, record route (not copied), end.
        let options = [148, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0];
        let fragments = cut(&packet(&options, 0, 600), 300);
        assert_eq!(fragments[0][..32][20..], options);
        for later in &fragments[1..] {
            assert_eq!((later[0], &later[20..24]), (0x46, &[148, 4, 0, 0][..]));
        }
    }

    #[test]
    fn what_may_not_be_fragmented_is_not() {
        assert!(Fragmenter::new(&packet(&[], 0x4000, 600), 300).is_none());
        assert!(Fragmenter::new(&packet(&[], 0, 600), 27).is_none());
        assert!(Fragmenter::new(&[0x60; 80], 70).is_none());
        assert_eq!(Fragmenter::new(&packet(&[], 0, 0), 28).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn fragments_fit_and_their_data_is_that_of_the_packet(
            data_len in 0usize..3000, mtu in 28usize..1600, offset in 0u16..7000, more: bool,
        ) {
            let whole = packet(&[], offset | if more { MORE_FRAGMENTS } else { 0 }, data_len);
            let fragments = cut(&whole, mtu);
            let mut data = Vec::new();
            for (index, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= mtu);
                let (at, more_follows, octets) = piece(fragment);
                prop_assert_eq!(at, usize::from(offset) * 8 + data.len());
                prop_assert_eq!(more_follows, more || index + 1 < fragments.len());
                data.extend_from_slice(octets);
            }
            prop_assert_eq!(&data, &whole[20..]);
        }

        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..120), mtu in 0usize..100) {
            if let Some(fragmenter) = Fragmenter::new(&octets, mtu) {
                for index in 0..fragmenter.count() {
                    let mut out = vec![0; fragmenter.len(index)];
                    let _ = fragmenter.write(index, &mut out);
                    prop_assert!(out.len() <= mtu || fragmenter.count() == 1 && out.len() <= octets.len());
                }
            }
        }
    }
}
