//! IKE_AUTH as its initiator (RFC 7296 §1.2, RFC 4739 §2.1).
//!
//! Awaiting an SPI for the first child → proving who we are → the request is [sent](Stage::Sent) → judging the responder
//! → the same from our proof on for each further round → established; or [`Refusing`] when the responder failed to
//! authenticate itself.

use std::time::Instant;

use espdp_api::{Command as DataplaneCommand, EspSpi, SpiWish};

use super::ppk::Offered;
use super::proof::{Audience, Proof, Proving, on_signed, prove};
use super::refusal::Refusing;
use super::verdict::{Authenticated, Claim, Judging, Passed, Verdict, check_round, judge};
use super::{Transcript, certificates, identity_of, own_identity_in};
use crate::config::{Childless, Connection, Gateway, LocalMethod, Uniqueness};
use crate::engine::context::{Asker, Context};
use crate::engine::create_child::ChildOffer;
use crate::engine::established::Established;
use crate::engine::extensions::{announcements_in_auth_request, window_announcement};
use crate::engine::failure::{Reaction, Trouble, Trust};
use crate::engine::ike_sa::{FollowUp, IkeSa, Received};
use crate::engine::initiator::Attempt;
use crate::engine::mobike::{Mobike, announcement};
use crate::engine::redirect::{redirected_in, remark_redirection};
use crate::engine::session::Session;
use crate::engine::task::{ChildWish, Queued, Task};
use crate::engine::virtual_addresses::VirtualAddresses;
use crate::engine::window::{OurWindow, Retransmit, TheirWindow};
use crate::identity::IdentityPattern;
use crate::io::{Ask, CertificateRequest, ProofRefusal, RemarkLevel, Signed, Ticket, TimerKind, Verified};
use crate::rules::{AUTH_RESPONSE, Body, LATER_AUTH_RESPONSE, notifies};
use crate::wire::{Delete, ExchangeType, Identification, MessageKind, Notify, NotifyType, Payload, PayloadType, Role};

/// What IKE_SA_INIT leaves to what follows: keys, and nobody is known yet.
pub(in crate::engine) struct Keyed {
    pub(in crate::engine) attempt: Attempt,
    pub(in crate::engine) session: Session,
    pub(in crate::engine) transcript: Transcript,
    pub(in crate::engine) window: OurWindow,
    /// Whose certificates are of use to the responder.
    pub(in crate::engine) requested: Vec<CertificateRequest>,
}

/// An IKE SA that we set up and whose responder is not known yet.
pub(in crate::engine) struct InitiatorAuth {
    pub(in crate::engine) handshake: Handshake,
    stage: Stage,
}

/// What there is in all stages.
pub(in crate::engine) struct Handshake {
    pub(in crate::engine) attempt: Attempt,
    pub(in crate::engine) session: Session,
    transcript: Transcript,
    window: OurWindow,
    requested: Vec<CertificateRequest>,
    /// The post-quantum key that we have mixed in, until the responder says whether it has, too.
    ppk: Option<Offered>,
    /// The child that goes along.
    offer: Option<ChildOffer>,
    /// Exchanges that are done.
    round: usize,
    passed: Passed,
}

enum Stage {
    /// The dataplane was asked for an SPI for the first child.
    AwaitingSpi,
    /// The shell makes our signature, until then at the latest.
    Proving(Instant),
    /// The request is on its way.
    Sent,
    /// The shell judges the responder's signature, until then at the latest; then the rest of the response counts.
    Judging(Instant, Judging, Body),
}

