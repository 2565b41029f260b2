//! Additional key exchanges for SAs that CREATE_CHILD_SA makes: IKE_FOLLOWUP_KE (RFC 9370 §2.2.4).
//!
//! ```text
//! CREATE_CHILD_SA   SA, Ni, KEi, ...            -->
//!                                               <--  SA, Nr, KEr, ..., N(ADDITIONAL_KEY_EXCHANGE)(link 1)
//! IKE_FOLLOWUP_KE   KEi(1), N(A...)(link 1)     -->
//!                                               <--  KEr(1), N(A...)(link 2)
//! IKE_FOLLOWUP_KE   KEi(2), N(A...)(link 2)     -->
//!                                               <--  KEr(2)
//! ```
//!
//! The new SA is there with the last answer; until then both ends may still forget it. What the nonces of CREATE_CHILD_SA
//! decide when two rekeyings meet is decided then.

use std::collections::VecDeque;
use std::time::Instant;

use espdp_api::{EspSpi, Secret};

use super::collision::{ChildActivity, PeerWish, Verdict, judge_request};
use super::context::Context;
use super::create_child::{ChildOffer, ChildTerms};
use super::established::{Established, Request};
use super::failure::Trouble;
use super::rekey_ike::{IkeOffer, IkeTerms};
use super::task::{Progress, Queued, Running};
use crate::crypto::key_exchange::{KeyExchange, respond};
use crate::io::ChildSaId;
use crate::proposal::{AdditionalGroups, KeyExchangeGroup};
use crate::rules::{Body, FOLLOWUP_REQUEST, FOLLOWUP_RESPONSE, INFORMATIONAL, notifies};
use crate::wire::{ExchangeType, KeyExchange as KeyExchangePayload, Notify, NotifyType, Payload};

/// The additional key exchanges that are still to come, and the secrets of those that are done. There are at most seven.
#[derive(Debug)]
pub(super) struct Rounds {
    to_come: VecDeque<KeyExchangeGroup>,
    secrets: Vec<Secret<Vec<u8>>>,
}

impl Rounds {
    pub(super) fn of(additional: AdditionalGroups) -> Self {
        Self { to_come: additional.rounds().map(|(_, group)| group).collect(), secrets: Vec::new() }
    }

    pub(super) fn are_done(&self) -> bool {
        self.to_come.is_empty()
    }
}

/// What the peer agreed to.
#[derive(Debug)]
pub(super) enum Made {
    Child(Box<(ChildOffer, ChildTerms)>),
    Ike(Box<(IkeOffer, IkeTerms)>),
}

/// What we wanted and the peer agreed to, in one of its additional key exchanges.
#[derive(Debug)]
pub(super) struct Following {
    made: Made,
    /// Those behind the current one.
    rounds: Rounds,
    key_exchange: KeyExchange,
}

impl Following {
    pub(super) fn is_for_child(&self) -> bool {
        matches!(self.made, Made::Child(_))
    }

    pub(super) fn child_offer(&mut self) -> Option<&mut ChildOffer> {
        if let Made::Child(made) = &mut self.made { Some(&mut made.0) } else { None }
    }

    /// Gives back what was taken for it.
    pub(super) fn discard(self, cx: &mut Context) {
        match self.made {
            Made::Child(made) => cx.release_spi(made.0.spi),
            Made::Ike(made) => cx.release_ike_spi(made.0.spi),
        }
    }

    /// The secret of the current round.
    fn agree(&self, body: &Body) -> Result<Secret<Vec<u8>>, Trouble> {
        let (theirs, group) = (body.key_exchange()?, self.key_exchange.group());
        if theirs.group != group as u16 {
            return Err(Trouble::NotOffered(format!("the answer is for group {}", theirs.group)));
        }
        self.key_exchange.agree(&theirs.data).map_err(|error| Trouble::NotOffered(error.to_string()))
    }
}

/// What the peer wants.
#[derive(Debug)]
pub(super) enum Begun {
    /// A child, in the place of the one on which the peer receives with this SPI.
    Child(Box<ChildTerms>, Option<EspSpi>),
    Ike(Box<IkeTerms>),
}

