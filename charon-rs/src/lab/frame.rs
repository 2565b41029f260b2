//! What an Ethernet frame on the wire between two gateways is: protected, IKE, or something that should not be there.
//!
//! All of it is pure: octets in, verdict out. Nothing here trusts a length that a frame states.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What one frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// ESP, by itself or in UDP.
    Esp(EspPacket),
    /// An IKE message.
    Ike {
        /// Who sent it.
        source: IpAddr,
    },
    /// A NAT keepalive: one octet 0xFF on port 4500 (RFC 3948 §2.3).
    Keepalive,
    /// A protected network's address stands where everybody can read it.
    Leak(Leak),
    /// Anything else: neighbour discovery, address resolution, what the gateways say to each other outside the tunnel.
    Other,
}

/// The visible part of an ESP packet.
///
/// ```text
///  0                   1                   2                   3
/// |                Security Parameters Index (SPI)                |
/// |                     Sequence Number (low)                     |
/// |                     Payload Data (encrypted)                  ~
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspPacket {
    /// Who sent it.
    pub source: IpAddr,
    /// The SPI.
    pub spi: u32,
    /// The low half of the sequence number.
    pub sequence: u32,
    /// Whether it travels in UDP (RFC 3948).
    pub in_udp: bool,
    /// Octets of the whole IP packet, as its header says.
    pub octets: usize,
}

/// A clear packet of a protected network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its protocol (IANA protocol number), 0 for address resolution.
    pub protocol: u8,
}

/// Tells what `frame`, an Ethernet frame from its destination address on, is. `protected` are the networks whose
/// addresses must not be seen. A truncated frame is judged by what is there.
#[must_use]
pub fn classify(frame: &[u8], protected: &[IpNet]) -> Frame {
    let Some((&[hi, lo], packet)) = frame.get(MAC_ADDRESSES..).and_then(<[u8]>::split_first_chunk) else {
        return Frame::Other;
    };
    match u16::from_be_bytes([hi, lo]) {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {}
        ETHERTYPE_ARP => return classify_arp(packet, protected),
        _ => return Frame::Other,
    }
    let Some(packet) = IpPacket::parse(packet) else { return Frame::Other };
    if let Some(leak) = find_leak(&packet, protected, NESTING) {
        return Frame::Leak(leak);
    }
    match packet.protocol {
        PROTOCOL_ESP => esp(&packet, packet.payload, false),
        PROTOCOL_UDP => classify_udp(&packet),
        _ => Frame::Other,
    }
}

/// An IP packet, as far as it was captured.
struct IpPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// What follows the headers; empty in all fragments but the first.
    payload: &'a [u8],
    octets: usize,
}

impl<'a> IpPacket<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    /// ```text
    ///  0                   1                   2                   3
    /// |Version|  IHL  |Type of Service|          Total Length         |
    /// |         Identification        |Flags|      Fragment Offset    |
    /// |  Time to Live |    Protocol   |         Header Checksum       |
    /// |                       Source Address                          |
    /// |                    Destination Address                        |
    /// ```
    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let [first, _, total_hi, total_lo, _, _, flags, offset, _, protocol, _, _, addresses @ ..] = *header;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let header_octets = usize::from(first & 0x0f).checked_mul(4)?;
        let later_fragment = u16::from_be_bytes([flags & 0x1f, offset]) != 0;
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            payload: if later_fragment { &[] } else { packet.get(header_octets..)? },
            octets: u16::from_be_bytes([total_hi, total_lo]).into(),
        })
    }

    /// ```text
    /// |Version| Traffic Class |           Flow Label                  |
    /// |         Payload Length        |  Next Header  |   Hop Limit   |
    /// |                        Source Address (16)                    |
    /// |                     Destination Address (16)                  |
    /// ```
    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let (header, mut rest) = packet.split_first_chunk::<8>()?;
        let [_, _, _, _, length_hi, length_lo, mut protocol, _] = *header;
        let (source, after) = rest.split_first_chunk::<16>()?;
        let (destination, after) = after.split_first_chunk::<16>()?;
        rest = after;
        while let Some((next, after)) = skip_extension_header(protocol, rest) {
            (protocol, rest) = (next, after);
        }
        Some(Self {
            source: Ipv6Addr::from(*source).into(),
            destination: Ipv6Addr::from(*destination).into(),
            protocol,
            payload: rest,
            octets: usize::from(u16::from_be_bytes([length_hi, length_lo])).saturating_add(IPV6_HEADER),
        })
    }
}

