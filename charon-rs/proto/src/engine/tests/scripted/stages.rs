//! Every kind of message in every stage of an IKE SA: only its own moves it on.

use super::*;
use crate::engine::established::Life;
use crate::engine::testbed::{sign_with, trust_in};
use crate::io::FailureCode;
use crate::testing::SeededRandom;
use crate::wire::{Message, Role, encode_message};

/// An IKE SA in a stage, with its peer, who has the keys as soon as there are any.
struct Stage {
    name: &'static str,
    world: World,
    victim: Who,
    /// Its SPI at the victim.
    spi: IkeSpi,
    /// The message that the stage waits for: exchange, kind, number.
    awaited: Option<(ExchangeType, MessageKind, u32)>,
}

/// What the stage of an SA is called.
fn name_of(sa: &IkeSa) -> &'static str {
    match sa {
        IkeSa::Established(sa) => match sa.life {
            Life::Up if sa.is_in_ike_auth() => "answering IKE_AUTH",
            Life::Up => "established",
            Life::Replaced(_) => "replaced",
            Life::Deleting => "deleting",
            Life::Over => "over",
        },
        IkeSa::Locating(_) => "locating",
        IkeSa::Initiating(_) => "initiating",
        IkeSa::Intermediate(_) => "exchanging more keys",
        IkeSa::InitiatorAuth(auth) => auth.stage_name(),
        IkeSa::ResponderAuth(auth) => auth.stage_name(),
        IkeSa::Refusing(_) => "refusing",
        IkeSa::HalfOpen(half_open) if half_open.rounds.is_empty() => "half-open",
        IkeSa::HalfOpen(_) => "half-open with more keys to come",
        IkeSa::Refused(_) => "refused",
    }
}

const INIT: ExchangeType = ExchangeType::IkeSaInit;
const INTERMEDIATE: ExchangeType = ExchangeType::IkeIntermediate;
const AUTH: ExchangeType = ExchangeType::IkeAuth;
const INFORMATIONAL: ExchangeType = ExchangeType::Informational;
const REQUEST: MessageKind = MessageKind::Request;
const RESPONSE: MessageKind = MessageKind::Response;

/// A world in which these messages are lost.
fn without(lost: &'static [(ExchangeType, MessageKind)], adapt: impl Fn(Who, &mut Connection)) -> World {
    let mut world = World::with(adapt);
    world.network(move |datagram| {
        if lost.iter().any(|(exchange, kind)| datagram.is(*exchange, *kind)) { Fate::Lose } else { Fate::Deliver }
    });
    world
}

fn plain(lost: &'static [(ExchangeType, MessageKind)]) -> World {
    without(lost, |_, _| {})
}

/// With an additional key exchange.
fn hybrid(lost: &'static [(ExchangeType, MessageKind)]) -> World {
    without(lost, |_, connection| {
        connection.ike_proposals = vec!["aes256gcm16-prfsha256-x25519-ke1_mlkem768".parse().unwrap()];
    })
}

fn initiated(mut world: World) -> World {
    world.initiate(Who::Moon);
    world
}

/// Moon has got the answer to IKE_SA_INIT, and its dataplane has not given an SPI yet.
fn keyed() -> World {
    let mut world = initiated(plain(&[(INIT, RESPONSE)]));
    let response = world.seen.last().unwrap().clone();
    let (now, path) = (world.now, IkePath { local: response.path.remote, remote: response.path.local });
    world.moon.engine.handle_datagram(now, path, &response.message);
    world
}

/// Moon and sun sign as told, and the signer of one of them takes its time.
fn signing(moon: bool, sun: bool, slow: Who) -> World {
    let mut world = World::with(|who, connection| {
        let (ours, theirs) = if who == Who::Moon { (moon, sun) } else { (sun, moon) };
        if ours {
            connection.local.method = sign_with(who.name());
        }
        if theirs {
            connection.remote.method = trust_in("ca");
        }
    });
    world.side(slow).signer.is_slow = true;
    initiated(world)
}

