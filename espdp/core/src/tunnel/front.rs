//! The headers in front of a tunnel's packets.

use espdp_api::{Gre, InterfaceKind, L2tpCarrier, L2tpCookie, L2tpSublayer, L2tpv3, Layer, Vxlan};
use tunnel_codec::ethernet::{HEADER_LEN, entropy_port, ether_type};
use tunnel_codec::gre::{self, GreHeader};
use tunnel_codec::ip::IpHeader;
use tunnel_codec::l2tp::{self, Carrier, SessionHeader};
use tunnel_codec::{udp, vxlan};

use crate::packet::{Header, protocol};

/// The headers of one packet from the inside, which may stand for many segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    ip: IpHeader,
    kind: Kind,
    /// The sequence number of the first segment.
    sequence: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ipip,
    Gre { header: GreHeader, is_sequenced: bool },
    Vxlan { source_port: u16, port: u16, vni: u32 },
    L2tp { ports: Option<(u16, u16)>, session: u32, cookie: L2tpCookie, sublayer: L2tpSublayer },
}

impl Front {
    /// `ip` is complete but for its protocol.
    pub(super) fn new(kind: InterfaceKind, ip: IpHeader, inner_is_ipv4: bool, frame: &[u8], sequence: u32) -> Self {
        let (kind, protocol) = match kind {
            InterfaceKind::Gre(gre) => (gre_kind(gre, inner_is_ipv4), gre::PROTOCOL),
            InterfaceKind::Vxlan(Vxlan { vni, port }) => {
                let source_port = entropy_port(frame);
                (Kind::Vxlan { source_port, port, vni: vni.value() }, udp::PROTOCOL)
            }
            InterfaceKind::L2tpv3(L2tpv3 { peer_session, peer_cookie, carrier, sublayer, .. }) => {
                let (ports, protocol) = match carrier {
                    L2tpCarrier::Ip => (None, l2tp::PROTOCOL),
                    L2tpCarrier::Udp { local_port, remote_port } => (Some((local_port, remote_port)), udp::PROTOCOL),
                };
                (Kind::L2tp { ports, session: peer_session, cookie: peer_cookie, sublayer }, protocol)
            }
            InterfaceKind::Ipip
            | InterfaceKind::Ipsec
            | InterfaceKind::Tap
            | InterfaceKind::Host
            | InterfaceKind::Memory { .. } => (Kind::Ipip, if inner_is_ipv4 { protocol::IPV4 } else { protocol::IPV6 }),
        };
        Self { ip: IpHeader { protocol, ..ip }, kind, sequence }
    }

    /// Octets of the IP header.
    pub(crate) fn ip_octets(&self) -> usize {
        self.ip.octets()
    }

    /// Octets of all headers, IP included.
    pub(crate) fn octets(&self) -> usize {
        let behind_ip = match self.kind {
            Kind::Ipip => 0,
            Kind::Gre { header, is_sequenced } => numbered(header, is_sequenced, 0).octets(),
            Kind::Vxlan { .. } => udp::LEN + vxlan::LEN,
            Kind::L2tp { ports, session, ref cookie, sublayer } => {
                let udp_octets = if ports.is_some() { udp::LEN } else { 0 };
                udp_octets + session_header(ports, session, cookie, sublayer).octets()
            }
        };
        self.ip.octets() + behind_ip
    }

    /// The wrapped packet as policies see it; `len` are its octets.
    pub(crate) fn header(&self, len: usize) -> Header {
        let ports = match self.kind {
            Kind::Vxlan { source_port, port, .. } => Some((source_port, port)),
            Kind::L2tp { ports, .. } => ports,
            Kind::Ipip | Kind::Gre { .. } => None,
        };
        Header::of_wrapped(&self.ip, ports, len)
    }

