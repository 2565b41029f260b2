//! The life of SAs, policies and interfaces.

use espdp_api::{
    Direction, DscpPolicy, Encapsulation, EspCipher, EspIntegrity, EspSpi, Event, InterfaceKind, InterfaceName, Mode,
    OuterPath, PolicyId, PolicySpec, Refusal, SaSpec, Secret,
};

use crate::support::{POLICY, Setup, UDP, algorithms, everything, range, udp, udp_between};

fn name(text: &str) -> InterfaceName {
    InterfaceName::new(text).unwrap()
}

fn policy(id: u64, interface: &str, remote: (&str, &str)) -> PolicySpec {
    let (local, remote) = (vec![everything(true)], vec![range(remote.0, remote.1)]);
    PolicySpec::protect(PolicyId(id), name(interface), local, remote)
}

#[test]
fn rekeying_moves_traffic_to_the_new_sa_without_losing_a_packet() {
    let setup = Setup::default();
    let (mut left, mut right) = setup.connect();
    let old = left.statistics(Direction::Outbound).spi;
    let before = left.send(&udp(true, 10));
    // Reserve, install inbound there, install outbound here: still the old one sends.
    let new = right.dataplane.reserve_spi(0x7777_0000).unwrap();
    right.dataplane.install_inbound(&setup.inbound(new, right.path, false, 9)).unwrap();
    left.dataplane.install_outbound(&setup.outbound(new, left.path, true, 9)).unwrap();
    let between = left.send(&udp(true, 20));
    assert_eq!(between[0].octets[..4], old.to_wire());
    left.dataplane.activate(POLICY, new).unwrap();
    let after = left.send(&udp(true, 30));
    assert_eq!(after[0].octets[..4], new.to_wire());
    assert_eq!(after[0].octets[4..8], [0, 0, 0, 1]);
    // They may overtake each other while the old SA is drained.
    assert_eq!(right.receive(&[after, before, between].concat()).len(), 3);
    let last = left.dataplane.remove_sa(Direction::Outbound, old, POLICY, left.now).unwrap();
    assert_eq!((last.spi, last.packets), (old, 2));
    right.dataplane.remove_sa(Direction::Inbound, old, POLICY, right.now).unwrap();
    assert_eq!(right.receive(&left.send(&udp(true, 40))).len(), 1);
}

#[test]
fn without_an_sa_nothing_leaves_and_a_packet_asks_for_one_once_a_second() {
    // R4301-5-1
    let mut left = Setup::default().gateway(true);
    for _ in 0..3 {
        assert!(left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10)).is_empty());
        left.pass(400);
    }
    let events = left.events();
    assert_eq!(events.len(), 1);
    let Event::Acquire { policy, packet } = &events[0] else { panic!("{events:?}") };
    assert_eq!((*policy, packet.protocol, packet.destination_port), (POLICY, 17, Some(53)));
    assert_eq!(packet.source, "10.1.0.1".parse::<std::net::IpAddr>().unwrap());
    left.pass(1000);
    left.send(&udp(true, 10));
    assert_eq!(left.events().len(), 1);
    let drops: Vec<_> = left.dataplane.drops().into_iter().map(|drop| (drop.reason, drop.packets)).collect();
    assert_eq!(drops, [("no_sa".to_owned(), 4)]);
    let mut silent = Setup { acquire: false, ..Setup::default() }.gateway(true);
    assert!(silent.send(&udp(true, 10)).is_empty());
    assert_eq!(silent.events(), []);
}

#[test]
fn packets_for_ip_in_ip_ask_for_an_sa_whatever_their_own_addresses() {
    // What the policy is about are the gateways: the inner packet is none of its business, and the outer one is not made yet.
    let host = |address: &str| vec![range(address, address)];
    let setup = Setup {
        mode: Mode::Transport,
        kind: InterfaceKind::Ipip,
        local: host("192.0.2.1"),
        remote: host("192.0.2.2"),
        ..Setup::default()
    };
    let mut waiting = setup.gateway(true);
    assert!(waiting.send(&udp(true, 10)).is_empty() && waiting.send(&udp(false, 10)).is_empty());
    assert!(matches!(waiting.events()[..], [Event::Acquire { policy: POLICY, .. }]));
    let (mut left, mut right) = setup.connect();
    assert_eq!(right.receive(&left.send(&udp(true, 10))).len(), 1);
    // The same policy on an interface that wraps nothing is for the gateways' own packets.
    let mut plain = Setup { kind: InterfaceKind::Ipsec, ..setup.clone() }.gateway(true);
    assert!(plain.send(&udp(true, 10)).is_empty());
    assert_eq!(plain.events(), []);
    // Selectors that name networks or other protocols are not those of wrapped packets.
    let mut tcp = host("192.0.2.2");
    tcp[0].protocol = 6;
    for remote in [vec![range("192.0.2.0", "192.0.2.255")], tcp] {
        let mut other = Setup { remote, ..setup.clone() }.gateway(true);
        assert!(other.send(&udp(true, 10)).is_empty());
        assert_eq!(other.events(), []);
    }
}

