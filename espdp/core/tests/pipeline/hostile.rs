//! Damaged, repeated, forged and misdirected packets.

use espdp_api::{
    Direction, Encapsulation, EspCipher, EspIntegrity, Event, Mode, OuterPath, PortRange, SaLimits, TrafficLimit,
};
use espdp_core::{InboundBatch, Offloads, Origin, OutboundBatch, Progress, SuperPacket, VnetHeader};
use proptest::prelude::*;

use crate::support::{INNER, POLICY, Setup, UDP, Wire, algorithms, all_algorithms, ip, range, udp, udp_between};

fn one(reason: &str, packets: u64) -> Vec<(String, u64)> {
    vec![(reason.to_owned(), packets)]
}

#[test]
fn no_flipped_bit_is_ever_accepted() {
    for algorithms in all_algorithms() {
        let (mut left, mut right) = Setup { algorithms, ..Setup::default() }.connect();
        let wire = left.send(&udp(true, 5));
        let mut damaged = Vec::new();
        for bit in 0..wire[0].octets.len() * 8 {
            let mut packet = wire[0].clone();
            packet.octets[bit / 8] ^= 1 << (bit % 8);
            damaged.push(packet);
        }
        assert_eq!(right.receive(&damaged), Vec::<Vec<u8>>::new(), "{algorithms:?}");
        assert_eq!(right.statistics(Direction::Inbound).sequence, 0, "R4303-3.4.3-2: the window did not move");
        assert_eq!(right.receive(&wire).len(), 1);
    }
}

