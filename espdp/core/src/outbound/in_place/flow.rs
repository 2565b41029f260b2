//! What a packet shows of its flow, read from fixed places.

use crate::InterfaceId;
use crate::batch::PackedOuter;
use crate::outbound::Template;
use crate::packet::{IPV4_DONT_FRAGMENT, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::policy::{FlowPlace, Ipv4Flow, Ipv6Flow, PolicyTable};

/// The packets of one flow of one family. Only whole packets without options and with ports are any flow's; `None` for others.
pub(super) trait Flow: Sized {
    /// What the flow is known by, and where that stands.
    type Place: Copy + Default;

    /// The flow of a packet, and what its header says that may be copied.
    fn of(packet: &[u8]) -> Option<(PackedOuter, Self)>;

    /// What the header of a packet says that may be copied, if it is one of this flow.
    fn outer_of(&self, packet: &[u8]) -> Option<PackedOuter>;

    /// Where [`Self::template`] looks, which the processor is asked to fetch.
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) -> Self::Place;

    /// How the packets of a flow are wrapped.
    fn template<'p>(place: &Self::Place, policies: &'p PolicyTable) -> Option<&'p Template>;
}

/// The flow of a packet of either family.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnyFlow {
    Ipv4(Ipv4),
    Ipv6(Ipv6),
}

impl AnyFlow {
    /// See [`Flow::of`].
    #[inline]
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        match Ipv4::of(packet) {
            Some((_, flow)) => Some(Self::Ipv4(flow)),
            None => Ipv6::of(packet).map(|(_, flow)| Self::Ipv6(flow)),
        }
    }
}

/// What the packets of a flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipv4 {
    /// Source and destination, as they stand in a packet.
    addresses: [u8; 8],
    /// Source and destination port, likewise.
    ports: [u8; PORTS_LEN],
    protocol: u8,
}

impl Flow for Ipv4 {
    type Place = FlowPlace<Ipv4Flow>;

    #[inline]
    fn of(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        Self::read(packet).filter(|(_, flow)| has_two_ports(flow.protocol))
    }

    #[inline]
    fn outer_of(&self, packet: &[u8]) -> Option<PackedOuter> {
        let (outer, flow) = Self::read(packet)?;
        let is_same = flow.addresses == self.addresses && flow.ports == self.ports && flow.protocol == self.protocol;
        is_same.then_some(outer)
    }

    #[inline]
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) -> Self::Place {
        let (addresses, ports) = (u64::from_be_bytes(self.addresses), u32::from_be_bytes(self.ports));
        policies.prefetch_ipv4(Ipv4Flow::outbound(interface, self.protocol, addresses, ports))
    }

    #[inline]
    fn template<'p>(place: &Self::Place, policies: &'p PolicyTable) -> Option<&'p Template> {
        policies.ipv4_template(place)
    }
}

impl Ipv4 {
    #[inline]
    fn read(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        let (first, rest) = packet.first_chunk::<{ IPV4_HEADER_LEN + PORTS_LEN }>()?.split_first_chunk::<8>()?;
        let &[hop_limit, protocol, _, _, ref rest @ ..] = rest.first_chunk::<16>()?;
        let (addresses, ports) = rest.split_first_chunk::<8>()?;
        let first = u64::from_be_bytes(*first);
        // Without options, and whole; the highest bit of the flags means nothing.
        let is_right = first & 0xff00_0000_0000_3fff == 0x45 << 56 && (first >> 32) as u16 as usize == packet.len();
        let dont_fragment = first & u64::from(IPV4_DONT_FRAGMENT) << 8 != 0;
        let outer = PackedOuter::of_inner((first >> 48) as u8, hop_limit, 0, dont_fragment);
        let flow = Self { addresses: *addresses, ports: *ports.first_chunk()?, protocol };
        is_right.then_some((outer, flow))
    }
}

/// Octets of source and destination port.
const PORTS_LEN: usize = 4;

/// As [`Ipv4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipv6 {
    addresses: [u64; 4],
    ports: u32,
    protocol: u8,
}

impl Flow for Ipv6 {
    type Place = FlowPlace<Ipv6Flow>;

    #[inline]
    fn of(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        Self::read(packet).filter(|(_, flow)| has_two_ports(flow.protocol))
    }

    #[inline]
    fn outer_of(&self, packet: &[u8]) -> Option<PackedOuter> {
        let (outer, flow) = Self::read(packet)?;
        (flow == *self).then_some(outer)
    }

    #[inline]
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) -> Self::Place {
        policies.prefetch_ipv6(Ipv6Flow::outbound(interface, self.protocol, self.addresses, self.ports))
    }

    #[inline]
    fn template<'p>(place: &Self::Place, policies: &'p PolicyTable) -> Option<&'p Template> {
        policies.ipv6_template(place)
    }
}

impl Ipv6 {
    #[inline]
    fn read(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        let head: &[u8; IPV6_HEADER_LEN + PORTS_LEN] = packet.first_chunk()?;
        let (words, _) = head.as_chunks::<8>();
        let &[first, a, b, c, d] = words.first_chunk()?;
        let [first, a, b, c, d] = [first, a, b, c, d].map(u64::from_be_bytes);
        let len = (first >> 16) as u16 as usize + IPV6_HEADER_LEN;
        let is_right = first >> 60 == 6 && len == packet.len();
        let flow_label = (first >> 32) as u32 & 0x000f_ffff;
        let outer = PackedOuter::of_inner((first >> 52) as u8, first as u8, flow_label, true);
        let ports = u32::from_be_bytes(*head.last_chunk()?);
        let flow = Self { addresses: [a, b, c, d], ports, protocol: (first >> 8) as u8 };
        is_right.then_some((outer, flow))
    }
}

/// Protocols whose headers begin with two ports. Others have something else for selectors to look at, or nothing, and are rare.
#[inline]
fn has_two_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP)
}
