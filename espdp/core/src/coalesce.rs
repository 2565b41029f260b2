//! From consecutive segments of a flow to one super-packet, as the kernel's GRO would join them.
//!
//! A super-packet is described, not built: the first packet, whose header is adjusted in place, and the payloads of those
//! that follow. The kernel can cut it into exactly the packets that came.

use crate::InterfaceId;
use crate::batch::{Chunk, ShortSpan, Stage, Write};
use crate::checksum::Sum;
use crate::inbound::Place;
use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::segment::{TCP_CHECKSUM_AT, UDP_CHECKSUM_AT, UDP_HEADER_LEN, put, tcp_flags, tcp_header_len};
use crate::vnet::{Offloads, VnetHeader};

/// Turns the delivered frames of a batch into writes, in order.
#[inline(never)]
pub(crate) fn coalesce(batch: &mut Chunk<'_>, offloads: Offloads) {
    let Chunk { memory, frames, writes, pieces, .. } = batch;
    let joins_any = offloads.tcp || offloads.udp;
    let mut joining = Joining { pieces, writes, current: None };
    for frame in frames.iter() {
        match frame.stage {
            Stage::Delivered(Place::Packet(interface)) if joins_any => {
                let segment = Segment::read(memory, frame.span, offloads);
                joining.push(memory, interface, frame.span, segment);
            }
            Stage::Delivered(Place::Packet(interface) | Place::Frame(interface)) => {
                joining.finish(memory);
                joining.push_alone(interface, frame.span);
            }
            Stage::Received
            | Stage::InClear { .. }
            | Stage::Admitted { .. }
            | Stage::Opened(_)
            | Stage::Refused(_)
            | Stage::Dropped => {}
        }
    }
    joining.finish(memory);
}

/// Most octets of a super-packet: an IPv4 total length.
const MOST_OCTETS: usize = 65535;

/// A packet that may be joined with others: a whole one of TCP or UDP, with payload, without IPv4 options or extension headers.
#[derive(Clone, Copy, Debug)]
struct Segment {
    span: ShortSpan,
    /// TCP only.
    sequence: u32,
    /// TCP only.
    flags: u8,
    protocol: u8,
    is_ipv4: bool,
    /// Octets of the IP header.
    transport_at: u8,
    /// Octets of IP and transport headers.
    headers_len: u8,
}

impl Segment {
    /// `None` when the packet always goes alone.
    #[inline]
    fn read(memory: &[u8], span: ShortSpan, offloads: Offloads) -> Option<Self> {
        let packet = span.of(memory);
        let &[version_ihl, _, l0, l1, l2, l3, f0, f1, _, ipv4_protocol] = packet.first_chunk()?;
        let is_ipv4 = version_ihl >> 4 == 4;
        let (protocol, transport_at, is_whole) = if is_ipv4 {
            let is_fragment = u16::from_be_bytes([f0, f1]) & !IPV4_DONT_FRAGMENT != 0;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            (ipv4_protocol, IPV4_HEADER_LEN, version_ihl == 0x45 && !is_fragment && len == packet.len())
        } else {
            let len = usize::from(u16::from_be_bytes([l2, l3])).checked_add(IPV6_HEADER_LEN)?;
            (f0, IPV6_HEADER_LEN, version_ihl >> 4 == 6 && len == packet.len())
        };
        let is_offered = offloads.tcp && protocol == protocol::TCP || offloads.udp && protocol == protocol::UDP;
        if !is_whole || !is_offered {
            return None;
        }
        let transport = packet.get(transport_at..)?;
        let (transport_len, sequence, flags) = if protocol == protocol::TCP {
            let &[_, _, _, _, s0, s1, s2, s3, _, _, _, _, _, flags] = transport.first_chunk()?;
            let goes_alone = tcp_flags::SYN | tcp_flags::RST | tcp_flags::URG;
            if flags & (goes_alone | tcp_flags::ACK) != tcp_flags::ACK {
                return None;
            }
            (tcp_header_len(transport)?, u32::from_be_bytes([s0, s1, s2, s3]), flags)
        } else {
            let &[_, _, _, _, len0, len1, checksum0, checksum1] = transport.first_chunk::<UDP_HEADER_LEN>()?;
            let len = usize::from(u16::from_be_bytes([len0, len1]));
            if len != transport.len() || [checksum0, checksum1] == [0, 0] {
                return None;
            }
            (UDP_HEADER_LEN, 0, 0)
        };
        let headers_len = u8::try_from(transport_at.checked_add(transport_len)?).ok()?;
        let has_payload = packet.len() > usize::from(headers_len);
        let transport_at = u8::try_from(transport_at).ok()?;
        has_payload.then_some(Self { span, sequence, flags, protocol, is_ipv4, transport_at, headers_len })
    }

    fn payload(&self) -> ShortSpan {
        let headers_len = u32::from(self.headers_len);
        let ShortSpan { offset, len } = self.span;
        ShortSpan { offset: offset.saturating_add(headers_len), len: len.saturating_sub(headers_len) }
    }

    fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Whether nothing may be joined behind it.
    fn is_last(&self) -> bool {
        self.flags & (tcp_flags::PSH | tcp_flags::FIN) != 0
    }

    /// The IP header and what is behind it.
    #[inline]
    fn split<'m>(&self, memory: &'m [u8]) -> Option<(&'m [u8], &'m [u8])> {
        self.span.of(memory).split_at_checked(usize::from(self.transport_at))
    }

    /// A packet whose checksum is wrong goes alone: joining would give it a right one.
    #[inline]
    fn is_intact(&self, memory: &[u8]) -> bool {
        let Some((ip, transport)) = self.split(memory) else { return false };
        let ip_is_right = !self.is_ipv4 || Sum::of(ip).is_right();
        let pseudo = pseudo_header(ip, self.is_ipv4, self.protocol, transport.len());
        ip_is_right && pseudo.is_some_and(|pseudo| pseudo.plus(Sum::of(transport)).is_right())
    }

    /// Whether the headers are those of one flow and differ only where cutting a super-packet makes them differ.
    /// `count` packets are joined already.
    #[inline]
    fn follows(&self, first: &Self, memory: &[u8], count: u16) -> Option<bool> {
        if (self.is_ipv4, self.protocol, self.headers_len) != (first.is_ipv4, first.protocol, first.headers_len) {
            return Some(false);
        }
        let ((ours, our_transport), (theirs, their_transport)) = (first.split(memory)?, self.split(memory)?);
        let ip_agrees = if self.is_ipv4 { ipv4_agrees(ours, theirs, count) } else { ipv6_agrees(ours, theirs) };
        let transport_agrees = if self.is_tcp() {
            // CWR stays on the first segment when the packet is cut again (RFC 3168 §6.1.2).
            let may_differ = tcp_flags::FIN | tcp_flags::PSH | tcp_flags::CWR;
            let flags_agree = (self.flags ^ first.flags) & !may_differ == 0 && self.flags & tcp_flags::CWR == 0;
            let options = TCP_FIXED_LEN..usize::from(self.headers_len.checked_sub(self.transport_at)?);
            let options_agree = our_transport.get(options.clone())? == their_transport.get(options)?;
            flags_agree && tcp_agrees(our_transport, their_transport)? && options_agree
        } else {
            our_transport.first_chunk::<4>()? == their_transport.first_chunk()?
        };
        Some(ip_agrees? && transport_agrees)
    }
}

const IPV4_DONT_FRAGMENT: u16 = 0x4000;
/// Octets of a TCP header without options.
const TCP_FIXED_LEN: usize = 20;

/// Whether two IPv4 headers agree in version, DSCP, ECN; flags; TTL, protocol; addresses. Identifications count up; where they
/// mean nothing (RFC 6864 §4.1: with DF) they may also stay.
#[inline]
fn ipv4_agrees(first: &[u8], this: &[u8], count: u16) -> Option<bool> {
    let (first, first_rest) = first.split_first_chunk::<16>()?;
    let (this, this_rest) = this.split_first_chunk::<16>()?;
    // Length and identification; checksum.
    let must_agree = !(0x0000_ffff_ffff_0000_0000_ffff_0000_0000_u128);
    let (first, this) = (u128::from_be_bytes(*first), u128::from_be_bytes(*this));
    let agrees = (first ^ this) & must_agree == 0 && first_rest.first_chunk::<4>()? == this_rest.first_chunk()?;
    let step = (this >> 80 & 0xffff).wrapping_sub(first >> 80 & 0xffff) & 0xffff;
    let may_stay = this >> 64 & u128::from(IPV4_DONT_FRAGMENT) != 0;
    Some(agrees && (step == u128::from(count) || may_stay && step == 0))
}

/// Whether two IPv6 headers agree in version, traffic class, flow label; next header, hop limit, addresses.
#[inline]
fn ipv6_agrees(first: &[u8], this: &[u8]) -> Option<bool> {
    let (first, first_rest) = first.split_first_chunk::<8>()?;
    let (this, this_rest) = this.split_first_chunk::<8>()?;
    // All but the length.
    let must_agree = 0xffff_ffff_0000_ffff;
    let agrees = (u64::from_be_bytes(*first) ^ u64::from_be_bytes(*this)) & must_agree == 0;
    Some(agrees && first_rest.first_chunk::<32>()? == this_rest.first_chunk()?)
}

/// Whether two TCP headers agree in ports; acknowledgement and data offset; window.
#[inline]
fn tcp_agrees(first: &[u8], this: &[u8]) -> Option<bool> {
    // All but sequence number and flags.
    let must_agree = 0xffff_ffff_0000_0000_ffff_ffff_ff00_ffff;
    let (first, this) = (first.first_chunk::<16>()?, this.first_chunk::<16>()?);
    Some((u128::from_be_bytes(*first) ^ u128::from_be_bytes(*this)) & must_agree == 0)
}

