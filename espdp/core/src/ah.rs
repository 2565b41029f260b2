//! The Authentication Header (RFC 4302): where it stands in a packet, and which octets of the packet its ICV covers.
//!
//! ```text
//!  0               1               2               3
//! ┌───────────────┬───────────────┬───────────────────────────────┐
//! │ next header   │ payload len   │ reserved: zero                │  payload len: 32-bit words of all this, minus 2
//! ├───────────────┴───────────────┴───────────────────────────────┤
//! │ SPI                                                           │
//! ├───────────────────────────────────────────────────────────────┤
//! │ sequence number, low half                                     │
//! ├───────────────────────────────────────────────────────────────┤
//! │ ICV, filled up to whole words of 32 bits (IPv4) or 64 (IPv6)  │
//! └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! Unlike ESP it covers the IP header in front of it, too, but for what routers may change on the way. A packet of AH is
//! therefore always handled whole, from its IP header on.

use crate::checksum::Sum;
use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};

/// Octets before the ICV.
const FIXED_LEN: usize = 12;
/// Where the SPI stands.
const SPI_AT: usize = 4;

/// Octets of the header with an ICV of `icv_len` octets (R4302-2.2-1: never more padding than needed).
pub(crate) fn header_len(icv_len: usize, is_ipv6: bool) -> usize {
    FIXED_LEN.saturating_add(icv_len).next_multiple_of(if is_ipv6 { 8 } else { 4 })
}

/// Where AH stands in a packet, or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its first octet.
    pub(crate) at: usize,
    /// The octet that says which header comes there.
    announced_at: usize,
}

impl Place {
    /// AH in a packet without options and extension headers.
    pub(crate) fn behind_fixed_header(is_ipv6: bool) -> Self {
        if is_ipv6 {
            Self { at: IPV6_HEADER_LEN, announced_at: IPV6_NEXT_HEADER_AT }
        } else {
            Self { at: IPV4_HEADER_LEN, announced_at: IPV4_PROTOCOL_AT }
        }
    }

