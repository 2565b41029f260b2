//! Additional key exchanges: in IKE_INTERMEDIATE before an SA is up, in IKE_FOLLOWUP_KE afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::IkeSa;
use super::super::testbed::{Datagram, Fate, Who, World};
use crate::Settings;
use crate::config::{Connection, Fragmentation};
use crate::io::{FailureCode, IkeKeyExport, Notice, Target};
use crate::proposal::KeyExchangeGroup;
use crate::wire::{ExchangeType, KeyExchange, MessageKind, Notify, NotifyType, Payload};

const HYBRID: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
const THREE: &str = "aes128-sha256-x25519-ke1_mlkem512-ke3_ecp256-ke7_mlkem1024";

fn offers(connection: &mut Connection, ike: &str) {
    connection.ike_proposals = crate::proposal::parse_ike_list(ike).unwrap();
}

fn both(ike: &'static str) -> World {
    World::with(move |_, connection| offers(connection, ike))
}

/// With PFS, and key exchanges after it, for children.
fn with_hybrid_children() -> World {
    World::with(|_, connection| {
        offers(connection, HYBRID);
        connection.children[0].esp_proposals = vec!["aes256gcm16-x25519-ke1_mlkem768-ke2_ecp384".parse().unwrap()];
    })
}

fn child() -> Target {
    Target::Child { connection: None, child: "net".into() }
}

fn ike() -> Target {
    Target::Connection("net-net".into())
}

fn rounds(world: &mut World, who: Who) -> Vec<(u8, KeyExchangeGroup)> {
    let suite = world.only_ike_sa(who).proposal.unwrap();
    suite.additional.rounds().map(|(round, group)| (round.number(), group)).collect()
}

fn child_rounds(world: &mut World, who: Who) -> usize {
    world.only_ike_sa(who).children.last().unwrap().additional.rounds().count()
}

/// Loses every datagram the first time.
fn lossy() -> impl FnMut(&Datagram) -> Fate {
    let mut seen = BTreeMap::new();
    move |datagram| {
        let times: &mut u32 = seen.entry(datagram.message.clone()).or_default();
        *times += 1;
        if *times == 1 { Fate::Lose } else { Fate::Deliver }
    }
}

fn only(exchange: ExchangeType, kind: MessageKind, fate: Fate) -> impl FnMut(&Datagram) -> Fate {
    move |datagram| if datagram.is(exchange, kind) { fate.clone() } else { Fate::Deliver }
}

#[test]
fn an_additional_key_exchange_is_done_before_ike_auth() {
    let mut world = both(HYBRID);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    for who in [Who::Moon, Who::Sun] {
        assert_eq!(rounds(&mut world, who), [(1, KeyExchangeGroup::MlKem768)]);
    }
    assert!(world.count(ExchangeType::IkeIntermediate, MessageKind::Request) > 0);
    world.assert_traffic_flows(1);
}

/// R9242-3.2-1.
#[test]
fn several_are_done_one_after_the_other_and_numbered_on() {
    let mut world = both(THREE);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let of = |kind| {
        let is_ours = |datagram: &&Datagram| datagram.header().kind == kind;
        let numbers = world.seen.iter().filter(is_ours).map(|its| (its.header().exchange, its.header().message_id));
        // Large ones are in fragments.
        let mut numbers: Vec<_> = numbers.collect();
        numbers.dedup();
        numbers
    };
    use ExchangeType::{IkeAuth, IkeIntermediate, IkeSaInit};
    let expected: Vec<_> =
        vec![(IkeSaInit, 0), (IkeIntermediate, 1), (IkeIntermediate, 2), (IkeIntermediate, 3), (IkeAuth, 4)];
    assert_eq!((of(MessageKind::Request), of(MessageKind::Response)), (expected.clone(), expected));
    let chosen = [KeyExchangeGroup::MlKem512, KeyExchangeGroup::Ecp256, KeyExchangeGroup::MlKem1024];
    assert_eq!(rounds(&mut world, Who::Sun), [(1, chosen[0]), (3, chosen[1]), (7, chosen[2])]);
}

