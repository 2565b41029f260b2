//! Serving the peer's CREATE_CHILD_SA requests, and the Child SA that comes with IKE_AUTH (RFC 7296 §1.2, §1.3).
//!
//! The response leaves when the dataplane has confirmed that it receives on the new SA (R7296-2.8-1).

use std::time::Instant;

use espdp_api::{EspSpi, IpsecProtocol, Refusal, Secret, SpiWish};

use super::child::{ChildSa, Phase};
use super::collision::{ChildActivity, PeerWish, Verdict, judge_request};
use super::context::{Asker, Context};
use super::create_child::{ChildAnswer, ChildTerms, Occasion, Replaced};
use super::established::{Established, Request};
use super::failure::{Reaction, Trouble, Trust};
use super::followup::{Begun, Rounds};
use super::ike_sa::FollowUp;
use super::task::{Progress, Task};
use crate::io::{Ask, ChildSaId, DownReason};
use crate::rules::{Body, CHILD_REQUEST, REKEY_IKE_REQUEST};
use crate::wire::{ExchangeType, Notify, NotifyType, Payload, PayloadType, Protocol};

/// A request of the peer that waits for the dataplane.
#[derive(Debug)]
pub(super) struct Serving {
    request: Request,
    /// What stands in front of the child's payloads in the response: our proof of identity in IKE_AUTH.
    front: Vec<Payload>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The dataplane was asked for an SPI.
    AwaitingSpi(Box<ChildAnswer>),
    /// The dataplane installs the child; then these payloads go out.
    Installing { child: ChildSaId, payloads: Vec<Payload> },
}

