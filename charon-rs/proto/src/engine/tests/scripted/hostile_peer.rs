//! One strange message after the other.

use espdp_api::{Encapsulation, PortRange, TrafficSelector};

use super::*;
use crate::config::{Lifetime, UdpEncapsulation};
use crate::wire::{Configuration, ConfigurationAttribute, ConfigurationKind};

const CREATE_CHILD: ExchangeType = ExchangeType::CreateChildSa;
const INFORMATIONAL: ExchangeType = ExchangeType::Informational;

/// two_rekeys_same_child.
#[test]
fn two_rekeys_same_child_the_second_is_put_off() {
    let mut peer = Peer::established();
    let old = spi_of_child(&mut peer);
    assert!(peer.refusal(CREATE_CHILD, &child_rekeying(old, spi(0x0a00_0001))).is_empty());
    assert_eq!(peer.refusal(CREATE_CHILD, &child_rekeying(old, spi(0x0a00_0002))), [NotifyType::TemporaryFailure]);
    assert_eq!(peer.children_of_sun(), 2);
    // The same while sun replaces the child as well.
    let mut peer = Peer::established();
    let old = spi_of_child(&mut peer);
    let ours = peer.provoke_rekeying(child());
    assert!(peer.refusal(CREATE_CHILD, &child_rekeying(old, spi(0x0a00_0001))).is_empty());
    assert_eq!(peer.refusal(CREATE_CHILD, &child_rekeying(old, spi(0x0a00_0002))), [NotifyType::TemporaryFailure]);
    assert_eq!(peer.children_of_sun(), 2);
    peer.respond(&ours, &[Payload::Notify(Notify::new(NotifyType::TemporaryFailure))]);
    assert_eq!(peer.children_of_sun(), 2);
}

/// R7296-1.3.3-1.
#[test]
fn children_of_others_cannot_be_replaced_or_deleted() {
    let mut peer = Peer::beside_an_honest_one();
    let sas = peer.world.ike_sas(Who::Sun);
    let foreign = sas.iter().find(|sa| sa.connection == "honest").unwrap().children[0].clone();
    for theirs in [foreign.spi_in, foreign.spi_out.unwrap(), spi(0x7777_7777)] {
        let refusal = peer.refusal(CREATE_CHILD, &child_rekeying(theirs, spi(0x0a00_0001)));
        assert_eq!(refusal, [NotifyType::ChildSaNotFound]);
        let sent = peer.request(INFORMATIONAL, &[Payload::Delete(Delete::Esp(vec![theirs, theirs]))]);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].payloads.as_deref(), Some(&[][..]), "there is nothing of ours to name");
    }
    assert!(peer.is_alive());
    peer.assert_the_honest_one_is_unharmed();
}

/// R7296-1.4.1-1.
#[test]
fn a_deletion_is_answered_with_our_half_once() {
    let mut peer = Peer::established();
    let theirs = spi_of_child(&mut peer);
    let ours = peer.world.only_ike_sa(Who::Sun).children[0].spi_in;
    let delete = [Payload::Delete(Delete::Esp(vec![theirs; 20])), Payload::Delete(Delete::Esp(vec![theirs]))];
    let sent = peer.request(INFORMATIONAL, &delete);
    assert_eq!(sent[0].payloads.as_deref(), Some(&[Payload::Delete(Delete::Esp(vec![ours]))][..]));
    assert_eq!(peer.children_of_sun(), 0);
    assert_eq!(peer.request(INFORMATIONAL, &delete)[0].payloads.as_deref(), Some(&[][..]));
}

/// R7296-2-1, R7296-1.4-2.
#[test]
fn messages_of_all_sizes_are_answered() {
    for size in [1280, 3000, 65_507] {
        let mut peer = Peer::established();
        // 28 octets of header, 4 of Encrypted payload, 8 of IV, 4 of payload header, 1 of padding, 16 of ICV.
        let message = [Payload::VendorId(vec![7; size - 61])];
        let sealed = peer.seal(INFORMATIONAL, MessageKind::Request, 2, &message);
        assert_eq!(sealed.len(), size);
        let sent = peer.send(&sealed);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].header.message_id, sent[0].payloads.as_deref()), (2, Some(&[][..])));
    }
}

