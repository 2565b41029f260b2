//! Messages that nobody should send.

use std::time::Duration;

use espdp_api::{Direction, IkePath};

use super::super::testbed::{Fate, Who, World, secret};
use crate::Settings;
use crate::config::{Dpd, DpdAction};
use crate::io::{Command, FailureCode, IkeSpi, Notice};
use crate::wire::{ExchangeType, Header, Message, MessageKind, Notify, NotifyType, Payload, Role, encode_message};

fn path_to(who: Who) -> IkePath {
    IkePath { local: (who.address(), 500).into(), remote: (who.other().address(), 500).into() }
}

fn inject(world: &mut World, to: Who, message: &[u8]) -> Vec<Message> {
    let (now, before) = (world.now, world.seen.len());
    world.side(to).engine.handle_datagram(now, path_to(to), message);
    world.network(|_| Fate::Lose);
    world.run();
    world.repair_network();
    world.seen.drain(before..).map(|datagram| Message::parse(&datagram.message).unwrap()).collect()
}

fn header(exchange: ExchangeType, kind: MessageKind) -> Header {
    Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange,
        sender: Role::OriginalInitiator,
        kind,
        message_id: 7,
    }
}

/// R7296-3.1-3.
#[test]
fn a_request_for_an_unknown_sa_is_told_so_and_a_response_nothing() {
    let mut world = World::new();
    let request = header(ExchangeType::Informational, MessageKind::Request);
    let answers = inject(&mut world, Who::Sun, &encode_message(&request, &[]).unwrap());
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].payloads, [Payload::Notify(Notify::new(NotifyType::InvalidIkeSpi))]);
    assert_eq!(answers[0].header.message_id, 7);
    assert_eq!(answers[0].header.kind, MessageKind::Response);
    let response = header(ExchangeType::Informational, MessageKind::Response);
    assert!(inject(&mut world, Who::Sun, &encode_message(&response, &[]).unwrap()).is_empty());
}

#[test]
fn strangers_do_not_make_us_send_without_limit() {
    let mut world = World::new();
    let request = encode_message(&header(ExchangeType::Informational, MessageKind::Request), &[]).unwrap();
    let answers: usize = (0..1000).map(|_| inject(&mut world, Who::Sun, &request).len()).sum();
    assert_eq!(answers, 50);
}

#[test]
fn a_flood_from_strangers_does_not_keep_others_from_learning_our_group() {
    let mut world = World::with(|who, connection| {
        let groups = if who == Who::Moon { "x25519-ecp256" } else { "ecp256" };
        connection.ike_proposals = vec![format!("aes256gcm16-prfsha256-{groups}").parse().unwrap()];
    });
    let request = encode_message(&header(ExchangeType::Informational, MessageKind::Request), &[]).unwrap();
    for _ in 0..100 {
        inject(&mut world, Who::Sun, &request);
    }
    world.initiate(Who::Moon);
    world.assert_agreement(1);
}

#[test]
fn a_failed_proof_costs_no_more_with_many_secrets() {
    let failure = |secrets: usize, owners: &[&str]| {
        let mut world = World::new();
        world.command(Who::Sun, Command::SetSecret(secret("psk", owners, b"another")));
        for number in 0..secrets {
            let key = if number + 1 == secrets { b"Vpp123".as_slice() } else { b"wrong" };
            world.command(Who::Sun, Command::SetSecret(secret(&format!("s{number:03}"), &["venus", "mars"], key)));
        }
        world.initiate(Who::Moon);
        let failures = world.sun.notices.iter();
        let mut failures =
            failures.filter_map(|notice| if let Notice::Failure(failure) = notice { Some(failure) } else { None });
        failures.next().unwrap().clone()
    };
    assert!(failure(5, &[]).hint.unwrap().contains("`s004`"), "the right key is found among a few");
    assert!(failure(100, &[]).hint.unwrap().contains("`psk`"), "and not looked for among many");
    let unknown = failure(100, &["venus", "mars"]);
    assert_eq!(unknown.code, FailureCode::AuthNoPsk);
    assert!(unknown.ours.len() < 20 && unknown.ours.last().unwrap().contains("more"), "{:?}", unknown.ours);
}