    /// Writes segment `index` to `out`, which is as long as it will be: all headers, or all but the IP header, then what `inner`
    /// writes. `None` when the lengths contradict each other.
    pub(crate) fn write(
        &self,
        index: usize,
        without_ip: bool,
        out: &mut [u8],
        inner: impl FnOnce(&mut [u8]) -> Option<()>,
    ) -> Option<()> {
        let (ip, wrapped) = out.split_at_mut_checked(if without_ip { 0 } else { self.ip.octets() })?;
        let number = u32::try_from(index).ok()?;
        let sequence = self.sequence.wrapping_add(number);
        match self.kind {
            Kind::Ipip => inner(wrapped)?,
            Kind::Gre { header, is_sequenced } => {
                let header = numbered(header, is_sequenced, sequence);
                header.write(wrapped)?;
                inner(wrapped.get_mut(header.octets()..)?)?;
                if header.has_checksum {
                    gre::fill_checksum(wrapped)?;
                }
            }
            Kind::Vxlan { source_port, port, vni } => {
                let payload = wrapped.get_mut(udp::LEN..)?;
                vxlan::write(vni, payload)?;
                inner(payload.get_mut(vxlan::LEN..)?)?;
                self.finish_udp((source_port, port), wrapped)?;
            }
            Kind::L2tp { ports, session, ref cookie, sublayer } => {
                let message = wrapped.get_mut(if ports.is_some() { udp::LEN } else { 0 }..)?;
                let header = session_header(ports, session, cookie, sublayer);
                header.write((sublayer == L2tpSublayer::Sequenced).then_some(sequence), message)?;
                inner(message.get_mut(header.octets()..)?)?;
                if let Some(ports) = ports {
                    self.finish_udp(ports, wrapped)?;
                }
            }
        }
        if without_ip {
            return Some(());
        }
        let identification = self.ip.identification.wrapping_add(number as u16);
        IpHeader { identification, ..self.ip }.write(wrapped.len(), ip)
    }

    fn finish_udp(&self, (source, destination): (u16, u16), datagram: &mut [u8]) -> Option<()> {
        udp::write(source, destination, datagram.len().checked_sub(udp::LEN)?, datagram)?;
        udp::fill_checksum(self.ip.source, self.ip.destination, datagram)
    }
}

/// Octets that a tunnel of this kind adds to what the MTU of its interface counts: the IP header, the tunnel's own headers, and
/// the Ethernet header where it carries frames. 0 for kinds that add none.
///
/// ```
/// use espdp_api::{InterfaceKind, Vxlan};
/// let vxlan = InterfaceKind::Vxlan(Vxlan { vni: 7.try_into().unwrap(), port: Vxlan::PORT });
/// assert_eq!(espdp_core::tunnel_octets(vxlan, false), 20 + 8 + 8 + 14);
/// ```
#[must_use]
pub fn tunnel_octets(kind: InterfaceKind, outer_is_ipv6: bool) -> usize {
    let any =
        if outer_is_ipv6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
    let (hop_limit, traffic_class, dont_fragment, identification) = (0, 0, false, 0);
    let ip = IpHeader {
        source: any,
        destination: any,
        protocol: 0,
        hop_limit,
        traffic_class,
        dont_fragment,
        identification,
    };
    match kind {
        InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => 0,
        InterfaceKind::Ipip | InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_) => {
            let ethernet = if kind.layer() == Layer::Ethernet { HEADER_LEN } else { 0 };
            Front::new(kind, ip, true, &[], 0).octets() + ethernet
        }
    }
}

fn gre_kind(gre: Gre, inner_is_ipv4: bool) -> Kind {
    let protocol = match (gre.layer, inner_is_ipv4) {
        (Layer::Ethernet, _) => ether_type::TEB,
        (Layer::Ip, true) => ether_type::IPV4,
        (Layer::Ip, false) => ether_type::IPV6,
    };
    let header = GreHeader { protocol, has_checksum: gre.checksum, key: gre.key, sequence: None };
    Kind::Gre { header, is_sequenced: gre.sequence }
}

fn numbered(header: GreHeader, is_sequenced: bool, sequence: u32) -> GreHeader {
    GreHeader { sequence: is_sequenced.then_some(sequence), ..header }
}

fn session_header(
    ports: Option<(u16, u16)>,
    session: u32,
    cookie: &L2tpCookie,
    sublayer: L2tpSublayer,
) -> SessionHeader<'_> {
    let carrier = if ports.is_some() { Carrier::Udp } else { Carrier::Ip };
    SessionHeader { carrier, session, cookie: cookie.octets(), has_sublayer: sublayer != L2tpSublayer::None }
}