/// Moon authenticates itself twice, and the second time gets lost.
fn listening() -> World {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.more_local = vec![connection.local.clone()];
        } else {
            connection.more_remote = vec![connection.remote.clone()];
        }
    });
    world.network(|datagram| if datagram.header().message_id == 2 { Fate::Lose } else { Fate::Deliver });
    initiated(world)
}

fn locating() -> World {
    let mut world = without(&[], |who, connection| {
        if who == Who::Moon {
            connection.remote_addresses = vec![RemoteAddress::Name("sun.example.org".into())];
        }
    });
    let (ticket, connection) = (Ticket(1), Some("net-net".into()));
    world.command(Who::Moon, Command::Initiate { ticket, connection, child: None });
    world
}

fn stages() -> Vec<Stage> {
    let stage = Stage::new;
    let mut refusing = initiated(plain(&[(AUTH, RESPONSE)]));
    refusing.terminate(Who::Moon, ike());
    let mut refused = plain(&[(AUTH, RESPONSE)]);
    refused.command(Who::Sun, Command::SetSecret(super::super::super::testbed::secret("psk", &[], b"another")));
    let mut answering = World::with(|_, _| {});
    answering.sun.is_slow = true;
    let mut replaced = plain(&[(INFORMATIONAL, REQUEST)]);
    replaced.initiate(Who::Moon);
    replaced.rekey(Who::Moon, ike());
    let mut deleting = plain(&[(INFORMATIONAL, RESPONSE)]);
    deleting.initiate(Who::Moon);
    deleting.terminate(Who::Sun, ike());
    vec![
        stage("locating", locating(), Who::Moon, None),
        stage("initiating", initiated(plain(&[(INIT, RESPONSE)])), Who::Moon, Some((INIT, RESPONSE, 0))),
        stage(
            "exchanging more keys",
            initiated(hybrid(&[(INTERMEDIATE, RESPONSE)])),
            Who::Moon,
            Some((INTERMEDIATE, RESPONSE, 1)),
        ),
        stage(
            "half-open with more keys to come",
            initiated(hybrid(&[(INTERMEDIATE, REQUEST)])),
            Who::Sun,
            Some((INTERMEDIATE, REQUEST, 1)),
        ),
        stage("keyed", keyed(), Who::Moon, None),
        stage("proving to the responder", signing(true, false, Who::Moon), Who::Moon, None),
        stage("judging the responder", signing(false, true, Who::Moon), Who::Moon, None),
        stage("judging the initiator", signing(true, false, Who::Sun), Who::Sun, None),
        stage("proving to the initiator", signing(false, true, Who::Sun), Who::Sun, None),
        stage("listening", listening(), Who::Sun, Some((AUTH, REQUEST, 2))),
        stage("authentication sent", initiated(plain(&[(AUTH, RESPONSE)])), Who::Moon, Some((AUTH, RESPONSE, 1))),
        stage("refusing", refusing, Who::Moon, Some((AUTH, RESPONSE, 1))),
        stage("half-open", initiated(plain(&[(AUTH, REQUEST)])), Who::Sun, Some((AUTH, REQUEST, 1))),
        stage("refused", initiated(refused), Who::Sun, None),
        stage("answering IKE_AUTH", initiated(answering), Who::Sun, None),
        stage("established", initiated(plain(&[])), Who::Sun, Some((INFORMATIONAL, REQUEST, 2))),
        stage("replaced", replaced, Who::Sun, Some((INFORMATIONAL, REQUEST, 3))),
        stage("deleting", deleting, Who::Sun, Some((INFORMATIONAL, RESPONSE, 0))),
    ]
}

impl Stage {
    fn new(
        name: &'static str,
        mut world: World,
        victim: Who,
        awaited: Option<(ExchangeType, MessageKind, u32)>,
    ) -> Self {
        let sas = &world.side(victim).engine.sas;
        let found = sas.iter().find(|(_, sa)| name_of(sa) == name);
        let names = || sas.values().map(name_of).collect::<Vec<_>>();
        let spi = *found.unwrap_or_else(|| panic!("nothing is {name} but {:?}", names())).0;
        Self { name, world, victim, spi, awaited }
    }

