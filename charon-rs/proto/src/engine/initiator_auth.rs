//! Setting an IKE SA up as its initiator: IKE_AUTH (RFC 7296 §1.2, §2.15).
//!
//! [`Keyed`] → [`AuthSent`] → established, or [`Refusing`] when the peer failed to authenticate itself.

use std::net::IpAddr;
use std::time::Instant;

use espdp_api::EspSpi;

use super::auth::{Identities, InitMessages, prove_ourselves, verify_peer};
use super::context::Context;
use super::create_child::ChildOffer;
use super::established::{Authenticated, Established};
use super::failure::{Incompatible, Trouble};
use super::ike_sa::{IkeSa, Received};
use super::initiator::Attempt;
use super::session::{Opened, Session};
use super::task::{Queued, Task};
use super::window::{OurWindow, Retransmit, TheirWindow};
use crate::config::Connection;
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Ask, FailureCode, TimerKind};
use crate::rules::{AUTH_RESPONSE, Body, notifies};
use crate::wire::{Delete, ExchangeType, Identification, MessageKind, Notify, NotifyType, Payload, PayloadType};

/// The keys exist, and the dataplane was asked for an SPI for the first child.
pub(super) struct Keyed {
    pub(super) attempt: Attempt,
    pub(super) session: Session,
    pub(super) messages: InitMessages,
}

impl Keyed {
    pub(super) fn begin(cx: &mut Context, keyed: Self) -> Option<IkeSa> {
        keyed.session.export_keys(cx);
        let asker = super::context::Asker::SpiToOffer(keyed.attempt.spi);
        cx.ask(asker, Ask::Dataplane(espdp_api::Command::ReserveSpi));
        Some(IkeSa::Keyed(Box::new(keyed)))
    }

    /// Takes the SPI and sends the IKE_AUTH request.
    pub(super) fn on_spi(mut self, cx: &mut Context, now: Instant, spi: Result<EspSpi, String>) -> Option<IkeSa> {
        let remote = self.session.path.remote;
        let spi = match spi {
            Ok(spi) => spi,
            Err(why) => {
                self.attempt.fail(cx, now, Trouble::Local(why), Some(remote));
                return None;
            }
        };
        let Some(wish) = self.attempt.wishes.pop_front() else {
            cx.release_spi(spi);
            let trouble = Trouble::Local("an IKE SA without children is not supported".to_owned());
            self.attempt.fail(cx, now, trouble, Some(remote));
            return None;
        };
        let offer = ChildOffer::in_ike_auth(&self.session, wish, spi);
        match AuthSent::begin(cx, now, &mut self, &offer) {
            Ok((window, our_id)) => {
                let Self { attempt, session, messages } = self;
                Some(IkeSa::AuthSent(Box::new(AuthSent { attempt, session, messages, window, our_id, offer })))
            }
            Err(trouble) => {
                cx.release_spi(spi);
                self.attempt.wishes.push_front(offer.wish);
                self.attempt.fail(cx, now, trouble, Some(remote));
                None
            }
        }
    }
}

/// The IKE_AUTH request is on its way; the peer is not trusted yet.
pub(super) struct AuthSent {
    pub(super) attempt: Attempt,
    pub(super) session: Session,
    messages: InitMessages,
    window: OurWindow,
    our_id: Identity,
    offer: ChildOffer,
}

impl AuthSent {
    /// Builds and sends the request.
    fn begin(
        cx: &mut Context,
        now: Instant,
        keyed: &mut Keyed,
        offer: &ChildOffer,
    ) -> Result<(OurWindow, Identity), Trouble> {
        let connection = keyed.attempt.connection.clone();
        let our_id = own_identity(&connection, &keyed.session);
        let peer_guess = guess_of_peer(&connection, &keyed.session);
        let id_payload = Identification::new(our_id.clone());
        let identities = Identities { local: &our_id, remote: &peer_guess };
        let auth = prove_ourselves(&cx.secrets, &keyed.session, &keyed.messages, &id_payload, identities)
            .map_err(|reason| Trouble::Incompatible(Box::new(reason)))?;
        let mut payloads = vec![Payload::IdInitiator(id_payload)];
        if let IdentityPattern::Exactly(expected) = &connection.remote.identity {
            payloads.push(Payload::IdResponder(Identification::new(expected.clone())));
        }
        payloads.push(Payload::Authentication(auth));
        // R7296-2.4-4: true only if no other SA of these identities exists.
        if !cx.has_contact(&our_id, &connection.remote.identity) {
            payloads.push(Payload::Notify(Notify::new(NotifyType::InitialContact)));
        }
        payloads.extend(offer.payloads());
        let what = (ExchangeType::IkeAuth, MessageKind::Request, 1);
        let path = keyed.session.path;
        let message = keyed.session.seal(cx, what, path, &payloads)?;
        let mut window = OurWindow::starting_at(1);
        window.sent(now, ExchangeType::IkeAuth, message.clone(), &connection.retransmission);
        keyed.session.send(cx, now, path, message);
        Ok((window, our_id))
    }