impl InitiatorAuth {
    /// Begins with a child, or without if both ends want it so (RFC 6023).
    pub(in crate::engine) fn begin(cx: &mut Context, now: Instant, keyed: Keyed) -> Option<IkeSa> {
        let Keyed { attempt, mut session, transcript, window, requested } = keyed;
        let before = attempt.succession.as_ref().map(|succession| succession.addresses.as_slice()).unwrap_or_default();
        session.virtual_addresses = VirtualAddresses::asking(&attempt.connection, before);
        session.export_keys(cx);
        let ppk = match Offered::new(cx, &mut session) {
            Ok(ppk) => ppk,
            Err(trouble) => {
                attempt.fail(cx, now, trouble, Some(session.path.remote));
                return None;
            }
        };
        let (offer, round, passed) = (None, 0, Passed::default());
        let handshake = Handshake { attempt, session, transcript, window, requested, ppk, offer, round, passed };
        match handshake.takes_child_along() {
            Ok(Some(wish)) => {
                let asker = Asker::SpiToOffer(handshake.attempt.spi);
                cx.ask(asker, Ask::Dataplane(DataplaneCommand::ReserveSpi(wish)));
                handshake.wait(Stage::AwaitingSpi)
            }
            Ok(None) => handshake.prove(cx, now),
            Err(trouble) => handshake.fail(cx, now, trouble),
        }
    }

    /// The stage for those who test all of them.
    #[cfg(test)]
    pub(in crate::engine) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::AwaitingSpi => "keyed",
            Stage::Proving(_) => "proving to the responder",
            Stage::Sent => "authentication sent",
            Stage::Judging(..) => "judging the responder",
        }
    }

    fn keep(self) -> Option<IkeSa> {
        self.handshake.wait(self.stage)
    }

    /// Takes the SPI for the first child.
    pub(in crate::engine) fn on_spi(
        self,
        cx: &mut Context,
        now: Instant,
        spi: Result<EspSpi, String>,
    ) -> Option<IkeSa> {
        let Self { mut handshake, stage: Stage::AwaitingSpi } = self else {
            spi.into_iter().for_each(|spi| cx.release_spi(spi));
            return self.keep();
        };
        match spi {
            Ok(spi) => {
                let wish = handshake.attempt.wishes.pop_front();
                handshake.offer = wish.map(|wish| ChildOffer::in_ike_auth(&handshake.session, wish, spi));
                handshake.prove(cx, now)
            }
            Err(why) => handshake.fail(cx, now, Trouble::Local(why)),
        }
    }

    /// Takes our proof from the shell.
    pub(in crate::engine) fn on_signed(
        self,
        cx: &mut Context,
        now: Instant,
        signed: Result<Signed, Box<ProofRefusal>>,
    ) -> Option<IkeSa> {
        let Self { handshake, stage: Stage::Proving(_) } = self else {
            return self.keep();
        };
        match on_signed(&handshake.session, signed) {
            Ok(proof) => handshake.send(cx, now, Some(proof)),
            Err(trouble) => handshake.fail(cx, now, trouble),
        }
    }

    /// Takes the shell's judgement of the responder's proof.
    pub(in crate::engine) fn on_verified(
        self,
        cx: &mut Context,
        now: Instant,
        verified: Result<Verified, Box<ProofRefusal>>,
    ) -> Option<IkeSa> {
        let Self { mut handshake, stage } = self;
        let Stage::Judging(_, judging, body) = stage else {
            return handshake.wait(stage);
        };
        match judging.settle(cx, &handshake.session, verified) {
            Ok(peer) => {
                handshake.passed.push(peer);
                handshake.go_on(cx, now, &body)
            }
            Err(trouble) => handshake.refuse(cx, now, trouble),
        }
    }

    /// Takes the response. Only one that carries the right checksum means anything.
    pub(in crate::engine) fn on_message(
        mut self,
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
    ) -> Option<IkeSa> {
        let header = &received.message.header;
        let handshake = &mut self.handshake;
        let expected =
            header.kind == MessageKind::Response && handshake.window.expects(header.message_id, header.exchange);
        // Nothing but IKE_AUTH may come before authentication (R7296-1-1).
        let opened = if expected { handshake.session.open(cx, now, received) } else { None };
        let Some(opened) = opened else {
            return self.keep();
        };
        handshake.window.close();
        match opened {
            Ok(opened) => self.handshake.on_response(cx, now, opened.payloads),
            Err(error) => self.handshake.refuse(cx, now, error.into()),
        }
    }

    pub(in crate::engine) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        match self.stage {
            Stage::AwaitingSpi => self.keep(),
            Stage::Proving(until) if until <= now => {
                self.handshake.fail(cx, now, Trouble::shell_is_silent("signature"))
            }
            Stage::Judging(until, ..) if until <= now => {
                self.handshake.refuse(cx, now, Trouble::shell_is_silent("judgement of the peer's signature"))
            }
            Stage::Proving(_) | Stage::Judging(..) => self.keep(),
            Stage::Sent => {
                let Handshake { attempt, session, window, .. } = &mut self.handshake;
                match window.retransmit(now, &attempt.connection.retransmission) {
                    Retransmit::NotDue => {}
                    Retransmit::Again(message) => {
                        let path = session.path;
                        let owner = (attempt.connection.name.as_str(), session.names.id);
                        cx.repeated(owner, (path, true), window.unanswered());
                        session.send(cx, now, path, message);
                    }
                    Retransmit::Exhausted => {
                        let trouble = Trouble::silent_peer(&attempt.connection, session.path, window.unanswered());
                        return self.handshake.fail(cx, now, trouble);
                    }
                }
                self.keep()
            }
        }
    }

    pub(in crate::engine) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        match &self.stage {
            Stage::AwaitingSpi => None,
            Stage::Proving(until) | Stage::Judging(until, ..) => Some((*until, TimerKind::HalfOpen)),
            Stage::Sent => self.handshake.window.due().map(|due| (due, TimerKind::Retransmit)),
        }
    }

    /// Adds a child to the attempt, or tickets to the one that is offered already; and those who wait for the IKE SA.
    pub(in crate::engine) fn wish(&mut self, wish: Option<ChildWish>, tickets: Vec<Ticket>) {
        let Handshake { attempt, offer, .. } = &mut self.handshake;
        attempt.tickets.extend(tickets);
        let Some(wish) = wish else {
            return;
        };
        match offer.as_mut().filter(|offer| offer.wish.child.name == wish.child.name) {
            Some(offer) => offer.wish.tickets.extend(wish.tickets),
            None => attempt.wish(wish),
        }
    }

    /// Somebody here does not want the SA any more. The responder may have it already, and then it is told.
    pub(in crate::engine) fn stop(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let Self { mut handshake, stage } = self;
        handshake.take_offer_back(cx);
        let Handshake { attempt, session, window, .. } = handshake;
        attempt.stop(cx);
        match stage {
            Stage::AwaitingSpi | Stage::Proving(_) => None,
            Stage::Sent => Some(Refusing::when_answered(session, window)),
            Stage::Judging(..) => Refusing::begin(cx, now, session, window, Payload::Delete(Delete::IkeSa)),
        }
    }
}