/// R9242-3.3.2-1: what IKE_AUTH proves does not depend on how the messages travelled.
#[test]
fn fragments_and_lost_messages_change_nothing() {
    for ike in [HYBRID, THREE] {
        for fragmentation in [Fragmentation::Offer, Fragmentation::Force, Fragmentation::Never] {
            let mut world = World::with(move |_, connection| {
                offers(connection, ike);
                (connection.fragmentation, connection.fragment_size) = (fragmentation, 576);
                connection.retransmission.first = Duration::from_millis(500);
            });
            world.network(lossy());
            world.initiate(Who::Moon);
            world.pass(Duration::from_secs(25));
            world.assert_agreement(1);
            world.assert_traffic_flows(1);
        }
    }
}

/// The answer under the keys before is repeated, also when the keys have changed meanwhile.
#[test]
fn a_lost_answer_is_sent_again_although_the_keys_have_changed() {
    let mut world = both(THREE);
    let mut left = 3;
    world.network(move |datagram| {
        let lost = datagram.is(ExchangeType::IkeIntermediate, MessageKind::Response) && left > 0;
        left -= i32::from(lost);
        if lost { Fate::Lose } else { Fate::Deliver }
    });
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(25));
    world.assert_agreement(1);
}

#[test]
fn peers_without_take_a_proposal_without() {
    for (moon, sun) in [("", HYBRID), (HYBRID, "")] {
        let mut world = World::with(move |who, connection| {
            let hybrid = if who == Who::Moon { moon } else { sun };
            let plain = "aes256gcm16-prfsha256-x25519";
            offers(connection, &if hybrid.is_empty() { plain.to_owned() } else { format!("{hybrid},{plain}") });
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        assert_eq!(rounds(&mut world, Who::Moon), []);
        assert_eq!(world.count(ExchangeType::IkeIntermediate, MessageKind::Request), 0);
    }
}

/// RFC 9370 §2.2.1: who does not announce IKE_INTERMEDIATE gets none, whatever its proposals say.
#[test]
fn without_the_announcement_there_are_no_additional_key_exchanges() {
    for (kind, works) in [(MessageKind::Request, true), (MessageKind::Response, false)] {
        let mut world = both("aes256gcm16-prfsha256-x25519-ke1_mlkem768,aes256gcm16-prfsha256-x25519");
        world.network(move |datagram| {
            let mut message = datagram.message.clone();
            let announced = message.windows(2).position(|octets| octets == 16438u16.to_be_bytes());
            match announced.filter(|_| datagram.is(ExchangeType::IkeSaInit, kind)) {
                Some(at) => {
                    // A status that nobody has assigned.
                    message[at..at + 2].copy_from_slice(&40_000u16.to_be_bytes());
                    Fate::Replace(message)
                }
                None => Fate::Deliver,
            }
        });
        world.initiate(Who::Moon);
        // What somebody on the way took out is missed in IKE_AUTH at the latest.
        assert_eq!(world.count(ExchangeType::IkeIntermediate, MessageKind::Request), 0);
        assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request) > 0, works);
        assert!(world.ike_sas(Who::Moon).iter().all(|sa| sa.established.is_none()));
    }
}

#[test]
fn peers_that_insist_on_different_ones_do_not_agree() {
    let mut world = World::with(|who, connection| {
        offers(connection, if who == Who::Moon { HYBRID } else { "aes256gcm16-prfsha256-x25519-ke1_mlkem1024" });
    });
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::IkeNoProposal]);
    let failure = world.failure_reports(Who::Sun).remove(0);
    assert!(failure.what.contains("KE1_ML_KEM_768"), "{}", failure.what);
    assert!(failure.hint.unwrap().contains("x25519-ke1_mlkem768"));
}

