//! Two dataplanes in two network namespaces, driven over the API as the daemon drives them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ah;
mod bridges;
mod gateway;
mod idle;
mod links;
mod namespaces;
mod traffic;
mod tunnels;
mod workers;
mod world;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ::tunnels::{LongestMatch, Netlink, NetworkState};
use espdp::{Dataplane, DataplaneSettings};
use espdp_api::*;
use gateway::{Gateway, POLICY, Suite, connect, selectors, settings};
use traffic::{Capture, ping, tcp_transfer, throw_garbage};
use world::{World, delete_link, make_host, may_run, set_link_down_and_up, set_wire_mtu};

const LEFT: [&str; 2] = ["10.1.0.0/16", "fd01::/64"];
const RIGHT: [&str; 2] = ["10.2.0.0/16", "fd02::/64"];
const NAT_T: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };

/// Both gateways with interface, policy and routes, but no SA.
fn gateways(world: &World) -> (Gateway, Gateway) {
    set_up(Gateway::start(&world.left), Gateway::start(&world.right))
}

/// Gives both gateways interface, policy and routes.
fn set_up(mut left: Gateway, mut right: Gateway) -> (Gateway, Gateway) {
    left.interface(InterfaceKind::Ipsec, &["10.1.0.1/24", "fd01::1/128"]);
    left.policy(&LEFT, &RIGHT, &RIGHT);
    right.interface(InterfaceKind::Ipsec, &["10.2.0.1/24", "fd02::1/128"]);
    right.policy(&RIGHT, &LEFT, &LEFT);
    (left, right)
}

fn gcm(encapsulation: Encapsulation, left: &'static str, right: &'static str) -> Suite {
    let cipher = EspCipher::AesGcm16 { key_bits: 256 };
    let algorithms = EspAlgorithms { cipher, integrity: EspIntegrity::None, extended_sequence_numbers: true };
    Suite { protocol: IpsecProtocol::Esp, algorithms, mode: Mode::Tunnel, encapsulation, left, right }
}

fn cbc(encapsulation: Encapsulation, left: &'static str, right: &'static str) -> Suite {
    let cipher = EspCipher::AesCbc { key_bits: 128 };
    let integrity = EspIntegrity::HmacSha2_256_128;
    let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers: false };
    Suite { protocol: IpsecProtocol::Esp, algorithms, mode: Mode::Tunnel, encapsulation, left, right }
}

/// Ping and TCP, IPv4 and IPv6 inside, both directions; then every counter and the wire are looked at.
fn traffic_crosses_encrypted(suite: Suite, octets: usize) {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    let capture = Capture::start(&world.left);
    connect(&mut left, &mut right, suite, &LEFT, &RIGHT);

    ping(&world.left, "10.2.0.1", 64);
    ping(&world.right, "fd01::1", 1200);
    ping(&world.left, "10.2.0.1", 4000);
    tcp_transfer(&world.left, &world.right, "10.2.0.1", octets);
    tcp_transfer(&world.right, &world.left, "fd01::1", octets);

    let seen = capture.finish();
    let on_the_wire = if suite.encapsulation == Encapsulation::Esp { seen.esp } else { seen.udp_4500 };
    assert!(on_the_wire > 20, "{seen:?}");
    assert_eq!((seen.other, seen.secrets), (0, 0), "{seen:?}");
    assert_carried(&mut left, &mut right, octets);
    assert_carried(&mut right, &mut left, octets);
    left.stop();
    right.stop();
}

/// The SA from one gateway to the other carried more than `octets`, and dropped nothing.
fn assert_carried(from: &mut Gateway, to: &mut Gateway, octets: usize) {
    // In this order, since the end of a connection may still be on its way.
    let received = to.sa(Direction::Inbound);
    let sent = from.sa(Direction::Outbound);
    assert_eq!(sent.spi, received.spi);
    assert!(sent.bytes > octets as u64 && received.bytes > octets as u64, "{sent:?} {received:?}");
    assert!(received.packets <= sent.packets, "{sent:?} {received:?}");
    assert!(received.drops.is_empty() && sent.drops.is_empty(), "{sent:?} {received:?}");
}

