//! GRE, VXLAN, L2TPv3 and IP in IP, in clear and inside ESP.

use espdp_api::{
    AddressRange, Direction, Encapsulation, Gre, InterfaceKind, InterfaceName, InterfaceSpec, L2tpCarrier, L2tpCookie,
    L2tpSublayer, L2tpv3, Layer, Mode, NextHop, PolicyAction, PolicyId, PolicySpec, PortRange, Protection, Refusal,
    TrafficSelector, TunnelEnds, Vxlan,
};
use espdp_core::VnetHeader;

use crate::support::{INNER, Setup, UDP, checksum, everything, ip, udp, udp_between};

fn gre(layer: Layer) -> Gre {
    Gre { key: Some(0x0a0b_0c0d), checksum: true, sequence: true, layer }
}

fn vxlan() -> InterfaceKind {
    InterfaceKind::Vxlan(Vxlan { vni: 42.try_into().unwrap(), port: Vxlan::PORT })
}

fn l2tp(carrier: L2tpCarrier, sublayer: L2tpSublayer) -> InterfaceKind {
    InterfaceKind::L2tpv3(L2tpv3 {
        session: 7,
        peer_session: 9,
        cookie: L2tpCookie::Eight([1, 2, 3, 4, 5, 6, 7, 8]),
        peer_cookie: L2tpCookie::Four([9, 8, 7, 6]),
        carrier,
        sublayer,
    })
}

/// Every kind of tunnel, with everything that it can have and without.
fn all_kinds() -> Vec<InterfaceKind> {
    let udp = L2tpCarrier::Udp { local_port: 1701, remote_port: 1702 };
    vec![
        InterfaceKind::Gre(Gre::default()),
        InterfaceKind::Gre(gre(Layer::Ip)),
        InterfaceKind::Gre(Gre { layer: Layer::Ethernet, ..Gre::default() }),
        InterfaceKind::Gre(gre(Layer::Ethernet)),
        vxlan(),
        l2tp(L2tpCarrier::Ip, L2tpSublayer::None),
        l2tp(L2tpCarrier::Ip, L2tpSublayer::Sequenced),
        l2tp(udp, L2tpSublayer::Default),
        l2tp(udp, L2tpSublayer::Sequenced),
    ]
}

/// The tunnel's own packets and nothing else, as the selectors of a Child SA in transport mode say it.
fn own_packets(kind: InterfaceKind, outer_is_ipv6: bool) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let over_ip = |l2tp: L2tpv3| l2tp.carrier == L2tpCarrier::Ip;
    let protocol = if matches!(kind, InterfaceKind::Gre(_)) {
        47
    } else if matches!(kind, InterfaceKind::L2tpv3(l2tp) if over_ip(l2tp)) {
        115
    } else {
        17
    };
    let host = |last: u8| {
        let v4 = [192, 0, 2, last].into();
        let v6 = format!("2001:db8::{last}").parse().unwrap();
        let addresses = AddressRange::single(if outer_is_ipv6 { v6 } else { v4 });
        vec![TrafficSelector { addresses, protocol, ports: PortRange::ANY }]
    };
    (host(1), host(2))
}

fn protected(kind: InterfaceKind, mode: Mode, outer_is_ipv6: bool) -> Setup {
    let (local, remote) = match mode {
        Mode::Tunnel => (vec![everything(true), everything(false)], vec![everything(true), everything(false)]),
        _ => own_packets(kind, outer_is_ipv6),
    };
    Setup { kind, mode, outer_is_ipv6, local, remote, encapsulation: Encapsulation::Esp, ..Setup::default() }
}

fn plain(kind: InterfaceKind, outer_is_ipv6: bool) -> Setup {
    Setup { kind, outer_is_ipv6, protection: Protection::None, ..Setup::default() }
}