#[test]
fn the_exported_keys_are_the_last_ones() {
    let mut world = World::bare(&Settings { export_keys: true, ..Settings::default() });
    world.configure(|_, connection| offers(connection, THREE));
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let exported = |world: &mut World, who| -> Vec<IkeKeyExport> {
        let keys = |notice: &Notice| if let Notice::IkeKeys(keys) = notice { Some((**keys).clone()) } else { None };
        world.side(who).notices.iter().filter_map(keys).collect()
    };
    let (moon, sun) = (exported(&mut world, Who::Moon), exported(&mut world, Who::Sun));
    assert_eq!((moon.len(), sun.len()), (1, 1));
    assert_eq!(moon[0].sk_ei.expose(), sun[0].sk_ei.expose());
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    let established = world.moon.engine.sas[&spi].established().unwrap();
    assert_eq!(moon[0].sk_ei.expose(), established.session.keys.sk_ei.expose());
}

/// Has moon send what no engine would send instead of its IKE_INTERMEDIATE request, with the right keys.
fn send_instead(world: &mut World, exchange: ExchangeType, message_id: u32, payloads: &[Payload]) {
    world.network(only(ExchangeType::IkeIntermediate, MessageKind::Request, Fate::Lose));
    world.initiate(Who::Moon);
    world.repair_network();
    let (now, spi) = (world.now, *world.moon.engine.sas.keys().next().unwrap());
    world.moon.engine.with_sa(spi, |mut sa, cx| {
        let IkeSa::Intermediate(intermediate) = &mut sa else { panic!("moon waits for a response") };
        let session = &mut intermediate.keyed.session;
        let (what, path) = ((exchange, MessageKind::Request, message_id), session.path);
        let packets = session.seal(cx, what, path, payloads).unwrap();
        session.send(cx, now, path, packets);
        Some(sa)
    });
    world.run();
}

fn key_exchange(group: KeyExchangeGroup, octets: usize) -> Payload {
    Payload::KeyExchange(KeyExchange { group: group as u16, data: vec![1; octets] })
}

fn responses(world: &World) -> usize {
    world.seen.iter().filter(|its| its.from == Who::Sun && its.header().exchange != ExchangeType::IkeSaInit).count()
}

/// ke_wrong_len, in IKE_INTERMEDIATE: also values of another method, and none.
#[test]
fn a_bad_public_value_ends_what_was_begun() {
    let wrong = [
        vec![key_exchange(KeyExchangeGroup::MlKem768, 1183)],
        vec![key_exchange(KeyExchangeGroup::MlKem768, 0)],
        // Above the modulus.
        vec![Payload::KeyExchange(KeyExchange { group: 36, data: vec![0xff; 1184] })],
        vec![key_exchange(KeyExchangeGroup::MlKem1024, 1568)],
        vec![key_exchange(KeyExchangeGroup::Curve25519, 32)],
        Vec::new(),
        vec![key_exchange(KeyExchangeGroup::MlKem768, 1184), key_exchange(KeyExchangeGroup::MlKem768, 1184)],
    ];
    for payloads in wrong {
        let mut world = both(HYBRID);
        send_instead(&mut world, ExchangeType::IkeIntermediate, 1, &payloads);
        assert_eq!(world.failures(Who::Sun), [FailureCode::PeerMisbehaved]);
        assert_eq!(responses(&world), 1);
        // Moon was told, and gives up.
        assert_eq!(world.failures(Who::Moon), [FailureCode::PeerRefused]);
        world.pass(Duration::from_secs(60));
        world.assert_nothing_left();
    }
}

/// R9242-3.2-1, R7296-1-1: before the key exchanges that were agreed on, there is neither IKE_AUTH nor anything else.
#[test]
fn nothing_else_is_heard_before_the_last_key_exchange() {
    let cases = [
        (ExchangeType::IkeAuth, 1),
        (ExchangeType::IkeIntermediate, 2),
        (ExchangeType::IkeIntermediate, 0),
        (ExchangeType::IkeFollowupKe, 1),
        (ExchangeType::CreateChildSa, 1),
        (ExchangeType::Informational, 1),
    ];
    for (exchange, message_id) in cases {
        let mut world = both(HYBRID);
        send_instead(&mut world, exchange, message_id, &[key_exchange(KeyExchangeGroup::Ecp256, 64)]);
        assert_eq!((responses(&world), world.failures(Who::Sun)), (0, vec![]), "{exchange:?} {message_id}");
        // The right request still counts.
        world.pass(Duration::from_secs(10));
        world.assert_agreement(1);
    }
}

