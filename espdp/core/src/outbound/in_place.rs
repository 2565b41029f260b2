//! Packets that are wrapped where the device's driver put them, without being copied.
//!
//! This is the way of nearly all packets, beside the general one and with the same result: whole packets with ports, without
//! options, in tunnel mode, that fit and that no limit has anything to say to. Whatever else comes is copied out and goes the general way.

use std::time::Instant;

use super::{Filling, Progress, SuperPacket, Template};
use crate::batch::{Arrival, OutboundFrame, PackedOuter, Surroundings};
use crate::checksum::Sum;
use crate::interfaces::InterfaceCounters;
use crate::packet::{Header, IPV4_DONT_FRAGMENT, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::policy::{Ipv4Flow, Ipv6Flow, PolicyTable};
use crate::sa::OutboundTable;
use crate::segment::tcp_flags;
use crate::{Dataplane, InterfaceId, OutboundBatch, VnetHeader};

impl Filling<'_> {
    /// Room for [`OutboundBatch::SPACE`] octets that are read from `interface`, vnet header first, where packets can be wrapped
    /// without being copied; [`Self::arrive`] is next. `None` when the batch is full, or the interface's packets have to be copied
    /// anyway: read them elsewhere, and hand them to [`Self::push`].
    ///
    /// ```no_run
    /// # use espdp_core::{Dataplane, InterfaceId, OutboundBatch, Progress, SuperPacket};
    /// # fn read(_: &mut [u8], _: &mut [u8]) -> usize { 0 }
    /// # fn example(dataplane: &mut Dataplane, id: InterfaceId, batch: &mut OutboundBatch, buffer: &mut [u8], now: std::time::Instant) {
    /// let mut filling = dataplane.fill(now, batch);
    /// if let Some(space) = filling.space(id) {
    ///     let len = read(space, &mut buffer[OutboundBatch::SPACE..]); // first the one, then the other
    ///     if let Some(mut packet) = filling.arrive(id, len, buffer) {
    ///         let progress = filling.push(&mut packet); // a super-packet
    ///     }
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn space(&mut self, interface: InterfaceId) -> Option<&mut [u8]> {
        self.batch.space(self.in_place(interface)?)
    }

    /// Adds the `len` octets that were read into what [`Self::space`] gave last and, beyond that, into `buffer` from
    /// [`OutboundBatch::SPACE`] on. A super-packet cannot stay there: it is made whole in `buffer`, and still to be pushed.
    #[inline]
    pub fn arrive<'b>(&mut self, interface: InterfaceId, len: usize, buffer: &'b mut [u8]) -> Option<SuperPacket<'b>> {
        let around = self.in_place(interface)?;
        let space = self.batch.space(around)?;
        let (vnet, _) = VnetHeader::split_from(space, VnetHeader::LEN)?;
        if vnet.gso_type == VnetHeader::GSO_NONE && len <= OutboundBatch::SPACE {
            self.batch.arrive(interface, around, len);
            return None;
        }
        let first = len.min(OutboundBatch::SPACE);
        buffer.get_mut(..first)?.copy_from_slice(space.get(..first)?);
        let (vnet, packet) = VnetHeader::split_from(buffer.get(..len)?, VnetHeader::LEN)?;
        Some(SuperPacket::new(interface, vnet, packet))
    }

    /// What the packets of an interface will probably need around them.
    #[inline]
    fn in_place(&self, interface: InterfaceId) -> Option<Surroundings> {
        let interface = self.dataplane.interfaces.get(interface)?;
        interface.in_place.filter(|_| interface.tunnel.is_none() && !self.dataplane.tracer.is_armed())
    }

    /// Wraps all packets that arrived.
    pub(super) fn wrap_arrivals(&mut self) {
        while self.batch.next_arrival().is_some() {
            self.wrap_in_place();
            // What the fast path left, if anything.
            if let Some(arrival) = self.batch.next_arrival()
                && !self.learn(&arrival)
            {
                self.batch.finish_arrivals(1);
                self.push_arrival(arrival);
            }
        }
    }

    /// Looks for the route of a packet; whether that was worth while: it was not known, and leads to an SA.
    #[cold]
    fn learn(&mut self, arrival: &Arrival) -> bool {
        let Arrival { interface, .. } = *arrival;
        let Dataplane { interfaces, policies, outbound, .. } = &mut *self.dataplane;
        let header = Header::parse(self.batch.arrived(arrival)).filter(|header| !header.is_fragment);
        let (Some(header), Some(kind)) = (header, interfaces.get(interface).map(|interface| interface.kind)) else {
            return false;
        };
        !policies.knows_route(interface, &header) && policies.route(interface, kind, &header, outbound).is_ok()
    }

    /// Wraps packets up to the first one that has to go the general way.
    fn wrap_in_place(&mut self) {
        // What is behind must not overtake.
        if self.batch.has_postponed() {
            return;
        }
        let dataplane = &mut *self.dataplane;
        let Some(first) = self.batch.next_arrival() else { return };
        let (arrivals, frames, memory) = self.batch.arrivals();
        let mut wrapping = Wrapping {
            policies: &dataplane.policies,
            sas: &mut dataplane.outbound,
            memory,
            frames,
            now: self.now,
            last: Last::default(),
            touched: None,
        };
        let mut counters = InterfaceCounters::default();
        let mut done = 0;
        for arrival in arrivals {
            // One read loop serves one interface, so that this is hardly ever another one.
            if arrival.interface != first.interface || wrapping.wrap(arrival).is_none() {
                break;
            }
            counters.packets_out += 1;
            counters.bytes_out += u64::from(arrival.len);
            done += 1;
        }
        self.batch.finish_arrivals(done);
        if let Some(interface) = self.dataplane.interfaces.get_mut(first.interface) {
            interface.counters.packets_out += counters.packets_out;
            interface.counters.bytes_out += counters.bytes_out;
        }
    }

    /// Copies a packet out and sends it the general way.
    #[cold]
    fn push_arrival(&mut self, arrival: Arrival) {
        let Arrival { interface, vnet, .. } = arrival;
        let mut aside = std::mem::take(&mut self.dataplane.aside);
        aside.clear();
        aside.extend_from_slice(self.batch.arrived(&arrival));
        let progress = if self.batch.has_postponed() {
            Progress::BatchFull
        } else {
            self.push_one(&mut SuperPacket::new(interface, vnet, &aside))
        };
        match progress {
            Progress::Done => {}
            Progress::BatchFull => self.batch.postpone(interface, vnet, &aside),
            Progress::Elsewhere(worker) => self.batch.hand_over(worker, &arrival),
        }
        self.dataplane.aside = aside;
    }
}