#[test]
fn a_peer_that_starts_anew_while_its_child_is_installed_leaves_nothing_of_the_old_sa() {
    for refused in [None, Some(Direction::Inbound)] {
        let mut world = World::new();
        (world.sun.is_slow, world.sun.dataplane.refuse_install) = (true, refused);
        let ticket = world.initiate(Who::Moon);
        let spi = *world.sun.engine.sas.keys().next().unwrap();
        let now = world.now;
        world.sun.engine.with_established(spi, |sa, cx| sa.on_initial_contact(cx, now, now));
        world.run();
        assert!(world.settled(Who::Moon, ticket).is_err());
        world.catch_up(Who::Sun);
        world.pass(Duration::from_secs(300));
        world.assert_nothing_left();
    }
}

#[test]
fn the_wait_for_a_slow_dataplane_is_no_busy_one() {
    let mut world = World::with(|_, connection| {
        connection.dpd = Some(Dpd { delay: Duration::from_secs(10), action: DpdAction::Clear });
        connection.retransmission.tries = 10;
    });
    world.sun.is_slow = true;
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(25));
    world.catch_up(Who::Sun);
    world.assert_agreement(1);
}

#[test]
fn another_major_version_is_told_ours() {
    let mut world = World::new();
    let mut request = encode_message(&header(ExchangeType::IkeSaInit, MessageKind::Request), &[]).unwrap();
    request[17] = 0x30;
    let answers = inject(&mut world, Who::Sun, &request);
    assert!(matches!(&answers[0].payloads[..],
        [Payload::Notify(notify)] if notify.kind == NotifyType::InvalidMajorVersion));
    request[17] = 0x10;
    assert!(inject(&mut world, Who::Sun, &request).is_empty(), "older versions get nothing");
}

#[test]
fn forged_answers_to_ike_sa_init_do_not_stop_the_true_one() {
    let mut world = World::new();
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Hold } else { Fate::Deliver });
    let ticket = world.initiate(Who::Moon);
    let spi = world.only_ike_sa(Who::Moon).initiator_spi;
    let forged = Header {
        initiator_spi: spi,
        sender: Role::OriginalResponder,
        message_id: 0,
        ..header(ExchangeType::IkeSaInit, MessageKind::Response)
    };
    for kind in [NotifyType::NoProposalChosen, NotifyType::InvalidSyntax, NotifyType::AuthenticationFailed] {
        let message = encode_message(&forged, &[Payload::Notify(Notify::new(kind))]).unwrap();
        let (now, path) = (world.now, path_to(Who::Moon));
        world.moon.engine.handle_datagram(now, path, &message);
    }
    // A public value of zeros (R6989-2.5-1), and a group that was not offered.
    for group in [31, 14] {
        let message = encode_message(&forged, &[Payload::Notify(Notify::invalid_ke(group))]).unwrap();
        let (now, path) = (world.now, path_to(Who::Moon));
        world.moon.engine.handle_datagram(now, path, &message);
    }
    world.release();
    assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1);
    world.assert_agreement(1);
}

/// R7296-2.4-1, R7296-2.4-2.
#[test]
fn unprotected_notifications_do_not_end_an_sa_but_make_it_look() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let report = world.only_ike_sa(Who::Moon);
    let forged = Header {
        initiator_spi: report.initiator_spi,
        responder_spi: report.responder_spi,
        sender: Role::OriginalResponder,
        ..header(ExchangeType::Informational, MessageKind::Response)
    };
    let message = encode_message(&forged, &[Payload::Notify(Notify::new(NotifyType::InvalidIkeSpi))]).unwrap();
    let (now, path) = (world.now, path_to(Who::Moon));
    for _ in 0..10_000 {
        world.moon.engine.handle_datagram(now, path, &message);
    }
    world.run();
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Request), 1, "one probe is enough");
    world.assert_agreement(1);
}

#[test]
fn damaged_messages_change_nothing() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|_| Fate::Hold);
    world.terminate(Who::Moon, crate::io::Target::Connection("net-net".into()));
    let delete = world.seen.last().unwrap().message.clone();
    for position in 0..delete.len() {
        let mut damaged = delete.clone();
        damaged[position] ^= 0x40;
        let (now, path) = (world.now, path_to(Who::Sun));
        world.sun.engine.handle_datagram(now, path, &damaged);
    }
    assert_eq!(world.ike_sas(Who::Sun).len(), 1);
    for length in 0..delete.len() {
        let (now, path) = (world.now, path_to(Who::Sun));
        world.sun.engine.handle_datagram(now, path, &delete[..length]);
    }
    assert_eq!(world.ike_sas(Who::Sun).len(), 1);
    world.release();
    world.assert_nothing_left();
}