/// R7296-2.3-3, R7296-2.1-3.
#[test]
fn numbers_outside_of_the_window_get_nothing_and_change_nothing() {
    let mut peer = Peer::established();
    for id in [4, 5, 100, 1 << 31, u32::MAX - 1, u32::MAX] {
        let message = peer.seal(INFORMATIONAL, MessageKind::Request, id, &[Payload::Delete(Delete::IkeSa)]);
        assert!(peer.send(&message).is_empty(), "{id}");
    }
    let first = peer.seal(INFORMATIONAL, MessageKind::Request, 2, &[]);
    let response = peer.send(&first);
    assert_eq!(response.len(), 1);
    // Another request with the same number gets the response to the first one, and is not carried out.
    let other = peer.seal(INFORMATIONAL, MessageKind::Request, 2, &[Payload::Delete(Delete::IkeSa)]);
    assert_eq!(peer.send(&other).len(), 1);
    assert!(peer.is_alive());
    peer.next = 3;
    assert_eq!(peer.request(INFORMATIONAL, &[]).len(), 1);
    assert!(peer.send(&first).is_empty(), "it is too old by now");
    assert!(peer.send(&other).is_empty());
    assert!(peer.is_alive());
}

/// R7296-3.1-3.
#[test]
fn responses_that_nobody_waits_for_are_ignored() {
    let mut peer = Peer::established();
    for exchange in [ExchangeType::IkeAuth, CREATE_CHILD, INFORMATIONAL, ExchangeType::Other(43)] {
        for id in [0, 1, 2, u32::MAX] {
            let refusal = Payload::Notify(Notify::new(NotifyType::InvalidSyntax));
            let message = peer.seal(exchange, MessageKind::Response, id, &[refusal]);
            assert!(peer.send(&message).is_empty());
        }
    }
    let ours = peer.provoke_rekeying(child());
    for (exchange, id) in [(INFORMATIONAL, ours.message_id), (CREATE_CHILD, ours.message_id + 1)] {
        let message = peer.seal(exchange, MessageKind::Response, id, &[Payload::Delete(Delete::IkeSa)]);
        assert!(peer.send(&message).is_empty());
    }
    assert!(peer.is_alive());
}

/// R7296-2.4-4: what INITIAL_CONTACT says is heard in IKE_AUTH alone.
#[test]
fn notifications_in_an_informational_exchange_change_nothing() {
    let mut peer = Peer::beside_an_honest_one();
    let harmless = [
        NotifyType::InitialContact,
        NotifyType::NoProposalChosen,
        NotifyType::TsUnacceptable,
        NotifyType::InvalidIkeSpi,
        NotifyType::TemporaryFailure,
        NotifyType::UseTransportMode,
        NotifyType::Other(16_385),
        NotifyType::Other(40_969),
        NotifyType::Other(65_535),
    ];
    let notifies: Vec<_> = harmless.iter().cycle().take(60).map(|kind| Payload::Notify(Notify::new(*kind))).collect();
    let sent = peer.request(INFORMATIONAL, &notifies);
    assert_eq!((sent.len(), sent[0].payloads.as_deref()), (1, Some(&[][..])));
    assert!(peer.is_alive());
    peer.assert_the_honest_one_is_unharmed();
}

#[test]
fn a_thousand_notifications_are_too_many_and_end_only_their_own_sa() {
    let mut peer = Peer::beside_an_honest_one();
    let notifies = vec![Payload::Notify(Notify::new(NotifyType::InitialContact)); 1000];
    let before = peer.world.sun.notices.len();
    assert_eq!(peer.refusal(INFORMATIONAL, &notifies), [NotifyType::InvalidSyntax]);
    assert!(peer.world.sun.notices.len() - before < 20, "nobody reads a thousand lines");
    assert!(!peer.is_alive());
    peer.assert_the_honest_one_is_unharmed();
}