#[test]
fn no_truncated_or_extended_packet_is_accepted() {
    for algorithms in all_algorithms() {
        let (mut left, mut right) = Setup { algorithms, ..Setup::default() }.connect();
        let wire = left.send(&udp(true, 30));
        let cut = |len: usize| {
            let mut packet = wire[0].clone();
            packet.octets.resize(len, 0);
            packet
        };
        let full = wire[0].octets.len();
        // A datagram of no octets or of zeros alone is no ESP packet to begin with.
        let cuts: Vec<_> = (1..full + 40).filter(|len| *len != full).map(cut).collect();
        assert_eq!(right.receive(&cuts), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn each_packet_is_accepted_once_even_within_one_batch() {
    let (mut left, mut right) = Setup::default().connect();
    let wire = left.send(&udp(true, 50));
    let twice = [wire[0].clone(), wire[0].clone()];
    assert_eq!(right.receive(&twice).len(), 1);
    assert_eq!(right.receive(&wire).len(), 0);
    assert_eq!(right.drops(Direction::Inbound), one("replay", 2));
}

#[test]
fn reordered_packets_pass_within_the_window_and_not_before_it() {
    let (mut left, mut right) = Setup { replay_window: 64, ..Setup::default() }.connect();
    let mut wire: Vec<_> = (0..100).flat_map(|_| left.send(&udp(true, 50))).collect();
    wire.reverse();
    assert_eq!(right.receive(&wire).len(), 64);
    assert_eq!(right.drops(Direction::Inbound), one("replay_too_old", 36));
}

/// R4303-3.4.2-1.
#[test]
fn unknown_spis_are_counted_and_reported_once_a_second() {
    let (mut left, mut right) = Setup::default().connect();
    let mut wire = left.send(&udp(true, 50));
    wire[0].octets[0] ^= 0x40;
    let spi = u32::from_be_bytes(wire[0].octets[..4].try_into().unwrap());
    for _ in 0..3 {
        assert!(right.receive(&wire).is_empty());
        right.pass(400);
    }
    right.pass(600);
    assert!(right.receive(&wire).is_empty());
    let expected = Event::UnknownSpi { path: right.path, spi };
    assert_eq!(right.events(), [expected.clone(), expected]);
    assert_eq!(right.drops(Direction::Inbound), one("unknown_spi", 4));
}

#[test]
fn inner_packets_outside_the_selectors_are_dropped() {
    // R4301-5.2-1: the sender's policy is wider than what the receiver negotiated.
    let wide = Setup::default();
    let narrow = Setup {
        local: vec![range("10.1.0.0", "10.1.0.255")],
        remote: vec![range("10.2.0.0", "10.2.0.255"), range("fd02::", "fd02::ffff")],
        ..Setup::default()
    };
    let (mut left, _) = wide.connect();
    let (_, mut right) = narrow.connect();
    let mut pass = |packet: &[u8]| right.receive(&left.send(packet)).len();
    assert_eq!(pass(&udp_between("10.1.0.9", "10.2.0.9", 0, 10)), 1);
    assert_eq!(pass(&udp_between("10.1.1.9", "10.2.0.9", 0, 10)), 0, "spoofed source");
    assert_eq!(pass(&udp_between("10.1.0.9", "10.3.0.9", 0, 10)), 0);
    assert_eq!(pass(&udp(false, 10)), 0);
    assert_eq!(right.drops(Direction::Inbound), one("selectors", 3));
}

#[test]
fn later_fragments_pass_any_ports_and_no_others() {
    // R4301-7.1-1, R4301-7.3-1
    let mut fragment = udp(true, 100);
    (fragment[6], fragment[7]) = (0, 10);
    let (mut left, mut right) = Setup::default().connect();
    assert_eq!(right.receive(&left.send(&fragment)), [fragment.clone()]);
    let mut dns = range("10.2.0.0", "10.2.0.255");
    (dns.protocol, dns.ports) = (17, PortRange { start: 53, end: 53 });
    let (mut left_dns, mut right_dns) = Setup { remote: vec![dns], ..Setup::default() }.connect();
    assert!(left_dns.send(&fragment).is_empty());
    assert_eq!(left_dns.drops(Direction::Outbound), one("hidden_ports", 1));
    assert!(right_dns.receive(&left.send(&fragment)).is_empty());
    assert_eq!(right_dns.receive(&left_dns.send(&udp(true, 9))).len(), 1);
}

#[test]
fn fragments_are_not_for_transport_mode_and_options_not_in_udp() {
    let setup = Setup { mode: Mode::Transport, ..Setup::default() };
    let (mut left, _) = setup.connect();
    let whole = udp_between("192.0.2.1", "192.0.2.2", 0, 100);
    let mut fragment = whole.clone();
    fragment[6] = 0x20;
    assert!(left.send(&fragment).is_empty());
    let mut options = whole.clone();
    options.splice(20..20, [1, 1, 1, 1]);
    options[0] = 0x46;
    options[3] += 4;
    assert!(left.send(&options).is_empty());
    assert_eq!(left.send(&whole).len(), 1);
    assert_eq!(left.drops(Direction::Outbound), one("transport_header", 2));
}

#[test]
fn transport_mode_is_for_the_two_ends_only_whatever_the_selectors_allow() {
    // The addresses of any other packet would be lost: the peer would take it for one to itself.
    for (outer_is_ipv6, encapsulation) in [(false, Encapsulation::Esp), (true, Encapsulation::Esp), (false, UDP)] {
        let setup = Setup { mode: Mode::Transport, outer_is_ipv6, encapsulation, ..Setup::default() };
        let (mut left, mut right) = setup.connect();
        let (us, peer) = (left.path.local.to_string(), left.path.remote.to_string());
        let (stranger, other) = if outer_is_ipv6 { INNER[1] } else { INNER[0] };
        assert!(left.send(&udp_between(&us, other, 0, 100)).is_empty());
        assert!(left.send(&udp_between(stranger, &peer, 0, 100)).is_empty());
        assert_eq!(left.drops(Direction::Outbound), one("outside_sa", 2));
        assert_eq!(right.receive(&left.send(&udp_between(&us, &peer, 0, 100))).len(), 1);
    }
}

#[test]
fn a_moved_peer_is_reported_by_its_newest_packet_only() {
    let (mut left, mut right) = Setup::default().connect();
    let elsewhere = |wire: &Wire, port: u16| {
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: port };
        Wire { path: OuterPath { encapsulation, ..wire.path }, ..wire.clone() }
    };
    let wire: Vec<_> = (0..6).flat_map(|_| left.send(&udp(true, 10))).collect();
    right.receive(&wire[1..2]);
    right.events();
    let mut forged = elsewhere(&wire[2], 6666);
    *forged.octets.last_mut().unwrap() ^= 1;
    right.receive(&[forged, elsewhere(&wire[0], 7777)]);
    assert_eq!(right.events(), [], "neither a forged nor an overtaken packet moves anybody");
    right.receive(&[elsewhere(&wire[2], 1024), elsewhere(&wire[3], 1025)]);
    right.pass(1000);
    right.receive(&[elsewhere(&wire[4], 1026)]);
    let moved = |port| {
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: port };
        Event::PeerMoved { spi: right.inbound_spi, policy: POLICY, path: OuterPath { encapsulation, ..right.path } }
    };
    let expected = [moved(1024), moved(1026)];
    assert_eq!(right.events(), expected, "at most once a second");
}

#[test]
fn limits_are_announced_and_kept_in_both_directions() {
    let limits = SaLimits {
        soft: TrafficLimit { packets: Some(3), bytes: None },
        hard: TrafficLimit { packets: None, bytes: Some(5 * 128) },
    };
    let (mut left, _) = Setup { outbound_limits: limits, ..Setup::default() }.connect();
    let (mut unlimited, mut right) = Setup { inbound_limits: limits, ..Setup::default() }.connect();
    let sent = (0..8).filter(|_| !left.send(&udp(true, 100)).is_empty()).count();
    let wire: Vec<_> = (0..8).flat_map(|_| unlimited.send(&udp(true, 100))).collect();
    assert_eq!((sent, right.receive(&wire).len()), (5, 5));
    for (gateway, direction) in [(&mut left, Direction::Outbound), (&mut right, Direction::Inbound)] {
        let events: Vec<_> =
            gateway.events().into_iter().filter(|event| !matches!(event, Event::FirstPacket { .. })).collect();
        let spi = gateway.statistics(direction).spi;
        assert_eq!(
            events,
            [Event::SoftLimit { direction, spi, policy: POLICY }, Event::HardLimit { direction, spi, policy: POLICY }]
        );
        assert_eq!(gateway.drops(direction), one("hard_limit", 3));
        assert_eq!(gateway.statistics(direction).packets, 5);
    }
}

#[test]
fn packets_that_no_send_could_carry_are_dropped() {
    let (mut left, _) = Setup::default().connect();
    assert_eq!(left.send(&udp(true, 65_400)).len(), 1);
    assert!(left.send(&ip(INNER[0].0, INNER[0].1, 1, 0, &vec![0; 65_500])).is_empty());
    assert_eq!(left.drops(Direction::Outbound), one("too_big", 1));
}

proptest! {
    #[test]
    fn arbitrary_outbound_octets_never_panic(
        head in prop_oneof![Just(0x45u8), Just(0x60), Just(0x46), any::<u8>()],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
        vnet in any::<[u8; 10]>(),
        gso_type in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81), any::<u8>()],
        fix_length in any::<bool>(),
    ) {
        let (mut left, mut right) = Setup { encapsulation: Encapsulation::Esp, ..Setup::default() }.connect();
        let mut packet = [&[head], rest.as_slice()].concat();
        let len = packet.len();
        if fix_length && len > 40 {
            let (at, stated) = if head >> 4 == 4 { (2, len) } else { (4, len - 40) };
            packet[at..at + 2].copy_from_slice(&(stated as u16).to_be_bytes());
        }
        let mut header = vnet;
        header[1] = gso_type;
        let (vnet, _) = VnetHeader::split_from(&header, VnetHeader::LEN).unwrap();
        let wire = left.send_super(vnet, &packet);
        // What was sent is at least a packet that the other end can read.
        let sent = wire.len();
        let received = right.receive_super(&wire, Offloads { tcp: true, udp: true });
        prop_assert!(received.len() <= sent);
        prop_assert_eq!(right.drops(Direction::Inbound), vec![]);
    }

    #[test]
    fn arbitrary_inbound_octets_never_panic_and_never_pass(
        octets in proptest::collection::vec(any::<u8>(), 1..300),
        stride in 0usize..80,
        with_spi in any::<bool>(),
    ) {
        let (_, mut right) = Setup::default().connect();
        let mut octets = octets;
        if with_spi && octets.len() >= 4 {
            octets[..4].copy_from_slice(&right.inbound_spi.to_wire());
        }
        let mut batch = InboundBatch::new();
        let origin = Origin { path: right.path, traffic_class: 0, hop_limit: None };
        for raw in [true, false] {
            batch.space().unwrap()[..octets.len()].copy_from_slice(&octets);
            if raw {
                batch.add_ipv4(octets.len());
            } else {
                batch.add_udp(octets.len(), stride, origin, |_| {});
            }
        }
        let opened = right.dataplane.open(right.now, Offloads { tcp: true, udp: true }, &mut batch);
        prop_assert_eq!(opened.deliveries().count(), 0);
    }
}

