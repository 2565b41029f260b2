//! A peer that has the keys and sends what no peer should.
//!
//! It takes moon's keys after an honest handshake; moon's engine hears nothing any more. Whatever it does over its IKE SA,
//! sun must not panic, must not hold or send without limit, and must serve its other peers.

use std::time::Duration;

use espdp_api::{EspSpi, IkePath};

use super::super::ike_sa::IkeSa;
use super::super::session::Session;
use super::super::testbed::{Fate, Side, Who, World, net, two_children};
use crate::SecureRandom;
use crate::config::{Connection, Fragmentation, RemoteAddress};
use crate::io::{Command, IkeSpi, Target, Ticket};
use crate::proposal::{EspProposal, esp_offer, ike_offer};
use crate::testing::SeededRandom;
use crate::wire::{Delete, ExchangeType, Header, KeyExchange, MessageKind, Notify, NotifyType, Payload, PayloadType};

mod hostile_peer;
mod stages;
mod storms;

/// What the peer got for one of its messages.
#[derive(Debug)]
struct Sent {
    header: Header,
    /// `None` for what is not protected with the keys of the SA.
    payloads: Option<Vec<Payload>>,
    path: IkePath,
}

impl Sent {
    fn is_response(&self) -> bool {
        self.header.kind == MessageKind::Response
    }

    fn notifies(&self) -> Vec<NotifyType> {
        let kind = |payload: &Payload| if let Payload::Notify(notify) = payload { Some(notify.kind) } else { None };
        self.payloads.iter().flatten().filter_map(kind).collect()
    }
}

/// The peer, and the world that it is in.
struct Peer {
    world: World,
    /// The SPI of its SA at moon.
    spi: IkeSpi,
    /// The number of its next request.
    next: u32,
}

impl Peer {
    /// Has an IKE SA with the child `net`.
    fn established() -> Self {
        Self::established_with(|_, _| {})
    }

    fn established_with(adapt: impl Fn(Who, &mut Connection)) -> Self {
        let mut world = World::with(|who, connection| {
            connection.fragmentation = Fragmentation::Never;
            adapt(who, connection);
        });
        world.initiate_child(Who::Moon, Some("net"));
        world.assert_agreement(1);
        world.network(|_| Fate::Lose);
        let spi = *world.moon.engine.sas.keys().next().unwrap();
        Self { world, spi, next: 2 }
    }

    /// The same, and sun has another IKE SA with the child `second` over which nothing strange comes.
    fn beside_an_honest_one() -> Self {
        let mut world = World::with(|_, connection| connection.fragmentation = Fragmentation::Never);
        for who in [Who::Moon, Who::Sun] {
            let mut other = super::super::testbed::connection(who);
            two_children(who, &mut other);
            other.children.remove(0);
            other.name = "honest".into();
            world.command(who, Command::SetConnection(Box::new(other)));
        }
        world.initiate_child(Who::Moon, Some("net"));
        let spi = *world.moon.engine.sas.keys().next().unwrap();
        let (connection, child) = (Some("honest".into()), Some("second".into()));
        world.command(Who::Moon, Command::Initiate { ticket: Ticket(77), connection, child });
        world.run();
        assert_eq!(world.settled(Who::Moon, Ticket(77)).unwrap().done, 1);
        world.network(|_| Fate::Lose);
        Self { world, spi, next: 2 }
    }

    /// Sun and its peer beside us can still replace what they have.
    fn assert_the_honest_one_is_unharmed(&mut self) {
        let hostile = self.spi;
        self.world.network(
            move |datagram| {
                if datagram.header().initiator_spi == hostile { Fate::Lose } else { Fate::Deliver }
            },
        );
        let target = Target::Child { connection: Some("honest".into()), child: "second".into() };
        let ticket = self.world.rekey(Who::Sun, target);
        self.world.pass(Duration::from_secs(1));
        assert_eq!(self.world.settled(Who::Sun, ticket).unwrap().done, 1);
        self.world.network(|_| Fate::Lose);
    }

    fn session(&mut self) -> &mut Session {
        session_of(&mut self.world.moon, self.spi)
    }

    /// A message with the next number, or with that of the request that it answers.
    fn seal(&mut self, exchange: ExchangeType, kind: MessageKind, id: u32, payloads: &[Payload]) -> Vec<u8> {
        let path = self.session().path;
        let engine = &mut self.world.moon.engine;
        let sa = session_in(engine.sas.get_mut(&self.spi).unwrap());
        sa.seal(&mut engine.cx, (exchange, kind, id), path, payloads).unwrap().only()
    }

    /// A request around any octets.
    fn seal_octets(&mut self, exchange: ExchangeType, first: u8, octets: &[u8]) -> Vec<u8> {
        let what = (exchange, MessageKind::Request, self.next);
        self.next += 1;
        let engine = &mut self.world.moon.engine;
        let sa = session_in(engine.sas.get_mut(&self.spi).unwrap());
        sa.seal_octets(&mut engine.cx, what, (PayloadType::from_number(first), octets))
    }

    /// Sends a message from where the peer is, and returns all that sun sends at once.
    fn send(&mut self, message: &[u8]) -> Vec<Sent> {
        let IkePath { local, remote } = self.session().path;
        self.send_on(IkePath { local: remote, remote: local }, message)
    }

    /// Sends a message that sun sees on this path.
    fn send_on(&mut self, path: IkePath, message: &[u8]) -> Vec<Sent> {
        let (now, before) = (self.world.now, self.world.seen.len());
        self.world.sun.engine.handle_datagram(now, path, message);
        self.world.run();
        self.received_since(before)
    }

