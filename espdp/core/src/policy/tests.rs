//! The table against the plain reading of RFC 4301: ask one policy after the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, InterfaceName, PortRange, TrafficSelector};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::packet::protocol;

const INTERFACE: InterfaceId = InterfaceId(1);

/// What the first policy in order says to a packet, by its definition.
fn scan(specs: &[PolicySpec], packet: &Selected, is_inbound: bool) -> Result<PolicyId, Unfound> {
    let not_asked = if is_inbound { PolicyDirections::Outbound } else { PolicyDirections::Inbound };
    let mut ordered: Vec<(Order, &PolicySpec)> = specs
        .iter()
        .filter(|spec| spec.directions != not_asked)
        .map(|spec| {
            let breadth = Selectors::new(&spec.local, &spec.remote).breadth();
            (Order { priority: spec.priority, breadth, id: spec.id }, spec)
        })
        .collect();
    ordered.sort_by_key(|(order, _)| *order);
    let selects = |spec: &PolicySpec, packet: &Selected| {
        let local = |selector: &TrafficSelector| selector.matches(packet.local, packet.protocol, packet.local_port);
        let remote = |selector: &TrafficSelector| selector.matches(packet.remote, packet.protocol, packet.remote_port);
        spec.local.iter().any(local) && spec.remote.iter().any(remote)
    };
    let found = ordered.iter().find(|(_, spec)| selects(spec, packet));
    let opaque = |spec: &PolicySpec| spec.local.iter().chain(&spec.remote).any(|side| side.ports == PortRange::OPAQUE);
    if packet.hides_ports() && !found.is_some_and(|(_, spec)| opaque(spec)) {
        // With some ports or others, an earlier policy might select it.
        let might = |side: &TrafficSelector, address: IpAddr| {
            let protocols = [packet.protocol, side.protocol];
            let known = if protocol::is_extension_header(packet.protocol) { &protocols[..] } else { &protocols[..1] };
            known
                .iter()
                .any(|protocol| TrafficSelector { ports: PortRange::ANY, ..*side }.matches(address, *protocol, None))
        };
        let earlier = ordered.iter().take_while(|(order, _)| found.is_none_or(|(first, _)| order < first));
        let mut specific =
            earlier.filter(|(_, spec)| spec.local.iter().chain(&spec.remote).any(|side| side.ports != PortRange::ANY));
        if specific.any(|(_, spec)| {
            spec.local.iter().any(|side| might(side, packet.local))
                && spec.remote.iter().any(|side| might(side, packet.remote))
        }) {
            return Err(Unfound::HiddenPorts);
        }
    }
    found.map(|(_, spec)| spec.id).ok_or(Unfound::Nothing)
}

/// Addresses from so few that policies and packets often meet, of all sizes.
fn address(is_ipv4: bool) -> impl Strategy<Value = IpAddr> {
    let spread = prop_oneof![0u32..8, (0u32..4).prop_map(|high| high << 30), 0x0a00_00f0u32..0x0a00_0110, any::<u32>()];
    spread.prop_map(move |number| {
        if is_ipv4 {
            Ipv4Addr::from_bits(number).into()
        } else {
            Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number & 7)).into()
        }
    })
}

fn range(is_ipv4: bool) -> impl Strategy<Value = AddressRange> {
    let prefix = (address(is_ipv4), 0u32..=32).prop_map(|(address, bits)| match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shr(bits).unwrap_or(0);
            let (first, last) = (address.to_bits() & !mask, address.to_bits() | mask);
            AddressRange::new(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into()).unwrap()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shr(bits * 4).unwrap_or(0);
            let (first, last) = (address.to_bits() & !mask, address.to_bits() | mask);
            AddressRange::new(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into()).unwrap()
        }
    });
    let any = (address(is_ipv4), address(is_ipv4))
        .prop_map(|(one, other)| AddressRange::new(one.min(other), one.max(other)).unwrap());
    prop_oneof![prefix, any]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..4, 0x0800u16..0x0804, any::<u16>()]
}

fn protocol_number() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![protocol::TCP, protocol::UDP, protocol::ICMP, 47, protocol::DESTINATION_OPTIONS])
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        3 => Just(PortRange::ANY),
        1 => Just(PortRange::OPAQUE),
        2 => port().prop_map(|port| PortRange { start: port, end: port }),
        2 => (port(), port()).prop_map(|(one, other)| PortRange { start: one.min(other), end: one.max(other) }),
    ];
    let addresses = any::<bool>().prop_flat_map(range);
    let protocol = prop_oneof![Just(0u8), protocol_number()];
    (addresses, protocol, ports).prop_map(|(addresses, protocol, ports)| TrafficSelector { addresses, protocol, ports })
}

