//! From consecutive segments of a flow to one super-packet, as the kernel's GRO would join them.
//!
//! A super-packet is described, not built: the first packet, whose header is adjusted in place, and the payloads of those
//! that follow. The kernel can cut it into exactly the packets that came.

use crate::InterfaceId;
use crate::batch::{Chunk, ShortSpan, Span, Stage, Write};
use crate::checksum::Sum;
use crate::inbound::Place;
use crate::packet::{Header, IPV4_HEADER_LEN, protocol};
use crate::segment::{TCP_CHECKSUM_AT, UDP_CHECKSUM_AT, UDP_HEADER_LEN, put, tcp_flags, tcp_header_len};
use crate::vnet::{Offloads, VnetHeader};

/// Turns the delivered frames of a batch into writes, in order.
pub(crate) fn coalesce(batch: &mut Chunk<'_>, offloads: Offloads) {
    let Chunk { memory, frames, writes, pieces, .. } = batch;
    let mut joining = Joining { pieces, writes, current: None };
    for frame in frames.iter() {
        let (interface, segment) = match frame.stage {
            Stage::Delivered(Place::Packet(interface)) => {
                (interface, Segment::read(memory, frame.span.long(), offloads))
            }
            Stage::Delivered(Place::Frame(interface)) => (interface, None),
            Stage::Received
            | Stage::InClear { .. }
            | Stage::Admitted { .. }
            | Stage::Opened(_)
            | Stage::Refused(_)
            | Stage::Dropped => continue,
        };
        joining.push(memory, interface, frame.span.long(), segment);
    }
    joining.finish(memory);
}

/// Most octets of a super-packet: an IPv4 total length.
const MOST_OCTETS: usize = 65535;

/// A packet that may be joined with others.
#[derive(Clone, Copy, Debug)]
struct Segment {
    span: Span,
    header: Header,
    /// Octets of IP and transport headers.
    headers_len: usize,
    /// TCP only.
    sequence: u32,
    /// TCP only.
    flags: u8,
}

impl Segment {
    /// `None` when the packet always goes alone.
    fn read(memory: &[u8], span: Span, offloads: Offloads) -> Option<Self> {
        let packet = span.of(memory);
        let header = Header::parse(packet)?;
        if header.is_fragment || header.transport_at != header.fixed_len() || header.total_len != packet.len() {
            return None;
        }
        let transport = packet.get(header.transport_at..)?;
        let segment = match header.protocol {
            protocol::TCP if offloads.tcp => {
                let headers_len = header.transport_at.checked_add(tcp_header_len(transport)?)?;
                let sequence = u32::from_be_bytes(*transport.get(4..)?.first_chunk()?);
                let flags = *transport.get(13)?;
                let goes_alone = tcp_flags::SYN | tcp_flags::RST | tcp_flags::URG;
                if flags & goes_alone != 0 || flags & tcp_flags::ACK == 0 {
                    return None;
                }
                Self { span, header, headers_len, sequence, flags }
            }
            protocol::UDP if offloads.udp => {
                let &[_, _, _, _, len0, len1, checksum0, checksum1] = transport.first_chunk::<UDP_HEADER_LEN>()?;
                let len = usize::from(u16::from_be_bytes([len0, len1]));
                if len != transport.len() || [checksum0, checksum1] == [0, 0] {
                    return None;
                }
                let headers_len = header.transport_at.checked_add(UDP_HEADER_LEN)?;
                Self { span, header, headers_len, sequence: 0, flags: 0 }
            }
            _ => return None,
        };
        (segment.payload_len() > 0).then_some(segment)
    }

    fn payload_len(&self) -> usize {
        self.span.len.saturating_sub(self.headers_len)
    }

    fn payload(&self) -> Span {
        Span { offset: self.span.offset.saturating_add(self.headers_len), len: self.payload_len() }
    }

    fn is_tcp(&self) -> bool {
        self.header.protocol == protocol::TCP
    }

    /// Whether nothing may be joined behind it.
    fn is_last(&self) -> bool {
        self.flags & (tcp_flags::PSH | tcp_flags::FIN) != 0
    }