#[test]
fn an_installed_sa_sends_nothing_before_it_is_activated_and_nothing_after_its_removal() {
    let setup = Setup::default();
    let mut left = setup.gateway(true);
    let spi = EspSpi::try_from(0xabcd).unwrap();
    left.dataplane.install_outbound(&setup.outbound(spi, left.path, true, 1)).unwrap();
    assert!(left.send(&udp(true, 10)).is_empty());
    left.dataplane.activate(POLICY, spi).unwrap();
    assert_eq!(left.send(&udp(true, 10)).len(), 1);
    left.dataplane.remove_sa(Direction::Outbound, spi, POLICY, left.now).unwrap();
    assert!(left.send(&udp(true, 10)).is_empty(), "the flow was cached");
    let again = left.dataplane.remove_sa(Direction::Outbound, spi, POLICY, left.now);
    assert_eq!(again, Err(Refusal::UnknownSa(spi)));
}

#[test]
fn the_narrowest_policy_takes_a_packet_whichever_was_set_first() {
    // R4301-4.4.1-1
    let setup = Setup { remote: vec![range("10.9.0.0", "10.9.0.0")], ..Setup::default() };
    let mut left = setup.gateway(true);
    left.dataplane.set_policy(&policy(2, "ipsec0", ("10.0.0.0", "10.255.255.255"))).unwrap();
    left.dataplane.set_policy(&policy(1, "ipsec0", ("10.2.0.0", "10.2.0.255"))).unwrap();
    for (id, value) in [(1, 0x1001), (2, 0x2002)] {
        let spi = EspSpi::try_from(value).unwrap();
        let mut spec = Setup::default().outbound(spi, left.path, true, 1);
        spec.sa.policy = PolicyId(id);
        left.dataplane.install_outbound(&spec).unwrap();
        left.dataplane.activate(PolicyId(id), spi).unwrap();
    }
    let spi_for = |destination: &str, left: &mut crate::support::Gateway| {
        let wire = left.send(&udp_between("10.1.0.1", destination, 0, 10));
        wire.first().map(|packet| u32::from_be_bytes(packet.octets[..4].try_into().unwrap()))
    };
    assert_eq!(spi_for("10.2.0.7", &mut left), Some(0x1001));
    assert_eq!(spi_for("10.3.0.7", &mut left), Some(0x2002));
    assert_eq!(spi_for("11.0.0.1", &mut left), None);
    // A change takes effect at once.
    left.dataplane.set_policy(&policy(2, "ipsec0", ("10.2.0.0", "10.2.255.255"))).unwrap();
    assert_eq!(spi_for("10.2.0.7", &mut left), Some(0x1001));
    assert_eq!(spi_for("10.2.9.7", &mut left), Some(0x2002));
    assert_eq!(spi_for("10.3.0.7", &mut left), None);
    left.dataplane.set_policy(&policy(2, "ipsec0", ("10.2.0.7", "10.2.0.7"))).unwrap();
    assert_eq!(spi_for("10.2.0.7", &mut left), Some(0x2002));
    assert_eq!(spi_for("10.2.0.8", &mut left), Some(0x1001));
    left.dataplane.remove_policy(PolicyId(1)).unwrap();
    assert_eq!(spi_for("10.2.0.7", &mut left), Some(0x2002));
    let spi = EspSpi::try_from(0x1001).unwrap();
    assert_eq!(left.dataplane.activate(PolicyId(1), spi), Err(Refusal::UnknownPolicy(PolicyId(1))));
    assert_eq!(left.dataplane.statistics(left.now).len(), 1, "its SAs went with it");
}