/// What wrapping works with.
struct Wrapping<'a> {
    policies: &'a PolicyTable,
    sas: &'a mut OutboundTable,
    memory: &'a mut [u8],
    frames: &'a mut Vec<OutboundFrame>,
    now: Instant,
    last: Last,
    /// The SA of the packet before, which is known to be in use.
    touched: Option<u32>,
}

/// The flow of the packet before, since the next one is probably of the same.
#[derive(Default)]
struct Last {
    ipv4: Ipv4Flow,
    ipv6: Ipv6Flow,
    /// Of one of the two, the other one is empty.
    template: Template,
}

impl Wrapping<'_> {
    /// Wraps a packet. `None`, and nothing has changed, when it has to go the general way.
    #[inline]
    fn wrap(&mut self, arrival: &Arrival) -> Option<()> {
        let &Arrival { at, len, interface, around, ref vnet } = arrival;
        let (at, len) = (at as usize, usize::from(len));
        let (start, end) = (at - around.header_len(), at + len + around.tail_len(len));
        let (front, behind) = self.memory.get_mut(start..end)?.split_at_mut_checked(around.header_len() + len)?;
        let (header, packet) = front.split_at_mut_checked(around.header_len())?;
        let (header, trailer) = (header.first_chunk_mut()?, behind.first_chunk_mut()?);
        let outer = match packet.first()? >> 4 {
            4 => self.last.look_at_ipv4(self.policies, interface, packet)?,
            6 => self.last.look_at_ipv6(self.policies, interface, packet)?,
            _ => return None,
        };
        let template = &self.last.template;
        if len > usize::from(template.most) || around != template.around {
            return None;
        }
        if template.heeds_mss && is_syn(packet) {
            return None;
        }
        let needs_checksum = vnet.flags & VnetHeader::NEEDS_CSUM != 0;
        let checksum = if needs_checksum { Some(covered(vnet, packet)?) } else { None };
        let place = template.sa();
        let sa = self.sas.get_mut(place)?;
        // Nothing may go wrong any more when the packet has a number.
        let sequence = sa.admit_calmly(len)?;
        if self.touched != Some(place) {
            self.touched = Some(place);
            sa.core.usage.touch(self.now);
        }
        if let Some((covered, at)) = checksum {
            complete_checksum(covered, at);
        }
        *header = (u64::from(template.spi) << 32 | sequence & u64::from(u32::MAX)).to_be_bytes();
        match around.padding(len) {
            padding @ 0..=3 => *trailer = short_trailer(padding, template.next_header),
            padding => write_long_trailer(behind, padding, template.next_header),
        }
        self.frames.push(OutboundFrame {
            sequence,
            outer,
            sa: place,
            offset: start as u32,
            len: (end - start) as u16,
            own_header: 0,
            is_whole: false,
            is_sealed: false,
        });
        Some(())
    }
}