/// A chain of payloads, octet by octet: type, whether it is critical, body.
fn chain(payloads: &[(u8, bool, Vec<u8>)]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (index, (_, critical, body)) in payloads.iter().enumerate() {
        octets.push(payloads.get(index + 1).map_or(0, |next| next.0));
        octets.push(if *critical { 0x80 } else { 0 });
        octets.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        octets.extend(body);
    }
    octets
}

/// R7296-2.5-3, R7296-2.5-4, R7296-2.21.2-1.
#[test]
fn unknown_critical_payloads_are_named_wherever_they_stand_and_the_sa_stays() {
    let nonce = || (40, false, vec![7; 32]);
    let (skipped, critical) = (|| (200, false, vec![1, 2]), || (201, true, vec![3]));
    let mut peer = Peer::established();
    for exchange in [CREATE_CHILD, INFORMATIONAL] {
        for payloads in [
            vec![critical(), nonce(), skipped()],
            vec![nonce(), critical(), skipped()],
            vec![skipped(), nonce(), critical()],
            vec![critical()],
        ] {
            let message = peer.seal_octets(exchange, payloads[0].0, &chain(&payloads));
            let sent = peer.send(&message);
            let named = Payload::Notify(Notify::with_data(NotifyType::UnsupportedCriticalPayload, vec![201]));
            assert_eq!((sent.len(), sent[0].payloads.as_deref()), (1, Some(&[named][..])));
        }
    }
    let message = peer.seal_octets(INFORMATIONAL, 200, &chain(&[skipped(), (33, true, vec![]), skipped()]));
    assert_eq!(peer.send(&message)[0].notifies(), [NotifyType::InvalidSyntax], "an SA payload has proposals");
    let mut peer = Peer::established();
    let message = peer.seal_octets(INFORMATIONAL, 200, &chain(&[skipped(), (40, true, vec![7; 32])]));
    assert_eq!(peer.send(&message)[0].payloads.as_deref(), Some(&[][..]), "known ones are critical in vain");
}

/// R7296-3.1-1, R7296-2.21.2-1.
#[test]
fn malformed_contents_behind_a_good_checksum_end_the_sa() {
    let sk = |kind| chain(&[(kind, false, vec![0; 40])]);
    let cases: [(u8, Vec<u8>); 10] = [
        (46, sk(46)),
        (53, sk(53)),
        (43, chain(&[(43, false, vec![1]), (46, false, vec![0; 40])])),
        (43, vec![0, 0, 0, 9, 1]),
        (43, vec![0, 0, 0, 3]),
        (43, vec![0, 0]),
        (43, vec![]),
        (0, vec![1, 2, 3]),
        (40, chain(&[(40, false, vec![7; 257])])),
        (40, chain(&[(40, false, vec![7; 15])])),
    ];
    for (first, octets) in cases {
        let mut peer = Peer::established();
        let message = peer.seal_octets(INFORMATIONAL, first, &octets);
        let sent = peer.send(&message);
        assert_eq!(sent.len(), 1, "{first}: {octets:?}");
        assert_eq!(sent[0].notifies(), [NotifyType::InvalidSyntax], "{first}: {octets:?}");
        assert_eq!(peer.sas_of_sun(), 0);
    }
}

#[test]
fn an_empty_encrypted_payload_is_a_probe() {
    let mut peer = Peer::established();
    let message = peer.seal_octets(INFORMATIONAL, 0, &[]);
    assert_eq!(peer.send(&message)[0].payloads.as_deref(), Some(&[][..]));
    let message = peer.seal_octets(CREATE_CHILD, 0, &[]);
    assert_eq!(peer.send(&message)[0].notifies(), [NotifyType::InvalidSyntax]);
}

