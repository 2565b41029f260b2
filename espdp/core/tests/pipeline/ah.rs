//! The Authentication Header through the whole pipeline.

use espdp_api::{
    Direction, EspCipher, EspIntegrity, InterfaceKind, IpsecProtocol, Mode, OuterPath, PacketShape, PaddingPolicy,
    Refusal, SaLimits, TrafficLimit,
};
use espdp_core::Overhead;

use crate::support::*;

pub const INTEGRITY: [EspIntegrity; 5] = [
    EspIntegrity::HmacSha1_96,
    EspIntegrity::HmacSha2_256_128,
    EspIntegrity::HmacSha2_384_192,
    EspIntegrity::HmacSha2_512_256,
    EspIntegrity::AesCmac96,
];

pub fn setup(integrity: EspIntegrity, extended: bool, mode: Mode, outer_is_ipv6: bool) -> Setup {
    Setup {
        protocol: IpsecProtocol::Ah,
        algorithms: algorithms(EspCipher::Null, integrity, extended),
        mode,
        outer_is_ipv6,
        encapsulation: espdp_api::Encapsulation::Esp,
        ..Setup::default()
    }
}

/// A packet between the gateways themselves.
pub fn between_gateways(outer_is_ipv6: bool, traffic_class: u8, len: usize) -> Vec<u8> {
    let (source, destination) = if outer_is_ipv6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    udp_between(source, destination, traffic_class, len)
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

#[test]
fn packets_arrive_as_they_were_in_both_modes_and_families_with_every_algorithm() {
    for integrity in INTEGRITY {
        for extended in [false, true] {
            for outer_is_ipv6 in [false, true] {
                let (mut left, mut right) = setup(integrity, extended, Mode::Tunnel, outer_is_ipv6).connect();
                for packet in [udp(true, 0), udp(false, 1), udp(true, 1301), udp(false, 99)] {
                    let wire = left.send_clear(&packet);
                    assert_eq!(wire[0][if outer_is_ipv6 { 6 } else { 9 }], 51);
                    assert_eq!(right.receive_ah(&wire), [packet], "{integrity:?}");
                }
                let (mut left, mut right) = setup(integrity, extended, Mode::Transport, outer_is_ipv6).connect();
                for len in [0, 1, 1301] {
                    let packet = between_gateways(outer_is_ipv6, 0xb8, len);
                    let wire = left.send_clear(&packet);
                    let written = right.receive_ah(&wire);
                    let payload = header_len(&packet);
                    assert_eq!(written[0][payload..], packet[payload..], "{integrity:?}");
                    assert_eq!(written[0][if outer_is_ipv6 { 6 } else { 9 }], 17);
                    assert_eq!(written[0].len(), packet.len());
                    if !outer_is_ipv6 {
                        // All of the header, which the socket shows: identification, time to live, checksum.
                        assert_eq!(written[0], packet);
                    }
                }
            }
        }
    }
}

/// R4302-2.2-1, R4302-2.3-1: lengths in words, padding to words of the family, the reserved field zero.
#[test]
fn the_header_is_laid_out_as_the_rfc_draws_it() {
    for (integrity, outer_is_ipv6, words) in [
        (EspIntegrity::HmacSha1_96, false, 4),
        (EspIntegrity::HmacSha1_96, true, 4),
        (EspIntegrity::HmacSha2_256_128, false, 5),
        (EspIntegrity::HmacSha2_256_128, true, 6),
        (EspIntegrity::HmacSha2_512_256, false, 9),
        (EspIntegrity::HmacSha2_512_256, true, 10),
    ] {
        let (mut left, right) = setup(integrity, true, Mode::Tunnel, outer_is_ipv6).connect();
        let inner = udp(true, 11);
        let wire = left.send_clear(&inner).remove(0);
        let ah = &wire[header_len(&wire)..];
        let len = 4 * (words + 2);
        assert_eq!(ah[..4], [4, words as u8, 0, 0]);
        assert_eq!(ah[4..8], right.inbound_spi.value().to_be_bytes());
        assert_eq!(ah[8..12], [0, 0, 0, 1]);
        assert_eq!(ah[len..], inner);
        let overhead =
            Overhead::authentication_header(algorithms(EspCipher::Null, integrity, true), Mode::Tunnel, outer_is_ipv6);
        assert_eq!(overhead.outer_len(inner.len()), wire.len());
        assert_eq!(overhead.inner_mtu(wire.len()), inner.len());
    }
}

/// R4302-3.3.3.1-1, R4302-3.4.4-1.
#[test]
fn a_router_may_count_and_mark_and_nobody_may_change_anything_else() {
    for (outer_is_ipv6, mutable) in [(false, vec![1, 6, 8, 10, 11]), (true, vec![])] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let setup = setup(EspIntegrity::HmacSha2_256_128, false, mode, outer_is_ipv6);
            let (mut left, _) = setup.connect();
            let wire = left.send_clear(&between_gateways(outer_is_ipv6, 0, 10)).remove(0);
            for at in 0..wire.len() {
                let mut changed = wire.clone();
                // The Don't Fragment bit, and the ECN bits turned from "not capable" would be dropped for another reason.
                changed[at] ^= if at == 6 { 0x40 } else { 0x08 };
                // Of IPv6 the socket hands over what stands behind the header; its addresses are those of the SA.
                let is_kept = mutable.contains(&at) || (outer_is_ipv6 && at < 40);
                let (_, mut right) = setup.connect();
                let arrived = right.receive_ah(&[changed]);
                assert_eq!(
                    arrived.len(),
                    usize::from(is_kept),
                    "{mode:?}, octet {at}: {:?}",
                    right.drops(Direction::Inbound)
                );
            }
        }
    }
}

