//! Packets that come for a tunnel: out of an SA, or in clear.

use tunnel_codec::ethernet::{self, ether_type};
use tunnel_codec::udp;

use super::{Accepting, Memory, Place};
use crate::batch::{Origin, Span};
use crate::packet::{Header, protocol, set_ecn};
use crate::policy::Selected;
use crate::tunnel::{Arrival, Inner, Tunnel, TunnelKey};
use crate::{Dataplane, DropReason, InterfaceId, ecn};

/// One layer of headers that was taken off: what stood in it, and where what it carried stands.
struct Layer {
    arrival: Arrival,
    /// DSCP and ECN.
    traffic_class: u8,
    /// Behind the IP header, and behind the UDP header where there is one.
    payload: Span,
}

impl Accepting<'_> {
    /// Takes the tunnel's headers off an authentic packet of transport mode. Its outer header was that of the ESP packet, so its
    /// addresses are those of the SA, which a NAT may have changed on the way.
    pub(super) fn unwrap_transport(
        &mut self,
        payload: Span,
        next_header: u8,
        memory: &mut Memory<'_>,
    ) -> Result<(Span, Place), DropReason> {
        let path = self.sa.core.path;
        let arrival = Arrival { local: path.local, remote: path.remote, protocol: next_header, ports: None };
        let layer = Layer { arrival, traffic_class: self.origin.traffic_class, payload };
        self.unwrap_layer(layer.behind_udp(memory.octets)?, memory)
    }

    /// Takes the tunnel's headers, its own IP header among them, off an authentic packet of tunnel mode.
    pub(super) fn unwrap_in_tunnel_mode(
        &mut self,
        packet: Span,
        next_header: u8,
        memory: &mut Memory<'_>,
    ) -> Result<(Span, Place), DropReason> {
        let header = Header::parse(packet.of(memory.octets)).ok_or(DropReason::BadInner)?;
        let is_announced = header.is_ipv4() == (next_header == protocol::IPV4);
        if !is_announced || header.is_fragment {
            return Err(DropReason::BadInner);
        }
        let ecn = ecn::decapsulate(header.traffic_class, self.origin.traffic_class).ok_or(DropReason::Ecn)?;
        let layer = Layer::behind_ip(&header, packet);
        let layer = Layer { traffic_class: header.traffic_class & !ecn::MASK | ecn, ..layer };
        self.unwrap_layer(layer.behind_udp(memory.octets)?, memory)
    }

    /// The selectors are about the tunnel's packet (R4301-5.2-1), and the tunnel is that of the SA's interface.
    fn unwrap_layer(&mut self, layer: Layer, memory: &mut Memory<'_>) -> Result<(Span, Place), DropReason> {
        let Arrival { local, remote, protocol, ports } = layer.arrival;
        let (local_port, remote_port) = ports.unzip();
        let is_completed = false;
        self.check(&Selected { local, remote, protocol, local_port, remote_port, is_completed })?;
        let id = self.sa.core.interface;
        let interface = self.interfaces.get_mut(id).ok_or(DropReason::NextHeader)?;
        let tunnel = interface.tunnel.as_deref_mut().ok_or(DropReason::NextHeader)?;
        let (inner, place) = take_out(tunnel, id, &layer, memory.octets)?;
        if let (Place::Packet(_), true) = (place, self.sa.mss.iter().any(Option::is_some)) {
            let packet = inner.of_mut(memory.octets);
            if let Some(header) = Header::parse(packet) {
                self.clamp_mss(packet, &header);
            }
        }
        Ok((inner, place))
    }
}

impl Dataplane {
    /// Takes the headers off a packet that came in clear. Only a tunnel that says that its packets need no protection gets it.
    pub(super) fn accept_clear(
        &mut self,
        protocol: u8,
        origin: &Origin,
        payload: Span,
        memory: &mut [u8],
    ) -> Result<(Span, Place), DropReason> {
        let ports = match origin.path.encapsulation {
            espdp_api::Encapsulation::Esp => None,
            espdp_api::Encapsulation::Udp { local_port, remote_port } => Some((local_port, remote_port)),
        };
        let arrival = Arrival { local: origin.path.local, remote: origin.path.remote, protocol, ports };
        let layer = Layer { arrival, traffic_class: origin.traffic_class, payload };
        let tunnels = &self.tunnels;
        let key = TunnelKey::of_packet(&arrival, payload.of(memory), |port| tunnels.has_vxlan_on(port))?;
        let id = tunnels.find(key).ok_or(DropReason::NoTunnel)?;
        let interface = self.interfaces.get_mut(id).ok_or(DropReason::NoTunnel)?;
        let tunnel = interface.tunnel.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        if !tunnel.is_plain() {
            return Err(DropReason::ClearTunnel);
        }
        let found = take_out(tunnel, id, &layer, memory)?;
        interface.counters.packets_in += 1;
        interface.counters.bytes_in += found.0.len as u64;
        Ok(found)
    }
}

impl Layer {
    fn behind_ip(header: &Header, packet: Span) -> Self {
        let payload = Span { offset: packet.offset + header.transport_at, len: header.total_len - header.transport_at };
        let (local, remote) = (header.destination, header.source);
        let arrival = Arrival { local, remote, protocol: header.protocol, ports: None };
        Self { arrival, traffic_class: header.traffic_class, payload }
    }

    /// Takes the UDP header off, if that is what comes next.
    fn behind_udp(self, memory: &[u8]) -> Result<Self, DropReason> {
        if self.arrival.protocol != udp::PROTOCOL {
            return Ok(self);
        }
        let (source, destination, payload) = udp::parse(self.payload.of(memory)).ok_or(DropReason::TunnelHeader)?;
        let payload = Span { offset: self.payload.offset + udp::LEN, len: payload.len() };
        let arrival = Arrival { ports: Some((destination, source)), ..self.arrival };
        Ok(Self { arrival, payload, ..self })
    }
}

/// What is inside a tunnel's packet, with the congestion that its outer header tells of (RFC 6040 §4.2).
fn take_out(
    tunnel: &mut Tunnel,
    id: InterfaceId,
    layer: &Layer,
    memory: &mut [u8],
) -> Result<(Span, Place), DropReason> {
    let inner = tunnel.unwrap(&layer.arrival, layer.payload.of(memory))?;
    let within = |at: std::ops::Range<usize>| Span { offset: layer.payload.offset + at.start, len: at.len() };
    match inner {
        Inner::Packet { is_ipv4, at } => {
            let span = within(at);
            let header = Header::parse(span.of(memory)).filter(|header| header.is_ipv4() == is_ipv4);
            let header = header.ok_or(DropReason::BadInner)?;
            mark(span.of_mut(memory), &header, layer.traffic_class)?;
            Ok((Span { len: header.total_len, ..span }, Place::Packet(id)))
        }
        Inner::Frame { at } => {
            let span = within(at);
            let frame = span.of_mut(memory);
            if let Some((at, ether_type::IPV4 | ether_type::IPV6)) = ethernet::payload(frame)
                && let Some(packet) = frame.get_mut(at..)
                && let Some(header) = Header::parse(packet)
            {
                mark(packet, &header, layer.traffic_class)?;
            }
            Ok((span, Place::Frame(id)))
        }
    }
}

fn mark(packet: &mut [u8], header: &Header, outer: u8) -> Result<(), DropReason> {
    let inner = header.traffic_class & ecn::MASK;
    let ecn = ecn::decapsulate(inner, outer).ok_or(DropReason::Ecn)?;
    if ecn != inner {
        set_ecn(packet, ecn);
    }
    Ok(())
}
