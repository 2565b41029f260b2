//! Answers of the shell that come late, never or twice.

use std::time::Duration;

use super::super::super::testbed::{Fate, Who, World, sign_both};
use crate::io::{Answer, Command, FailureCode, Target};
use crate::wire::{ExchangeType, MessageKind};

fn net_net() -> Target {
    Target::Connection("net-net".into())
}

/// Moon has begun and judges what sun says.
fn moon_judges() -> (World, crate::io::Ticket) {
    let mut world = World::with(sign_both);
    world.network(
        |datagram| {
            if datagram.is(ExchangeType::IkeAuth, MessageKind::Response) { Fate::Hold } else { Fate::Deliver }
        },
    );
    let ticket = world.initiate(Who::Moon);
    world.moon.signer.is_slow = true;
    world.release();
    assert_eq!(world.moon.signer.verified.len(), 1);
    (world, ticket)
}

#[test]
fn late_answers_are_waited_for_and_repeated_requests_ask_for_nothing() {
    let mut world = World::with(sign_both);
    (world.moon.signer.is_slow, world.sun.signer.is_slow) = (true, true);
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 0);
    world.let_sign(Who::Moon);
    world.moon.signer.is_slow = true;
    world.pass(Duration::from_secs(10));
    assert!(world.count(ExchangeType::IkeAuth, MessageKind::Request) > 1, "moon repeats its request");
    assert_eq!((world.sun.signer.verified.len(), world.sun.signer.signed.len()), (1, 0));
    world.let_sign(Who::Sun);
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Response), 1);
    assert!(!world.is_settled(Who::Moon, ticket));
    world.pass(Duration::from_secs(10));
    world.let_sign(Who::Moon);
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
}

#[test]
fn an_initiator_whose_signature_never_comes_gives_up() {
    let mut world = World::with(sign_both);
    world.moon.signer.is_slow = true;
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(31));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthTimeout]);
    world.let_sign(Who::Moon);
    world.assert_nothing_left();
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 0);
}

#[test]
fn an_initiator_whose_judgement_never_comes_takes_the_sa_back() {
    let (mut world, ticket) = moon_judges();
    assert!(world.only_ike_sa(Who::Sun).established.is_some());
    world.pass(Duration::from_secs(31));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthTimeout]);
    world.let_sign(Who::Moon);
    world.assert_nothing_left();
}

#[test]
fn a_responder_whose_answers_never_come_forgets_the_peer() {
    for signs in [false, true] {
        let mut world = World::with(move |who, connection| {
            sign_both(who, connection);
            if signs && who == Who::Sun {
                connection.remote.method = crate::config::RemoteMethod::PreSharedKey;
            } else if signs {
                connection.local.method = crate::config::LocalMethod::PreSharedKey;
            }
        });
        world.sun.signer.is_slow = true;
        world.initiate(Who::Moon);
        world.pass(Duration::from_secs(29));
        assert_eq!(world.ike_sas(Who::Sun).len(), 1);
        world.pass(Duration::from_secs(2));
        assert_eq!(world.failures(Who::Sun), [FailureCode::AuthTimeout]);
        assert!(world.ike_sas(Who::Sun).is_empty(), "half-open SAs do not outlive their time");
        world.let_sign(Who::Sun);
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
}

#[test]
fn an_answer_that_comes_again_changes_nothing() {
    let mut world = World::with(sign_both);
    world.initiate(Who::Moon);
    let failed = || Answer::Verified(Err(Box::new(refusal())));
    for who in [Who::Moon, Who::Sun] {
        let (now, side) = (world.now, world.side(who));
        for id in side.signer.asked.clone() {
            side.engine.handle_answer(now, id, failed());
            side.engine.handle_answer(now, id, Answer::Signed(Err(Box::new(refusal()))));
        }
    }
    world.run();
    world.assert_agreement(1);
    assert!(world.failures(Who::Moon).is_empty() && world.failures(Who::Sun).is_empty());
}

#[test]
fn an_answer_of_the_wrong_kind_does_not_authenticate_anybody() {
    let mut world = World::with(sign_both);
    world.sun.signer.is_slow = true;
    world.initiate(Who::Moon);
    let (now, id) = (world.now, world.sun.signer.asked[0]);
    world.sun.engine.handle_answer(now, id, Answer::Addresses(Vec::new()));
    world.let_sign(Who::Sun);
    assert!(world.only_ike_sa(Who::Sun).established.is_none(), "each ask is answered once");
    world.pass(Duration::from_secs(100));
    world.assert_nothing_left();
}

fn refusal() -> crate::io::ProofRefusal {
    crate::io::ProofRefusal {
        code: FailureCode::AuthSignatureWrong,
        what: "test".to_owned(),
        ours: Vec::new(),
        theirs: Vec::new(),
        hint: None,
    }
}

#[test]
fn an_attempt_can_be_stopped_whatever_it_waits_for() {
    // For our signature.
    let mut world = World::with(sign_both);
    world.moon.signer.is_slow = true;
    let ticket = world.initiate(Who::Moon);
    world.terminate(Who::Moon, net_net());
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.let_sign(Who::Moon);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
    // For the responder, which judges.
    let mut world = World::with(sign_both);
    world.sun.signer.is_slow = true;
    let ticket = world.initiate(Who::Moon);
    world.terminate(Who::Moon, net_net());
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.let_sign(Who::Sun);
    world.assert_nothing_left();
    // For the judgement of the responder, which has the SA already.
    let (mut world, ticket) = moon_judges();
    world.terminate(Who::Moon, net_net());
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.let_sign(Who::Moon);
    world.assert_nothing_left();
}

#[test]
fn a_connection_that_is_removed_takes_the_peers_that_are_being_judged_with_it() {
    let mut world = World::with(sign_both);
    world.sun.signer.is_slow = true;
    world.initiate(Who::Moon);
    world.command(Who::Sun, Command::RemoveConnection("net-net".to_owned()));
    world.let_sign(Who::Sun);
    world.pass(Duration::from_secs(90));
    world.assert_nothing_left();
}

#[test]
fn other_sas_go_on_while_one_is_judged() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    for who in [Who::Moon, Who::Sun] {
        let mut other = super::connection(who);
        other.name = "other".to_owned();
        sign_both(who, &mut other);
        world.command(who, Command::SetConnection(Box::new(other)));
    }
    world.sun.signer.is_slow = true;
    world.initiate_of(Who::Moon, "other", None);
    assert_eq!(world.sun.signer.verified.len(), 1);
    let ticket = world.rekey(Who::Sun, Target::Child { connection: Some("net-net".into()), child: "net".into() });
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
}
