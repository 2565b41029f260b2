//! Setting an IKE SA up as its responder: from an admitted IKE_SA_INIT request to the first IKE_AUTH request
//! (RFC 7296 §1.2).
//!
//! [`HalfOpen`] → what follows in [`super::auth::responder`], or [`Refused`], which repeats the refusal to those who did
//! not hear it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use espdp_api::IkePath;

use super::auth::Transcript;
use super::auth::certificates;
use super::auth::refusal::Refused;
use super::auth::responder::ResponderAuth;
use super::context::{Context, Sent};
use super::established::Request;
use super::extensions::{Extensions, announcements_in_init_response, may_be_childless};
use super::failure::{About, Reaction, Trouble, Trust};
use super::followup::answer_round;
use super::ike_sa::{IkeSa, Received};
use super::intermediate::IntAuth;
use super::nat::{Nat, agreed, for_speed, nat_detection_payloads, wants_speed};
use super::negotiate::{RoundsAllowed, choose_ike};
use super::session::{Names, Opened, Session, SessionParts};
use super::window::{Arrival, TheirWindow, Unanswered};
use crate::config::Connection;
use crate::crypto::key_exchange::respond;
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::io::{IkeSpi, Notice, TimerKind};
use crate::proposal::KeyExchangeGroup;
use crate::rules::{AUTH_REQUEST, Body, CHILDLESS_AUTH_REQUEST, INTERMEDIATE_REQUEST};
use crate::wire::{
    ExchangeType, KeyExchange as KeyExchangePayload, MessageKind, NotifyType, Payload, PayloadType, PlainMessage, Role,
    WireError, encode_message,
};

/// An IKE_SA_INIT request is answered; nobody knows who sent it.
pub(super) struct HalfOpen {
    pub(super) session: Session,
    pub(super) transcript: Transcript,
    /// Where the request came from.
    pub(super) source: IkePath,
    pub(super) theirs: TheirWindow,
    /// Additional key exchanges that are still to come, before IKE_AUTH: at most seven, and no exchange without one
    /// (R9242-5-1).
    pub(super) rounds: VecDeque<KeyExchangeGroup>,
    /// We said that there need not be a Child SA (RFC 6023).
    childless: bool,
    pub(super) began: Instant,
    pub(super) expires: Instant,
}

impl HalfOpen {
    /// Answers an IKE_SA_INIT request that was admitted, with the first of `candidates` that has something in common
    /// with it.
    pub(super) fn begin(
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
        body: &Body,
        candidates: &[Arc<Connection>],
    ) -> Result<Self, Trouble> {
        let theirs = body.key_exchange()?;
        let (connection, agreement) = choose_connection(candidates, body, theirs.group)?;
        // R6989-2.5-1: a bad public value is nobody's business.
        let (public, shared_secret) = respond(agreement.suite.group, &theirs.data, &mut *cx.random)
            .map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let (nonce_i, nonce_r) = (body.nonce()?.to_vec(), cx.new_nonce());
        let initiator_spi = received.message.header.initiator_spi;
        let responder_spi = cx.new_ike_spi();
        let id = cx.new_ike_sa_id();
        let names = Names { id, role: Role::OriginalResponder, initiator_spi, responder_spi };
        let exchange = IkeExchange {
            shared_secret: &shared_secret,
            more_secrets: &[],
            initiator_nonce: &nonce_i,
            responder_nonce: &nonce_r,
            initiator_spi,
            responder_spi,
        };
        // The sender hashed the SPIs of the header, where the responder's is still zero (RFC 7296 §2.23).
        let spis = (initiator_spi, IkeSpi::default());
        let encapsulation = agreed(connection.encapsulation, wants_speed(&received.message.payloads));
        let nat = Nat::detect(body.notifies(), spis, received.path, encapsulation);
        let mut parts = SessionParts {
            names,
            connection: connection.clone(),
            path: received.path,
            nat,
            suite: agreement.suite,
            keys: IkeKeys::first(agreement.suite, &exchange),
            nonce_i,
            nonce_r: nonce_r.clone(),
            extensions: Extensions::announced_in_init(&connection, body.notifies()),
        };
        // Without such keys we could do nothing with it.
        parts.extensions.ppk &= !cx.ppks.is_empty();
        let announcements = announcements_in_init_response(candidates, &parts.extensions);
        let session = Session::new(now, parts).map_err(|error| {
            cx.release_ike_spi(responder_spi);
            Trouble::Local(error.to_string())
        })?;
        let mut answer = vec![
            Payload::SecurityAssociation(vec![agreement.answer]),
            Payload::KeyExchange(KeyExchangePayload { group: agreement.suite.group as u16, data: public }),
            Payload::Nonce(nonce_r),
        ];
        answer.extend(nat_detection_payloads(cx, names.spis(), received.path, connection.encapsulation));
        answer.extend(for_speed(connection.encapsulation));
        answer.extend(certificates::requests(candidates.iter().map(|connection| &**connection)));
        answer.extend(announcements);
        let header = names.header(ExchangeType::IkeSaInit, MessageKind::Response, 0);
        let message = encode_message(&header, &answer).inspect_err(|_| cx.release_ike_spi(responder_spi))?;
        let sent = Sent { path: received.path, by_us: true, octets: message.len(), fragments: None };
        cx.trace(Some((&connection.name, id)), sent, &header, &answer);
        let rounds: VecDeque<KeyExchangeGroup> = session.suite.additional.rounds().map(|(_, group)| group).collect();
        if rounds.is_empty() {
            session.export_keys(cx);
        }
        cx.transmit(received.path, message.clone());
        let (theirs, intermediate) = (received.datagram.to_vec(), IntAuth::default());
        Ok(Self {
            session,
            transcript: Transcript { ours: message, theirs, intermediate },
            source: received.path,
            // The size is 1 until the initial exchanges are over (RFC 7296 §2.3).
            theirs: TheirWindow::starting_at(1, 1),
            rounds,
            childless: candidates.iter().any(|connection| may_be_childless(connection)),
            began: now,
            expires: now + cx.settings.half_open_timeout,
        })
    }