    /// Where AH stands in a received packet. `None` when there is none, or the packet is cut off or a fragment
    /// (R4302-3.4.1-1).
    pub(crate) fn find(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let &[_, _, _, _, _, _, flags, offset, _, protocol] = packet.first_chunk::<10>()?;
            let is_fragment = flags & !IPV4_DONT_FRAGMENT != 0 || offset != 0;
            let at = ipv4_header_len(packet)?;
            return (protocol == protocol::AH && !is_fragment).then_some(Self { at, announced_at: IPV4_PROTOCOL_AT });
        }
        let mut place = Self::behind_fixed_header(true);
        for _ in 0..MOST_EXTENSION_HEADERS {
            match *packet.get(place.announced_at)? {
                protocol::AH => return Some(place),
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    place = place.behind_extension_header(packet)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// Where AH goes in a packet that is sent in transport mode (RFC 4302 §3.1.1): behind IPv4 options, hop-by-hop options
    /// and routing headers. `None` when the packet is cut off, or takes a source route: what its header will look like at
    /// the peer is not for us to say.
    pub(crate) fn for_transport(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let place = Self { at: ipv4_header_len(packet)?, announced_at: IPV4_PROTOCOL_AT };
            let mut options = Ipv4Options(packet.get(IPV4_HEADER_LEN..place.at)?);
            let is_routed = options.any(|option| matches!(option, Ipv4Option::SourceRoute(_) | Ipv4Option::Malformed));
            return (!is_routed).then_some(place);
        }
        let mut place = Self::behind_fixed_header(true);
        let mut found = place;
        for _ in 0..MOST_EXTENSION_HEADERS {
            let is_last = match *packet.get(place.announced_at)? {
                protocol::HOP_BY_HOP => false,
                protocol::ROUTING if *packet.get(place.at.checked_add(SEGMENTS_LEFT_AT)?)? != 0 => return None,
                protocol::ROUTING => false,
                protocol::DESTINATION_OPTIONS => true,
                _ => return Some(found),
            };
            place = place.behind_extension_header(packet)?;
            if !is_last {
                found = place;
            }
        }
        None
    }

    /// The place behind the options or routing header that stands here.
    fn behind_extension_header(self, packet: &[u8]) -> Option<Self> {
        let len = extension_header_len(packet.get(self.at..)?)?;
        let at = self.at.checked_add(len)?;
        (at <= packet.len()).then_some(Self { at, announced_at: self.at })
    }

    /// SPI and low half of the sequence number; `None` when they are not there.
    pub(crate) fn spi_and_sequence(self, packet: &[u8]) -> Option<(u32, u32)> {
        let fields = packet.get(self.at.checked_add(SPI_AT)?..)?.first_chunk::<8>()?;
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *fields;
        Some((u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3])))
    }

    /// The header's length as the packet says it, and as it must be for an ICV of `icv_len` octets: whether they agree, and
    /// the packet is long enough.
    pub(crate) fn allows(self, packet: &[u8], icv_len: usize) -> bool {
        let expected = header_len(icv_len, is_ipv6(packet));
        let said = packet.get(self.at.saturating_add(1)).map(|words| usize::from(*words).saturating_add(2));
        said == expected.checked_div(4) && self.at.checked_add(expected).is_some_and(|end| end <= packet.len())
    }

    /// What comes behind AH, as it says.
    pub(crate) fn next_header(self, packet: &[u8]) -> Option<u8> {
        packet.get(self.at).copied()
    }

    /// Writes AH, still without its ICV, between headers and payload, where room for it is (R4302-2.3-1: with a reserved field of zero), and makes the headers announce it and
    /// count its octets. The packet's own headers have said what comes behind AH so far. IPv4 packets get an identification that is
    /// not zero, which the kernel would replace. `None` when the packet is too short or would be too long.
    pub(crate) fn write(self, packet: &mut [u8], len: usize, spi: [u8; 4], sequence: u64) -> Option<()> {
        let announced = packet.get_mut(self.announced_at)?;
        let next_header = std::mem::replace(announced, protocol::AH);
        let words = u8::try_from(len.checked_div(4)?.checked_sub(2)?).ok()?;
        let ah = packet.get_mut(self.at..)?.get_mut(..len)?;
        ah.fill(0);
        let [s0, s1, s2, s3] = spi;
        let [_, _, _, _, n0, n1, n2, n3] = sequence.to_be_bytes();
        *ah.first_chunk_mut()? = [next_header, words, 0, 0, s0, s1, s2, s3, n0, n1, n2, n3];
        if !is_ipv6(packet)
            && let Some(identification @ [0, 0]) = packet.get_mut(4..)?.first_chunk_mut::<2>()
        {
            *identification = [n2 | 0x80, n3];
        }
        renew_lengths(packet, self)
    }

    /// Takes AH out: the packet that is left, behind as many octets as AH had. `None` when the packet is too short.
    pub(crate) fn remove(self, packet: &mut [u8], len: usize) -> Option<()> {
        let next_header = self.next_header(packet)?;
        packet.copy_within(..self.at, len);
        let packet = packet.get_mut(len..)?;
        *packet.get_mut(self.announced_at)? = next_header;
        renew_lengths(packet, self)
    }

    /// Hands all octets that the ICV covers to `feed`, in order, with zeros for those that routers may change and for the
    /// ICV itself (RFC 4302 §3.3.3.1, R4302-3.3.3.1-1). The packet must be one as the receiver sees it. `None` when an option
    /// is malformed.
    pub(crate) fn cover(self, packet: &[u8], icv_len: usize, feed: &mut dyn FnMut(&[u8])) -> Option<()> {
        let headers = packet.get(..self.at)?;
        if is_ipv6(packet) { cover_ipv6(headers, feed) } else { cover_ipv4(headers, feed) }?;
        let (fixed, rest) = packet.get(self.at..)?.split_first_chunk::<FIXED_LEN>()?;
        feed(fixed);
        feed_zeros(icv_len, feed);
        feed(rest.get(icv_len..)?);
        Some(())
    }

    /// The octets of the ICV.
    pub(crate) fn icv(self, packet: &mut [u8], icv_len: usize) -> Option<&mut [u8]> {
        packet.get_mut(self.at.checked_add(FIXED_LEN)?..)?.get_mut(..icv_len)
    }
}

const IPV4_PROTOCOL_AT: usize = 9;
const IPV6_NEXT_HEADER_AT: usize = 6;
const IPV4_DONT_FRAGMENT: u8 = 0x40;
/// In a routing header: whether the packet has reached the last destination.
const SEGMENTS_LEFT_AT: usize = 3;
/// More are never needed (RFC 8200 §4.1); a longer chain hides something.
const MOST_EXTENSION_HEADERS: usize = 8;

fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

fn ipv4_header_len(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0x0f).checked_mul(4)?;
    (len >= IPV4_HEADER_LEN && len <= packet.len()).then_some(len)
}

/// Octets of an options or routing header.
fn extension_header_len(header: &[u8]) -> Option<usize> {
    usize::from(*header.get(1)?).checked_add(1)?.checked_mul(8)
}

/// Makes the length field, and the checksum of IPv4, those of the packet as it is.
fn renew_lengths(packet: &mut [u8], place: Place) -> Option<()> {
    let total_len = packet.len();
    if is_ipv6(packet) {
        let payload_len = u16::try_from(total_len.checked_sub(IPV6_HEADER_LEN)?).ok()?;
        *packet.get_mut(4..)?.first_chunk_mut()? = payload_len.to_be_bytes();
        return Some(());
    }
    *packet.get_mut(2..)?.first_chunk_mut()? = u16::try_from(total_len).ok()?.to_be_bytes();
    let header = packet.get_mut(..place.at)?;
    *header.get_mut(10..)?.first_chunk_mut::<2>()? = [0, 0];
    let checksum = Sum::of(header).checksum();
    *header.get_mut(10..)?.first_chunk_mut()? = checksum;
    Some(())
}

