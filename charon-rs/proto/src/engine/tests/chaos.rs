//! Random operations over a bad network, with dataplanes that take their time or refuse: in the end both sides agree, and nothing is left when all is taken down.

use std::collections::BTreeSet;
use std::time::Duration;

use espdp_api::Direction;

use super::super::testbed::{Fate, Who, World, connection, two_children};
use crate::SecureRandom;
use crate::config::{Connection, Dpd, DpdAction, StartAction};
use crate::io::{Command, IkeSaReport, Notice, Target};
use crate::testing::SeededRandom;

/// A random number below `bound`.
fn below(random: &mut SeededRandom, bound: u8) -> u8 {
    let mut octet = [0];
    random.fill_public(&mut octet);
    octet[0] % bound
}

fn bad_network(seed: u64) -> impl FnMut(&super::super::testbed::Datagram) -> Fate {
    let mut random = SeededRandom::new(seed);
    move |_| {
        let mut delay = || Duration::from_millis(u64::from(below(&mut random, 250)) * 2);
        let (first, second) = (delay(), delay());
        match below(&mut random, 10) {
            0 | 1 => Fate::Lose,
            2 => Fate::Late(vec![first, second]),
            _ => Fate::Late(vec![first]),
        }
    }
}

/// A world whose features depend on the seed.
fn world(seed: u64) -> World {
    World::with(move |who, connection| adapt(seed, who, connection))
}

fn adapt(seed: u64, who: Who, connection: &mut Connection) {
    connection.dpd = Some(Dpd { delay: Duration::from_secs(60), action: DpdAction::Clear });
    connection.retransmission.tries = 12;
    if seed % 2 == 1 {
        connection.children[0].esp_proposals = vec!["aes256gcm16-x25519".parse().unwrap()];
    }
    if seed % 4 == 3 {
        connection.ike_proposals = vec!["aes256gcm16-prfsha256-x25519-ke1_mlkem512".parse().unwrap()];
        connection.children[0].esp_proposals = vec!["aes256gcm16-x25519-ke1_mlkem512-ke2_ecp256".parse().unwrap()];
    }
    if seed % 3 == 1 {
        two_children(who, connection);
    }
    if seed % 7 == 1 {
        // Everything that is not tiny goes in fragments.
        connection.fragment_size = 180;
    }
    if seed % 5 == 1 {
        connection.children[0].start = StartAction::Start;
    }
}

/// Loads the connection anew, as it is or as the next seed has it.
fn reload(world: &mut World, seed: u64, who: Who, other: bool) {
    let mut connection = connection(who);
    adapt(if other { seed + 1 } else { seed }, who, &mut connection);
    world.command(who, Command::SetConnection(Box::new(connection)));
}

fn run(seed: u64) {
    let mut world = world(seed);
    let mut random = SeededRandom::new(seed ^ 0x5eed);
    world.network(bad_network(seed));
    let mut tickets = vec![(Who::Moon, world.initiate(Who::Moon))];
    let child = || Target::Child { connection: None, child: "net".into() };
    let ike = || Target::Connection("net-net".into());
    for _ in 0..12 {
        let who = if below(&mut random, 2) == 0 { Who::Moon } else { Who::Sun };
        let ticket = match below(&mut random, 12) {
            0 | 1 => world.initiate(who),
            2..=4 => world.rekey(who, child()),
            5..=7 => world.rekey(who, ike()),
            8 => world.terminate(who, child()),
            9 | 10 => world.reauthenticate(who, ike()),
            _ => world.terminate(who, ike()),
        };
        tickets.push((who, ticket));
        world.pass(Duration::from_millis(u64::from(below(&mut random, 100)) * 20));
        let who = if below(&mut random, 2) == 0 { Who::Moon } else { Who::Sun };
        if below(&mut random, 8) == 0 {
            let other = below(&mut random, 2) == 0;
            reload(&mut world, seed, who, other);
        }
        if below(&mut random, 6) == 0 {
            let direction = [Direction::Inbound, Direction::Outbound][usize::from(below(&mut random, 2))];
            world.side(who).dataplane.refuse_install = Some(direction);
        }
        if below(&mut random, 3) == 0 {
            world.side(who).is_slow = true;
        } else {
            world.catch_up(who);
        }
    }
    [Who::Moon, Who::Sun].into_iter().for_each(|who| world.catch_up(who));
    world.repair_network();
    world.pass(Duration::from_secs(600));
    assert_both_ends_agree(&mut world, seed);
    for who in [Who::Moon, Who::Sun] {
        assert_notices_add_up(&mut world, who, seed);
        tickets.push((who, world.terminate(who, ike())));
    }
    world.pass(Duration::from_secs(600));
    world.assert_nothing_left();
    for who in [Who::Moon, Who::Sun] {
        assert_notices_add_up(&mut world, who, seed);
    }
    for (who, ticket) in tickets {
        drop(world.settled(who, ticket));
    }
}