#[test]
fn half_open_sas_of_one_source_are_limited_and_forgotten() {
    let settings = Settings { half_open_per_address: 5, cookie_threshold: 100, ..Settings::default() };
    let mut world = World::bare(&settings);
    world.configure(|_, _| {});
    world.network(|_| Fate::Hold);
    world.initiate(Who::Moon);
    let request = world.seen[0].message.clone();
    for number in 1..=20u8 {
        let mut copy = request.clone();
        copy[..8].copy_from_slice(&[number; 8]);
        let (now, path) = (world.now, path_to(Who::Sun));
        world.sun.engine.handle_datagram(now, path, &copy);
    }
    world.network(|_| Fate::Lose);
    world.run();
    assert_eq!(world.ike_sas(Who::Sun).len(), 5);
    world.pass(Duration::from_secs(31));
    assert!(world.ike_sas(Who::Sun).is_empty());
}

/// R7296-1-1, R7296-1.4-1.
#[test]
fn nothing_but_ike_auth_is_heard_before_authentication() {
    let mut world = World::new();
    world.network(
        |datagram| {
            if datagram.is(ExchangeType::IkeAuth, MessageKind::Request) { Fate::Hold } else { Fate::Deliver }
        },
    );
    world.initiate(Who::Moon);
    let auth = world.seen.last().unwrap().message.clone();
    // The exchange type is covered by the checksum, so what is tried here is that the type alone decides.
    for exchange in [36u8, 37, 43] {
        let mut other = auth.clone();
        other[18] = exchange;
        let (now, path) = (world.now, path_to(Who::Sun));
        world.sun.engine.handle_datagram(now, path, &other);
    }
    assert!(world.only_ike_sa(Who::Sun).established.is_none());
    world.release();
    world.assert_agreement(1);
}

/// Sends what no engine would send, properly protected, over moon's only SA.
fn send_protected(world: &mut World, exchange: ExchangeType, payloads: &[Payload]) -> MessageKind {
    let now = world.now;
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    world.moon.engine.with_established(spi, |sa, cx| sa.request(cx, now, exchange, payloads).unwrap());
    world.run();
    world.seen.last().unwrap().header().kind
}

#[test]
fn a_malformed_protected_request_ends_the_sa_on_both_ends() {
    let cases: [(ExchangeType, Vec<Payload>); 3] = [
        (ExchangeType::CreateChildSa, vec![Payload::Nonce(vec![1; 32])]),
        (ExchangeType::IkeIntermediate, Vec::new()),
        (ExchangeType::IkeAuth, Vec::new()),
    ];
    for (exchange, payloads) in cases {
        let mut world = World::new();
        world.initiate(Who::Moon);
        assert_eq!(send_protected(&mut world, exchange, &payloads), MessageKind::Response);
        world.assert_nothing_left();
    }
}

#[test]
fn a_request_to_replace_an_unknown_child_is_answered_and_harms_nothing() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let spi = espdp_api::EspSpi::try_from(0x7777_7777).unwrap();
    let any = testbed_selectors();
    let payloads = [
        Payload::Notify(Notify::about(NotifyType::RekeySa, spi)),
        Payload::SecurityAssociation(Vec::new()),
        Payload::Nonce(vec![1; 32]),
        Payload::SelectorsInitiator(any.clone()),
        Payload::SelectorsResponder(any),
    ];
    send_protected(&mut world, ExchangeType::CreateChildSa, &payloads[..1]);
    world.assert_nothing_left();
    let mut world = World::new();
    world.initiate(Who::Moon);
    let offer = "aes256gcm16".parse::<crate::proposal::EspProposal>().unwrap();
    let mut payloads = payloads.to_vec();
    payloads[1] = Payload::SecurityAssociation(crate::proposal::esp_offer(&[offer], spi));
    send_protected(&mut world, ExchangeType::CreateChildSa, &payloads);
    world.assert_agreement(1);
    send_protected(&mut world, ExchangeType::Informational, &[Payload::Delete(crate::wire::Delete::Esp(vec![spi]))]);
    world.assert_agreement(1);
}

fn testbed_selectors() -> Vec<espdp_api::TrafficSelector> {
    vec![super::super::testbed::net("10.0.0.0", "10.255.255.255")]
}