impl Handshake {
    fn wait(self, stage: Stage) -> Option<IkeSa> {
        Some(IkeSa::InitiatorAuth(Box::new(InitiatorAuth { handshake: self, stage })))
    }

    /// Whether the first child goes along; or why nothing can come of it.
    fn takes_child_along(&self) -> Result<Option<SpiWish>, Trouble> {
        let (connection, extensions) = (&self.attempt.connection, &self.session.extensions);
        if connection.has_several_rounds() && !extensions.multiple_auth {
            return Err(Trouble::rounds_unsupported(connection));
        }
        let first = self.attempt.wishes.front().map(|wish| SpiWish::new(wish.child.interface.clone()));
        match (connection.childless, first, extensions.childless) {
            // R6023-3-1: only with those who said that they can.
            (Childless::Prefer | Childless::Force, _, true) | (Childless::Allow, None, true) => Ok(None),
            (Childless::Allow | Childless::Prefer | Childless::Never, Some(first), _) => Ok(Some(first)),
            (Childless::Force, _, false) | (_, None, _) => {
                Err(Trouble::childless_refused(connection, "the peer sets up no IKE SA without a Child SA"))
            }
        }
    }

    /// Proves who we are in this round, if we have as many.
    fn prove(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let connection = self.attempt.connection.clone();
        let Some(local) = connection.local_rounds().nth(self.round) else {
            return self.send(cx, now, None);
        };
        let our_id = own_identity_in(&connection, self.round, self.session.path);
        let address = identity_of(self.session.path.remote.ip());
        let audience = match connection.remote_rounds().nth(self.round).map(|remote| &remote.identity) {
            Some(pattern) => Audience::OneOf(pattern, &address),
            None => Audience::Named(self.passed.last().unwrap_or(&address)),
        };
        match prove(cx, &self.session, &self.transcript, (local, &our_id), audience, &self.requested) {
            Ok(Proving::Made(proof)) => self.send(cx, now, Some(proof)),
            Ok(Proving::Asked) => {
                let until = now + cx.settings.half_open_timeout;
                self.wait(Stage::Proving(until))
            }
            Err(trouble) => self.fail(cx, now, trouble),
        }
    }

