//! Established SAs: deleting, more children, dead peers, commands.

use std::time::Duration;

use espdp_api::{Direction, Encapsulation, Event, Mode, OuterPath, PacketSummary};

use super::super::testbed::{self, Fate, Who, World, net, two_children};
use crate::config::{ChildSelector, Dpd, DpdAction, StartAction, UdpEncapsulation};
use crate::io::{Command, DownReason, FailureCode, Notice, Target, Ticket};
use crate::wire::{ExchangeType, MessageKind};

fn ike() -> Target {
    Target::Connection("net-net".into())
}

#[test]
fn either_end_deletes_the_ike_sa_and_all_is_gone() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = World::with(two_children);
        world.initiate(Who::Moon);
        world.assert_agreement(2);
        let ticket = world.terminate(who, ike());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        world.assert_nothing_left();
        let reasons = |world: &mut World, who: Who| -> Vec<DownReason> {
            let reason = |notice: &Notice| {
                if let Notice::IkeDown { reason, .. } = notice { Some(reason.clone()) } else { None }
            };
            world.side(who).notices.iter().filter_map(reason).collect()
        };
        assert_eq!(reasons(&mut world, who), [DownReason::Command]);
        assert_eq!(reasons(&mut world, who.other()), [DownReason::PeerDeleted]);
    }
}

/// R7296-1.4.1-1.
#[test]
fn one_child_goes_and_the_other_stays() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    world.terminate(Who::Sun, Target::Child { connection: None, child: "net".into() });
    world.assert_agreement(1);
    let ticket = world.initiate_child(Who::Sun, Some("net"));
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
    world.assert_agreement(2);
    let again = world.initiate(Who::Moon);
    assert_eq!(world.settled(Who::Moon, again).unwrap().done, 2, "both are up already");
    world.assert_agreement(2);
}

#[test]
fn deletions_that_cross_leave_nothing() {
    for target in [ike(), Target::Child { connection: None, child: "net".into() }] {
        let mut world = World::new();
        world.initiate(Who::Moon);
        world.network(
            |datagram| {
                if datagram.header().kind == MessageKind::Request { Fate::Hold } else { Fate::Deliver }
            },
        );
        let ours = world.terminate(Who::Moon, target.clone());
        let theirs = world.terminate(Who::Sun, target.clone());
        world.release();
        world.pass(Duration::from_secs(120));
        assert_eq!(world.settled(Who::Moon, ours).unwrap().done, 1);
        assert_eq!(world.settled(Who::Sun, theirs).unwrap().done, 1);
        world.terminate(Who::Moon, ike());
        world.assert_nothing_left();
    }
}

#[test]
fn what_is_wanted_while_ike_auth_is_served_happens_afterwards() {
    for refused in [None, Some(Direction::Inbound)] {
        let mut world = World::new();
        (world.sun.is_slow, world.sun.dataplane.refuse_install) = (true, refused);
        world.initiate(Who::Moon);
        let ticket = world.terminate(Who::Sun, ike());
        world.catch_up(Who::Sun);
        assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
        world.assert_nothing_left();
    }
}

#[test]
fn an_attempt_that_is_stopped_before_the_peer_answers_leaves_nothing_there() {
    let mut world = World::new();
    world.network(
        |datagram| {
            if datagram.is(ExchangeType::IkeAuth, MessageKind::Response) { Fate::Hold } else { Fate::Deliver }
        },
    );
    let ticket = world.initiate(Who::Moon);
    let stopped = world.terminate(Who::Moon, ike());
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.settled(Who::Moon, stopped).unwrap().done, 1);
    world.release();
    world.assert_nothing_left();
    let again = world.initiate(Who::Moon);
    assert_eq!(world.settled(Who::Moon, again).unwrap().done, 1);
    world.assert_agreement(1);
}

/// R7296-2.3-2.
#[test]
fn requests_of_both_ends_pass_each_other() {
    let mut world = World::with(two_children);
    world.initiate_child(Who::Moon, Some("net"));
    // Both begin at once, and each serves the other's request while its own is outstanding.
    world.network(|datagram| if datagram.header().kind == MessageKind::Response { Fate::Hold } else { Fate::Deliver });
    let ticket = world.initiate_child(Who::Moon, Some("second"));
    world.terminate(Who::Sun, Target::Child { connection: None, child: "net".into() });
    world.release();
    assert!(world.settled(Who::Moon, ticket).is_ok());
    world.assert_agreement(1);
}

fn with_dpd(action: DpdAction) -> World {
    World::with(move |who, connection| {
        if who == Who::Moon {
            connection.dpd = Some(Dpd { delay: Duration::from_secs(30), action });
        }
    })
}

/// R7296-1.4-2.
#[test]
fn a_peer_that_answers_probes_lives() {
    let mut world = with_dpd(DpdAction::Clear);
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Request), 3);
    world.assert_agreement(1);
}

