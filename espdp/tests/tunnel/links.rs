//! Interfaces that read and write a link of the host past its network stack.
//!
//! ```text
//!  host ── lan [left] wire ═══════ wire [right] lan ── host
//!  10.1.0.2                                          10.2.0.2
//! ```

use std::io::Read;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use espdp_api::*;
use socket2::{Domain, Protocol, Socket, Type};

use crate::gateway::{Gateway, INTERFACE, connect};
use crate::idle::expect_sleep;
use crate::traffic::{ping, tcp_transfer};
use crate::world::{Namespace, World, make_host, may_run, set_link_down_and_up};
use crate::{LEFT, NAT_T, RIGHT, gcm};

const LAN: &str = "lan";

/// Both gateways with a host behind each, and a tunnel between them.
struct Sites {
    left: Gateway,
    right: Gateway,
    left_host: Namespace,
    right_host: Namespace,
    world: World,
}

impl Sites {
    fn new() -> Self {
        let world = World::new();
        let left_host = make_host(&world.left, "10.1.0.1/16", "fd01::1/64");
        let right_host = make_host(&world.right, "10.2.0.1/16", "fd02::1/64");
        let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
        for (gateway, local, remote) in [(&mut left, LEFT, RIGHT), (&mut right, RIGHT, LEFT)] {
            gateway.command(Command::SetInterface(Box::new(with_link(Some(LAN)))));
            gateway.policy(&local, &remote, &remote);
        }
        connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
        let sites = Self { left, right, left_host, right_host, world };
        sites.wait_for_rules(&sites.world.left);
        sites.wait_for_rules(&sites.world.right);
        sites
    }

    /// Until the stack drops what is taken from the link, and the worker takes it therefore.
    fn wait_for_rules(&self, namespace: &Namespace) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !rules(namespace).contains("taken_lan") {
            assert!(Instant::now() < deadline, "the stack never learned what is not for it");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) {
        self.left.stop();
        self.right.stop();
        for namespace in [&self.world.left, &self.world.right] {
            assert_eq!(rules(namespace), "", "the stack forwards again");
        }
    }
}

fn with_link(link: Option<&str>) -> InterfaceSpec {
    InterfaceSpec {
        host_link: link.map(|name| InterfaceName::new(name).unwrap()),
        ..InterfaceSpec::new(InterfaceName::new(INTERFACE).unwrap(), InterfaceKind::Ipsec)
    }
}

fn rules(namespace: &Namespace) -> String {
    namespace.run(|| {
        let output = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
}

/// Octets that the stack has sent into the interface, and got from it.
fn through_the_device(namespace: &Namespace) -> (u64, u64) {
    let devices = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("ipsec0:")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[8], numbers[0])
}

#[test]
fn packets_of_hosts_pass_the_stack_by_both_ways() {
    if !may_run() {
        return;
    }
    let sites = Sites::new();
    let octets = 8 << 20;
    // With these the stack learns its neighbours, and with the stack we.
    ping(&sites.left_host, "10.2.0.2", 64);
    ping(&sites.right_host, "fd01::2", 64);
    ping(&sites.left_host, "10.2.0.2", 4000);
    tcp_transfer(&sites.left_host, &sites.right_host, "10.2.0.2", octets);
    tcp_transfer(&sites.right_host, &sites.left_host, "fd01::2", octets);
    for namespace in [&sites.world.left, &sites.world.right] {
        let (sent, received) = through_the_device(namespace);
        let little = u64::try_from(octets).unwrap() / 4;
        assert!(sent < little && received < little, "{sent} and {received} octets took the way through the stack");
    }
    expect_sleep(&sites.world);
    sites.stop();
}

#[test]
fn every_packet_arrives_once_and_two_hops_older() {
    if !may_run() {
        return;
    }
    let sites = Sites::new();
    let (mut requests, datagrams) = sites.right_host.run(|| {
        let requests = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        (requests, UdpSocket::bind("10.2.0.2:9").unwrap())
    });
    ping(&sites.left_host, "10.2.0.2", 64);
    let mut buffer = [0; 2048];
    let len = requests.read(&mut buffer).unwrap();
    assert!(len > 28 && buffer[20] == 8, "an echo request");
    assert_eq!(buffer[8], 64 - 2, "each gateway is a hop");

    // As many as certainly wait in a socket that nobody reads yet.
    let count = 100u32;
    sites.left_host.run(move || {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        for number in 0..=count {
            socket.send_to(&number.to_be_bytes(), "10.2.0.2:9").unwrap();
        }
    });
    datagrams.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let receive = |_| {
        let len = datagrams.recv(&mut buffer).unwrap();
        u32::from_be_bytes(buffer[..len].try_into().unwrap())
    };
    let mut seen: Vec<u32> = (0..=count).map(receive).collect();
    // One may have been left to the stack, so that it asks for the neighbour, and come late.
    seen.sort_unstable();
    assert!(seen == (0..=count).collect::<Vec<_>>(), "{seen:?}");
    sites.stop();
}

#[test]
fn a_packet_whose_time_is_over_is_the_stacks_to_answer() {
    if !may_run() {
        return;
    }
    let sites = Sites::new();
    let answer = sites.left_host.run(|| {
        let mut errors = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        errors.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.set_ttl(1).unwrap();
        socket.send_to(b"too far", "10.2.0.2:9").unwrap();
        let mut buffer = [0; 256];
        let len = errors.read(&mut buffer).unwrap();
        buffer[..len].to_vec()
    });
    assert_eq!((&answer[12..16], answer[20]), (&[10, 1, 0, 1][..], 11), "time exceeded, from the left gateway");
    sites.stop();
}

#[test]
fn a_link_that_goes_and_comes_back_is_used_again_and_one_that_is_given_up_is_the_stacks() {
    if !may_run() {
        return;
    }
    let mut sites = Sites::new();
    ping(&sites.left_host, "10.2.0.2", 64);
    sites.world.left.run(|| set_link_down_and_up(LAN));
    ping(&sites.left_host, "10.2.0.2", 64);
    sites.left.command(Command::SetInterface(Box::new(with_link(None))));
    let deadline = Instant::now() + Duration::from_secs(20);
    while rules(&sites.world.left).contains("taken_lan") {
        assert!(Instant::now() < deadline, "the stack was never given its packets back");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (before, _) = through_the_device(&sites.world.left);
    ping(&sites.left_host, "10.2.0.2", 1000);
    let (after, _) = through_the_device(&sites.world.left);
    assert!(after >= before + 1000, "{before} and {after} octets");
    sites.stop();
}

/// What a host sends to the gateway itself and to its neighbours is none of ours.
#[test]
fn a_missing_link_leaves_everything_to_the_stack_until_it_is_there() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    left.command(Command::SetInterface(Box::new(with_link(Some(LAN)))));
    left.policy(&LEFT, &RIGHT, &RIGHT);
    let host = make_host(&world.left, "10.1.0.1/16", "fd01::1/64");
    ping(&host, "10.1.0.1", 64);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !rules(&world.left).contains("taken_lan") {
        assert!(Instant::now() < deadline, "the link was never taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    ping(&host, "10.1.0.1", 64);
    left.stop();
}