fn assert_both_ends_agree(world: &mut World, seed: u64) {
    let (moon, sun) = (world.ike_sas(Who::Moon), world.ike_sas(Who::Sun));
    let spis =
        |sas: &[IkeSaReport]| -> BTreeSet<_> { sas.iter().map(|sa| (sa.initiator_spi, sa.responder_spi)).collect() };
    assert_eq!(spis(&moon), spis(&sun), "seed {seed}");
    let children = |sas: &[IkeSaReport]| sas.iter().flat_map(|sa| sa.children.clone()).collect::<Vec<_>>();
    let of_moon: BTreeSet<_> = children(&moon).iter().map(|child| (child.spi_in, child.spi_out.unwrap())).collect();
    let of_sun: BTreeSet<_> = children(&sun).iter().map(|child| (child.spi_out.unwrap(), child.spi_in)).collect();
    assert_eq!(of_moon, of_sun, "seed {seed}");
    let policies: BTreeSet<_> = children(&moon).iter().map(|child| child.policy).collect();
    world.assert_traffic_flows(policies.len());
}

/// Who keeps books by the notices alone knows the same SAs.
fn assert_notices_add_up(world: &mut World, who: Who, seed: u64) {
    let (mut ike_sas, mut children) = (BTreeSet::new(), BTreeSet::new());
    for notice in &world.side(who).notices {
        match notice {
            Notice::IkeUp(sa) => assert!(ike_sas.insert(sa.id), "seed {seed}"),
            Notice::IkeDown { sa, .. } => assert!(ike_sas.remove(&sa.id), "seed {seed}"),
            Notice::IkeRekeyed { sa, .. } | Notice::IkeMoved { sa, .. } => {
                assert!(ike_sas.contains(&sa.id), "seed {seed}");
            }
            Notice::ChildUp { child, .. } => assert!(children.insert(child.id), "seed {seed}"),
            Notice::ChildDown { child, .. } => assert!(children.remove(&child.id), "seed {seed}: {child:?}"),
            Notice::ChildRekeyed { old, new, .. } => {
                assert!(children.remove(&old.id) && children.insert(new.id), "seed {seed}");
            }
            Notice::Failure(_)
            | Notice::Abandoned(_)
            | Notice::Repetition(_)
            | Notice::Message(_)
            | Notice::Remark { .. }
            | Notice::Settled { .. }
            | Notice::IkeKeys(_)
            | Notice::PlainText(_)
            | Notice::ChildKeys(_)
            | Notice::ShutDown => {}
        }
    }
    let reports = world.ike_sas(who);
    assert_eq!(ike_sas, reports.iter().map(|sa| sa.id).collect(), "seed {seed}");
    let live = reports.iter().flat_map(|sa| &sa.children).map(|child| child.id).collect();
    assert_eq!(children, live, "seed {seed}");
}

#[test]
fn whatever_happens_both_ends_agree_in_the_end_and_nothing_leaks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("IKE_PROTO_SEED") {
        return run(seed);
    }
    for seed in 0..number("IKE_PROTO_SEEDS").unwrap_or(40) {
        println!("seed {seed}");
        run(seed);
    }
}
