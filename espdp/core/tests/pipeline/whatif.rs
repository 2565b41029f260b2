//! What is said of a packet beforehand is what becomes of it.

use espdp_api::{
    Direction, Encapsulation, Fitting, Gre, InterfaceKind, InterfaceName, Layer, Mode, OutboundFate, PolicyAction,
    PolicyId, PolicySpec, Protection,
};

use crate::support::{Gateway, POLICY, Setup, UDP, everything, ip, range, udp};

fn fate(gateway: &mut Gateway, packet: &[u8]) -> OutboundFate {
    gateway.dataplane.what_if_sent(gateway.interface, packet).unwrap().fate
}

fn dropped(fate: &OutboundFate) -> Option<&str> {
    if let OutboundFate::Dropped { reason, .. } = fate { Some(reason) } else { None }
}

/// Octets of a packet on the wire, IP and UDP headers included.
fn on_wire(gateway: &mut Gateway, packet: &[u8], outer_is_ipv6: bool, encapsulation: Encapsulation) -> usize {
    let wire = gateway.send(packet);
    assert_eq!(wire.len(), 1);
    let outer = match (wire[0].header.is_empty(), outer_is_ipv6) {
        (false, _) => wire[0].header.len(),
        (true, false) => 20,
        (true, true) => 40,
    };
    outer + wire[0].octets.len() + if encapsulation == Encapsulation::Esp { 0 } else { 8 }
}

#[test]
fn lengths_on_the_wire_are_told_to_the_octet() {
    for (encapsulation, outer_is_ipv6, mode) in [
        (UDP, false, Mode::Tunnel),
        (Encapsulation::Esp, false, Mode::Tunnel),
        (UDP, true, Mode::Tunnel),
        (Encapsulation::Esp, true, Mode::Tunnel),
        (Encapsulation::Esp, false, Mode::Transport),
        (UDP, false, Mode::Transport),
    ] {
        let setup = Setup { encapsulation, outer_is_ipv6, mode, ..Setup::default() };
        let (mut left, _) = setup.connect();
        for len in [0, 1, 2, 3, 500] {
            let packet = if mode == Mode::Transport {
                ip("192.0.2.1", "192.0.2.2", 17, 0, &vec![0x11; 8 + len])
            } else {
                udp(true, len)
            };
            let OutboundFate::Protected(carriage) = fate(&mut left, &packet) else { panic!("{setup:?}") };
            assert_eq!(carriage.wire_octets, on_wire(&mut left, &packet, outer_is_ipv6, encapsulation));
            assert_eq!((carriage.mode, carriage.path, carriage.fit), (mode, left.path, Fitting::Whole));
        }
    }
}

#[test]
fn a_question_leaves_no_trace() {
    let (mut left, _) = Setup::default().connect();
    for _ in 0..3 {
        fate(&mut left, &udp(true, 50));
        fate(&mut left, &[0x45; 3]);
    }
    let statistics = left.statistics(Direction::Outbound);
    assert_eq!((statistics.packets, statistics.sequence, statistics.idle_seconds), (0, 0, None));
    assert!(left.drops(Direction::Outbound).is_empty() && left.events().is_empty());
    // Without an SA, nobody is asked for one.
    let mut alone = Setup::default().gateway(true);
    let verdict = alone.dataplane.what_if_sent(alone.interface, &udp(true, 50)).unwrap();
    assert_eq!(verdict.policy, Some((POLICY, PolicyAction::Protect { acquire: true })));
    assert_eq!(dropped(&verdict.fate), Some("no_sa"));
    assert!(alone.events().is_empty());
}

#[test]
fn what_is_too_long_is_told_as_its_sender_will_be() {
    let (mut left, _) = Setup::default().connect();
    left.set_path_mtu(1400);
    let OutboundFate::Protected(carriage) = fate(&mut left, &udp(true, 100)) else { panic!("it is protected") };
    let longest = carriage.longest.unwrap();
    assert_eq!((carriage.path_mtu, carriage.fit), (Some(1400), Fitting::Whole));
    for (len, fit) in [(longest, Fitting::Whole), (longest + 1, Fitting::TooBig(longest))] {
        let packet = udp(true, len - 28);
        let OutboundFate::Protected(carriage) = fate(&mut left, &packet) else { panic!("it is protected") };
        assert_eq!(carriage.fit, fit);
        assert_eq!(left.send(&packet).is_empty(), fit != Fitting::Whole);
    }
    let mut may_be_cut = udp(true, longest);
    may_be_cut[6] = 0;
    let OutboundFate::Protected(carriage) = fate(&mut left, &may_be_cut) else { panic!("it is protected") };
    assert!(matches!(carriage.fit, Fitting::CutInside | Fitting::CutOutside), "{carriage:?}");
}