/// missing_payloads.
#[test]
fn missing_payloads_in_create_child_sa_are_missed() {
    let mut random = SeededRandom::new(3);
    let whole = child_offer(spi(0x0a00_0001));
    let rekeying = ike_rekeying(&mut random);
    let without = |payloads: &[Payload], at: usize| {
        let mut rest = payloads.to_vec();
        rest.remove(at);
        rest
    };
    for payloads in (0..whole.len()).map(|at| without(&whole, at)).chain((0..3).map(|at| without(&rekeying, at))) {
        let mut peer = Peer::established();
        assert_eq!(peer.refusal(CREATE_CHILD, &payloads), [NotifyType::InvalidSyntax], "{payloads:?}");
        assert_eq!(peer.sas_of_sun(), 0);
    }
}

/// ke_wrong_len.
#[test]
fn ke_wrong_len_in_create_child_sa_ends_the_sa() {
    let mut random = SeededRandom::new(4);
    for data in [vec![], vec![7; 31], vec![7; 33], vec![0; 32], vec![7; 4096]] {
        let mut peer = Peer::established();
        let mut payloads = ike_rekeying(&mut random);
        payloads[2] = Payload::KeyExchange(KeyExchange { group: 31, data: data.clone() });
        assert_eq!(peer.refusal(CREATE_CHILD, &payloads), [NotifyType::InvalidSyntax], "{} octets", data.len());
        assert_eq!(peer.sas_of_sun(), 0);
        let pfs = |_: Who, connection: &mut Connection| {
            connection.children[0].esp_proposals = vec!["aes256gcm16-x25519".parse().unwrap()];
        };
        let mut peer = Peer::established_with(pfs);
        let mut payloads = child_offer(spi(0x0a00_0001));
        let offer = "aes256gcm16-x25519".parse::<EspProposal>().unwrap();
        payloads[0] = Payload::SecurityAssociation(esp_offer(&[offer], spi(0x0a00_0001)));
        payloads.push(Payload::KeyExchange(KeyExchange { group: 31, data }));
        assert_eq!(peer.refusal(CREATE_CHILD, &payloads), [NotifyType::InvalidSyntax]);
        assert_eq!(peer.sas_of_sun(), 0);
    }
}

/// R7296-3.4-2, ke_private_group.
#[test]
fn a_public_value_of_another_group_is_told_the_right_one() {
    let mut random = SeededRandom::new(5);
    for group in [0, 14, 1025, u16::MAX] {
        let mut peer = Peer::established();
        let mut payloads = ike_rekeying(&mut random);
        payloads[2] = Payload::KeyExchange(KeyExchange { group, data: vec![7; 32] });
        let sent = peer.request(CREATE_CHILD, &payloads);
        assert_eq!(sent[0].payloads.as_deref(), Some(&[Payload::Notify(Notify::invalid_ke(31))][..]));
        assert!(peer.is_alive());
    }
}

