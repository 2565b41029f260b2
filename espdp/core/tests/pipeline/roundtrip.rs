//! What goes in comes out, and nothing of it is seen on the way.

use espdp_api::{CryptoEngine, Direction, Encapsulation, EspCipher, EspIntegrity, Event, InterfaceKind, Mode};
use espdp_core::Overhead;

use crate::support::{INNER, POLICY, Setup, UDP, algorithms, all_algorithms, udp, udp_between};

const SIZES: [usize; 9] = [0, 1, 2, 3, 15, 16, 17, 500, 1372];

#[test]
fn every_cipher_carries_packets_of_every_size_and_family() {
    for algorithms in all_algorithms() {
        for (outer_is_ipv6, encapsulation) in [(false, UDP), (true, Encapsulation::Esp)] {
            let setup = Setup { algorithms, outer_is_ipv6, encapsulation, ..Setup::default() };
            let (mut left, mut right) = setup.connect();
            for inner_is_ipv4 in [true, false] {
                for size in SIZES {
                    let packet = udp(inner_is_ipv4, size);
                    let wire = left.send(&packet);
                    assert_eq!(wire.len(), 1);
                    let overhead = Overhead::new(algorithms, setup.mode, encapsulation, outer_is_ipv6);
                    let outer = if outer_is_ipv6 { 40 } else { 20 } + if encapsulation == UDP { 8 } else { 0 };
                    assert_eq!(wire[0].octets.len() + outer, overhead.outer_len(packet.len()), "{algorithms:?}");
                    assert_eq!(right.receive(&wire), [packet], "{algorithms:?} {size}");
                }
            }
            assert_eq!(right.drops(Direction::Inbound), []);
        }
    }
}

#[test]
fn whatever_computes_on_each_side_they_understand_each_other() {
    let choices = [CryptoEngine::Auto, CryptoEngine::Library];
    for (left, right) in choices.into_iter().flat_map(|left| choices.map(|right| (left, right))) {
        for key_bits in [128, 192, 256] {
            for is_extended in [false, true] {
                let algorithms = algorithms(EspCipher::AesGcm16 { key_bits }, EspIntegrity::None, is_extended);
                let (mut left, mut right) = Setup { algorithms, engines: [left, right], ..Setup::default() }.connect();
                let sent: Vec<_> = (0..1400).step_by(7).map(|size| udp(true, size)).collect();
                let wire: Vec<_> = sent.iter().flat_map(|packet| left.send(packet)).collect();
                assert_eq!(right.receive(&wire), sent, "{key_bits}, {is_extended}");
                let mut broken = left.send(&udp(true, 100));
                broken[0].octets[30] ^= 1;
                assert_eq!(right.receive(&broken), Vec::<Vec<u8>>::new());
                assert_eq!(right.drops(Direction::Inbound), [("bad_icv".to_owned(), 1)]);
            }
        }
    }
}

#[test]
fn nothing_of_the_plaintext_is_on_the_wire() {
    let encrypts = |cipher| !matches!(cipher, EspCipher::Null | EspCipher::AesGmac { .. });
    for algorithms in all_algorithms().into_iter().filter(|algorithms| encrypts(algorithms.cipher)) {
        let (mut left, _) = Setup { algorithms, ..Setup::default() }.connect();
        let packet = udp(true, 300);
        let wire = left.send(&packet);
        for window in packet.windows(8) {
            assert!(!wire[0].octets.windows(8).any(|seen| seen == window), "{algorithms:?}");
        }
    }
}

#[test]
fn equal_packets_look_different_on_the_wire() {
    for algorithms in all_algorithms().into_iter().filter(|algorithms| algorithms.cipher != EspCipher::Null) {
        let (mut left, _) = Setup { algorithms, ..Setup::default() }.connect();
        let (first, second) = (left.send(&udp(true, 100)), left.send(&udp(true, 100)));
        assert_ne!(first[0].octets[8..], second[0].octets[8..]);
    }
}

#[test]
fn sequence_numbers_start_at_one_and_count_every_packet() {
    // R4303-2.2-1
    let (mut left, _) = Setup::default().connect();
    for expected in 1..=5u32 {
        let wire = left.send(&udp(true, 10));
        assert_eq!(wire[0].octets[4..8], expected.to_be_bytes());
        // R4106-3.1-1: the IV is the 64-bit counter.
        assert_eq!(wire[0].octets[8..16], u64::from(expected).to_be_bytes());
    }
    assert_eq!(left.statistics(Direction::Outbound).sequence, 5);
}

