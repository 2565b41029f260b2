//! Running tasks: from the queue to the request, from the response to the end.

use std::time::{Duration, Instant};

use espdp_api::{Command, EspSpi, Refusal, Secret, SpiWish};

use super::child::{ChildSa, Phase};
use super::context::{Asker, Context};
use super::create_child::{ChildOffer, ChildTerms, Replaced};
use super::established::{Established, Life, describe, outcome_of_end};
use super::failure::Trouble;
use super::followup::{Made, Rounds};
use super::ike_sa::FollowUp;
use super::lost_spi::invalid_spi;
use super::redirect::redirect_notify;
use super::task::{ChildWish, Progress, Queued, Running, Task};
use crate::io::{Ask, ChildSaId, DownReason, RemarkLevel};
use crate::rules::{Body, CHILD_RESPONSE, INFORMATIONAL, REKEY_IKE_RESPONSE, notifies};
use crate::wire::{Delete, ExchangeType, NotifyType, Payload};

impl Established {
    /// Queues a task behind the others. An SA that is going away takes none.
    pub(super) fn queue(&mut self, cx: &mut Context, now: Instant, mut queued: Queued) {
        if self.life != Life::Up {
            return cx.settle(queued.take_tickets(), &Err("the IKE SA is going away".to_owned()));
        }
        if let Err(tickets) = self.tasks.push(queued) {
            cx.settle(tickets, &Err("too many tasks are waiting".to_owned()));
        }
        self.run_tasks(cx, now);
    }

    /// Puts a task in front of the others; it runs when the current one is done.
    pub(super) fn queue_first(&mut self, queued: Queued) {
        self.tasks.push_first(queued);
    }

    /// Deletes the IKE SA as soon as the current task is done; what else was to be done is not.
    pub(super) fn queue_delete(&mut self, cx: &mut Context, now: Instant, mut delete: Queued) {
        if matches!(self.life, Life::Deleting | Life::Over) {
            let is_delete = |queued: &&mut Queued| matches!(queued.task, Task::DeleteIke { .. });
            let running = self.running.as_mut().map(|running| &mut running.queued);
            match self.tasks.iter_mut().chain(running).find(is_delete) {
                Some(same) => same.tickets.extend(delete.take_tickets()),
                None => cx.settle(delete.take_tickets(), &Ok(())),
            }
            return;
        }
        let Task::DeleteIke { reason } = &delete.task else {
            return;
        };
        let reason = reason.clone();
        for mut queued in self.tasks.drain() {
            let result = outcome_of_end(&queued.task, &reason);
            cx.settle(queued.take_tickets(), &result);
        }
        if self.life == Life::Up {
            self.life = Life::Deleting;
        }
        self.tasks.push_first(delete);
        self.run_tasks(cx, now);
    }

    /// Carries out what the peer waits for, and starts the next task that is due, if nothing else is under way. Nothing starts before IKE_AUTH is answered.
    pub(super) fn run_tasks(&mut self, cx: &mut Context, now: Instant) {
        self.serve_waiting(cx, now);
        while self.running.is_none() && !self.is_over() && !self.is_in_ike_auth() {
            if self.ours.outstanding_id().is_some() {
                return;
            }
            let Some(queued) = self.tasks.pop_due(now) else {
                return;
            };
            self.start(cx, now, queued);
        }
    }

    /// What the SPI is for that a task needs; `None` if it needs none, or its child is gone.
    fn spi_wish(&self, task: &Task) -> Option<SpiWish> {
        if let Task::CreateChild(wish) = task {
            return Some(SpiWish { worker: wish.worker(), ..SpiWish::new(wish.child.interface.clone()) });
        }
        let Task::RekeyChild { child, .. } = task else { return None };
        let old = self.children.get(child)?;
        Some(SpiWish { replaces: Some(old.spi_in), ..SpiWish::new(old.child.interface.clone()) })
    }

