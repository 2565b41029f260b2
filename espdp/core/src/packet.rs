//! What the pipeline must know of an IP packet: lengths, selectors, the bits that ESP copies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::PacketSummary;

use crate::batch::PackedOuter;
use crate::checksum::Sum;

/// Protocol numbers that the dataplane knows.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ESP: u8 = 50;
    pub(crate) const AH: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NO_NEXT_HEADER: u8 = 59;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const UDP_LITE: u8 = 136;

    /// Whether packets of a protocol have what stands for ports (RFC 4301 §4.4.1.1).
    pub(crate) const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | UDP_LITE | SCTP | DCCP | ICMP | ICMPV6 | MOBILITY)
    }

    /// Whether this is no transport protocol: what a later fragment names in front of it.
    pub(crate) const fn is_extension_header(protocol: u8) -> bool {
        matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
    }
}

/// A packet's header, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Source address.
    pub(crate) source: IpAddr,
    /// Destination address; its family is the packet's.
    pub(crate) destination: IpAddr,
    /// The transport protocol, behind all extension headers.
    pub(crate) protocol: u8,
    /// Source port, or ICMP type and code; `None` where not visible.
    pub(crate) source_port: Option<u16>,
    /// Destination port, or ICMP type and code again (RFC 4301 §4.4.1.1 knows one selector for both sides).
    pub(crate) destination_port: Option<u16>,
    /// Octets of the packet as its own header says.
    pub(crate) total_len: usize,
    /// Where the transport header starts.
    pub(crate) transport_at: usize,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// Don't Fragment; IPv6 packets are never fragmented on the way.
    pub(crate) dont_fragment: bool,
    /// Whether it is a fragment, the first or another.
    pub(crate) is_fragment: bool,
    /// Which packet's fragment it is.
    pub(crate) fragment: Option<Fragment>,
    /// Whether protocol and ports are those of another fragment of the packet, this one does not show them.
    pub(crate) is_completed: bool,
    /// Time to live, or hop limit.
    pub(crate) hop_limit: u8,
    /// The flow label; 0 for IPv4.
    pub(crate) flow_label: u32,
    /// Where ESP and AH stand in transport mode.
    pub(crate) outer_end: OuterEnd,
}

/// Where the headers end that stay in front of ESP in transport mode (RFC 4303 §3.1.1): all of an IPv4 header; of an IPv6 packet
/// the fixed header and everything up to the last hop-by-hop, routing or fragment header. Destination options that come after
/// those are for the packet's last destination alone, and are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OuterEnd {
    /// Where they end.
    pub(crate) at: usize,
    /// Where the octet stands that names what follows.
    pub(crate) next_header_at: usize,
    /// What follows.
    pub(crate) next_header: u8,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Its identification: 16 bits with IPv4, 32 with IPv6.
    pub(crate) id: u32,
    /// Whether it is the first one, with the transport header.
    pub(crate) is_first: bool,
}