#[test]
fn gcm_with_esn_in_udp_over_ipv4() {
    traffic_crosses_encrypted(gcm(NAT_T, "192.0.2.1", "192.0.2.2"), 16 << 20);
}

#[test]
fn gcm_with_esn_in_udp_over_ipv6() {
    traffic_crosses_encrypted(gcm(NAT_T, "2001:db8::1", "2001:db8::2"), 4 << 20);
}

#[test]
fn gcm_with_esn_natively_over_ipv4() {
    traffic_crosses_encrypted(gcm(Encapsulation::Esp, "192.0.2.1", "192.0.2.2"), 4 << 20);
}

#[test]
fn gcm_with_esn_natively_over_ipv6() {
    traffic_crosses_encrypted(gcm(Encapsulation::Esp, "2001:db8::1", "2001:db8::2"), 4 << 20);
}

#[test]
fn cbc_with_hmac_in_udp_and_natively() {
    traffic_crosses_encrypted(cbc(NAT_T, "192.0.2.1", "192.0.2.2"), 4 << 20);
    traffic_crosses_encrypted(cbc(Encapsulation::Esp, "2001:db8::1", "2001:db8::2"), 1 << 20);
}

/// Transport mode between the gateways themselves, natively and in UDP, IPv4 and IPv6.
#[test]
fn transport_mode_protects_what_the_gateways_say_to_each_other() {
    if !may_run() {
        return;
    }
    for (encapsulation, left_address, right_address) in [
        (Encapsulation::Esp, "192.0.2.1", "192.0.2.2"),
        (NAT_T, "192.0.2.1", "192.0.2.2"),
        (NAT_T, "2001:db8::1", "2001:db8::2"),
    ] {
        let world = World::new();
        let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
        let capture = Capture::start(&world.left);
        left.interface(InterfaceKind::Ipsec, &[]);
        left.policy(&[left_address], &[right_address], &[right_address]);
        right.interface(InterfaceKind::Ipsec, &[]);
        right.policy(&[right_address], &[left_address], &[left_address]);
        let suite = Suite { mode: Mode::Transport, ..gcm(encapsulation, left_address, right_address) };
        connect(&mut left, &mut right, suite, &[left_address], &[right_address]);
        ping(&world.left, right_address, 64);
        tcp_transfer(&world.left, &world.right, right_address, 1 << 20);
        let seen = capture.finish();
        assert_eq!((seen.other, seen.secrets), (0, 0), "{seen:?}");
        assert_carried(&mut left, &mut right, 1 << 20);
    }
}

#[test]
fn ip_in_ip_in_transport_mode_is_a_tunnel() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let hosts = ["192.0.2.1", "192.0.2.2"];
    let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
    left.interface(InterfaceKind::Ipip, &["10.1.0.1/24"]);
    left.policy(&hosts[..1], &hosts[1..], &RIGHT);
    right.interface(InterfaceKind::Ipip, &["10.2.0.1/24"]);
    right.policy(&hosts[1..], &hosts[..1], &LEFT);
    let suite = Suite { mode: Mode::Transport, ..gcm(Encapsulation::Esp, "192.0.2.1", "192.0.2.2") };
    connect(&mut left, &mut right, suite, &hosts[..1], &hosts[1..]);
    assert_eq!(left.statistics().1.mtu, 1446);
    ping(&world.left, "10.2.0.1", 1446 - 20);
    tcp_transfer(&world.left, &world.right, "10.2.0.1", 1 << 20);
    assert_carried(&mut left, &mut right, 1 << 20);
}

#[test]
fn a_second_dataplane_is_refused_and_harms_nothing() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    let refused = world.left.run(|| Dataplane::start(settings()).map(|_| ()).unwrap_err());
    assert!(refused.to_string().starts_with("open UDP port 500 for IPv4: "), "{refused}");
    ping(&world.left, "10.2.0.1", 64);
    left.stop();
    right.stop();
}

