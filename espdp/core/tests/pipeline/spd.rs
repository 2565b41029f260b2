//! The security policy database: order, actions, directions (RFC 4301 §4.4.1).

use espdp_api::{
    Direction, EspSpi, InterfaceName, PolicyAction, PolicyDirections, PolicyId, PolicySpec, PortRange, Refusal,
    TrafficSelector,
};

use crate::support::{Gateway, POLICY, Setup, everything, ip, range, udp, udp_between};

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
    let drops = |left: &Gateway| -> Vec<_> {
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

/// R4301-4.4.1-1: what bypasses leaves octet by octet as it came.
#[test]
fn bypass_lets_packets_out_as_they_are_and_the_next_policy_takes_the_others() {
    let (mut left, mut right) = Setup::default().connect();
    let ssh = TrafficSelector { protocol: 6, ports: PortRange { start: 22, end: 22 }, ..everything(true) };
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Bypass, ssh)).unwrap();
    let tcp = |port: u8| ip("10.1.0.1", "10.2.0.1", 6, 0xb8, &[&[0x10, 1, 0, port][..], &[7; 16]].concat());
    for _ in 0..2 {
        assert_eq!(left.send_clear(&tcp(22)), [tcp(22)]);
    }
    let wire = left.send(&tcp(23));
    assert_eq!(right.receive(&wire), [tcp(23)]);
    left.dataplane.remove_policy(PolicyId(1)).unwrap();
    assert_eq!(left.send(&tcp(22)).len(), 1, "the flow was cached");
}

/// RFC 4301 §5.2 step 4.
#[test]
fn what_comes_in_through_an_sa_has_to_be_for_its_policy() {
    let (mut left, mut right) = Setup::default().connect();
    let mut arrives =
        |right: &mut Gateway| right.receive(&left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10))).len();
    assert_eq!(arrives(&mut right), 1);
    // On the right `remote` is where packets come from.
    let from = || range("10.1.0.0", "10.1.255.255");
    let reasons =
        |right: &Gateway| -> Vec<_> { right.drops(Direction::Inbound).into_iter().map(|(reason, _)| reason).collect() };
    for (action, reason) in [(PolicyAction::Discard, "discard"), (PolicyAction::Bypass, "other_policy")] {
        right.dataplane.set_policy(&policy(1, 1, action, from())).unwrap();
        assert_eq!(arrives(&mut right), 0, "{action:?}");
        assert!(reasons(&right).iter().any(|other| other == reason), "{action:?}");
        right.dataplane.set_policy(&policy(1, 1001, action, from())).unwrap();
        assert_eq!(arrives(&mut right), 1, "a later policy is not asked");
    }
    // Packets of another peer's policy, which is asked earlier or is narrower.
    let protect = PolicyAction::Protect { acquire: false };
    for priority in [1, PolicySpec::DEFAULT_PRIORITY] {
        right.dataplane.set_policy(&policy(1, priority, protect, from())).unwrap();
        assert_eq!(arrives(&mut right), 0, "{priority}");
    }
    let outbound = PolicySpec { directions: PolicyDirections::Outbound, ..policy(1, 1, protect, from()) };
    right.dataplane.set_policy(&outbound).unwrap();
    assert_eq!(arrives(&mut right), 1, "not asked for what comes in");
}

/// R4301-4.1-1: parallel SAs with the same selectors are all good, and so are overlapping ones of one peer, who may see another
/// order than we do.
#[test]
fn of_policies_that_nobody_put_in_an_order_each_may_receive() {
    let setup = Setup::default();
    let (mut left, mut right) = setup.connect();
    let mut arrives =
        |right: &mut Gateway| right.receive(&left.send(&udp_between("10.1.0.1", "10.2.0.1", 0, 10))).len();
    let protect = PolicyAction::Protect { acquire: false };
    let twin = PolicySpec { id: PolicyId(1), ..right_policy(&setup) };
    right.dataplane.set_policy(&twin).unwrap();
    assert_eq!(arrives(&mut right), 1, "as broad as the SA's own");
    right.dataplane.remove_policy(PolicyId(1)).unwrap();
    right
        .dataplane
        .set_policy(&policy(1, PolicySpec::DEFAULT_PRIORITY, protect, range("10.1.0.0", "10.1.0.255")))
        .unwrap();
    assert_eq!(arrives(&mut right), 0, "narrower, and nobody's");
    let spi = EspSpi::try_from(0x4444).unwrap();
    let mut spec = setup.outbound(spi, right.path, false, 3);
    spec.sa.policy = PolicyId(1);
    right.dataplane.install_outbound(&spec).unwrap();
    assert_eq!(arrives(&mut right), 1, "narrower, and the same peer's");
    let other = espdp_api::OuterPath { remote: "192.0.2.77".parse().unwrap(), ..right.path };
    right.dataplane.move_sa(Direction::Outbound, spi, PolicyId(1), other).unwrap();
    assert_eq!(arrives(&mut right), 0, "narrower, and another peer's");
}