#[test]
fn a_dead_peer_is_cleared_away() {
    let mut world = with_dpd(DpdAction::Clear);
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(120));
    assert!(world.ike_sas(Who::Moon).is_empty());
    assert!(world.moon.dataplane.policies.is_empty());
    let dead = |notice: &Notice| matches!(notice, Notice::IkeDown { reason: DownReason::PeerDead, .. });
    assert!(world.moon.notices.iter().any(dead));
}

#[test]
fn a_dead_peer_is_tried_again_until_it_lives() {
    let mut world = with_dpd(DpdAction::Restart);
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(1000));
    assert!(world.ike_sas(Who::Moon).iter().all(|sa| sa.established.is_none()));
    world.repair_network();
    world.pass(Duration::from_secs(300));
    // The peer learned by INITIAL_CONTACT that its old SA is of no use.
    world.assert_agreement(1);
}

#[test]
fn a_dead_peer_on_hold_comes_back_with_the_next_packet() {
    let mut world = with_dpd(DpdAction::Hold);
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(120));
    assert!(world.ike_sas(Who::Moon).is_empty());
    let trap = *world.moon.dataplane.trapped.first().expect("the policy waits");
    world.repair_network();
    let packet = PacketSummary {
        source: "10.1.0.7".parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        protocol: 6,
        source_port: Some(1234),
        destination_port: Some(80),
    };
    world.event(Who::Moon, Event::Acquire { policy: trap, packet });
    // Sun's old SA needs a while to see that nobody wants to hear of its end.
    world.pass(Duration::from_secs(61));
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).children[0].policy, trap);
}

#[test]
fn a_trap_waits_for_a_packet_and_waits_again() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.children[0].start = StartAction::Trap;
        }
    });
    assert!(world.ike_sas(Who::Moon).is_empty());
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
    let child = world.only_ike_sa(Who::Moon).children[0].clone();
    assert_eq!(child.local, [net("10.1.0.0", "10.1.255.255")], "the packet's selector is part of the whole");
    world.terminate(Who::Sun, ike());
    assert_eq!(world.moon.dataplane.trapped.first(), Some(&trap));
    world.command(Who::Moon, Command::RemoveConnection("net-net".into()));
    world.run();
    world.assert_nothing_left();
}

#[test]
fn what_should_be_up_comes_up_and_comes_back() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.children[0].start = StartAction::Start;
        }
    });
    world.pass(Duration::from_secs(1));
    world.assert_agreement(1);
    world.terminate(Who::Sun, ike());
    assert!(world.ike_sas(Who::Moon).is_empty());
    world.pass(Duration::from_secs(5));
    world.assert_agreement(1);
    // What is taken down here stays down until somebody wants it again.
    world.terminate(Who::Moon, ike());
    world.pass(Duration::from_secs(600));
    world.assert_nothing_left();
    world.initiate(Who::Moon);
    world.terminate(Who::Sun, ike());
    world.pass(Duration::from_secs(5));
    world.assert_agreement(1);
}

#[test]
fn two_ends_that_start_at_once_agree_in_the_end() {
    let mut world = World::with(|_, connection| connection.children[0].start = StartAction::Start);
    world.pass(Duration::from_secs(600));
    world.assert_agreement(1);
}

#[test]
fn shutting_down_deletes_everything_and_says_when() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    world.command(Who::Moon, Command::ShutDown { grace: Duration::from_secs(2) });
    world.run();
    assert!(matches!(world.moon.notices.last(), Some(Notice::ShutDown)));
    world.assert_nothing_left();
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
}

#[test]
fn shutting_down_does_not_wait_for_dead_peers() {
    let mut world = World::new();
    let ticket = Ticket(99);
    world.network(|_| Fate::Lose);
    world.command(Who::Moon, Command::Initiate { ticket, connection: None, child: Some("net".into()) });
    world.run();
    world.repair_network();
    world.initiate(Who::Sun);
    world.network(|_| Fate::Lose);
    world.command(Who::Sun, Command::ShutDown { grace: Duration::from_secs(2) });
    world.command(Who::Moon, Command::ShutDown { grace: Duration::from_secs(2) });
    world.pass(Duration::from_secs(3));
    for who in [Who::Moon, Who::Sun] {
        assert!(matches!(world.side(who).notices.last(), Some(Notice::ShutDown)));
    }
    assert!(world.is_settled(Who::Moon, ticket));
    world.assert_nothing_left();
}