    fn start(&mut self, cx: &mut Context, now: Instant, mut queued: Queued) {
        match &queued.task {
            Task::CreateChild(wish) if self.is_superfluous(wish) => self.finish(cx, queued, &Ok(())),
            Task::RekeyChild { child, .. } if !self.may_rekey(*child) => self.finish(cx, queued, &Ok(())),
            // It may be just what we want.
            Task::CreateChild(wish) if self.is_serving_child(&wish.child.name) => {
                queued.not_before = Some(now + UNTIL_SERVED);
                self.tasks.push_first(queued);
            }
            Task::CreateChild(_) | Task::RekeyChild { .. } => {
                let Some(wish) = self.spi_wish(&queued.task) else {
                    return self.finish(cx, queued, &Ok(()));
                };
                self.running = Some(Running::new(queued, Progress::AwaitingSpi));
                let asker = Asker::SpiToOffer(self.local_spi());
                cx.ask(asker, Ask::Dataplane(Command::ReserveSpi(wish)));
            }
            Task::RekeyIke { .. } if self.serving.is_some() || self.unfinished.is_some() => {
                // The peer's child must be whole before it can move to another IKE SA.
                queued.not_before = Some(now + UNTIL_SERVED);
                self.tasks.push_first(queued);
            }
            Task::RekeyIke { group } => {
                let group = *group;
                self.start_rekey_ike(cx, now, queued, group);
            }
            Task::DeleteChild { child, .. } => {
                let child = *child;
                let Some(sa) = self.children.get_mut(&child).filter(|sa| !sa.is_draining()) else {
                    return self.finish(cx, queued, &Ok(()));
                };
                cx.pass_on_sending_early(sa.policy, child);
                sa.phase = Phase::Deleting;
                let delete = Payload::Delete(Delete::children(sa.suite.protocol, vec![sa.spi_in]));
                self.send_task(cx, now, queued, &[delete]);
            }
            Task::Discard(protocol, spi) => {
                let delete = Payload::Delete(Delete::children(*protocol, vec![*spi]));
                self.send_task(cx, now, queued, &[delete]);
            }
            Task::DeleteIke { .. } => {
                // The peer may forget them with the request, and its answer may be lost.
                for child in self.children.values() {
                    cx.pass_on_sending_early(child.policy, child.id);
                }
                self.send_task(cx, now, queued, &[Payload::Delete(Delete::IkeSa)]);
            }
            Task::Liveness => {
                let payloads = self.probe_payloads(cx);
                self.send_task(cx, now, queued, &payloads);
            }
            Task::ReportSpi(spi) => {
                let notify = Payload::Notify(invalid_spi(*spi));
                self.send_task(cx, now, queued, &[notify]);
            }
            Task::Redirect(gateway) => {
                let notify = Payload::Notify(redirect_notify(gateway));
                self.send_task(cx, now, queued, &[notify]);
            }
            Task::Move(..) => self.start_move(cx, now, queued),
        }
    }

    /// Sends the INFORMATIONAL request that is all of a task.
    pub(super) fn send_task(&mut self, cx: &mut Context, now: Instant, queued: Queued, payloads: &[Payload]) {
        match self.request(cx, now, ExchangeType::Informational, payloads) {
            Ok(()) => self.running = Some(Running::new(queued, Progress::Requested)),
            Err(trouble) => self.fail_task(cx, now, queued, trouble),
        }
    }

    /// Whether this child is there and nobody has replaced or deleted it.
    fn may_rekey(&self, id: ChildSaId) -> bool {
        let is_up = self.children.get(&id).is_some_and(|child| child.phase == Phase::Up && !child.redundant);
        is_up && !self.is_replaced(id) && !self.is_serving_rekey_of(id)
    }

    /// Settles a task.
    pub(super) fn finish(&mut self, cx: &mut Context, mut queued: Queued, result: &Result<(), String>) {
        cx.settle(queued.take_tickets(), result);
    }

