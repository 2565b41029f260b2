//! The same Child SA, wanted by both ends at the same time.

use std::time::Duration;

use super::super::testbed::{Fate, Who, World, two_children};
use crate::io::{Notice, Target};
use crate::wire::{ExchangeType, MessageKind};

/// Both ends ask for `second` while the messages that `holds` names wait.
fn both_create(holds: fn(Who, MessageKind) -> bool) -> World {
    let mut world = World::with(two_children);
    world.initiate_child(Who::Moon, Some("net"));
    world.network(move |datagram| {
        let header = datagram.header();
        let is_held = header.exchange == ExchangeType::CreateChildSa && holds(datagram.from, header.kind);
        if is_held { Fate::Hold } else { Fate::Deliver }
    });
    let ours = world.initiate_child(Who::Moon, Some("second"));
    let theirs = world.initiate_child(Who::Sun, Some("second"));
    world.release();
    assert_eq!(world.settled(Who::Moon, ours).unwrap().done, 1);
    assert_eq!(world.settled(Who::Sun, theirs).unwrap().done, 1);
    world
}

#[test]
fn both_ends_want_the_same_child_at_once_and_one_pair_stays() {
    let orders: [fn(Who, MessageKind) -> bool; 4] = [
        |_, kind| kind == MessageKind::Request,
        |_, kind| kind == MessageKind::Response,
        |from, kind| from == Who::Moon && kind == MessageKind::Request,
        |from, kind| from == Who::Sun && kind == MessageKind::Response,
    ];
    for holds in orders {
        let mut world = both_create(holds);
        world.assert_traffic_flows(2);
        world.pass(Duration::from_secs(30));
        world.assert_agreement(2);
        for who in [Who::Moon, Who::Sun] {
            let dataplane = &world.side(who).dataplane;
            assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (2, 2), "{who:?}");
            assert!(!world.side(who).notices.iter().any(|notice| matches!(notice, Notice::ChildDown { .. })));
        }
        world.rekey(Who::Sun, Target::Child { connection: None, child: "second".into() });
        world.pass(Duration::from_secs(30));
        world.assert_agreement(2);
    }
}

#[test]
fn a_child_that_the_peer_is_making_is_not_made_again() {
    let mut world = World::with(two_children);
    world.initiate_child(Who::Moon, Some("net"));
    world.sun.is_slow = true;
    world.initiate_child(Who::Moon, Some("second"));
    let ticket = world.initiate_child(Who::Sun, Some("second"));
    world.catch_up(Who::Sun);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 1);
    world.assert_agreement(2);
}
