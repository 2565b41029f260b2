//! GRE, VXLAN, L2TPv3 and IP in IP between two dataplanes, plain and protected, and VXLAN with the kernel's own.

use std::net::IpAddr;

use espdp_api::*;

use crate::gateway::{Gateway, INTERFACE, Suite, connect};
use crate::traffic::{Capture, ping, tcp_transfer};
use crate::world::{World, add_route, make_host, make_kernel_vxlan, may_run};
use crate::{NAT_T, gcm};

const OCTETS: usize = 1 << 20;
const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

fn gre(layer: Layer) -> InterfaceKind {
    InterfaceKind::Gre(Gre { key: Some(77), checksum: true, sequence: true, layer })
}

fn vxlan() -> InterfaceKind {
    InterfaceKind::Vxlan(Vxlan { vni: 42.try_into().unwrap(), port: Vxlan::PORT })
}

/// The same session from both ends.
fn l2tp(carrier: L2tpCarrier) -> [InterfaceKind; 2] {
    let cookies = [L2tpCookie::Four([1, 2, 3, 4]), L2tpCookie::Eight([1, 2, 3, 4, 5, 6, 7, 8])];
    [(7, 9, cookies[0], cookies[1]), (9, 7, cookies[1], cookies[0])].map(
        |(session, peer_session, cookie, peer_cookie)| {
            let sublayer = L2tpSublayer::Sequenced;
            InterfaceKind::L2tpv3(L2tpv3 { session, peer_session, cookie, peer_cookie, carrier, sublayer })
        },
    )
}

/// Every kind of tunnel, as each end has it.
fn all_kinds() -> Vec<[InterfaceKind; 2]> {
    let udp = L2tpCarrier::Udp { local_port: L2tpCarrier::PORT, remote_port: L2tpCarrier::PORT };
    vec![[gre(Layer::Ip); 2], [gre(Layer::Ethernet); 2], [vxlan(); 2], l2tp(L2tpCarrier::Ip), l2tp(udp)]
}

/// An end of a tunnel, numbered 1 or 2 inside.
fn spec(name: &str, kind: InterfaceKind, local: &str, remote: Option<&str>, number: u8) -> InterfaceSpec {
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let inside = [format!("10.9.0.{number}/24"), format!("fd09::{number}/64")];
    InterfaceSpec {
        addresses: inside.iter().map(|text| text.parse().unwrap()).collect(),
        ends: Some(TunnelEnds::new(address(local), remote.map(address))),
        ..InterfaceSpec::new(InterfaceName::new(name).unwrap(), kind)
    }
}

fn plain(spec: InterfaceSpec) -> InterfaceSpec {
    InterfaceSpec { protection: Protection::None, ..spec }
}

fn set(gateway: &mut Gateway, spec: InterfaceSpec) {
    assert_eq!(gateway.command(Command::SetInterface(Box::new(spec))), Done::Ok);
}

/// Both families and long packets both ways.
fn traffic_crosses(world: &World, mtu: u32) {
    ping(&world.left, "10.9.0.2", 64);
    ping(&world.right, "fd09::1", 1000);
    ping(&world.left, "10.9.0.2", usize::try_from(mtu).unwrap() - 20);
    ping(&world.left, "10.9.0.2", 4000);
    tcp_transfer(&world.left, &world.right, "10.9.0.2", OCTETS);
    tcp_transfer(&world.right, &world.left, "fd09::1", OCTETS);
}

#[test]
fn plain_tunnels_of_every_kind_carry_both_families_over_both_families() {
    if !may_run() {
        return;
    }
    for kinds in all_kinds().into_iter().chain([[InterfaceKind::Ipip; 2]]) {
        for [one, other] in [V4, V6] {
            let world = World::new();
            let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
            set(&mut left, plain(spec(INTERFACE, kinds[0], one, Some(other), 1)));
            set(&mut right, plain(spec(INTERFACE, kinds[1], other, Some(one), 2)));
            let capture = Capture::start(&world.left);
            let (_, report, _) = left.statistics();
            let added = espdp_core::tunnel_octets(kinds[0], one == V6[0]);
            assert_eq!(usize::try_from(report.mtu).unwrap(), 1500 - added, "{kinds:?}");
            traffic_crosses(&world, report.mtu);
            let seen = capture.finish();
            assert!(seen.esp == 0 && seen.other > 0 && seen.secrets > 0, "{kinds:?}: {seen:?}");
            let (_, report, drops) = right.statistics();
            // What the kernel says about itself at one end may come before the device of the other one is served.
            assert!(drops.iter().all(|drop| drop.reason == "device"), "{kinds:?}: {drops:?}");
            assert!(report.bytes_in > OCTETS as u64, "{report:?}");
            left.stop();
            right.stop();
        }
    }
}

