//! Additional key exchanges between IKE_SA_INIT and IKE_AUTH (RFC 9242, RFC 9370 §2.2.2).
//!
//! ```text
//! IKE_SA_INIT            -->       suite, first key exchange: keys 0
//!                        <--
//! IKE_INTERMEDIATE, 1    -->       under keys 0: KEi(1)
//!                        <--       under keys 0: KEr(1), which makes keys 1
//! IKE_INTERMEDIATE, 2    -->       under keys 1, and so on: at most seven
//!                        <--
//! IKE_AUTH, n + 1        -->       under keys n, proves all messages before
//! ```
//!
//! The responder's part is in [`super::responder`].

use std::collections::VecDeque;
use std::time::Instant;

use espdp_api::Secret;

use super::auth::initiator::{InitiatorAuth, Keyed};
use super::context::Context;
use super::failure::Trouble;
use super::ike_sa::{IkeSa, Received};
use super::session::{Opened, Session};
use super::window::Retransmit;
use crate::crypto::key_exchange::KeyExchange;
use crate::io::TimerKind;
use crate::proposal::KeyExchangeGroup;
use crate::rules::{INTERMEDIATE_RESPONSE, notifies};
use crate::wire::{ExchangeType, KeyExchange as KeyExchangePayload, MessageKind, Payload, PlainMessage};

/// What IKE_AUTH proves of the IKE_INTERMEDIATE messages: a chain of PRF outputs for each direction (RFC 9242 §3.3.2).
///
/// ```text
/// IntAuth_in = prf(SK_pin, IntAuth_i(n-1) | message n of the initiator, as if not encrypted and not fragmented)
/// IntAuth    = IntAuth_iN | IntAuth_rN | Message ID of the first IKE_AUTH message
/// ```
#[derive(Debug, Default)]
pub(super) struct IntAuth {
    initiator: Vec<u8>,
    responder: Vec<u8>,
    exchanges: u32,
}

impl IntAuth {
    /// Adds an exchange, before its secret changes the keys (R9242-3.3.2-1).
    pub(super) fn add_exchange(&mut self, session: &Session, request: &PlainMessage, response: &PlainMessage) {
        let link = |sk_p: &Secret<Vec<u8>>, chain: &[u8], message: &PlainMessage| {
            session.suite.prf.compute(sk_p.expose(), &[chain, message.octets()]).expose().clone()
        };
        self.initiator = link(&session.keys.sk_pi, &self.initiator, request);
        self.responder = link(&session.keys.sk_pr, &self.responder, response);
        self.exchanges += 1;
    }

    /// What follows the octets that both ends sign: nothing, if there was no such exchange.
    pub(super) fn octets(&self) -> Vec<u8> {
        if self.exchanges == 0 {
            return Vec::new();
        }
        let auth_message_id = self.exchanges + 1;
        [&self.initiator[..], &self.responder, &auth_message_id.to_be_bytes()].concat()
    }
}

/// An additional key exchange of an SA that we set up is under way.
pub(super) struct Intermediate {
    pub(super) keyed: Keyed,
    /// Those after it.
    rounds: VecDeque<KeyExchangeGroup>,
    key_exchange: KeyExchange,
    request: PlainMessage,
}

impl Intermediate {
    /// Begins the first additional key exchange, or IKE_AUTH if none was agreed on.
    pub(super) fn begin(cx: &mut Context, now: Instant, keyed: Keyed) -> Option<IkeSa> {
        let rounds = keyed.session.suite.additional.rounds().map(|(_, group)| group).collect();
        Self::next(cx, now, keyed, rounds)
    }

    fn next(cx: &mut Context, now: Instant, mut keyed: Keyed, mut rounds: VecDeque<KeyExchangeGroup>) -> Option<IkeSa> {
        let Some(group) = rounds.pop_front() else {
            return InitiatorAuth::begin(cx, now, keyed);
        };
        let key_exchange = KeyExchange::generate(group, &mut *cx.random);
        match send(cx, now, &mut keyed, &key_exchange) {
            Ok(request) => Some(IkeSa::Intermediate(Box::new(Self { keyed, rounds, key_exchange, request }))),
            Err(trouble) => fail(cx, now, keyed, trouble),
        }
    }

