//! Authentication: methods, rounds, certificates, and answers of the shell that come late or never.

mod childless;
mod failures;
mod rounds;
mod slow;

use std::time::Duration;

use super::super::testbed::{Fate, Who, World, connection, sign_both, sign_with, trust_in};
use crate::config::{Connection, LocalMethod, RemoteMethod, SendCertificates};
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Command, FailureCode};
use crate::wire::{ExchangeType, MessageKind};

/// By what an end authenticates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Psk,
    Signature,
}

fn local(method: Method, who: Who) -> LocalMethod {
    match method {
        Method::Psk => LocalMethod::PreSharedKey,
        Method::Signature => sign_with(who.name()),
    }
}

fn remote(method: Method) -> RemoteMethod {
    match method {
        Method::Psk => RemoteMethod::PreSharedKey,
        Method::Signature => trust_in("ca"),
    }
}

/// The connection of a world where moon and sun use these methods.
fn by(moon: Method, sun: Method) -> impl Fn(Who, &mut Connection) {
    move |who, connection| {
        let (ours, theirs) = if who == Who::Moon { (moon, sun) } else { (sun, moon) };
        connection.local.method = local(ours, who);
        connection.remote.method = remote(theirs);
    }
}

#[test]
fn each_end_may_authenticate_itself_by_another_method() {
    for (moon, sun) in [
        (Method::Signature, Method::Signature),
        (Method::Psk, Method::Signature),
        (Method::Signature, Method::Psk),
        (Method::Psk, Method::Psk),
    ] {
        let mut world = World::with(by(moon, sun));
        let ticket = world.initiate(Who::Moon);
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1, "{moon:?} {sun:?}");
        world.assert_agreement(1);
        assert_eq!(world.seen.len(), 4);
        let (signs, judges) = (usize::from(moon == Method::Signature), usize::from(sun == Method::Signature));
        assert_eq!((world.moon.signer.signed.len(), world.moon.signer.verified.len()), (signs, judges));
        assert_eq!((world.sun.signer.signed.len(), world.sun.signer.verified.len()), (judges, signs));
    }
}

/// R7427-3-1: both say which hashes they take, so method 14 it is.
#[test]
fn peers_that_know_rfc_7427_use_it() {
    let mut world = World::with(sign_both);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    for side in [&world.moon, &world.sun] {
        assert_eq!(side.signer.signed[0].peer_hashes, Some(vec![2, 3, 4, 5]));
        assert_eq!(side.signer.verified[0].method, 14);
    }
    // Both ends mean the same octets, and no two proofs are made over the same.
    assert_eq!(world.moon.signer.signed[0].octets, world.sun.signer.verified[0].octets);
    assert_eq!(world.sun.signer.signed[0].octets, world.moon.signer.verified[0].octets);
    assert_ne!(world.moon.signer.signed[0].octets, world.sun.signer.signed[0].octets);
}

/// Somebody between the two puts other hashes into sun's list, each of two octets; `None` takes the list away.
fn change_hashes_of_sun(world: &mut World, hashes: Option<[u8; 4]>) {
    world.network(move |datagram| {
        let mut message = datagram.message.clone();
        let list = message.windows(LIST.len()).position(|octets| octets == LIST);
        match list.filter(|_| datagram.from == Who::Sun && datagram.is(ExchangeType::IkeSaInit, MessageKind::Response))
        {
            None => return Fate::Deliver,
            Some(at) => match hashes {
                Some(hashes) => {
                    (0..4).for_each(|index| message[at + 3 + 2 * index] = hashes[index]);
                }
                // An unknown notification.
                None => message[at] = 0x9c,
            },
        }
        Fate::Replace(message)
    });
}

/// SIGNATURE_HASH_ALGORITHMS as it is on the wire, from the type on.
const LIST: [u8; 10] = [0x40, 0x2f, 0, 2, 0, 3, 0, 4, 0, 5];