#[test]
fn a_batch_dropped_without_sealing_sends_nothing() {
    let (mut left, mut right) = Setup::default().connect();
    let mut batch = OutboundBatch::new();
    let packet = udp(true, 64);
    let mut unsent = SuperPacket::new(left.interface, VnetHeader::default(), &packet);
    assert_eq!(left.dataplane.fill(left.now, &mut batch).push(&mut unsent), Progress::Done);
    let sealed = left.dataplane.fill(left.now, &mut batch).seal();
    assert_eq!(sealed.runs().count(), 0);
    let wire = left.send(&packet);
    assert_eq!(wire[0].octets[4..8], [0, 0, 0, 2], "its sequence number is not used again");
    assert_eq!(right.receive(&wire), [packet]);
}

#[test]
fn extended_numbers_are_part_of_what_is_verified() {
    for (cipher, integrity) in
        [(EspCipher::ChaCha20Poly1305, EspIntegrity::None), (EspCipher::Null, EspIntegrity::HmacSha1_96)]
    {
        let (mut plain, _) = Setup { algorithms: algorithms(cipher, integrity, false), ..Setup::default() }.connect();
        let setup = Setup { algorithms: algorithms(cipher, integrity, true), encapsulation: UDP, ..Setup::default() };
        let (_, mut extended) = setup.connect();
        assert!(extended.receive(&plain.send(&udp(true, 10))).is_empty());
        assert_eq!(extended.drops(Direction::Inbound), one("bad_icv", 1));
    }
}
