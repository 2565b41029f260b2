//! The protocols of a frame, one inside the other, as far as anybody on the wire can see: `ipv4/udp/vxlan/ethernet/ipv4/esp`.
//!
//! All of it is pure: octets in, names out. Nothing here trusts a length that a frame states.

/// Names the protocols of `frame`, an Ethernet frame from its destination address on, from the outside to the inside. The
/// frame's own Ethernet header is left out, one that is carried inside is not.
#[must_use]
pub fn stack(frame: &[u8]) -> String {
    let mut layers = Vec::new();
    let mut next = ethernet(frame).1;
    while let Some((layer, octets)) = next {
        let (name, inner) = layer.read(octets);
        layers.push(name);
        next = if layers.len() < DEEPEST { inner } else { None };
    }
    layers.join("/")
}

/// Whether `stack` begins with all layers of `wanted`.
#[must_use]
pub fn begins_with(stack: &str, wanted: &str) -> bool {
    stack.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the octets are that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Ethernet,
    /// By the number of an Ethernet frame.
    EtherType(u16),
    /// By the number of an IP header.
    Protocol(u8),
    Vxlan,
    L2tp,
}

/// The name of a layer, and what is inside of it.
type Read<'a> = (&'static str, Option<(Layer, &'a [u8])>);

impl Layer {
    fn read(self, octets: &[u8]) -> Read<'_> {
        match self {
            Self::Ethernet => ethernet(octets),
            Self::EtherType(number) => read_ethertype(number, octets),
            Self::Protocol(number) => read_protocol(number, octets),
            Self::Vxlan => ("vxlan", octets.get(VXLAN_HEADER..).map(|inner| (Self::Ethernet, inner))),
            Self::L2tp => ("l2tp", None),
        }
    }
}

fn ethernet(frame: &[u8]) -> Read<'_> {
    let inner = frame.get(MAC_ADDRESSES..).and_then(<[u8]>::split_first_chunk::<2>);
    ("ethernet", inner.map(|(number, inner)| (Layer::EtherType(u16::from_be_bytes(*number)), inner)))
}

fn read_ethertype(number: u16, octets: &[u8]) -> Read<'_> {
    match number {
        0x0800 => ipv4(octets),
        0x0806 => ("arp", None),
        0x86dd => ipv6(octets),
        0x6558 => ethernet(octets),
        // Tag control information, then the number of what was tagged (IEEE 802.1Q).
        0x8100 | 0x88a8 => {
            let inner = octets.split_first_chunk::<4>();
            ("vlan", inner.map(|(&[_, _, a, b], inner)| (Layer::EtherType(u16::from_be_bytes([a, b])), inner)))
        }
        _ => ("unknown", None),
    }
}

fn ipv4(octets: &[u8]) -> Read<'_> {
    let Some(&[first, _, _, _, _, _, flags, offset, _, protocol]) = octets.first_chunk() else { return ("ipv4", None) };
    let inner = octets.get(usize::from(first & 0x0f).saturating_mul(4)..);
    match u16::from_be_bytes([flags & 0x1f, offset]) {
        0 => ("ipv4", inner.map(|inner| (Layer::Protocol(protocol), inner))),
        _ => ("ipv4/fragment", None),
    }
}

fn ipv6(octets: &[u8]) -> Read<'_> {
    let (Some(&protocol), Some(inner)) = (octets.get(IPV6_NEXT_HEADER), octets.get(IPV6_HEADER..)) else {
        return ("ipv6", None);
    };
    skip_extension_headers(protocol, inner)
}