    /// The header of a message of the peer.
    fn header(&mut self, (exchange, kind, message_id): (ExchangeType, MessageKind, u32)) -> Header {
        let spi = self.spi;
        let is_initiator = self.victim == Who::Moon;
        let other = [9; 8];
        let peer_spi = self.peer_session().map_or(IkeSpi(other), |session| {
            let (initiator, responder) = session.names.spis();
            if is_initiator { responder } else { initiator }
        });
        let (initiator_spi, responder_spi) = if is_initiator { (spi, peer_spi) } else { (peer_spi, spi) };
        let sender = if is_initiator { Role::OriginalResponder } else { Role::OriginalInitiator };
        Header { initiator_spi, responder_spi, exchange, sender, kind, message_id }
    }

    /// The peer's half of the SA, if it has keys.
    fn peer_session(&mut self) -> Option<&mut Session> {
        let spi = self.spi;
        let sas = self.world.side(self.victim.other()).engine.sas.values_mut();
        sas.filter(|sa| !matches!(sa, IkeSa::Locating(_) | IkeSa::Initiating(_)))
            .map(session_in)
            .find(|session| session.names.spis().0 == spi || session.names.spis().1 == spi)
    }

    fn protected(&mut self, what: (ExchangeType, MessageKind, u32), payloads: &[Payload]) -> Option<Vec<u8>> {
        let spi = self.spi;
        let engine = &mut self.world.side(self.victim.other()).engine;
        let sas = engine.sas.values_mut().filter(|sa| !matches!(sa, IkeSa::Locating(_) | IkeSa::Initiating(_)));
        let session =
            sas.map(session_in).find(|session| [session.names.spis().0, session.names.spis().1].contains(&spi))?;
        let path = session.path;
        Some(session.seal(&mut engine.cx, what, path, payloads).unwrap().only())
    }

    /// What the victim makes of a message; nothing is carried out yet.
    fn deliver(&mut self, message: &[u8]) {
        let (victim, now) = (self.victim, self.world.now);
        let end = |who: Who| (who.address(), 500).into();
        let path = IkePath { local: end(victim), remote: end(victim.other()) };
        self.world.side(victim).engine.handle_datagram(now, path, message);
    }

    /// The stages of all of the victim's SAs.
    fn all(&mut self) -> Vec<&'static str> {
        self.world.side(self.victim).engine.sas.values().map(name_of).collect()
    }
}

/// R7296-1-1, R7296-1.4-1, rekey_before_auth, informational_before_auth, dpd_null_state.
#[test]
fn each_stage_is_moved_on_by_its_own_message_alone() {
    let mut random = SeededRandom::new(1);
    for mut stage in stages() {
        let before = stage.all();
        for number in [0, 240, 255].into_iter().chain(33..=46) {
            for (kind, id) in
                [REQUEST, RESPONSE].into_iter().flat_map(|kind| [0, 1, 2, 3, 9, u32::MAX].map(|id| (kind, id)))
            {
                let what = (ExchangeType::from_number(number), kind, id);
                let refusals =
                    [NotifyType::AuthenticationFailed, NotifyType::InvalidSyntax, NotifyType::NoProposalChosen];
                let clear: Vec<_> = refusals.map(|kind| Payload::Notify(Notify::new(kind))).into();
                let header = stage.header(what);
                let is_forged_refusal = stage.name == "initiating" && stage.awaited == Some(what);
                if !is_forged_refusal {
                    stage.deliver(&encode_message(&header, &clear).unwrap());
                    let sender = header.sender.peer();
                    stage.deliver(&encode_message(&Header { sender, ..header }, &[]).unwrap());
                }
                let is_next = stage.awaited.is_some_and(|(_, kind, id)| (kind, id) == (what.1, what.2));
                let is_served = ["established", "replaced"].contains(&stage.name) && is_next;
                if stage.awaited == Some(what) || is_served {
                    continue;
                }
                for payloads in [vec![Payload::Delete(Delete::IkeSa)], ike_rekeying(&mut random), Vec::new()] {
                    if let Some(message) = stage.protected(what, &payloads) {
                        stage.deliver(&message);
                    }
                }
                assert_eq!(stage.all(), before, "{}: {what:?}", stage.name);
            }
        }
        // What was under way comes to its end all the same.
        stage.world.repair_network();
        for who in [Who::Moon, Who::Sun] {
            stage.world.catch_up(who);
            stage.world.let_sign(who);
        }
        stage.world.pass(Duration::from_secs(120));
        if ["refusing", "refused", "deleting"].contains(&stage.name) {
            stage.world.assert_nothing_left();
        } else {
            stage.world.assert_agreement(1);
        }
    }
}