    /// Takes the response. Only one that carries the right checksum means anything.
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let header = &received.message.header;
        let expected = header.kind == MessageKind::Response && self.window.expects(header.message_id, header.exchange);
        // Nothing but IKE_AUTH may come before authentication (R7296-1-1).
        let opened = if expected { self.session.open(cx, now, received) } else { None };
        let payloads = match opened {
            None => return Some(IkeSa::AuthSent(Box::new(self))),
            Some(Ok(opened)) => opened.payloads,
            Some(Err(error)) => return self.refuse(cx, now, error.into(), NotifyType::InvalidSyntax),
        };
        self.window.close();
        let authenticates = payloads.iter().any(|payload| payload.kind() == PayloadType::Authentication);
        if let Some(error) = notifies(&payloads).find(|notify| notify.kind.is_error() && !authenticates) {
            let kind = error.kind;
            self.fail(cx, now, Trouble::Refused(kind));
            return None;
        }
        let verified = AUTH_RESPONSE.check(payloads).map_err(Trouble::from).and_then(|body| {
            let (remote_id, peer) = self.verify(cx, &body)?;
            Ok((body, remote_id, peer))
        });
        match verified {
            Ok((body, remote_id, peer)) => {
                let authenticated = Authenticated { local_id: self.our_id.clone(), remote_id, _peer: peer };
                self.establish(cx, now, authenticated, &body)
            }
            Err(trouble) => self.refuse(cx, now, trouble, NotifyType::AuthenticationFailed),
        }
    }

    /// Checks who the peer is, and that it is.
    fn verify(&self, cx: &Context, body: &Body) -> Result<(Identity, super::auth::PeerAuthenticated), Trouble> {
        let id_payload = body.id_responder()?;
        let pattern = &self.attempt.connection.remote.identity;
        let identity = id_payload.identity().filter(|identity| pattern.matches(identity));
        let Some(identity) = identity else {
            let theirs = id_payload.identity().map_or_else(|| "of an unknown type".to_owned(), ToString::to_string);
            return Err(Trouble::Incompatible(Box::new(Incompatible {
                code: FailureCode::AuthIdRefused,
                notify: NotifyType::AuthenticationFailed,
                what: format!("the peer's identity is `{theirs}`, expected `{pattern}`"),
                ours: vec![pattern.to_string()],
                theirs: vec![theirs],
                hint: Some("set `rightid` to the identity that the peer has".to_owned()),
            })));
        };
        let identities = Identities { local: &self.our_id, remote: identity };
        let proof = (id_payload, body.authentication()?);
        let peer = verify_peer(&cx.secrets, &self.session, &self.messages, proof, identities)
            .map_err(|reason| Trouble::Incompatible(Box::new(reason)))?;
        Ok((identity.clone(), peer))
    }

    /// The peer is who it should be: the SA is established, whatever became of the child (R7296-2.21.2-3).
    fn establish(self, cx: &mut Context, now: Instant, who: Authenticated, body: &Body) -> Option<IkeSa> {
        let Self { attempt, session, window, offer, .. } = self;
        let mut sa = Established::new(cx, now, session, who, (window, TheirWindow::starting_at(0)));
        sa.come_up(cx);
        sa.finish_offer(cx, now, offer, body);
        for wish in attempt.wishes {
            sa.queue(cx, now, Queued::new(Task::CreateChild(wish)));
        }
        Some(IkeSa::Established(Box::new(sa)))
    }

    /// The response is wrong, so the peer believes in an SA that we do not want: it is told so (RFC 7296 §2.21.2).
    fn refuse(self, cx: &mut Context, now: Instant, trouble: Trouble, kind: NotifyType) -> Option<IkeSa> {
        let Self { mut attempt, mut session, offer, .. } = self;
        let remote = session.path.remote;
        cx.release_spi(offer.spi);
        attempt.wishes.push_front(offer.wish);
        attempt.fail(cx, now, trouble, Some(remote));
        let window = tell(cx, now, &mut session, Payload::Notify(Notify::new(kind)))?;
        Some(IkeSa::Refusing(Box::new(Refusing { session, window })))
    }

    fn fail(self, cx: &mut Context, now: Instant, trouble: Trouble) {
        let Self { mut attempt, session, offer, .. } = self;
        cx.release_spi(offer.spi);
        attempt.wishes.push_front(offer.wish);
        attempt.fail(cx, now, trouble, Some(session.path.remote));
    }

    pub(super) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let connection = self.attempt.connection.clone();
        match self.window.retransmit(now, &connection.retransmission) {
            Retransmit::NotDue => {}
            Retransmit::Again(message) => {
                let path = self.session.path;
                self.session.send(cx, now, path, message);
            }
            Retransmit::Exhausted => {
                let trouble = Trouble::silent_peer(&connection, self.session.path.remote);
                self.fail(cx, now, trouble);
                return None;
            }
        }
        Some(IkeSa::AuthSent(Box::new(self)))
    }

    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        self.window.due().map(|due| (due, TimerKind::Retransmit))
    }

    /// Adds a child to the attempt, or tickets to the one that is offered already.
    pub(super) fn wish(&mut self, wish: super::task::ChildWish) {
        if self.offer.wish.child.name == wish.child.name {
            self.offer.wish.tickets.extend(wish.tickets);
        } else {
            self.attempt.wish(wish);
        }
    }

    /// Somebody here does not want the SA any more. The peer may have it already, so its answer is waited for.
    pub(super) fn stop(self, cx: &mut Context) -> Refusing {
        let Self { mut attempt, session, window, offer, .. } = self;
        cx.release_spi(offer.spi);
        attempt.wishes.push_front(offer.wish);
        attempt.stop(cx);
        Refusing { session, window }
    }
}

