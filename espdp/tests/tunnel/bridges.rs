//! Bridge domains: TAP devices, links of the host and links in memory as ports.

use espdp_api::*;

use crate::gateway::Gateway;
use crate::traffic::{ping, tcp_transfer};
use crate::world::{Namespace, WIRE, World, flush_addresses, may_run, set_link_down_and_up};

const OCTETS: usize = 4 << 20;

fn name(text: &str) -> InterfaceName {
    InterfaceName::new(text).unwrap()
}

fn lan() -> BridgeSpec {
    BridgeSpec::new(BridgeName::new("lan").unwrap())
}

/// An interface in the domain `lan`.
fn port(text: &str, kind: InterfaceKind, addresses: &[&str]) -> Command {
    Command::SetInterface(Box::new(InterfaceSpec {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        bridge: Some(BridgePort { bridge: lan().name, split_horizon: 0 }),
        mtu: Mtu::Fixed(1500),
        ..InterfaceSpec::new(name(text), kind)
    }))
}

/// A dataplane with the domain `lan` and a TAP device in it, which is the gateway's own place on the segment.
fn gateway(namespace: &Namespace, addresses: &[&str]) -> Gateway {
    let mut gateway = Gateway::start(namespace);
    gateway.command(Command::SetBridge(Box::new(lan())));
    gateway.command(port("bvi0", InterfaceKind::Tap, addresses));
    gateway
}

fn report(gateway: &mut Gateway, interface: &str) -> InterfaceReport {
    let Done::Statistics { interfaces, .. } = gateway.command(Command::Statistics) else { panic!("no statistics") };
    interfaces.into_iter().find(|report| report.name.as_str() == interface).unwrap()
}

fn drops(gateway: &mut Gateway) -> Vec<String> {
    let Done::Statistics { drops, .. } = gateway.command(Command::Statistics) else { panic!("no statistics") };
    drops.into_iter().map(|drop| drop.reason).collect()
}

/// Two instances in two namespaces, linked by veth: what each TAP device sends leaves by the host's link, and comes in there.
#[test]
fn two_instances_switch_between_tap_devices_and_the_link_between_them() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = gateway(&world.left, &["10.9.0.1/24", "fd09::1/64"]);
    let mut right = gateway(&world.right, &["10.9.0.2/24", "fd09::2/64"]);
    for (gateway, namespace) in [(&mut left, &world.left), (&mut right, &world.right)] {
        // The link belongs to the segment now, not to the kernel's own stack.
        namespace.run(|| flush_addresses(WIRE));
        gateway.command(port(WIRE, InterfaceKind::Host, &[]));
    }
    ping(&world.left, "10.9.0.2", 64);
    ping(&world.right, "fd09::1", 1400);
    tcp_transfer(&world.left, &world.right, "10.9.0.2", OCTETS);
    tcp_transfer(&world.right, &world.left, "fd09::1", OCTETS);
    let (tap, wire) = (report(&mut left, "bvi0"), report(&mut left, WIRE));
    assert!(tap.bytes_out > OCTETS as u64 && wire.bytes_in > OCTETS as u64, "{tap:?} {wire:?}");
    assert!(wire.packets_in < (OCTETS / 1500) as u64, "super-packets pass whole: {wire:?}");

    // A link that was down is used again as soon as it is up.
    world.left.run(|| set_link_down_and_up(WIRE));
    ping(&world.left, "10.9.0.2", 64);
    // And so is another link of its name.
    world.renew_wire();
    ping(&world.left, "10.9.0.2", 64);

    left.command(Command::RemoveInterface(name(WIRE)));
    let refused = left.outcome(Command::RemoveBridge(lan().name)).unwrap_err();
    assert_eq!(refused, Refusal::BridgeInUse(lan().name));
    left.command(Command::RemoveInterface(name("bvi0")));
    left.command(Command::RemoveBridge(lan().name));
    left.stop();
    right.stop();
}

#[test]
fn two_instances_in_one_process_are_linked_in_memory() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = gateway(&world.left, &["10.9.0.1/24"]);
    let mut right = gateway(&world.right, &["10.9.0.2/24"]);
    let link = InterfaceKind::Memory { link: 4242 };
    left.command(port("mem0", link, &[]));
    right.command(port("mem0", link, &[]));
    let third = left.outcome(port("mem1", link, &[])).unwrap_err();
    assert!(third.to_string().contains("link 4242 has two ends"), "{third}");
    ping(&world.left, "10.9.0.2", 64);
    tcp_transfer(&world.left, &world.right, "10.9.0.2", OCTETS);
    assert!(report(&mut right, "mem0").bytes_out > OCTETS as u64);

    // An end is closed and opened again while the other one stays.
    left.command(Command::RemoveInterface(name("mem0")));
    left.command(port("mem0", link, &[]));
    ping(&world.left, "10.9.0.2", 64);
    left.stop();
    right.stop();
}

#[test]
fn an_instance_answers_for_the_neighbours_that_it_knows_and_reaches_static_stations_without_learning() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let macs: [MacAddress; 2] = ["02:00:5e:00:53:01", "02:00:5e:00:53:02"].map(|text| text.parse().unwrap());
    let link = InterfaceKind::Memory { link: 4243 };
    let mut gateways = [&world.left, &world.right].map(Gateway::start);
    for (own, gateway) in gateways.iter_mut().enumerate() {
        let other = 1 - own;
        let address = |at: usize| format!("10.9.0.{}", at + 1).parse().unwrap();
        let spec = BridgeSpec {
            learning: false,
            flood: Flood::Nothing,
            stations: vec![
                StaticStation { mac: macs[own], interface: name("bvi0") },
                StaticStation { mac: macs[other], interface: name("mem0") },
            ],
            neighbours: vec![Neighbour { address: address(other), mac: macs[other] }],
            ..lan()
        };
        gateway.command(Command::SetBridge(Box::new(spec)));
        let Command::SetInterface(bvi) = port("bvi0", InterfaceKind::Tap, &[&format!("10.9.0.{}/24", own + 1)]) else {
            unreachable!()
        };
        gateway.command(Command::SetInterface(Box::new(InterfaceSpec { mac: Some(macs[own]), ..*bvi })));
        gateway.command(port("mem0", link, &[]));
    }
    let [mut left, mut right] = gateways;
    ping(&world.left, "10.9.0.2", 64);
    // The request for the other's address was answered here: only the echo request crossed.
    assert!(drops(&mut right).is_empty() && drops(&mut left).is_empty());
    left.command(Command::SetBridge(Box::new(BridgeSpec { learning: false, flood: Flood::Nothing, ..lan() })));
    world.left.run(|| {
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"who is that?", "10.9.0.77:9").unwrap();
    });
    // The request for an unknown address goes nowhere now.
    while !drops(&mut left).contains(&"bridge_unknown".to_owned()) {
        std::thread::yield_now();
    }
    left.stop();
    right.stop();
}

#[test]
fn a_port_of_an_unknown_domain_is_refused_and_leaves_nothing_behind() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    let refused = left.outcome(port("bvi0", InterfaceKind::Tap, &[])).unwrap_err();
    assert_eq!(refused, Refusal::UnknownBridge(lan().name));
    let missing = left.outcome(port("eth77", InterfaceKind::Host, &[])).unwrap_err();
    assert!(missing.to_string().contains("eth77"), "{missing}");
    left.command(Command::SetBridge(Box::new(lan())));
    left.command(port("bvi0", InterfaceKind::Tap, &[]));
    left.stop();
}
