//! Taking SAs down, whatever the peer does.

use std::time::Duration;

use super::super::testbed::{Fate, Who, World, two_children};
use crate::io::{Command, Target, Ticket};
use crate::wire::{ExchangeType, MessageKind};

fn ike() -> Target {
    Target::Connection("net-net".into())
}

fn child() -> Target {
    Target::Child { connection: None, child: "net".into() }
}

fn at_once(world: &mut World, who: Who, target: Target) -> Ticket {
    let ticket = Ticket(99);
    world.command(who, Command::TerminateAtOnce { ticket, target });
    world.run();
    ticket
}

#[test]
fn by_force_an_ike_sa_goes_at_once_and_the_peer_is_told_once() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let ticket = at_once(&mut world, Who::Moon, ike());
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_nothing_left();
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    let ticket = at_once(&mut world, Who::Moon, ike());
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    assert!(world.ike_sas(Who::Moon).is_empty());
    world.pass(Duration::from_secs(300));
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Request), 1);
}

#[test]
fn by_force_also_goes_what_is_on_its_way_out_or_not_up_yet() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    world.terminate(Who::Moon, ike());
    assert_eq!(world.ike_sas(Who::Moon).len(), 1, "the peer has not agreed");
    at_once(&mut world, Who::Moon, ike());
    assert!(world.ike_sas(Who::Moon).is_empty());
    let mut world = World::new();
    world.network(
        |datagram| if datagram.header().exchange == ExchangeType::IkeAuth { Fate::Lose } else { Fate::Deliver },
    );
    let up = world.initiate(Who::Moon);
    at_once(&mut world, Who::Moon, ike());
    assert!(world.settled(Who::Moon, up).is_err());
    assert!(world.ike_sas(Who::Moon).is_empty());
    let half_open = world.only_ike_sa(Who::Sun).id;
    let ticket = world.terminate(Who::Sun, Target::IkeSa(half_open));
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
    assert!(world.ike_sas(Who::Sun).is_empty());
}

#[test]
fn by_force_a_child_goes_and_its_ike_sa_stays() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    let ticket = at_once(&mut world, Who::Sun, child());
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
    world.assert_agreement(1);
}

#[test]
fn nobody_waits_for_a_dead_peer() {
    for target in [ike(), child()] {
        let mut world = World::new();
        world.initiate(Who::Moon);
        world.network(|_| Fate::Lose);
        // A request that is never answered is under way already.
        world.rekey(Who::Moon, child());
        let ticket = world.terminate(Who::Moon, target);
        assert!(!world.is_settled(Who::Moon, ticket), "a peer that lives gets its time");
        world.pass(Duration::from_secs(3));
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
        assert!(world.moon.dataplane.policies.is_empty() && world.moon.dataplane.inbound.is_empty());
        world.pass(Duration::from_secs(300));
        assert!(world.ike_sas(Who::Moon).is_empty());
    }
}

#[test]
fn a_peer_that_was_only_away_for_a_while_is_told_in_the_end() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    world.rekey(Who::Moon, Target::Child { connection: None, child: "second".into() });
    world.terminate(Who::Moon, child());
    world.pass(Duration::from_secs(3));
    world.repair_network();
    world.pass(Duration::from_secs(60));
    world.assert_agreement(1);
}
