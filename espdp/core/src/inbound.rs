//! From ESP packets, and packets of tunnels in clear, to what is inside.

mod plain;
mod wrapped;

use std::time::Instant;

use espdp_api::{Direction, Encapsulation, Event, InterfaceKind, IpsecProtocol, Mode, OuterPath};

pub(crate) use self::plain::LastFlow;
use crate::batch::{Chunk, InboundFrame, Span, Stage};
use crate::coalesce::coalesce;
use crate::crypto::{Authentic, open_batch};
use crate::events::EventQueue;
use crate::interfaces::InterfaceTable;
use crate::limits::Charge;
use crate::packet::{
    Header, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol, renew_checksum, set_ecn, set_hop_limit, take_over_header,
    write_header,
};
use crate::policy::{Miss, PolicyTable, Scope, Selected};
use crate::sa::{InboundSa, OutboundTable, TRAILER_LEN};
use crate::{Dataplane, DropReason, InboundBatch, InterfaceId, Offloads, Opened, Origin, ah, ecn, icmp, mss};

impl Dataplane {
    /// Opens everything in `batch`, in three passes over all packets: SA and replay check, decryption, everything after.
    /// What `offloads` allow is coalesced.
    pub fn open<'a>(&mut self, now: Instant, offloads: Offloads, batch: &'a mut InboundBatch) -> Opened<'a> {
        let mut chunk = batch.chunk();
        self.drops.absorb(chunk.drops);
        chunk.writes.clear();
        chunk.pieces.clear();
        for frame in chunk.frames.iter_mut() {
            self.admit(now, chunk.memory, chunk.origins, frame);
        }
        if self.tracer.is_armed() {
            self.follow_admitted(now, chunk.memory, chunk.origins, chunk.frames);
        }
        let sas = &self.inbound;
        open_batch(chunk.frames, chunk.memory, |place| sas.get(place).map(|sa| &sa.core.transform));
        if self.tracer.is_armed() {
            self.follow_opened(chunk.memory, chunk.frames);
        }
        self.accept_all(now, &mut chunk);
        if self.tracer.is_armed() {
            self.follow_delivered(chunk.memory, chunk.frames);
        }
        coalesce(&mut chunk, offloads);
        batch.opened()
    }

    /// Finds the SA, and the sequence number that the packet claims. How the packet came, in UDP or not, does not matter
    /// (R7296-2.23-3).
    #[inline]
    fn admit(&mut self, now: Instant, memory: &[u8], origins: &[Origin], frame: &mut InboundFrame) {
        if !matches!(frame.stage, Stage::Received) {
            // In clear, or opened before and the batch not cleared since.
            if !matches!(frame.stage, Stage::InClear { .. }) {
                frame.stage = Stage::Dropped;
            }
            return;
        }
        let (protocol, packet) = (frame.protocol, frame.span.of(memory));
        let Some((spi, sequence)) = spi_and_sequence(protocol, packet) else {
            frame.stage = Stage::Dropped;
            self.drops.count(DropReason::Short);
            return;
        };
        let found = self.inbound.find(spi).filter(|(_, sa)| sa.core.protocol == protocol);
        let Some((place, sa)) = found else {
            frame.stage = Stage::Dropped;
            self.note_unknown(now, spi, origins.get(usize::from(frame.origin)));
            return;
        };
        frame.sa = place;
        let is_long_enough = match protocol {
            IpsecProtocol::Esp => sa.core.layout.allows(packet.len()),
            IpsecProtocol::Ah => {
                ah::Place::find(packet).is_some_and(|place| place.allows(packet, sa.core.layout.icv_len))
            }
        };
        frame.stage = if is_long_enough {
            let admitted = sa.window.admit(sequence);
            admitted.map_or_else(Stage::Refused, |sequence| Stage::Admitted { sequence })
        } else {
            Stage::Refused(DropReason::Short)
        };
    }

    /// R4303-3.4.2-1: dropped, and worth a record.
    #[cold]
    fn note_unknown(&mut self, now: Instant, spi: u32, origin: Option<&Origin>) {
        self.drops.count(DropReason::UnknownSpi);
        if let Some(origin) = origin
            && self.unknown_spi.allows(now)
        {
            self.events.push(Event::UnknownSpi { path: origin.path, spi });
        }
    }

    fn accept_all(&mut self, now: Instant, chunk: &mut Chunk<'_>) {
        for (place, frame) in chunk.frames.iter_mut().enumerate() {
            let result = match std::mem::replace(&mut frame.stage, Stage::Dropped) {
                Stage::Opened(proof) => {
                    let (Some(sa), Some(origin)) =
                        (self.inbound.get_mut(frame.sa), chunk.origins.get(usize::from(frame.origin)))
                    else {
                        continue;
                    };
                    let memory = Memory { octets: chunk.memory, used: chunk.used };
                    let mut accepting = Accepting {
                        sa,
                        origin,
                        now,
                        interfaces: &mut self.interfaces,
                        policies: &mut self.policies,
                        outbound: &self.outbound,
                        events: &mut self.events,
                    };
                    accepting.accept(proof, frame, memory)
                }
                Stage::InClear { protocol } => {
                    let Some(origin) = chunk.origins.get(usize::from(frame.origin)) else { continue };
                    match self.accept_clear(protocol, origin, frame.span.long(), chunk.memory) {
                        Ok((span, to)) => (frame.span, frame.stage) = (span.into(), Stage::Delivered(to)),
                        Err(reason) => {
                            self.drops.count(reason);
                            self.follow_dropped(place, reason);
                        }
                    }
                    continue;
                }
                Stage::Refused(reason) => Err(reason),
                Stage::Received | Stage::Admitted { .. } | Stage::Delivered(_) | Stage::Dropped => continue,
            };
            match result {
                Ok((span, to)) => (frame.span, frame.stage) = (span.into(), Stage::Delivered(to)),
                Err(reason) => {
                    if let Some(sa) = self.inbound.get_mut(frame.sa) {
                        sa.core.drops.count(reason);
                    }
                    self.follow_dropped(place, reason);
                }
            }
        }
    }
}