#[test]
fn transport_mode_protects_the_payload_and_rebuilds_the_packet() {
    for algorithms in all_algorithms() {
        for (outer_is_ipv6, encapsulation) in [(false, Encapsulation::Esp), (true, Encapsulation::Esp), (false, UDP)] {
            let mode = Mode::Transport;
            let setup = Setup { algorithms, mode, outer_is_ipv6, encapsulation, ..Setup::default() };
            let (mut left, mut right) = setup.connect();
            let (source, destination) = (left.path.local.to_string(), left.path.remote.to_string());
            for size in SIZES {
                let packet = udp_between(&source, &destination, 0xb8, size);
                let wire = left.send(&packet);
                assert_eq!(wire[0].outer.traffic_class, 0xb8);
                let overhead = Overhead::new(algorithms, mode, encapsulation, outer_is_ipv6);
                let outer = if outer_is_ipv6 { 40 } else { 20 } + if encapsulation == UDP { 8 } else { 0 };
                assert_eq!(wire[0].octets.len() + outer, overhead.outer_len(packet.len()));
                let received = right.receive(&wire);
                let header_len = if outer_is_ipv6 { 40 } else { 20 };
                assert_eq!(received[0][header_len..], packet[header_len..], "{algorithms:?} {size}");
                if encapsulation == Encapsulation::Esp {
                    assert_eq!(wire[0].header.len(), header_len);
                    assert!(outer_is_ipv6 || received == [packet.clone()], "the header came with the packet");
                }
                // Version, traffic class, length and addresses are as sent; otherwise label and identification are the kernel's.
                assert_eq!(received[0].len(), packet.len());
                let addresses = if outer_is_ipv6 { 8..40 } else { 12..20 };
                assert_eq!(received[0][addresses.clone()], packet[addresses]);
                assert_eq!(
                    received[0][..2].iter().map(|octet| octet & 0xf0).collect::<Vec<_>>(),
                    [packet[0] & 0xf0, packet[1] & 0xf0]
                );
            }
        }
    }
}

#[test]
fn ip_in_ip_with_transport_mode_is_tunnel_mode_on_the_wire() {
    let tunnel = Setup::default();
    let gateways = vec![crate::support::range("192.0.2.0", "192.0.2.255")];
    let ipip = Setup {
        mode: Mode::Transport,
        kind: InterfaceKind::Ipip,
        local: gateways.clone(),
        remote: gateways,
        ..Setup::default()
    };
    let (mut from_tunnel, _) = tunnel.connect();
    let (_, mut to_tunnel) = tunnel.connect();
    let (mut from_ipip, mut to_ipip) = ipip.connect();
    for packet in [udp(true, 99), udp(false, 99)] {
        let (one, other) = (from_tunnel.send(&packet), from_ipip.send(&packet));
        assert_eq!(one, other);
        assert_eq!(to_tunnel.receive(&other), std::slice::from_ref(&packet));
        assert_eq!(to_ipip.receive(&one), [packet]);
    }
}

#[test]
fn counters_and_first_packet_event_tell_what_passed() {
    let (mut left, mut right) = Setup::default().connect();
    assert_eq!(right.statistics(Direction::Inbound).idle_seconds, None);
    let packets = [udp(true, 100), udp(false, 200)];
    let wire: Vec<_> = packets.iter().flat_map(|packet| left.send(packet)).collect();
    right.receive(&wire);
    let octets = (packets[0].len() + packets[1].len()) as u64;
    right.pass(3_500);
    for (gateway, direction) in [(&left, Direction::Outbound), (&right, Direction::Inbound)] {
        let statistics = gateway.statistics(direction);
        assert_eq!((statistics.packets, statistics.bytes, statistics.sequence), (2, octets, 2));
    }
    assert_eq!(right.statistics(Direction::Inbound).idle_seconds, Some(3));
    assert_eq!(left.statistics(Direction::Outbound).idle_seconds, Some(0));
    let spi = right.inbound_spi;
    assert_eq!(right.events(), [Event::FirstPacket { spi, policy: POLICY }]);
    let counters = right.dataplane.interface_counters(right.interface);
    assert_eq!((counters.packets_in, counters.bytes_in, counters.packets_out), (2, octets, 0));
    let counters = left.dataplane.interface_counters(left.interface);
    assert_eq!((counters.packets_out, counters.bytes_out, counters.packets_in), (2, octets, 0));
}

#[test]
fn packets_of_both_families_stay_in_order_within_a_batch() {
    let (mut left, mut right) = Setup::default().connect();
    let packets: Vec<_> = (0..300).map(|at| udp_between(INNER[at % 2].0, INNER[at % 2].1, 0, at)).collect();
    let wire: Vec<_> = packets.iter().flat_map(|packet| left.send(packet)).collect();
    assert_eq!(right.receive(&wire), packets);
}
