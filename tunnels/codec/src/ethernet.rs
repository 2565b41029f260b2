//! Ethernet frames (IEEE 802.3) as tunnels carry them: without preamble and frame check sequence.
//!
//! ```text
//! ┌────────────────────┬────────────────────┬─────────────────────┬───────────┬─────────┐
//! │ Destination        │ Source             │ VLAN tags           │ EtherType │ Payload │
//! │ 6 octets           │ 6 octets           │ 4 octets each, or 0 │ 2 octets  │         │
//! └────────────────────┴────────────────────┴─────────────────────┴───────────┴─────────┘
//! ```

/// Octets of a header without VLAN tags.
pub const HEADER_LEN: usize = 14;

/// EtherTypes in host order.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Transparent Ethernet bridging: what GRE calls a whole frame (RFC 1701).
    pub const TEB: u16 = 0x6558;
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Where the payload of `frame` starts and what it is: the EtherType behind all VLAN tags, of which there may be two. `None` when
/// the frame ends before that.
#[must_use]
pub fn payload(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = HEADER_LEN;
    for _ in 0..=MOST_TAGS {
        let ether_type = u16::from_be_bytes(*frame.get(at.checked_sub(2)?..)?.first_chunk()?);
        if !matches!(ether_type, ether_type::VLAN | ether_type::SERVICE_VLAN) {
            return Some((at, ether_type));
        }
        at = at.checked_add(TAG_LEN)?;
    }
    None
}

/// A UDP source port for the tunnel packet that carries `frame`, the same for all frames of a flow, so that networks that spread
/// load over several paths keep flows together: a dynamic port (RFC 7348 §5) from a hash over Ethernet and IP addresses, protocol, and
/// ports where the packet is no fragment.
#[must_use]
pub fn entropy_port(frame: &[u8]) -> u16 {
    let mut hash = Hash::default();
    hash.add(frame.get(..HEADER_LEN).unwrap_or(frame));
    match payload(frame) {
        Some((at, ether_type::IPV4)) => hash.add_ipv4(frame.get(at..).unwrap_or_default()),
        Some((at, ether_type::IPV6)) => hash.add_ipv6(frame.get(at..).unwrap_or_default()),
        _ => {}
    }
    FIRST_DYNAMIC_PORT | hash.port_bits()
}

const TAG_LEN: usize = 4;
const MOST_TAGS: usize = 2;
/// RFC 6335 §6: 49152 to 65535.
const FIRST_DYNAMIC_PORT: u16 = 0xc000;

/// Multiply and fold, eight octets at a time.
#[derive(Default)]
struct Hash(u64);

impl Hash {
    fn add(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            let mixed =
                u128::from(self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = mixed.to_le_bytes();
            self.0 = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        }
    }

    fn add_ipv4(&mut self, packet: &[u8]) {
        let Some(&[version_ihl, _, _, _, _, _, flags, offset, _, protocol, ..]) = packet.first_chunk::<20>() else {
            return;
        };
        self.add(packet.get(12..20).unwrap_or_default());
        self.add(&[protocol]);
        let is_fragment = flags & 0x3f != 0 || offset != 0;
        if !is_fragment {
            let header_len = usize::from(version_ihl & 0x0f).saturating_mul(4);
            self.add_ports(protocol, packet.get(header_len..).unwrap_or_default());
        }
    }

    fn add_ipv6(&mut self, packet: &[u8]) {
        let Some(&[_, _, _, _, _, _, next_header, ..]) = packet.first_chunk::<40>() else { return };
        self.add(packet.get(8..40).unwrap_or_default());
        self.add(&[next_header]);
        self.add_ports(next_header, packet.get(40..).unwrap_or_default());
    }

    fn add_ports(&mut self, protocol: u8, transport: &[u8]) {
        if matches!(protocol, 6 | 17) {
            self.add(transport.get(..4).unwrap_or_default());
        }
    }

    fn port_bits(&self) -> u16 {
        let [a, b, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b]) & !FIRST_DYNAMIC_PORT
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn frame(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn udp_over_ipv4(fragment: [u8; 2], source_port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 0, fragment[0], fragment[1], 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(source_port.to_be_bytes());
        packet.extend([0; 10]);
        frame(&[], ether_type::IPV4, &packet)
    }

    #[test]
    fn payloads_are_found_behind_vlan_tags() {
        assert_eq!(payload(&frame(&[], ether_type::IPV4, &[])), Some((14, ether_type::IPV4)));
        assert_eq!(payload(&frame(&[ether_type::VLAN], ether_type::IPV6, &[])), Some((18, ether_type::IPV6)));
        let two = frame(&[ether_type::SERVICE_VLAN, ether_type::VLAN], 0x0806, &[]);
        assert_eq!(payload(&two), Some((22, 0x0806)));
        assert_eq!(payload(&two[..21]), None);
        assert_eq!(payload(&frame(&[ether_type::VLAN; 3], ether_type::IPV4, &[])), None);
    }

    /// R7348-5-3.
    #[test]
    fn flows_spread_over_the_dynamic_ports_and_each_keeps_its_own() {
        let ports: BTreeSet<u16> = (0..1000).map(|port| entropy_port(&udp_over_ipv4([0x40, 0], port))).collect();
        assert!(ports.len() > 900, "{} ports for 1000 flows", ports.len());
        assert!(ports.iter().all(|port| *port >= 49_152));
        assert_eq!(entropy_port(&udp_over_ipv4([0x40, 0], 7)), entropy_port(&udp_over_ipv4([0x40, 0], 7)));
    }

    #[test]
    fn all_fragments_of_a_packet_take_the_same_way() {
        let [first, later] = [udp_over_ipv4([0x20, 0], 7), udp_over_ipv4([0, 9], 8)];
        assert_eq!(entropy_port(&first), entropy_port(&later));
    }

    proptest! {
        #[test]
        fn any_frame_gets_a_dynamic_port(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(entropy_port(&frame) >= 49_152);
            if let Some((at, _)) = payload(&frame) {
                prop_assert!(at <= frame.len());
            }
        }
    }
}