#[test]
fn options_and_extension_headers_travel_along_in_transport_mode() {
    // Router alert.
    let mut packet = between_gateways(false, 0, 8);
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet[0] = 0x46;
    packet[3] += 4;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..24]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let (mut left, mut right) = setup(EspIntegrity::HmacSha2_256_128, true, Mode::Transport, false).connect();
    let wire = left.send_clear(&packet);
    assert_eq!(wire[0][20..24], [0x94, 4, 0, 0]);
    assert_eq!(right.receive_ah(&wire), [packet.clone()]);
    // A source route: what its header will look like there nobody here can say.
    packet[20..24].copy_from_slice(&[131, 3, 4, 0]);
    assert!(left.send_clear(&packet).is_empty());
    assert!(
        left.drops(Direction::Outbound).contains(&("transport_header".to_owned(), 1)),
        "{:?}",
        left.drops(Direction::Outbound)
    );
}

#[test]
fn replays_are_refused_and_a_packet_of_the_other_protocol_knows_no_sa() {
    let (mut left, mut right) = setup(EspIntegrity::HmacSha2_384_192, true, Mode::Tunnel, false).connect();
    let wire = left.send_clear(&udp(true, 20));
    assert_eq!(right.receive_ah(&wire).len(), 1);
    assert!(right.receive_ah(&wire).is_empty());
    assert!(right.drops(Direction::Inbound).contains(&("replay".to_owned(), 1)));
    // ESP with the SPI of an AH SA, and AH with that of an ESP SA.
    let outer = espdp_core::OuterHeader { dont_fragment: true, ..espdp_core::OuterHeader::default() };
    let esp = Wire { octets: wire[0][24..].to_vec(), header: Vec::new(), outer, path: left.path };
    assert!(right.receive(&[esp]).is_empty());
    assert!(right.drops(Direction::Inbound).contains(&("unknown_spi".to_owned(), 1)));
    let (_, mut other) = Setup::default().connect();
    let mut aimed = wire;
    aimed[0][24..28].copy_from_slice(&other.inbound_spi.value().to_be_bytes());
    assert!(other.receive_ah(&aimed).is_empty());
    assert!(other.drops(Direction::Inbound).contains(&("unknown_spi".to_owned(), 1)));
}

