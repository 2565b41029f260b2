//! Connections that change while their SAs are up.

use std::time::Duration;

use espdp_api::{EspCipher, Event, PacketSummary};

use super::super::testbed::{Fate, Who, World, connection, two_children};
use crate::config::{ChildSelector, Connection, Lifetime, StartAction};
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Command, FailureCode, Target};
use crate::proposal::KeyExchangeGroup;
use crate::wire::{ExchangeType, MessageKind};

fn reload(world: &mut World, who: Who, adapt: impl Fn(&mut Connection)) {
    let mut connection = connection(who);
    adapt(&mut connection);
    world.command(who, Command::SetConnection(Box::new(connection)));
    world.run();
}

/// Until an old inbound SA has drained.
const DRAINED: Duration = Duration::from_secs(6);

fn net() -> Target {
    Target::Child { connection: None, child: "net".into() }
}

#[test]
fn a_child_that_is_added_comes_up_over_the_ike_sa_that_is_there() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    for who in [Who::Moon, Who::Sun] {
        reload(&mut world, who, |connection| two_children(who, connection));
    }
    let ticket = world.initiate_child(Who::Moon, Some("second"));
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(2);
}

#[test]
fn a_new_child_sa_is_what_the_configuration_says_now() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Sun).initiator_spi;
    reload(&mut world, Who::Sun, |connection| {
        connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
    });
    world.assert_agreement(1);
    world.terminate(Who::Moon, net());
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::ChildNoProposal]);
    reload(&mut world, Who::Moon, |connection| {
        connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Sun).initiator_spi, before);
}

/// A child's SA is replaced by one as the configuration has it by then, whoever asks; that goes for the IKE SA as well.
#[test]
fn what_is_rekeyed_is_as_the_configuration_says_by_then() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = World::new();
        world.initiate(Who::Moon);
        for end in [Who::Moon, Who::Sun] {
            reload(&mut world, end, |connection| {
                connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
                connection.children[0].replay_window = 4096;
                connection.ike_proposals = vec!["aes128gcm16-prfsha384-ecp256".parse().unwrap()];
                let an_hour = Duration::from_secs(3600);
                connection.ike_lifetime =
                    Lifetime { rekey_after: Some(an_hour), jitter: Duration::ZERO, expire_after: None };
            });
        }
        let before = world.only_ike_sa(who);
        assert_ne!(before.children[0].algorithms.cipher, EspCipher::ChaCha20Poly1305, "nothing is rekeyed yet");
        world.rekey(who, net());
        world.rekey(who, Target::Connection("net-net".into()));
        assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 2, "nothing is asked for twice");
        world.pass(DRAINED);
        world.assert_agreement(1);
        for end in [Who::Moon, Who::Sun] {
            let sa = world.only_ike_sa(end);
            assert_eq!(sa.children[0].algorithms.cipher, EspCipher::ChaCha20Poly1305);
            assert_eq!(sa.proposal.unwrap().group, KeyExchangeGroup::Ecp256);
            assert_eq!(sa.rekey_at.map(|at| at - sa.established.unwrap()), Some(Duration::from_secs(3600)));
        }
        assert_eq!(world.only_ike_sa(who).children[0].policy, before.children[0].policy);
    }
}

/// Selectors of a Child SA stay when it is rekeyed (RFC 7296 §2.8), whatever is configured; the rest of the change holds.
#[test]
fn selectors_that_were_configured_anew_wait_for_a_new_child() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon).children[0].local.clone();
    for end in [Who::Moon, Who::Sun] {
        reload(&mut world, end, |connection| {
            connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
            connection.children[0].local_selectors = vec![ChildSelector::HOST];
            connection.children[0].remote_selectors = vec![ChildSelector::HOST];
        });
    }
    world.rekey(Who::Sun, net());
    world.pass(DRAINED);
    world.assert_agreement(1);
    let after = world.only_ike_sa(Who::Moon).children[0].clone();
    assert_eq!((after.local, after.algorithms.cipher), (before, EspCipher::ChaCha20Poly1305));
}

/// The peer answers what was offered to it, though the connection was configured anew meanwhile.
#[test]
fn an_ike_rekeying_under_way_goes_by_what_was_offered() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Hold } else { Fate::Deliver });
    let ticket = world.rekey(Who::Moon, Target::Connection("net-net".into()));
    reload(&mut world, Who::Moon, |connection| {
        connection.ike_proposals = vec!["aes128gcm16-prfsha384-ecp256".parse().unwrap()];
    });
    world.repair_network();
    world.release();
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).proposal.unwrap().group, KeyExchangeGroup::Curve25519);
}

#[test]
fn a_peer_that_the_new_configuration_does_not_mean_gets_none_of_its_children() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    reload(&mut world, Who::Moon, |connection| two_children(Who::Moon, connection));
    reload(&mut world, Who::Sun, |connection| {
        two_children(Who::Sun, connection);
        connection.remote.identity = IdentityPattern::Exactly(Identity::Fqdn("venus".into()));
    });
    let ticket = world.initiate_child(Who::Moon, Some("second"));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::TsUnacceptable]);
    world.assert_agreement(1);
}

#[test]
fn an_ike_sa_with_a_peer_that_is_not_meant_any_more_gets_no_new_child() {
    let mars = || Identity::Fqdn("mars".into());
    let mut world = World::new();
    world.initiate(Who::Moon);
    reload(&mut world, Who::Moon, |connection| {
        two_children(Who::Moon, connection);
        connection.remote.identity = IdentityPattern::Exactly(mars());
    });
    reload(&mut world, Who::Sun, |connection| {
        two_children(Who::Sun, connection);
        connection.local.identity = Some(mars());
    });
    world.initiate_child(Who::Moon, Some("second"));
    let sas = world.ike_sas(Who::Moon);
    let mut children: Vec<_> =
        sas.iter().map(|sa| (sa.remote_id.as_deref(), sa.children[0].name.as_str(), sa.children.len())).collect();
    children.sort_unstable();
    assert_eq!(children, [(Some("mars"), "second", 1), (Some("sun"), "net", 1)]);
}

#[test]
fn a_trap_in_use_waits_for_what_the_configuration_says_now() {
    let mut world = World::new();
    reload(&mut world, Who::Moon, |connection| connection.children[0].start = StartAction::Trap);
    world.initiate(Who::Moon);
    for who in [Who::Moon, Who::Sun] {
        reload(&mut world, who, |connection| {
            connection.children[0].start = if who == Who::Moon { StartAction::Trap } else { StartAction::None };
            connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
        });
    }
    world.terminate(Who::Sun, Target::Connection("net-net".into()));
    let trap = *world.moon.dataplane.trapped.first().expect("the policy waits");
    let packet = PacketSummary {
        source: "10.1.0.7".parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        protocol: 1,
        source_port: Some(0x0800),
        destination_port: None,
    };
    world.event(Who::Moon, Event::Acquire { policy: trap, packet });
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).children[0].algorithms.cipher, EspCipher::ChaCha20Poly1305);
}
