//! Authenticating anew, and several IKE SAs with one peer.

use std::time::Duration;

use espdp_api::{Command as DataplaneCommand, EspSpi, IkePath};

use super::super::task::{Queued, Task};
use super::super::testbed::{self, Datagram, Fate, Who, World, two_children};
use crate::Settings;
use crate::config::{Child, Connection, Lifetime, RemoteAddress, Uniqueness};
use crate::io::{Ask, Command, DownReason, FailureCode, IkeSaId, IkeSpi, Notice, Output, RemarkLevel, Target, Ticket};
use crate::wire::{ExchangeType, MessageKind, Notify, NotifyType};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ike() -> Target {
    Target::Connection("net-net".into())
}

/// Moon authenticates anew every 100 seconds.
fn reauthenticating(who: Who, connection: &mut Connection) {
    if who == Who::Moon {
        connection.reauth_after = Some(seconds(100));
    }
}

fn reauthenticate(world: &mut World, who: Who) -> Ticket {
    world.reauthenticate(who, ike())
}

fn policies(world: &mut World, who: Who) -> Vec<u64> {
    world.side(who).dataplane.policies.iter().map(|policy| policy.0).collect()
}

#[test]
fn a_new_ike_sa_with_all_children_takes_the_old_ones_place() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon);
    let set = [policies(&mut world, Who::Moon), policies(&mut world, Who::Sun)];
    let ticket = reauthenticate(&mut world, Who::Moon);
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_traffic_flows(2);
    world.pass(seconds(6));
    world.assert_agreement(2);
    let after = world.only_ike_sa(Who::Moon);
    assert_ne!(after.id, before.id);
    assert_eq!([policies(&mut world, Who::Moon), policies(&mut world, Who::Sun)], set, "the policies stay");
    for who in [Who::Moon, Who::Sun] {
        let dataplane = &world.side(who).dataplane;
        assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (2, 2), "{who:?}");
    }
    world.terminate(Who::Sun, ike());
    world.assert_nothing_left();
}

#[test]
fn the_old_inbound_sas_receive_what_is_under_way() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let old = [Who::Moon, Who::Sun].map(|who| world.only_ike_sa(who).children[0].spi_in);
    reauthenticate(&mut world, Who::Moon);
    world.pass(seconds(1));
    assert_eq!(world.ike_sas(Who::Moon).len(), 1, "the old IKE SA is gone");
    for (who, old) in [(Who::Moon, old[0]), (Who::Sun, old[1])] {
        assert!(world.side(who).dataplane.inbound.contains_key(&old), "{who:?}");
    }
    world.pass(seconds(6));
    for (who, old) in [(Who::Moon, old[0]), (Who::Sun, old[1])] {
        assert!(!world.side(who).dataplane.inbound.contains_key(&old), "{who:?}");
    }
    world.assert_agreement(1);
}

#[test]
fn it_happens_in_time_again_and_again_over_rekeyings() {
    let mut world = World::with(|who, connection| {
        reauthenticating(who, connection);
        connection.ike_lifetime =
            Lifetime { rekey_after: Some(seconds(35)), jitter: seconds(5), expire_after: Some(seconds(80)) };
    });
    world.initiate(Who::Moon);
    let mut ids: Vec<IkeSaId> = Vec::new();
    for _ in 0..60 {
        world.pass(seconds(10));
        world.assert_traffic_flows(1);
        ids.extend(world.ike_sas(Who::Moon).iter().map(|sa| sa.id));
    }
    ids.dedup();
    assert!((5..9).contains(&ids.len()), "{ids:?}");
    world.assert_agreement(1);
    let lost = |notice: &&Notice| matches!(notice, Notice::IkeDown { reason, .. } if !matches!(reason, DownReason::Replaced | DownReason::PeerDeleted));
    assert_eq!(world.moon.notices.iter().filter(lost).count() + world.sun.notices.iter().filter(lost).count(), 0);
}