#[test]
fn rules_of_a_predecessor_that_was_killed_stay_until_we_are_told_what_there_is_to_be() {
    if !may_run() {
        return;
    }
    let world = World::new();
    world.left.run(leave_rules_behind);
    let mut left = Gateway::start(&world.left);
    world
        .left
        .run(|| assert!(std::panic::catch_unwind(gateway::assert_no_rules).is_err(), "packets would leave in clear"));
    left.command(Command::SetHost(Box::default()));
    world.left.run(gateway::assert_no_rules);
    left.stop();
}

/// Whatever arrives on the ports: traffic goes on, and IKE is for the daemon to judge.
#[test]
fn garbage_on_every_port_is_counted_and_harms_nothing() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    let spi = right.sa(Direction::Inbound).spi;
    world.left.run(move || throw_garbage("192.0.2.2", spi));
    let unknown = right.event(|event| {
        let Event::UnknownSpi { path, .. } = event else { return None };
        Some(path.remote)
    });
    assert_eq!(unknown, SocketAddr::from(([192, 0, 2, 1], 0)).ip());
    ping(&world.left, "10.2.0.1", 64);
    let received = right.sa(Direction::Inbound);
    assert!(received.drops.iter().any(|drop| drop.reason == "bad_icv"), "{received:?}");
    assert!(received.packets <= left.sa(Direction::Outbound).packets);
}

#[test]
fn a_link_that_somebody_deleted_is_made_again_without_spinning() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    ping(&world.left, "10.2.0.1", 64);
    world.left.run(|| delete_link(gateway::INTERFACE));
    let losses = |gateway: &mut Gateway| {
        let (.., drops) = gateway.statistics();
        drops.iter().filter(|drop| drop.reason == "device").map(|drop| drop.packets).sum::<u64>()
    };
    while losses(&mut left) == 0 {
        std::thread::yield_now();
    }
    // A descriptor that stays ready would be found broken with every round of the worker, and each command makes one.
    let most = (0..100).map(|_| losses(&mut left)).max().unwrap();
    assert!(most <= settings().workers.count().into(), "{most}: each worker has a queue to lose");
    ping(&world.left, "10.2.0.1", 64);
    left.command(Command::RemovePolicy(POLICY));
    left.command(Command::RemoveInterface(InterfaceName::new(gateway::INTERFACE).unwrap()));
    left.interface(InterfaceKind::Ipsec, &["10.1.0.1/24"]);
    left.stop();
    right.stop();
}

#[test]
fn a_link_that_somebody_set_down_and_up_again_has_its_addresses_and_routes_back() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    ping(&world.left, "10.2.0.1", 64);
    world.left.run(|| set_link_down_and_up(gateway::INTERFACE));
    for there in ["10.2.0.1", "fd02::1"] {
        ping(&world.left, there, 64);
    }
    left.stop();
    right.stop();
}

#[test]
fn the_mtu_follows_the_sas_and_the_largest_packet_leaves_unfragmented() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    assert_eq!(left.statistics().1.mtu, 1400);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    // 1500 - 20 (IPv4) - 8 (UDP) - 8 (SPI, sequence) - 8 (IV) - 16 (ICV) = 1440, of which 2 are the trailer.
    assert_eq!(left.statistics().1.mtu, 1438);
    let capture = Capture::start(&world.left);
    ping(&world.left, "10.2.0.1", 1438 - 20);
    let seen = capture.finish();
    assert!(seen.udp_4500 >= 2 && seen.udp_4500.is_multiple_of(2), "{seen:?}");
    assert_eq!(seen.other, 0, "{seen:?}");
    let sa = left.sa(Direction::Outbound);
    let path = OuterPath {
        local: "192.0.2.1".parse().unwrap(),
        remote: "192.0.2.2".parse().unwrap(),
        encapsulation: Encapsulation::Esp,
    };
    left.command(Command::MoveSa { direction: Direction::Outbound, spi: sa.spi, policy: POLICY, path });
    assert_eq!(left.statistics().1.mtu, 1446);
}