/// R7296-2.23-6.
#[test]
fn a_peer_behind_a_nat_is_followed_by_authentic_messages_only() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.encapsulation = UdpEncapsulation::Force
        }
    });
    world.initiate(Who::Moon);
    let child = world.only_ike_sa(Who::Sun).children[0].clone();
    let path = OuterPath { encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 1024 }, ..child.path };
    world.event(Who::Sun, Event::PeerMoved { spi: child.spi_in, policy: child.policy, path });
    assert_eq!(world.only_ike_sa(Who::Sun).path.remote.port(), 1024);
    assert_eq!(world.only_ike_sa(Who::Sun).children[0].path, path);
    // Moon, which is behind the (pretended) NAT, does not follow.
    let child = world.only_ike_sa(Who::Moon).children[0].clone();
    world.event(Who::Moon, Event::PeerMoved { spi: child.spi_in, policy: child.policy, path });
    assert_eq!(world.only_ike_sa(Who::Moon).path.remote.port(), 4500);
}

#[test]
fn a_crashed_peer_that_comes_back_replaces_its_old_sa() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.crash_moon();
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(120));
    world.assert_agreement(1);
}

/// R7296-2.23-4.
#[test]
fn a_nat_in_front_of_us_is_kept_awake() {
    let mut world = World::with(|_, connection| connection.dpd = None);
    world.nat_in_front_of_moon(true);
    world.initiate(Who::Moon);
    let report = world.only_ike_sa(Who::Moon);
    assert!(report.nat_local && !report.nat_remote);
    assert!(world.only_ike_sa(Who::Sun).nat_remote);
    assert_eq!(report.path.local.port(), 4500);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.keepalives, 5, "one in twenty seconds, from moon alone");
    world.assert_agreement(1);
}

/// R7296-1.3.1-1.
#[test]
fn transport_mode_needs_both_ends() {
    let transport = |_: Who, connection: &mut crate::config::Connection| {
        let child = &mut connection.children[0];
        child.mode = Mode::Transport;
        (child.local_selectors, child.remote_selectors) = (vec![ChildSelector::HOST], vec![ChildSelector::HOST]);
    };
    let mut world = World::with(transport);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    for who in [Who::Moon, Who::Sun] {
        let child = world.only_ike_sa(who).children[0].clone();
        assert_eq!(child.mode, Mode::Transport);
        assert_eq!(child.local[0].addresses.start(), who.address());
    }
    let mut world = World::with(|who, connection| {
        transport(who, connection);
        if who == Who::Sun {
            connection.children[0].mode = Mode::Tunnel;
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.pass(Duration::from_secs(1));
    world.assert_agreement(0);
}

#[test]
fn the_peers_identity_decides_among_connections_for_the_same_addresses() {
    use crate::identity::{Identity, IdentityPattern};
    let mut world = World::new();
    let mut other = testbed::connection(Who::Sun);
    other.name = "a-first-by-name".into();
    other.remote.identity = IdentityPattern::Exactly(Identity::Fqdn("venus".into()));
    world.command(Who::Sun, Command::SetConnection(Box::new(other)));
    world.initiate(Who::Moon);
    assert_eq!(world.only_ike_sa(Who::Sun).connection, "net-net");
    world.assert_agreement(1);
}

#[test]
fn the_child_decides_among_connections_for_the_same_peer() {
    use crate::config::RemoteAddress;
    let mut second = testbed::connection(Who::Sun);
    two_children(Who::Sun, &mut second);
    second.children.remove(0);
    second.name = "a-second".into();
    let chosen = |second: &crate::config::Connection| {
        let mut world = World::new();
        world.command(Who::Sun, Command::SetConnection(Box::new(second.clone())));
        world.initiate(Who::Moon);
        (world.only_ike_sa(Who::Sun).connection, world.failures(Who::Sun))
    };
    assert_eq!(chosen(&second), ("net-net".into(), Vec::new()));
    // What is meant for others as well does not widen what this peer may have.
    let mut narrow = testbed::connection(Who::Sun);
    std::mem::swap(&mut second.children, &mut narrow.children);
    second.remote_addresses = vec![RemoteAddress::Any];
    let mut world = World::new();
    for connection in [second, narrow] {
        world.command(Who::Sun, Command::SetConnection(Box::new(connection)));
    }
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::TsUnacceptable]);
}

#[test]
fn two_connections_to_one_peer_that_start_at_once_both_stay_up() {
    for also_sun in [false, true] {
        let mut world = World::bare(&crate::Settings::default());
        for who in [Who::Moon, Who::Sun] {
            world.command(who, Command::SetSecret(testbed::secret("psk", &[], b"Vpp123")));
            for (name, position) in [("first", 0), ("second", 1)] {
                let mut connection = testbed::connection(who);
                two_children(who, &mut connection);
                connection.name = name.into();
                connection.children = vec![connection.children.swap_remove(position)];
                if who == Who::Moon || also_sun {
                    connection.children[0].start = StartAction::Start;
                }
                world.command(who, Command::SetConnection(Box::new(connection)));
            }
        }
        world.pass(Duration::from_secs(120));
        for who in [Who::Moon, Who::Sun] {
            let mut up: Vec<String> = world.ike_sas(who).into_iter().map(|sa| sa.connection).collect();
            up.sort_unstable();
            assert_eq!(up, ["first", "second"], "{who:?}");
        }
        world.assert_traffic_flows(2);
    }
}

#[test]
fn the_algorithms_of_one_connection_do_not_do_for_another() {
    use crate::identity::{Identity, IdentityPattern};
    let mut world = World::with(|who, connection| {
        let proposal = if who == Who::Moon { "aes128-sha256-x25519" } else { "aes256gcm16-prfsha256-x25519" };
        connection.ike_proposals = vec![proposal.parse().unwrap()];
    });
    let mut weak = testbed::connection(Who::Sun);
    weak.name = "weak".into();
    weak.remote.identity = IdentityPattern::Exactly(Identity::Fqdn("venus".into()));
    weak.ike_proposals = vec!["aes128-sha256-x25519".parse().unwrap()];
    world.command(Who::Sun, Command::SetConnection(Box::new(weak)));
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::IkeNoProposal]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer]);
}

