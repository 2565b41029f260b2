//! Each way in which authentication fails has a code of its own here, and looks like all others on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::super::testbed::{Who, World, secret, sign_both, sign_with};
use super::{Method, by};
use crate::config::{Connection, LocalMethod, RemoteMethod};
use crate::identity::IdentityPattern;
use crate::io::{Command, FailureCode};
use crate::wire::{ExchangeType, MessageKind};

type Adapt = fn(Who, &mut Connection);

/// What is wrong with moon where both sides sign, and what sun says of it.
const FAILURES: [(&str, Adapt, FailureCode); 8] = [
    ("a key that is not the certificate's", |who, moon| key(who, moon, "forged"), FailureCode::AuthSignatureWrong),
    ("a hash that nobody takes", |who, moon| key(who, moon, "sha1"), FailureCode::AuthAlgorithmRefused),
    ("a CA that nobody trusts", |who, moon| key(who, moon, "moon@elsewhere"), FailureCode::AuthNoCa),
    ("another one's certificate", |who, moon| key(who, moon, "stolen"), FailureCode::AuthIdNotInCertificate),
    (
        "another identity than expected",
        |who, connection| {
            if who == Who::Sun {
                connection.remote.identity = IdentityPattern::FqdnUnder("example.org".to_owned());
            }
        },
        FailureCode::AuthIdRefused,
    ),
    (
        "a pre-shared key in the place of a signature",
        |who, connection| {
            if who == Who::Moon {
                connection.local.method = LocalMethod::PreSharedKey;
            }
        },
        FailureCode::AuthMethodRefused,
    ),
    (
        "a signature in the place of a pre-shared key",
        |who, connection| {
            if who == Who::Sun {
                connection.remote.method = RemoteMethod::PreSharedKey;
            }
        },
        FailureCode::AuthMethodRefused,
    ),
    (
        "a second round that nobody wants",
        |who, connection| {
            if who == Who::Moon {
                connection.more_local = vec![connection.local.clone()];
            }
        },
        FailureCode::AuthRoundUnexpected,
    ),
];

fn key(who: Who, connection: &mut Connection, key: &str) {
    if who == Who::Moon {
        connection.local.method = sign_with(key);
    }
}

fn world(adapt: Adapt) -> World {
    World::with(move |who, connection| {
        sign_both(who, connection);
        adapt(who, connection);
    })
}

/// R7296-2.21.2-2, R8247-3.2-1.
#[test]
fn whatever_is_wrong_with_the_initiator_it_learns_only_that_it_failed() {
    let mut lengths = BTreeSet::new();
    for (what, adapt, code) in FAILURES {
        let mut world = world(adapt);
        let ticket = world.initiate(Who::Moon);
        assert!(world.settled(Who::Moon, ticket).is_err(), "{what}");
        assert_eq!(world.failures(Who::Sun), [code], "{what}");
        assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer], "{what}");
        assert!(world.sun.signer.signed.is_empty(), "{what}: a stranger does not cost us a signature");
        let refusal = world.seen.last().unwrap();
        assert!(refusal.is(ExchangeType::IkeAuth, MessageKind::Response));
        lengths.insert(refusal.message.len());
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
    assert_eq!(lengths.len(), 1, "all refusals look alike");
}

#[test]
fn whatever_is_wrong_with_the_responder_it_is_told_and_forgets_the_sa() {
    for (what, adapt, code) in FAILURES {
        let mut world = world(adapt);
        let ticket = world.initiate(Who::Sun);
        assert!(world.settled(Who::Sun, ticket).is_err(), "{what}");
        assert_eq!(world.failures(Who::Sun), [code], "{what}");
        assert!(world.failures(Who::Moon).iter().all(|code| *code == FailureCode::AuthRefusedByPeer), "{what}");
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
}

#[test]
fn a_responder_without_key_refuses_like_one_that_was_not_convinced() {
    let mut world = world(|who, connection| {
        if who == Who::Sun {
            connection.local.method = sign_with("lost");
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthNoPrivateKey]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer]);
    assert_eq!(world.sun.signer.verified.len(), 1);
}

#[test]
fn an_initiator_without_key_sends_nothing() {
    let mut world = world(|who, moon| key(who, moon, "lost"));
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthNoPrivateKey]);
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 0);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn a_wrong_pre_shared_key_fails_beside_a_signature() {
    let mut world = World::with(by(Method::Psk, Method::Signature));
    world.command(Who::Moon, Command::SetSecret(secret("psk", &[], b"wrong")));
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthPskMismatch]);
    assert!(world.sun.signer.signed.is_empty());
    let mut world = World::with(by(Method::Signature, Method::Psk));
    world.command(Who::Moon, Command::SetSecret(secret("psk", &[], b"wrong")));
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthPskMismatch]);
    world.assert_nothing_left();
}