/// RFC 4478: a responder announces when it wants to see the peer authenticated anew, and the peer does it in time.
#[test]
fn the_responder_announces_how_long_an_authentication_counts() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.reauth_after = Some(seconds(1000));
        }
    });
    world.initiate(Who::Moon);
    let due = world.only_ike_sa(Who::Moon).reauth_at.expect("moon was told") - world.now;
    assert!((seconds(800)..=seconds(900)).contains(&due), "{due:?}");
    let before = world.only_ike_sa(Who::Moon).id;
    world.pass(seconds(905));
    world.assert_agreement(1);
    assert_ne!(world.only_ike_sa(Who::Moon).id, before);
    assert!(world.only_ike_sa(Who::Moon).initiator);
}

#[test]
fn a_peer_that_wants_it_all_the_time_gets_it_once_a_minute() {
    for wanted in [0u32, 1, 59] {
        let mut world = World::new();
        world.initiate(Who::Moon);
        let (spi, now) = (*world.moon.engine.sas.keys().next().unwrap(), world.now);
        let notify = Notify::with_data(NotifyType::AuthLifetime, wanted.to_be_bytes().to_vec());
        world.moon.engine.with_established(spi, |sa, cx| sa.on_authentication_lifetime(cx, now, &notify));
        let due = world.only_ike_sa(Who::Moon).reauth_at.unwrap() - now;
        assert!((seconds(45)..=seconds(55)).contains(&due), "{wanted} s: {due:?}");
        world.run();
        let warns = |notice: &Notice| matches!(notice, Notice::Remark { level: RemarkLevel::Warn, .. });
        assert!(world.moon.notices.iter().any(warns), "{wanted} s");
    }
}

#[test]
fn a_responder_whose_peer_does_nothing_begins_itself_or_ends_the_sa() {
    for sun_can_begin in [true, false] {
        let mut world = World::with(|who, connection| {
            if who == Who::Sun {
                connection.reauth_after = Some(seconds(200));
                if !sun_can_begin {
                    connection.remote_addresses = vec![RemoteAddress::Any];
                }
            }
        });
        world.initiate(Who::Moon);
        // Moon was told, and is asked not to heed it.
        let spi = *world.moon.engine.sas.keys().next().unwrap();
        world.moon.engine.with_established(spi, |sa, _| sa.origin.reauth_at = None);
        world.pass(seconds(300));
        if sun_can_begin {
            world.assert_agreement(1);
            assert!(world.only_ike_sa(Who::Sun).initiator);
        } else {
            world.assert_nothing_left();
            let expired = |notice: &Notice| matches!(notice, Notice::IkeDown { reason: DownReason::Expired, .. });
            assert!(world.sun.notices.iter().any(expired));
        }
    }
}

#[test]
fn what_fails_is_tried_again_while_the_old_sa_is_there() {
    let mut world = World::with(|who, connection| {
        reauthenticating(who, connection);
        connection.retransmission.tries = 1;
    });
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon).id;
    world.network(
        |datagram| if datagram.header().exchange == ExchangeType::IkeSaInit { Fate::Lose } else { Fate::Deliver },
    );
    world.pass(seconds(110));
    assert_eq!(world.failures(Who::Moon), [FailureCode::PeerSilent]);
    world.assert_agreement(1);
    world.repair_network();
    world.pass(seconds(60));
    world.assert_agreement(1);
    assert_ne!(world.only_ike_sa(Who::Moon).id, before);
}

#[test]
fn without_a_new_authentication_the_old_one_ends() {
    let mut world = World::with(reauthenticating);
    world.initiate(Who::Moon);
    world.network(
        |datagram| if datagram.header().exchange == ExchangeType::IkeSaInit { Fate::Lose } else { Fate::Deliver },
    );
    world.pass(seconds(200));
    assert!(world.ike_sas(Who::Sun).is_empty(), "{:?}", world.ike_sas(Who::Sun));
}

