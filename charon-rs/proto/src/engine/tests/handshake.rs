//! Setting SAs up.

use std::time::Duration;

use espdp_api::{Direction, Encapsulation};

use super::super::testbed::{Fate, Who, World, child, net, secret};
use crate::Settings;
use crate::config::UdpEncapsulation;
use crate::io::{Command, FailureCode, Notice, Target};
use crate::wire::{ExchangeType, MessageKind};

#[test]
fn a_pre_shared_key_brings_an_ike_sa_and_a_child_up_with_four_messages() {
    let mut world = World::new();
    let ticket = world.initiate(Who::Moon);
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
    assert_eq!(world.seen.len(), 4);
    let moon = world.only_ike_sa(Who::Moon);
    assert!(moon.initiator);
    assert_eq!(moon.remote_id.as_deref(), Some("sun"));
    assert_eq!(moon.children[0].path.encapsulation, Encapsulation::Esp, "there is no NAT");
    assert_eq!(moon.path.local.port(), 4500, "MOBIKE leaves the port of plain IKE all the same");
    // Both ends made the same keys, crossed.
    let (spi_in, spi_out) = (moon.children[0].spi_in, moon.children[0].spi_out.unwrap());
    let (ours, theirs) = (&world.moon.dataplane.keys, &world.sun.dataplane.keys);
    assert_eq!(ours[&(Direction::Inbound, spi_in)], theirs[&(Direction::Outbound, spi_in)]);
    assert_eq!(ours[&(Direction::Outbound, spi_out)], theirs[&(Direction::Inbound, spi_out)]);
    assert_ne!(ours[&(Direction::Inbound, spi_in)], ours[&(Direction::Outbound, spi_out)]);
}

#[test]
fn suites_of_all_kinds_come_up() {
    let suites = [
        ("aes256gcm16-prfsha256-modp2048", "aes256gcm16-esn"),
        ("aes128-sha256-modp3072", "aes128-sha256"),
        ("aes256-sha512-ecp384", "aes256-sha512"),
        ("chacha20poly1305-prfsha384-ecp256", "chacha20poly1305"),
    ];
    for (ike, esp) in suites {
        let mut world = World::with(|_, connection| {
            connection.ike_proposals = vec![ike.parse().unwrap()];
            connection.children[0].esp_proposals = vec![esp.parse().unwrap()];
        });
        world.initiate(Who::Sun);
        world.assert_agreement(1);
    }
}

/// R7296-2.21.2-2.
#[test]
fn the_wrong_key_is_refused_alike_and_named_here() {
    let mut world = World::new();
    world.command(Who::Sun, Command::SetSecret(secret("psk", &[], b"Vpp123\n")));
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer]);
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthPskMismatch]);
    let hint = world
        .sun
        .notices
        .iter()
        .find_map(|notice| if let Notice::Failure(failure) = notice { failure.hint.clone() } else { None });
    assert!(hint.unwrap().contains("white space"));
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn a_responder_that_cannot_prove_itself_is_told_and_forgets_the_sa() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.remote.identity = crate::identity::IdentityPattern::Any;
            connection.local.identity = Some(crate::identity::Identity::Fqdn("moon".into()));
        }
    });
    // The key for the guess that the initiator makes is right, the one for the responder's true identity is another.
    world.command(Who::Moon, Command::SetSecret(secret("sun", &["moon", "sun"], b"other")));
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthPskMismatch]);
    world.assert_nothing_left();
}

#[test]
fn no_common_proposal_is_explained_on_both_sides() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.ike_proposals = vec!["aes128-sha256-modp2048".parse().unwrap()];
        }
    });
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(60));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::IkeNoProposal]);
    let [failure] = &world.failure_reports(Who::Sun)[..] else { panic!("one failure expected") };
    assert_eq!((failure.code, failure.connection.as_deref()), (FailureCode::IkeNoProposal, Some("net-net")));
    world.assert_nothing_left();
}

/// R7296-2.21.2-3, R7296-1.3.1-2.
#[test]
fn a_child_that_fails_keeps_the_ike_sa() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.children[0].esp_proposals = vec!["aes128-sha256".parse().unwrap()];
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::ChildNoProposal]);
    world.assert_agreement(0);
}

/// R7296-2.1-2, R7296-2.1-4.
#[test]
fn lost_messages_are_sent_again_unchanged() {
    let mut world = World::new();
    let mut lost = std::collections::BTreeSet::new();
    world.network(move |datagram| {
        let header = datagram.header();
        if lost.insert((header.exchange, header.kind)) { Fate::Lose } else { Fate::Deliver }
    });
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
    let requests: Vec<&Vec<u8>> = world
        .seen
        .iter()
        .filter(|datagram| datagram.is(ExchangeType::IkeAuth, MessageKind::Request))
        .map(|datagram| &datagram.message)
        .collect();
    assert!(requests.len() > 1);
    assert!(requests.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn every_message_may_come_twice() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let first: Vec<_> = world.seen.clone();
    for datagram in first {
        let path = espdp_api::IkePath { local: datagram.path.remote, remote: datagram.path.local };
        let now = world.now;
        world.side(datagram.from.other()).engine.handle_datagram(now, path, &datagram.message);
        world.run();
    }
    world.assert_agreement(1);
    // The IKE_AUTH request got its answer again, the IKE_SA_INIT request of an established SA nothing.
    assert_eq!(world.seen.len(), 5);
}

#[test]
fn a_silent_peer_is_given_up_after_all_tries() {
    let mut world = World::new();
    world.network(|_| Fate::Lose);
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(2 + 4 + 8 + 16 + 29));
    assert!(!world.is_settled(Who::Moon, ticket));
    world.pass(Duration::from_secs(1));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::PeerSilent]);
    assert_eq!(world.seen.len(), 5);
    world.assert_nothing_left();
}

