//! Post-quantum pre-shared keys (RFC 8784).

use std::time::Duration;

use super::super::testbed::{Who, World, connection, secret, two_children};
use crate::config::{Connection, PpkUse, SecretKind, SharedSecret};
use crate::io::{Command, FailureCode, Notice, Target};

fn ppk(id: &str, key: &[u8]) -> Command {
    Command::SetSecret(SharedSecret { kind: SecretKind::Ppk, ..secret("quantum", &[id], key) })
}

fn wants(connection: &mut Connection, id: Option<&str>, required: bool) {
    connection.ppk = Some(PpkUse { id: id.map(|id| id.as_bytes().to_vec()), required });
}

/// Moon names `quantum` and, if told so, demands it; sun has these keys, and demands one if told so.
fn world(moon_requires: bool, sun: &[Key<'_>], sun_requires: bool) -> World {
    let mut world = World::with(|who, connection| match who {
        Who::Moon => wants(connection, Some("quantum"), moon_requires),
        Who::Sun if sun_requires => wants(connection, None, true),
        Who::Sun => {}
    });
    world.command(Who::Moon, ppk("quantum", b"a secret that no computer guesses"));
    for (id, key) in sun {
        world.command(Who::Sun, ppk(id, key));
    }
    world
}

/// What a key is called, and the key.
type Key<'a> = (&'a str, &'a [u8]);

const SAME: Key<'_> = ("quantum", b"a secret that no computer guesses");

/// Whether a message of this kind went out with such a notification.
fn sent(world: &World, what: &str, notify: &str) -> bool {
    let notices = world.moon.notices.iter().chain(&world.sun.notices);
    let mut traces = notices.filter_map(|notice| if let Notice::Message(trace) = notice { Some(trace) } else { None });
    traces.any(|trace| trace.summary.starts_with(what) && trace.summary.contains(notify))
}

#[test]
fn a_key_that_both_have_is_mixed_into_the_keys() {
    for (moon_requires, sun_requires) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = world(moon_requires, &[SAME], sun_requires);
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        assert!(sent(&world, "IKE_AUTH response", "N(PPK_ID)"));
        assert_eq!(sent(&world, "IKE_AUTH request", "N(NO_PPK)"), !moon_requires);
        world.assert_traffic_flows(1);
    }
}

/// R8784-3-2.
#[test]
fn use_ppk_is_said_whenever_a_key_is_configured() {
    for sun in [&[][..], &[SAME]] {
        let mut world = world(false, sun, false);
        world.initiate(Who::Moon);
        assert!(sent(&world, "IKE_SA_INIT request", "N(USE_PPK)"));
        assert_eq!(sent(&world, "IKE_SA_INIT response", "N(USE_PPK)"), !sun.is_empty());
        world.assert_agreement(1);
    }
    let mut world = World::new();
    world.initiate(Who::Moon);
    assert!(!sent(&world, "IKE_SA_INIT request", "N(USE_PPK)"));
}

#[test]
fn where_nobody_insists_it_works_without() {
    for sun in [&[][..], &[("another", b"another secret".as_slice())]] {
        let mut world = world(false, sun, false);
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        assert!(!sent(&world, "IKE_AUTH response", "N(PPK_ID)"));
        world.rekey(Who::Sun, Target::Connection("net-net".into()));
        world.assert_traffic_flows(1);
    }
}

/// R8784-3-1.
#[test]
fn where_somebody_insists_there_is_no_sa_without() {
    let cases: [(bool, &[Key<'_>], bool, Who); 3] = [
        (true, &[], false, Who::Moon),
        (true, &[("another", b"another secret")], false, Who::Sun),
        (false, &[("another", b"another secret")], true, Who::Sun),
    ];
    for (moon_requires, sun, sun_requires, who) in cases {
        let mut world = world(moon_requires, sun, sun_requires);
        let ticket = world.initiate(Who::Moon);
        assert!(world.settled(Who::Moon, ticket).is_err());
        assert_eq!(world.failures(who), [FailureCode::AuthPpkRefused]);
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
    // A peer that knows nothing of such keys.
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            wants(connection, None, true);
        }
    });
    world.command(Who::Sun, ppk(SAME.0, SAME.1));
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthPpkRefused]);
}

/// R8784-3-1: nor is there one because another connection for the same peer insists on nothing.
#[test]
fn a_child_of_a_connection_that_insists_does_not_come_up_without() {
    let mut world = World::new();
    world.command(Who::Sun, ppk(SAME.0, SAME.1));
    let mut lenient = connection(Who::Sun);
    two_children(Who::Sun, &mut lenient);
    lenient.children.remove(0);
    world.command(Who::Sun, Command::SetConnection(Box::new(lenient)));
    let mut strict = Connection { name: "strict".into(), ..connection(Who::Sun) };
    wants(&mut strict, None, true);
    world.command(Who::Sun, Command::SetConnection(Box::new(strict)));
    world.initiate(Who::Moon);
    let sun = world.only_ike_sa(Who::Sun);
    assert_eq!((sun.connection.as_str(), sun.children.len()), ("net-net", 0));
    assert_eq!(world.failures(Who::Sun), [FailureCode::TsUnacceptable]);
}

#[test]
fn different_keys_of_one_name_do_not_fit() {
    let mut world = world(false, &[("quantum", b"something else")], false);
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthPskMismatch]);
}

/// R8784-3-3.
#[test]
fn what_replaces_an_sa_has_the_key_by_the_one_before_and_not_once_more() {
    let mut world = world(true, &[SAME], true);
    world.initiate(Who::Moon);
    // Whoever would mix it in again would have to have it.
    world.command(Who::Moon, Command::RemoveSecret("quantum".to_owned()));
    for (who, target) in [
        (Who::Moon, Target::Connection("net-net".into())),
        (Who::Sun, Target::Child { connection: None, child: "net".into() }),
        (Who::Sun, Target::Connection("net-net".into())),
    ] {
        let ticket = world.rekey(who, target);
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        world.pass(Duration::from_secs(6));
        world.assert_agreement(1);
    }
    world.assert_traffic_flows(1);
}
