//! Two gateways over a network that loses, repeats and reorders what they say.

use std::time::Duration;

use ike_proto::Settings;
use ike_proto::config::{Connection, Dpd, DpdAction, Lifetime, StartAction};
use ike_proto::identity::{Identity, IdentityPattern};
use ike_proto::io::{Command, DownReason, Notice, Target, Ticket};
use sim::{Faults, HostId, World, address, connection, for_seeds, secret};

const LEFT: &str = "192.0.2.1";
const RIGHT: &str = "192.0.2.2";
const PUBLIC: &str = "198.51.100.7";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Two hosts whose connections `change` may alter; nothing happens yet.
fn pair_with(
    seed: u64,
    faults: Faults,
    settings: &Settings,
    change: impl Fn(bool, &mut Connection),
) -> (World, HostId, HostId) {
    let mut world = World::new(seed, faults);
    let left = world.add(address(LEFT), settings.clone());
    let right = world.add(address(RIGHT), settings.clone());
    for (host, here, there) in [(left, LEFT, RIGHT), (right, RIGHT, LEFT)] {
        let mut connection = connection(address(here), address(there));
        change(host == left, &mut connection);
        world.command(host, Command::SetSecret(secret()));
        world.command(host, Command::SetConnection(Box::new(connection)));
    }
    (world, left, right)
}

fn pair(seed: u64, faults: Faults) -> (World, HostId, HostId) {
    pair_with(seed, faults, &Settings::default(), |_, _| {})
}

fn initiate(world: &mut World, host: HostId, ticket: u64) {
    let command = Command::Initiate { ticket: Ticket(ticket), connection: Some("net".into()), child: None };
    world.command(host, command);
}

fn established(world: &World, one: HostId, other: HostId) -> bool {
    let survey = world.survey(one, other);
    survey.usable == [true; 2]
}

/// Brings the tunnel up over the bad network.
fn up(world: &mut World, left: HostId, right: HostId) {
    initiate(world, left, 1);
    let came_up = world.run_until(seconds(120), |world| established(world, left, right));
    assert!(came_up, "no tunnel:\n{}", world.story());
}

/// Lets everything that was begun come to its end, and old SAs drain.
fn settle(world: &mut World) {
    world.set_faults(Faults::NONE);
    world.run(seconds(90));
}

/// Rekeys every `child` and `ike` seconds, a bit sooner by chance.
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

#[test]
fn a_tunnel_comes_up_whatever_is_lost_and_the_same_is_seen_on_both_ends() {
    for_seeds(300, |seed| {
        let (mut world, left, right) = pair(seed, Faults::BAD);
        up(&mut world, left, right);
        settle(&mut world);
        world.assert_agreement(left, right, 1);
        let settled = world.host(left).count(|notice| matches!(notice, Notice::Settled { result: Ok(_), .. }));
        assert_eq!(settled, 1, "{}", world.story());
    });
}

#[test]
fn both_may_begin_at_the_same_time() {
    for_seeds(100, |seed| {
        let (mut world, left, right) = pair(seed, Faults::BAD);
        initiate(&mut world, left, 1);
        initiate(&mut world, right, 2);
        let came_up = world.run_until(seconds(120), |world| established(world, left, right));
        assert!(came_up, "{}", world.story());
        settle(&mut world);
        // Two tunnels are not wrong, but both ends must know the same ones and be able to use them.
        let survey = world.survey(left, right);
        assert_eq!(survey.ike_sas[0], survey.ike_sas[1], "{survey:?}\n{}", world.story());
        assert_eq!(survey.inbound[0], survey.inbound[1], "{survey:?}\n{}", world.story());
        assert_eq!(survey.usable, [true; 2], "{survey:?}\n{}", world.story());
    });
}

#[test]
fn rekeying_all_the_time_loses_no_packet() {
    for_seeds(150, |seed| {
        let (mut world, left, right) =
            pair_with(seed, Faults::BAD, &Settings::default(), |_, connection| short_lives(connection, 47, 20));
        up(&mut world, left, right);
        world.run(seconds(2));
        world.set_traffic(Some(Duration::from_millis(50)));
        world.run(seconds(240));
        world.set_traffic(None);
        world.run(seconds(2));
        let tally = world.tally;
        assert!(tally.sent > 9000, "{tally:?}");
        assert_eq!((tally.delivered, tally.unsent), (tally.sent, 0), "{tally:?}\n{}", world.story());
        let rekeyed = |host: HostId| world.host(host).count(|notice| matches!(notice, Notice::ChildRekeyed { .. }));
        assert!(rekeyed(left) > 6, "only {} rekeyings:\n{}", rekeyed(left), world.story());
    });
}