#[test]
fn a_new_ike_sa_whose_children_are_refused_does_not_cost_the_old_ones() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon).id;
    let mut elsewhere = testbed::connection(Who::Sun);
    elsewhere.children[0].local_selectors = vec![testbed::net("10.9.0.0", "10.9.0.255").into()];
    world.command(Who::Sun, Command::SetConnection(Box::new(elsewhere)));
    let ticket = reauthenticate(&mut world, Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.pass(seconds(10));
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).id, before);
}

#[test]
fn the_old_sa_may_be_rekeyed_by_the_peer_meanwhile() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(
        |datagram| if datagram.header().exchange == ExchangeType::IkeAuth { Fate::Hold } else { Fate::Deliver },
    );
    let ticket = reauthenticate(&mut world, Who::Moon);
    world.rekey(Who::Sun, ike());
    world.release();
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.pass(seconds(10));
    world.assert_agreement(1);
}

/// Whose SPI is higher is chance: both orders must be among the seeds.
#[test]
fn either_end_authenticates_an_sa_anew_that_the_other_set_up_and_deletes_the_old_one_itself() {
    for who in [Who::Moon, Who::Sun] {
        let mut old_is_higher = Vec::new();
        for seed in 0..6 {
            let mut world = World::seeded(&Settings::default(), seed);
            world.configure(|_, _| {});
            world.initiate(who.other());
            let before = world.only_ike_sa(who);
            world.pass(seconds(1));
            let ticket = reauthenticate(&mut world, who);
            assert_eq!(world.settled(who, ticket).unwrap().done, 1, "{who:?} {seed}");
            world.pass(seconds(1));
            let after = world.only_ike_sa(who);
            assert!(after.initiator && after.id != before.id, "{who:?} {seed}");
            old_is_higher.push(before.initiator_spi > after.initiator_spi);
            world.pass(seconds(30));
            world.assert_agreement(1);
            let deletes = |datagram: &Datagram| datagram.is(ExchangeType::Informational, MessageKind::Request);
            let deleters: Vec<Who> = world.seen.iter().filter(|datagram| deletes(datagram)).map(|it| it.from).collect();
            assert_eq!(deleters, [who], "seed {seed}");
        }
        assert!(old_is_higher.contains(&true) && old_is_higher.contains(&false), "{old_is_higher:?}");
    }
}

#[test]
fn two_ends_that_begin_at_once_keep_one_ike_sa_and_lose_no_packet() {
    for seed in 0..6 {
        let mut world = World::seeded(&Settings::default(), seed);
        world.configure(|_, connection| connection.uniqueness = Uniqueness::No);
        world.network(|datagram| match datagram.header().kind {
            MessageKind::Request => Fate::Late(vec![Duration::from_millis(20)]),
            MessageKind::Response => Fate::Late(vec![Duration::from_millis(30)]),
        });
        for (number, who) in [(98, Who::Moon), (99, Who::Sun)] {
            let (ticket, connection) = (Ticket(number), Some("net-net".to_owned()));
            world.command(who, Command::Initiate { ticket, connection, child: None });
        }
        world.pass(seconds(1));
        world.watches_traffic = true;
        assert_eq!((world.ike_sas(Who::Moon).len(), world.ike_sas(Who::Sun).len()), (2, 2), "seed {seed}");
        world.pass(seconds(30));
        world.assert_agreement(1);
    }
}

/// The other way: the peer deletes first.
#[test]
fn a_peer_that_breaks_before_it_makes_comes_back() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.uniqueness = Uniqueness::Replace;
        }
    });
    world.initiate(Who::Moon);
    world.terminate(Who::Moon, ike());
    world.initiate(Who::Moon);
    world.pass(seconds(30));
    world.assert_agreement(1);
}

