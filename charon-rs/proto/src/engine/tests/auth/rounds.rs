//! Several rounds of authentication (RFC 4739).

use std::time::Duration;

use super::super::super::testbed::{Fate, Who, World, secret};
use super::{Method, local, remote};
use crate::config::{Connection, LocalAuth, RemoteAuth};
use crate::engine::ike_sa::IkeSa;
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Command, FailureCode};
use crate::wire::{ExchangeType, MessageKind};

use Method::{Psk, Signature};

/// `moon-0` in the first round, `moon-1` in the second.
fn identity(who: Who, round: usize) -> Identity {
    Identity::Fqdn(format!("{}-{round}", who.name()))
}

fn rounds(moon: &'static [Method], sun: &'static [Method]) -> impl Fn(Who, &mut Connection) {
    move |who, connection| {
        let (ours, theirs) = if who == Who::Moon { (moon, sun) } else { (sun, moon) };
        let mut locals = ours
            .iter()
            .enumerate()
            .map(|(round, method)| LocalAuth { identity: Some(identity(who, round)), method: local(*method, who) });
        connection.local = locals.next().unwrap();
        connection.more_local = locals.collect();
        let mut remotes = theirs.iter().enumerate().map(|(round, method)| RemoteAuth {
            identity: IdentityPattern::Exactly(identity(who.other(), round)),
            method: remote(*method),
        });
        connection.remote = remotes.next().unwrap();
        connection.more_remote = remotes.collect();
    }
}

const COMBINATIONS: [(&[Method], &[Method]); 7] = [
    (&[Psk, Psk], &[Psk]),
    (&[Psk], &[Psk, Psk]),
    (&[Signature, Psk], &[Signature]),
    (&[Signature], &[Psk, Signature]),
    (&[Psk, Signature], &[Signature, Psk]),
    (&[Signature, Signature, Signature], &[Signature, Signature]),
    (&[Signature], &[Signature, Psk, Signature, Psk]),
];

#[test]
fn all_rounds_of_both_ends_lead_to_one_sa() {
    for (moon, sun) in COMBINATIONS {
        for initiator in [Who::Moon, Who::Sun] {
            let mut world = World::with(rounds(moon, sun));
            let ticket = world.initiate(initiator);
            assert_eq!(world.settled(initiator, ticket).unwrap().done, 1, "{moon:?} {sun:?}");
            world.assert_agreement(1);
            let exchanges = moon.len().max(sun.len());
            assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), exchanges);
            let ids: Vec<u32> = world.seen.iter().map(|datagram| datagram.header().message_id).collect();
            assert_eq!(ids, (0..=u32::try_from(exchanges).unwrap()).flat_map(|id| [id, id]).collect::<Vec<_>>());
            assert_eq!(world.only_ike_sa(Who::Moon).remote_id.as_deref(), Some("sun-0"));
            // The numbers go on where they were.
            world.terminate(initiator, crate::io::Target::Connection("net-net".into()));
            world.assert_nothing_left();
        }
    }
}

#[test]
fn lost_messages_of_any_round_are_sent_again() {
    let mut world = World::with(rounds(&[Signature, Psk, Signature], &[Psk, Signature]));
    let mut lost = std::collections::BTreeSet::new();
    world.network(move |datagram| {
        let header = datagram.header();
        if lost.insert((header.message_id, header.kind)) { Fate::Lose } else { Fate::Deliver }
    });
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(29));
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
    assert_eq!(world.sun.signer.verified.len(), 2, "nothing is judged twice");
}

#[test]
fn nothing_is_established_when_a_later_round_fails() {
    // The second round's key is another one than the first's.
    for (moon, sun) in [(&[Signature, Psk][..], &[Psk][..]), (&[Psk][..], &[Signature, Psk][..])] {
        let mut world = World::with(rounds(moon, sun));
        let wrong = format!("{}-1", if moon.len() > 1 { "moon" } else { "sun" });
        world.command(Who::Sun, Command::SetSecret(secret("wrong", &[&wrong], b"wrong")));
        let ticket = world.initiate(Who::Moon);
        assert!(world.settled(Who::Moon, ticket).is_err());
        let who_sees_it = if moon.len() > 1 { Who::Sun } else { Who::Moon };
        assert_eq!(world.failures(who_sees_it), [FailureCode::AuthPskMismatch]);
        assert!(!world.side(who_sees_it).notices.iter().any(|notice| matches!(notice, crate::io::Notice::IkeUp(_))));
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
}

/// responder_auth_constraints.
#[test]
fn a_responder_that_fails_in_one_round_sees_nothing_of_our_next() {
    let mut world = World::with(|who, connection| {
        rounds(&[Psk, Signature], &[Psk])(who, connection);
        match who {
            Who::Moon => connection.remote.identity = IdentityPattern::FqdnUnder("example.org".to_owned()),
            Who::Sun => connection.local.identity = Some(Identity::Fqdn("impostor".to_owned())),
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthIdRefused]);
    assert!(world.moon.signer.signed.is_empty());
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 1);
}

#[test]
fn a_peer_that_goes_through_fewer_rounds_is_refused() {
    for initiator in [Who::Moon, Who::Sun] {
        let mut world = World::with(|who, connection| {
            rounds(&[Psk, Signature], &[Psk])(who, connection);
            if who == Who::Moon {
                connection.more_local.clear();
            }
        });
        let ticket = world.initiate(initiator);
        assert!(world.settled(initiator, ticket).is_err());
        assert_eq!(world.failures(Who::Sun), [FailureCode::AuthRoundMissing]);
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
}

#[test]
fn a_peer_that_announces_a_round_and_skips_it_is_refused() {
    let mut world = World::with(rounds(&[Psk, Signature], &[Psk, Psk]));
    world.network(
        |datagram| {
            if datagram.is(ExchangeType::IkeAuth, MessageKind::Response) { Fate::Hold } else { Fate::Deliver }
        },
    );
    let ticket = world.initiate(Who::Moon);
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    world.moon.engine.with_sa(spi, |mut sa, _| {
        let IkeSa::InitiatorAuth(auth) = &mut sa else { panic!("moon waits for a response") };
        let connection = &mut auth.handshake.attempt.connection;
        let forgetful = Connection { more_local: Vec::new(), ..Connection::clone(connection) };
        *connection = std::sync::Arc::new(forgetful);
        Some(sa)
    });
    world.release();
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthRoundMissing]);
    assert!(world.sun.signer.verified.is_empty());
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn a_peer_that_does_not_know_rounds_is_not_tried_with_them() {
    let mut world = World::with(rounds(&[Psk, Psk], &[Psk]));
    world.network(|datagram| {
        let mut message = datagram.message.clone();
        let supported = message.windows(4).position(|octets| octets == [0, 0, 0x40, 0x14]);
        match supported.filter(|_| datagram.is(ExchangeType::IkeSaInit, MessageKind::Response)) {
            Some(at) => {
                message[at + 2] = 0x9c;
                Fate::Replace(message)
            }
            None => Fate::Deliver,
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRoundsUnsupported]);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn an_sa_is_not_used_for_a_connection_that_demands_other_rounds_now() {
    let mut world = World::with(rounds(&[Psk], &[Psk, Psk]));
    world.initiate(Who::Moon);
    let mut stricter = super::connection(Who::Moon);
    rounds(&[Psk], &[Psk, Signature])(Who::Moon, &mut stricter);
    world.command(Who::Moon, Command::SetConnection(Box::new(stricter.clone())));
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    let IkeSa::Established(sa) = &world.moon.engine.sas[&spi] else { panic!("the SA is up") };
    assert!(!sa.is_meant_by(&stricter));
}