    /// A packet whose checksum is wrong goes alone: joining would give it a right one.
    fn is_intact(&self, memory: &[u8]) -> bool {
        let packet = self.span.of(memory).split_at_checked(self.header.transport_at);
        let Some((ip, transport)) = packet else { return false };
        let Header { source, destination, protocol, .. } = self.header;
        let ip_is_right = !self.header.is_ipv4() || Sum::of(ip).is_right();
        ip_is_right
            && Sum::of_pseudo_header(source, destination, protocol, transport.len()).plus(Sum::of(transport)).is_right()
    }

    /// Whether the headers are those of one flow and differ only where cutting a super-packet makes them differ.
    /// `count` packets are joined already.
    fn follows(&self, first: &Self, memory: &[u8], count: u16) -> Option<bool> {
        if self.header.is_ipv4() != first.header.is_ipv4()
            || self.header.protocol != first.header.protocol
            || self.headers_len != first.headers_len
        {
            return Some(false);
        }
        let (ours, theirs) = (first.span.of(memory), self.span.of(memory));
        let same = |from: usize, to: usize| Some(ours.get(from..to)? == theirs.get(from..to)?);
        let ip_agrees = if self.header.is_ipv4() {
            // Version, DSCP, ECN; flags, TTL, protocol; addresses.
            same(0, 2)?
                && same(6, 10)?
                && same(12, IPV4_HEADER_LEN)?
                && self.identification_follows(ours, theirs, count)?
        } else {
            // Version, traffic class, flow label; next header, hop limit, addresses.
            same(0, 4)? && same(6, self.header.transport_at)?
        };
        let at = self.header.transport_at;
        let transport_agrees = same(at, at.checked_add(4)?)?
            && (!self.is_tcp() || {
                // CWR stays on the first segment when the packet is cut again (RFC 3168 §6.1.2).
                let may_differ = tcp_flags::FIN | tcp_flags::PSH | tcp_flags::CWR;
                let flags_agree = (self.flags ^ first.flags) & !may_differ == 0 && self.flags & tcp_flags::CWR == 0;
                let from = |offset: usize| at.checked_add(offset);
                // Acknowledgement and data offset; window; options.
                flags_agree
                    && same(from(8)?, from(13)?)?
                    && same(from(14)?, from(16)?)?
                    && same(from(20)?, self.headers_len)?
            });
        Some(ip_agrees && transport_agrees)
    }

    /// IPv4 identifications count up; where they mean nothing (RFC 6864 §4.1: with DF) they may also stay.
    fn identification_follows(&self, first: &[u8], this: &[u8], count: u16) -> Option<bool> {
        let identification = |packet: &[u8]| Some(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
        let (first, this) = (identification(first)?, identification(this)?);
        Some(this == first.wrapping_add(count) || (self.header.dont_fragment && this == first))
    }
}

/// The writes so far and the packet that is being collected.
struct Joining<'a> {
    pieces: &'a mut Vec<ShortSpan>,
    writes: &'a mut Vec<Write>,
    current: Option<Current>,
}

/// A packet that may still grow.
struct Current {
    interface: InterfaceId,
    first: Segment,
    first_piece: u16,
    /// Packets in it.
    count: u16,
    /// Octets of the super-packet.
    len: usize,
    /// FIN and PSH of the last packet.
    last_flags: u8,
    /// Whether the first packet's checksum was verified.
    is_verified: bool,
    is_closed: bool,
}