#[test]
fn making_ike_sas_anew_all_the_time_loses_no_packet() {
    for_seeds(40, |seed| {
        let (mut world, left, right) = pair_with(seed, Faults::BAD, &Settings::default(), |left, connection| {
            short_lives(connection, 61, 20);
            connection.reauth_after = left.then_some(seconds(47));
        });
        up(&mut world, left, right);
        world.run(seconds(2));
        world.set_traffic(Some(Duration::from_millis(50)));
        world.run(seconds(240));
        world.set_traffic(None);
        world.run(seconds(2));
        let tally = world.tally;
        assert!(tally.sent > 9000, "{tally:?}");
        assert_eq!((tally.delivered, tally.unsent), (tally.sent, 0), "{tally:?}\n{}", world.story());
        let made = world.host(left).count(|notice| matches!(notice, Notice::IkeUp(_)));
        assert!(made > 3, "only {made} IKE SAs:\n{}", world.story());
    });
}

/// R7296-2.8.1-2.
#[test]
fn simultaneous_rekeyings_end_with_one_pair() {
    for_seeds(200, |seed| {
        let (mut world, left, right) = pair(seed, Faults::NONE);
        up(&mut world, left, right);
        world.run(seconds(1));
        world.set_faults(Faults { jitter: Duration::from_millis(60), loss: seed % 30, ..Faults::NONE });
        world.set_traffic(Some(Duration::from_millis(20)));
        for round in 0..4 {
            let target = if round % 2 == 0 {
                Target::Child { connection: None, child: "net".into() }
            } else {
                Target::Connection("net".into())
            };
            world.command(left, Command::Rekey { ticket: Ticket(10 + round), target: target.clone() });
            world.command(right, Command::Rekey { ticket: Ticket(20 + round), target });
            world.run(seconds(40));
        }
        world.set_traffic(None);
        settle(&mut world);
        world.assert_agreement(left, right, 1);
        let tally = world.tally;
        assert_eq!((tally.delivered, tally.unsent), (tally.sent, 0), "{tally:?}\n{}", world.story());
    });
}

#[test]
fn rekeying_against_deletion_leaves_no_half_sa() {
    for_seeds(200, |seed| {
        let (mut world, left, right) = pair(seed, Faults::NONE);
        up(&mut world, left, right);
        world.run(seconds(1));
        world.set_faults(Faults { jitter: Duration::from_millis(60), loss: seed % 30, ..Faults::NONE });
        let child = Target::Child { connection: None, child: "net".into() };
        world.command(left, Command::Rekey { ticket: Ticket(10), target: child.clone() });
        world.run(Duration::from_millis(seed % 40));
        world.command(right, Command::Terminate { ticket: Ticket(11), target: child });
        world.run(seconds(60));
        settle(&mut world);
        let survey = world.survey(left, right);
        assert_eq!(survey.inbound[0], survey.outbound[1], "{survey:?}\n{}", world.story());
        assert_eq!(survey.inbound[1], survey.outbound[0], "{survey:?}\n{}", world.story());
        assert!(survey.inbound[0] <= 1, "{survey:?}\n{}", world.story());
    });
}

#[test]
fn taking_the_tunnel_down_clears_both_ends() {
    for_seeds(100, |seed| {
        let (mut world, left, right) = pair(seed, Faults::BAD);
        up(&mut world, left, right);
        world.run(seconds(5));
        let (one, both) = (seed % 2 == 0, seed % 3 == 0);
        for (host, ticket) in [(left, 10), (right, 11)] {
            if both || (host == left) == one {
                let target = Target::Connection("net".into());
                world.command(host, Command::Terminate { ticket: Ticket(ticket), target });
            }
        }
        world.run(seconds(100));
        settle(&mut world);
        let survey = world.survey(left, right);
        assert_eq!((survey.ike_sas, survey.inbound, survey.outbound), ([0; 2], [0; 2], [0; 2]), "{}", world.story());
        assert_eq!(world.host(left).books.policies().count(), 0, "{}", world.story());
    });
}

#[test]
fn a_nat_may_change_its_mapping_and_the_peer_follows() {
    for_seeds(100, |seed| {
        let mut world = World::new(seed, Faults::BAD);
        let settings = Settings::default();
        let left = world.add(address(LEFT), settings.clone());
        let right = world.add(address(RIGHT), settings);
        world.put_behind_nat(left, address(PUBLIC));
        for (host, here, there) in [(left, LEFT, RIGHT), (right, RIGHT, PUBLIC)] {
            let mut connection = connection(address(here), address(there));
            if host == right {
                // The rule of the lower address does not hold for the NAT's.
                let mut mirror = sim::connection(address(RIGHT), address(LEFT));
                mirror.remote_addresses = connection.remote_addresses;
                connection = mirror;
            }
            world.command(host, Command::SetSecret(secret()));
            world.command(host, Command::SetConnection(Box::new(connection)));
        }
        up(&mut world, left, right);
        settle(&mut world);
        world.assert_agreement(left, right, 1);
        assert!(world.host(right).established().iter().all(|sa| sa.nat_remote), "{}", world.story());
        if let Some(nat) = &mut world.host_mut(left).nat {
            nat.rebind();
        }
        world.set_traffic(Some(Duration::from_millis(200)));
        world.run(seconds(30));
        world.set_traffic(None);
        world.run(seconds(1));
        world.assert_agreement(left, right, 1);
    });
}

