//! Replacing SAs, alone and against each other.

use std::time::Duration;

use espdp_api::{Direction, Event};

use super::super::testbed::{Fate, Who, World};
use crate::config::Lifetime;
use crate::io::{DownReason, IkeState, Notice, Target};
use crate::wire::{ExchangeType, MessageKind};

fn child() -> Target {
    Target::Child { connection: None, child: "net".into() }
}

fn ike() -> Target {
    Target::Connection("net-net".into())
}

fn up() -> World {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    world
}

/// What is left after the old inbound SAs have drained.
fn drained(world: &mut World) {
    world.pass(Duration::from_secs(6));
    for who in [Who::Moon, Who::Sun] {
        let dataplane = &world.side(who).dataplane;
        assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (1, 1), "{who:?}");
        assert!(dataplane.reserved.is_empty());
    }
    world.assert_agreement(1);
}

fn downs(world: &mut World, who: Who) -> usize {
    let is_down = |notice: &&Notice| matches!(notice, Notice::ChildDown { .. } | Notice::IkeDown { .. });
    world.side(who).notices.iter().filter(is_down).count()
}

#[test]
fn either_end_replaces_a_child_and_keeps_its_policy() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = up();
        let before = world.only_ike_sa(who).children[0].clone();
        let ticket = world.rekey(who, child());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        // The old inbound half still receives what is under way.
        assert!(world.side(who).dataplane.inbound.contains_key(&before.spi_in));
        drained(&mut world);
        let after = world.only_ike_sa(who).children[0].clone();
        assert_ne!(before.spi_in, after.spi_in);
        assert_eq!(before.policy, after.policy);
        assert_eq!(downs(&mut world, Who::Moon) + downs(&mut world, Who::Sun), 0);
    }
}

/// R7296-2.8-1.
#[test]
fn the_answering_end_sends_on_the_old_child_until_the_peer_is_known_to_be_ready() {
    let mut world = up();
    let old = world.only_ike_sa(Who::Sun).children[0].clone();
    // The response arrives late: moon does not have the new SA yet.
    world.network(|datagram| {
        if datagram.is(ExchangeType::CreateChildSa, MessageKind::Response) { Fate::Hold } else { Fate::Deliver }
    });
    world.rekey(Who::Moon, child());
    assert_eq!(world.sun.dataplane.inbound.len(), 2, "the new inbound SA is ready before the response leaves");
    assert_eq!(world.sun.dataplane.active[&old.policy], old.spi_out.unwrap());
    assert_eq!(world.sun.dataplane.outbound.len(), 2, "the new outbound SA is installed but not active");
    world.release();
    drained(&mut world);
}

#[test]
fn a_replacement_that_the_peer_cannot_use_is_taken_back() {
    let day = Duration::from_secs(86400);
    let mut world = World::with(|_, connection| {
        let (rekey_after, expire_after) = (Some(day), Some(2 * day));
        connection.children[0].lifetime = Lifetime { rekey_after, jitter: Duration::ZERO, expire_after };
    });
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon).children[0].clone();
    world.sun.dataplane.refuse_install = Some(Direction::Inbound);
    let ticket = world.rekey(Who::Sun, child());
    assert!(world.settled(Who::Sun, ticket).is_err());
    world.assert_agreement(1);
    let after = world.only_ike_sa(Who::Moon).children[0].clone();
    assert_eq!(after.id, before.id);
    assert!(after.rekey_at.is_some());
    let replacements = world.moon.notices.iter().filter_map(|notice| {
        if let Notice::ChildRekeyed { old, new, .. } = notice { Some((old.id, new.id)) } else { None }
    });
    let replacements: Vec<_> = replacements.collect();
    assert_eq!(replacements.len(), 2);
    assert_eq!(replacements[0].0, before.id);
    assert_eq!(replacements[1], (replacements[0].1, before.id));
    assert_eq!(downs(&mut world, Who::Moon), 0);
    world.rekey(Who::Sun, child());
    drained(&mut world);
}

#[test]
fn the_first_packet_on_a_new_child_switches_the_answering_end() {
    let mut world = up();
    world.network(|datagram| {
        if datagram.is(ExchangeType::Informational, MessageKind::Request) { Fate::Hold } else { Fate::Deliver }
    });
    world.rekey(Who::Moon, child());
    let old = world.only_ike_sa(Who::Sun).children[0].clone();
    assert_eq!(world.sun.dataplane.active[&old.policy], old.spi_out.unwrap());
    let new = world.only_ike_sa(Who::Sun).children[1].clone();
    world.event(Who::Sun, Event::FirstPacket { spi: new.spi_in, policy: new.policy });
    assert_eq!(world.sun.dataplane.active[&new.policy], new.spi_out.unwrap());
    world.release();
    drained(&mut world);
}