/// RFC 4302 §3.3.3.1.1: service, flags, fragment offset, time to live and checksum change on the way.
fn cover_ipv4(headers: &[u8], feed: &mut dyn FnMut(&[u8])) -> Option<()> {
    let (fixed, options) = headers.split_first_chunk::<IPV4_HEADER_LEN>()?;
    #[rustfmt::skip]
    let &[version_ihl, _, len0, len1, id0, id1, _, _, _, protocol, _, _,
          s0, s1, s2, s3, d0, d1, d2, d3] = fixed;
    #[rustfmt::skip]
    feed(&[version_ihl, 0, len0, len1, id0, id1, 0, 0, 0, protocol, 0, 0,
           s0, s1, s2, s3, d0, d1, d2, d3]);
    for option in Ipv4Options(options) {
        match option {
            Ipv4Option::Immutable(octets) => feed(octets),
            Ipv4Option::Mutable(octets) => feed_zeros(octets.len(), feed),
            Ipv4Option::SourceRoute(octets) => feed_zeros(octets.len(), feed),
            Ipv4Option::Malformed => return None,
        }
    }
    Some(())
}

/// One IPv4 option, as RFC 4302 appendix A1 classifies it.
enum Ipv4Option<'a> {
    Immutable(&'a [u8]),
    Mutable(&'a [u8]),
    /// Mutable, too.
    SourceRoute(&'a [u8]),
    Malformed,
}

/// What is left of the options of an IPv4 header.
struct Ipv4Options<'a>(&'a [u8]);

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Ipv4Option<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.0.first()?;
        let len = match kind {
            // Whatever stands behind the end of the list goes on as it is.
            0 => self.0.len(),
            1 => 1,
            _ => self.0.get(1).map_or(0, |len| usize::from(*len)),
        };
        let is_too_short = kind > 1 && len < 2;
        let Some((option, rest)) = self.0.split_at_checked(len).filter(|_| !is_too_short) else {
            self.0 = &[];
            return Some(Ipv4Option::Malformed);
        };
        self.0 = rest;
        Some(match kind {
            // End of list, no operation, basic, extended and commercial security, router alert, multi-destination delivery.
            0 | 1 | 130 | 133 | 134 | 148 | 149 => Ipv4Option::Immutable(option),
            // Loose and strict source route.
            131 | 137 => Ipv4Option::SourceRoute(option),
            _ => Ipv4Option::Mutable(option),
        })
    }
}

/// RFC 4302 §3.3.3.1.2: traffic class, flow label and hop limit change on the way, and options that say so. A routing header
/// at its end is as the sender expected it.
fn cover_ipv6(headers: &[u8], feed: &mut dyn FnMut(&[u8])) -> Option<()> {
    let (fixed, mut rest) = headers.split_first_chunk::<IPV6_HEADER_LEN>()?;
    let (start, addresses) = fixed.split_first_chunk::<8>()?;
    let &[_, _, _, _, len0, len1, next_header, _] = start;
    feed(&[0x60, 0, 0, 0, len0, len1, next_header, 0]);
    feed(addresses);
    let mut kind = next_header;
    while !rest.is_empty() {
        let (header, behind) = rest.split_at_checked(extension_header_len(rest)?)?;
        match kind {
            protocol::ROUTING => feed(header),
            _ => cover_options(header, feed)?,
        }
        kind = *header.first()?;
        rest = behind;
    }
    Some(())
}

/// Hop-by-hop or destination options (RFC 8200 §4.2): the third-highest bit of an option's type says that its data may change.
fn cover_options(header: &[u8], feed: &mut dyn FnMut(&[u8])) -> Option<()> {
    const MAY_CHANGE: u8 = 0x20;
    let (start, mut options) = header.split_first_chunk::<2>()?;
    feed(start);
    while let [kind, rest @ ..] = options {
        feed(&[*kind]);
        options = rest;
        if *kind == 0 {
            continue; // Pad1 has neither length nor data.
        }
        let (len, rest) = rest.split_first()?;
        feed(&[*len]);
        let (data, rest) = rest.split_at_checked(usize::from(*len))?;
        if kind & MAY_CHANGE == 0 {
            feed(data)
        } else {
            feed_zeros(data.len(), feed)
        }
        options = rest;
    }
    Some(())
}

fn feed_zeros(mut len: usize, feed: &mut dyn FnMut(&[u8])) {
    const ZEROS: [u8; 64] = [0; 64];
    while len > 0 {
        let piece = ZEROS.get(..len).unwrap_or(&ZEROS);
        feed(piece);
        len = len.saturating_sub(piece.len());
    }
}

#[cfg(test)]
mod tests;