/// The protocol and the octets after the extension header `protocol` at the start of `rest`; `None` when it is none.
fn skip_extension_header(protocol: u8, rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&[next, units], _) = rest.split_first_chunk()?;
    match protocol {
        EXTENSION_HOP_BY_HOP | EXTENSION_ROUTING | EXTENSION_DESTINATION => {
            // Counted in units of 8 octets, the first not included (RFC 8200 §4.3).
            let octets = usize::from(units).checked_add(1)?.checked_mul(8)?;
            Some((next, rest.get(octets..)?))
        }
        EXTENSION_FRAGMENT => {
            let (&[_, _, offset_hi, offset_lo, ..], after) = rest.split_first_chunk::<8>()?;
            let later_fragment = u16::from_be_bytes([offset_hi, offset_lo]) & 0xfff8 != 0;
            Some((next, if later_fragment { &[] } else { after }))
        }
        _ => None,
    }
}

/// A clear packet of a protected network: `packet` itself, one tunnelled in it without protection, or one that an ICMP
/// error quotes.
fn find_leak(packet: &IpPacket<'_>, protected: &[IpNet], depth: usize) -> Option<Leak> {
    let is_protected = |address: IpAddr| protected.iter().any(|network| network.contains(&address));
    if is_protected(packet.source) || is_protected(packet.destination) {
        let &IpPacket { source, destination, protocol, .. } = packet;
        return Some(Leak { source, destination, protocol });
    }
    let kind = packet.payload.first().copied();
    let quoted = match (packet.protocol, kind) {
        (PROTOCOL_IPV4 | PROTOCOL_IPV6, _) => packet.payload,
        // Destination unreachable, redirect, time exceeded, parameter problem (RFC 792).
        (PROTOCOL_ICMP, Some(3 | 5 | 11 | 12)) => packet.payload.get(ICMP_HEADER..)?,
        // All errors (RFC 4443 §2.1).
        (PROTOCOL_ICMPV6, Some(..=127)) => packet.payload.get(ICMP_HEADER..)?,
        // Neighbour solicitation and advertisement name the address that is asked for (RFC 4861 §4.3).
        (PROTOCOL_ICMPV6, Some(135 | 136)) => {
            let target = Ipv6Addr::from(*packet.payload.get(ICMP_HEADER..)?.first_chunk::<16>()?).into();
            let &IpPacket { source, protocol, .. } = packet;
            return is_protected(target).then_some(Leak { source, destination: target, protocol });
        }
        _ => return None,
    };
    let quoted = IpPacket::parse(quoted)?;
    find_leak(&quoted, protected, depth.checked_sub(1)?)
}

/// ARP (RFC 826) for IPv4 over Ethernet: an address of a protected network in it means that a gateway looks for its
/// owner on the wrong side.
///
/// ```text
/// | hardware (2) | protocol (2) | 6 | 4 | operation (2) | sender MAC (6) | sender IP (4) | target MAC (6) | target IP (4) |
/// ```
fn classify_arp(packet: &[u8], protected: &[IpNet]) -> Frame {
    let address = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
    let (Some(source), Some(destination)) = (address(14), address(24)) else { return Frame::Other };
    match protected.iter().any(|network| network.contains(&source) || network.contains(&destination)) {
        true => Frame::Leak(Leak { source, destination, protocol: 0 }),
        false => Frame::Other,
    }
}

/// IKE and ESP share port 4500: four zero octets come before an IKE message, where ESP has its SPI (RFC 3948 §2.2).
fn classify_udp(packet: &IpPacket<'_>) -> Frame {
    let Some((&[s0, s1, d0, d1, ..], payload)) = packet.payload.split_first_chunk::<8>() else { return Frame::Other };
    let ports = [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])];
    if ports.contains(&PORT_NAT) {
        match payload {
            [0xff] => Frame::Keepalive,
            [0, 0, 0, 0, ..] => Frame::Ike { source: packet.source },
            _ => esp(packet, payload, true),
        }
    } else if ports.contains(&PORT_IKE) {
        Frame::Ike { source: packet.source }
    } else {
        Frame::Other
    }
}