/// The sum of the pseudo header of what is behind `ip`.
#[inline]
fn pseudo_header(ip: &[u8], is_ipv4: bool, protocol: u8, transport_len: usize) -> Option<Sum> {
    let addresses = if is_ipv4 { ip.get(12..IPV4_HEADER_LEN)? } else { ip.get(8..IPV6_HEADER_LEN)? };
    Some(Sum::of(addresses).plus(Sum::of_protocol(protocol, transport_len)))
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
    #[inline]
    fn push(&mut self, memory: &mut [u8], interface: InterfaceId, span: ShortSpan, segment: Option<Segment>) {
        if let (Some(segment), Some(current)) = (segment, self.current.as_mut())
            && current.interface == interface
            && current.takes(&segment, memory)
        {
            current.join(&segment);
            self.pieces.push(segment.payload());
            return;
        }
        self.finish(memory);
        match segment {
            Some(first) => {
                self.current = Some(Current::new(interface, first, self.next_piece()));
                self.pieces.push(span);
            }
            None => self.push_alone(interface, span),
        }
    }

    fn push_alone(&mut self, interface: InterfaceId, span: ShortSpan) {
        let first_piece = self.next_piece();
        self.pieces.push(span);
        self.writes.push(Write { interface, vnet: VnetHeader::default(), first_piece, pieces: 1 });
    }

    fn next_piece(&self) -> u16 {
        // A batch has far fewer frames than this can tell.
        u16::try_from(self.pieces.len()).unwrap_or(u16::MAX)
    }

    #[inline]
    fn finish(&mut self, memory: &mut [u8]) {
        let Some(current) = self.current.take() else { return };
        let Current { interface, first_piece, count, .. } = current;
        let vnet = if count == 1 { VnetHeader::default() } else { current.adjust_header(memory).unwrap_or_default() };
        self.writes.push(Write { interface, vnet, first_piece, pieces: count });
    }
}

impl Current {
    fn new(interface: InterfaceId, first: Segment, first_piece: u16) -> Self {
        let (len, is_closed) = (first.span.len as usize, first.is_last());
        Self { interface, first, first_piece, count: 1, len, last_flags: 0, is_verified: false, is_closed }
    }

    #[inline]
    fn takes(&mut self, next: &Segment, memory: &[u8]) -> bool {
        let joined_len = self.len.saturating_sub(usize::from(self.first.headers_len));
        let continues = !next.is_tcp()
            || u32::try_from(joined_len).is_ok_and(|step| next.sequence == self.first.sequence.wrapping_add(step));
        let payload_len = next.payload().len;
        if self.is_closed
            || !continues
            || payload_len > self.first.payload().len
            || self.len.saturating_add(payload_len as usize) > MOST_OCTETS
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
        let payload_len = next.payload().len;
        self.count = self.count.saturating_add(1);
        self.len = self.len.saturating_add(payload_len as usize);
        self.last_flags = next.flags & (tcp_flags::FIN | tcp_flags::PSH);
        self.is_closed = next.is_last() || payload_len < self.first.payload().len;
    }

    /// Makes the first packet's header that of the super-packet and says how to cut it.
    fn adjust_header(&self, memory: &mut [u8]) -> Option<VnetHeader> {
        let Segment { span, is_ipv4, protocol, transport_at, headers_len, .. } = self.first;
        let (transport_at, headers_len) = (usize::from(transport_at), usize::from(headers_len));
        let packet = span.of_mut(memory);
        let (ip, transport) = packet.get_mut(..headers_len)?.split_at_mut_checked(transport_at)?;
        let transport_len = self.len.checked_sub(transport_at)?;
        if is_ipv4 {
            put(ip, 2, u16::try_from(self.len).ok()?.to_be_bytes())?;
            put(ip, 10, [0, 0])?;
            let checksum = Sum::of(ip).checksum();
            put(ip, 10, checksum)?;
        } else {
            put(ip, 4, u16::try_from(transport_len).ok()?.to_be_bytes())?;
        }
        let (checksum_at, gso_type) = if self.first.is_tcp() {
            *transport.get_mut(13)? |= self.last_flags;
            let family = if is_ipv4 { VnetHeader::GSO_TCPV4 } else { VnetHeader::GSO_TCPV6 };
            let ecn = if self.first.flags & tcp_flags::CWR == 0 { 0 } else { VnetHeader::GSO_ECN };
            (TCP_CHECKSUM_AT, family | ecn)
        } else {
            put(transport, 4, u16::try_from(transport_len).ok()?.to_be_bytes())?;
            (UDP_CHECKSUM_AT, VnetHeader::GSO_UDP_L4)
        };
        let pseudo = pseudo_header(ip, is_ipv4, protocol, transport_len)?;
        put(transport, checksum_at, pseudo.partial())?;
        Some(VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: u16::try_from(headers_len).ok()?,
            gso_size: u16::try_from(self.first.payload().len).ok()?,
            csum_start: u16::try_from(transport_at).ok()?,
            csum_offset: u16::try_from(checksum_at).ok()?,
        })
    }
}