impl Established {
    pub(super) fn on_create_child_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: Vec<Payload>,
    ) -> Result<(), Trouble> {
        // The peer asks for one thing after the other: it has given up what it left unfinished.
        self.drop_unfinished(cx);
        if wants_ike_sa(&payloads) {
            let body = REKEY_IKE_REQUEST.check(payloads)?;
            return self.on_rekey_ike_request(cx, now, request, &body);
        }
        let body = CHILD_REQUEST.check(payloads)?;
        let rekeyed = body.notify(NotifyType::RekeySa).and_then(|notify| Some((notify.protocol, notify.spi?)));
        let replaces = match rekeyed {
            Some((protocol, spi)) => Some(self.judge_child_rekey(protocol, spi)?),
            None => match judge_request(PeerWish::CreateChild, self.activity_for_peer(), ChildActivity::Unknown) {
                Verdict::GoAhead | Verdict::GoAheadContested => None,
                Verdict::NotNow | Verdict::NoSuchChild => return Err(Trouble::NotNow),
            },
        };
        let replaces =
            replaces.and_then(|id| self.children.get(&id)).map(|old| (Replaced::new(old), self.replacement_for(old)));
        if self.children.len() >= MAX_CHILDREN {
            cx.remark(Some(self.connection_name()), crate::io::RemarkLevel::Warn, "the peer wants too many Child SAs");
            self.answer(cx, now, request, vec![Payload::Notify(Notify::new(NotifyType::NoAdditionalSas))]);
            return Ok(());
        }
        if let Some(trouble) = self.missing_address() {
            return Err(trouble);
        }
        let mut answer = ChildAnswer::negotiate(cx, &self.session, &body, Occasion::CreateChildSa, replaces)?;
        self.assign_resource(cx.settings.workers, &mut answer, &body)?;
        self.serve(cx, request, Vec::new(), answer);
        Ok(())
    }

    /// Answers the last IKE_AUTH request of a peer that is authenticated; `body` is the first one, with what child it
    /// wants, if any (RFC 6023 §5). A child that fails does not take the IKE SA with it (R7296-2.21.2-3).
    pub(super) fn serve_ike_auth(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        mut proof: Vec<Payload>,
        body: &Body,
    ) {
        proof.extend(self.authentication_lifetime().map(Payload::Notify));
        if let Some(redirect) = self.redirect_in_auth() {
            proof.push(Payload::Notify(redirect));
            self.await_departure(now);
            return self.answer(cx, now, request, proof);
        }
        match self.give_addresses(cx, body) {
            // RFC 7296 §2.19: it stands before the SA payload.
            Ok(reply) => proof.extend(reply),
            Err(trouble) => return self.refuse_child(cx, now, request, proof, trouble),
        }
        if body.proposals().is_err() {
            cx.follow_up(FollowUp::Unique { spi: self.local_spi() });
            return self.answer(cx, now, request, proof);
        }
        match ChildAnswer::negotiate(cx, &self.session, body, Occasion::IkeAuth, None) {
            Ok(answer) => self.serve(cx, request, proof, answer),
            Err(trouble) => self.refuse_child(cx, now, request, proof, trouble),
        }
    }

    /// The Child SA that the peer wants to replace: the one on which it receives with this SPI.
    pub(super) fn judge_child_rekey(&self, protocol: IpsecProtocol, peer_spi: EspSpi) -> Result<ChildSaId, Trouble> {
        let old = self.child_by_spi_out(peer_spi).filter(|old| old.suite.protocol == protocol);
        let activity = match old {
            None if self.is_offering_child() => ChildActivity::MayCome,
            None => ChildActivity::Unknown,
            Some(old) if self.is_rekeying(old.id) => {
                if self.has_contender(old.id) {
                    ChildActivity::Closing
                } else {
                    ChildActivity::Rekeying
                }
            }
            Some(old) if old.phase == Phase::Up && !old.redundant && !self.is_replaced(old.id) => ChildActivity::Idle,
            Some(_) => ChildActivity::Closing,
        };
        let verdict = judge_request(PeerWish::RekeyChild, self.activity_for_peer(), activity);
        match (verdict, old) {
            (Verdict::GoAhead | Verdict::GoAheadContested, Some(old)) => Ok(old.id),
            (Verdict::NotNow, _) => Err(Trouble::NotNow),
            _ => Err(Trouble::NoSuchChild(protocol, peer_spi)),
        }
    }

    /// Whether our request to replace this child is on its way or being carried out.
    pub(super) fn is_rekeying(&self, id: ChildSaId) -> bool {
        self.running.as_ref().is_some_and(|running| {
            matches!(running.queued.task, Task::RekeyChild { child, .. } if child == id)
                && !matches!(running.progress, Progress::AwaitingSpi)
        })
    }

    /// Whether the peer has replaced this child already, while our request to do so was on its way.
    fn has_contender(&self, id: ChildSaId) -> bool {
        let is_ours = |child: &ChildSa| {
            let progress = self.running.as_ref().map(|running| &running.progress);
            matches!(progress, Some(Progress::Installing(ours)) if *ours == child.id)
        };
        self.children.values().any(|child| child.replaces == Some(id) && child.is_useful() && !is_ours(child))
    }

    fn serve(&mut self, cx: &mut Context, request: Request, front: Vec<Payload>, answer: ChildAnswer) {
        if !answer.has_more_rounds() {
            self.note_rival(answer.replaces.as_ref().map(|old| old.id), &answer.nonces);
        }
        let replaces = answer.replaces.as_ref().map(|old| old.spi_in);
        let wish =
            SpiWish { replaces, worker: answer.resource.worker(), ..SpiWish::new(answer.child.interface.clone()) };
        self.serving = Some(Serving { request, front, work: Work::AwaitingSpi(Box::new(answer)) });
        let asker = Asker::SpiToAnswer(self.local_spi());
        cx.ask(asker, Ask::Dataplane(espdp_api::Command::ReserveSpi(wish)));
    }

    /// The peer replaces a child; if we are about to do so, too, these nonces count against ours.
    fn note_rival(&mut self, old: Option<ChildSaId>, nonces: &[Vec<u8>; 2]) {
        if old.is_some_and(|old| self.is_rekeying(old))
            && let Some(running) = &mut self.running
        {
            running.rival = Some(nonces.clone());
        }
    }

    /// Takes the SPI for a child that the peer wants.
    pub(super) fn on_spi_to_answer(&mut self, cx: &mut Context, now: Instant, spi: Result<EspSpi, String>) {
        let Some(serving) = self.serving.take() else {
            spi.into_iter().for_each(|spi| cx.release_spi(spi));
            return;
        };
        let Serving { request, front, work } = serving;
        match (work, spi) {
            (Work::AwaitingSpi(answer), Ok(spi)) => {
                let (terms, payloads) = answer.complete(spi);
                let rounds = Rounds::of(terms.suite.additional);
                if rounds.are_done() {
                    self.install_for_peer(cx, now, (request, front, payloads), terms, &[]);
                } else {
                    let old = terms.replaces.and_then(|(old, _)| self.children.get(&old)).map(|old| old.spi_out);
                    let begun = Begun::Child(Box::new(terms), old);
                    self.leave_unfinished(cx, now, (request, [front, payloads].concat()), (begun, rounds));
                    self.run_tasks(cx, now);
                }
            }
            (Work::AwaitingSpi(_), Err(why)) => {
                self.refuse_child(cx, now, request, front, Trouble::Local(why));
                self.run_tasks(cx, now);
            }
            (work @ Work::Installing { .. }, spi) => {
                spi.into_iter().for_each(|spi| cx.release_spi(spi));
                self.serving = Some(Serving { request, front, work });
            }
        }
    }

    /// All key exchanges for the child that the peer wants are done: the answer leaves when it is installed.
    pub(super) fn install_for_peer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (request, front, payloads): (Request, Vec<Payload>, Vec<Payload>),
        terms: ChildTerms,
        more_secrets: &[Secret<Vec<u8>>],
    ) {
        self.note_rival(terms.replaces.map(|(old, _)| old), &terms.nonces);
        let sa = ChildSa::install(cx, now, &self.session, terms.into_agreed(&self.session, more_secrets));
        let child = sa.id;
        self.children.insert(child, sa);
        self.serving = Some(Serving { request, front, work: Work::Installing { child, payloads } });
    }

    /// Whether IKE_AUTH is not answered yet.
    pub(super) fn is_in_ike_auth(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.request.exchange == ExchangeType::IkeAuth)
    }

    /// Whether the peer is replacing this child just now.
    pub(super) fn is_serving_rekey_of(&self, id: ChildSaId) -> bool {
        let is_serving = self.serving.as_ref().is_some_and(|serving| match &serving.work {
            Work::AwaitingSpi(answer) => answer.replaces.as_ref().is_some_and(|old| old.id == id),
            Work::Installing { child, .. } => self.children.get(child).is_some_and(|child| child.replaces == Some(id)),
        });
        is_serving || self.unfinished.as_ref().is_some_and(|unfinished| unfinished.replaces(id))
    }

    /// Whether the peer is making a child of this name just now.
    pub(super) fn is_serving_child(&self, name: &str) -> bool {
        self.serving.as_ref().is_some_and(|serving| match &serving.work {
            Work::AwaitingSpi(answer) => answer.child.name == name,
            Work::Installing { child, .. } => self.children.get(child).is_some_and(|child| child.child.name == name),
        })
    }

    /// Whether the peer waits for this child.
    pub(super) fn is_serving(&self, id: ChildSaId) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|serving| matches!(serving.work, Work::Installing { child, .. } if child == id))
    }

    /// The dataplane has installed the child that the peer waits for, or could not.
    pub(super) fn on_served(&mut self, cx: &mut Context, now: Instant, id: ChildSaId, result: Result<(), Refusal>) {
        let Some(Serving { request, mut front, work: Work::Installing { payloads, .. } }) = self.serving.take() else {
            return;
        };
        if let Err(refusal) = result {
            self.drop_child(cx, now, id, &DownReason::Failed);
            return self.refuse_child(cx, now, request, front, Trouble::Local(refusal.to_string()));
        }
        front.extend(payloads);
        self.answer(cx, now, request, front);
        // RFC 7296 §2.8: what replaces an SA waits until the peer is known to be ready; a new one has nothing to lose.
        // When two rekeyings meet it is not known yet which of the new ones stays, and so nobody is told yet.
        let replaces = self.children.get(&id).and_then(|child| child.replaces);
        match replaces.filter(|old| self.children.contains_key(old)) {
            Some(old) if self.is_rekeying(old) => {}
            // Ours was there first, and it stays: the peer will see it, too, and delete this one.
            Some(old) if self.is_replaced_by_other(old, id) => self.make_redundant(cx, id),
            Some(old) => self.announce(cx, id, Some(old)),
            None => self.settle_creation(cx, now, id),
        }
    }

    /// The child that the peer waits for is gone. The peer gets its answer all the same, for nothing else can be said
    /// before.
    pub(super) fn abandon_serving(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let is_it = |serving: &mut Serving| matches!(serving.work, Work::Installing { child, .. } if child == id);
        if let Some(Serving { request, mut front, .. }) = self.serving.take_if(is_it) {
            front.push(Payload::Notify(Notify::new(NotifyType::TemporaryFailure)));
            self.answer(cx, now, request, front);
        }
    }

    /// Tells the peer that there will be no child (R7296-1.3.1-2).
    fn refuse_child(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        mut front: Vec<Payload>,
        trouble: Trouble,
    ) {
        let reaction = trouble.reaction(Trust::Authenticated);
        self.report_trouble(cx, trouble, None);
        if request.exchange == ExchangeType::IkeAuth {
            cx.follow_up(FollowUp::Unique { spi: self.local_spi() });
        }
        match reaction {
            Reaction::Silence => self.answer(cx, now, request, front),
            Reaction::Answer(notify) => {
                front.push(Payload::Notify(notify));
                self.answer(cx, now, request, front);
            }
            Reaction::AnswerAndClose(notify) => {
                self.answer(cx, now, request, vec![Payload::Notify(notify)]);
                self.end(cx, now, DownReason::Failed);
            }
        }
    }

    /// The SA ends: nobody waits for an answer any more. The child, if there is one, goes with the others; an SPI that is
    /// still to come is released by the engine.
    pub(super) fn drop_serving(&mut self, cx: &mut Context) {
        self.serving = None;
        self.drop_unfinished(cx);
    }
}

/// Whether a CREATE_CHILD_SA request is about the IKE SA: it has no traffic selectors and offers protocol IKE.
fn wants_ike_sa(payloads: &[Payload]) -> bool {
    let has_selectors = payloads
        .iter()
        .any(|payload| matches!(payload.kind(), PayloadType::SelectorsInitiator | PayloadType::SelectorsResponder));
    let offers_ike = payloads.iter().any(|payload| {
        matches!(payload, Payload::SecurityAssociation(proposals)
            if proposals.iter().any(|proposal| proposal.protocol == Protocol::Ike))
    });
    offers_ike && !has_selectors
}

/// Child SAs of one IKE SA, with those that were replaced and that nobody deletes: far more than a configuration has
/// children, far fewer than would hurt.
const MAX_CHILDREN: usize = 1024;