fn right_policy(setup: &Setup) -> PolicySpec {
    let interface = InterfaceName::new("ipsec0").unwrap();
    PolicySpec::protect(POLICY, interface, setup.remote.clone(), setup.local.clone())
}

/// A UDP packet to port 53 in three fragments: the first shows the ports, the others do not.
fn fragments(id: u16) -> [Vec<u8>; 3] {
    [(0x2000, vec![0x10, 1, 0, 53, 0, 40, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), (0x2002, vec![2; 16]), (0x0004, vec![3; 8])]
        .map(|(flags, payload)| {
            let mut packet = ip("10.1.0.1", "10.2.0.1", 17, 0, &payload);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6..8].copy_from_slice(&u16::to_be_bytes(flags));
            packet
        })
}

/// RFC 4301 §7.4: fragments of what a policy for certain ports lets out or drops go the way of their first one.
#[test]
fn later_fragments_go_the_way_of_the_first_one_and_nowhere_without_it() {
    let (mut left, mut right) = Setup::default().connect();
    let dns = TrafficSelector { protocol: 17, ports: PortRange { start: 53, end: 53 }, ..everything(true) };
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Bypass, dns)).unwrap();
    let [first, second, third] = fragments(1);
    // Which policy they belong to is not known before the first one came.
    assert!(left.send_clear(&second).is_empty());
    assert_eq!(left.dataplane.drops()[0].reason, "hidden_ports");
    for fragment in [&first, &third, &second] {
        assert_eq!(left.send_clear(fragment), std::slice::from_ref(fragment));
    }
    let other = fragments(2);
    assert!(left.send_clear(&other[1]).is_empty(), "another packet");
    left.dataplane.set_policy(&policy(1, 1, PolicyAction::Discard, dns)).unwrap();
    assert!(other.iter().all(|fragment| left.send_clear(fragment).is_empty()));
    left.pass(60_000);
    assert!(left.send_clear(&second).is_empty());
    // Where no policy is for certain ports, nothing has to be known (R4301-7.1-1).
    left.dataplane.remove_policy(PolicyId(1)).unwrap();
    let wire: Vec<_> = fragments(3).iter().rev().flat_map(|fragment| left.send(fragment)).collect();
    assert_eq!(right.receive(&wire).len(), 3);
}

/// R4301-7.3-1: SAs for certain ports carry later fragments only where both ends agreed, and then only behind their first one.
#[test]
fn later_fragments_travel_in_sas_for_certain_ports_where_both_ends_agreed() {
    let dns = TrafficSelector { protocol: 17, ports: PortRange { start: 53, end: 53 }, ..everything(true) };
    let setup = Setup { remote: vec![dns], local: vec![everything(true)], ..Setup::default() };
    let agree = |gateway: &mut Gateway, is_left: bool| {
        let (local, remote) = (setup.local.clone(), setup.remote.clone());
        let (local, remote) = if is_left { (local, remote) } else { (remote, local) };
        let spec = PolicySpec::protect(POLICY, InterfaceName::new("ipsec0").unwrap(), local, remote);
        gateway.dataplane.set_policy(&PolicySpec { later_fragments: true, ..spec }).unwrap();
    };
    let (mut left, mut right) = setup.connect();
    let sent: Vec<_> = fragments(1).iter().flat_map(|fragment| left.send(fragment)).collect();
    assert_eq!(sent.len(), 1, "the first one shows its ports");
    agree(&mut left, true);
    let sent: Vec<_> = fragments(2).iter().flat_map(|fragment| left.send(fragment)).collect();
    assert_eq!(sent.len(), 3);
    assert_eq!(right.receive(&sent).len(), 1, "the other end did not agree");
    agree(&mut right, false);
    let sent: Vec<_> = fragments(3).iter().flat_map(|fragment| left.send(fragment)).collect();
    assert_eq!(right.receive(&sent[1..]).len(), 0, "without the first one");
    assert_eq!(right.receive(&left.send(&fragments(4)[0])).len(), 1);
    let sent: Vec<_> = fragments(4)[1..].iter().flat_map(|fragment| left.send(fragment)).collect();
    assert_eq!(right.receive(&sent).len(), 2);
}