impl Header {
    /// Reads the header of `packet`; what follows its total length is not looked at. `None` when it is no IP packet or is
    /// cut off.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_ipv4(packet),
            6 => Self::parse_ipv6(packet),
            _ => None,
        }
    }

    /// The header of a packet of `len` octets that a tunnel wraps; `ports` where it is UDP.
    pub(crate) fn of_wrapped(ip: &tunnel_codec::ip::IpHeader, ports: Option<(u16, u16)>, len: usize) -> Self {
        Self {
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            source_port: ports.map(|(source, _)| source),
            destination_port: ports.map(|(_, destination)| destination),
            total_len: len,
            transport_at: ip.octets(),
            traffic_class: ip.traffic_class,
            dont_fragment: ip.dont_fragment,
            is_fragment: false,
            fragment: None,
            is_completed: false,
            hop_limit: ip.hop_limit,
            flow_label: 0,
            outer_end: OuterEnd {
                at: ip.octets(),
                next_header_at: if ip.source.is_ipv4() { IPV4_PROTOCOL_AT } else { IPV6_NEXT_HEADER_AT },
                next_header: ip.protocol,
            },
        }
    }

    /// Octets of the fixed header.
    pub(crate) fn fixed_len(&self) -> usize {
        if self.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
    }

    /// Whether it is a fragment other than the first.
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.is_first)
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.destination.is_ipv4()
    }

    /// What may be copied to an outer header.
    pub(crate) fn outer(&self) -> PackedOuter {
        PackedOuter::of_inner(self.traffic_class, self.hop_limit, self.flow_label, self.dont_fragment)
    }

    /// The selectors, for events.
    pub(crate) fn summary(&self) -> PacketSummary {
        PacketSummary {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    fn parse_ipv4(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; IPV4_HEADER_LEN] = packet.first_chunk()?;
        #[rustfmt::skip]
        let &[version_ihl, traffic_class, len0, len1, id0, id1, flags, offset, hop_limit, protocol, _, _,
              s0, s1, s2, s3, d0, d1, d2, d3] = fixed;
        let header_len = usize::from(version_ihl & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([len0, len1]));
        if header_len < IPV4_HEADER_LEN || total_len < header_len {
            return None;
        }
        let transport = packet.get(header_len..total_len)?;
        let is_later_fragment = flags & 0x1f != 0 || offset != 0;
        let is_fragment = is_later_fragment || flags & IPV4_MORE_FRAGMENTS != 0;
        let id = u32::from(u16::from_be_bytes([id0, id1]));
        let (source_port, destination_port) = if is_later_fragment { (None, None) } else { ports(protocol, transport) };
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            source_port,
            destination_port,
            total_len,
            transport_at: header_len,
            traffic_class,
            dont_fragment: flags & IPV4_DONT_FRAGMENT != 0,
            is_fragment,
            fragment: is_fragment.then_some(Fragment { id, is_first: !is_later_fragment }),
            is_completed: false,
            hop_limit,
            flow_label: 0,
            outer_end: OuterEnd { at: header_len, next_header_at: IPV4_PROTOCOL_AT, next_header: protocol },
        })
    }

    fn parse_ipv6(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; IPV6_HEADER_LEN] = packet.first_chunk()?;
        let (start, addresses) = fixed.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let &[class0, class1, label0, label1, len0, len1, next_header, hop_limit] = start;
        let total_len = usize::from(u16::from_be_bytes([len0, len1])).checked_add(IPV6_HEADER_LEN)?;
        let chain = ExtensionHeaders::walk(packet.get(..total_len)?, next_header)?;
        let transport = packet.get(chain.transport_at..total_len)?;
        let (source_port, destination_port) =
            if chain.is_later_fragment { (None, None) } else { ports(chain.protocol, transport) };
        Some(Self {
            source: Ipv6Addr::from(*source).into(),
            destination: Ipv6Addr::from(*destination.first_chunk::<16>()?).into(),
            protocol: chain.protocol,
            source_port,
            destination_port,
            total_len,
            transport_at: chain.transport_at,
            traffic_class: (class0 << 4) | (class1 >> 4),
            dont_fragment: true,
            is_fragment: chain.is_fragment,
            fragment: chain.fragment(),
            is_completed: false,
            hop_limit,
            flow_label: u32::from_be_bytes([0, class1 & 0x0f, label0, label1]),
            outer_end: chain.outer_end,
        })
    }
}

/// Octets of an IPv4 header without options.
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// Octets of an IPv6 header without extension headers.
pub(crate) const IPV6_HEADER_LEN: usize = 40;

/// Where the protocol stands in an IPv4 header.
const IPV4_PROTOCOL_AT: usize = 9;
const IPV4_IDENTIFICATION_AT: usize = 4;
const IPV4_FLAGS_AT: usize = 6;
/// Where the addresses start in an IPv4 header.
const IPV4_SOURCE_AT: usize = 12;
/// Where the next header stands in an IPv6 header.
const IPV6_NEXT_HEADER_AT: usize = 6;
pub(crate) const IPV4_DONT_FRAGMENT: u8 = 0x40;
const IPV4_MORE_FRAGMENTS: u8 = 0x20;

/// What the walk along an IPv6 packet's extension headers found.
struct ExtensionHeaders {
    protocol: u8,
    transport_at: usize,
    is_fragment: bool,
    is_later_fragment: bool,
    fragment_id: u32,
    outer_end: OuterEnd,
}

impl ExtensionHeaders {
    /// More are never needed (RFC 8200 §4.1 names each once, destination options twice); a longer chain hides something.
    const MOST: usize = 8;

