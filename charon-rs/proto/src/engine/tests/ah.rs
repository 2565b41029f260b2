//! Child SAs of AH: negotiated, replaced and deleted under their own protocol, and never through a NAT.

use std::time::Duration;

use espdp_api::{EspCipher, EspIntegrity, IpsecProtocol};

use super::super::testbed::{Who, World};
use crate::config::RemoteAddress;
use crate::io::{FailureCode, Target};
use crate::proposal::parse_ah_list;

fn child() -> Target {
    Target::Child { connection: None, child: "net".into() }
}

fn world(moon: &'static str, sun: &'static str) -> World {
    World::with(|who, connection| {
        let text = if who == Who::Moon { moon } else { sun };
        connection.children[0].esp_proposals = parse_ah_list(text).unwrap();
    })
}

/// R7296-3.3.3-1.
#[test]
fn both_ends_agree_on_ah_and_its_keys() {
    for initiator in [Who::Moon, Who::Sun] {
        let mut world = world("sha256-sha512-esn", "sha512-esn");
        world.initiate(initiator);
        world.assert_agreement(1);
        for who in [Who::Moon, Who::Sun] {
            let child = world.only_ike_sa(who).children[0].clone();
            assert_eq!(child.protocol, IpsecProtocol::Ah);
            assert_eq!(child.algorithms.cipher, EspCipher::Null);
            assert_eq!(child.algorithms.integrity, EspIntegrity::HmacSha2_512_256);
            assert!(child.algorithms.extended_sequence_numbers);
        }
    }
}

#[test]
fn either_end_replaces_and_deletes_an_sa_of_ah() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = world("sha256-x25519", "sha256-x25519");
        world.initiate(Who::Moon);
        let before = world.only_ike_sa(who).children[0].clone();
        let ticket = world.rekey(who, child());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        world.pass(Duration::from_secs(6));
        world.assert_agreement(1);
        let after = world.only_ike_sa(who).children[0].clone();
        assert_eq!((after.protocol, after.policy), (IpsecProtocol::Ah, before.policy));
        assert_ne!(after.spi_in, before.spi_in);
        world.terminate(who, child());
        for side in [Who::Moon, Who::Sun] {
            assert!(world.only_ike_sa(side).children.is_empty(), "{side:?}");
        }
    }
}

#[test]
fn ah_and_esp_do_not_agree() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.children[0].esp_proposals = parse_ah_list("sha256").unwrap();
        }
    });
    world.initiate(Who::Moon);
    assert!(world.only_ike_sa(Who::Moon).children.is_empty());
    let failures = world.failure_reports(Who::Sun);
    assert_eq!(failures[0].code, FailureCode::ChildNoProposal, "{failures:?}");
}

#[test]
fn ah_through_a_nat_is_refused_with_the_reason() {
    let mut world = World::with(|who, connection| {
        connection.children[0].esp_proposals = parse_ah_list("sha256").unwrap();
        if who == Who::Sun {
            connection.remote_addresses = vec![RemoteAddress::Any];
        }
    });
    world.set_nat(true);
    world.initiate(Who::Moon);
    for who in [Who::Moon, Who::Sun] {
        let failures = world.failure_reports(who);
        assert!(failures.iter().any(|failure| failure.what.contains("NAT")), "{who:?}: {failures:?}");
        assert!(world.ike_sas(who).iter().all(|sa| sa.children.is_empty()), "{who:?}");
    }
}