/// R7296-2.22-1, R7296-2.19-1, R7296-3.15.1-1, R7296-4-1.
#[test]
fn what_we_do_not_do_is_neither_answered_nor_an_error() {
    let mut peer = Peer::established();
    let mut payloads = child_offer(spi(0x0a00_0001));
    payloads.push(Payload::Notify(Notify::with_data(NotifyType::from_number(16_387), vec![0, 1, 2])));
    // A request for addresses, with attributes that are not assigned, or not any more.
    let attributes = [[0, 1, 0, 0], [0, 25, 0, 0], [0, 27, 0, 0], [0x40, 0, 0, 0], [0x7f, 0xff, 0, 0]].concat();
    payloads.push(Payload::Opaque { kind: PayloadType::Other(47), body: [&[1, 0, 0, 0][..], &attributes].concat() });
    for kind in [48, 49, 50, 51, 52, 54] {
        payloads.push(Payload::Opaque { kind: PayloadType::Other(kind), body: vec![1, 0, 0, 8, 1, 2, 3, 4] });
    }
    let sent = peer.request(CREATE_CHILD, &payloads);
    let kinds: Vec<PayloadType> = sent[0].payloads.as_ref().unwrap().iter().map(Payload::kind).collect();
    let expected = [
        PayloadType::SecurityAssociation,
        PayloadType::Nonce,
        PayloadType::SelectorsInitiator,
        PayloadType::SelectorsResponder,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(peer.children_of_sun(), 2);
}

/// RFC 7296 §3.15.1: what is set may be ignored, and a reply that nobody asked for means nothing.
#[test]
fn configurations_out_of_place_change_nothing() {
    let address = || vec![ConfigurationAttribute::Ip4Address(Some([10, 3, 0, 9].into()))];
    for kind in [
        ConfigurationKind::Request,
        ConfigurationKind::Reply,
        ConfigurationKind::Set,
        ConfigurationKind::Ack,
        ConfigurationKind::Other(9),
    ] {
        let mut peer = Peer::established();
        let configuration = || Payload::Configuration(Configuration { kind, attributes: address() });
        let sent = peer.request(INFORMATIONAL, &[configuration(), configuration()]);
        assert_eq!(sent[0].payloads.as_deref(), Some(&[][..]), "{kind:?}");
        let sa = peer.world.only_ike_sa(Who::Sun);
        assert!(sa.local_virtual.is_empty() && sa.remote_virtual.is_empty(), "{kind:?}");
        assert!(peer.is_alive());
    }
}

/// RFC 7296 §2.21.3.
#[test]
fn a_malformed_configuration_is_invalid_syntax() {
    for attributes in [&[0, 1, 0, 3, 1, 2, 3][..], &[0, 8, 0, 5, 1, 2, 3, 4, 5], &[0, 1, 0xff, 0xff, 1], &[0, 1, 0]] {
        let mut peer = Peer::established();
        let body = [&[1, 0, 0, 0][..], attributes].concat();
        let payload = Payload::Opaque { kind: PayloadType::Other(47), body };
        assert_eq!(peer.refusal(INFORMATIONAL, &[payload]), [NotifyType::InvalidSyntax], "{attributes:?}");
        assert_eq!(peer.sas_of_sun(), 0);
    }
}

/// R4301-4.1-1.
#[test]
fn parallel_children_with_the_same_selectors_are_all_good() {
    let mut peer = Peer::established();
    for number in 1..=5 {
        assert!(peer.refusal(CREATE_CHILD, &child_offer(spi(0x0a00_0000 + number))).is_empty());
    }
    assert_eq!(peer.children_of_sun(), 6);
    let dataplane = &peer.world.sun.dataplane;
    assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (6, 6));
    assert!(!dataplane.active.is_empty(), "one of them sends");
}

/// R7296-2.11-1.
#[test]
fn the_answer_goes_to_where_the_request_came_from_from_where_it_arrived() {
    let mut peer = Peer::established();
    let message = peer.seal(INFORMATIONAL, MessageKind::Request, 2, &[]);
    let path = IkePath { local: ([192, 0, 2, 77], 4500).into(), remote: ([203, 0, 113, 9], 40_000).into() };
    let sent = peer.send_on(path, &message);
    assert_eq!((sent.len(), sent[0].path), (1, path));
    assert_ne!(peer.world.only_ike_sa(Who::Sun).path, path, "there is no NAT, so the peer did not move");
}

/// addr_update_before_auth, R7296-2.23-6.
#[test]
fn addr_update_before_auth_only_a_new_authentic_message_moves_the_peer() {
    let mut peer = Peer::established_with(|who, connection| {
        // With MOBIKE only UPDATE_SA_ADDRESSES would (RFC 4555 §3.8).
        connection.mobike = false;
        if who == Who::Moon {
            connection.encapsulation = UdpEncapsulation::Force;
        }
    });
    let before = peer.world.only_ike_sa(Who::Sun).path;
    let elsewhere = IkePath { remote: ([203, 0, 113, 9], 1024).into(), ..before };
    let path_now = |peer: &mut Peer| peer.world.only_ike_sa(Who::Sun).path;
    let first = peer.seal(INFORMATIONAL, MessageKind::Request, 2, &[]);
    let second = peer.seal(INFORMATIONAL, MessageKind::Request, 3, &[]);
    let mut damaged = first.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(peer.send_on(elsewhere, &damaged).is_empty());
    assert!(peer.send_on(elsewhere, &second).is_empty(), "it is not its turn");
    assert_eq!(path_now(&mut peer), before);
    assert_eq!(peer.send_on(before, &first).len(), 1);
    assert_eq!(peer.send_on(elsewhere, &first).len(), 1, "a repetition is answered where it came from");
    assert_eq!(path_now(&mut peer), before, "and moves nobody");
    peer.send_on(elsewhere, &second);
    assert_eq!(path_now(&mut peer), elsewhere);
    let child = peer.world.only_ike_sa(Who::Sun).children[0].path;
    assert_eq!(child.encapsulation, Encapsulation::Udp { local_port: 4500, remote_port: 1024 });
}