    /// What sun has sent since.
    fn received_since(&mut self, before: usize) -> Vec<Sent> {
        let datagrams: Vec<_> = self.world.seen.drain(before..).filter(|datagram| datagram.from == Who::Sun).collect();
        let session = session_in(self.world.moon.engine.sas.get_mut(&self.spi).unwrap());
        datagrams
            .iter()
            .map(|datagram| Sent {
                header: datagram.header(),
                payloads: session.read(&datagram.message),
                path: datagram.path,
            })
            .collect()
    }

    /// Lets time pass, and returns what sun sends meanwhile.
    fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let before = self.world.seen.len();
        self.world.pass(time);
        self.received_since(before)
    }

    fn request(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Sent> {
        let message = self.seal(exchange, MessageKind::Request, self.next, payloads);
        self.next += 1;
        self.send(&message)
    }

    /// The notifications in the response to a request, which must be the only thing that comes.
    fn refusal(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Vec<NotifyType> {
        let sent = self.request(exchange, payloads);
        let [response] = &sent[..] else { panic!("{sent:?}") };
        assert!(response.is_response() && response.payloads.is_some(), "{response:?}");
        response.notifies()
    }

    fn respond(&mut self, to: &Header, payloads: &[Payload]) -> Vec<Sent> {
        let message = self.seal(to.exchange, MessageKind::Response, to.message_id, payloads);
        self.send(&message)
    }

    /// Has sun replace something, and returns its request, which waits for a response.
    fn provoke_rekeying(&mut self, target: Target) -> Header {
        let before = self.world.seen.len();
        self.world.rekey(Who::Sun, target);
        let sent = self.received_since(before);
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].header.exchange, ExchangeType::CreateChildSa);
        sent[0].header
    }

    /// The IKE SAs that sun has, in whatever stage.
    fn sas_of_sun(&self) -> usize {
        self.world.sun.engine.sas.len()
    }

    /// The children of all IKE SAs of sun, those included that only drain.
    fn children_of_sun(&self) -> usize {
        let sas = self.world.sun.engine.sas.values();
        sas.filter_map(IkeSa::established).map(|sa| sa.children.len()).sum()
    }

    fn tasks_of_sun(&self) -> usize {
        let sas = self.world.sun.engine.sas.values();
        sas.filter_map(IkeSa::established).map(|sa| sa.tasks.iter().count()).sum()
    }

    /// Whether sun still has the SA.
    fn is_alive(&mut self) -> bool {
        let spi = self.session().names.spis().1;
        self.world.sun.engine.sas.get(&spi).is_some_and(|sa| sa.established().is_some())
    }
}

fn session_of(side: &mut Side, spi: IkeSpi) -> &mut Session {
    session_in(side.engine.sas.get_mut(&spi).unwrap())
}

/// The session of an SA that has keys.
fn session_in(sa: &mut IkeSa) -> &mut Session {
    if let IkeSa::Established(sa) = sa {
        &mut sa.session
    } else if let IkeSa::Intermediate(intermediate) = sa {
        &mut intermediate.keyed.session
    } else if let IkeSa::InitiatorAuth(auth) = sa {
        &mut auth.handshake.session
    } else if let IkeSa::ResponderAuth(auth) = sa {
        &mut auth.handshake.half_open.session
    } else if let IkeSa::HalfOpen(half_open) = sa {
        &mut half_open.session
    } else if let IkeSa::Refused(refused) = sa {
        &mut refused.session
    } else if let IkeSa::Refusing(refusing) = sa {
        &mut refusing.session
    } else {
        panic!("this SA has no keys yet")
    }
}

fn spi(number: u32) -> EspSpi {
    EspSpi::try_from(number).unwrap()
}

/// A request for a child with everything, by the SPI of the peer.
fn child_offer(peer_spi: EspSpi) -> Vec<Payload> {
    let offer = "aes256gcm16".parse::<EspProposal>().unwrap();
    vec![
        Payload::SecurityAssociation(esp_offer(&[offer], peer_spi)),
        Payload::Nonce(vec![7; 32]),
        Payload::SelectorsInitiator(vec![net("10.1.0.0", "10.1.255.255")]),
        Payload::SelectorsResponder(vec![net("10.2.0.0", "10.2.255.255")]),
    ]
}

/// A request to replace a child.
fn child_rekeying(old: EspSpi, peer_spi: EspSpi) -> Vec<Payload> {
    let mut payloads = vec![Payload::Notify(Notify::about(NotifyType::RekeySa, old))];
    payloads.extend(child_offer(peer_spi));
    payloads
}

/// A request to replace the IKE SA.
fn ike_rekeying(random: &mut SeededRandom) -> Vec<Payload> {
    let proposals = ["aes256gcm16-prfsha256-x25519".parse().unwrap()];
    let (mut new, mut public) = ([0; 8], vec![0; 32]);
    random.fill_public(&mut new);
    random.fill_public(&mut public);
    vec![
        Payload::SecurityAssociation(ike_offer(&proposals, Some(IkeSpi(new)))),
        Payload::Nonce(vec![7; 32]),
        Payload::KeyExchange(KeyExchange { group: 31, data: public }),
    ]
}

fn ike() -> Target {
    Target::Connection("net-net".into())
}

fn child() -> Target {
    Target::Child { connection: Some("net-net".into()), child: "net".into() }
}

/// What sun calls the peer's receiving half of the child `net`.
fn spi_of_child(peer: &mut Peer) -> EspSpi {
    let sas = peer.world.ike_sas(Who::Sun);
    let sa = sas.iter().find(|sa| sa.connection == "net-net").unwrap();
    sa.children.iter().find(|child| child.name == "net").unwrap().spi_out.unwrap()
}