    /// A task failed for good.
    pub(super) fn fail_task(&mut self, cx: &mut Context, now: Instant, queued: Queued, trouble: Trouble) {
        let text = trouble.to_string();
        if let (Task::CreateChild(wish), Trouble::Refused(NotifyType::TsMaxQueue)) = (&queued.task, &trouble)
            && wish.sibling.is_some()
        {
            let child = wish.child.clone();
            return self.give_siblings_up(cx, queued, &child);
        }
        let child = match &queued.task {
            Task::CreateChild(wish) => Some(wish.child.clone()),
            Task::RekeyChild { child, .. } => self.children.get(child).map(|child| child.child.clone()),
            Task::RekeyIke { .. }
            | Task::DeleteChild { .. }
            | Task::Discard(..)
            | Task::DeleteIke { .. }
            | Task::Liveness
            | Task::Redirect(_)
            | Task::ReportSpi(_)
            | Task::Move(..) => None,
        };
        self.report_trouble(cx, trouble, child.as_ref().map(|child| child.name.as_str()));
        match &queued.task {
            // Without it there is the one for all.
            Task::CreateChild(wish) if wish.sibling.is_some() => {}
            Task::CreateChild(_) => {
                cx.reconnect_later(now, &self.session.connection.name);
                // Whoever waits for all children waits for this one no longer.
                cx.follow_up(FollowUp::Unique { spi: self.local_spi() });
            }
            Task::RekeyChild { child, .. } => {
                if let Some(child) = self.children.get_mut(child) {
                    let by_time = child.child.lifetime.rekey_after.is_some();
                    child.rekey_at = child.rekey_at.or(by_time.then_some(now + REKEY_AGAIN));
                }
            }
            Task::RekeyIke { .. } => {
                let by_time = self.session.connection.ike_lifetime.rekey_after.is_some();
                self.rekey_at = self.rekey_at.or(by_time.then_some(now + REKEY_AGAIN));
            }
            Task::DeleteIke { reason } => {
                let reason = reason.clone();
                self.end(cx, now, reason);
            }
            Task::DeleteChild { .. }
            | Task::Discard(..)
            | Task::Liveness
            | Task::Redirect(_)
            | Task::ReportSpi(_)
            | Task::Move(..) => {}
        }
        self.finish(cx, queued, &Err(text));
    }