/// R7427-4-1, R8420-2-1: the shell is told what the peer takes, and a key that makes nothing of that is not used.
#[test]
fn a_signature_is_one_that_the_peer_says_it_takes() {
    for (key, hashes, made) in [
        ("sha512", [4, 4, 4, 4], Some(4)),
        ("sha512", [2, 3, 3, 5], None),
        ("ed25519", [2, 2, 2, 5], Some(5)),
        ("ed25519", [2, 3, 4, 4], None),
        ("any", [9, 8, 3, 7], Some(3)),
    ] {
        let mut world = World::with(move |who, connection| {
            sign_both(who, connection);
            if who == Who::Moon {
                connection.local.method = sign_with(key);
            }
        });
        change_hashes_of_sun(&mut world, Some(hashes));
        world.initiate(Who::Moon);
        assert_eq!(world.moon.signer.signed[0].peer_hashes, Some(hashes.map(u16::from).to_vec()));
        let received = world.sun.signer.verified.first().map(|proof| proof.data[0]);
        assert_eq!(received, made, "{key} {hashes:?}");
        if made.is_none() {
            assert_eq!(world.failures(Who::Moon), [FailureCode::AuthNoCommonHash]);
            assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 0);
        }
    }
}

#[test]
fn old_peers_get_a_signature_of_rfc_7296() {
    let mut world = World::with(sign_both);
    change_hashes_of_sun(&mut world, None);
    world.initiate(Who::Moon);
    assert_eq!(world.moon.signer.signed[0].peer_hashes, None);
    assert_eq!(world.sun.signer.verified[0].method, 9);
    // Who changes the first messages is found out by whoever signed them (RFC 7296 §2.15).
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthSignatureWrong]);
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

/// R7296-1.2-3: the certificate of the key comes first.
#[test]
fn certificates_go_in_front_of_the_proof_if_somebody_asked_for_them() {
    for (policy, asked, sent) in [
        (SendCertificates::IfAsked, true, true),
        (SendCertificates::IfAsked, false, false),
        (SendCertificates::Always, false, true),
        (SendCertificates::Never, true, false),
    ] {
        let mut world = World::with(move |who, connection| {
            sign_both(who, connection);
            if who == Who::Moon {
                connection.send_certificates = policy;
            } else {
                connection.send_certificate_requests = asked;
            }
        });
        let ticket = world.initiate(Who::Moon);
        let requested: Vec<u8> = world.moon.signer.signed[0].requested.iter().map(|request| request.encoding).collect();
        assert_eq!(requested, if asked { vec![4] } else { vec![] });
        let received = &world.sun.signer.verified[0].certificates;
        assert_eq!(received.first().map(|certificate| certificate.data.as_slice()), sent.then_some(&b"moon moon"[..]));
        assert_eq!(world.settled(Who::Moon, ticket).is_ok(), sent, "sun has no certificates of its own");
        if !sent {
            assert_eq!(world.failures(Who::Sun), [FailureCode::AuthNoCertificate]);
        }
    }
}

/// R7296-3.6-1.
#[test]
fn chains_of_certificates_are_bounded() {
    for (key, accepted) in [("chain-4", true), ("chain-12", true), ("chain-17", false), ("long-chain-2", false)] {
        for initiator in [Who::Moon, Who::Sun] {
            let mut world = World::with(move |who, connection| {
                sign_both(who, connection);
                if who == Who::Moon {
                    connection.local.method = sign_with(key);
                }
            });
            let ticket = world.initiate(initiator);
            assert_eq!(world.settled(initiator, ticket).is_ok(), accepted, "{key}");
            if accepted {
                let chain = &world.sun.signer.verified[0].certificates;
                assert_eq!((chain.len(), chain[0].data.starts_with(key.as_bytes())), (key[6..].parse().unwrap(), true));
            } else {
                assert_eq!(world.failures(Who::Sun), [FailureCode::AuthCertificateLimit]);
                assert!(world.sun.signer.verified.is_empty());
                world.pass(Duration::from_secs(60));
                world.assert_nothing_left();
            }
        }
    }
}