#[test]
fn uniqueness_does_not_kill_an_sa_that_is_being_made_anew() {
    for uniqueness in [Uniqueness::Never, Uniqueness::No, Uniqueness::Replace, Uniqueness::Keep] {
        let mut world = World::with(|_, connection| connection.uniqueness = uniqueness);
        world.initiate(Who::Moon);
        let before = world.only_ike_sa(Who::Sun).id;
        let ticket = reauthenticate(&mut world, Who::Moon);
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1, "{uniqueness:?}");
        world.pass(seconds(30));
        world.assert_agreement(1);
        assert_ne!(world.only_ike_sa(Who::Sun).id, before);
    }
}

/// Moon sets up a second IKE SA of the same identities for the same connection of sun's.
fn second_sa(uniqueness: Uniqueness) -> World {
    let mut world = World::with(|who, connection| {
        connection.uniqueness = if who == Who::Sun { uniqueness } else { Uniqueness::No };
    });
    world.initiate(Who::Moon);
    let mut other = testbed::connection(Who::Moon);
    other.name = "other".into();
    world.command(Who::Moon, Command::SetConnection(Box::new(other)));
    let ticket = Ticket(99);
    let command = Command::Initiate { ticket, connection: Some("other".into()), child: None };
    world.command(Who::Moon, command);
    world.run();
    world
}

#[test]
fn how_many_ike_sas_of_the_same_identities_stay_is_as_configured() {
    for (uniqueness, stay) in [(Uniqueness::Never, 2), (Uniqueness::No, 2), (Uniqueness::Replace, 1)] {
        let mut world = second_sa(uniqueness);
        world.pass(seconds(5));
        assert_eq!(world.ike_sas(Who::Sun).len(), 2, "the peer may be about to delete the old one");
        world.pass(seconds(60));
        let left: Vec<String> = world.ike_sas(Who::Moon).into_iter().map(|sa| sa.connection).collect();
        assert_eq!((world.ike_sas(Who::Sun).len(), left.len()), (stay, stay), "{uniqueness:?}: {left:?}");
        assert!(left.contains(&"other".to_owned()));
    }
}

/// Sun's older and newer IKE SA of [`second_sa`], whose children share a policy.
fn older_and_newer(world: &mut World) -> [IkeSpi; 2] {
    let sas = world.ike_sas(Who::Sun);
    let mut spis: Vec<_> = sas.iter().map(|sa| (sa.id, sa.responder_spi)).collect();
    spis.sort_unstable();
    let [(_, older), (_, newer)] = spis.try_into().unwrap();
    [older, newer]
}

/// The one SA on which Sun sends, and that of its newer IKE SA.
fn sends_on_and_newest(world: &mut World) -> [EspSpi; 2] {
    let [_, newer] = older_and_newer(world);
    let sa = world.ike_sas(Who::Sun).into_iter().find(|sa| sa.responder_spi == newer).unwrap();
    let active: Vec<EspSpi> = world.sun.dataplane.active.values().copied().collect();
    let [active] = active.try_into().expect("one SA sends");
    [active, sa.children[0].spi_out.unwrap()]
}

/// What Sun does now, in order.
fn order_of_doings(world: &mut World) -> Vec<&'static str> {
    let outputs = std::iter::from_fn(|| world.sun.engine.poll_output());
    let told = outputs.filter_map(|output| match output {
        Output::Transmit { .. } => Some("tell the peer"),
        Output::Ask(_, Ask::Dataplane(DataplaneCommand::Activate { .. })) => Some("send on another"),
        Output::Keepalive(_) | Output::Ask(..) | Output::Notice(_) => None,
    });
    told.collect()
}

