//! What a packet shows of its flow, read from fixed places.

use crate::InterfaceId;
use crate::batch::PackedOuter;
use crate::outbound::Template;
use crate::packet::{IPV4_DONT_FRAGMENT, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::policy::{Ipv4Flow, Ipv6Flow, PolicyTable};

/// The packets of one flow of one family. Only whole packets without options and with ports are any flow's; `None` for others.
pub(super) trait Flow: Sized {
    /// The flow of a packet, and what its header says that may be copied.
    fn of(packet: &[u8]) -> Option<(PackedOuter, Self)>;

    /// What the header of a packet says that may be copied, if it is one of this flow.
    fn outer_of(&self, packet: &[u8]) -> Option<PackedOuter>;

    /// Has the processor fetch what [`Self::template`] looks at.
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId);

    /// How the packets of the flow are wrapped.
    fn template<'p>(&self, policies: &'p PolicyTable, interface: InterfaceId) -> Option<&'p Template>;
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
    pub(super) fn of(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        match Ipv4::of(packet) {
            Some((outer, flow)) => Some((outer, Self::Ipv4(flow))),
            None => Ipv6::of(packet).map(|(outer, flow)| (outer, Self::Ipv6(flow))),
        }
    }

    /// Whether a packet is of this flow.
    #[inline]
    pub(super) fn has(&self, packet: &[u8]) -> bool {
        match self {
            Self::Ipv4(flow) => flow.outer_of(packet).is_some(),
            Self::Ipv6(flow) => flow.outer_of(packet).is_some(),
        }
    }

    /// See [`Flow::prefetch`].
    #[inline]
    pub(super) fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) {
        match self {
            Self::Ipv4(flow) => flow.prefetch(policies, interface),
            Self::Ipv6(flow) => flow.prefetch(policies, interface),
        }
    }

    /// See [`Flow::template`].
    #[inline]
    pub(super) fn template<'p>(&self, policies: &'p PolicyTable, interface: InterfaceId) -> Option<&'p Template> {
        match self {
            Self::Ipv4(flow) => flow.template(policies, interface),
            Self::Ipv6(flow) => flow.template(policies, interface),
        }
    }
}

/// Octets of source and destination port.
const PORTS_LEN: usize = 4;

/// What the packets of a flow have in common, as it stands in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipv4 {
    addresses: [u8; 8],
    ports: [u8; PORTS_LEN],
    protocol: u8,
}

impl Flow for Ipv4 {
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
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) {
        policies.prefetch_ipv4(&Ipv4Flow::outbound(interface, self.protocol, self.addresses, self.ports));
    }

    #[inline]
    fn template<'p>(&self, policies: &'p PolicyTable, interface: InterfaceId) -> Option<&'p Template> {
        policies.ipv4_template(&Ipv4Flow::outbound(interface, self.protocol, self.addresses, self.ports))
    }
}

impl Ipv4 {
    #[inline]
    fn read(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        let &[version_ihl, traffic_class, l0, l1, _, _, flags, offset, hop_limit, protocol, _, _, ref rest @ ..] =
            packet.first_chunk::<{ IPV4_HEADER_LEN + PORTS_LEN }>()?;
        let (addresses, ports) = rest.split_first_chunk()?;
        // The highest bit of the flags means nothing.
        let is_whole = u16::from_be_bytes([flags & !IPV4_DONT_FRAGMENT & 0x7f, offset]) == 0;
        let is_right = version_ihl == 0x45 && usize::from(u16::from_be_bytes([l0, l1])) == packet.len();
        let dont_fragment = flags & IPV4_DONT_FRAGMENT != 0;
        let flow = Self { addresses: *addresses, ports: *ports.first_chunk()?, protocol };
        (is_right && is_whole).then(|| (PackedOuter::of_inner(traffic_class, hop_limit, 0, dont_fragment), flow))
    }
}

/// As [`Ipv4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipv6 {
    addresses: [[u8; 8]; 4],
    ports: [u8; PORTS_LEN],
    protocol: u8,
}

impl Flow for Ipv6 {
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
    fn prefetch(&self, policies: &PolicyTable, interface: InterfaceId) {
        policies.prefetch_ipv6(&Ipv6Flow::outbound(interface, self.protocol, self.addresses, self.ports));
    }

    #[inline]
    fn template<'p>(&self, policies: &'p PolicyTable, interface: InterfaceId) -> Option<&'p Template> {
        policies.ipv6_template(&Ipv6Flow::outbound(interface, self.protocol, self.addresses, self.ports))
    }
}

impl Ipv6 {
    #[inline]
    fn read(packet: &[u8]) -> Option<(PackedOuter, Self)> {
        let &[class0, class1, label0, label1, l0, l1, protocol, hop_limit, ref rest @ ..] =
            packet.first_chunk::<{ IPV6_HEADER_LEN + PORTS_LEN }>()?;
        let (addresses, ports) = rest.split_first_chunk::<32>()?;
        let (words, _) = addresses.as_chunks();
        let flow = Self { addresses: *words.first_chunk()?, ports: *ports.first_chunk()?, protocol };
        let traffic_class = class0 << 4 | class1 >> 4;
        let flow_label = u32::from_be_bytes([0, class1 & 0x0f, label0, label1]);
        let is_right = class0 >> 4 == 6 && usize::from(u16::from_be_bytes([l0, l1])) + IPV6_HEADER_LEN == packet.len();
        is_right.then(|| (PackedOuter::of_inner(traffic_class, hop_limit, flow_label, true), flow))
    }
}

/// Protocols whose headers begin with two ports. Others have something else for selectors to look at, or nothing, and are rare.
#[inline]
fn has_two_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP)
}