impl Joining<'_> {
    fn push(&mut self, memory: &mut [u8], interface: InterfaceId, span: Span, segment: Option<Segment>) {
        if let (Some(segment), Some(current)) = (segment, self.current.as_mut())
            && current.interface == interface
            && current.takes(&segment, memory)
        {
            current.join(&segment);
            self.pieces.push(segment.payload().into());
            return;
        }
        self.finish(memory);
        // A batch has far fewer frames than this can tell.
        let first_piece = u16::try_from(self.pieces.len()).unwrap_or(u16::MAX);
        self.pieces.push(span.into());
        match segment {
            Some(first) => self.current = Some(Current::new(interface, first, first_piece)),
            None => self.writes.push(Write { interface, vnet: VnetHeader::default(), first_piece, pieces: 1 }),
        }
    }

    fn finish(&mut self, memory: &mut [u8]) {
        let Some(current) = self.current.take() else { return };
        let Current { interface, first_piece, count, .. } = current;
        let vnet = if count == 1 { VnetHeader::default() } else { current.adjust_header(memory).unwrap_or_default() };
        self.writes.push(Write { interface, vnet, first_piece, pieces: count });
    }
}

impl Current {
    fn new(interface: InterfaceId, first: Segment, first_piece: u16) -> Self {
        let (len, is_closed) = (first.span.len, first.is_last());
        Self { interface, first, first_piece, count: 1, len, last_flags: 0, is_verified: false, is_closed }
    }

    fn takes(&mut self, next: &Segment, memory: &[u8]) -> bool {
        let joined_len = self.len.saturating_sub(self.first.headers_len);
        let continues = !next.is_tcp()
            || u32::try_from(joined_len).is_ok_and(|step| next.sequence == self.first.sequence.wrapping_add(step));
        if self.is_closed
            || !continues
            || next.payload_len() > self.first.payload_len()
            || self.len.saturating_add(next.payload_len()) > MOST_OCTETS
            || usize::from(self.count) >= crate::Delivery::PIECES
            || next.follows(&self.first, memory, self.count) != Some(true)
        {
            return false;
        }
        if !self.is_verified {
            if !self.first.is_intact(memory) {
                self.is_closed = true;
                return false;
            }
            self.is_verified = true;
        }
        next.is_intact(memory)
    }

    fn join(&mut self, next: &Segment) {
        self.count = self.count.saturating_add(1);
        self.len = self.len.saturating_add(next.payload_len());
        self.last_flags = next.flags & (tcp_flags::FIN | tcp_flags::PSH);
        self.is_closed = next.is_last() || next.payload_len() < self.first.payload_len();
    }

    /// Makes the first packet's header that of the super-packet and says how to cut it.
    fn adjust_header(&self, memory: &mut [u8]) -> Option<VnetHeader> {
        let Segment { header, headers_len, span, .. } = &self.first;
        let packet = span.of_mut(memory);
        let (ip, transport) = packet.get_mut(..*headers_len)?.split_at_mut_checked(header.transport_at)?;
        let len = u16::try_from(self.len).ok()?;
        if header.is_ipv4() {
            put(ip, 2, len.to_be_bytes())?;
            put(ip, 10, [0, 0])?;
            let checksum = Sum::of(ip).checksum();
            put(ip, 10, checksum)?;
        } else {
            put(ip, 4, u16::try_from(self.len.checked_sub(header.fixed_len())?).ok()?.to_be_bytes())?;
        }
        let transport_len = self.len.checked_sub(header.transport_at)?;
        let (checksum_at, gso_type) = if self.first.is_tcp() {
            *transport.get_mut(13)? |= self.last_flags;
            let family = if header.is_ipv4() { VnetHeader::GSO_TCPV4 } else { VnetHeader::GSO_TCPV6 };
            let ecn = if self.first.flags & tcp_flags::CWR == 0 { 0 } else { VnetHeader::GSO_ECN };
            (TCP_CHECKSUM_AT, family | ecn)
        } else {
            put(transport, 4, u16::try_from(transport_len).ok()?.to_be_bytes())?;
            (UDP_CHECKSUM_AT, VnetHeader::GSO_UDP_L4)
        };
        let pseudo = Sum::of_pseudo_header(header.source, header.destination, header.protocol, transport_len);
        put(transport, checksum_at, pseudo.partial())?;
        Some(VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: u16::try_from(*headers_len).ok()?,
            gso_size: u16::try_from(self.first.payload_len()).ok()?,
            csum_start: u16::try_from(header.transport_at).ok()?,
            csum_offset: u16::try_from(checksum_at).ok()?,
        })
    }
}