    fn walk(packet: &[u8], first: u8) -> Option<Self> {
        let mut chain = Self {
            protocol: first,
            transport_at: IPV6_HEADER_LEN,
            is_fragment: false,
            is_later_fragment: false,
            fragment_id: 0,
            outer_end: OuterEnd { at: IPV6_HEADER_LEN, next_header_at: IPV6_NEXT_HEADER_AT, next_header: first },
        };
        for _ in 0..=Self::MOST {
            let header = packet.get(chain.transport_at..)?;
            let mut stays_outside = true;
            let len = match chain.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING => options_len(header)?,
                protocol::DESTINATION_OPTIONS => {
                    stays_outside = false;
                    options_len(header)?
                }
                protocol::FRAGMENT => {
                    let &[_, _, offset0, offset1, id @ ..] = header.first_chunk::<8>()?;
                    let field = u16::from_be_bytes([offset0, offset1]);
                    chain.is_later_fragment = field & 0xfff8 != 0;
                    // RFC 6946: offset 0 and nothing more to come is a whole packet.
                    chain.is_fragment |= field & 0xfff9 != 0;
                    chain.fragment_id = u32::from_be_bytes(id);
                    8
                }
                _ => return Some(chain),
            };
            let next_header_at = chain.transport_at;
            chain.protocol = *header.first()?;
            chain.transport_at = chain.transport_at.checked_add(len)?;
            if stays_outside {
                chain.outer_end = OuterEnd { at: chain.transport_at, next_header_at, next_header: chain.protocol };
            }
            if chain.is_later_fragment {
                // What follows is payload from the middle of the packet.
                return (chain.transport_at <= packet.len()).then_some(chain);
            }
        }
        None
    }

    fn fragment(&self) -> Option<Fragment> {
        self.is_fragment.then_some(Fragment { id: self.fragment_id, is_first: !self.is_later_fragment })
    }
}

/// Octets of an options or routing header.
fn options_len(header: &[u8]) -> Option<usize> {
    Some(usize::from(*header.get(1)?).saturating_add(1).saturating_mul(8))
}

/// The port selectors of a transport header (RFC 4301 §4.4.1.1).
fn ports(protocol: u8, transport: &[u8]) -> (Option<u16>, Option<u16>) {
    let Some(&[a, b, c, d]) = transport.first_chunk::<4>() else { return (None, None) };
    match protocol {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP => {
            (Some(u16::from_be_bytes([a, b])), Some(u16::from_be_bytes([c, d])))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let type_and_code = Some(u16::from_be_bytes([a, b]));
            (type_and_code, type_and_code)
        }
        protocol::MOBILITY => {
            let header_type = Some(u16::from_be_bytes([c, 0]));
            (header_type, header_type)
        }
        _ => (None, None),
    }
}

/// Writes a fixed IP header in front of a payload of `payload_len` octets: what transport mode rebuilds.
/// `None` when `out` is too short, the families differ, or the packet would be too long.
pub(crate) fn write_header(
    out: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    next_header: u8,
    traffic_class: u8,
    payload_len: usize,
) -> Option<()> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let out: &mut [u8; IPV4_HEADER_LEN] = out.first_chunk_mut()?;
            let [l0, l1] = u16::try_from(payload_len.checked_add(IPV4_HEADER_LEN)?).ok()?.to_be_bytes();
            let [s0, s1, s2, s3] = source.octets();
            let [d0, d1, d2, d3] = destination.octets();
            #[rustfmt::skip]
            let mut header = [0x45, traffic_class, l0, l1, 0, 0, IPV4_DONT_FRAGMENT, 0, REBUILT_TTL, next_header, 0, 0,
                              s0, s1, s2, s3, d0, d1, d2, d3];
            [header[10], header[11]] = Sum::of(&header).checksum();
            *out = header;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let out: &mut [u8; IPV6_HEADER_LEN] = out.first_chunk_mut()?;
            let [l0, l1] = u16::try_from(payload_len).ok()?.to_be_bytes();
            let (start, addresses) = out.split_first_chunk_mut::<8>()?;
            let (source_out, destination_out) = addresses.split_first_chunk_mut::<16>()?;
            *start = [0x60 | (traffic_class >> 4), traffic_class << 4, 0, 0, l0, l1, next_header, REBUILT_TTL];
            *source_out = source.octets();
            destination_out.copy_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(())
}