/// R7296-2.4-4.
#[test]
fn a_second_connection_to_a_peer_does_not_claim_to_be_the_only_one() {
    let mut world = World::with(two_children);
    let mut other = testbed::connection(Who::Moon);
    two_children(Who::Moon, &mut other);
    other.name = "other".into();
    world.command(Who::Moon, Command::SetConnection(Box::new(other)));
    world.initiate_child(Who::Moon, Some("net"));
    let ticket = Ticket(99);
    let (connection, child) = (Some("other".into()), Some("second".into()));
    world.command(Who::Moon, Command::Initiate { ticket, connection, child });
    world.pass(Duration::from_secs(10));
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    assert_eq!(world.ike_sas(Who::Sun).len(), 2);
    world.assert_traffic_flows(2);
}

#[test]
fn selectors_of_different_families_on_the_two_sides_are_no_tunnel() {
    let mut world = World::with(|who, connection| {
        let (four, six) = (net("10.1.0.0", "10.1.255.255").into(), net("fec1::", "fec1::ffff").into());
        let child = &mut connection.children[0];
        (child.local_selectors, child.remote_selectors) =
            if who == Who::Moon { (vec![four], vec![six]) } else { (vec![six], vec![four]) };
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::TsUnacceptable]);
    world.assert_agreement(0);
}

#[test]
fn an_unknown_identity_is_refused_with_both_views() {
    use crate::identity::Identity;
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.local.identity = Some(Identity::Rfc822("moon@example.org".into()));
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthIdRefused]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer]);
}

/// R7296-3.5-1.
#[test]
fn all_types_of_identities_authenticate() {
    use crate::identity::{Identity, IdentityPattern};
    let identities = [
        Identity::Ipv4([10, 0, 0, 1].into()),
        Identity::Ipv6("fec3::1".parse().unwrap()),
        Identity::Fqdn("moon.example.org".into()),
        Identity::Rfc822("moon@example.org".into()),
        Identity::Dn { der: vec![0x30, 0x02, 0x31, 0x00], text: "CN=moon".into() },
        Identity::KeyId(vec![1, 2, 3]),
    ];
    for identity in identities {
        let mut world = World::with(|who, connection| match who {
            Who::Moon => connection.local.identity = Some(identity.clone()),
            Who::Sun => connection.remote.identity = IdentityPattern::Exactly(identity.clone()),
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
    }
}

#[test]
fn a_host_name_is_resolved_and_our_address_asked_for() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.local_addresses.clear();
            connection.remote_addresses = vec![crate::config::RemoteAddress::Name("sun.example.org".into())];
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
}

#[test]
fn a_silent_address_is_followed_by_the_next_one() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            let nowhere = crate::config::RemoteAddress::Address([192, 0, 2, 99].into());
            connection.remote_addresses.insert(0, nowhere);
        }
    });
    world.network(|datagram| {
        if datagram.path.remote.ip() == Who::Sun.address() || datagram.from == Who::Sun {
            Fate::Deliver
        } else {
            Fate::Lose
        }
    });
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
}

#[test]
fn children_that_are_taken_down_carry_nothing_while_the_peer_is_silent() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|_| Fate::Lose);
    let down = world.terminate(Who::Moon, ike());
    assert!(world.moon.dataplane.policies.is_empty());
    assert!(!world.is_settled(Who::Moon, down), "the peer has not agreed");
    world.repair_network();
    let up = world.initiate(Who::Moon);
    assert_eq!(world.settled(Who::Moon, up).unwrap().done, 1);
    world.pass(Duration::from_secs(60));
    assert!(world.settled(Who::Moon, down).is_ok());
    world.assert_agreement(1);
}
