//! Gateways that change their addresses while keys roll over a bad network.

use std::time::Duration;

use ike_proto::Settings;
use ike_proto::config::{Connection, Dpd, DpdAction, Lifetime, RemoteAddress};
use ike_proto::io::{Command, Notice, Ticket};
use sim::{Faults, HostId, Rng, World, address, connection, for_seeds, secret};

const LEFT: &str = "192.0.2.1";
const RIGHT: &str = "192.0.2.200";
const PUBLIC: &str = "198.51.100.7";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Left may come from anywhere; keys roll every few seconds if `lives` says how many, the IKE SA's and the child's.
fn mobile_pair(seed: u64, faults: Faults, lives: Option<(u64, u64)>) -> (World, HostId, HostId) {
    let mut world = World::new(seed, faults);
    let left = world.add(address(LEFT), Settings::default());
    let right = world.add(address(RIGHT), Settings::default());
    for (host, here, there) in [(left, LEFT, RIGHT), (right, RIGHT, LEFT)] {
        let mut connection = connection(address(here), address(there));
        if host == left {
            connection.local_addresses.clear();
        } else {
            connection.remote_addresses = vec![RemoteAddress::Any];
        }
        connection.dpd = Some(Dpd { delay: seconds(5), action: DpdAction::Clear });
        if let Some((ike, child)) = lives {
            short_lives(&mut connection, ike, child);
        }
        world.command(host, Command::SetSecret(secret()));
        world.command(host, Command::SetConnection(Box::new(connection)));
    }
    (world, left, right)
}

fn short_lives(connection: &mut Connection, ike: u64, child: u64) {
    let lifetime = |after| Lifetime {
        rekey_after: Some(seconds(after)),
        jitter: Duration::from_millis(after * 200),
        expire_after: Some(seconds(after * 20)),
    };
    connection.ike_lifetime = lifetime(ike);
    for entry in &mut connection.children {
        entry.lifetime = lifetime(child);
    }
}

fn up(world: &mut World, left: HostId, right: HostId) {
    let command = Command::Initiate { ticket: Ticket(1), connection: Some("net".into()), child: None };
    world.command(left, command);
    let came_up = world.run_until(seconds(120), |world| world.survey(left, right).usable == [true; 2]);
    assert!(came_up, "no tunnel:\n{}", world.story());
}

/// Ends the rolling of keys where it is: what was begun comes to its end, and old SAs drain.
fn settle(world: &mut World, left: HostId, right: HostId) -> bool {
    world.set_faults(Faults::NONE);
    let is_quiet = |world: &World| {
        let survey = world.survey(left, right);
        survey.ike_sas == [1; 2] && survey.inbound == [1; 2] && survey.outbound == [1; 2] && survey.usable == [true; 2]
    };
    world.run(seconds(20));
    world.run_until(seconds(120), is_quiet)
}

fn downs(world: &World, host: HostId) -> usize {
    world.host(host).count(|notice| matches!(notice, Notice::IkeDown { .. } | Notice::IkeUp(_)))
}

#[test]
fn a_client_that_keeps_moving_keeps_its_sas_whatever_is_lost() {
    for_seeds(150, |seed| {
        let (mut world, left, right) = mobile_pair(seed, Faults::BAD, None);
        up(&mut world, left, right);
        let mut rng = Rng::new(seed);
        for turn in 0..6u8 {
            world.run(Duration::from_millis(rng.below(6_000)));
            world.readdress(left, address(&format!("192.0.2.{}", 10 + turn)));
        }
        assert!(settle(&mut world, left, right), "{}", world.story());
        world.assert_agreement(left, right, 1);
        world.set_traffic(Some(Duration::from_millis(50)));
        world.run(seconds(5));
        assert_eq!(world.tally.unknown + world.tally.undecipherable + world.tally.unsent, 0, "{}", world.story());
        assert_eq!(downs(&world, left), 1, "it came up once and never fell:\n{}", world.story());
    });
}

#[test]
fn a_client_that_moves_while_keys_roll_ends_with_one_pair() {
    for_seeds(150, |seed| {
        let (mut world, left, right) = mobile_pair(seed, Faults::BAD, Some((23, 11)));
        up(&mut world, left, right);
        world.set_traffic(Some(Duration::from_millis(50)));
        let mut rng = Rng::new(seed);
        for turn in 0..8u8 {
            world.run(Duration::from_millis(rng.below(9_000)));
            world.readdress(left, address(&format!("192.0.2.{}", 10 + turn)));
        }
        assert!(settle(&mut world, left, right), "{}", world.story());
        assert_eq!(downs(&world, left), 1, "{}", world.story());
        // Traffic flows again, on whatever SA is the newest.
        let before = world.tally;
        world.run(seconds(10));
        let (sent, delivered) = (world.tally.sent - before.sent, world.tally.delivered - before.delivered);
        assert!(sent > 100 && delivered + 20 >= sent, "{delivered} of {sent}:\n{}", world.story());
    });
}

#[test]
fn a_nat_that_changes_its_mapping_while_keys_roll_is_followed() {
    for_seeds(150, |seed| {
        let (mut world, left, right) = mobile_pair(seed, Faults::BAD, Some((23, 11)));
        world.put_behind_nat(left, address(PUBLIC));
        up(&mut world, left, right);
        world.set_traffic(Some(Duration::from_millis(50)));
        let mut rng = Rng::new(seed);
        for _ in 0..5 {
            world.run(Duration::from_millis(rng.below(6_000)));
            if let Some(nat) = &mut world.host_mut(left).nat {
                nat.rebind();
            }
        }
        assert!(settle(&mut world, left, right), "{}", world.story());
        let before = world.tally;
        world.run(seconds(10));
        let (sent, delivered) = (world.tally.sent - before.sent, world.tally.delivered - before.delivered);
        assert!(sent > 100 && delivered + 20 >= sent, "{delivered} of {sent}:\n{}", world.story());
        assert_eq!(downs(&world, left), 1, "{}", world.story());
    });
}

/// RFC 4555 §3.8: nothing but probes tells that a silent NAT has forgotten us.
#[test]
fn a_nat_that_forgets_a_silent_client_is_noticed() {
    for_seeds(50, |seed| {
        let (mut world, left, right) = mobile_pair(seed, Faults::BAD, None);
        world.put_behind_nat(left, address(PUBLIC));
        up(&mut world, left, right);
        world.run(seconds(20));
        if let Some(nat) = &mut world.host_mut(left).nat {
            nat.rebind();
        }
        world.run(seconds(40));
        assert!(settle(&mut world, left, right), "{}", world.story());
        world.set_traffic(Some(Duration::from_millis(50)));
        world.run(seconds(5));
        assert_eq!(world.tally.unknown + world.tally.unsent, 0, "{}", world.story());
    });
}