#[test]
fn a_path_that_becomes_narrower_shrinks_the_interface_and_loses_nothing() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    // With 1300 octets outside there are less than 1280 inside, which IPv6 must have.
    for (outside, inside) in [(1400, 1338), (1300, 1280)] {
        world.left.run(move || set_wire_mtu(outside));
        world.right.run(move || set_wire_mtu(outside));
        ping(&world.left, "10.2.0.1", 1400);
        for gateway in [&mut left, &mut right] {
            // The interface follows once the thread that has the netlink socket comes to it.
            let deadline = Instant::now() + Duration::from_secs(10);
            while gateway.statistics().1.mtu != inside {
                assert!(Instant::now() < deadline, "{:?} instead of {inside}", gateway.statistics().1);
            }
            assert_eq!(gateway.statistics().2, []);
        }
        tcp_transfer(&world.left, &world.right, "fd02::1", 1 << 20);
    }
    let sent = left.sa(Direction::Outbound).packets;
    let deadline = Instant::now() + Duration::from_secs(10);
    while right.sa(Direction::Inbound).packets < sent {
        assert!(Instant::now() < deadline, "of {sent} packets some are missing: {:?}", right.sa(Direction::Inbound));
    }
}

/// What is left in the kernel of a dataplane that could not clean up: interfaces and their routes go by themselves.
fn leave_rules_behind() {
    let DataplaneSettings { mark, table, rule_priority: priority, .. } = DataplaneSettings::default();
    let prefixes = ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.2/32", "::/0", "fd00::/8", "2001:db8::2/128"];
    let destinations = prefixes.iter().map(|text| text.parse().unwrap());
    let rules = LongestMatch { table, priority, mark }.rules(destinations, []);
    assert_eq!(rules.len(), 10);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let desired = NetworkState { rules, ..NetworkState::default() };
        Netlink::open().unwrap().apply(&mut NetworkState::default(), &desired).await.unwrap();
    });
}

#[test]
fn a_policy_for_everything_swallows_neither_its_own_packets_nor_the_local_network() {
    if !may_run() {
        return;
    }
    let everything = ["0.0.0.0/0", "::/0"];
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    left.policy(&everything, &everything, &everything);
    right.policy(&everything, &everything, &LEFT);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &everything, &everything);
    let capture = Capture::start(&world.left);
    ping(&world.left, "10.2.0.1", 64);
    let source_towards = |destination: &'static str| {
        world.left.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((destination, 9)).unwrap();
            socket.local_addr().unwrap().ip().to_string()
        })
    };
    assert_eq!(source_towards("198.51.100.1"), "10.1.0.1");
    assert_eq!(source_towards("192.0.2.77"), "192.0.2.1");
    // The peer's own outer address goes inside the tunnel when the policy has a route for it.
    left.policy(&everything, &everything, &["0.0.0.0/0", "192.0.2.2/32"]);
    right.policy(&everything, &everything, &["0.0.0.0/0", "192.0.2.1/32"]);
    ping(&world.left, "192.0.2.2", 64);
    let seen = capture.finish();
    assert_eq!(seen.other, 0, "{seen:?}");
    assert!(left.sa(Direction::Outbound).packets >= 2);
    left.stop();
    right.stop();
}

/// A spoke whose hub speaks for all of 10.0.0.0/8 and fd00::/8, its own local networks included.
#[test]
fn a_route_leaves_the_local_networks_inside_it_alone() {
    if !may_run() {
        return;
    }
    let everything = ["10.0.0.0/8", "fd00::/8"];
    let world = World::new();
    let left_host = make_host(&world.left, "10.1.0.1/16", "fd01::1/64");
    let right_host = make_host(&world.right, "10.2.0.1/16", "fd02::1/64");
    let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
    left.interface(InterfaceKind::Ipsec, &[]);
    left.policy(&LEFT, &everything, &everything);
    right.interface(InterfaceKind::Ipsec, &[]);
    right.policy(&everything, &LEFT, &LEFT);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &everything);
    let capture = Capture::start(&world.left);
    for (left_address, right_address) in [("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")] {
        ping(&left_host, right_address, 64);
        ping(&right_host, left_address, 64);
        ping(&world.left, left_address, 64);
        ping(&world.left, right_address, 64);
    }
    let seen = capture.finish();
    assert_eq!(seen.other, 0, "{seen:?}");
    assert!(seen.udp_4500 >= 12, "{seen:?}");
    left.stop();
    right.stop();
}

