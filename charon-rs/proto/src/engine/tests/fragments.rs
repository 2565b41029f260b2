//! Messages in fragments (RFC 7383).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use espdp_api::IkePath;

use super::super::testbed::{Datagram, Fate, Side, Who, World};
use crate::config::{Connection, Fragmentation, UdpEncapsulation};
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Notice, Target, TimerKind};
use crate::wire::{ExchangeType, Fragment, Message, MessageKind};

/// What IPv4 and UDP put before a message.
const IPV4_AND_UDP: usize = 28;

/// Fragments so small that IKE_AUTH needs several of them.
const SMALL: u16 = 180;

fn small(_: Who, connection: &mut Connection) {
    // On the ports of plain IKE, where no marker takes four octets.
    connection.mobike = false;
    connection.fragment_size = SMALL;
}

fn fragment_of(datagram: &Datagram) -> Option<Fragment> {
    Message::parse(&datagram.message).unwrap().encrypted.and_then(|encrypted| encrypted.fragment)
}

fn fragments(world: &World, exchange: ExchangeType, kind: MessageKind) -> Vec<Datagram> {
    let all = world.seen.iter().filter(|datagram| datagram.is(exchange, kind));
    all.filter(|datagram| fragment_of(datagram).is_some()).cloned().collect()
}

fn has_fragments(world: &World) -> bool {
    world.seen.iter().any(|datagram| fragment_of(datagram).is_some())
}

/// Gives a datagram to the other end once more, and tells what that sends.
fn repeat(world: &mut World, datagram: &Datagram) -> Vec<Datagram> {
    let IkePath { local, remote } = datagram.path;
    let (now, before) = (world.now, world.seen.len());
    let path = IkePath { local: remote, remote: local };
    world.side(datagram.from.other()).engine.handle_datagram(now, path, &datagram.message);
    world.run();
    world.seen[before..].to_vec()
}

fn journal(side: &Side, is_sent: bool) -> Vec<String> {
    let traces =
        side.notices.iter().filter_map(|notice| if let Notice::Message(trace) = notice { Some(trace) } else { None });
    traces.filter(|trace| trace.sent == is_sent).map(|trace| trace.summary.clone()).collect()
}

#[test]
fn large_messages_go_in_fragments_that_fit_and_small_ones_and_ike_sa_init_as_they_are() {
    let mut world = World::with(small);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    for kind in [MessageKind::Request, MessageKind::Response] {
        let packets = fragments(&world, ExchangeType::IkeAuth, kind);
        assert_eq!(packets.len(), world.count(ExchangeType::IkeAuth, kind));
        assert!(packets.len() > 1);
        assert!(packets.iter().all(|packet| packet.message.len() + IPV4_AND_UDP <= usize::from(SMALL)));
        // All but the last are as long as they may be.
        let (_, full) = packets.split_last().unwrap();
        assert!(full.iter().all(|packet| packet.message.len() + IPV4_AND_UDP == usize::from(SMALL)));
        assert_eq!(world.count(ExchangeType::IkeSaInit, kind), 1);
        assert!(fragments(&world, ExchangeType::IkeSaInit, kind).is_empty());
    }
    let longest = world.seen.iter().map(|datagram| datagram.message.len()).max().unwrap();
    assert!(longest + IPV4_AND_UDP > usize::from(SMALL), "IKE_SA_INIT is longer, and nothing can be done about it");
    world.terminate(Who::Sun, Target::Connection("net-net".into()));
    assert!(fragments(&world, ExchangeType::Informational, MessageKind::Request).is_empty());
    world.assert_nothing_left();
}