/// Extension headers have no names of their own (RFC 8200 §4); only a later fragment is told apart.
fn skip_extension_headers(mut protocol: u8, mut octets: &[u8]) -> Read<'_> {
    while let Some(&[next, units, offset_hi, offset_lo]) = octets.first_chunk() {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options: units of 8 octets without the first.
            0 | 43 | 60 => usize::from(units).saturating_add(1).saturating_mul(8),
            44 if u16::from_be_bytes([offset_hi, offset_lo]) & 0xfff8 != 0 => return ("ipv6/fragment", None),
            44 => 8,
            _ => break,
        };
        let Some(rest) = octets.get(length..) else { return ("ipv6", None) };
        (protocol, octets) = (next, rest);
    }
    ("ipv6", Some((Layer::Protocol(protocol), octets)))
}

fn read_protocol(number: u8, octets: &[u8]) -> Read<'_> {
    match number {
        1 => ("icmp", None),
        2 => ("igmp", None),
        4 => ipv4(octets),
        6 => ("tcp", None),
        17 => udp(octets),
        41 => ipv6(octets),
        47 => gre(octets),
        50 => ("esp", None),
        51 => ah(octets),
        58 => ("icmpv6", None),
        89 => ("ospf", None),
        115 => ("l2tp", None),
        _ => ("unknown", None),
    }
}

/// IKE and ESP share port 4500: four zero octets come before an IKE message, where ESP has its SPI (RFC 3948 §2.2).
fn udp(octets: &[u8]) -> Read<'_> {
    let Some((&[s0, s1, d0, d1, ..], payload)) = octets.split_first_chunk::<8>() else { return ("udp", None) };
    let ports = [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])];
    match (ports, payload) {
        ([4500, _] | [_, 4500], [0xff]) => ("udp/keepalive", None),
        ([4500, _] | [_, 4500], [0, 0, 0, 0, ..]) | ([500, _] | [_, 500], _) => ("udp/ike", None),
        ([4500, _] | [_, 4500], _) => ("udp/esp", None),
        ([_, 4789], _) => ("udp", Some((Layer::Vxlan, payload))),
        ([_, 1701] | [1701, _], _) => ("udp", Some((Layer::L2tp, payload))),
        _ => ("udp", None),
    }
}

/// ```text
/// |C| |K|S| Reserved0       | Ver |         Protocol Type         |   RFC 2784, RFC 2890
/// |      Checksum (optional)      |       Reserved1 (optional)    |
/// |                         Key (optional)                        |
/// |                 Sequence Number (optional)                    |
/// ```
fn gre(octets: &[u8]) -> Read<'_> {
    let Some(&[flags, _, a, b]) = octets.first_chunk() else { return ("gre", None) };
    let optional = [0x80, 0x20, 0x10].iter().filter(|bit| flags & *bit != 0).count();
    let inner = octets.get(optional.saturating_add(1).saturating_mul(4)..);
    ("gre", inner.map(|inner| (Layer::EtherType(u16::from_be_bytes([a, b])), inner)))
}

/// The length counts 32-bit words, less 2 (RFC 4302 §2.2).
fn ah(octets: &[u8]) -> Read<'_> {
    let Some(&[next, words]) = octets.first_chunk() else { return ("ah", None) };
    let inner = octets.get(usize::from(words).saturating_add(2).saturating_mul(4)..);
    ("ah", inner.map(|inner| (Layer::Protocol(next), inner)))
}