#[test]
fn policies_of_every_kind_say_what_they_do() {
    let (mut left, _) = Setup { local: vec![range("10.1.0.0", "10.1.255.255")], ..Setup::default() }.connect();
    for (id, action, remote) in [(8, PolicyAction::Discard, "10.8.0.1"), (9, PolicyAction::Bypass, "10.9.0.1")] {
        let name = InterfaceName::new("ipsec0").unwrap();
        let spec = PolicySpec::protect(PolicyId(id), name, vec![everything(true)], vec![range(remote, remote)]);
        left.dataplane.set_policy(&PolicySpec { action, priority: 1, ..spec }).unwrap();
    }
    let mut ask = |source: &str, destination: &str| {
        let packet = ip(source, destination, 17, 0, &[0; 8]);
        let verdict = left.dataplane.what_if_sent(left.interface, &packet).unwrap();
        (verdict.policy.map(|(PolicyId(id), _)| id), verdict.fate)
    };
    let (policy, fate) = ask("10.1.0.1", "10.8.0.1");
    assert_eq!((policy, dropped(&fate)), (Some(8), Some("discard")));
    assert_eq!(ask("10.1.0.1", "10.9.0.1"), (Some(9), OutboundFate::InClear));
    let (policy, fate) = ask("10.3.0.1", "10.2.0.1");
    assert_eq!((policy, dropped(&fate)), (None, Some("no_policy")));
    assert!(matches!(ask("10.1.0.1", "10.2.0.1"), (Some(7), OutboundFate::Protected(_))));
}

#[test]
fn what_comes_in_is_admitted_by_the_sas_that_would_take_it() {
    let (mut left, mut right) = Setup { local: vec![range("10.1.0.0", "10.1.255.255")], ..Setup::default() }.connect();
    let mut ask = |source: &str| {
        let packet = ip(source, "10.2.0.1", 17, 0, &[0; 8]);
        let verdict = right.dataplane.what_if_received(right.interface, &packet).unwrap();
        (verdict.sas.iter().map(|(spi, _)| *spi).collect::<Vec<_>>(), verdict.reason)
    };
    assert_eq!(ask("10.1.0.1"), (vec![left.outbound_spi.unwrap().value()], None));
    assert_eq!(ask("10.3.0.1"), (Vec::new(), Some("no_policy".to_owned())));
    // And so it is.
    let wire = left.send(&ip("10.1.0.1", "10.2.0.1", 17, 0, &[0; 8]));
    assert_eq!(right.receive(&wire).len(), 1);
    let alone = &mut Setup::default().gateway(false);
    let verdict = alone.dataplane.what_if_received(alone.interface, &udp(true, 9)).unwrap();
    assert_eq!((verdict.policy.map(|(id, _)| id), verdict.reason.as_deref()), (Some(POLICY), Some("no_sa")));
}

#[test]
fn tunnels_are_looked_into() {
    for layer in [Layer::Ip, Layer::Ethernet] {
        let kind = InterfaceKind::Gre(Gre { layer, ..Gre::default() });
        let (local, remote) = (vec![range("192.0.2.1", "192.0.2.1")], vec![range("192.0.2.2", "192.0.2.2")]);
        let setup =
            Setup { kind, mode: Mode::Transport, encapsulation: Encapsulation::Esp, local, remote, ..Setup::default() };
        let (mut left, mut right) = setup.connect();
        let packet = udp(true, 100);
        let framed = [&[0; 12][..], &[8, 0], &packet].concat();
        let verdict = left.dataplane.what_if_sent(left.interface, &packet).unwrap();
        let OutboundFate::Protected(carriage) = &verdict.fate else { panic!("{verdict:?}") };
        let inside = if layer == Layer::Ip { &packet } else { &framed };
        assert_eq!(
            (verdict.tunnel, carriage.wire_octets),
            (Some(kind), on_wire(&mut left, inside, false, Encapsulation::Esp),)
        );
        let verdict = right.dataplane.what_if_received(right.interface, &packet).unwrap();
        assert_eq!(verdict.sas.len(), 1, "{verdict:?}");
    }
    let kind = InterfaceKind::Gre(Gre::default());
    let mut plain = Setup { kind, protection: Protection::None, ..Setup::default() }.gateway(true);
    assert_eq!(fate(&mut plain, &udp(true, 50)), OutboundFate::InClear);
}