    /// Sends the request of this round.
    fn send(mut self, cx: &mut Context, now: Instant, proof: Option<Proof>) -> Option<IkeSa> {
        let connection = self.attempt.connection.clone();
        let mut payloads = proof.map_or_else(Vec::new, |proof| {
            let our_id = own_identity_in(&connection, self.round, self.session.path);
            let another_follows = connection.local_rounds().nth(self.round + 1).is_some();
            let wishes = if self.round == 0 { wishes_about_peer(&connection) } else { Vec::new() };
            proof.into_payloads(Payload::IdInitiator(Identification::new(our_id)), wishes, another_follows)
        });
        if self.round == 0 {
            payloads.extend(self.first_request(cx));
            let without = self.prove_without_ppk(cx, &connection);
            payloads.extend(self.ppk.iter().flat_map(|ppk| ppk.payloads(without.clone())));
        }
        let exchange = ExchangeType::IkeAuth;
        let used_up = || Trouble::Local("the message numbers of the IKE SA are used up".to_owned());
        let sealed = self.window.free_id().ok_or_else(used_up).and_then(|message_id| {
            let (what, path) = ((exchange, MessageKind::Request, message_id), self.session.path);
            Ok(self.session.seal(cx, what, path, &payloads)?)
        });
        match sealed {
            Ok(message) => {
                self.window.sent(now, exchange, message.clone(), &connection.retransmission);
                let path = self.session.path;
                self.session.send(cx, now, path, message);
                self.wait(Stage::Sent)
            }
            Err(trouble) => self.fail(cx, now, trouble),
        }
    }

    /// The proof for a responder that does not have our post-quantum key, if we can do without. Those of private keys are
    /// made only once, so that they demand the key.
    fn prove_without_ppk(&mut self, cx: &mut Context, connection: &Connection) -> Option<Vec<u8>> {
        let may_do_without = connection.ppk.as_ref().is_some_and(|ppk| !ppk.required);
        let offered =
            self.ppk.as_mut().filter(|_| may_do_without && connection.local.method == LocalMethod::PreSharedKey)?;
        std::mem::swap(&mut self.session.keys, &mut offered.before);
        let our_id = own_identity_in(connection, 0, self.session.path);
        let address = identity_of(self.session.path.remote.ip());
        let audience = Audience::OneOf(&connection.remote.identity, &address);
        let proving =
            prove(cx, &self.session, &self.transcript, (&connection.local, &our_id), audience, &self.requested);
        std::mem::swap(&mut self.session.keys, &mut offered.before);
        match proving {
            Ok(Proving::Made(proof)) => Some(proof.into_data()),
            Ok(Proving::Asked) | Err(_) => None,
        }
    }

    /// What goes only with the first request.
    fn first_request(&self, cx: &Context) -> Vec<Payload> {
        let connection = &self.attempt.connection;
        let mut payloads = Vec::new();
        // R7296-2.4-4: true only if no other SA of these identities exists. Where several hosts share an identity, nobody
        // can say so.
        let our_id = own_identity_in(connection, 0, self.session.path);
        if connection.uniqueness != Uniqueness::Never && !cx.contacts.knows(&our_id, &connection.remote.identity) {
            payloads.push(Payload::Notify(Notify::new(NotifyType::InitialContact)));
        }
        payloads.extend(announcements_in_auth_request());
        payloads.extend(window_announcement(&cx.settings));
        payloads.extend(announcement(cx, &self.session, true));
        // RFC 7296 §2.19: before the SA payload.
        payloads.extend(self.session.virtual_addresses.request());
        payloads.extend(self.offer.iter().flat_map(ChildOffer::payloads));
        payloads
    }