/// R7296-1-1: what is served in an established SA are CREATE_CHILD_SA and INFORMATIONAL.
#[test]
fn exchanges_without_a_place_end_an_established_sa() {
    for number in (0..=255).filter(|number| !matches!(number, 34 | 36 | 37)) {
        let mut peer = Peer::established();
        let refusal = peer.refusal(ExchangeType::from_number(number), &[]);
        assert_eq!(refusal, [NotifyType::InvalidSyntax], "exchange {number}");
        assert_eq!(peer.sas_of_sun(), 0);
    }
    let mut peer = Peer::established();
    assert!(peer.request(INIT, &[]).is_empty(), "IKE_SA_INIT is not protected");
    assert!(peer.is_alive());
}

/// missing_payloads.
#[test]
fn missing_payloads_in_ike_sa_init_and_ike_auth_are_missed() {
    let world = initiated(plain(&[(INIT, REQUEST)]));
    let request = Message::parse(&world.seen[0].message).unwrap();
    let needed = [PayloadType::SecurityAssociation, PayloadType::KeyExchange, PayloadType::Nonce];
    for kind in needed {
        for renamed in [None, Some(PayloadType::Other(49)), Some(PayloadType::Other(200))] {
            let mut world = World::new();
            let message = encode_message(&request.header, &changed(&request.payloads, kind, renamed)).unwrap();
            let path = IkePath { local: (Who::Sun.address(), 500).into(), remote: (Who::Moon.address(), 500).into() };
            let now = world.now;
            world.sun.engine.handle_datagram(now, path, &message);
            world.run();
            assert!(world.sun.engine.sas.is_empty() && world.seen.is_empty(), "{kind:?}");
        }
    }
    let needed = [
        PayloadType::IdInitiator,
        PayloadType::Authentication,
        PayloadType::SecurityAssociation,
        PayloadType::SelectorsInitiator,
        PayloadType::SelectorsResponder,
    ];
    for kind in needed {
        for renamed in [None, Some(PayloadType::Other(49)), Some(PayloadType::Other(200))] {
            let (mut stage, payloads) = half_open();
            let message = stage.protected((AUTH, REQUEST, 1), &changed(&payloads, kind, renamed)).unwrap();
            stage.deliver(&message);
            assert_eq!(stage.all(), ["refused"], "{kind:?}");
        }
    }
}

/// The payloads without those of a kind, or with those under another type.
fn changed(payloads: &[Payload], kind: PayloadType, renamed: Option<PayloadType>) -> Vec<Payload> {
    let change = |payload: &Payload| {
        if payload.kind() != kind {
            return Some(payload.clone());
        }
        renamed.map(|kind| Payload::Opaque { kind, body: vec![1, 2, 3, 4] })
    };
    payloads.iter().filter_map(change).collect()
}

/// Sun is half-open; with the payloads of the IKE_AUTH request that it waits for.
fn half_open() -> (Stage, Vec<Payload>) {
    let world = initiated(plain(&[(AUTH, REQUEST)]));
    let request = world.seen.last().unwrap().message.clone();
    let mut stage = Stage::new("half-open", world, Who::Sun, Some((AUTH, REQUEST, 1)));
    let spi = stage.spi;
    let payloads = session_of(&mut stage.world.sun, spi).read(&request).unwrap();
    (stage, payloads)
}

