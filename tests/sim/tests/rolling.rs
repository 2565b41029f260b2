//! Keys that roll every few seconds on both ends, over a bad network: crossing, lost, late and repeated messages, NATs
//! that forget, ends that start anew.

use std::time::Duration;

use ike_proto::Settings;
use ike_proto::config::{Connection, Dpd, DpdAction, Lifetime, StartAction};
use ike_proto::io::{Command, Notice};
use sim::{Faults, HostId, Survey, Traffic, World, address, connection, for_seeds, secret};

const LEFT: &str = "192.0.2.1";
const RIGHT: &str = "192.0.2.2";
const PUBLIC: &str = "198.51.100.7";

/// Bad enough for every exchange to meet another one, good enough for lifetimes of seconds.
const BAD: Faults = Faults {
    loss: 15,
    duplication: 15,
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(200),
    ..Faults::NONE
};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Children are replaced every three seconds, IKE SAs every five, on both ends at about the same time.
fn roll(connection: &mut Connection, seed: u64) {
    let lifetime = |after: u64, jitter| Lifetime {
        rekey_after: Some(seconds(after)),
        jitter: Duration::from_millis(jitter),
        expire_after: Some(seconds(60)),
    };
    // With little jitter both ends begin at once, with much of it anything meets anything.
    let jitter = if seed.is_multiple_of(2) { 60 } else { 1500 };
    connection.ike_lifetime = lifetime(5, jitter);
    connection.children[0].lifetime = lifetime(3, jitter);
    if seed % 3 == 1 {
        connection.children[0].esp_proposals = "aes128gcm16-esn-x25519".parse().into_iter().collect();
    }
    connection.retransmission.longest = seconds(2);
}

/// Old children drain in less than the life of a new one, or there would never be just one. Some ends take several
/// requests at a time.
fn settings(seed: u64) -> Settings {
    let window_size = if seed % 5 > 2 { 4 } else { 1 };
    Settings { drain_time: seconds(1), window_size, ..Settings::default() }
}

fn configure(world: &mut World, host: HostId, connection: Connection) {
    world.command(host, Command::SetSecret(secret()));
    world.command(host, Command::SetConnection(Box::new(connection)));
}

/// Two ends that want to be connected.
fn pair(seed: u64, change: impl Fn(&mut Connection)) -> (World, HostId, HostId) {
    let mut world = World::new(seed, Faults::NONE);
    let left = world.add(address(LEFT), settings(seed));
    let right = world.add(address(RIGHT), settings(seed));
    for (host, here, there) in [(left, LEFT, RIGHT), (right, RIGHT, LEFT)] {
        let mut connection = connection(address(here), address(there));
        roll(&mut connection, seed);
        change(&mut connection);
        if host == left {
            connection.children[0].start = StartAction::Start;
        }
        configure(&mut world, host, connection);
    }
    (world, left, right)
}

fn is_usable(world: &World, left: HostId, right: HostId) -> bool {
    world.survey(left, right).usable == [true; 2]
}

fn up(world: &mut World, left: HostId, right: HostId) {
    assert!(world.run_until(seconds(60), |world| is_usable(world, left, right)), "no tunnel:\n{}", world.story());
    world.run(Duration::from_millis(500));
}

fn rekeyed(world: &World, host: HostId) -> (usize, usize) {
    let count = |wanted: fn(&Notice) -> bool| world.host(host).count(wanted);
    (
        count(|notice| matches!(notice, Notice::IkeRekeyed { .. })),
        count(|notice| matches!(notice, Notice::ChildRekeyed { .. })),
    )
}

/// What is held does not grow, whatever meets.
fn assert_bounded(world: &World, left: HostId, right: HostId) {
    let survey = world.survey(left, right);
    for end in 0..2 {
        let held = (survey.ike_sas[end], survey.inbound[end], survey.outbound[end]);
        assert!(held.0 <= 8 && held.1 <= 16 && held.2 <= 16, "{survey:?}\n{}", world.story());
    }
}

/// On a good network there comes a moment without anything under way: then both ends have the same, and just that.
fn assert_agreement_comes(world: &mut World, left: HostId, right: HostId) {
    world.set_faults(Faults::NONE);
    world.run(seconds(70));
    let wanted = Survey { ike_sas: [1; 2], inbound: [1; 2], outbound: [1; 2], usable: [true; 2] };
    let same = |world: &World| {
        let spis = |id: HostId| -> Vec<_> {
            world.host(id).established().iter().map(|sa| (sa.initiator_spi, sa.responder_spi)).collect()
        };
        world.survey(left, right) == wanted && spis(left) == spis(right)
    };
    assert!(world.run_until(seconds(60), same), "{:?}\n{}", world.survey(left, right), world.story());
}