    /// The IKE_SA_INIT request again: the same answer again, if it is the same request.
    pub(super) fn on_init_again(&self, cx: &mut Context, path: IkePath, datagram: &[u8]) {
        if datagram == self.transcript.theirs {
            let owner = (self.session.connection.name.as_str(), self.session.names.id);
            let (exchange, message_id, octets) = (ExchangeType::IkeSaInit, 0, datagram.len());
            cx.repeated(owner, (path, false), Unanswered { exchange, message_id, octets, ..Unanswered::default() });
            cx.transmit(path, self.transcript.ours.clone());
        }
    }

    /// Takes the IKE_INTERMEDIATE requests that were agreed on, then the first IKE_AUTH request. Nothing else is heard
    /// before it (R7296-1-1, R7296-1.4-1).
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let Some((request, opened)) = self.receive(cx, now, received) else {
            return Some(IkeSa::HalfOpen(Box::new(self)));
        };
        if request.exchange == ExchangeType::IkeIntermediate {
            return match self.answer_intermediate(cx, now, request, opened) {
                Ok(Some(())) => Some(IkeSa::HalfOpen(Box::new(self))),
                Ok(None) => None,
                Err(trouble) => self.refuse(cx, now, request, trouble),
            };
        }
        let checked = opened.map_err(Trouble::from).and_then(|Opened { payloads, .. }| {
            let wants_child = payloads.iter().any(|payload| CHILD_PAYLOADS.contains(&payload.kind()));
            let form = if wants_child || !self.childless { &AUTH_REQUEST } else { &CHILDLESS_AUTH_REQUEST };
            Ok(form.check(payloads)?)
        });
        match checked {
            Ok(body) => ResponderAuth::begin(cx, now, self, request, body),
            Err(trouble) => self.refuse(cx, now, request, trouble),
        }
    }

    /// Does an additional key exchange (RFC 9370 §2.2.2). `None` if the answer cannot be sent, which ends the SA.
    fn answer_intermediate(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        opened: Result<Opened, WireError>,
    ) -> Result<Option<()>, Trouble> {
        let Opened { payloads, message } = opened?;
        let body = INTERMEDIATE_REQUEST.check(payloads)?;
        let group = self.rounds.pop_front().ok_or(Trouble::Misplaced(request.exchange))?;
        let (answer, secret) = answer_round(cx, group, &body)?;
        let header = self.session.names.header(request.exchange, MessageKind::Response, request.message_id);
        let payloads = [answer];
        let sent = PlainMessage::new(&header, &payloads)?;
        if self.answer(cx, now, request, &payloads).is_none() {
            return Ok(None);
        }
        self.transcript.intermediate.add_exchange(&self.session, &message, &sent);
        self.session.mix(&secret)?;
        if self.rounds.is_empty() {
            self.session.export_keys(cx);
        }
        Ok(Some(()))
    }

    /// Takes what may be the next request, for IKE_AUTH unless additional key exchanges are still to come (R9242-3.2-1):
    /// `None` if it is none, or is dealt with. Only one that carries the right checksum means anything.
    pub(super) fn receive(
        &mut self,
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
    ) -> Option<(Request, Result<Opened, WireError>)> {
        let header = received.message.header;
        let due = if self.rounds.is_empty() { ExchangeType::IkeAuth } else { ExchangeType::IkeIntermediate };
        let is_due = header.kind == MessageKind::Request && header.exchange == due;
        match self.theirs.arrival(header.message_id) {
            Arrival::New if is_due => {}
            Arrival::Repeated(response) if self.session.is_repetition(received) => {
                self.session.send(cx, now, received.path, response);
                return None;
            }
            Arrival::New | Arrival::Repeated(_) | Arrival::Ignored => return None,
        }
        let opened = self.session.open(cx, now, received)?;
        self.theirs.accept(header.message_id);
        self.session.forget_keys_before();
        // Whatever address the message came from, it is where the peer is now: usually the NAT-T ports.
        self.session.path = received.path;
        let request = Request { exchange: header.exchange, message_id: header.message_id, path: received.path };
        Some((request, opened))
    }

    /// Answers a request, after which another one is awaited. `None` if the answer cannot be sent, which ends the SA.
    pub(super) fn answer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: &[Payload],
    ) -> Option<()> {
        let what = (request.exchange, MessageKind::Response, request.message_id);
        let message = self.session.seal(cx, what, request.path, payloads).ok()?;
        self.theirs.answered(request.message_id, message.clone());
        self.session.send(cx, now, request.path, message);
        Some(())
    }

    /// Says no: all failures of authentication look alike from outside (R7296-2.21.2-2).
    pub(super) fn refuse(
        mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        trouble: Trouble,
    ) -> Option<IkeSa> {
        let reaction = trouble.reaction(Trust::Keyed);
        self.report(cx, trouble);
        let (Reaction::Answer(notify) | Reaction::AnswerAndClose(notify)) = reaction else {
            return None;
        };
        self.answer(cx, now, request, &[Payload::Notify(notify)])?;
        Some(Refused::keep(self))
    }

    fn report(&self, cx: &mut Context, trouble: Trouble) {
        cx.fail(trouble.into_failure(self.about()));
    }

    /// Time is up: `trouble` tells if that is our fault.
    pub(super) fn give_up(self, cx: &mut Context, trouble: Option<Trouble>) {
        if let Some(trouble) = trouble {
            return self.report(cx, trouble);
        }
        let trouble = Trouble::peer_gave_up(self.source, self.session.path);
        cx.notice(Notice::Abandoned(Box::new(trouble.into_failure(self.about()))));
    }

    fn about(&self) -> About<'_> {
        let (session, ike_sa) = (&self.session, Some(self.session.names.id));
        About { ike_sa, connection: Some(&session.connection), child: None, peer: Some(session.path.remote) }
    }

    pub(super) fn on_timeout(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        if self.expires > now {
            return Some(IkeSa::HalfOpen(Box::new(self)));
        }
        self.give_up(cx, None);
        None
    }

    pub(super) fn deadline(&self) -> (Instant, TimerKind) {
        (self.expires, TimerKind::HalfOpen)
    }
}