/// Makes the headers at the start of `packet` say that `next_header` follows them, up to the end of `packet`.
/// `None` when they are not there, or the packet would be too long.
pub(crate) fn set_payload(packet: &mut [u8], outer_end: &OuterEnd, next_header: u8) -> Option<()> {
    *packet.get_mut(outer_end.next_header_at)? = next_header;
    let is_ipv4 = packet.first()? >> 4 == 4;
    let len = packet.len().checked_sub(if is_ipv4 { 0 } else { IPV6_HEADER_LEN })?;
    let len_at = if is_ipv4 { 2 } else { 4 };
    *packet.get_mut(len_at..)?.first_chunk_mut()? = u16::try_from(len).ok()?.to_be_bytes();
    if is_ipv4 {
        let header = packet.get_mut(..outer_end.at)?;
        let checksum_at = IPV4_PROTOCOL_AT.checked_add(1)?;
        *header.get_mut(checksum_at..)?.first_chunk_mut()? = [0, 0];
        let checksum = Sum::of(header).checksum();
        *header.get_mut(checksum_at..)?.first_chunk_mut()? = checksum;
    }
    Some(())
}

/// Takes Don't Fragment from the IPv4 header at the start of `packet`, and gives it an identification if it has none: fragments
/// need one. Its checksum is still to be computed. IPv6 packets stay as they are.
pub(crate) fn make_cuttable(packet: &mut [u8], sequence: u64) -> Option<()> {
    if packet.first()? >> 4 != 4 {
        return Some(());
    }
    *packet.get_mut(IPV4_FLAGS_AT)? &= !IPV4_DONT_FRAGMENT;
    let identification: &mut [u8; 2] = packet.get_mut(IPV4_IDENTIFICATION_AT..)?.first_chunk_mut()?;
    if *identification == [0, 0] {
        let [.., high, low] = sequence.to_be_bytes();
        // Zero would be replaced by the system, in each fragment by another one.
        *identification = [high, low.max(1)];
    }
    Some(())
}

/// Makes the IPv4 header of `header_len` octets at the start of `packet`, which was received in front of ESP, that of its payload
/// again, between these addresses. `None` when the addresses are of another family or the packet would be too long.
pub(crate) fn take_over_header(
    packet: &mut [u8],
    header_len: usize,
    (source, destination): (IpAddr, IpAddr),
    next_header: u8,
) -> Option<()> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { return None };
    let addresses: &mut [u8; 8] = packet.get_mut(IPV4_SOURCE_AT..)?.first_chunk_mut()?;
    let [s0, s1, s2, s3] = source.octets();
    let [d0, d1, d2, d3] = destination.octets();
    *addresses = [s0, s1, s2, s3, d0, d1, d2, d3];
    set_payload(packet, &OuterEnd { at: header_len, next_header_at: IPV4_PROTOCOL_AT, next_header }, next_header)
}

/// Overwrites time to live or hop limit of a packet that was parsed before, and repairs the IPv4 header checksum.
pub(crate) fn set_hop_limit(packet: &mut [u8], hops: u8) {
    match packet {
        [version_ihl, _, _, _, _, _, _, _, ttl, protocol, c0, c1, ..] if *version_ihl >> 4 == 4 => {
            let old = [*ttl, *protocol];
            *ttl = hops;
            let sum = Sum::of(&[!*c0, !*c1]).without(old).plus(Sum::of(&[hops, *protocol]));
            [*c0, *c1] = sum.checksum();
        }
        [_, _, _, _, _, _, _, hop_limit, ..] => *hop_limit = hops,
        _ => {}
    }
}

/// Time to live of rebuilt headers: the received one is not always known, and the packet has arrived anyway.
const REBUILT_TTL: u8 = 64;

