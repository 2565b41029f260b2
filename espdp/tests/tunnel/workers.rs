//! Gateways with several workers: SAs that belong to different ones, and flows that reach the worker that has theirs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use espdp::DataplaneSettings;
use espdp_api::*;

use crate::gateway::{Gateway, INTERFACE, POLICY, Suite, connect, half, settings};
use crate::traffic::{ping, tcp_transfer, throw_garbage};
use crate::world::{Namespace, World, may_run};
use crate::{LEFT, NAT_T, RIGHT, gcm, set_up};

const TWO: u8 = 2;

/// Both gateways with two workers, interface, policy and routes, but no SA.
fn gateways(world: &World) -> (Gateway, Gateway) {
    let workers = Workers::new(TWO).unwrap();
    let start = |namespace: &Namespace| Gateway::start_with(namespace, DataplaneSettings { workers, ..settings() });
    set_up(start(&world.left), start(&world.right))
}

fn worker_of(spi: EspSpi) -> WorkerId {
    Workers::new(TWO).unwrap().of_spi(spi.value())
}

/// Installs an SA in each direction that each end's `worker` has for itself, and says the outbound SPI of the left one.
fn connect_workers(left: &mut Gateway, right: &mut Gateway, suite: Suite, worker: WorkerId) -> EspSpi {
    let wish = SpiWish { worker: Some(worker), ..SpiWish::new(InterfaceName::new(INTERFACE).unwrap()) };
    let [to_left, to_right] = [&mut *left, &mut *right].map(|gateway| gateway.reserve_for(wish.clone()));
    assert_eq!([worker_of(to_left), worker_of(to_right)], [worker; 2]);
    for (gateway, inbound, outbound, ends, networks) in [
        (left, to_left, to_right, [suite.left, suite.right], [&LEFT, &RIGHT]),
        (right, to_right, to_left, [suite.right, suite.left], [&RIGHT, &LEFT]),
    ] {
        let networks = networks.map(|networks| &networks[..]);
        let spec = InboundSaSpec { sa: half(suite, inbound, ends, networks), replay_window: 1024 };
        gateway.command(Command::InstallInbound(Box::new(spec)));
        let spec = OutboundSaSpec {
            sa: half(suite, outbound, ends, networks),
            shape: PacketShape::default(),
            sequence_end: SequenceEnd::Stop,
            inbound: Some(inbound),
            carries: Carries::OwnWorker,
        };
        gateway.command(Command::InstallOutbound(Box::new(spec)));
        gateway.command(Command::Activate { policy: POLICY, spi: outbound });
    }
    to_right
}

fn packets_of(gateway: &mut Gateway, spi: EspSpi, direction: Direction) -> u64 {
    let (sas, ..) = gateway.statistics();
    let found = sas.iter().find(|sa| sa.spi == spi && sa.direction == direction).unwrap();
    assert!(found.drops.is_empty(), "{found:?}");
    found.packets
}

fn assert_nothing_is_lost(gateway: &mut Gateway) {
    let (.., drops) = gateway.statistics();
    let lost = drops.iter().find(|drop| drop.reason == "hand_over" || drop.reason == "unknown_spi");
    assert_eq!(lost, None);
}

#[test]
fn sas_take_turns_at_the_workers_and_a_new_one_belongs_where_the_old_one_was() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, right) = gateways(&world);
    let name = InterfaceName::new(INTERFACE).unwrap();
    let spis: Vec<_> = (0..4).map(|_| left.reserve()).collect();
    assert_eq!(spis.iter().map(|spi| worker_of(*spi).0).collect::<Vec<_>>(), [1, 0, 1, 0]);
    for spi in spis {
        let wish = SpiWish { replaces: Some(spi), ..SpiWish::new(name.clone()) };
        assert_eq!(worker_of(left.reserve_for(wish)), worker_of(spi));
    }
    let elsewhere = SpiWish { worker: Some(WorkerId(1)), ..SpiWish::new(InterfaceName::new("tap0").unwrap()) };
    assert_eq!(worker_of(left.reserve_for(elsewhere)), WorkerId::FIRST, "other interfaces are the first worker's");
    left.stop();
    right.stop();
}

