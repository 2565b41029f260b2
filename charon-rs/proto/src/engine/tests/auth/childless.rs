//! IKE SAs without a Child SA (RFC 6023).

use std::time::Duration;

use super::super::super::testbed::{Fate, Who, World};
use crate::config::{Childless, Connection};
use crate::io::{FailureCode, Target};
use crate::wire::{ExchangeType, MessageKind};

fn childless(moon: Childless, sun: Childless) -> impl Fn(Who, &mut Connection) {
    move |who, connection| connection.childless = if who == Who::Moon { moon } else { sun }
}

/// Moon's connection has no children, so that it has nothing to offer.
fn without_children(moon: Childless, sun: Childless) -> World {
    World::with(move |who, connection| {
        childless(moon, sun)(who, connection);
        if who == Who::Moon {
            connection.children.clear();
        }
    })
}

#[test]
fn a_connection_without_children_comes_up_and_goes_down() {
    for mode in [Childless::Allow, Childless::Prefer, Childless::Force] {
        let mut world = without_children(mode, Childless::Allow);
        let first = world.initiate(Who::Moon);
        assert_eq!(world.settled(Who::Moon, first).unwrap().done, 1);
        world.assert_agreement(0);
        assert_eq!(world.seen.len(), 4);
        let again = world.initiate(Who::Moon);
        assert_eq!(world.settled(Who::Moon, again).unwrap().done, 1, "it is up already");
        assert_eq!(world.seen.len(), 4);
        // What sun wants over it comes by CREATE_CHILD_SA.
        let child = world.initiate(Who::Sun);
        assert!(world.settled(Who::Sun, child).is_err(), "moon has no such child");
        world.assert_agreement(0);
        world.terminate(Who::Moon, Target::Connection("net-net".into()));
        world.assert_nothing_left();
    }
}

#[test]
fn two_that_want_the_same_ike_sa_get_one() {
    let mut world = without_children(Childless::Allow, Childless::Allow);
    world.network(|_| Fate::Hold);
    let tickets = [world.initiate(Who::Moon), world.initiate(Who::Moon)];
    world.release();
    for ticket in tickets {
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    }
    world.assert_agreement(0);
}

#[test]
fn children_come_later_if_both_want_it_so() {
    for mode in [Childless::Prefer, Childless::Force] {
        let mut world = World::with(childless(mode, Childless::Allow));
        let ticket = world.initiate(Who::Moon);
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
        world.assert_agreement(1);
        assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 1);
    }
    let mut world = World::with(childless(Childless::Prefer, Childless::Never));
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 0, "sun wants it at once");
}

/// R6023-3-1.
#[test]
fn nobody_is_asked_for_an_sa_without_child_who_did_not_say_that_it_may_be() {
    let forced = World::with(childless(Childless::Force, Childless::Never));
    let bare = without_children(Childless::Allow, Childless::Never);
    for mut world in [forced, bare] {
        let ticket = world.initiate(Who::Moon);
        assert!(world.settled(Who::Moon, ticket).is_err());
        assert_eq!(world.failures(Who::Moon), [FailureCode::ChildlessRefused]);
        assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 0);
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
    let mut world = without_children(Childless::Never, Childless::Allow);
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert!(world.seen.is_empty());
}

/// R6023-3-1: whoever asks all the same breaks the form of the message.
#[test]
fn a_responder_that_did_not_say_so_takes_no_request_without_child() {
    let mut world = without_children(Childless::Allow, Childless::Never);
    world.network(|datagram| {
        // Somebody puts CHILDLESS_IKEV2_SUPPORTED in the place of MULTIPLE_AUTH_SUPPORTED.
        let mut message = datagram.message.clone();
        let at = message.windows(4).position(|octets| octets == [0, 0, 0x40, 0x14]);
        match at.filter(|_| datagram.is(ExchangeType::IkeSaInit, MessageKind::Response)) {
            Some(at) => {
                message[at + 3] = 0x22;
                Fate::Replace(message)
            }
            None => Fate::Deliver,
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::PeerMisbehaved]);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn a_responder_that_wants_no_child_at_once_refuses_one() {
    let mut world = World::with(childless(Childless::Never, Childless::Force));
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::ChildlessRefused]);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}
