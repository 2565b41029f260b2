//! The short way for what most packets are: whole TCP and UDP packets of a tunnel, about which nothing has to be decided but
//! whether they are the SA's. It gives the same results as the general way, which takes everything else.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Accepting;
use crate::batch::Span;
use crate::packet::{IPV6_HEADER_LEN, protocol};
use crate::policy::Selected;
use crate::segment::tcp_flags;
use crate::{DropReason, ecn};

impl Accepting<'_> {
    /// Where the packet inside of an authentic one stands, or why it is dropped; `None` when that is for the general way to say,
    /// and nothing was counted or changed. The SA is one whose packets may come this way.
    #[inline]
    pub(super) fn accept_plain(&mut self, packet: Span, memory: &[u8]) -> Option<Result<Span, DropReason>> {
        let encrypted = self.sa.framing().encrypted(packet)?;
        let plain = PlainPacket::read(encrypted.of(memory))?;
        let (inner, outer) = (plain.traffic_class & ecn::MASK, self.origin.traffic_class & ecn::MASK);
        // RFC 6040 §4.2: these leave the inner mark as it is.
        if outer != 0 && outer != inner {
            return None;
        }
        if plain.may_announce_mss && self.heeds_mss() {
            return None;
        }
        let revision = self.policies.revision();
        if !self.sa.flow.is(&plain.flow, revision) {
            if let Err(reason) = self.check(&plain.flow.selected()) {
                return Some(Err(reason));
            }
            self.sa.flow = LastFlow { flow: plain.flow, revision };
        }
        let span = Span { len: plain.len, ..encrypted };
        Some(self.charge(plain.len).map(|()| span))
    }

    /// Whether what TCP announces has to be looked at.
    #[inline]
    pub(super) fn heeds_mss(&self) -> bool {
        self.sa.mss.iter().any(Option::is_some)
    }
}

/// What of a packet everything depends on.
struct PlainPacket {
    flow: Flow,
    /// Octets, as its header says.
    len: usize,
    traffic_class: u8,
    /// Whether it is a SYN, or so short that one cannot tell.
    may_announce_mss: bool,
}

impl PlainPacket {
    /// Reads a payload with padding, pad length and next header. `None` when that, or the packet, is anything unusual or wrong.
    #[inline]
    fn read(encrypted: &[u8]) -> Option<Self> {
        let Trailer { payload_len, next_header } = read_trailer(encrypted)?;
        let plain = match next_header {
            protocol::IPV4 => Self::read_ipv4(encrypted)?,
            protocol::IPV6 => Self::read_ipv6(encrypted)?,
            _ => return None,
        };
        (plain.len <= payload_len).then_some(plain)
    }

    /// A header without options, of a packet that is no fragment.
    #[inline]
    fn read_ipv4(packet: &[u8]) -> Option<Self> {
        let head: &[u8; 24] = packet.first_chunk()?;
        #[rustfmt::skip]
        let &[version_ihl, traffic_class, len0, len1, _, _, fragment0, fragment1, _, protocol, _, _,
              a0, a1, a2, a3, a4, a5, a6, a7, p0, p1, p2, p3] = head;
        let len = usize::from(u16::from_be_bytes([len0, len1]));
        let is_fragment = u16::from_be_bytes([fragment0, fragment1]) & 0x3fff != 0;
        let is_plain = version_ihl == 0x45 && !is_fragment && len >= head.len();
        if !is_plain || !matches!(protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let addresses = [u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]), 0, 0, 0];
        let flow = Flow { addresses, ports: u32::from_be_bytes([p0, p1, p2, p3]), protocol, version: 4 };
        let may_announce_mss = protocol == protocol::TCP && may_be_syn(packet, 20);
        Some(Self { flow, len, traffic_class, may_announce_mss })
    }

    /// A header without extension headers.
    #[inline]
    fn read_ipv6(packet: &[u8]) -> Option<Self> {
        let head: &[u8; 44] = packet.first_chunk()?;
        let (start, rest) = head.split_first_chunk::<8>()?;
        let (addresses, _) = rest.as_chunks::<8>();
        let &[version, class_and_label, _, _, len0, len1, protocol, _] = start;
        let &[a, b, c, d] = addresses.first_chunk()?;
        let ports = u32::from_be_bytes(*head.last_chunk()?);
        let len = usize::from(u16::from_be_bytes([len0, len1])) + IPV6_HEADER_LEN;
        let is_plain = version >> 4 == 6 && len >= head.len();
        if !is_plain || !matches!(protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let flow = Flow { addresses: [a, b, c, d].map(u64::from_be_bytes), ports, protocol, version: 6 };
        let may_announce_mss = protocol == protocol::TCP && may_be_syn(packet, IPV6_HEADER_LEN);
        Some(Self { flow, len, traffic_class: version << 4 | class_and_label >> 4, may_announce_mss })
    }
}