#[test]
fn ip_in_ip_is_authenticated_from_the_outer_header_on() {
    for outer_is_ipv6 in [false, true] {
        let base = setup(EspIntegrity::HmacSha2_256_128, false, Mode::Transport, outer_is_ipv6);
        let (mut left, mut right) = Setup { kind: InterfaceKind::Ipip, ..base }.connect();
        for packet in [udp(true, 33), udp(false, 33)] {
            let wire = left.send_clear(&packet);
            assert_eq!(wire[0][header_len(&wire[0])], if packet[0] >> 4 == 4 { 4 } else { 41 });
            assert_eq!(right.receive_ah(&wire), [packet]);
        }
    }
}

#[test]
fn limits_and_hostile_octets_meet_ah_as_they_meet_esp() {
    let hard = TrafficLimit { packets: Some(1), bytes: None };
    let limits = SaLimits { soft: TrafficLimit::default(), hard };
    let base = setup(EspIntegrity::HmacSha2_256_128, false, Mode::Tunnel, false);
    let (mut left, mut right) = Setup { outbound_limits: limits, ..base }.connect();
    let wire = left.send_clear(&udp(true, 5)).remove(0);
    assert!(left.send_clear(&udp(true, 5)).is_empty());
    for len in 0..wire.len() {
        assert!(right.receive_ah(&[wire[..len.max(1)].to_vec()]).is_empty(), "{len}");
    }
    let mut longer = wire.clone();
    longer[21] += 1;
    assert!(right.receive_ah(&[longer]).is_empty(), "more padding than needed");
    let mut fragment = wire.clone();
    fragment[6] = 0x20;
    assert!(right.receive_ah(&[fragment]).is_empty());
    assert_eq!(right.receive_ah(&[wire]).len(), 1);
}

#[test]
fn ah_is_refused_with_a_cipher_and_in_udp() {
    let base = setup(EspIntegrity::HmacSha2_256_128, false, Mode::Tunnel, false);
    let mut gateway = base.gateway(true);
    let gcm = algorithms(EspCipher::AesGcm16 { key_bits: 128 }, EspIntegrity::None, false);
    let in_udp = OuterPath { encapsulation: UDP, ..gateway.path };
    for (setup, path, part) in
        [(Setup { algorithms: gcm, ..base.clone() }, gateway.path, "integrity"), (base.clone(), in_udp, "NAT")]
    {
        let refused = gateway.dataplane.install_inbound(&setup.inbound(gateway.inbound_spi, path, true, 1));
        assert!(matches!(&refused, Err(Refusal::BadSa(why)) if why.contains(part)), "{refused:?}");
    }
    let spi = gateway.inbound_spi;
    gateway.dataplane.install_inbound(&base.inbound(spi, gateway.path, true, 1)).unwrap();
    let moved = gateway.dataplane.move_sa(Direction::Inbound, spi, POLICY, in_udp);
    assert!(matches!(moved, Err(Refusal::BadSa(_))), "{moved:?}");
}

/// RFC 4302 §2: the header has no place for either.
#[test]
fn ah_is_refused_with_dummy_packets_and_padding() {
    let shapes = [
        PacketShape { dummy_interval: Some(std::time::Duration::from_secs(1)), ..PacketShape::default() },
        PacketShape { padding: PaddingPolicy::To(500), ..PacketShape::default() },
    ];
    for shape in shapes {
        let setup = Setup { shape, ..setup(EspIntegrity::HmacSha2_256_128, true, Mode::Tunnel, false) };
        let mut gateway = setup.gateway(true);
        let spec = setup.outbound(gateway.inbound_spi, gateway.path, true, 1);
        let refused = gateway.dataplane.install_outbound(&spec);
        assert!(matches!(&refused, Err(Refusal::BadSa(why)) if why.contains("padding")), "{refused:?}");
    }
}