fn frame(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What the inside of this kind of interface sends: packets of both families, or frames with and without them.
fn insides(kind: InterfaceKind) -> Vec<Vec<u8>> {
    match kind.layer() {
        Layer::Ip => vec![udp(true, 100), udp(false, 101)],
        Layer::Ethernet => vec![
            frame(0x0800, &udp(true, 100)),
            frame(0x86dd, &udp(false, 1)),
            frame(0x0806, &[1; 28]),
            frame(0x8100, &[&[0, 5, 8, 0][..], &udp(true, 3)].concat()),
            frame(0x88b5, &[]),
        ],
    }
}

#[test]
fn every_kind_of_tunnel_brings_back_what_went_in_protected_and_plain_over_both_families() {
    for kind in all_kinds() {
        for outer_is_ipv6 in [false, true] {
            for mode in [Mode::Transport, Mode::Tunnel] {
                let (mut left, mut right) = protected(kind, mode, outer_is_ipv6).connect();
                for inside in insides(kind) {
                    let wire = left.send(&inside);
                    assert_eq!(wire.len(), 1, "{kind:?} {mode:?} {:?}", left.dataplane.drops());
                    assert_eq!(right.receive(&wire), [inside], "{kind:?} {mode:?} {:?}", right.dataplane.drops());
                }
                let back = right.send(&insides(kind)[0]);
                assert_eq!(left.receive(&back), [insides(kind)[0].clone()]);
            }
            let (mut left, mut right) = plain(kind, outer_is_ipv6).connect();
            for inside in insides(kind) {
                let wire = left.send_in_clear(VnetHeader::default(), &inside);
                assert_eq!(right.receive_in_clear(&wire), [inside], "{kind:?} {:?}", right.dataplane.drops());
            }
        }
    }
}

#[test]
fn gre_stands_on_the_wire_as_its_rfcs_draw_it() {
    let (mut left, _) = plain(InterfaceKind::Gre(gre(Layer::Ip)), false).connect();
    let inner = udp(true, 5);
    for sequence in 0..2u8 {
        let wire = left.send_in_clear(VnetHeader::default(), &inner);
        let [packet] = &wire[..] else { panic!("{wire:?}") };
        assert_eq!(packet[..10], [0x45, 0, 0, 20 + 16 + 33, 0, sequence, 0x40, 0, 64, 47]);
        assert_eq!(packet[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(packet[20..24], [0xb0, 0, 0x08, 0x00]);
        assert_eq!(packet[28..36], [0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, sequence]);
        assert_eq!(packet[36..], inner);
        assert_eq!(checksum(&[&packet[..20]]), 0);
        assert_eq!(checksum(&[&packet[20..]]), 0);
    }
}

#[test]
fn vxlan_stands_on_the_wire_as_its_rfc_draws_it() {
    let (mut left, _) = plain(vxlan(), false).connect();
    let inner = frame(0x0806, &[1; 28]);
    let wire = left.send_in_clear(VnetHeader::default(), &inner);
    let packet = &wire[0];
    assert_eq!((packet[9], packet.len()), (17, 20 + 8 + 8 + 42));
    assert!(u16::from_be_bytes([packet[20], packet[21]]) >= 49_152);
    assert_eq!(packet[22..28], [0x12, 0xb5, 0, 58, 0, 0]);
    assert_eq!(packet[28..36], [8, 0, 0, 0, 0, 0, 42, 0]);
    assert_eq!(packet[36..], inner);
    let (mut left, _) = plain(vxlan(), true).connect();
    let packet = left.send_in_clear(VnetHeader::default(), &inner).remove(0);
    let pseudo_header = [&packet[8..40], &[0, 0, 0, 58, 0, 0, 0, 17]].concat();
    assert!(packet[46..48] != [0, 0] && checksum(&[&pseudo_header, &packet[40..]]) == 0, "R8200-8.1-1");
}

#[test]
fn l2tp_stands_on_the_wire_as_its_rfc_draws_it() {
    let carrier = L2tpCarrier::Udp { local_port: 1701, remote_port: 1702 };
    let (mut left, _) = plain(l2tp(carrier, L2tpSublayer::Sequenced), false).connect();
    let inner = frame(0x0806, &[1; 28]);
    let packet = left.send_in_clear(VnetHeader::default(), &inner).remove(0);
    assert_eq!(packet[20..28], [0x06, 0xa5, 0x06, 0xa6, 0, 8 + 16 + 42, 0, 0]);
    assert_eq!(packet[28..44], [0, 3, 0, 0, 0, 0, 0, 9, 9, 8, 7, 6, 0x40, 0, 0, 0]);
    let (mut left, _) = plain(l2tp(L2tpCarrier::Ip, L2tpSublayer::None), false).connect();
    let packet = left.send_in_clear(VnetHeader::default(), &inner).remove(0);
    assert_eq!((packet[9], &packet[20..28]), (115, &[0, 0, 0, 9, 9, 8, 7, 6][..]));
}

#[test]
fn plain_ip_in_ip_is_one_more_header() {
    for (outer_is_ipv6, header_len) in [(false, 20), (true, 40)] {
        let (mut left, mut right) = plain(InterfaceKind::Ipip, outer_is_ipv6).connect();
        for (inner, protocol) in [(udp(true, 9), 4), (udp(false, 9), 41)] {
            let wire = left.send_in_clear(VnetHeader::default(), &inner);
            assert_eq!(wire[0][header_len..], inner);
            assert_eq!(wire[0][if outer_is_ipv6 { 6 } else { 9 }], protocol);
            assert_eq!(right.receive_in_clear(&wire), [inner]);
        }
    }
}

/// The ESP packet holds the tunnel's header and nothing of the outer one in transport mode, both in tunnel mode.
#[test]
fn transport_mode_saves_the_outer_header() {
    let kind = InterfaceKind::Gre(Gre::default());
    let len_in = |mode| protected(kind, mode, false).connect().0.send(&udp(true, 98))[0].octets.len();
    assert_eq!(len_in(Mode::Tunnel), len_in(Mode::Transport) + 20);
}

/// One TCP super-packet of 3000 octets of data, to be cut into segments of 1000.
fn super_packet(at: usize) -> (VnetHeader, Vec<u8>) {
    let mut tcp = vec![0x10, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    tcp.extend((0..3000u32).map(|at| at as u8));
    let (source, destination) = INNER[0];
    let packet = ip(source, destination, 6, 0, &tcp);
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 40 + at as u16,
        gso_size: 1000,
        csum_start: 20 + at as u16,
        csum_offset: 16,
    };
    (vnet, packet)
}

#[test]
fn super_packets_are_cut_and_each_segment_wrapped() {
    for kind in all_kinds() {
        let is_frame = kind.layer() == Layer::Ethernet;
        let (vnet, packet) = super_packet(if is_frame { 14 } else { 0 });
        let inside = if is_frame { frame(0x0800, &packet) } else { packet };
        let (mut left, mut right) = protected(kind, Mode::Transport, false).connect();
        let received = right.receive(&left.send_super(vnet, &inside));
        let (mut left, mut right) = plain(kind, false).connect();
        assert_eq!(right.receive_in_clear(&left.send_in_clear(vnet, &inside)), received, "{kind:?}");
        assert_eq!(received.len(), 3, "{kind:?}");
        let mut data: Vec<u8> = Vec::new();
        for segment in &received {
            let packet = if is_frame { &segment[14..] } else { &segment[..] };
            assert!(!is_frame || segment[..14] == inside[..14]);
            assert_eq!(checksum(&[&packet[..20]]), 0);
            let pseudo_header = [&packet[12..20], &[0, 6], &(packet.len() as u16 - 20).to_be_bytes()].concat();
            assert_eq!(checksum(&[&pseudo_header, &packet[20..]]), 0);
            data.extend(&packet[40..]);
        }
        assert_eq!(data, (0..3000u32).map(|at| at as u8).collect::<Vec<_>>());
    }
}

#[test]
fn what_arrives_out_of_order_is_dropped_where_sequence_numbers_are_agreed_on() {
    for (kind, arrived) in [
        (InterfaceKind::Gre(gre(Layer::Ip)), 2),
        (InterfaceKind::Gre(Gre::default()), 3),
        (l2tp(L2tpCarrier::Ip, L2tpSublayer::Sequenced), 2),
        (l2tp(L2tpCarrier::Ip, L2tpSublayer::Default), 3),
    ] {
        let (mut left, mut right) = plain(kind, false).connect();
        let mut wire: Vec<_> =
            (0..3).flat_map(|_| left.send_in_clear(VnetHeader::default(), &insides(kind)[0])).collect();
        wire.swap(0, 1);
        assert_eq!(right.receive_in_clear(&wire).len(), arrived, "{kind:?}");
        let late: Vec<_> = right.dataplane.drops().into_iter().map(|drop| drop.reason).collect();
        assert_eq!(late, if arrived == 2 { vec!["tunnel_order"] } else { vec![] });
    }
}

/// What a receiver of one kind says to a packet of another.
fn drops_of(sender: InterfaceKind, receiver: InterfaceKind) -> Vec<String> {
    let (mut left, _) = protected(sender, Mode::Tunnel, false).connect();
    let (_, mut right) = protected(receiver, Mode::Tunnel, false).connect();
    let wire = left.send(&insides(sender)[0]);
    assert!(right.receive(&wire).is_empty());
    right.drops(espdp_api::Direction::Inbound).into_iter().map(|(reason, _)| reason).collect()
}

#[test]
fn keys_vnis_sessions_and_cookies_of_others_are_refused() {
    let with_key = |key| InterfaceKind::Gre(Gre { key, ..Gre::default() });
    assert_eq!(drops_of(with_key(Some(1)), with_key(Some(2))), ["tunnel_key"]);
    assert_eq!(drops_of(with_key(None), with_key(Some(2))), ["tunnel_key"]);
    assert_eq!(drops_of(with_key(Some(1)), with_key(None)), ["tunnel_key"]);
    let other_vni = InterfaceKind::Vxlan(Vxlan { vni: 43.try_into().unwrap(), port: Vxlan::PORT });
    assert_eq!(drops_of(vxlan(), other_vni), ["tunnel_key"]);
    let other_port = InterfaceKind::Vxlan(Vxlan { vni: 42.try_into().unwrap(), port: 8472 });
    assert_eq!(drops_of(vxlan(), other_port), ["tunnel_header"]);
    let session = l2tp(L2tpCarrier::Ip, L2tpSublayer::None);
    let InterfaceKind::L2tpv3(own) = session else { panic!() };
    let other_session = InterfaceKind::L2tpv3(L2tpv3 { peer_session: 10, ..own });
    assert_eq!(drops_of(session, other_session), ["tunnel_key"]);
    let other_cookie = InterfaceKind::L2tpv3(L2tpv3 { peer_cookie: L2tpCookie::Four([0; 4]), ..own });
    assert_eq!(drops_of(session, other_cookie), ["tunnel_key"]);
    let with_checksum = InterfaceKind::Gre(Gre { checksum: true, ..Gre::default() });
    assert_eq!(drops_of(with_key(None), with_checksum), ["tunnel_header"]);
    assert_eq!(
        drops_of(with_key(None), InterfaceKind::Gre(Gre { layer: Layer::Ethernet, ..Gre::default() })),
        ["tunnel_header"]
    );
}

#[test]
fn an_interface_that_demands_protection_never_takes_a_packet_in_clear_nor_sends_one() {
    for kind in all_kinds() {
        let (mut sender, _) = plain(kind, false).connect();
        let wire = sender.send_in_clear(VnetHeader::default(), &insides(kind)[0]);
        let (_, mut receiver) = protected(kind, Mode::Transport, false).connect();
        assert!(receiver.receive_in_clear(&wire).is_empty());
        assert_eq!(receiver.dataplane.drops()[0].reason, "clear_tunnel");
        let mut without_sa = protected(kind, Mode::Transport, false).gateway(true);
        assert!(without_sa.send(&insides(kind)[0]).is_empty());
        assert!(without_sa.send_in_clear(VnetHeader::default(), &insides(kind)[0]).is_empty());
        assert_eq!(without_sa.dataplane.drops()[0].reason, "no_sa");
    }
}

#[test]
fn packets_of_nobody_and_from_other_ends_are_dropped() {
    let kind = InterfaceKind::Gre(Gre::default());
    let (mut left, mut right) = plain(kind, false).connect();
    let mut packet = left.send_in_clear(VnetHeader::default(), &insides(kind)[0]).remove(0);
    packet[15] = 77; // another source; the header's checksum is the kernel's business
    assert!(right.receive_in_clear(&[packet]).is_empty());
    assert_eq!(right.dataplane.drops()[0].reason, "no_tunnel");
}

#[test]
fn a_multipoint_tunnel_sends_to_the_next_hop_of_the_longest_prefix() {
    let hop = |inner: &str, remote: &str| NextHop { inner: inner.parse().unwrap(), remote: remote.parse().unwrap() };
    let next_hops =
        vec![hop("10.2.0.0/16", "192.0.2.2"), hop("10.2.9.0/24", "192.0.2.3"), hop("fd00::/8", "192.0.2.3")];
    let setup = Setup { next_hops, ..plain(InterfaceKind::Gre(Gre::default()), false) };
    let (mut left, _) = setup.connect();
    let mut remote_of = |destination: &str| {
        let source = if destination.contains(':') { "fd01::1" } else { "10.1.0.1" };
        let wire = left.send_in_clear(VnetHeader::default(), &udp_between(source, destination, 0, 1));
        wire.first().map(|packet| packet[19])
    };
    assert_eq!(remote_of("10.2.1.1"), Some(2));
    assert_eq!(remote_of("10.2.9.1"), Some(3));
    assert_eq!(remote_of("fd02::1"), Some(3));
    assert_eq!(remote_of("10.3.0.1"), None);
    assert_eq!(left.dataplane.drops()[0].reason, "no_next_hop");
}

/// R6040-4.1-1, R6040-4.2-1.
#[test]
fn traffic_class_and_congestion_marks_pass_the_outer_header() {
    let (mut left, mut right) = plain(InterfaceKind::Gre(Gre::default()), false).connect();
    let inner = udp_between("10.1.0.1", "10.2.0.1", 0xb8 | 0b10, 1);
    let mut wire = left.send_in_clear(VnetHeader::default(), &inner);
    assert_eq!(wire[0][1], 0xb8 | 0b10);
    wire[0][1] |= 0b11;
    let received = right.receive_in_clear(&wire);
    assert_eq!((received[0][1], checksum(&[&received[0][..20]])), (0xb8 | 0b11, 0));
    let (mut left, _) = plain(l2tp(L2tpCarrier::Ip, L2tpSublayer::None), false).connect();
    let wire = left.send_in_clear(VnetHeader::default(), &frame(0x0800, &inner));
    assert_eq!(wire[0][1], 0xb8, "decapsulators of L2TP would lose the mark");
}

#[test]
fn what_cannot_be_a_tunnel_is_refused() {
    let mut gateway = Setup::default().gateway(true);
    let name = InterfaceName::new("ipsec0").unwrap();
    let kind = InterfaceKind::Gre(Gre::default());
    let (local, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mut refusal = |spec: InterfaceSpec| match gateway.dataplane.set_tunnel(&spec) {
        Err(Refusal::BadInterface { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let spec = |kind, ends| InterfaceSpec { ends, ..InterfaceSpec::new(name.clone(), kind) };
    assert!(refusal(spec(kind, None)).contains("ends of the tunnel are missing"));
    assert!(refusal(spec(kind, Some(TunnelEnds::new(local, None)))).contains("remote end is missing"));
    let mixed = TunnelEnds::new(local, Some("2001:db8::1".parse().unwrap()));
    assert!(refusal(spec(kind, Some(mixed))).contains("different families"));
    let InterfaceKind::L2tpv3(session) = l2tp(L2tpCarrier::Ip, L2tpSublayer::None) else { panic!() };
    let zero = InterfaceKind::L2tpv3(L2tpv3 { session: 0, ..session });
    assert!(refusal(spec(zero, Some(TunnelEnds::new(local, Some(remote))))).contains("session id 0"));
}

#[test]
fn tunnels_that_nobody_could_tell_apart_are_refused_and_a_key_tells_them_apart() {
    let mut gateway = plain(InterfaceKind::Gre(Gre::default()), false).gateway(true);
    let other = InterfaceName::new("gre1").unwrap();
    let mut set = |key| {
        let kind = InterfaceKind::Gre(Gre { key, ..Gre::default() });
        let ends = Some(TunnelEnds::new(gateway.path.local, Some(gateway.path.remote)));
        gateway.dataplane.set_interface(&other, kind).unwrap();
        gateway.dataplane.set_tunnel(&InterfaceSpec { ends, ..InterfaceSpec::new(other.clone(), kind) })
    };
    let refused = set(None).unwrap_err();
    assert!(refused.to_string().contains("same ends and the same key"), "{refused}");
    assert_eq!(set(Some(1)), Ok(()));
}

#[test]
fn an_interface_whose_tunnel_is_refused_is_not_made_and_an_old_one_stays_as_it_was() {
    let mut gateway = protected(InterfaceKind::Gre(Gre::default()), Mode::Tunnel, false).gateway(true);
    let ends = Some(TunnelEnds::new(gateway.path.local, Some(gateway.path.remote)));
    let spec =
        |name: &str, kind, ends| InterfaceSpec { ends, ..InterfaceSpec::new(InterfaceName::new(name).unwrap(), kind) };
    let plain = InterfaceKind::Gre(Gre::default());
    for (name, kind, ends) in [("new0", plain, None), ("new0", plain, ends), ("ipsec0", vxlan(), ends)] {
        assert!(gateway.dataplane.apply_interface(&spec(name, kind, ends)).is_err(), "{name}");
    }
    let unknown = gateway.dataplane.remove_interface(&InterfaceName::new("new0").unwrap());
    assert!(matches!(unknown, Err(Refusal::UnknownInterface(_))), "{unknown:?}");
    let keyed = InterfaceKind::Gre(Gre { key: Some(1), ..Gre::default() });
    assert_eq!(gateway.dataplane.apply_interface(&spec("ipsec0", plain, ends)), Ok(gateway.interface));
    assert!(gateway.dataplane.apply_interface(&spec("new0", keyed, ends)).is_ok());
}

#[test]
fn what_comes_from_a_tunnel_without_ends_is_not_taken_for_what_is_in_it() {
    let (mut left, _) = Setup::default().connect();
    let name = InterfaceName::new("bare0").unwrap();
    left.interface = left.dataplane.set_interface(&name, InterfaceKind::Gre(Gre::default())).unwrap();
    let all = vec![everything(true)];
    let bypass = PolicySpec::protect(PolicyId(9), name, all.clone(), all);
    left.dataplane.set_policy(&PolicySpec { action: PolicyAction::Bypass, ..bypass }).unwrap();
    assert!(left.send_clear(&udp(true, 10)).is_empty());
    let (sent, in_place) = left.send_in_place(&[(VnetHeader::default(), udp(true, 10))]);
    assert!(sent.clear.is_empty() && sent.wire.is_empty() && in_place == 0);
    assert_eq!(left.drops(Direction::Outbound), [("no_tunnel".to_owned(), 2)]);
}

/// Behind a NAT the tunnel's packets travel in UDP like any ESP.
#[test]
fn tunnels_work_in_udp_encapsulation_too() {
    let kind = InterfaceKind::Gre(gre(Layer::Ip));
    let setup = Setup { encapsulation: UDP, ..protected(kind, Mode::Transport, false) };
    let (mut left, mut right) = setup.connect();
    let wire = left.send(&udp(true, 10));
    assert_eq!(right.receive(&wire), [udp(true, 10)]);
}