#[test]
fn a_cookie_is_asked_for_and_given_back_in_front() {
    let mut world = World::bare(&Settings { cookie_threshold: 0, ..Settings::default() });
    world.configure(|_, _| {});
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(world.count(ExchangeType::IkeSaInit, MessageKind::Request), 2);
    let requests: Vec<&[u8]> = world
        .seen
        .iter()
        .filter(|datagram| datagram.is(ExchangeType::IkeSaInit, MessageKind::Request))
        .map(|datagram| datagram.message.as_slice())
        .collect();
    // R7296-2.6-4: behind the new first payload (8 octets and a cookie of 36) all is as before.
    assert_eq!(requests[0][28..], requests[1][28 + 8 + 36..]);
}

/// R7296-1.2-1, R7296-3.4-2.
#[test]
fn another_group_is_tried_when_the_peer_asks_for_it() {
    let mut world = World::bare(&Settings { cookie_threshold: 0, ..Settings::default() });
    world.configure(|who, connection| {
        let text = match who {
            Who::Moon => "aes256gcm16-prfsha256-x25519-ecp256",
            Who::Sun => "aes256gcm16-prfsha256-ecp256",
        };
        connection.ike_proposals = vec![text.parse().unwrap()];
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    // Without, with cookie, with cookie and the right group: the cookie is kept (R7296-2.6.1-1).
    assert_eq!(world.count(ExchangeType::IkeSaInit, MessageKind::Request), 3);
}

#[test]
fn forced_encapsulation_floats_to_the_nat_ports() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.encapsulation = UdpEncapsulation::Force
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    for who in [Who::Moon, Who::Sun] {
        let report = world.only_ike_sa(who);
        assert_eq!((report.path.local.port(), report.path.remote.port()), (4500, 4500));
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        assert_eq!(report.children[0].path.encapsulation, encapsulation);
    }
    assert!(world.only_ike_sa(Who::Sun).nat_remote);
    assert!(world.only_ike_sa(Who::Moon).nat_fake);
}

#[test]
fn two_of_us_that_both_want_it_send_esp_in_udp_for_speed_and_nobody_else_does() {
    use UdpEncapsulation::{Auto, Detect, Refuse};
    for (moons, suns, is_in_udp) in
        [(Auto, Auto, true), (Auto, Detect, false), (Detect, Auto, false), (Auto, Refuse, false)]
    {
        let mut world = World::with(|who, connection| {
            connection.mobike = false;
            connection.encapsulation = if who == Who::Moon { moons } else { suns };
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        for who in [Who::Moon, Who::Sun] {
            let report = world.only_ike_sa(who);
            assert_eq!(report.nat_fake, is_in_udp, "{moons:?} and {suns:?}");
            assert!(!report.nat_local && !report.nat_remote, "nobody lies about addresses");
            let udp = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
            let expected = if is_in_udp { udp } else { Encapsulation::Esp };
            assert_eq!(report.children[0].path.encapsulation, expected, "{moons:?} and {suns:?}");
        }
    }
}

#[test]
fn a_dataplane_that_refuses_leaves_nothing_behind() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let mut world = World::new();
        world.moon.dataplane.refuse_install = Some(direction);
        let ticket = world.initiate(Who::Moon);
        assert!(world.settled(Who::Moon, ticket).is_err());
        assert_eq!(world.failures(Who::Moon), [FailureCode::Local]);
        world.pass(Duration::from_secs(10));
        world.assert_agreement(0);
        world.terminate(Who::Moon, Target::Connection("net-net".into()));
        world.assert_nothing_left();
    }
}

#[test]
fn a_peer_whose_dataplane_refuses_is_asked_again() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let mut world = World::new();
        world.sun.dataplane.refuse_install = Some(direction);
        let ticket = world.initiate(Who::Moon);
        assert_eq!(world.failures(Who::Sun), [FailureCode::Local]);
        world.assert_agreement(0);
        world.pass(Duration::from_secs(10));
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
        world.assert_agreement(1);
    }
}

#[test]
fn of_children_that_overlap_the_one_that_is_asked_for_as_a_whole_is_meant() {
    let mut world = World::with(|who, connection| {
        let mut host = child(who, "host");
        let (moon, sun) = (net("10.1.0.7", "10.1.0.7"), net("10.2.0.0", "10.2.255.255"));
        let (local, remote) = if who == Who::Moon { (moon, sun) } else { (sun, moon) };
        (host.local_selectors, host.remote_selectors) = (vec![local.into()], vec![remote.into()]);
        connection.children.push(host);
    });
    for name in ["host", "net"] {
        world.initiate_child(Who::Moon, Some(name));
        let children = world.only_ike_sa(Who::Sun).children;
        assert_eq!(children.last().map(|child| child.name.as_str()), Some(name));
    }
    world.assert_agreement(2);
}