/// The memory of a batch, of which `used` octets are taken.
struct Memory<'a> {
    octets: &'a mut [u8],
    used: &'a mut usize,
}

/// Where what was inside goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An IP packet, which may be joined with others.
    Packet(InterfaceId),
    /// An Ethernet frame.
    Frame(InterfaceId),
}

/// What one authentic packet is judged with.
struct Accepting<'a> {
    sa: &'a mut InboundSa,
    origin: &'a Origin,
    now: Instant,
    interfaces: &'a mut InterfaceTable,
    policies: &'a mut PolicyTable,
    outbound: &'a OutboundTable,
    events: &'a mut EventQueue,
}

impl Accepting<'_> {
    /// Takes an authentic packet apart and says where its inner packet stands and where it goes.
    #[inline]
    fn accept(
        &mut self,
        proof: Authentic,
        frame: &InboundFrame,
        memory: Memory<'_>,
    ) -> Result<(Span, Place), DropReason> {
        let is_newest = proof.sequence() > self.sa.window.newest();
        self.sa.window.commit(proof)?;
        self.note_life(is_newest);
        let id = self.sa.core.interface;
        let judged = match self.accept_plain(frame.span.long(), memory.octets) {
            Some(judged) => judged.map(|inner| (inner, Place::Packet(id))),
            None => self.accept_any(frame, memory),
        };
        if let (Ok((inner, _)), Some(interface)) = (&judged, self.interfaces.get_mut(id)) {
            interface.counters.packets_in += 1;
            interface.counters.bytes_in += inner.len as u64;
        }
        judged
    }

    /// The general way.
    #[inline(never)]
    fn accept_any(&mut self, frame: &InboundFrame, mut memory: Memory<'_>) -> Result<(Span, Place), DropReason> {
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

    /// An authentic packet shows that the peer uses the SA, and where it is now.
    fn note_life(&mut self, is_newest: bool) {
        let core = &mut self.sa.core;
        let (spi, policy) = (core.spi, core.policy);
        if core.usage.touch(self.now) {
            self.events.push(Event::FirstPacket { spi, policy });
        }
        // A packet that was overtaken says where the peer was, not where it is.
        if is_newest && has_moved(&core.path, &self.origin.path) && self.sa.moved.allows(self.now) {
            self.events.push(Event::PeerMoved { spi, policy, path: self.origin.path });
        }
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
    fn clamp_mss(&self, packet: &mut [u8], header: &Header) {
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
    fn check(&mut self, packet: &Selected) -> Result<(), DropReason> {
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
    fn charge(&mut self, bytes: usize) -> Result<(), DropReason> {
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

/// What a packet says of itself: its SPI and the low half of its sequence number.
#[inline]
pub(crate) fn spi_and_sequence(protocol: IpsecProtocol, packet: &[u8]) -> Option<(u32, u32)> {
    match protocol {
        IpsecProtocol::Esp => {
            let &[s0, s1, s2, s3, n0, n1, n2, n3] = packet.first_chunk()?;
            Some((u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3])))
        }
        IpsecProtocol::Ah => ah::Place::find(packet)?.spi_and_sequence(packet),
    }
}

/// Whether a packet came from elsewhere than its SA says.
fn has_moved(known: &OuterPath, seen: &OuterPath) -> bool {
    known.remote != seen.remote
        || match (known.encapsulation, seen.encapsulation) {
            (Encapsulation::Esp, Encapsulation::Esp) => false,
            (Encapsulation::Udp { remote_port: known, .. }, Encapsulation::Udp { remote_port: seen, .. }) => {
                known != seen
            }
            (Encapsulation::Esp, Encapsulation::Udp { .. }) | (Encapsulation::Udp { .. }, Encapsulation::Esp) => true,
        }
}

#[cfg(test)]
mod tests;