#[test]
fn distinguished_names_are_compared_by_meaning_and_may_have_wildcards() {
    // C=CH, CN=moon in two encodings, and with a star.
    let name = |country: &[u8], tag: u8, common_name: &[u8]| {
        let attribute = |kind: u8, tag: u8, value: &[u8]| {
            let len = |octets: &[u8]| u8::try_from(octets.len()).unwrap();
            let value = [&[6, 3, 0x55, 4, kind, tag, len(value)], value].concat();
            let pair = [&[0x30, len(&value)], &value[..]].concat();
            [&[0x31, len(&pair)], &pair[..]].concat()
        };
        let parts = [attribute(6, 19, country), attribute(3, tag, common_name)].concat();
        [&[0x30, u8::try_from(parts.len()).unwrap()], &parts[..]].concat()
    };
    let dn = |der: Vec<u8>| Identity::Dn { der, text: String::new() };
    let printable = name(b"CH", 19, b"moon");
    for (expected, accepted) in [
        (IdentityPattern::Exactly(dn(name(b"ch", 12, b"Moon"))), true),
        (IdentityPattern::Dn { der: name(b"CH", 12, b"*"), text: "C=CH, CN=*".to_owned() }, true),
        (IdentityPattern::Exactly(dn(name(b"DE", 19, b"moon"))), false),
        (IdentityPattern::Dn { der: name(b"DE", 12, b"*"), text: "C=DE, CN=*".to_owned() }, false),
    ] {
        let (ours, theirs) = (dn(printable.clone()), expected);
        let mut world = World::with(move |who, connection| match who {
            Who::Moon => connection.local.identity = Some(ours.clone()),
            Who::Sun => connection.remote.identity = theirs.clone(),
        });
        world.initiate(Who::Moon);
        if accepted {
            world.assert_agreement(1);
            assert_eq!(world.only_ike_sa(Who::Sun).remote_id.as_deref(), Some("C=CH, CN=moon"));
        } else {
            assert_eq!(world.failures(Who::Sun), [FailureCode::AuthIdRefused]);
        }
    }
}

#[test]
fn requests_name_the_authorities_of_all_connections_that_may_be_meant_and_ask_for_ocsp() {
    let mut world = World::with(|who, connection| {
        sign_both(who, connection);
        if let (Who::Sun, RemoteMethod::Signature(trust)) = (who, &mut connection.remote.method) {
            trust.ocsp = true;
        }
    });
    let mut another = connection(Who::Sun);
    another.name = "another".to_owned();
    another.remote.method = trust_in("another-ca");
    world.command(Who::Sun, Command::SetConnection(Box::new(another)));
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let requested = &world.moon.signer.signed[0].requested;
    assert_eq!(requested.len(), 2);
    assert_eq!((requested[0].encoding, requested[0].authorities.clone()), (4, [[2; 20], [10; 20]].concat()));
    assert_eq!((requested[1].encoding, requested[1].authorities.len()), (14, 0));
}

#[test]
fn a_connection_that_the_peers_proof_does_not_fit_leaves_it_to_the_next() {
    // By name and address `net-net` comes first; it wants a pre-shared key, and `another` trusts somebody else.
    let mut world = World::with(|who, connection| match who {
        Who::Moon => sign_both(who, connection),
        Who::Sun => connection.local.method = sign_with("sun"),
    });
    for (name, trust) in [("other-1", "elsewhere"), ("other-2", "ca")] {
        let mut other = connection(Who::Sun);
        other.name = name.to_owned();
        sign_both(Who::Sun, &mut other);
        other.remote.method = trust_in(trust);
        world.command(Who::Sun, Command::SetConnection(Box::new(other)));
    }
    let ticket = world.initiate(Who::Moon);
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    assert_eq!(world.only_ike_sa(Who::Sun).connection, "other-2");
    let asked: Vec<_> = world.sun.signer.verified.iter().map(|proof| proof.trust.0.as_str()).collect();
    assert_eq!(asked, ["elsewhere", "ca"]);
    assert!(world.failures(Who::Sun).is_empty());
}