    fn on_response(mut self, cx: &mut Context, now: Instant, payloads: Vec<Payload>) -> Option<IkeSa> {
        if let Some(refusal) = self.refusal_in(&payloads) {
            return self.fail(cx, now, Trouble::Refused(refusal));
        }
        let connection = self.attempt.connection.clone();
        let form = if self.round == 0 { &AUTH_RESPONSE } else { &LATER_AUTH_RESPONSE };
        let read = form.check(payloads).map_err(Trouble::from).and_then(|body| {
            let claim = Claim::read(&body, Role::OriginalResponder)?;
            check_round(&connection, self.round, claim.as_ref())?;
            Ok((body, claim))
        });
        let read = read.and_then(|(body, claim)| {
            self.ppk.take().map_or(Ok(()), |ppk| ppk.settle(&mut self.session, &body))?;
            Ok((body, claim))
        });
        let (body, claim) = match read {
            Ok(read) => read,
            Err(trouble) => return self.refuse(cx, now, trouble),
        };
        let Some(claim) = connection.remote_rounds().nth(self.round).zip(claim.as_ref()) else {
            return self.go_on(cx, now, &body);
        };
        let our_id = own_identity_in(&connection, self.round, self.session.path);
        match judge(cx, &self.session, &self.transcript, claim, &our_id) {
            Ok(Verdict::True(peer)) => {
                self.passed.push(peer);
                self.go_on(cx, now, &body)
            }
            Ok(Verdict::Asked(judging)) => {
                let until = now + cx.settings.half_open_timeout;
                self.wait(Stage::Judging(until, judging, body))
            }
            Err(trouble) => self.refuse(cx, now, trouble),
        }
    }

    /// The error by which the responder refuses the SA, if it does. What comes with its proof, or after all of them, is
    /// only about the Child SA (R7296-2.21.2-3).
    fn refusal_in(&self, payloads: &[Payload]) -> Option<NotifyType> {
        let proves = payloads.iter().any(|payload| payload.kind() == PayloadType::Authentication);
        let must_prove = self.attempt.connection.remote_rounds().nth(self.round).is_some();
        let is_refusal = |kind: NotifyType| {
            let ends_ike_auth = matches!(
                kind,
                NotifyType::AuthenticationFailed | NotifyType::InvalidSyntax | NotifyType::UnsupportedCriticalPayload
            );
            kind.is_error() && !proves && (must_prove || ends_ike_auth)
        };
        notifies(payloads).map(|notify| notify.kind).find(|kind| is_refusal(*kind))
    }

    /// This exchange is done: the next one, or the SA is established.
    fn go_on(mut self, cx: &mut Context, now: Instant, body: &Body) -> Option<IkeSa> {
        self.round += 1;
        let connection = self.attempt.connection.clone();
        if connection.has_round(self.round) {
            return self.prove(cx, now);
        }
        let local_id = own_identity_in(&connection, 0, self.session.path);
        match std::mem::take(&mut self.passed).complete(&connection, local_id) {
            Ok(who) => match redirected_in(&connection, body) {
                Some(gateway) => self.go_elsewhere(cx, now, gateway),
                None => match self.session.adopt_addresses(body, self.offer.as_ref()) {
                    Ok(missed) => {
                        if !missed.is_empty() {
                            let text = "the peer gives us another virtual address than the one that we asked for";
                            cx.remark(Some(&connection.name), RemarkLevel::Info, text);
                        }
                        Some(self.establish(cx, now, who, body))
                    }
                    // RFC 7296 §3.15.4: nothing can be done without, so the SA goes, and is tried again later.
                    Err(trouble) => self.refuse_with(cx, now, trouble, Payload::Delete(Delete::IkeSa)),
                },
            },
            Err(trouble) => self.refuse(cx, now, trouble),
        }
    }