/// R7296-2.25-2. strongSwan leaves the SPI out.
#[test]
fn a_child_that_the_peer_does_not_have_is_dropped_and_made_anew() {
    for names_it in [true, false] {
        let mut peer = Peer::established();
        let old = peer.world.only_ike_sa(Who::Sun).children[0].spi_in;
        let ours = peer.provoke_rekeying(child());
        let notify = Notify { spi: names_it.then_some(old), ..Notify::new(NotifyType::ChildSaNotFound) };
        let sent = peer.respond(&ours, &[Payload::Notify(notify)]);
        assert_eq!(peer.children_of_sun(), 0);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].header.exchange, CREATE_CHILD);
        assert!(sent[0].notifies().is_empty(), "it replaces nothing: {sent:?}");
    }
}

/// R7296-2.25-1.
#[test]
fn what_the_peer_puts_off_is_not_tried_again_at_once() {
    let mut peer = Peer::established();
    let mut ours = peer.provoke_rekeying(child());
    let (mut waits, mut waited) = (Vec::new(), 0);
    while waits.len() < 6 {
        let later = [Payload::Notify(Notify::new(NotifyType::TemporaryFailure))];
        let mut sent = peer.respond(&ours, &later);
        while sent.is_empty() {
            sent = peer.pass(Duration::from_secs(1));
            waited += 1;
        }
        ours = sent[0].header;
        assert_eq!(ours.exchange, CREATE_CHILD);
        waits.push(std::mem::take(&mut waited));
    }
    assert!(waits[0] >= 2 && waits.is_sorted(), "{waits:?}");
    assert!(waits[5] > 40, "{waits:?}");
}

fn selectors(last: u8) -> Vec<TrafficSelector> {
    vec![net("10.1.0.0", &format!("10.1.{last}.255"))]
}

/// R7296-2.9.2-1.
#[test]
fn what_replaces_a_child_is_never_narrower() {
    let mut peer = Peer::established();
    let old = spi_of_child(&mut peer);
    let mut narrower = child_rekeying(old, spi(0x0a00_0001));
    narrower[3] = Payload::SelectorsInitiator(selectors(127));
    assert_eq!(peer.refusal(CREATE_CHILD, &narrower), [NotifyType::TsUnacceptable]);
    assert_eq!(peer.children_of_sun(), 1);
    // Wider than the old one is fine, and is narrowed to what the configuration allows, never below the old one.
    let mut wider = child_rekeying(old, spi(0x0a00_0002));
    wider[3] = Payload::SelectorsInitiator(vec![net("10.0.0.0", "10.255.255.255")]);
    assert!(peer.refusal(CREATE_CHILD, &wider).is_empty());
    let child = peer.world.only_ike_sa(Who::Sun).children.last().unwrap().clone();
    assert_eq!(child.remote, selectors(255));
}