/// What the peer wants and we agreed to, before all its key exchanges are done. There is one at a time, and not for long.
#[derive(Debug)]
pub(super) struct Unfinished {
    begun: Begun,
    rounds: Rounds,
    /// By this the peer says what it goes on with.
    link: [u8; LINK_OCTETS],
    pub(super) expires: Instant,
}

impl Unfinished {
    /// Whether it is to replace this child.
    pub(super) fn replaces(&self, id: ChildSaId) -> bool {
        matches!(&self.begun, Begun::Child(terms, _) if terms.replaces.is_some_and(|(old, _)| old == id))
    }
}

impl Established {
    // As the one who asks.

    /// Begins the next additional key exchange, or carries out what was agreed on if there is none. `body` is the answer
    /// to the exchange before.
    pub(super) fn go_on_with_rounds(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        (made, mut rounds): (Made, Rounds),
        body: &Body,
    ) {
        let Some(group) = rounds.to_come.pop_front() else {
            return match made {
                Made::Child(made) => self.install_offered(cx, now, queued, *made, &rounds.secrets),
                Made::Ike(made) => self.replace_with_offered(cx, now, queued, *made, &rounds.secrets),
            };
        };
        let Some(link) = link_in(body) else {
            let trouble = Trouble::NotOffered("the peer does not say how to go on with key exchanges".to_owned());
            return self.following_failed(cx, now, queued, made, (trouble, true));
        };
        let key_exchange = KeyExchange::generate(group, &mut *cx.random);
        let payloads = [
            Payload::KeyExchange(KeyExchangePayload { group: group as u16, data: key_exchange.public().to_vec() }),
            Payload::Notify(Notify::with_data(NotifyType::AdditionalKeyExchange, link)),
        ];
        match self.request(cx, now, ExchangeType::IkeFollowupKe, &payloads) {
            Ok(()) => {
                let following = Following { made, rounds, key_exchange };
                self.running = Some(Running::new(queued, Progress::Following(Box::new(following))));
            }
            Err(trouble) => self.following_failed(cx, now, queued, made, (trouble, false)),
        }
    }

    pub(super) fn on_followup_response(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        following: Following,
        payloads: Vec<Payload>,
    ) {
        let is_error = notifies(&payloads).any(|notify| notify.kind.is_error());
        let form = if is_error { &INFORMATIONAL } else { &FOLLOWUP_RESPONSE };
        let agreed = form.check(payloads).map_err(Trouble::from).and_then(|body| match body.error() {
            // It has forgotten what was begun, or cannot finish it now: all begins anew later (RFC 9370 §2.2.4).
            Some(Notify { kind: NotifyType::StateNotFound | NotifyType::TemporaryFailure, .. }) => Err(Trouble::NotNow),
            Some(error) => Err(Trouble::Refused(error.kind)),
            None => Ok((following.agree(&body)?, body)),
        });
        let Following { made, mut rounds, .. } = following;
        match agreed {
            Ok((secret, body)) => {
                rounds.secrets.push(secret);
                self.go_on_with_rounds(cx, now, queued, (made, rounds), &body);
            }
            Err(trouble) => self.following_failed(cx, now, queued, made, (trouble, !is_error)),
        }
    }

