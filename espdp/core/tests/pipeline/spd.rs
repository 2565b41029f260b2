//! The security policy database: order, actions, directions (RFC 4301 §4.4.1).

use espdp_api::{
    Direction, EspSpi, InterfaceName, PolicyAction, PolicyDirections, PolicyId, PolicySpec, PortRange, Refusal,
    TrafficSelector,
};

use crate::support::{POLICY, Setup, everything, range, udp, udp_between};

/// A policy of the only interface for everything IPv4 towards `remote`.
fn policy(id: u64, priority: u32, action: PolicyAction, remote: TrafficSelector) -> PolicySpec {
    let interface = InterfaceName::new("ipsec0").unwrap();
    let both = PolicySpec::protect(PolicyId(id), interface, vec![everything(true)], vec![remote]);
    PolicySpec { action, priority, ..both }
}

fn host(address: &str) -> TrafficSelector {
    range(address, address)
}

/// R4301-4.4.1-1, R4301-5-1.
#[test]
fn the_lowest_priority_decides_before_the_narrowest_selector() {
    let (mut left, _right) = Setup::default().connect();
    let drops = |left: &crate::support::Gateway| -> Vec<_> {
        left.dataplane.drops().into_iter().map(|drop| (drop.reason, drop.packets)).collect()
    };
    assert_eq!(left.send(&udp(true, 10)).len(), 1, "protected");
    let discard = policy(1, 900, PolicyAction::Discard, range("10.0.0.0", "10.255.255.255"));
    left.dataplane.set_policy(&discard).unwrap();
    assert!(left.send(&udp(true, 10)).is_empty(), "the flow was cached");
    assert_eq!(drops(&left), [("discard".to_owned(), 1)]);
    let later = PolicySpec { priority: 1001, ..discard };
    left.dataplane.set_policy(&later).unwrap();
    assert_eq!(left.send(&udp(true, 10)).len(), 1);
    // With the same priority the narrower one is asked first.
    left.dataplane.set_policy(&PolicySpec { priority: PolicySpec::DEFAULT_PRIORITY, ..later }).unwrap();
    assert!(left.send(&udp(true, 10)).is_empty());
}

#[test]
fn a_policy_is_asked_in_its_directions_only() {
    let (mut left, _right) = Setup::default().connect();
    let discard = policy(1, 1, PolicyAction::Discard, everything(true));
    let with = |directions| PolicySpec { directions, ..discard.clone() };
    left.dataplane.set_policy(&with(PolicyDirections::Inbound)).unwrap();
    assert_eq!(left.send(&udp(true, 10)).len(), 1);
    for directions in [PolicyDirections::Outbound, PolicyDirections::Both] {
        left.dataplane.set_policy(&with(directions)).unwrap();
        assert!(left.send(&udp(true, 10)).is_empty());
    }
}

#[test]
fn ports_decide_and_packets_of_other_ports_go_on_to_the_next_policy() {
    let (mut left, _right) = Setup::default().connect();
    let dns = TrafficSelector { protocol: 17, ports: PortRange { start: 53, end: 53 }, ..everything(true) };
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Discard, dns)).unwrap();
    assert!(left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10)).is_empty());
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Discard, TrafficSelector { protocol: 6, ..dns })).unwrap();
    assert_eq!(left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10)).len(), 1);
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Discard, host("10.2.0.2"))).unwrap();
    assert_eq!(left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10)).len(), 1);
}

#[test]
fn packets_arrive_under_an_spi_that_was_chosen_by_hand() {
    let setup = Setup::default();
    let (mut left, mut right) = (setup.gateway(true), setup.gateway(false));
    // Its low bits are those of an SPI that stands elsewhere.
    let chosen = EspSpi::try_from(right.inbound_spi.value() ^ 0x0100_0000).unwrap();
    let spec = setup.inbound(chosen, right.path, false, 5);
    assert_eq!(right.dataplane.install_inbound(&spec), Err(Refusal::SpiNotReserved(chosen)));
    right.dataplane.claim_spi(chosen).unwrap();
    right.dataplane.install_inbound(&spec).unwrap();
    assert_eq!(right.dataplane.claim_spi(chosen), Err(Refusal::SpiInUse(chosen)));
    left.dataplane.install_outbound(&setup.outbound(chosen, left.path, true, 5)).unwrap();
    left.dataplane.activate(POLICY, chosen).unwrap();
    let wire = left.send(&udp(true, 10));
    assert_eq!(right.receive(&wire).len(), 1);
    right.dataplane.remove_sa(Direction::Inbound, chosen, POLICY, right.now).unwrap();
    assert!(right.receive(&left.send(&udp(true, 10))).is_empty());
    right.dataplane.claim_spi(chosen).unwrap();
    right.dataplane.release_spi(chosen).unwrap();
}