#[test]
fn a_child_with_pfs_is_replaced_with_a_key_exchange_in_the_group_that_the_peer_wants() {
    let mut world = World::with(|who, connection| {
        let text = if who == Who::Moon { "aes256gcm16-x25519-ecp256" } else { "aes256gcm16-ecp256" };
        connection.children[0].esp_proposals = vec![text.parse().unwrap()];
    });
    world.initiate(Who::Moon);
    assert_eq!(world.only_ike_sa(Who::Moon).children[0].pfs_group, None);
    world.rekey(Who::Moon, child());
    // The first offer is refused with INVALID_KE_PAYLOAD.
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 2);
    drained(&mut world);
    for who in [Who::Moon, Who::Sun] {
        assert!(world.only_ike_sa(who).children[0].pfs_group.is_some());
    }
}

/// R7296-2.8-3.
#[test]
fn either_end_replaces_the_ike_sa_and_the_new_one_inherits_the_child() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = up();
        let before = world.only_ike_sa(who);
        let ticket = world.rekey(who, ike());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        world.assert_agreement(1);
        let after = world.only_ike_sa(who);
        assert_eq!(after.id, before.id, "people see the same SA");
        assert_ne!(after.initiator_spi, before.initiator_spi);
        assert!(after.initiator, "who replaces an SA is the initiator of the new one");
        assert_eq!(after.children[0].spi_in, before.children[0].spi_in);
        assert_eq!(downs(&mut world, Who::Moon) + downs(&mut world, Who::Sun), 0);
        // The new SA works, in both directions, and can be replaced again.
        world.rekey(who.other(), child());
        drained(&mut world);
        world.rekey(who.other(), ike());
        world.assert_agreement(1);
        world.terminate(who, ike());
        world.assert_nothing_left();
    }
}

#[test]
fn rekeying_the_ike_sa_may_change_the_prf() {
    let mut world = World::with(|_, connection| {
        connection.ike_proposals = vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()];
    });
    world.initiate(Who::Moon);
    // The configuration changes; SAs that exist go on, so moon's new SA must come from sun's rekeying.
    world.rekey(Who::Sun, ike());
    world.assert_agreement(1);
    world.rekey(Who::Moon, child());
    drained(&mut world);
}

#[test]
fn two_children_replaced_at_once_leave_one_pair() {
    for held in [MessageKind::Request, MessageKind::Response] {
        let mut world = up();
        world.network(
            move |datagram| {
                if datagram.is(ExchangeType::CreateChildSa, held) { Fate::Hold } else { Fate::Deliver }
            },
        );
        let (ours, theirs) = (world.begin_rekey(Who::Moon, child()), world.begin_rekey(Who::Sun, child()));
        world.run();
        world.release();
        assert!(world.is_settled(Who::Moon, ours) && world.is_settled(Who::Sun, theirs));
        drained(&mut world);
        assert_eq!(downs(&mut world, Who::Moon) + downs(&mut world, Who::Sun), 0, "nothing went down");
    }
}

#[test]
fn a_child_rekeying_that_only_one_end_notices_is_forgotten() {
    let mut world = up();
    // Moon's request is lost until sun's rekeying is over.
    world.network(|datagram| {
        let of_moon = datagram.from == Who::Moon && datagram.is(ExchangeType::CreateChildSa, MessageKind::Request);
        if of_moon { Fate::Hold } else { Fate::Deliver }
    });
    world.begin_rekey(Who::Moon, child());
    world.begin_rekey(Who::Sun, child());
    world.run();
    world.release();
    drained(&mut world);
}

/// R7296-2.8.2-1.
#[test]
fn two_ike_sas_replaced_at_once_leave_one() {
    for held in [MessageKind::Request, MessageKind::Response] {
        let mut world = up();
        world.network(
            move |datagram| {
                if datagram.is(ExchangeType::CreateChildSa, held) { Fate::Hold } else { Fate::Deliver }
            },
        );
        let (ours, theirs) = (world.begin_rekey(Who::Moon, ike()), world.begin_rekey(Who::Sun, ike()));
        world.run();
        world.release();
        world.pass(Duration::from_secs(1));
        assert!(world.is_settled(Who::Moon, ours) && world.is_settled(Who::Sun, theirs));
        world.assert_agreement(1);
        assert_eq!(downs(&mut world, Who::Moon) + downs(&mut world, Who::Sun), 0);
        world.rekey(Who::Moon, child());
        drained(&mut world);
    }
}

#[test]
fn an_ike_rekeying_that_only_one_end_notices_is_forgotten() {
    let mut world = up();
    world.network(|datagram| {
        let of_moon = datagram.from == Who::Moon && datagram.is(ExchangeType::CreateChildSa, MessageKind::Request);
        if of_moon { Fate::Hold } else { Fate::Deliver }
    });
    world.begin_rekey(Who::Moon, ike());
    world.begin_rekey(Who::Sun, ike());
    world.run();
    world.assert_agreement(1);
    world.release();
    world.pass(Duration::from_secs(60));
    world.assert_agreement(1);
}