#[test]
fn a_rebooted_peer_is_met_again() {
    for_seeds(100, |seed| {
        let settings = Settings::default();
        let change = |left: bool, connection: &mut Connection| {
            if left {
                connection.dpd = Some(Dpd { delay: seconds(5), action: DpdAction::Restart });
                connection.retransmission.tries = 6;
                for child in &mut connection.children {
                    child.start = StartAction::Start;
                }
            }
        };
        let (mut world, left, right) = pair_with(seed, Faults::BAD, &settings, change);
        assert!(world.run_until(seconds(200), |world| established(world, left, right)), "{}", world.story());
        world.run(seconds(3));
        world.host_mut(right).down = true;
        world.run(seconds(seed % 60));
        world.host_mut(right).reboot(settings.clone(), seed + 77);
        let mut again = connection(address(RIGHT), address(LEFT));
        change(false, &mut again);
        world.command(right, Command::SetSecret(secret()));
        world.command(right, Command::SetConnection(Box::new(again)));
        world.run(seconds(60));
        assert!(world.run_until(seconds(300), |world| established(world, left, right)), "{}", world.story());
        settle(&mut world);
        world.assert_agreement(left, right, 1);
        let died = |notice: &Notice| matches!(notice, Notice::IkeDown { reason: DownReason::PeerDead, .. });
        assert!(world.host(left).count(died) > 0, "{}", world.story());
    });
}

#[test]
fn cookies_do_not_keep_an_honest_peer_out() {
    for_seeds(50, |seed| {
        let settings = Settings { cookie_threshold: 0, ..Settings::default() };
        let (mut world, left, right) = pair_with(seed, Faults::BAD, &settings, |_, _| {});
        up(&mut world, left, right);
        settle(&mut world);
        world.assert_agreement(left, right, 1);
    });
}

#[test]
fn the_other_group_is_found_and_is_used_from_then_on() {
    for_seeds(50, |seed| {
        let (mut world, left, right) = pair_with(seed, Faults::BAD, &Settings::default(), |left, connection| {
            let text = if left { "aes128gcm16-prfsha256-x25519-ecp256" } else { "aes128gcm16-prfsha256-ecp256" };
            connection.ike_proposals = text.parse().into_iter().collect();
            short_lives(connection, 30, 25);
        });
        up(&mut world, left, right);
        world.run(seconds(100));
        assert!(established(&world, left, right), "{}", world.story());
        let rekeyed = world.host(left).count(|notice| matches!(notice, Notice::IkeRekeyed { .. }));
        assert!(rekeyed > 1, "{}", world.story());
    });
}

/// Fragments get lost one by one, come twice and in any order.
#[test]
fn messages_of_many_fragments_come_through_a_bad_and_narrow_network() {
    for_seeds(100, |seed| {
        let narrow = if seed % 2 == 0 { 1280 } else { 576 };
        let faults = Faults { mtu: narrow, ..Faults::BAD };
        let name = |is_left: bool| Identity::KeyId(vec![u8::from(is_left); 2000]);
        let (mut world, left, right) = pair_with(seed, faults, &Settings::default(), |is_left, connection| {
            connection.local.identity = Some(name(is_left));
            connection.remote.identity = IdentityPattern::Exactly(name(!is_left));
            connection.fragment_size = u16::try_from(narrow).unwrap_or(u16::MAX);
        });
        up(&mut world, left, right);
        settle(&mut world);
        world.assert_agreement(left, right, 1);
        let is_fragmented = |notice: &Notice| matches!(notice, Notice::Message(trace) if trace.sent && trace.summary.ends_with("fragments"));
        assert!(world.host(left).count(is_fragmented) > 0, "{}", world.story());
        assert!(world.host(right).count(is_fragmented) > 0, "{}", world.story());
    });
}

#[test]
fn silence_of_the_network_is_reported_and_leaves_nothing() {
    for_seeds(20, |seed| {
        let dead = Faults { loss: 100, ..Faults::NONE };
        let (mut world, left, right) = pair(seed, dead);
        initiate(&mut world, left, 1);
        world.run(seconds(200));
        let survey = world.survey(left, right);
        assert_eq!((survey.ike_sas, survey.inbound, survey.outbound), ([0; 2], [0; 2], [0; 2]), "{}", world.story());
        let refused = world.host(left).count(|notice| matches!(notice, Notice::Settled { result: Err(_), .. }));
        assert_eq!(refused, 1, "{}", world.story());
    });
}