/// More layers than these are not looked at: no tunnel is as deep.
const DEEPEST: usize = 12;
const MAC_ADDRESSES: usize = 12;
const IPV6_HEADER: usize = 40;
const IPV6_NEXT_HEADER: usize = 6;
const VXLAN_HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{ESP, ethernet, ip, udp};
    use super::*;

    const OUTER: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    const OUTER_V6: [&str; 2] = ["fd10::1", "fd10::2"];

    fn of(packet: &[u8]) -> String {
        stack(&ethernet(packet))
    }

    #[test]
    fn esp_hides_what_is_inside_and_ah_does_not() {
        assert_eq!(of(&ip(OUTER, 50, &ESP)), "ipv4/esp");
        assert_eq!(of(&ip(OUTER_V6, 17, &udp(4500, &ESP))), "ipv6/udp/esp");
        let header = [4, 4, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1];
        let packet = ip(OUTER, 51, &[&header[..], &[7; 12], &ip(OUTER, 6, &[0; 20])].concat());
        assert_eq!(of(&packet), "ipv4/ah/ipv4/tcp");
    }

    #[test]
    fn ike_and_keepalives_are_told_from_esp() {
        assert_eq!(of(&ip(OUTER, 17, &udp(500, &[7; 28]))), "ipv4/udp/ike");
        assert_eq!(of(&ip(OUTER, 17, &udp(4500, &[0; 28]))), "ipv4/udp/ike");
        assert_eq!(of(&ip(OUTER, 17, &udp(4500, &[0xff]))), "ipv4/udp/keepalive");
    }

    #[test]
    fn tunnels_without_protection_show_everything() {
        let inner = ip(["10.0.0.1", "10.0.0.2"], 1, &[8; 8]);
        assert_eq!(of(&ip(OUTER_V6, 4, &inner)), "ipv6/ipv4/icmp");
        let keyed = [&[0x20, 0, 0x08, 0, 0, 0, 0, 42][..], &inner].concat();
        assert_eq!(of(&ip(OUTER, 47, &keyed)), "ipv4/gre/ipv4/icmp");
        let everything = [&[0xb0, 0, 0x65, 0x58][..], &[0; 12], &ethernet(&inner)].concat();
        assert_eq!(of(&ip(OUTER, 47, &everything)), "ipv4/gre/ethernet/ipv4/icmp");
        let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &ethernet(&ip(OUTER, 50, &ESP))].concat();
        assert_eq!(of(&ip(OUTER, 17, &udp(4789, &vxlan))), "ipv4/udp/vxlan/ethernet/ipv4/esp");
        assert_eq!(of(&ip(OUTER_V6, 115, &[0; 8])), "ipv6/l2tp");
    }

    #[test]
    fn extension_headers_are_passed_over_and_later_fragments_named() {
        let hop_by_hop = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &[143; 8]].concat();
        assert_eq!(of(&ip(OUTER_V6, 0, &hop_by_hop)), "ipv6/icmpv6");
        assert_eq!(of(&ip(OUTER_V6, 44, &[50, 0, 0x05, 0xa8, 0, 0, 0, 9])), "ipv6/fragment");
        let mut later = ip(OUTER, 50, &ESP);
        later[7] = 1;
        assert_eq!(of(&later), "ipv4/fragment");
    }

    #[test]
    fn a_stack_begins_with_whole_layers_only() {
        assert!(begins_with("ipv4/esp", "ipv4/esp"));
        assert!(begins_with("ipv4/gre/ipv4/icmp", "ipv4/gre"));
        assert!(!begins_with("ipv4/icmpv6", "ipv4/icmp"));
        assert!(!begins_with("ipv4", "ipv4/esp"));
    }

    #[test]
    fn no_truncation_makes_it_panic() {
        let inner = ip(["10.0.0.1", "10.0.0.2"], 1, &[8; 8]);
        let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &ethernet(&inner)].concat();
        for packet in [
            ip(OUTER, 17, &udp(4789, &vxlan)),
            ip(OUTER, 47, &[&[0xb0, 0, 0x65, 0x58][..], &[0; 12], &ethernet(&inner)].concat()),
            ip(OUTER_V6, 51, &[&[4, 4, 0, 0][..], &[0; 20], &inner].concat()),
        ] {
            let frame = ethernet(&packet);
            let whole = stack(&frame);
            for length in 0..frame.len() {
                assert!(whole.starts_with(&stack(&frame[..length])), "{length} octets of {whole}");
            }
        }
    }

    #[test]
    fn a_frame_in_a_frame_in_a_frame_ends() {
        let mut packet = ip(OUTER, 4, &[]);
        for _ in 0..20 {
            packet = ip(OUTER, 4, &packet);
        }
        assert_eq!(of(&packet), ["ipv4"; DEEPEST].join("/"));
    }
}