fn policy() -> impl Strategy<Value = PolicySpec> {
    let actions = vec![PolicyAction::Protect { acquire: false }, PolicyAction::Bypass, PolicyAction::Discard];
    let directions = vec![PolicyDirections::Both, PolicyDirections::Outbound, PolicyDirections::Inbound];
    let selectors = || prop_oneof![8 => vec(selector(), 1..4), 1 => vec(selector(), 20..24)];
    (prop::sample::select(actions), prop::sample::select(directions), 0u32..4, selectors(), selectors()).prop_map(
        |(action, directions, priority, local, remote)| PolicySpec {
            action,
            directions,
            priority,
            ..PolicySpec::protect(PolicyId(0), InterfaceName::new("ipsec0").unwrap(), local, remote)
        },
    )
}

fn packet() -> impl Strategy<Value = Selected> {
    let addresses = any::<bool>().prop_flat_map(|is_ipv4| (address(is_ipv4), address(is_ipv4)));
    (addresses, protocol_number(), prop::option::weighted(0.8, (port(), port()))).prop_map(
        |((local, remote), protocol, ports)| {
            let ports = ports.filter(|_| protocol::has_ports(protocol));
            let (local_port, remote_port) = (ports.map(|ports| ports.0), ports.map(|ports| ports.1));
            Selected { local, remote, protocol, local_port, remote_port, is_completed: false }
        },
    )
}

fn numbered(mut specs: Vec<PolicySpec>) -> Vec<PolicySpec> {
    for (number, spec) in specs.iter_mut().enumerate() {
        spec.id = PolicyId(number as u64);
    }
    specs
}

fn answer(table: &PolicyTable, packet: &Selected, is_inbound: bool) -> Result<PolicyId, Unfound> {
    let asked = if is_inbound { Policy::is_inbound } else { Policy::is_outbound };
    table.first(INTERFACE, packet, asked).map(|(_, policy)| policy.id)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// R4301-4.4.1-1: whatever the policies are, and whatever was removed before, the first one in order answers.
    #[test]
    fn the_index_gives_the_same_answers_as_asking_one_policy_after_the_other(
        specs in vec(policy(), 0..25).prop_map(numbered),
        gone in vec(any::<prop::sample::Index>(), 0..20),
        packets in vec(packet(), 1..40),
    ) {
        let mut table = PolicyTable::new();
        for spec in &specs {
            table.set(spec, INTERFACE);
        }
        let mut left = specs;
        for index in gone {
            if !left.is_empty() {
                let spec = left.swap_remove(index.index(left.len()));
                prop_assert!(table.remove(spec.id).is_some());
            }
        }
        for packet in &packets {
            for is_inbound in [false, true] {
                prop_assert_eq!(answer(&table, packet, is_inbound), scan(&left, packet, is_inbound), "{:?}", packet);
            }
        }
        for spec in &left {
            table.remove(spec.id);
        }
        for packet in &packets {
            prop_assert_eq!(answer(&table, packet, false), Err(Unfound::Nothing));
        }
    }

    /// Packets at the edges of selectors, where a box that is too small would show.
    #[test]
    fn the_first_and_the_last_packet_of_each_selector_are_found(specs in vec(policy(), 1..30).prop_map(numbered)) {
        let mut table = PolicyTable::new();
        for spec in &specs {
            table.set(spec, INTERFACE);
        }
        for spec in &specs {
            for (local, remote) in spec.local.iter().flat_map(|local| spec.remote.iter().map(move |remote| (local, remote))) {
                if local.addresses.is_ipv4() != remote.addresses.is_ipv4() {
                    continue;
                }
                let protocol = if local.protocol == 0 { remote.protocol } else { local.protocol };
                let first = |side: &TrafficSelector| (side.addresses.start(), Some(side.ports.start));
                let last = |side: &TrafficSelector| (side.addresses.end(), Some(side.ports.end));
                for (l, r) in [(first(local), first(remote)), (first(local), last(remote)), (last(local), last(remote))] {
                    let ((local, local_port), (remote, remote_port)) = (l, r);
                    let packet = Selected { local, remote, protocol, local_port, remote_port, is_completed: false };
                    prop_assert_eq!(answer(&table, &packet, false), scan(&specs, &packet, false));
                }
            }
        }
    }
}