fn esp(packet: &IpPacket<'_>, payload: &[u8], in_udp: bool) -> Frame {
    let Some(&[a, b, c, d, e, f, g, h]) = payload.first_chunk() else { return Frame::Other };
    Frame::Esp(EspPacket {
        source: packet.source,
        spi: u32::from_be_bytes([a, b, c, d]),
        sequence: u32::from_be_bytes([e, f, g, h]),
        in_udp,
        octets: packet.octets,
    })
}

const MAC_ADDRESSES: usize = 12;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_ESP: u8 = 50;
const PROTOCOL_ICMPV6: u8 = 58;
const EXTENSION_HOP_BY_HOP: u8 = 0;
const EXTENSION_ROUTING: u8 = 43;
const EXTENSION_FRAGMENT: u8 = 44;
const EXTENSION_DESTINATION: u8 = 60;
const PORT_IKE: u16 = 500;
const PORT_NAT: u16 = 4500;
/// A packet in a packet in an ICMP error is as deep as clear traffic of a confused gateway gets.
const NESTING: usize = 3;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const OUTER: [&str; 2] = ["192.168.10.1", "192.168.10.2"];
    const OUTER_V6: [&str; 2] = ["fd10::1", "fd10::2"];

    pub(crate) fn protected() -> Vec<IpNet> {
        ["192.168.5.0/24", "192.168.3.0/24", "fec5::/16", "fec3::/16"].map(|net| net.parse().unwrap()).to_vec()
    }

    pub(crate) fn ip([source, destination]: [&str; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = (length + 20).to_be_bytes();
                let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(payload);
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(length.to_be_bytes());
                packet.extend([protocol, 64]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(payload);
                packet
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    pub(crate) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + 8).unwrap();
        let fields = [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]];
        [&fields.concat()[..], payload].concat()
    }

    pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
        let ethertype: u16 = if packet[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        [&[2; MAC_ADDRESSES][..], &ethertype.to_be_bytes(), packet].concat()
    }

    pub(crate) const ESP: [u8; 12] = [0xc0, 0, 0, 1, 0, 0, 0, 7, 0xaa, 0xbb, 0xcc, 0xdd];

    fn verdict(packet: &[u8]) -> Frame {
        classify(&ethernet(packet), &protected())
    }

    fn leaks(packet: &[u8]) -> bool {
        matches!(verdict(packet), Frame::Leak(_))
    }

    #[test]
    fn esp_is_found_in_both_families_with_spi_and_sequence_number() {
        for (addresses, header) in [(OUTER, 20), (OUTER_V6, 40)] {
            let expected = EspPacket {
                source: addresses[0].parse().unwrap(),
                spi: 0xc000_0001,
                sequence: 7,
                in_udp: false,
                octets: header + 12,
            };
            assert_eq!(verdict(&ip(addresses, 50, &ESP)), Frame::Esp(expected));
        }
    }

    #[test]
    fn on_port_4500_esp_ike_and_keepalives_are_told_apart() {
        let on_4500 = |payload: &[u8]| verdict(&ip(OUTER, 17, &udp(4500, payload)));
        assert!(matches!(on_4500(&ESP), Frame::Esp(EspPacket { spi: 0xc000_0001, in_udp: true, octets: 40, .. })));
        assert_eq!(on_4500(&[&[0; 4][..], &[1; 28]].concat()), Frame::Ike { source: OUTER[0].parse().unwrap() });
        assert_eq!(on_4500(&[0xff]), Frame::Keepalive);
        assert!(matches!(on_4500(&[0xff; 12]), Frame::Esp(EspPacket { spi: 0xffff_ffff, .. })));
        assert_eq!(on_4500(&[1, 2, 3]), Frame::Other);
    }

    #[test]
    fn on_port_500_everything_is_ike() {
        assert_eq!(verdict(&ip(OUTER_V6, 17, &udp(500, &ESP))), Frame::Ike { source: OUTER_V6[0].parse().unwrap() });
    }

    #[test]
    fn a_clear_packet_of_a_protected_network_is_a_leak() {
        assert!(leaks(&ip(["192.168.5.2", "192.168.3.2"], 6, &[0; 20])));
        assert!(leaks(&ip(["192.168.10.1", "192.168.3.2"], 1, &[8; 8])));
        assert!(leaks(&ip(["fec3::2", "fec5::2"], 58, &[128; 8])));
        assert!(leaks(&ip(["fec3::2", "fd10::1"], 17, &udp(4500, &ESP))), "not even when it looks like ESP");
    }

    #[test]
    fn a_clear_packet_inside_another_is_a_leak() {
        let inner = ip(["192.168.5.2", "192.168.3.2"], 6, &[0; 20]);
        let inner_v6 = ip(["fec5::2", "fec3::2"], 6, &[0; 20]);
        assert!(leaks(&ip(OUTER, 4, &inner)), "IP in IP");
        assert!(leaks(&ip(OUTER, 41, &inner_v6)), "IPv6 in IP");
        assert!(leaks(&ip(OUTER_V6, 4, &inner)), "IP in IPv6");
        assert!(leaks(&ip(OUTER, 1, &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &inner].concat())), "quoted by an ICMP error");
        assert!(leaks(&ip(OUTER_V6, 58, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &inner_v6].concat())), "by an ICMPv6 error");
        assert!(!leaks(&ip(OUTER, 1, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &ip(OUTER, 50, &ESP)].concat())));
    }

    #[test]
    fn looking_for_a_protected_neighbour_is_a_leak() {
        let arp = |target: [u8; 4]| {
            let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[2; 6], &[192, 168, 10, 1], &[0; 6], &target].concat();
            classify(&[&[2; MAC_ADDRESSES][..], &ETHERTYPE_ARP.to_be_bytes(), &packet].concat(), &protected())
        };
        assert!(matches!(arp([192, 168, 3, 2]), Frame::Leak(_)));
        assert_eq!(arp([192, 168, 10, 2]), Frame::Other);
        let solicitation = |target: &str| {
            let target = target.parse::<Ipv6Addr>().unwrap().octets();
            verdict(&ip(["fe80::1", "ff02::1:ff00:2"], 58, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()))
        };
        assert!(matches!(solicitation("fec3::2"), Frame::Leak(_)));
        assert_eq!(solicitation("fd10::2"), Frame::Other);
    }

    #[test]
    fn extension_headers_do_not_hide_anything() {
        let hop_by_hop = [&[50, 0, 1, 4, 0, 0, 0, 0][..], &ESP].concat();
        assert!(matches!(verdict(&ip(OUTER_V6, 0, &hop_by_hop)), Frame::Esp(EspPacket { sequence: 7, .. })));
        let first_fragment = [&[50, 0, 0, 1, 0, 0, 0, 9][..], &ESP].concat();
        assert!(matches!(verdict(&ip(OUTER_V6, 44, &first_fragment)), Frame::Esp(_)));
        let later_fragment = [&[50, 0, 0x05, 0xa8, 0, 0, 0, 9][..], &ESP].concat();
        assert_eq!(verdict(&ip(OUTER_V6, 44, &later_fragment)), Frame::Other);
    }

    #[test]
    fn no_truncation_makes_it_panic() {
        let whole = [
            ethernet(&ip(OUTER, 4, &ip(["192.168.5.2", "192.168.3.2"], 6, &[0; 20]))),
            ethernet(&ip(OUTER_V6, 0, &[&[50, 0, 1, 4, 0, 0, 0, 0][..], &ESP].concat())),
            ethernet(&ip(OUTER, 17, &udp(4500, &ESP))),
            ethernet(&ip(OUTER, 1, &[3; 40])),
        ];
        for frame in &whole {
            for length in 0..frame.len() {
                let seen = classify(&frame[..length], &protected());
                assert!(length >= 34 || seen == Frame::Other, "nothing can be known from {length} octets: {seen:?}");
            }
        }
    }
}