/// The peer failed to authenticate itself, or nobody wants the SA any more. The peer is told until it confirms.
pub(super) struct Refusing {
    pub(super) session: Session,
    window: OurWindow,
}

impl Refusing {
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let header = &received.message.header;
        let expected = header.kind == MessageKind::Response && self.window.expects(header.message_id, header.exchange);
        let opened = if expected { self.session.open(cx, now, received) } else { None };
        let Some(Ok(Opened { payloads, .. })) = opened else {
            return Some(IkeSa::Refusing(Box::new(self)));
        };
        let authenticates = payloads.iter().any(|payload| payload.kind() == PayloadType::Authentication);
        if header.exchange != ExchangeType::IkeAuth || !authenticates {
            return None;
        }
        // The peer has the SA that nobody wants.
        self.window = tell(cx, now, &mut self.session, Payload::Delete(Delete::IkeSa))?;
        Some(IkeSa::Refusing(Box::new(self)))
    }

    pub(super) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let policy = self.session.connection.retransmission;
        match self.window.retransmit(now, &policy) {
            Retransmit::NotDue => {}
            Retransmit::Again(message) => {
                let path = self.session.path;
                self.session.send(cx, now, path, message);
            }
            Retransmit::Exhausted => return None,
        }
        Some(IkeSa::Refusing(Box::new(self)))
    }

    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        self.window.due().map(|due| (due, TimerKind::Retransmit))
    }
}

/// Sends the INFORMATIONAL request that follows IKE_AUTH.
fn tell(cx: &mut Context, now: Instant, session: &mut Session, payload: Payload) -> Option<OurWindow> {
    let (exchange, path) = (ExchangeType::Informational, session.path);
    let message = session.seal(cx, (exchange, MessageKind::Request, 2), path, &[payload]).ok()?;
    let mut window = OurWindow::starting_at(2);
    window.sent(now, exchange, message.clone(), &session.connection.retransmission);
    session.send(cx, now, path, message);
    Some(window)
}

/// The identity of a peer that is known by its address only.
fn identity_of(address: IpAddr) -> Identity {
    match address {
        IpAddr::V4(address) => Identity::Ipv4(address),
        IpAddr::V6(address) => Identity::Ipv6(address),
    }
}

/// Our identity: the configured one, or our address.
pub(super) fn own_identity(connection: &Connection, session: &Session) -> Identity {
    connection.local.identity.clone().unwrap_or_else(|| identity_of(session.path.local.ip()))
}

/// Who the peer will probably be, to find the key for our proof before it has named itself.
fn guess_of_peer(connection: &Connection, session: &Session) -> Identity {
    match &connection.remote.identity {
        IdentityPattern::Exactly(identity) => identity.clone(),
        IdentityPattern::Any | IdentityPattern::FqdnUnder(_) | IdentityPattern::Rfc822In(_) => {
            identity_of(session.path.remote.ip())
        }
    }
}