#[test]
fn a_policy_wider_than_its_sa_does_not_leak() {
    let setup = Setup::default();
    let (mut left, _) = setup.connect();
    let spi = EspSpi::try_from(0xabcd).unwrap();
    let narrow = Setup { remote: vec![range("10.2.0.0", "10.2.0.255")], ..Setup::default() };
    left.dataplane.install_outbound(&narrow.outbound(spi, left.path, true, 3)).unwrap();
    left.dataplane.activate(POLICY, spi).unwrap();
    assert_eq!(left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10)).len(), 1);
    assert!(left.send(&udp_between("10.1.0.1", "10.3.0.1", 0, 10)).is_empty());
    let statistics = left.dataplane.statistics(left.now).into_iter().find(|sa| sa.spi == spi).unwrap();
    assert_eq!(statistics.drops[0].reason, "outside_sa");
}

#[test]
fn two_peers_may_choose_the_same_spi() {
    let (mut left, _) = Setup::default().connect();
    let spi = left.statistics(Direction::Outbound).spi;
    left.dataplane.set_policy(&policy(8, "ipsec0", ("10.0.0.0", "10.0.0.255"))).unwrap();
    let mut spec = Setup::default().outbound(spi, left.path, true, 4);
    assert!(matches!(left.dataplane.install_outbound(&spec), Err(Refusal::BadSa(_))), "but one peer may not twice");
    spec.sa.policy = PolicyId(8);
    left.dataplane.install_outbound(&spec).unwrap();
    left.dataplane.remove_sa(Direction::Outbound, spi, PolicyId(8), left.now).unwrap();
    assert_eq!(left.send(&udp(true, 10)).len(), 1);
}

#[test]
fn a_moved_sa_sends_to_the_new_path_and_goes_on_counting() {
    let (mut left, mut right) = Setup::default().connect();
    left.send(&udp(true, 10));
    let spi = left.statistics(Direction::Outbound).spi;
    let mut path = left.path;
    path.remote = "198.51.100.7".parse().unwrap();
    left.dataplane.move_sa(Direction::Outbound, spi, POLICY, path).unwrap();
    let wire = left.send(&udp(true, 10));
    assert_eq!((wire[0].path, &wire[0].octets[4..8]), (path, &[0, 0, 0, 2][..]));
    assert_eq!(right.receive(&wire).len(), 1);
}

/// R7296-2.23-3: a peer may wrap ESP in UDP or not, at any time; and a NAT that appears or disappears changes what we do.
#[test]
fn esp_is_taken_with_and_without_udp_and_an_sa_moves_from_one_to_the_other() {
    for start in [Encapsulation::Esp, UDP] {
        let (mut left, mut right) = Setup { encapsulation: start, ..Setup::default() }.connect();
        let spi = left.statistics(Direction::Outbound).spi;
        for encapsulation in [UDP, Encapsulation::Esp, UDP, Encapsulation::Esp] {
            let path = OuterPath { encapsulation, ..left.path };
            left.dataplane.move_sa(Direction::Outbound, spi, POLICY, path).unwrap();
            let wire = left.send(&udp(true, 10));
            assert_eq!(wire[0].path.encapsulation, encapsulation);
            assert_eq!(right.receive(&wire).len(), 1, "the other end was told nothing");
        }
        assert_eq!(left.statistics(Direction::Outbound).sequence, 4);
    }
}