/// What ends a payload with short and right padding.
pub(super) struct Trailer {
    pub(super) payload_len: usize,
    pub(super) next_header: u8,
}

/// `None` when the padding is long, or wrong.
#[inline(always)]
pub(super) fn read_trailer(encrypted: &[u8]) -> Option<Trailer> {
    let end = u64::from_be_bytes(*encrypted.last_chunk()?);
    let [.., pad_len, next_header] = end.to_be_bytes();
    if pad_len > SHORT_PADDING {
        return None;
    }
    // R4303-2.4-1: 1, 2, 3 … in front of the two octets of the trailer.
    let bits = 8 * u32::from(pad_len);
    let padding = end >> 16 & ((1 << bits) - 1);
    if padding != PADDING >> (8 * u32::from(SHORT_PADDING) - bits) {
        return None;
    }
    Some(Trailer { payload_len: encrypted.len().checked_sub(2 + usize::from(pad_len))?, next_header })
}

/// Octets of padding that are looked at in one go: what ciphers that need blocks of 4 octets have, and a little more.
const SHORT_PADDING: u8 = 6;
/// As many octets of padding.
const PADDING: u64 = 0x0102_0304_0506;

/// Whether a TCP packet asks for a connection, or is so short that one cannot tell.
#[inline]
pub(super) fn may_be_syn(packet: &[u8], tcp_at: usize) -> bool {
    packet.get(tcp_at + 13).is_none_or(|flags| flags & tcp_flags::SYN != 0)
}

/// Everything that selectors look at, as it stands in a packet from the peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    /// Source and destination; only the first word with IPv4.
    pub(super) addresses: [u64; 4],
    /// Source and destination.
    pub(super) ports: u32,
    pub(super) protocol: u8,
    pub(super) version: u8,
}

impl Flow {
    /// Whether both are the same. Word by word: what was just written word by word could not be read at once.
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.addresses, other.addresses);
        let differs = (a ^ e)
            | u64::from(self.ports ^ other.ports)
            | u64::from(self.protocol ^ other.protocol)
            | u64::from(self.version ^ other.version);
        differs == 0 && (self.version == 4 || (b ^ f) | (c ^ g) | (d ^ h) == 0)
    }

    #[inline]
    fn selected(&self) -> Selected {
        let [a, b, c, d] = self.addresses;
        let (source, destination) = if self.version == 4 {
            let [.., d0, d1, d2, d3] = a.to_be_bytes();
            let [s0, s1, s2, s3, ..] = a.to_be_bytes();
            (Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into())
        } else {
            let address = |high: u64, low: u64| Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
            (address(a, b).into(), address(c, d).into())
        };
        let [s0, s1, d0, d1] = self.ports.to_be_bytes();
        let (source_port, destination_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        Selected {
            local: destination,
            remote: source,
            protocol: self.protocol,
            local_port: Some(destination_port),
            remote_port: Some(source_port),
            is_completed: false,
        }
    }
}

/// The last flow that was found to be one of an SA's, and of its policy, with the policies as they were then: packets of one
/// flow come one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastFlow {
    flow: Flow,
    /// What [`crate::policy::PolicyTable::revision`] said; 0, which it never says, when there was none.
    revision: u64,
}

impl LastFlow {
    /// The flow, if the policies are still those of this revision.
    #[inline]
    pub(super) fn at(&self, revision: u64) -> Option<Flow> {
        (self.revision == revision).then_some(self.flow)
    }

    #[inline]
    fn is(&self, flow: &Flow, revision: u64) -> bool {
        self.revision == revision && self.flow.is(flow)
    }
}

#[cfg(test)]
mod tests;