/// R9242-5-1: no more than were agreed on.
#[test]
fn an_exchange_too_many_is_not_heard() {
    let mut world = both(HYBRID);
    world.network(only(ExchangeType::IkeAuth, MessageKind::Request, Fate::Hold));
    world.initiate(Who::Moon);
    let (now, spi) = (world.now, *world.moon.engine.sas.keys().next().unwrap());
    let before = responses(&world);
    world.moon.engine.with_sa(spi, |mut sa, cx| {
        let IkeSa::InitiatorAuth(auth) = &mut sa else { panic!("moon waits for a response") };
        let session = &mut auth.handshake.session;
        let (what, path) = ((ExchangeType::IkeIntermediate, MessageKind::Request, 2), session.path);
        let payloads = [key_exchange(KeyExchangeGroup::Ecp256, 64)];
        let packets = session.seal(cx, what, path, &payloads).unwrap();
        session.send(cx, now, path, packets);
        Some(sa)
    });
    world.run();
    assert_eq!(responses(&world), before);
    world.release();
    world.assert_agreement(1);
}

/// RFC 9242 §3.3.2: an exchange that somebody changed is noticed in IKE_AUTH.
#[test]
fn ike_auth_proves_what_was_exchanged_before() {
    let mut world = both(HYBRID);
    world.network(only(ExchangeType::IkeAuth, MessageKind::Request, Fate::Hold));
    world.initiate(Who::Moon);
    let spi = *world.sun.engine.sas.keys().next().unwrap();
    world.sun.engine.with_sa(spi, |mut sa, _| {
        let IkeSa::HalfOpen(half_open) = &mut sa else { panic!("sun waits for IKE_AUTH") };
        assert!(!half_open.transcript.intermediate.octets().is_empty());
        half_open.transcript.intermediate = super::super::intermediate::IntAuth::default();
        Some(sa)
    });
    world.release();
    assert_eq!(world.failures(Who::Sun), [FailureCode::AuthPskMismatch]);
}

#[test]
fn a_peer_that_falls_silent_meanwhile_is_given_up() {
    let mut world = both(HYBRID);
    world.network(only(ExchangeType::IkeIntermediate, MessageKind::Response, Fate::Lose));
    let ticket = world.initiate(Who::Moon);
    world.pass(Duration::from_secs(120));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::LargeMessageLost]);
    world.assert_nothing_left();
}

#[test]
fn an_attempt_can_be_stopped_between_two_exchanges() {
    let mut world = both(HYBRID);
    world.network(only(ExchangeType::IkeIntermediate, MessageKind::Request, Fate::Lose));
    let ticket = world.initiate(Who::Moon);
    world.terminate(Who::Moon, ike());
    assert!(world.settled(Who::Moon, ticket).is_err());
    world.pass(Duration::from_secs(60));
    world.assert_nothing_left();
}

#[test]
fn either_end_replaces_a_child_with_more_key_exchanges() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = with_hybrid_children();
        world.initiate(Who::Moon);
        assert_eq!(child_rounds(&mut world, who), 0, "the first child has the keys of IKE_SA_INIT");
        let ticket = world.rekey(who, child());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        assert_eq!(world.count(ExchangeType::IkeFollowupKe, MessageKind::Response), 2);
        assert_eq!(child_rounds(&mut world, who), 2);
        world.pass(Duration::from_secs(6));
        world.assert_agreement(1);
        world.assert_traffic_flows(1);
    }
}