#[test]
fn unsound_sas_are_refused_with_a_reason() {
    let setup = Setup::default();
    let mut left = setup.gateway(true);
    let path = left.path;
    let refusal = |change: &dyn Fn(&mut SaSpec), left: &mut crate::support::Gateway| {
        let spi = EspSpi::try_from(0xabcd).unwrap();
        let mut spec = setup.outbound(spi, path, true, 1);
        change(&mut spec.sa);
        match left.dataplane.install_outbound(&spec) {
            Err(Refusal::BadSa(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    // R4303-3.2-1
    let null = refusal(&|sa| sa.algorithms = algorithms(EspCipher::Null, EspIntegrity::None, true), &mut left);
    assert!(null.contains("integrity"), "{null}");
    let double = algorithms(EspCipher::ChaCha20Poly1305, EspIntegrity::HmacSha2_256_128, true);
    refusal(&|sa| sa.algorithms = double, &mut left);
    refusal(&|sa| sa.algorithms.cipher = EspCipher::AesGcm16 { key_bits: 0 }, &mut left);
    refusal(&|sa| sa.algorithms.cipher = EspCipher::AesGcm16 { key_bits: 160 }, &mut left);
    let short = refusal(&|sa| sa.encryption_key = Secret::new(vec![0; 32]), &mut left);
    assert!(short.contains("36") && short.contains("32"), "{short}");
    refusal(&|sa| sa.integrity_key = Secret::new(vec![0; 20]), &mut left);
    let cbc = algorithms(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha1_96, false);
    let no_key = |sa: &mut SaSpec| (sa.algorithms, sa.encryption_key) = (cbc, Secret::new(vec![0; 16]));
    assert!(refusal(&no_key, &mut left).contains("integrity key"));
    let mut dscp = setup.outbound(EspSpi::try_from(0xabcd).unwrap(), path, true, 1);
    dscp.shape.dscp = DscpPolicy::Fixed(64);
    assert!(matches!(left.dataplane.install_outbound(&dscp), Err(Refusal::BadSa(_))));
    assert_eq!(left.dataplane.statistics(left.now), []);
}

#[test]
fn an_inbound_sa_needs_its_reserved_spi() {
    let setup = Setup::default();
    let mut left = setup.gateway(true);
    let spi = left.inbound_spi;
    let other = EspSpi::try_from(spi.value() ^ 0x1000_0000).unwrap();
    let not_reserved = left.dataplane.install_inbound(&setup.inbound(other, left.path, true, 1));
    assert_eq!(not_reserved, Err(Refusal::SpiNotReserved(other)));
    let mut bad = setup.inbound(spi, left.path, true, 1);
    bad.sa.encryption_key = Secret::new(vec![]);
    assert!(matches!(left.dataplane.install_inbound(&bad), Err(Refusal::BadSa(_))));
    // The reservation outlives the failure.
    left.dataplane.install_inbound(&setup.inbound(spi, left.path, true, 1)).unwrap();
    let twice = left.dataplane.install_inbound(&setup.inbound(spi, left.path, true, 1));
    assert_eq!(twice, Err(Refusal::SpiNotReserved(spi)));
    assert_eq!(left.dataplane.release_spi(spi), Err(Refusal::SpiNotReserved(spi)));
    assert!(matches!(
        left.dataplane.remove_sa(Direction::Inbound, spi, PolicyId(99), left.now),
        Err(Refusal::UnknownPolicy(_))
    ));
}

#[test]
fn interfaces_with_policies_stay_and_ids_are_reused() {
    let mut left = Setup::default().gateway(true);
    let (ipsec0, ipip0) = (name("ipsec0"), name("ipip0"));
    assert_eq!(left.dataplane.remove_interface(&ipip0), Err(Refusal::UnknownInterface(ipip0.clone())));
    assert_eq!(left.dataplane.remove_interface(&ipsec0), Err(Refusal::InterfaceInUse(ipsec0.clone())));
    assert_eq!(left.dataplane.set_interface(&ipsec0, InterfaceKind::Ipsec), Ok(left.interface));
    let changed = left.dataplane.set_interface(&ipsec0, InterfaceKind::Ipip);
    assert_eq!(changed, Err(Refusal::InterfaceInUse(ipsec0.clone())));
    left.dataplane.remove_policy(POLICY).unwrap();
    assert_eq!(left.dataplane.remove_interface(&ipsec0), Ok(left.interface));
    assert_eq!(left.dataplane.set_interface(&ipip0, InterfaceKind::Ipip), Ok(left.interface));
    let missing = left.dataplane.set_policy(&policy(1, "ipsec0", ("10.0.0.0", "10.0.0.1")));
    assert_eq!(missing, Err(Refusal::UnknownInterface(ipsec0)));
}

#[test]
fn a_policy_that_changes_its_interface_takes_its_sas_along() {
    let setup = Setup { mode: Mode::Tunnel, ..Setup::default() };
    let (mut left, mut right) = setup.connect();
    let second = right.dataplane.set_interface(&name("ipsec1"), InterfaceKind::Ipsec).unwrap();
    let (local, remote) = (setup.remote.clone(), setup.local.clone());
    right.dataplane.set_policy(&PolicySpec::protect(POLICY, name("ipsec1"), local, remote)).unwrap();
    let wire = left.send(&udp(true, 10));
    right.interface = second;
    assert_eq!(right.receive(&wire).len(), 1, "delivered to the new interface");
    assert_eq!(right.send(&udp(true, 10)).len(), 1);
    right.dataplane.remove_interface(&name("ipsec0")).unwrap();
}