/// R7296-2.9.2-1.
#[test]
fn an_answer_that_is_narrower_than_the_replaced_child_is_refused() {
    let mut peer = Peer::established();
    let before = peer.world.only_ike_sa(Who::Sun).children[0].clone();
    let ours = peer.provoke_rekeying(child());
    let offer = "aes256gcm16".parse::<EspProposal>().unwrap();
    let answer = [
        Payload::SecurityAssociation(esp_offer(&[offer], spi(0x0a00_0001))),
        Payload::Nonce(vec![7; 32]),
        Payload::SelectorsInitiator(before.local.clone()),
        Payload::SelectorsResponder(selectors(127)),
    ];
    let sent = peer.respond(&ours, &answer);
    assert_eq!(sent.len(), 1, "the peer is told that there is no such child");
    assert_eq!(sent[0].header.exchange, INFORMATIONAL);
    let after = peer.world.only_ike_sa(Who::Sun).children;
    assert_eq!((after.len(), after[0].spi_in), (1, before.spi_in));
}

/// R7296-2.8-2.
#[test]
fn a_child_whose_lifetime_is_over_neither_sends_nor_receives() {
    let mut peer = Peer::established_with(|who, connection| {
        if who == Who::Sun {
            let expire_after = Some(Duration::from_secs(100));
            connection.children[0].lifetime = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after };
        }
    });
    let sent = peer.pass(Duration::from_secs(101));
    assert_eq!(sent[0].header.exchange, INFORMATIONAL);
    let dataplane = &peer.world.sun.dataplane;
    assert!(dataplane.inbound.is_empty() && dataplane.outbound.is_empty(), "the peer has not agreed yet");
}

/// R7296-2.8-2.
#[test]
fn an_ike_sa_whose_lifetime_is_over_takes_its_children_with_it() {
    let mut peer = Peer::established_with(|who, connection| {
        if who == Who::Sun {
            let expire_after = Some(Duration::from_secs(100));
            connection.ike_lifetime = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after };
        }
    });
    peer.pass(Duration::from_secs(101));
    let dataplane = &peer.world.sun.dataplane;
    assert!(dataplane.inbound.is_empty() && dataplane.outbound.is_empty(), "the peer has not agreed yet");
    assert_eq!(peer.refusal(CREATE_CHILD, &child_offer(spi(0x0a00_0001))), [NotifyType::TemporaryFailure]);
}

/// An SPI that a peer uses for two of its SAs is its own problem.
#[test]
fn a_peer_that_gives_one_spi_twice_gets_no_second_sa_in_that_policy() {
    let mut peer = Peer::established();
    let old = spi_of_child(&mut peer);
    assert_eq!(peer.refusal(CREATE_CHILD, &child_rekeying(old, old)), [NotifyType::TemporaryFailure]);
    assert_eq!(peer.children_of_sun(), 1);
    peer.request(INFORMATIONAL, &[Payload::Delete(Delete::IkeSa)]);
    assert_eq!(peer.sas_of_sun(), 0);
    let dataplane = &peer.world.sun.dataplane;
    assert!(dataplane.inbound.is_empty() && dataplane.outbound.is_empty() && dataplane.reserved.is_empty());
}

/// Ranges that no prefix fits, as many as a payload can hold: each would be hundreds of routes.
#[test]
fn selectors_that_would_need_thousands_of_routes_are_unacceptable() {
    let everything = || vec![net("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").into()];
    let mut peer = Peer::established_with(|who, connection| {
        let mut wide = super::super::super::testbed::child(who, "wide");
        (wide.local_selectors, wide.remote_selectors) = (everything(), everything());
        connection.children.push(wide);
    });
    let range = |number: u16| {
        let selector =
            net(&format!("2001:db8:{number:x}::1"), &format!("2001:db8:{number:x}:ffff:ffff:ffff:ffff:fffe"));
        TrafficSelector { protocol: 6, ports: PortRange { start: number, end: number }, ..selector }
    };
    let mut bomb = child_offer(spi(0x0a00_0001));
    bomb[2] = Payload::SelectorsInitiator((1..=255).map(range).collect());
    bomb[3] = Payload::SelectorsResponder((1..=255).map(range).collect());
    assert_eq!(peer.refusal(CREATE_CHILD, &bomb), [NotifyType::TsUnacceptable]);
    bomb[2] = Payload::SelectorsInitiator((1..=3).map(range).collect());
    assert!(peer.refusal(CREATE_CHILD, &bomb).is_empty());
}