/// One SA, which the other worker's queue leads to as well. Each flow stays in order, whichever way it takes.
#[test]
fn flows_of_all_queues_reach_the_one_sa_in_order() {
    if !may_run() {
        return;
    }
    for encapsulation in [NAT_T, Encapsulation::Esp] {
        let world = World::new();
        let (mut left, mut right) = gateways(&world);
        connect(&mut left, &mut right, gcm(encapsulation, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
        ping(&world.left, "10.2.0.1", 64);
        let server = world.right.run(|| UdpSocket::bind("10.2.0.1:0").unwrap());
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = server.local_addr().unwrap();
        let (flows, last) = (12, 200);
        let all_ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&all_ended);
        let sender = world.left.spawn(move || send_numbered(to, flows, last, || until.load(Ordering::Relaxed)));
        let mut newest = BTreeMap::<SocketAddr, u32>::new();
        let mut buffer = [0; 64];
        while newest.values().filter(|number| **number == last).count() < flows {
            let (_, from) = server.recv_from(&mut buffer).unwrap();
            let number = u32::from_be_bytes(*buffer.first_chunk().unwrap());
            assert!(newest.insert(from, number).is_none_or(|before| before <= number), "{from}: {number} is late");
        }
        all_ended.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        left.stop();
        right.stop();
    }
}

/// Sends numbered datagrams of several flows at a time, and the last ones again until `ended`, since any may be lost.
fn send_numbered(to: SocketAddr, flows: usize, last: u32, ended: impl Fn() -> bool) {
    let sockets: Vec<_> = (0..flows).map(|_| UdpSocket::bind((Ipv4Addr::new(10, 1, 0, 1), 0)).unwrap()).collect();
    let send = |number: u32| {
        for socket in &sockets {
            socket.send_to(&number.to_be_bytes(), to).unwrap();
        }
    };
    (0..last).for_each(send);
    loop {
        send(last);
        if ended() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// With an SA for each worker, each sends what comes through its queue; without it goes on the SA for all.
#[test]
fn each_worker_sends_on_its_own_sa_if_it_has_one() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    let suite = gcm(NAT_T, "192.0.2.1", "192.0.2.2");
    connect(&mut left, &mut right, suite, &LEFT, &RIGHT);
    let for_all = left.sa(Direction::Outbound).spi;
    ping(&world.left, "10.2.0.1", 64);
    let own = connect_workers(&mut left, &mut right, suite, WorkerId::FIRST);
    let flows = |count| {
        for _ in 0..count {
            tcp_transfer(&world.left, &world.right, "10.2.0.1", 1 << 18);
        }
    };
    flows(16);
    let sent = [for_all, own].map(|spi| packets_of(&mut left, spi, Direction::Outbound));
    let received = [for_all, own].map(|spi| packets_of(&mut right, spi, Direction::Inbound));
    assert!(sent.iter().chain(&received).all(|packets| *packets > 10), "{sent:?} {received:?}");
    assert_nothing_is_lost(&mut left);
    assert_nothing_is_lost(&mut right);

    left.command(Command::RemoveSa { direction: Direction::Outbound, spi: own, policy: POLICY });
    let before = packets_of(&mut left, for_all, Direction::Outbound);
    flows(8);
    assert!(packets_of(&mut left, for_all, Direction::Outbound) > before + 80, "all of them go on what is left");
    left.stop();
    right.stop();
}

/// The SA for all moves to another worker, as it does when a peer sets up everything anew.
#[test]
fn the_sa_for_all_moves_to_another_worker_without_loss() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    let suite = gcm(NAT_T, "192.0.2.1", "192.0.2.2");
    for round in 0..4 {
        connect(&mut left, &mut right, suite, &LEFT, &RIGHT);
        for _ in 0..4 {
            tcp_transfer(&world.left, &world.right, "10.2.0.1", 1 << 18);
        }
        let (sas, ..) = left.statistics();
        let outbound: Vec<_> = sas.iter().filter(|sa| sa.direction == Direction::Outbound).collect();
        assert_eq!(outbound.iter().filter(|sa| sa.packets > 10).count(), round + 1, "{outbound:?}");
    }
    assert_nothing_is_lost(&mut left);
    left.stop();
    right.stop();
}

/// Both workers have packets that no SA carries; the daemon hears of it as if there were one worker.
#[test]
fn an_sa_is_asked_for_once_by_all_workers() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, right) = gateways(&world);
    let start = std::time::Instant::now();
    world.left.run(|| send_numbered(SocketAddr::from(([10, 2, 0, 1], 9)), 12, 0, || true));
    let without_sa = |left: &mut Gateway, events: &mut usize| {
        let id = left.begin(Command::Statistics);
        let outcome = left.outcome_counting(id, |event| *events += usize::from(matches!(event, Event::Acquire { .. })));
        let Ok(Done::Statistics { drops, .. }) = outcome else { panic!("{outcome:?}") };
        drops.iter().find(|drop| drop.reason == "no_sa").map_or(0, |drop| drop.packets)
    };
    let mut events = 0;
    while without_sa(&mut left, &mut events) < 12 {
        std::thread::yield_now();
    }
    assert!((1..=1 + start.elapsed().as_secs()).contains(&(events as u64)), "{events} events");
    left.stop();
    right.stop();
}

#[test]
fn garbage_to_all_workers_disturbs_nobody() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    let suite = gcm(NAT_T, "192.0.2.1", "192.0.2.2");
    connect(&mut left, &mut right, suite, &LEFT, &RIGHT);
    let own = connect_workers(&mut left, &mut right, suite, WorkerId::FIRST);
    ping(&world.left, "10.2.0.1", 64);
    for spi in [right.statistics().0[0].spi, own] {
        world.left.run(move || throw_garbage("192.0.2.2", spi));
    }
    for _ in 0..4 {
        tcp_transfer(&world.left, &world.right, "10.2.0.1", 1 << 18);
    }
    left.stop();
    right.stop();
}
