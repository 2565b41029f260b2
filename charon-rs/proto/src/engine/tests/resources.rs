//! Child SAs for single workers (RFC 9611).

use std::collections::BTreeSet;
use std::time::Duration;

use espdp_api::{EspSpi, Event, PolicyId};

use super::super::testbed::{Who, World};
use crate::config::Connection;
use crate::io::{ChildSaReport, Notice, Target};
use crate::wire::{ExchangeType, MessageKind};

/// Moon and sun with so many workers, both of which want an SA for each.
fn world(moon: u8, sun: u8) -> World {
    World::with_workers(moon, sun, |_, connection| wants_them(connection))
}

fn wants_them(connection: &mut Connection) {
    connection.children[0].per_resource = true;
}

fn children(world: &mut World, who: Who) -> Vec<ChildSaReport> {
    world.only_ike_sa(who).children
}

/// The workers that have the inbound halves.
fn workers(world: &mut World, who: Who) -> Vec<u8> {
    let workers = world.side(who).dataplane.workers;
    let mut found: Vec<u8> = children(world, who).iter().map(|child| workers.of_spi(child.spi_in.value()).0).collect();
    found.sort_unstable();
    found
}

/// The children, pair by pair; on one policy.
fn assert_agreement(world: &mut World, expected: usize) {
    let pairs = |children: Vec<ChildSaReport>, is_swapped: bool| -> BTreeSet<[EspSpi; 2]> {
        let pair = |child: ChildSaReport| [child.spi_in, child.spi_out.unwrap()];
        let swap = |[a, b]: [EspSpi; 2]| if is_swapped { [b, a] } else { [a, b] };
        children.into_iter().map(pair).map(swap).collect()
    };
    let (moon, sun) = (children(world, Who::Moon), children(world, Who::Sun));
    assert_eq!(moon.len(), expected, "{moon:#?}");
    assert_eq!(pairs(moon, false), pairs(sun, true));
    world.assert_traffic_flows(1);
}

/// The peer's packet on each SA for a single worker shows that it is ready.
fn show_first_packets(world: &mut World, who: Who) {
    for child in children(world, who) {
        world.event(who, Event::FirstPacket { spi: child.spi_in, policy: PolicyId(1) });
    }
    world.run();
}

/// R9611-3-1, R9611-5.1-1.
#[test]
fn each_worker_gets_an_sa_with_keys_of_its_own_and_the_same_selectors() {
    let mut world = world(3, 2);
    world.initiate(Who::Moon);
    assert_agreement(&mut world, 3);
    assert_eq!(workers(&mut world, Who::Moon), [0, 1, 2]);
    assert_eq!(workers(&mut world, Who::Sun), [0, 0, 1], "those with the fewest come first");
    let keys = world.side(Who::Moon).dataplane.keys.clone();
    assert_eq!(keys.values().collect::<BTreeSet<_>>().len(), keys.len(), "no key is used twice");
    let all = children(&mut world, Who::Moon);
    let alike = |child: &ChildSaReport| {
        (&child.local, &child.remote, child.mode, child.algorithms)
            == (&all[0].local, &all[0].remote, all[0].mode, all[0].algorithms)
    };
    assert!(all.iter().all(alike));
    let own = |world: &mut World, who| world.side(who).dataplane.own.values().copied().collect::<Vec<_>>();
    assert_eq!(own(&mut world, Who::Moon), [true, true]);
    assert_eq!(own(&mut world, Who::Sun), [false, false], "whoever answers waits until the other one is ready");
    show_first_packets(&mut world, Who::Sun);
    assert_eq!(own(&mut world, Who::Sun), [true, true]);
    world.terminate(Who::Moon, Target::Connection("net-net".into()));
    world.assert_nothing_left();
}

/// R9611-3-3.
#[test]
fn nobody_is_offered_more_who_does_not_say_that_it_knows_what_that_means() {
    for only in [Who::Moon, Who::Sun] {
        let adapt = move |who: Who, connection: &mut Connection| {
            if who == only {
                wants_them(connection);
            }
        };
        let mut world = World::with_workers(2, 2, adapt);
        world.initiate(Who::Moon);
        world.pass(Duration::from_secs(60));
        world.assert_agreement(1);
        assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 0);
    }
}

/// R9611-3-2.
#[test]
fn a_peer_that_makes_no_more_is_left_in_peace_and_what_there_is_stays() {
    let mut world = world(16, 1);
    world.initiate(Who::Moon);
    let made = children(&mut world, Who::Moon).len();
    assert_eq!(made, 11, "ten beside the one for all");
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), made, "the last one was refused");
    world.pass(Duration::from_secs(600));
    assert_agreement(&mut world, made);
    let count = world.seen.iter().filter(|datagram| datagram.is(ExchangeType::CreateChildSa, MessageKind::Request));
    assert_eq!(count.count(), made, "it is not asked again");
    assert_eq!(world.failures(Who::Moon), []);
}

/// R9611-3-4.
#[test]
fn each_sa_is_replaced_by_itself_and_its_worker_keeps_it() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = world(2, 2);
        world.initiate(Who::Moon);
        show_first_packets(&mut world, Who::Sun);
        let before = [Who::Moon, Who::Sun].map(|who| workers(&mut world, who));
        let own = children(&mut world, who).into_iter().max_by_key(|child| child.id).unwrap();
        let ticket = world.rekey(who, Target::ChildSa(own.id));
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        for who in [Who::Moon, Who::Sun] {
            show_first_packets(&mut world, who);
        }
        world.pass(Duration::from_secs(30));
        assert_agreement(&mut world, 2);
        assert_eq!([Who::Moon, Who::Sun].map(|who| workers(&mut world, who)), before);
        assert!(children(&mut world, who).iter().all(|child| child.spi_in != own.spi_in));
        for who in [Who::Moon, Who::Sun] {
            let own = world.side(who).dataplane.own.values().copied().collect::<Vec<_>>();
            assert_eq!(own, [true], "{who:?}: it still is for one worker alone");
        }
    }
}

/// R9611-6-1.
#[test]
fn what_the_peer_deletes_is_not_made_again() {
    let mut world = world(3, 3);
    world.initiate(Who::Moon);
    let own = children(&mut world, Who::Sun).into_iter().max_by_key(|child| child.id).unwrap();
    world.terminate(Who::Sun, Target::ChildSa(own.id));
    world.pass(Duration::from_secs(600));
    assert_agreement(&mut world, 2);
    let is_gone = |notice: &Notice| matches!(notice, Notice::ChildDown { .. });
    assert_eq!(world.side(Who::Moon).notices.iter().filter(|notice| is_gone(notice)).count(), 1);
}