#[test]
fn without_an_sa_nothing_leaves_and_the_daemon_is_asked_for_one() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, right) = gateways(&world);
    let capture = Capture::start(&world.left);
    world.left.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"!inner plaintext", "10.2.0.1:9").unwrap();
    });
    let packet = left.event(|event| {
        let Event::Acquire { policy: POLICY, packet } = event else { return None };
        (packet.destination_port == Some(9)).then_some(packet)
    });
    // The route prefers the gateway's address inside the policy.
    assert_eq!(packet.source, SocketAddr::from(([10, 1, 0, 1], 0)).ip());
    let seen = capture.finish();
    assert_eq!((seen.esp, seen.udp_4500, seen.other, seen.secrets), (0, 0, 0, 0), "{seen:?}");
    let (.., drops) = left.statistics();
    assert!(drops.iter().any(|drop| drop.reason == "no_sa" && drop.packets >= 1), "{drops:?}");
    left.stop();
    right.stop();
}

#[test]
fn ike_travels_on_both_ports_and_keepalives_end_at_the_socket() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
    for (from, to) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        for port in [500, 4500] {
            let at = |text: &str| SocketAddr::new(text.parse().unwrap(), port);
            let path = IkePath { local: at(from), remote: at(to) };
            // Longer than the link carries: IKE may be fragmented by IP.
            let message: Vec<u8> = (1..=200u8).cycle().take(3000).collect();
            left.send(ToDataplane::SendKeepalive {
                path: IkePath { remote: SocketAddr::new(path.remote.ip(), 4500), ..path },
            });
            left.send(ToDataplane::SendIke { path, message: message.clone() });
            let (seen_path, seen) = right.event(|event| {
                let Event::Ike { path, message } = event else { return None };
                Some((path, message))
            });
            assert_eq!(seen_path, IkePath { local: path.remote, remote: path.local });
            assert_eq!(seen, message);
        }
    }
}

/// The peer may forget an SA as soon as it has an IKE message, however much the kernel has to do meanwhile.
#[test]
fn what_was_activated_before_an_ike_message_left_carries_what_follows() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    let mut sent_on = Vec::new();
    for _ in 0..2 {
        connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
        let (sas, ..) = left.statistics();
        let outbound = sas.iter().filter(|sa| sa.direction == Direction::Outbound).map(|sa| sa.spi);
        sent_on.extend(outbound.filter(|spi| !sent_on.contains(spi)).collect::<Vec<_>>());
    }
    let arrivals = world.right.run(|| UdpSocket::bind("10.2.0.1:9").unwrap());
    let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 4500);
    let path = IkePath { local: at("192.0.2.1"), remote: at("192.0.2.2") };
    // They send on the second now.
    for (round, spi) in sent_on.iter().cycle().copied().take(6).enumerate() {
        let spec = |number| {
            let name = InterfaceName::new(format!("more{number}")).unwrap();
            InterfaceSpec::new(name, InterfaceKind::Ipsec)
        };
        let mut begun: Vec<RequestId> = (5 * round..5 * (round + 1))
            .map(|number| left.begin(Command::SetInterface(Box::new(spec(number)))))
            .collect();
        begun.push(left.begin(Command::Activate { policy: POLICY, spi }));
        left.send(ToDataplane::SendIke { path, message: vec![1; 100] });
        right.event(|event| matches!(event, Event::Ike { .. }).then_some(()));
        world.left.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"!inner plaintext", "10.2.0.1:9").unwrap());
        arrivals.recv(&mut [0; 100]).unwrap();
        for id in begun {
            assert_eq!(left.outcome_of(id), Ok(Done::Ok));
        }
        let (sas, ..) = right.statistics();
        let received = sas.into_iter().find(|sa| (sa.direction, sa.spi) == (Direction::Inbound, spi)).unwrap();
        assert_eq!(received.packets, 1 + u64::try_from(round / 2).unwrap(), "round {round}");
    }
    left.stop();
    right.stop();
}