#[test]
fn an_ike_rekeying_and_a_child_rekeying_that_meet_are_both_done_in_the_end() {
    for (of_moon, of_sun) in [(ike(), child()), (child(), ike())] {
        let mut world = up();
        world.network(|datagram| {
            let crossing = datagram.is(ExchangeType::CreateChildSa, MessageKind::Request);
            if crossing { Fate::Hold } else { Fate::Deliver }
        });
        let (ours, theirs) = (world.begin_rekey(Who::Moon, of_moon), world.begin_rekey(Who::Sun, of_sun));
        world.run();
        world.release();
        world.pass(Duration::from_secs(30));
        assert_eq!(world.settled(Who::Moon, ours).unwrap().done, 1);
        assert_eq!(world.settled(Who::Sun, theirs).unwrap().done, 1);
        drained(&mut world);
    }
}

#[test]
fn a_rekeying_that_meets_a_deletion_leaves_nothing() {
    for target in [child(), ike()] {
        let mut world = up();
        world.network(|datagram| {
            let crossing = datagram.header().kind == MessageKind::Request;
            if crossing { Fate::Hold } else { Fate::Deliver }
        });
        world.begin_rekey(Who::Moon, target.clone());
        world.run();
        world.terminate(Who::Sun, target.clone());
        world.release();
        world.pass(Duration::from_secs(60));
        if target == child() {
            world.assert_agreement(0);
            world.terminate(Who::Moon, ike());
        }
        world.assert_nothing_left();
    }
}

/// R7296-2.8-2.
#[test]
fn lifetimes_replace_and_end_sas() {
    let lifetime = Lifetime {
        rekey_after: Some(Duration::from_secs(100)),
        jitter: Duration::from_secs(20),
        expire_after: Some(Duration::from_secs(120)),
    };
    let mut world = World::with(|_, connection| {
        connection.ike_lifetime = Lifetime { rekey_after: Some(Duration::from_secs(330)), ..lifetime };
        connection.ike_lifetime.expire_after = Some(Duration::from_secs(400));
        connection.children[0].lifetime = lifetime;
    });
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(3600));
    world.assert_agreement(1);
    assert_eq!(downs(&mut world, Who::Moon) + downs(&mut world, Who::Sun), 0);
    // The peer goes away: what cannot be replaced ends in time.
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(400));
    world.assert_nothing_left();
}

#[test]
fn a_soft_limit_replaces_a_child_and_a_hard_one_ends_it() {
    use espdp_api::Direction;
    let mut world = up();
    let before = world.only_ike_sa(Who::Moon).children[0].clone();
    let limit = (Direction::Inbound, before.spi_in, before.policy);
    world.event(Who::Moon, Event::SoftLimit { direction: limit.0, spi: limit.1, policy: limit.2 });
    drained(&mut world);
    let after = world.only_ike_sa(Who::Moon).children[0].clone();
    assert_ne!(before.spi_in, after.spi_in);
    let (direction, policy) = (Direction::Outbound, after.policy);
    world.event(Who::Moon, Event::HardLimit { direction, spi: after.spi_out.unwrap(), policy });
    world.assert_agreement(0);
    let expired = |notice: &Notice| matches!(notice, Notice::ChildDown { reason: DownReason::Expired, .. });
    assert!(world.moon.notices.iter().any(expired));
}

#[test]
fn the_state_of_an_sa_tells_that_it_is_being_replaced() {
    let mut world = up();
    world.network(|_| Fate::Hold);
    world.rekey(Who::Moon, ike());
    assert_eq!(world.only_ike_sa(Who::Moon).state, IkeState::Rekeying);
    assert_eq!(world.only_ike_sa(Who::Moon).tasks, ["IKE_REKEY"]);
    world.release();
    assert_eq!(world.only_ike_sa(Who::Moon).state, IkeState::Established);
}

#[test]
fn a_rekeying_that_fails_is_tried_again_before_the_lifetime_is_over() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let lifetime = Lifetime { rekey_after: seconds(100), jitter: Duration::ZERO, expire_after: seconds(300) };
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.children[0].lifetime = lifetime;
        }
    });
    world.initiate(Who::Moon);
    world.moon.dataplane.refuse_install = Some(espdp_api::Direction::Inbound);
    world.pass(Duration::from_secs(400));
    assert_eq!(world.failures(Who::Moon), [crate::io::FailureCode::Local]);
    assert_eq!(downs(&mut world, Who::Moon), 0);
    world.assert_traffic_flows(1);
}