/// With the answer the peer forgets its halves at once, also for what is still under way.
#[test]
fn whose_ike_sa_is_deleted_sends_on_the_other_one_and_answers_a_moment_later() {
    let mut world = second_sa(Uniqueness::No);
    let [active, newest] = sends_on_and_newest(&mut world);
    assert_ne!(active, newest);
    world.network(|_| Fate::Hold);
    world.terminate(Who::Moon, ike());
    let request = world.seen.last().unwrap().clone();
    let path = IkePath { local: request.path.remote, remote: request.path.local };
    world.sun.engine.handle_datagram(world.now, path, &request.message);
    assert_eq!(order_of_doings(&mut world), ["send on another"]);
    world.sun.engine.handle_datagram(world.now, path, &request.message);
    assert!(order_of_doings(&mut world).is_empty(), "it waits");
    world.now += Duration::from_millis(50);
    world.sun.engine.handle_timeout(world.now);
    assert_eq!(order_of_doings(&mut world), ["tell the peer"]);
    assert_eq!(world.ike_sas(Who::Sun).len(), 1);
}

/// Somebody here wants it down, too, meanwhile.
#[test]
fn an_answer_that_waits_is_given_when_the_ike_sa_goes_sooner() {
    let mut world = second_sa(Uniqueness::No);
    let [older, _] = older_and_newer(&mut world);
    let older = world.ike_sas(Who::Sun).into_iter().find(|sa| sa.responder_spi == older).unwrap().id;
    world.terminate(Who::Moon, ike());
    assert_eq!(world.ike_sas(Who::Sun).len(), 2, "it waits");
    let target = Target::IkeSa(older);
    world.command(Who::Sun, Command::TerminateAtOnce { ticket: Ticket(100), target });
    world.run();
    assert_eq!((world.ike_sas(Who::Moon).len(), world.ike_sas(Who::Sun).len()), (1, 1));
    world.pass(seconds(10));
    world.assert_agreement(1);
}

/// The child of the old IKE SA is rekeyed late, and so it sends last.
#[test]
fn an_old_ike_sa_that_is_being_deleted_sends_no_more_although_no_answer_comes() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|datagram| {
        if datagram.is(ExchangeType::CreateChildSa, MessageKind::Response) { Fate::Hold } else { Fate::Deliver }
    });
    world.rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    reauthenticate(&mut world, Who::Moon);
    let new = world.ike_sas(Who::Moon).into_iter().max_by_key(|sa| sa.id).unwrap().children[0].spi_out.unwrap();
    // The first answer is about the child that was replaced.
    let mut answers = 0;
    world.release_but(move |datagram| {
        answers += usize::from(datagram.is(ExchangeType::Informational, MessageKind::Response));
        answers > 1
    });
    let active: Vec<EspSpi> = world.moon.dataplane.active.values().copied().collect();
    assert_eq!(active, [new]);
}

/// Nothing comes from the peer any more that would show where it receives.
#[test]
fn an_ike_sa_that_expires_leaves_sending_to_another_one() {
    let mut world = second_sa(Uniqueness::No);
    let ([older, _], soon) = (older_and_newer(&mut world), world.now + seconds(1));
    world.sun.engine.with_established(older, |sa, _| sa.expires_at = Some(soon));
    world.network(|_| Fate::Lose);
    world.pass(seconds(2));
    let [active, newest] = sends_on_and_newest(&mut world);
    assert_eq!(active, newest);
}

#[test]
fn a_child_that_both_ends_delete_at_once_leaves_sending_to_another_one() {
    let mut world = second_sa(Uniqueness::No);
    let ([older, _], now) = (older_and_newer(&mut world), world.now);
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Hold } else { Fate::Deliver });
    world.sun.engine.with_established(older, |sa, cx| {
        let child = *sa.children.keys().next().unwrap();
        sa.queue(cx, now, Queued::new(Task::DeleteChild { child, reason: DownReason::Command }));
    });
    world.run();
    world.terminate(Who::Moon, Target::Child { connection: Some("net-net".into()), child: "net".into() });
    let [active, newest] = sends_on_and_newest(&mut world);
    assert_eq!(active, newest);
    world.release();
    world.pass(seconds(10));
    let [active, newest] = sends_on_and_newest(&mut world);
    assert_eq!(active, newest);
}