/// Computes the checksum of a TCP or UDP packet anew: a NAT on the way changed the addresses that it covers
/// (RFC 3948 §3.1.2). The octets are authentic, so nothing is covered up.
pub(crate) fn renew_checksum(packet: &mut [u8], header: &Header) -> Option<()> {
    let checksum_at = match header.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return Some(()),
    };
    let transport = packet.get_mut(header.transport_at..header.total_len)?;
    let field: &mut [u8; 2] = transport.get_mut(checksum_at..)?.first_chunk_mut()?;
    // A UDP checksum of zero was never computed, a fragment's covers what is not here.
    if header.is_fragment || (header.protocol == protocol::UDP && *field == [0, 0]) {
        return Some(());
    }
    *field = [0, 0];
    let pseudo = Sum::of_pseudo_header(header.source, header.destination, header.protocol, transport.len());
    let checksum = pseudo.plus(Sum::of(transport)).checksum_never_zero();
    transport.get_mut(checksum_at..)?.first_chunk_mut::<2>()?.copy_from_slice(&checksum);
    Some(())
}

/// Overwrites the ECN bits of an IP packet that was parsed before, and repairs the IPv4 header checksum.
pub(crate) fn set_ecn(packet: &mut [u8], ecn: u8) {
    match packet {
        [version_ihl, traffic_class, _, _, _, _, _, _, _, _, c0, c1, ..] if *version_ihl >> 4 == 4 => {
            let old = [*version_ihl, *traffic_class];
            *traffic_class = (*traffic_class & !3) | (ecn & 3);
            // RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
            let sum = Sum::of(&[!*c0, !*c1]).without(old).plus(Sum::of(&[*version_ihl, *traffic_class]));
            [*c0, *c1] = sum.checksum();
        }
        [_, class_and_label, ..] => *class_and_label = (*class_and_label & !0x30) | ((ecn & 3) << 4),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ipv4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        let (source, destination) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        write_header(&mut packet, source, destination, protocol, 0xb8, payload.len()).unwrap();
        packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        packet[10..12].fill(0);
        let checksum = Sum::of(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum);
        packet.extend(payload);
        packet
    }

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        let (source, destination) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        write_header(&mut packet, source, destination, next_header, 0xb8, payload.len()).unwrap();
        packet.extend(payload);
        packet
    }

    #[test]
    fn ports_are_seen_in_whole_packets_and_first_fragments_only() {
        let ports = [0x12, 0x34, 0, 80, 0, 0, 0, 0];
        let whole = Header::parse(&ipv4(protocol::UDP, 0x4000, &ports)).unwrap();
        assert_eq!((whole.source_port, whole.destination_port), (Some(0x1234), Some(80)));
        assert!(whole.dont_fragment && !whole.is_fragment);
        let first = Header::parse(&ipv4(protocol::UDP, 0x2000, &ports)).unwrap();
        assert!(first.is_fragment && first.source_port == Some(0x1234));
        let later = Header::parse(&ipv4(protocol::UDP, 0x0001, &ports)).unwrap();
        assert!(later.is_fragment && later.source_port.is_none());
    }

    #[test]
    fn icmp_type_and_code_stand_for_ports() {
        let header = Header::parse(&ipv4(protocol::ICMP, 0, &[8, 3, 0, 0])).unwrap();
        assert_eq!((header.source_port, header.destination_port), (Some(0x0803), Some(0x0803)));
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport_header() {
        let mut payload = vec![protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([protocol::TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([0, 22, 0x80, 0, 0, 0, 0, 0]);
        let header = Header::parse(&ipv6(protocol::HOP_BY_HOP, &payload)).unwrap();
        assert_eq!((header.protocol, header.transport_at), (protocol::TCP, 64));
        assert_eq!((header.source_port, header.destination_port), (Some(22), Some(0x8000)));
        let outer_end = OuterEnd { at: 48, next_header_at: 40, next_header: protocol::DESTINATION_OPTIONS };
        assert_eq!((header.traffic_class, header.outer_end), (0xb8, outer_end));
    }

    /// RFC 4303 §3.1.1.
    #[test]
    fn headers_for_every_hop_stay_outside_and_those_for_the_destination_go_inside() {
        use protocol::{DESTINATION_OPTIONS as OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, UDP};
        let cases: [(&[u8], usize, usize, u8); 6] = [
            (&[], 40, 6, UDP),
            (&[OPTIONS], 40, 6, OPTIONS),
            (&[HOP_BY_HOP, OPTIONS], 48, 40, OPTIONS),
            (&[OPTIONS, ROUTING], 56, 48, UDP),
            (&[HOP_BY_HOP, OPTIONS, ROUTING, OPTIONS], 64, 56, OPTIONS),
            (&[HOP_BY_HOP, OPTIONS, ROUTING, FRAGMENT, OPTIONS], 72, 64, OPTIONS),
        ];
        for (chain, at, next_header_at, next_header) in cases {
            let mut kinds = chain.iter().copied().chain([UDP]);
            let first = kinds.next().unwrap();
            let mut payload: Vec<u8> = kinds.flat_map(|next| [next, 0, 0, 0, 0, 0, 0, 0]).collect();
            payload.extend([0, 1, 0, 2, 0, 8, 0, 0]);
            let header = Header::parse(&ipv6(first, &payload)).unwrap();
            assert_eq!(header.outer_end, OuterEnd { at, next_header_at, next_header }, "{chain:?}");
            assert_eq!((header.protocol, header.source_port), (UDP, Some(1)), "{chain:?}");
        }
    }

    #[test]
    fn flow_label_and_hop_limit_are_read() {
        let mut packet = ipv6(protocol::UDP, &[0; 8]);
        packet[1..4].copy_from_slice(&[0x8f, 0xed, 0xcb]);
        packet[7] = 9;
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.traffic_class, header.flow_label, header.hop_limit), (0xb8, 0xf_edcb, 9));
        assert_eq!(Header::parse(&ipv4(protocol::UDP, 0, &[])).unwrap().hop_limit, 64);
    }

    #[test]
    fn later_ipv6_fragments_hide_their_ports() {
        let later = ipv6(protocol::FRAGMENT, &[protocol::UDP, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4]);
        let header = Header::parse(&later).unwrap();
        assert!(header.is_fragment);
        assert_eq!((header.protocol, header.source_port), (protocol::UDP, None));
        let atomic = ipv6(protocol::FRAGMENT, &[protocol::UDP, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]);
        let header = Header::parse(&atomic).unwrap();
        assert!(!header.is_fragment && header.source_port == Some(0x0102));
        let [first, whole] = [[protocol::FRAGMENT, 0, 0, 1, 0, 0, 0, 1], [protocol::UDP, 0, 0, 0, 0, 0, 0, 1]];
        let both = ipv6(protocol::FRAGMENT, &[&first[..], &whole, &[1, 2, 3, 4]].concat());
        assert!(Header::parse(&both).unwrap().is_fragment, "the second fragment header does not undo the first");
    }

    #[test]
    fn endless_extension_headers_are_refused() {
        let payload = [protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(100);
        assert_eq!(Header::parse(&ipv6(protocol::DESTINATION_OPTIONS, &payload)), None);
    }

    #[test]
    fn lengths_beyond_the_packet_are_refused_and_less_is_trimmed() {
        let mut packet = ipv4(protocol::UDP, 0, &[0; 8]);
        packet.extend([0; 10]);
        assert_eq!(Header::parse(&packet).unwrap().total_len, 28);
        packet[3] = 200;
        assert_eq!(Header::parse(&packet), None);
        packet[3] = 19;
        assert_eq!(Header::parse(&packet), None);
        assert_eq!(Header::parse(&ipv6(protocol::UDP, &[0; 8])[..47]), None);
    }

    #[test]
    fn ecn_is_replaced_and_the_checksum_stays_right() {
        for ecn in 0..4 {
            let mut packet = ipv4(protocol::UDP, 0x4000, &[]);
            set_ecn(&mut packet, ecn);
            assert_eq!(packet[1], 0xb8 | ecn);
            assert!(Sum::of(&packet).is_right());
            let mut packet = ipv6(protocol::UDP, &[]);
            set_ecn(&mut packet, ecn);
            assert_eq!(Header::parse(&packet).unwrap().traffic_class, 0xb8 | ecn);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic_and_never_reach_outside(packet in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(header) = Header::parse(&packet) {
                prop_assert!(header.transport_at <= header.total_len && header.total_len <= packet.len());
            }
        }

        #[test]
        fn arbitrary_extension_headers_never_panic(next in any::<u8>(), rest in proptest::collection::vec(0u8..64, 0..120)) {
            let packet = ipv6(next, &rest);
            if let Some(header) = Header::parse(&packet) {
                prop_assert!(header.transport_at <= header.total_len);
            }
        }
    }
}