/// By these a request wants a Child SA.
const CHILD_PAYLOADS: [PayloadType; 3] =
    [PayloadType::SecurityAssociation, PayloadType::SelectorsInitiator, PayloadType::SelectorsResponder];

/// The first connection that has proposals in common with the request.
fn choose_connection(
    candidates: &[Arc<Connection>],
    body: &Body,
    group: u16,
) -> Result<(Arc<Connection>, crate::proposal::IkeAgreement), Trouble> {
    let announced = body.has_notify(NotifyType::IntermediateExchangeSupported);
    let rounds = if announced { RoundsAllowed::Yes } else { RoundsAllowed::No };
    let mut first_trouble = None;
    for connection in candidates {
        match choose_ike(connection, body.proposals()?, group, rounds) {
            Ok(agreement) => return Ok((connection.clone(), agreement)),
            // A connection that only wants another group is nearer than one with nothing in common.
            Err(trouble @ Trouble::WrongGroup { .. }) => {
                first_trouble =
                    Some(first_trouble.filter(|first| matches!(first, Trouble::WrongGroup { .. })).unwrap_or(trouble));
            }
            Err(trouble) => first_trouble = Some(first_trouble.unwrap_or(trouble)),
        }
    }
    Err(first_trouble.unwrap_or_else(|| Trouble::Local("there is no connection for these addresses".to_owned())))
}