fn assert_nothing_lost(world: &World) {
    let tally = world.tally;
    let all_arrived = Traffic { sent: tally.sent, delivered: tally.sent, ..Traffic::default() };
    assert_eq!(tally, all_arrived, "{}", world.story());
}

#[test]
fn keys_that_roll_every_few_seconds_lose_no_packet_and_end_in_agreement() {
    for_seeds(40, |seed| {
        let (mut world, left, right) = pair(seed, |_| {});
        up(&mut world, left, right);
        world.set_faults(BAD);
        world.set_traffic(Some(Duration::from_millis(20)));
        for _ in 0..40 {
            world.run(seconds(2));
            assert_bounded(&world, left, right);
        }
        world.set_traffic(None);
        world.run(seconds(1));
        assert_nothing_lost(&world);
        let (ike, child) = rekeyed(&world, left);
        assert!(ike >= 8 && child >= 10, "{ike} and {child}:\n{}", world.story());
        assert_agreement_comes(&mut world, left, right);
    });
}

#[test]
fn a_nat_that_forgets_while_keys_roll_interrupts_and_no_more() {
    for_seeds(40, |seed| {
        let mut world = World::new(seed, Faults::NONE);
        let left = world.add(address(LEFT), settings(seed));
        let right = world.add(address(RIGHT), settings(seed));
        world.put_behind_nat(left, address(PUBLIC));
        let mut inside = connection(address(LEFT), address(RIGHT));
        let mut outside = connection(address(RIGHT), address(LEFT));
        outside.remote_addresses = connection(address(RIGHT), address(PUBLIC)).remote_addresses;
        inside.children[0].start = StartAction::Start;
        for (host, connection) in [(left, &mut inside), (right, &mut outside)] {
            roll(connection, seed);
            connection.dpd = Some(Dpd { delay: seconds(3), action: DpdAction::Restart });
            configure(&mut world, host, connection.clone());
        }
        up(&mut world, left, right);
        world.set_faults(BAD);
        world.set_traffic(Some(Duration::from_millis(50)));
        for _ in 0..6 {
            if let Some(nat) = &mut world.host_mut(left).nat {
                nat.rebind();
            }
            world.run(seconds(10));
            assert_bounded(&world, left, right);
        }
        // The last rebinding is over: nothing is lost any more.
        world.set_faults(Faults { loss: 0, ..BAD });
        world.run(seconds(30));
        world.set_traffic(None);
        world.run(seconds(1));
        world.tally = Traffic::default();
        world.set_traffic(Some(Duration::from_millis(50)));
        world.run(seconds(20));
        world.set_traffic(None);
        world.run(seconds(1));
        assert!(world.tally.sent > 300, "{:?}", world.tally);
        assert_nothing_lost(&world);
        assert_agreement_comes(&mut world, left, right);
    });
}

#[test]
fn an_end_that_starts_anew_while_keys_roll_is_met_again() {
    for_seeds(40, |seed| {
        let adapt = |connection: &mut Connection| {
            connection.dpd = Some(Dpd { delay: seconds(3), action: DpdAction::Restart });
            connection.retransmission.tries = 8;
        };
        let (mut world, left, right) = pair(seed, adapt);
        up(&mut world, left, right);
        world.set_faults(BAD);
        world.set_traffic(Some(Duration::from_millis(100)));
        for round in 0..3u64 {
            world.run(Duration::from_millis(4000 + seed * 137 % 5000));
            let host = if (seed + round).is_multiple_of(2) { left } else { right };
            let (here, there) = if host == left { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
            world.host_mut(host).down = true;
            world.run(Duration::from_millis(seed * 311 % 9000));
            world.host_mut(host).reboot(settings(seed), seed * 10 + round + 77);
            let mut again = connection(address(here), address(there));
            roll(&mut again, seed);
            adapt(&mut again);
            if host == left {
                again.children[0].start = StartAction::Start;
            }
            configure(&mut world, host, again);
            let back = world.run_until(seconds(120), |world| is_usable(world, left, right));
            assert!(back, "round {round}: {:?}\n{}", world.survey(left, right), world.story());
        }
        world.set_traffic(None);
        assert_agreement_comes(&mut world, left, right);
    });
}