#[test]
fn protected_tunnels_of_every_kind_show_nothing_but_esp_in_transport_and_in_tunnel_mode() {
    if !may_run() {
        return;
    }
    let everything = ["0.0.0.0/0", "::/0"];
    for kinds in all_kinds() {
        for (mode, encapsulation, ends) in [
            (Mode::Transport, Encapsulation::Esp, V4),
            (Mode::Transport, Encapsulation::Esp, V6),
            (Mode::Transport, NAT_T, V4),
            (Mode::Tunnel, Encapsulation::Esp, V4),
        ] {
            let world = World::new();
            let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
            let capture = Capture::start(&world.left);
            set(&mut left, spec(INTERFACE, kinds[0], ends[0], Some(ends[1]), 1));
            set(&mut right, spec(INTERFACE, kinds[1], ends[1], Some(ends[0]), 2));
            let (ours, theirs) = match mode {
                Mode::Transport => (&ends[..1], &ends[1..]),
                _ => (&everything[..], &everything[..]),
            };
            left.policy(ours, theirs, &[]);
            right.policy(theirs, ours, &[]);
            let suite = Suite { mode, ..gcm(encapsulation, ends[0], ends[1]) };
            connect(&mut left, &mut right, suite, ours, theirs);
            let (_, report, _) = left.statistics();
            traffic_crosses(&world, report.mtu);
            let seen = capture.finish();
            assert!(
                seen.esp + seen.udp_4500 > 0 && (seen.other, seen.secrets) == (0, 0),
                "{kinds:?} {mode:?}: {seen:?}"
            );
            let (_, report, _) = right.statistics();
            assert!(report.bytes_in > OCTETS as u64, "{report:?}");
            left.stop();
            right.stop();
        }
    }
}

/// The other interface opens the socket that the packets come by.
#[test]
fn a_tunnel_that_demands_protection_takes_nothing_in_clear() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
    let with_key = |key| InterfaceKind::Gre(Gre { key: Some(key), ..Gre::default() });
    set(&mut left, plain(spec("gre1", with_key(1), V4[0], Some(V4[1]), 1)));
    set(&mut right, spec("gre1", with_key(1), V4[1], Some(V4[0]), 2));
    let other = plain(spec("gre2", with_key(2), V4[1], Some(V4[0]), 3));
    set(&mut right, InterfaceSpec { addresses: Vec::new(), ..other });
    world.left.run(|| {
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"in clear", "10.9.0.2:9").unwrap();
        }
    });
    let dropped = |right: &mut Gateway| {
        let (_, report, drops) = right.statistics();
        assert_eq!(report.packets_in, 0);
        drops.iter().filter(|drop| drop.reason == "clear_tunnel").map(|drop| drop.packets).sum::<u64>()
    };
    while dropped(&mut right) < 10 {
        std::thread::yield_now();
    }
}

#[test]
fn the_kernels_vxlan_is_a_peer_of_ours_over_both_families() {
    if !may_run() {
        return;
    }
    for [one, other] in [V4, V6] {
        let world = World::new();
        world.right.run(move || make_kernel_vxlan(42, other, one, "10.9.0.2/24", "fd09::2/64"));
        let mut left = Gateway::start(&world.left);
        set(&mut left, plain(spec(INTERFACE, vxlan(), one, Some(other), 1)));
        traffic_crosses(&world, 1430);
        let (_, report, drops) = left.statistics();
        assert!(report.bytes_in > OCTETS as u64, "{report:?}");
        // What the kernel says about itself may come before our device is served.
        assert!(drops.iter().all(|drop| drop.reason == "device"), "{drops:?}");
        left.stop();
    }
}

/// Three ends: left, right, and a third one behind right's outside.
#[test]
fn a_multipoint_tunnel_has_several_peers() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let third = make_host(&world.right, "198.51.100.1/24", "2001:db8:2::1/64");
    world.left.run(|| add_route("198.51.100.0/24", V4[1]));
    let ends = [V4[0], V4[1], "198.51.100.2"];
    let namespaces = [&world.left, &world.right, &third];
    let mut gateways: Vec<_> = namespaces.iter().map(|namespace| Gateway::start(namespace)).collect();
    for (at, gateway) in gateways.iter_mut().enumerate() {
        let next_hops = (0..3).filter(|other| *other != at).map(|other| NextHop {
            inner: format!("10.9.0.{}/32", other + 1).parse().unwrap(),
            remote: ends[other].parse().unwrap(),
        });
        let number = u8::try_from(at + 1).unwrap();
        let spec = plain(spec(INTERFACE, gre(Layer::Ip), ends[at], None, number));
        set(gateway, InterfaceSpec { next_hops: next_hops.collect(), ..spec });
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        ping(namespaces[from], &format!("10.9.0.{}", to + 1), 500);
    }
    for mut gateway in gateways {
        let (_, report, _) = gateway.statistics();
        assert!(report.packets_in >= 2 && report.packets_out >= 2, "{report:?}");
        gateway.stop();
    }
}

#[test]
fn a_port_that_somebody_else_has_is_a_refusal_and_the_interface_is_not_left_behind() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    let taken = world.left.run(|| std::net::UdpSocket::bind("0.0.0.0:4789").unwrap());
    let wanted = plain(spec(INTERFACE, vxlan(), V4[0], Some(V4[1]), 1));
    let refused = left.outcome(Command::SetInterface(Box::new(wanted.clone()))).unwrap_err();
    assert!(refused.to_string().contains("open UDP port 4789 for IPv4"), "{refused}");
    drop(taken);
    set(&mut left, wanted);
    let name = InterfaceName::new(INTERFACE).unwrap();
    assert_eq!(left.command(Command::RemoveInterface(name)), Done::Ok);
    world.left.run(|| std::net::UdpSocket::bind("0.0.0.0:4789").map(drop).unwrap());
    left.stop();
}