#[test]
fn either_end_replaces_the_ike_sa_with_more_key_exchanges() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = both(THREE);
        world.initiate(Who::Moon);
        let before = world.only_ike_sa(who).initiator_spi;
        let ticket = world.rekey(who, ike());
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        // The last of them is in two fragments.
        assert_eq!(world.count(ExchangeType::IkeFollowupKe, MessageKind::Response), 4);
        assert_ne!(world.only_ike_sa(who).initiator_spi, before);
        assert_eq!(rounds(&mut world, who).len(), 3);
        world.pass(Duration::from_secs(6));
        world.assert_agreement(1);
        // The new one can be used.
        world.rekey(who.other(), child());
        world.pass(Duration::from_secs(6));
        world.assert_agreement(1);
    }
}

#[test]
fn what_the_peer_leaves_unfinished_is_forgotten() {
    for target in [child(), ike()] {
        let mut world = with_hybrid_children();
        world.initiate(Who::Moon);
        world.network(only(ExchangeType::IkeFollowupKe, MessageKind::Request, Fate::Hold));
        world.rekey(Who::Moon, target);
        let spi = *world.sun.engine.sas.keys().next().unwrap();
        let unfinished = |world: &World| world.sun.engine.sas[&spi].established().unwrap().unfinished.is_some();
        assert!(unfinished(&world));
        // Moon has been silent, and what it held comes when sun knows nothing of it any more.
        let later = world.now + Settings::default().half_open_timeout;
        world.sun.engine.handle_timeout(later);
        assert!(!unfinished(&world));
        world.release();
        assert_eq!(world.count(ExchangeType::IkeFollowupKe, MessageKind::Response), 1);
        // It begins anew after a while.
        world.pass(Duration::from_secs(60));
        world.assert_agreement(1);
        assert!(world.sun.dataplane.reserved.is_empty() && world.moon.dataplane.reserved.is_empty());
    }
}

#[test]
fn a_followup_to_nothing_is_answered_and_harms_nothing() {
    let mut world = with_hybrid_children();
    world.initiate(Who::Moon);
    let (now, spi) = (world.now, *world.moon.engine.sas.keys().next().unwrap());
    for link in [Some(vec![7; 8]), Some(Vec::new()), None] {
        let notify = link.map(|link| Payload::Notify(Notify::with_data(NotifyType::AdditionalKeyExchange, link)));
        let payloads: Vec<_> = [key_exchange(KeyExchangeGroup::MlKem768, 1184)].into_iter().chain(notify).collect();
        world.moon.engine.with_established(spi, |sa, cx| {
            sa.request(cx, now, ExchangeType::IkeFollowupKe, &payloads).unwrap();
        });
        world.run();
    }
    assert_eq!(world.count(ExchangeType::IkeFollowupKe, MessageKind::Response), 3);
    world.assert_agreement(1);
}

#[test]
fn rekeyings_that_meet_leave_one_child_and_one_ike_sa() {
    for target in [child(), ike()] {
        // Which of the messages is late decides which end notices first that two rekeyings met.
        for late in 0..12 {
            let mut world = with_hybrid_children();
            world.initiate(Who::Moon);
            let mut number = 0;
            world.network(move |_| {
                number += 1;
                if number == late { Fate::Late(vec![Duration::from_millis(700)]) } else { Fate::Deliver }
            });
            world.begin_rekey(Who::Moon, target.clone());
            world.rekey(Who::Sun, target.clone());
            world.pass(Duration::from_secs(90));
            world.assert_agreement(1);
            world.assert_traffic_flows(1);
            for who in [Who::Moon, Who::Sun] {
                let dataplane = &world.side(who).dataplane;
                assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (1, 1), "{who:?} {late}");
                assert!(dataplane.reserved.is_empty());
            }
        }
    }
}

#[test]
fn rekeyings_survive_loss() {
    let mut world = with_hybrid_children();
    world.initiate(Who::Moon);
    world.network(lossy());
    for (who, target) in [(Who::Moon, child()), (Who::Sun, ike()), (Who::Sun, child()), (Who::Moon, ike())] {
        let ticket = world.rekey(who, target);
        // Until the answer to the last Delete is given up.
        world.pass(Duration::from_secs(120));
        assert_eq!(world.settled(who, ticket).unwrap().done, 1);
        world.assert_agreement(1);
    }
    world.assert_traffic_flows(1);
}