    /// The peer is who it should be: the SA is established, whatever became of the child (R7296-2.21.2-3).
    fn establish(self, cx: &mut Context, now: Instant, who: Authenticated, body: &Body) -> IkeSa {
        let Self { attempt, session, window, offer, .. } = self;
        let theirs = TheirWindow::starting_at(0, cx.settings.window_size);
        let mut sa = Established::new(cx, (attempt.began, now), session, who, (window, theirs));
        sa.mobike = Mobike::agreed(cx, &sa.session, body.notifies(), true);
        (sa.succession, sa.redirections) = (attempt.succession, attempt.redirections);
        sa.come_up(cx);
        cx.settle(attempt.tickets, &Ok(()));
        if let Some(notify) = body.notify(NotifyType::AuthLifetime) {
            sa.on_authentication_lifetime(cx, now, notify);
        }
        if let Some(offer) = offer {
            sa.finish_offer(cx, now, offer, body);
        }
        cx.follow_up(FollowUp::Unique { spi: sa.local_spi() });
        for wish in attempt.wishes {
            sa.queue(cx, now, Queued::new(Task::CreateChild(wish)));
        }
        IkeSa::Established(Box::new(sa))
    }

    /// RFC 5685 §6: the responder is who it should be, and wants us elsewhere. What there is with it is deleted.
    fn go_elsewhere(mut self, cx: &mut Context, now: Instant, gateway: Gateway) -> Option<IkeSa> {
        let from = self.session.path.remote.ip();
        if !self.attempt.redirections.follow(now, from) {
            return self.refuse_with(cx, now, Trouble::redirected_too_often(), Payload::Delete(Delete::IkeSa));
        }
        remark_redirection(cx, &self.attempt.connection, from, &gateway);
        self.take_offer_back(cx);
        let Self { attempt, session, window, .. } = self;
        cx.follow_up(FollowUp::Elsewhere { attempt: Box::new(attempt), gateway });
        Refusing::begin(cx, now, session, window, Payload::Delete(Delete::IkeSa))
    }

    /// The response is wrong, so the responder may believe in an SA that we do not want: it is told so
    /// (RFC 7296 §2.21.2).
    fn refuse(self, cx: &mut Context, now: Instant, trouble: Trouble) -> Option<IkeSa> {
        let notify = match trouble.reaction(Trust::Keyed) {
            Reaction::Answer(notify) | Reaction::AnswerAndClose(notify) => notify,
            Reaction::Silence => Notify::new(NotifyType::AuthenticationFailed),
        };
        self.refuse_with(cx, now, trouble, Payload::Notify(notify))
    }

    fn refuse_with(mut self, cx: &mut Context, now: Instant, trouble: Trouble, payload: Payload) -> Option<IkeSa> {
        self.take_offer_back(cx);
        let Self { attempt, session, window, .. } = self;
        attempt.fail(cx, now, trouble, Some(session.path.remote));
        Refusing::begin(cx, now, session, window, payload)
    }

    /// Nothing comes of it, and the responder knows or has nothing.
    fn fail(mut self, cx: &mut Context, now: Instant, trouble: Trouble) -> Option<IkeSa> {
        self.take_offer_back(cx);
        let remote = self.session.path.remote;
        self.attempt.fail(cx, now, trouble, Some(remote));
        None
    }

    fn take_offer_back(&mut self, cx: &mut Context) {
        if let Some(offer) = self.offer.take() {
            cx.release_spi(offer.spi);
            self.attempt.wishes.push_front(offer.wish);
        }
    }
}

/// Whose certificates are of use to us, and whom we want to talk to.
fn wishes_about_peer(connection: &Connection) -> Vec<Payload> {
    let mut payloads = certificates::requests([connection]);
    if let IdentityPattern::Exactly(expected) = &connection.remote.identity {
        payloads.push(Payload::IdResponder(Identification::new(expected.clone())));
    }
    payloads
}