    /// The peer cannot do it now: later again, or never (RFC 7296 §2.25).
    pub(super) fn put_off(&mut self, cx: &mut Context, now: Instant, queued: Queued) {
        if self.life != Life::Up {
            return self.finish(cx, queued, &Err("the IKE SA is going away".to_owned()));
        }
        let mut history = queued.clone();
        match queued.put_off(now, cx.random_fraction()) {
            Some(queued) => self.tasks.push_first(queued),
            None => {
                let tickets = history.take_tickets();
                cx.settle(tickets, &Err("the peer put it off again and again".to_owned()));
                let text = "the peer has been busy for minutes: the two ends must have different ideas of what exists";
                cx.remark(Some(self.connection_name()), RemarkLevel::Warn, text);
                self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Failed }));
            }
        }
    }

    /// Takes the SPI for a child that we want, and offers it.
    pub(super) fn on_spi_to_offer(&mut self, cx: &mut Context, now: Instant, spi: Result<EspSpi, String>) {
        let Some(Running { queued, .. }) =
            self.running.take_if(|running| matches!(running.progress, Progress::AwaitingSpi))
        else {
            spi.into_iter().for_each(|spi| cx.release_spi(spi));
            return;
        };
        let spi = match spi {
            Ok(spi) => spi,
            Err(why) => return self.fail_task(cx, now, queued, Trouble::Local(why)),
        };
        if self.life != Life::Up {
            cx.release_spi(spi);
            self.finish(cx, queued, &Err("the IKE SA is going away".to_owned()));
            return self.run_tasks(cx, now);
        }
        let (wish, replaces) = match &queued.task {
            // The peer may have made it meanwhile, or may be about to.
            Task::CreateChild(wish) if self.is_superfluous(wish) || self.is_serving_child(&wish.child.name) => {
                cx.release_spi(spi);
                self.queue_first(queued);
                return self.run_tasks(cx, now);
            }
            Task::CreateChild(wish) => (wish.clone(), None),
            // The peer may have replaced or deleted it meanwhile.
            Task::RekeyChild { child, group } if self.may_rekey(*child) => match self.children.get(child) {
                Some(old) => {
                    let wish = ChildWish { group: *group, ..ChildWish::new(self.replacement_for(old)) };
                    (wish, Some(Replaced::new(old)))
                }
                None => return cx.release_spi(spi),
            },
            Task::RekeyChild { .. }
            | Task::RekeyIke { .. }
            | Task::DeleteChild { .. }
            | Task::Discard(..)
            | Task::DeleteIke { .. }
            | Task::Liveness
            | Task::Redirect(_)
            | Task::ReportSpi(_)
            | Task::Move(..) => {
                cx.release_spi(spi);
                return self.finish(cx, queued, &Ok(()));
            }
        };
        let wish = ChildWish { tickets: Vec::new(), ..wish };
        let offer = ChildOffer::new(cx, &self.session, wish, spi, replaces);
        match self.request(cx, now, ExchangeType::CreateChildSa, &offer.payloads()) {
            Ok(()) => self.running = Some(Running::new(queued, Progress::ChildOffered(Box::new(offer)))),
            Err(trouble) => {
                cx.release_spi(spi);
                self.fail_task(cx, now, queued, trouble);
            }
        }
    }

    // Responses.

    pub(super) fn on_response(&mut self, cx: &mut Context, now: Instant, payloads: Vec<Payload>) {
        // RFC 7296 §2.21.3: this is fatal in both peers, and the other one has ended the SA already.
        if notifies(&payloads).any(|notify| notify.kind == NotifyType::InvalidSyntax) {
            self.report_trouble(cx, Trouble::Refused(NotifyType::InvalidSyntax), None);
            return self.end(cx, now, DownReason::Failed);
        }
        let Some(Running { queued, progress, rival }) = self.running.take() else {
            return;
        };
        match progress {
            Progress::ChildOffered(offer) => {
                let is_error = notifies(&payloads).any(|notify| notify.kind.is_error());
                let form = if is_error { &INFORMATIONAL } else { &CHILD_RESPONSE };
                match form.check(payloads) {
                    Ok(body) => {
                        self.on_child_response(cx, now, queued, *offer, &body);
                        if let Some(running) = &mut self.running {
                            running.rival = rival;
                        }
                    }
                    Err(violation) => self.offer_failed(cx, now, queued, *offer, (violation.into(), true)),
                }
            }
            Progress::IkeOffered(offer) => {
                let is_error = notifies(&payloads).any(|notify| notify.kind.is_error());
                let form = if is_error { &INFORMATIONAL } else { &REKEY_IKE_RESPONSE };
                let body = form.check(payloads).map_err(Trouble::from);
                self.on_rekey_ike_response(cx, now, queued, *offer, body);
            }
            Progress::Requested => self.on_informational_response(cx, now, queued, &payloads),
            Progress::Following(following) => {
                self.on_followup_response(cx, now, queued, *following, payloads);
                if let Some(running) = &mut self.running {
                    running.rival = rival;
                }
            }
            progress @ (Progress::AwaitingSpi | Progress::Installing(_)) => {
                self.running = Some(Running::new(queued, progress));
            }
        }
        self.run_tasks(cx, now);
    }

    /// The peer's response is malformed: whatever it meant, the two ends are not in step any more. RFC 7296 §2.21: no
    /// error is sent, the state is cleaned up.
    pub(super) fn on_bad_response(&mut self, cx: &mut Context, now: Instant, trouble: Trouble) {
        let text = trouble.to_string();
        self.report_trouble(cx, trouble, None);
        if let Some(Running { queued, progress, .. }) = self.running.take() {
            self.discard_progress(cx, progress);
            self.finish(cx, queued, &Err(text));
        }
        self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Failed }));
    }

    fn on_child_response(&mut self, cx: &mut Context, now: Instant, queued: Queued, offer: ChildOffer, body: &Body) {
        match offer.accept(&self.session, body) {
            Ok(terms) => {
                let rounds = Rounds::of(terms.suite.additional);
                self.go_on_with_rounds(cx, now, queued, (Made::Child(Box::new((offer, terms))), rounds), body);
            }
            Err(trouble) => {
                let peer_believes = body.error().is_none();
                self.offer_failed(cx, now, queued, offer, (trouble, peer_believes));
            }
        }
    }

    /// All key exchanges for a child that the peer agreed to are done.
    pub(super) fn install_offered(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        (offer, terms): (ChildOffer, ChildTerms),
        more_secrets: &[Secret<Vec<u8>>],
    ) {
        if offer.deleted.contains(&terms.spi_out) {
            cx.release_spi(offer.spi);
            cx.reconnect_later(now, &self.session.connection.name);
            return self.finish(cx, queued, &Err("the peer deleted the child at once".to_owned()));
        }
        let sa = ChildSa::install(cx, now, &self.session, terms.into_agreed(&self.session, more_secrets));
        let progress = Progress::Installing(sa.id);
        self.children.insert(sa.id, sa);
        self.running = Some(Running::new(queued, progress));
    }

    /// Carries out what came of the child that went with IKE_AUTH.
    pub(super) fn finish_offer(&mut self, cx: &mut Context, now: Instant, offer: ChildOffer, body: &Body) {
        let queued = Queued::new(Task::CreateChild(offer.wish.clone()));
        self.on_child_response(cx, now, queued, offer, body);
        self.run_tasks(cx, now);
    }

    /// An offer came to nothing. If the peer believes in a child, it is told that there is none.
    pub(super) fn offer_failed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut queued: Queued,
        offer: ChildOffer,
        (trouble, peer_believes): (Trouble, bool),
    ) {
        cx.release_spi(offer.spi);
        if peer_believes {
            self.queue_first(Queued::new(Task::Discard(offer.protocol(), offer.spi)));
        }
        match (&trouble, &mut queued.task) {
            (Trouble::NotNow, _) => self.put_off(cx, now, queued),
            (Trouble::WrongGroup { group: wanted }, Task::CreateChild(ChildWish { group, .. }))
            | (Trouble::WrongGroup { group: wanted }, Task::RekeyChild { group, .. })
                if offer.may_use_group(*wanted) && group.is_none() =>
            {
                *group = Some(*wanted);
                self.queue_first(queued);
            }
            (Trouble::NoSuchChild(..), Task::RekeyChild { child, .. }) => {
                let child = *child;
                self.child_not_found(cx, now, queued, child);
            }
            // RFC 7296 §1.3: the peer makes no more SAs in this IKE SA, so it takes another one.
            (Trouble::Refused(NotifyType::NoAdditionalSas), Task::RekeyChild { .. }) => {
                cx.follow_up(FollowUp::Reauthenticate { spi: self.local_spi() });
                self.fail_task(cx, now, queued, trouble);
            }
            _ => self.fail_task(cx, now, queued, trouble),
        }
    }

    /// The peer does not have the child that we want to replace: ours goes without a word, and a new one is made unless
    /// the peer has replaced it already (RFC 7296 §2.25, R7296-2.25-2).
    fn child_not_found(&mut self, cx: &mut Context, now: Instant, queued: Queued, id: ChildSaId) {
        let lost = self.children.get(&id).filter(|child| child.phase == Phase::Up && !self.is_replaced(id));
        let Some(child) = lost.map(|child| child.child.clone()) else {
            return self.finish(cx, queued, &Ok(()));
        };
        self.drop_child(cx, now, id, &DownReason::PeerDeleted);
        let mut create = Queued::new(Task::CreateChild(ChildWish::new(child)));
        create.tickets = queued.tickets;
        self.queue(cx, now, create);
    }

    /// The dataplane has installed the child that we made, or could not.
    pub(super) fn on_offer_installed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        result: Result<(), Refusal>,
    ) {
        let is_ours = |running: &mut Running| matches!(running.progress, Progress::Installing(child) if child == id);
        let Some(Running { queued, rival, .. }) = self.running.take_if(is_ours) else {
            return;
        };
        match result {
            Ok(()) => {
                if let Task::RekeyChild { child: old, .. } = queued.task {
                    self.take_over(cx, now, (id, old), rival.as_ref());
                } else {
                    self.settle_creation(cx, now, id);
                    self.make_siblings(cx, now, id);
                }
                self.finish(cx, queued, &Ok(()));
            }
            Err(refusal) => {
                let sa = self.children.get(&id).map(|child| (child.suite.protocol, child.spi_in));
                self.drop_child(cx, now, id, &DownReason::Failed);
                if let Some((protocol, spi)) = sa {
                    self.queue_first(Queued::new(Task::Discard(protocol, spi)));
                }
                self.fail_task(cx, now, queued, Trouble::Local(refusal.to_string()));
            }
        }
        self.run_tasks(cx, now);
    }

    /// Whether the answer to our request for a child is still to come.
    pub(super) fn is_offering_child(&self) -> bool {
        self.running.as_ref().is_some_and(|running| match &running.progress {
            Progress::ChildOffered(_) => true,
            Progress::Following(following) => following.is_for_child(),
            Progress::AwaitingSpi | Progress::Installing(_) | Progress::IkeOffered(_) | Progress::Requested => false,
        })
    }

    /// The peer deletes a child that nobody knows: it may be one that the answer to our request will bring.
    pub(super) fn note_deleted(&mut self, spi_out: EspSpi) {
        if let Some(offer) = self.running.as_mut().and_then(Running::child_offer)
            && offer.deleted.len() < MAX_DELETED
        {
            offer.deleted.push(spi_out);
        }
    }

    /// The child that was being installed is gone.
    pub(super) fn abandon_installing(&mut self, cx: &mut Context, id: ChildSaId, reason: &DownReason) {
        let is_it = |running: &mut Running| matches!(running.progress, Progress::Installing(child) if child == id);
        if let Some(Running { queued, .. }) = self.running.take_if(is_it) {
            self.finish(cx, queued, &Err(format!("the child is gone: {}", describe(reason))));
        }
    }

    /// The SA ends: the task that was under way leaves nothing behind.
    pub(super) fn drop_running(&mut self, cx: &mut Context, reason: &DownReason) {
        if let Some(Running { mut queued, progress, .. }) = self.running.take() {
            self.discard_progress(cx, progress);
            let result = outcome_of_end(&queued.task, reason);
            cx.settle(queued.take_tickets(), &result);
        }
        self.ours.close();
    }

    /// Gives back what a task has taken. An SPI that is still to come is released by the engine, a child that is being
    /// installed goes with the others.
    fn discard_progress(&mut self, cx: &mut Context, progress: Progress) {
        match progress {
            Progress::ChildOffered(offer) => cx.release_spi(offer.spi),
            Progress::IkeOffered(offer) => cx.release_ike_spi(offer.spi),
            Progress::Following(following) => following.discard(cx),
            Progress::AwaitingSpi | Progress::Installing(_) | Progress::Requested => {}
        }
    }
}

/// The dataplane installs a child in less.
const UNTIL_SERVED: Duration = Duration::from_secs(1);

/// Deletions that are remembered while an offer is out: one is possible, so a few are plenty.
const MAX_DELETED: usize = 8;

/// A rekeying that failed for good is tried again after this long; meanwhile the lifetime may end the SA.
pub(super) const REKEY_AGAIN: Duration = Duration::from_secs(60);
