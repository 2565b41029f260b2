//! Several requests of the peer at a time (RFC 7296 §2.3). Our own engine never sends them, so here moon does by hand.

use super::super::testbed::{Datagram, Fate, Who, World, net};
use crate::Settings;
use crate::io::{IkeSpi, Notice, Target};
use crate::proposal::{EspProposal, esp_offer};
use crate::wire::{ExchangeType, MessageKind, Payload};

/// Two gateways that allow each other `size` requests at a time, with moon's SA. Moon's next request has the number 2.
fn world(size: u32) -> (World, IkeSpi) {
    let mut world = World::bare(&Settings { window_size: size, ..Settings::default() });
    world.configure(|_, _| {});
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    world.seen.clear();
    (world, spi)
}

/// Sends a request with a number of its own from moon.
fn request(world: &mut World, spi: IkeSpi, (message_id, exchange): (u32, ExchangeType), payloads: &[Payload]) {
    let now = world.now;
    world.moon.engine.with_established(spi, |sa, cx| {
        let path = sa.session.path;
        let packets = sa.session.seal(cx, (exchange, MessageKind::Request, message_id), path, payloads).unwrap();
        sa.session.send(cx, now, path, packets);
    });
    world.run();
}

fn probe(world: &mut World, spi: IkeSpi, message_id: u32) {
    request(world, spi, (message_id, ExchangeType::Informational), &[]);
}

fn create_child(world: &mut World, spi: IkeSpi, message_id: u32) {
    let offered = espdp_api::EspSpi::try_from(0x7000_0000 + message_id).unwrap();
    let offer = "aes256gcm16".parse::<EspProposal>().unwrap();
    let payloads = [
        Payload::SecurityAssociation(esp_offer(&[offer], offered)),
        Payload::Nonce(vec![1; 32]),
        Payload::SelectorsInitiator(vec![net("10.1.0.0", "10.1.255.255")]),
        Payload::SelectorsResponder(vec![net("10.2.0.0", "10.2.255.255")]),
    ];
    request(world, spi, (message_id, ExchangeType::CreateChildSa), &payloads);
}

/// The numbers of sun's responses, in order.
fn answered(world: &World) -> Vec<u32> {
    let of_sun = world.seen.iter().filter(|datagram| datagram.from == Who::Sun).map(Datagram::header);
    of_sun.filter(|header| header.kind == MessageKind::Response).map(|header| header.message_id).collect()
}

/// Messages of ours in which we say how many requests we take.
fn announcements(world: &mut World, who: Who) -> Vec<String> {
    let traces = world.side(who).notices.iter();
    let traces = traces.filter_map(|notice| if let Notice::Message(trace) = notice { Some(trace) } else { None });
    let ours = traces.filter(|trace| trace.sent && trace.summary.contains("N(SET_WINSIZE)"));
    ours.map(|trace| trace.summary.split(" [").next().unwrap().to_owned()).collect()
}

#[test]
fn each_end_says_how_many_requests_it_takes_and_again_when_the_ike_sa_is_replaced() {
    let (mut world, _) = world(4);
    world.rekey(Who::Sun, Target::Connection("net-net".into()));
    assert_eq!(announcements(&mut world, Who::Moon), ["IKE_AUTH request 1", "CREATE_CHILD_SA response 0"]);
    assert_eq!(announcements(&mut world, Who::Sun), ["IKE_AUTH response 1", "CREATE_CHILD_SA request 0"]);
    let (mut world, _) = self::world(1);
    world.rekey(Who::Sun, Target::Connection("net-net".into()));
    assert!(announcements(&mut world, Who::Moon).is_empty() && announcements(&mut world, Who::Sun).is_empty());
}

#[test]
fn a_peer_that_was_told_of_no_window_gets_one_answer_at_a_time() {
    // R7296-2.3-3: nor is it told so.
    let (mut world, spi) = world(1);
    probe(&mut world, spi, 3);
    assert!(answered(&world).is_empty());
    for message_id in [2, 3] {
        probe(&mut world, spi, message_id);
    }
    assert_eq!(answered(&world), [2, 3]);
}

#[test]
fn requests_within_the_window_are_answered_in_the_order_in_which_they_come() {
    let (mut world, spi) = world(4);
    for message_id in [5, 6, 3, 2] {
        probe(&mut world, spi, message_id);
    }
    assert_eq!(answered(&world), [5, 3, 2], "6 is too far ahead");
    world.seen.clear();
    for message_id in [2, 3, 5, 4, 1] {
        probe(&mut world, spi, message_id);
    }
    assert_eq!(answered(&world), [2, 3, 5, 4], "repetitions get the same again, as long as they may come");
}

/// A request may be repeated as long as one of those that came before it has no response.
#[test]
fn repeated_requests_get_the_same_octets_whatever_came_since() {
    let (mut world, spi) = world(4);
    for message_id in [3, 4, 5] {
        probe(&mut world, spi, message_id);
    }
    let first: Vec<Vec<u8>> = sent_by_sun(&world);
    for message_id in [5, 4, 3] {
        probe(&mut world, spi, message_id);
    }
    let mut again = sent_by_sun(&world).split_off(3);
    again.reverse();
    assert_eq!(first, again);
}

fn sent_by_sun(world: &World) -> Vec<Vec<u8>> {
    world.seen.iter().filter(|datagram| datagram.from == Who::Sun).map(|datagram| datagram.message.clone()).collect()
}

#[test]
fn children_wait_for_each_other_and_nothing_else_waits_for_them() {
    let (mut world, spi) = world(4);
    world.sun.is_slow = true;
    // Moon did not ask for any of it.
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Lose } else { Fate::Deliver });
    for message_id in [3, 2] {
        create_child(&mut world, spi, message_id);
    }
    for message_id in [3, 2] {
        create_child(&mut world, spi, message_id);
    }
    probe(&mut world, spi, 4);
    assert_eq!(answered(&world), [4]);
    world.catch_up(Who::Sun);
    assert_eq!(answered(&world), [4, 3, 2]);
    assert_eq!(world.only_ike_sa(Who::Sun).children.len(), 3);
}

#[test]
fn what_still_waits_ends_with_the_ike_sa() {
    let (mut world, spi) = world(4);
    world.sun.is_slow = true;
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Lose } else { Fate::Deliver });
    for message_id in [2, 3] {
        create_child(&mut world, spi, message_id);
    }
    let delete = Payload::Delete(crate::wire::Delete::IkeSa);
    request(&mut world, spi, (4, ExchangeType::Informational), &[delete]);
    assert_eq!(answered(&world), [4]);
    world.catch_up(Who::Sun);
    assert!(world.ike_sas(Who::Sun).is_empty());
    assert!(world.sun.dataplane.inbound.is_empty() && world.sun.dataplane.reserved.is_empty());
}