    /// Nothing comes of what was agreed on; whether the peer believes that something does depends on who failed.
    fn following_failed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        made: Made,
        (trouble, peer_believes): (Trouble, bool),
    ) {
        match made {
            Made::Child(made) => self.offer_failed(cx, now, queued, made.0, (trouble, peer_believes)),
            Made::Ike(made) => self.ike_offer_failed(cx, now, queued, &made.0, trouble),
        }
    }

    // As the one who is asked.

    /// Answers a request after which the peer has to go on, and keeps what was agreed on for a while.
    pub(super) fn leave_unfinished(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (request, mut answer): (Request, Vec<Payload>),
        (begun, rounds): (Begun, Rounds),
    ) {
        let mut link = [0; LINK_OCTETS];
        cx.random.fill_public(&mut link);
        answer.push(Payload::Notify(Notify::with_data(NotifyType::AdditionalKeyExchange, link.to_vec())));
        self.answer(cx, now, request, answer);
        self.unfinished = Some(Unfinished { begun, rounds, link, expires: now + cx.settings.half_open_timeout });
    }

    /// The peer goes on. Things may have changed since it began, so its wish is judged again.
    pub(super) fn on_followup_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: Vec<Payload>,
    ) -> Result<(), Trouble> {
        let body = FOLLOWUP_REQUEST.check(payloads)?;
        let link = link_in(&body);
        let is_meant = |unfinished: &mut Unfinished| link.as_deref() == Some(&unfinished.link);
        let Unfinished { begun, mut rounds, .. } =
            self.unfinished.take_if(is_meant).ok_or(Trouble::NothingUnfinished)?;
        let answered = self.judge_begun(&begun).and_then(|()| {
            let group = rounds.to_come.pop_front().ok_or(Trouble::NothingUnfinished)?;
            answer_round(cx, group, &body)
        });
        let (answer, secret) = match answered {
            Ok(answered) => answered,
            Err(trouble) => {
                discard(cx, &begun);
                return Err(trouble);
            }
        };
        rounds.secrets.push(secret);
        let answer = vec![answer];
        match begun {
            begun if !rounds.are_done() => self.leave_unfinished(cx, now, (request, answer), (begun, rounds)),
            Begun::Child(terms, _) => {
                self.install_for_peer(cx, now, (request, answer, Vec::new()), *terms, &rounds.secrets);
            }
            Begun::Ike(terms) => {
                return self.replace_for_peer(cx, now, (request, answer), *terms, &rounds.secrets);
            }
        }
        Ok(())
    }

    fn judge_begun(&self, begun: &Begun) -> Result<(), Trouble> {
        let wish = match begun {
            Begun::Child(terms, Some(old)) => return self.judge_child_rekey(terms.suite.protocol, *old).map(|_| ()),
            Begun::Child(_, None) => PeerWish::CreateChild,
            Begun::Ike(_) => PeerWish::RekeyIke,
        };
        match judge_request(wish, self.activity_for_peer(), ChildActivity::Unknown) {
            Verdict::GoAhead | Verdict::GoAheadContested => Ok(()),
            Verdict::NotNow | Verdict::NoSuchChild => Err(Trouble::NotNow),
        }
    }

    /// Forgets what the peer has left unfinished.
    pub(super) fn drop_unfinished(&mut self, cx: &mut Context) {
        if let Some(unfinished) = self.unfinished.take() {
            discard(cx, &unfinished.begun);
        }
    }
}

fn discard(cx: &mut Context, begun: &Begun) {
    match begun {
        Begun::Child(terms, _) => cx.release_spi(terms.spi_in),
        Begun::Ike(terms) => cx.release_ike_spi(terms.names.responder_spi),
    }
}

/// Our half of an additional key exchange, and the secret.
pub(super) fn answer_round(
    cx: &mut Context,
    group: KeyExchangeGroup,
    body: &Body,
) -> Result<(Payload, Secret<Vec<u8>>), Trouble> {
    let theirs = body.key_exchange()?;
    if theirs.group != group as u16 {
        return Err(Trouble::NotOffered(format!("the key exchange is for group {}", theirs.group)));
    }
    let (data, secret) =
        respond(group, &theirs.data, &mut *cx.random).map_err(|error| Trouble::NotOffered(error.to_string()))?;
    Ok((Payload::KeyExchange(KeyExchangePayload { group: group as u16, data }), secret))
}

/// The octets by which the answering end recognises what is gone on with. They mean nothing to the other one.
fn link_in(body: &Body) -> Option<Vec<u8>> {
    let notify = body.notify(NotifyType::AdditionalKeyExchange)?;
    Some(notify.data.clone()).filter(|link| !link.is_empty())
}

/// Nobody but the peer sees them, and there is only one thing that they can mean.
const LINK_OCTETS: usize = 8;