#[test]
fn an_old_ike_sa_stays_if_the_newer_one_goes_first() {
    let mut world = second_sa(Uniqueness::Replace);
    world.pass(seconds(5));
    world.terminate(Who::Moon, Target::Connection("other".into()));
    world.pass(seconds(60));
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).connection, "net-net");
}

#[test]
fn where_the_oldest_stays_another_one_from_elsewhere_is_refused() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            (connection.uniqueness, connection.remote_addresses) = (Uniqueness::Keep, vec![RemoteAddress::Any]);
        }
    });
    world.initiate(Who::Moon);
    world.nat_in_front_of_moon(true);
    let mut again = testbed::connection(Who::Sun);
    (again.uniqueness, again.remote_addresses) = (Uniqueness::Keep, vec![RemoteAddress::Any]);
    world.command(Who::Sun, Command::SetConnection(Box::new(again)));
    let mut other = testbed::connection(Who::Moon);
    other.name = "other".into();
    world.command(Who::Moon, Command::SetConnection(Box::new(other)));
    let ticket = Ticket(99);
    world.command(Who::Moon, Command::Initiate { ticket, connection: Some("other".into()), child: None });
    world.run();
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::PeerNotUnique]);
    assert_eq!(world.ike_sas(Who::Sun).len(), 1);
}

/// The first connection that accepts the peer need not be the one with the child that it wants.
#[test]
fn the_oldest_stays_with_whichever_connection_its_child_is() {
    let mut world = World::new();
    world.set_nat(true);
    let mut with_second = testbed::connection(Who::Sun);
    two_children(Who::Sun, &mut with_second);
    with_second.children.remove(0);
    let with_net = Connection { name: "with-net".into(), ..testbed::connection(Who::Sun) };
    for mut connection in [with_second, with_net] {
        (connection.uniqueness, connection.remote_addresses) = (Uniqueness::Keep, vec![RemoteAddress::Any]);
        world.command(Who::Sun, Command::SetConnection(Box::new(connection)));
    }
    world.initiate(Who::Moon);
    assert_eq!(world.only_ike_sa(Who::Sun).connection, "with-net");
    world.set_nat(false);
    let other = Connection { name: "other".into(), ..testbed::connection(Who::Moon) };
    world.command(Who::Moon, Command::SetConnection(Box::new(other)));
    let ticket = world.initiate_of(Who::Moon, "other", None);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::PeerNotUnique]);
}

/// R7296-2.4-4.
#[test]
fn a_peer_that_has_forgotten_its_sa_costs_no_waiting() {
    for (uniqueness, stay) in
        [(Uniqueness::Never, 2), (Uniqueness::No, 1), (Uniqueness::Replace, 1), (Uniqueness::Keep, 1)]
    {
        let mut world = World::with(|_, connection| connection.uniqueness = uniqueness);
        world.initiate(Who::Moon);
        world.pass(seconds(1));
        world.crash_moon();
        world.initiate(Who::Moon);
        assert_eq!(world.ike_sas(Who::Sun).len(), stay, "{uniqueness:?}");
        assert_eq!(world.only_ike_sa(Who::Moon).children.len(), 1);
        let told = world.count(ExchangeType::Informational, MessageKind::Request);
        assert_eq!(told, 0, "nobody is there to be told");
    }
}

#[test]
fn a_child_that_is_not_configured_any_more_goes_with_the_old_sa() {
    let mut world = World::with(two_children);
    world.initiate(Who::Moon);
    world.assert_agreement(2);
    let mut connection = testbed::connection(Who::Moon);
    let children: Vec<Child> = connection.children.drain(..).filter(|child| child.name == "net").collect();
    connection.children = children;
    world.command(Who::Moon, Command::SetConnection(Box::new(connection)));
    reauthenticate(&mut world, Who::Moon);
    world.pass(seconds(10));
    world.assert_agreement(1);
}