/// A payload that is there twice is one too many.
#[test]
fn payloads_that_come_twice_in_ike_auth_are_refused() {
    for kind in [PayloadType::IdInitiator, PayloadType::Authentication, PayloadType::SelectorsInitiator] {
        let (mut stage, mut payloads) = half_open();
        let again = payloads.iter().find(|payload| payload.kind() == kind).unwrap().clone();
        payloads.push(again);
        let message = stage.protected((AUTH, REQUEST, 1), &payloads).unwrap();
        stage.deliver(&message);
        assert_eq!(stage.all(), ["refused"], "{kind:?}");
    }
}

/// A first request without AUTH asks for EAP, and gets what all get who fail to authenticate themselves.
#[test]
fn a_peer_that_wants_eap_is_refused_and_the_log_says_why() {
    let (mut stage, payloads) = half_open();
    let request = changed(&payloads, PayloadType::Authentication, None);
    let message = stage.protected((AUTH, REQUEST, 1), &request).unwrap();
    stage.deliver(&message);
    stage.world.run();
    assert_eq!(stage.all(), ["refused"]);
    assert_eq!(stage.world.failures(Who::Sun), [FailureCode::AuthMethodRefused]);
    stage.world.repair_network();
    stage.world.pass(Duration::from_secs(10));
    assert_eq!(stage.world.failures(Who::Moon), [FailureCode::AuthRefusedByPeer]);
}

/// psk_missing_on_retransmit.
#[test]
fn psk_missing_on_retransmit_gets_the_same_refusal_again() {
    let (mut stage, payloads) = half_open();
    stage.world.command(Who::Sun, Command::RemoveSecret("psk".into()));
    stage.world.network(|_| Fate::Lose);
    let request = stage.protected((AUTH, REQUEST, 1), &payloads).unwrap();
    let before = stage.world.seen.len();
    for _ in 0..3 {
        stage.deliver(&request);
        stage.world.run();
    }
    // Another one with the same number, and the next one.
    let other = stage.protected((AUTH, REQUEST, 1), &payloads[..2]).unwrap();
    stage.deliver(&other);
    let next = stage.protected((AUTH, REQUEST, 2), &payloads).unwrap();
    stage.deliver(&next);
    stage.world.run();
    let sent: Vec<_> = stage.world.seen.drain(before..).filter(|datagram| datagram.from == Who::Sun).collect();
    assert_eq!(sent.len(), 4);
    assert!(sent.windows(2).all(|pair| pair[0].message == pair[1].message));
    assert_eq!(stage.all(), ["refused"]);
    stage.world.pass(Duration::from_secs(60));
    assert!(stage.all().is_empty());
}

/// null_state_log.
#[test]
fn null_state_log_messages_for_no_sa_get_a_notification_at_most() {
    let mut world = World::new();
    world.network(|_| Fate::Lose);
    for number in 0..=255u8 {
        for kind in [REQUEST, RESPONSE] {
            for sender in [Role::OriginalInitiator, Role::OriginalResponder] {
                let (initiator_spi, responder_spi) = (IkeSpi([1; 8]), IkeSpi([2; 8]));
                let exchange = ExchangeType::from_number(number);
                let header = Header { initiator_spi, responder_spi, exchange, sender, kind, message_id: 1 };
                let sk = Payload::Opaque { kind: PayloadType::Encrypted, body: vec![0; 64] };
                for payloads in [vec![], vec![sk], vec![Payload::Delete(Delete::IkeSa)]] {
                    let (now, before) = (world.now, world.seen.len());
                    let path =
                        IkePath { local: (Who::Sun.address(), 500).into(), remote: (Who::Moon.address(), 500).into() };
                    world.sun.engine.handle_datagram(now, path, &encode_message(&header, &payloads).unwrap());
                    world.run();
                    let sent = world.seen.len() - before;
                    assert!(sent <= usize::from(kind == REQUEST), "{header:?}");
                }
            }
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.sun.engine.sas.is_empty());
}