/// Commands are carried out in the order in which they are sent, also where nobody waits for their outcomes in between.
#[test]
fn an_sa_may_be_activated_before_it_is_known_to_be_installed() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    left.interface(InterfaceKind::Ipsec, &["10.1.0.1/24"]);
    let name = InterfaceName::new(gateway::INTERFACE).unwrap();
    let policy = PolicySpec::protect(POLICY, name, selectors(&LEFT), selectors(&RIGHT));
    let spi = EspSpi::try_from(0x1000).unwrap();
    let suite = gcm(Encapsulation::Esp, "192.0.2.1", "192.0.2.2");
    let sa = gateway::half(suite, spi, [suite.left, suite.right], [&LEFT, &RIGHT]);
    let commands = [
        Command::SetPolicy(Box::new(policy)),
        Command::InstallOutbound(Box::new(OutboundSaSpec {
            sa,
            shape: PacketShape::default(),
            sequence_end: SequenceEnd::Stop,
            inbound: None,
            carries: Carries::All,
        })),
        Command::Activate { policy: POLICY, spi },
    ];
    for id in commands.map(|command| left.begin(command)) {
        assert_eq!(left.outcome_of(id), Ok(Done::Ok));
    }
    let unknown = EspSpi::try_from(0x2000).unwrap();
    let refused = left.outcome(Command::Activate { policy: POLICY, spi: unknown });
    assert_eq!(refused, Err(Refusal::UnknownSa(unknown)), "what never comes is refused all the same");
    left.stop();
}

#[test]
fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    left.interface(InterfaceKind::Ipsec, &["10.1.0.1/24"]);
    let name = InterfaceName::new(gateway::INTERFACE).unwrap();
    assert_eq!(left.outcome(Command::RemovePolicy(PolicyId(9))), Err(Refusal::UnknownPolicy(PolicyId(9))));
    left.policy(&LEFT, &RIGHT, &RIGHT);
    assert_eq!(left.outcome(Command::RemoveInterface(name.clone())), Err(Refusal::InterfaceInUse(name.clone())));
    let stray = PolicySpec {
        routes: vec!["10.3.0.0/16".parse().unwrap()],
        ..PolicySpec::protect(PolicyId(2), InterfaceName::new("ipsec9").unwrap(), vec![], vec![])
    };
    let unknown = Refusal::UnknownInterface(stray.interface.clone());
    assert_eq!(left.outcome(Command::SetPolicy(Box::new(stray))), Err(unknown));
    let spi = left.reserve();
    assert_eq!(left.command(Command::ReleaseSpi(spi)), Done::Ok);
    assert_eq!(left.outcome(Command::ReleaseSpi(spi)), Err(Refusal::SpiNotReserved(spi)));
    let there = |remote: &str| Command::LocalAddress { remote: remote.parse().unwrap() };
    // The route asked for is that of our own packets, not the one through the tunnel.
    assert_eq!(left.command(there("192.0.2.2")), Done::LocalAddress("192.0.2.1".parse().unwrap()));
    assert_eq!(left.command(there("2001:db8::2")), Done::LocalAddress("2001:db8::1".parse().unwrap()));
    let refused = left.outcome(there("198.51.100.1")).unwrap_err();
    assert!(refused.to_string().contains("look up the route to 198.51.100.1"), "{refused}");

    let taken = InterfaceSpec::new(InterfaceName::new("wire").unwrap(), InterfaceKind::Ipsec);
    let refused = left.outcome(Command::SetInterface(Box::new(taken))).unwrap_err();
    assert!(refused.to_string().contains("create interface wire"), "{refused}");

    assert_eq!(left.command(Command::RemovePolicy(POLICY)), Done::Ok);
    assert_eq!(left.command(Command::RemoveInterface(name.clone())), Done::Ok);
    assert_eq!(left.outcome(Command::RemoveInterface(name.clone())), Err(Refusal::UnknownInterface(name)));
    left.stop();
}