#[test]
fn behind_a_nat_there_is_room_for_the_marker() {
    let mut world = World::with(|who, connection| {
        small(who, connection);
        connection.encapsulation = UdpEncapsulation::Force;
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let packets = fragments(&world, ExchangeType::IkeAuth, MessageKind::Request);
    assert_eq!(packets[0].path.local.port(), 4500);
    assert_eq!(packets[0].message.len() + IPV4_AND_UDP + 4, usize::from(SMALL));
}

#[test]
fn identities_of_two_kilobytes_pass_a_path_of_1280_octets() {
    let long = |who: Who| Identity::KeyId(vec![if who == Who::Moon { 1 } else { 2 }; 2000]);
    let mut world = World::with(|who, connection| {
        connection.local.identity = Some(long(who));
        connection.remote.identity = IdentityPattern::Exactly(long(who.other()));
    });
    world.network(|datagram| if datagram.message.len() + IPV4_AND_UDP > 1280 { Fate::Lose } else { Fate::Deliver });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert!(has_fragments(&world));
}

/// R7383-2.4-1.
#[test]
fn nobody_sends_fragments_unless_both_have_announced_them() {
    use Fragmentation::{Accept, Force, Never, Offer};
    for (moon, sun, by_moon, by_sun) in [
        (Offer, Offer, true, true),
        (Offer, Never, false, false),
        (Never, Offer, false, false),
        (Force, Never, false, false),
        (Accept, Offer, false, true),
        (Offer, Accept, true, false),
    ] {
        let mut world = World::with(|who, connection| {
            small(who, connection);
            connection.fragmentation = if who == Who::Moon { moon } else { sun };
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        let requests = fragments(&world, ExchangeType::IkeAuth, MessageKind::Request);
        let responses = fragments(&world, ExchangeType::IkeAuth, MessageKind::Response);
        assert_eq!((!requests.is_empty(), !responses.is_empty()), (by_moon, by_sun), "{moon:?} and {sun:?}");
    }
}

/// R7383-2.4-1: what was not agreed on is not understood.
#[test]
fn fragments_that_were_not_agreed_on_are_dropped() {
    let mut world = World::with(|who, connection| {
        let is_moon = who == Who::Moon;
        connection.fragmentation = if is_moon { Fragmentation::Force } else { Fragmentation::Never };
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    world.moon.engine.with_established(spi, |sa, _| sa.session.extensions.fragmentation = true);
    world.terminate(Who::Moon, Target::Connection("net-net".into()));
    assert_eq!(fragments(&world, ExchangeType::Informational, MessageKind::Request).len(), 1);
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Response), 0);
    assert_eq!(world.ike_sas(Who::Sun).len(), 1);
}

#[test]
fn force_fragments_even_what_is_small_also_after_the_ike_sa_was_replaced() {
    let mut world = World::with(|_, connection| connection.fragmentation = Fragmentation::Force);
    world.initiate(Who::Moon);
    world.rekey(Who::Sun, Target::Connection("net-net".into()));
    world.assert_agreement(1);
    let rekeyed = world.seen.len();
    world.terminate(Who::Moon, Target::Child { connection: None, child: "net".into() });
    assert!(world.seen.len() > rekeyed);
    for datagram in world.seen.iter().filter(|datagram| datagram.header().exchange != ExchangeType::IkeSaInit) {
        assert_eq!(fragment_of(datagram), Some(Fragment { number: 1, total: 1 }));
    }
}

/// R7296-2.1-2.
#[test]
fn what_is_sent_again_is_the_same_and_completes_what_came_before() {
    for lost in [MessageKind::Request, MessageKind::Response] {
        let mut world = World::with(small);
        let times = Rc::new(RefCell::new(0));
        let seen = times.clone();
        // Of the first transmission only the last fragment arrives, of the second one only the others do.
        world.network(move |datagram| {
            let Some(Fragment { number, total }) = fragment_of(datagram).filter(|_| datagram.header().kind == lost)
            else {
                return Fate::Deliver;
            };
            let is_last = number == total;
            let first_time = *seen.borrow() == 0;
            *seen.borrow_mut() += usize::from(is_last);
            if is_last == first_time { Fate::Deliver } else { Fate::Lose }
        });
        world.initiate(Who::Moon);
        assert!(world.ike_sas(Who::Moon).iter().all(|sa| sa.established.is_none()));
        world.pass(Duration::from_secs(3));
        world.assert_agreement(1);
        assert_eq!(*times.borrow(), 2);
        let packets: Vec<Vec<u8>> =
            fragments(&world, ExchangeType::IkeAuth, lost).into_iter().map(|datagram| datagram.message).collect();
        let (first, second) = packets.split_at(packets.len() / 2);
        assert_eq!(first, second, "{lost:?}");
    }
}

/// R7383-2.6.1-1.
#[test]
fn only_the_first_fragment_of_a_repeated_request_is_answered_again() {
    let mut world = World::with(small);
    world.initiate(Who::Moon);
    let requests = fragments(&world, ExchangeType::IkeAuth, MessageKind::Request);
    let answer: Vec<Vec<u8>> =
        fragments(&world, ExchangeType::IkeAuth, MessageKind::Response).into_iter().map(|sent| sent.message).collect();
    for request in requests {
        let is_first = fragment_of(&request).unwrap().number == 1;
        let mut forged = request.clone();
        *forged.message.last_mut().unwrap() ^= 1;
        assert!(repeat(&mut world, &forged).is_empty());
        let again: Vec<Vec<u8>> = repeat(&mut world, &request).into_iter().map(|sent| sent.message).collect();
        assert_eq!(again, if is_first { answer.clone() } else { Vec::new() });
    }
    world.assert_agreement(1);
}

/// R7383-2.6.1-1, before anybody is authenticated.
#[test]
fn a_refusal_too_is_repeated_for_the_first_fragment_only() {
    let mut world = World::with(small);
    world.command(Who::Sun, crate::io::Command::SetSecret(super::super::testbed::secret("psk", &[], b"other")));
    world.network(
        |datagram| {
            if datagram.is(ExchangeType::IkeAuth, MessageKind::Response) { Fate::Lose } else { Fate::Deliver }
        },
    );
    world.initiate(Who::Moon);
    for request in fragments(&world, ExchangeType::IkeAuth, MessageKind::Request) {
        let is_first = fragment_of(&request).unwrap().number == 1;
        assert_eq!(repeat(&mut world, &request).len(), usize::from(is_first));
    }
}

#[test]
fn an_incomplete_request_is_forgotten_after_a_while() {
    let mut world = World::with(small);
    world.initiate(Who::Moon);
    let spi = *world.sun.engine.sas.keys().next().unwrap();
    world.network(|datagram| {
        let is_second = fragment_of(datagram).is_some_and(|fragment| fragment.number == 2);
        if is_second { Fate::Lose } else { Fate::Deliver }
    });
    world.begin_rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    world.run();
    assert!(!fragments(&world, ExchangeType::CreateChildSa, MessageKind::Request).is_empty());
    let (due, kind) = world.sun.engine.poll_timeout().unwrap();
    assert_eq!(kind, TimerKind::Reassembly);
    assert!(due > world.now + Duration::from_secs(30), "what a repetition brings must find the rest");
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(91));
    assert_eq!(world.sun.engine.poll_timeout(), None);
    world.sun.engine.with_established(spi, |sa, _| assert_eq!(sa.session.inbox.deadline(), None));
}

#[test]
fn a_whole_message_takes_the_place_of_its_fragments() {
    let mut world = World::with(small);
    world.initiate(Who::Moon);
    world.network(|datagram| {
        let is_second = fragment_of(datagram).is_some_and(|fragment| fragment.number == 2);
        if is_second { Fate::Lose } else { Fate::Deliver }
    });
    world.begin_rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    world.run();
    world.moon.engine.with_established(*world.moon.engine.sas.keys().next().unwrap(), |sa, cx| {
        // The peer was about to send the request again; it does so in one piece.
        let now = sa.last_heard;
        sa.session.extensions.fragmentation = false;
        let what = (ExchangeType::Informational, MessageKind::Request, sa.ours.outstanding_id().unwrap());
        let path = sa.session.path;
        let packets = sa.session.seal(cx, what, path, &[]).unwrap();
        sa.session.send(cx, now, path, packets);
    });
    world.run();
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Response), 1);
    assert_eq!(world.sun.engine.poll_timeout(), None, "nothing is kept");
}

#[test]
fn the_journal_shows_messages_as_a_whole_and_each_fragment_that_arrives() {
    let mut world = World::with(small);
    world.initiate(Who::Moon);
    let total = fragments(&world, ExchangeType::IkeAuth, MessageKind::Request).len();
    let whole = "IKE_AUTH request 1 [ IDi IDr AUTH N(INIT_CONTACT) N(MULT_AUTH) SA TSi TSr ]";
    let sent = journal(&world.moon, true);
    assert_eq!(sent[1], format!("{whole} in {total} fragments"));
    let received = journal(&world.sun, false);
    assert_eq!(received[1], format!("IKE_AUTH request 1 [ SKF(1/{total}) ]"));
    assert_eq!(received[total], sent[1], "the last fragment shows the message");
    assert_eq!(received.len(), 1 + total);
}
