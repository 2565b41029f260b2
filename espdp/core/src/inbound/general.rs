//! The general way for authentic packets: both modes, both protocols, every interface, and whatever stands in a packet.

use espdp_api::{Direction, Encapsulation, Event, InterfaceKind, IpsecProtocol, Mode, OuterPath};

use super::{Accepting, Memory, Place};
use crate::batch::{InboundFrame, Span};
use crate::limits::Charge;
use crate::packet::{
    Header, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol, renew_checksum, set_ecn, set_hop_limit, take_over_header,
    write_header,
};
use crate::policy::{Miss, Scope, Selected};
use crate::sa::TRAILER_LEN;
use crate::{DropReason, Origin, ah, ecn, icmp, mss};

impl Accepting<'_> {
    /// The general way.
    #[inline(never)]
    pub(super) fn accept_any(
        &mut self,
        frame: &InboundFrame,
        mut memory: Memory<'_>,
    ) -> Result<(Span, Place), DropReason> {
        let is_esp = self.sa.core.protocol == IpsecProtocol::Esp;
        let packet = frame.span.long();
        let (payload, next_header) =
            if is_esp { self.payload(packet, memory.octets)? } else { self.payload_of_ah(packet, memory.octets)? };
        if is_esp && next_header == protocol::NO_NEXT_HEADER {
            // R4303-2.6-1: no error, and counted as traffic.
            self.charge(0)?;
            return Err(DropReason::Dummy);
        }
        let id = self.sa.core.interface;
        let interface = self.interfaces.get(id).ok_or(DropReason::NextHeader)?;
        let (kind, is_tunnel) = (interface.kind, interface.tunnel.is_some());
        let to = Place::Packet(id);
        let (inner, place) = match (self.sa.core.mode, next_header) {
            (Mode::Tunnel, protocol::IPV4 | protocol::IPV6) if is_tunnel => {
                self.unwrap_in_tunnel_mode(payload, next_header, &mut memory)?
            }
            (Mode::Transport, _) if is_tunnel => self.unwrap_transport(payload, next_header, &mut memory)?,
            (Mode::Tunnel, protocol::IPV4 | protocol::IPV6) => {
                (self.unwrap_tunnel(payload, next_header, None, &mut memory)?, to)
            }
            (Mode::Transport, protocol::IPV4 | protocol::IPV6) if kind == InterfaceKind::Ipip => {
                let OuterPath { local, remote, .. } = self.sa.core.path;
                let wrapped = Selected::ip_in_ip(local, remote, next_header == protocol::IPV4);
                (self.unwrap_tunnel(payload, next_header, Some(wrapped), &mut memory)?, to)
            }
            (Mode::Tunnel, _) => return Err(DropReason::NextHeader),
            (Mode::Transport, _) if is_esp => (self.rebuild_transport(frame, payload, next_header, &mut memory)?, to),
            (Mode::Transport, _) => (self.without_ah(packet, &mut memory)?, to),
        };
        self.charge(inner.len)?;
        Ok((inner, place))
    }

    /// The payload without padding and trailer, and the next header (R4303-2.4-1).
    fn payload(&self, packet: Span, memory: &[u8]) -> Result<(Span, u8), DropReason> {
        let layout = self.sa.core.layout;
        let encrypted_len = packet.len.checked_sub(layout.header_len + layout.icv_len).ok_or(DropReason::Short)?;
        let encrypted = Span { offset: packet.offset + layout.header_len, len: encrypted_len };
        let (rest, &[pad_len, next_header]) =
            encrypted.of(memory).split_last_chunk::<TRAILER_LEN>().ok_or(DropReason::Short)?;
        let payload_len = rest.len().checked_sub(usize::from(pad_len)).ok_or(DropReason::BadPadding)?;
        let padding = rest.get(payload_len..).ok_or(DropReason::BadPadding)?;
        if padding.iter().zip(1u8..=255).any(|(octet, expected)| *octet != expected) {
            return Err(DropReason::BadPadding);
        }
        Ok((Span { len: payload_len, ..encrypted }, next_header))
    }

    /// What AH protects behind itself, and what it says that is.
    fn payload_of_ah(&self, packet: Span, memory: &[u8]) -> Result<(Span, u8), DropReason> {
        let octets = packet.of(memory);
        let place = ah::Place::find(octets).ok_or(DropReason::Short)?;
        let before = place.at + self.sa.core.ah_len();
        let len = packet.len.checked_sub(before).ok_or(DropReason::Short)?;
        let next_header = place.next_header(octets).ok_or(DropReason::Short)?;
        Ok((Span { offset: packet.offset + before, len }, next_header))
    }

    /// The packet of AH's transport mode: as it came, options and extension headers included, but without AH.
    fn without_ah(&mut self, packet: Span, memory: &mut Memory<'_>) -> Result<Span, DropReason> {
        let octets = packet.of_mut(memory.octets);
        let ah_len = self.sa.core.ah_len();
        let place = ah::Place::find(octets).ok_or(DropReason::Short)?;
        place.remove(octets, ah_len).ok_or(DropReason::BadInner)?;
        let left = octets.get(ah_len..).ok_or(DropReason::Short)?;
        let header = Header::parse(left).ok_or(DropReason::BadInner)?;
        let span = Span { offset: packet.offset + ah_len, len: left.len() };
        self.check_header(&header)?;
        let left = span.of_mut(memory.octets);
        self.check_quoted(left, &header)?;
        self.clamp_mss(left, &header);
        Ok(span)
    }

    /// The inner packet of a tunnel: its family as announced, its length as its header says (R4303-2.7-1: what follows is
    /// traffic flow confidentiality), its selectors those of the SA (R4301-5.2-1), its ECN combined with the outer one.
    /// `wrapped` is what the SA's selectors are about when the interface has wrapped the packet in IP.
    fn unwrap_tunnel(
        &mut self,
        payload: Span,
        next_header: u8,
        wrapped: Option<Selected>,
        memory: &mut Memory<'_>,
    ) -> Result<Span, DropReason> {
        let octets = payload.of_mut(memory.octets);
        let header = Header::parse(octets).ok_or(DropReason::BadInner)?;
        if header.is_ipv4() != (next_header == protocol::IPV4) {
            return Err(DropReason::BadInner);
        }
        match wrapped {
            Some(wrapped) => self.check(&wrapped)?,
            None => {
                self.check_header(&header)?;
                self.check_quoted(octets, &header)?;
            }
        }
        let inner_ecn = header.traffic_class & ecn::MASK;
        let ecn = ecn::decapsulate(inner_ecn, self.origin.traffic_class).ok_or(DropReason::Ecn)?;
        if ecn != inner_ecn {
            set_ecn(octets, ecn);
        }
        self.clamp_mss(octets, &header);
        Ok(Span { len: header.total_len, ..payload })
    }

    /// Lowers what TCP announces, so that what is sent back fits through the tunnel.
    pub(super) fn clamp_mss(&self, packet: &mut [u8], header: &Header) {
        let [ipv4, ipv6] = self.sa.mss;
        if header.protocol == protocol::TCP
            && !header.is_later_fragment()
            && let Some(most) = if header.is_ipv4() { ipv4 } else { ipv6 }
        {
            mss::clamp(packet.get_mut(header.transport_at..header.total_len).unwrap_or_default(), most);
        }
    }

    /// The packet of transport mode, with the header that it came with where that was seen, else with one like it: the SA's
    /// addresses, which a NAT may have changed on the way, the received traffic class and hop limit.
    fn rebuild_transport(
        &mut self,
        frame: &InboundFrame,
        payload: Span,
        next_header: u8,
        memory: &mut Memory<'_>,
    ) -> Result<Span, DropReason> {
        let OuterPath { local, remote, encapsulation } = self.sa.core.path;
        let header_len = usize::from(frame.header_len);
        let seen = Span { offset: frame.span.long().offset.saturating_sub(header_len), len: header_len };
        let header_len = match seen.len {
            0 if local.is_ipv4() => IPV4_HEADER_LEN,
            0 => IPV6_HEADER_LEN,
            len => len,
        };
        let packet = Span { offset: *memory.used, len: header_len + payload.len };
        let (received, free) = memory.octets.split_at_mut_checked(packet.offset).ok_or(DropReason::Overflow)?;
        let out = free.get_mut(..packet.len).ok_or(DropReason::Overflow)?;
        let (header_out, payload_out) = out.split_at_mut_checked(header_len).ok_or(DropReason::Overflow)?;
        for (to, from) in payload_out.iter_mut().zip(payload.of(received)) {
            *to = *from;
        }
        if seen.len == 0 {
            let Origin { traffic_class, hop_limit, .. } = *self.origin;
            write_header(header_out, remote, local, next_header, traffic_class, payload.len)
                .ok_or(DropReason::BadInner)?;
            if let Some(hops) = hop_limit {
                set_hop_limit(header_out, hops);
            }
        } else {
            header_out.copy_from_slice(seen.of(received));
            take_over_header(out, header_len, (remote, local), next_header).ok_or(DropReason::BadInner)?;
        }
        let header = Header::parse(out).ok_or(DropReason::BadInner)?;
        self.check_header(&header)?;
        self.check_quoted(out, &header)?;
        if matches!(encapsulation, Encapsulation::Udp { .. }) {
            renew_checksum(out, &header).ok_or(DropReason::BadInner)?;
        }
        self.clamp_mss(out, &header);
        *memory.used += packet.len;
        Ok(packet)
    }

    /// Checks an ICMP error by the packet that it is about, too: that has to be one that we would send on this SA. Otherwise whoever
    /// sits behind the peer could tell our hosts tales about their other connections (RFC 4301 §6.2, R4301-6.2-1).
    fn check_quoted(&self, packet: &[u8], header: &Header) -> Result<(), DropReason> {
        if !icmp::is_error(packet, header) {
            return Ok(());
        }
        let quoted = icmp::quoted(packet, header).ok_or(DropReason::BadInner)?;
        let is_ours = self.sa.core.selectors.matches(&Selected::outbound(&quoted));
        if is_ours { Ok(()) } else { Err(DropReason::Selectors) }
    }

    /// Checks an inner packet by its own header. Later fragments are what their first one was, as far as the SA is also for what
    /// does not show its ports (R4301-7.3-1).
    fn check_header(&mut self, header: &Header) -> Result<(), DropReason> {
        let completed = self.policies.complete(Scope::Inbound(self.sa.core.spi.value()), header, self.now);
        self.check(&Selected::inbound(completed.as_ref().unwrap_or(header)))
    }

    /// Whether a packet is one of the SA's, and of its policy.
    pub(super) fn check(&mut self, packet: &Selected) -> Result<(), DropReason> {
        let core = &self.sa.core;
        if !core.selectors.matches(&self.policies.for_sa(packet, core.policy)) {
            return Err(DropReason::Selectors);
        }
        let admitted = self.policies.admit(core.interface, packet, core.policy, core.path.remote, self.outbound);
        admitted.map_err(|miss| match miss {
            Miss::Discard => DropReason::Discard,
            Miss::HiddenPorts => DropReason::HiddenPorts,
            Miss::NoPolicy | Miss::OtherPolicy | Miss::NoSa(_) | Miss::Elsewhere(_) | Miss::OutsideSa(_) => {
                DropReason::OtherPolicy
            }
        })
    }

    /// Counts an inner packet against the SA's limits.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), DropReason> {
        let core = &mut self.sa.core;
        let (direction, spi, policy) = (Direction::Inbound, core.spi, core.policy);
        match core.usage.charge(bytes) {
            Charge::Pass => Ok(()),
            Charge::PassAtSoftLimit => {
                self.events.push(Event::SoftLimit { direction, spi, policy });
                Ok(())
            }
            Charge::StopAtHardLimit => {
                self.events.push(Event::HardLimit { direction, spi, policy });
                Err(DropReason::HardLimit)
            }
            Charge::Stop => Err(DropReason::HardLimit),
        }
    }
}