    /// Takes the response. Only one that carries the right checksum means anything.
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let header = &received.message.header;
        let is_expected =
            header.kind == MessageKind::Response && self.keyed.window.expects(header.message_id, header.exchange);
        let opened = if is_expected { self.keyed.session.open(cx, now, received) } else { None };
        let Some(opened) = opened else {
            return Some(IkeSa::Intermediate(Box::new(self)));
        };
        self.keyed.window.close();
        let agreed = opened.map_err(Trouble::from).and_then(|opened| self.agree(opened));
        let Self { keyed, rounds, .. } = self;
        match agreed {
            Ok(()) => Self::next(cx, now, keyed, rounds),
            Err(trouble) => fail(cx, now, keyed, trouble),
        }
    }

    /// Notes the exchange for IKE_AUTH and goes on with the keys that its secret makes.
    fn agree(&mut self, opened: Opened) -> Result<(), Trouble> {
        let Opened { payloads, message } = opened;
        if let Some(error) = notifies(&payloads).find(|notify| notify.kind.is_error()) {
            return Err(Trouble::Refused(error.kind));
        }
        let body = INTERMEDIATE_RESPONSE.check(payloads)?;
        let (theirs, group) = (body.key_exchange()?, self.key_exchange.group());
        if theirs.group != group as u16 {
            return Err(Trouble::NotOffered(format!("the answer is for group {}", theirs.group)));
        }
        let secret = self.key_exchange.agree(&theirs.data).map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let Keyed { session, transcript, .. } = &mut self.keyed;
        transcript.intermediate.add_exchange(session, &self.request, &message);
        session.mix(&secret)
    }

    pub(super) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let connection = self.keyed.attempt.connection.clone();
        match self.keyed.window.retransmit(now, &connection.retransmission) {
            Retransmit::NotDue => {}
            Retransmit::Again(packets) => {
                let path = self.keyed.session.path;
                let owner = (connection.name.as_str(), self.keyed.session.names.id);
                cx.repeated(owner, (path, true), self.keyed.window.unanswered());
                self.keyed.session.send(cx, now, path, packets);
            }
            Retransmit::Exhausted => {
                let unanswered = self.keyed.window.unanswered();
                let trouble = Trouble::silent_peer(&connection, self.keyed.session.path, unanswered);
                return fail(cx, now, self.keyed, trouble);
            }
        }
        Some(IkeSa::Intermediate(Box::new(self)))
    }

    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        self.keyed.window.due().map(|due| (due, TimerKind::Retransmit))
    }
}

/// Sends the request with our public value.
fn send(
    cx: &mut Context,
    now: Instant,
    keyed: &mut Keyed,
    key_exchange: &KeyExchange,
) -> Result<PlainMessage, Trouble> {
    let Keyed { attempt, session, window, .. } = keyed;
    let used_up = || Trouble::Local("the message numbers of the IKE SA are used up".to_owned());
    let message_id = window.free_id().ok_or_else(used_up)?;
    let (exchange, kind, path) = (ExchangeType::IkeIntermediate, MessageKind::Request, session.path);
    let (group, data) = (key_exchange.group() as u16, key_exchange.public().to_vec());
    let payloads = [Payload::KeyExchange(KeyExchangePayload { group, data })];
    let request = PlainMessage::new(&session.names.header(exchange, kind, message_id), &payloads)?;
    let packets = session.seal(cx, (exchange, kind, message_id), path, &payloads)?;
    window.sent(now, exchange, packets.clone(), &attempt.connection.retransmission);
    session.send(cx, now, path, packets);
    Ok(request)
}

/// Nothing comes of it. The responder has only a half-open SA, which it forgets.
fn fail(cx: &mut Context, now: Instant, keyed: Keyed, trouble: Trouble) -> Option<IkeSa> {
    let remote = keyed.session.path.remote;
    keyed.attempt.fail(cx, now, trouble, Some(remote));
    None
}