impl Last {
    /// Finds the template of a packet, and says what its outer header will be. `None` when it has to go the general way.
    #[inline]
    fn look_at_ipv4(&mut self, policies: &PolicyTable, interface: InterfaceId, packet: &[u8]) -> Option<PackedOuter> {
        let &[version_ihl, traffic_class, l0, l1, _, _, flags, offset, hop_limit, protocol, _, _, ref rest @ ..] =
            packet.first_chunk::<{ IPV4_HEADER_LEN + PORTS_LEN }>()?;
        let (addresses, ports) = rest.split_first_chunk()?;
        let is_whole = flags & !IPV4_DONT_FRAGMENT & 0x7f == 0 && offset == 0;
        let has_plain_header = version_ihl == 0x45 && usize::from(u16::from_be_bytes([l0, l1])) == packet.len();
        if !(has_plain_header && is_whole && has_two_ports(protocol)) {
            return None;
        }
        let flow = Ipv4Flow::outbound(interface, protocol, *addresses, *ports.first_chunk()?);
        if flow != self.ipv4 {
            self.template = *policies.ipv4_template(&flow)?;
            (self.ipv4, self.ipv6) = (flow, Ipv6Flow::default());
        }
        let dont_fragment = flags & IPV4_DONT_FRAGMENT != 0;
        Some(self.template.outer(PackedOuter::of_inner(traffic_class, hop_limit, 0, dont_fragment)))
    }

    /// As [`Self::look_at_ipv4`].
    #[inline]
    fn look_at_ipv6(&mut self, policies: &PolicyTable, interface: InterfaceId, packet: &[u8]) -> Option<PackedOuter> {
        let &[class0, class1, label0, label1, l0, l1, protocol, hop_limit, ref rest @ ..] =
            packet.first_chunk::<{ IPV6_HEADER_LEN + PORTS_LEN }>()?;
        let (addresses, ports) = rest.split_first_chunk::<32>()?;
        let is_right = usize::from(u16::from_be_bytes([l0, l1])) + IPV6_HEADER_LEN == packet.len();
        if !(is_right && has_two_ports(protocol)) {
            return None;
        }
        let (words, _) = addresses.as_chunks();
        let flow = Ipv6Flow::outbound(interface, protocol, *words.first_chunk()?, *ports.first_chunk()?);
        if flow != self.ipv6 {
            self.template = *policies.ipv6_template(&flow)?;
            (self.ipv4, self.ipv6) = (Ipv4Flow::default(), flow);
        }
        let traffic_class = class0 << 4 | class1 >> 4;
        let flow_label = u32::from_be_bytes([0, class1 & 0x0f, label0, label1]);
        Some(self.template.outer(PackedOuter::of_inner(traffic_class, hop_limit, flow_label, true)))
    }
}

/// Octets of source and destination port.
const PORTS_LEN: usize = 4;

/// Protocols whose headers begin with two ports. Others have something else for selectors to look at, or nothing, and are rare.
#[inline]
fn has_two_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP)
}

/// Whether a TCP packet without options or extension headers of IP asks for a connection; what is cut off might.
#[inline]
fn is_syn(packet: &[u8]) -> bool {
    let header_len =
        if packet.first().is_some_and(|first| first >> 4 == 4) { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
    packet.get(header_len + TCP_FLAGS_AT).is_none_or(|flags| flags & tcp_flags::SYN != 0)
}

/// Where the flags stand in a TCP header.
const TCP_FLAGS_AT: usize = 13;

/// What the checksum that a vnet header asks for covers, and where it stands in that. `None` when it reaches into the IP header or
/// beyond the packet.
fn covered<'p>(vnet: &VnetHeader, packet: &'p mut [u8]) -> Option<(&'p mut [u8], usize)> {
    let header_len = if packet.first()? >> 4 == 4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
    let covered =
        packet.get_mut(usize::from(vnet.csum_start)..).filter(|_| usize::from(vnet.csum_start) >= header_len)?;
    let at = usize::from(vnet.csum_offset);
    (at + 2 <= covered.len()).then_some((covered, at))
}

/// Puts a checksum in its place, which holds the sum of the pseudo header.
fn complete_checksum(covered: &mut [u8], at: usize) {
    let checksum = Sum::of(covered).checksum_never_zero();
    if let Some(place) = covered.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = checksum;
    }
}

/// Padding of up to three octets, its length and the next header, and what may stand where the ICV will.
#[inline]
fn short_trailer(padding: usize, next_header: u8) -> [u8; 8] {
    // RFC 4303 §2.4: 1, 2, 3 …
    const PADDING_AND_LENGTH: u64 = 0x03_03_02_01;
    let (keep, length_at) = ((1u64 << (8 * padding)) - 1, 8 * padding as u32);
    let word = PADDING_AND_LENGTH & keep | (padding as u64) << length_at | u64::from(next_header) << (length_at + 8);
    word.to_le_bytes()
}

/// The same for padding of any length.
fn write_long_trailer(behind: &mut [u8], padding: usize, next_header: u8) {
    let values = (1u8..).take(padding).chain([padding as u8, next_header]);
    for (octet, value) in behind.iter_mut().zip(values) {
        *octet = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trailers_are_like_long_ones() {
        for padding in 0..=3 {
            let mut long = [0; 8];
            write_long_trailer(&mut long, padding, 41);
            assert_eq!(short_trailer(padding, 41), long);
        }
    }
}
