//! The timers of an established IKE SA: each is a moment in the SA, and the next deadline is a walk over them.

use std::time::Instant;

use super::child::Phase;
use super::context::Context;
use super::established::{Established, Life};
use super::ike_sa::FollowUp;
use super::task::{Queued, Task};
use super::window::Retransmit;
use crate::io::{ChildSaId, DownReason, RemarkLevel, TimerKind};

impl Established {
    /// What is due first. Everything here is O(children), and there are few.
    pub(super) fn deadline(&self, cx: &Context) -> Option<(Instant, TimerKind)> {
        let children = self.children.values().flat_map(|child| {
            let rekey = child.rekey_at.filter(|_| child.phase == Phase::Up && !child.redundant);
            let drained = match child.phase {
                Phase::Draining(until) => Some(until),
                Phase::Installing | Phase::Up | Phase::Replaced | Phase::Deleting => None,
            };
            [(rekey, TimerKind::RekeyChild), (child.expires_at, TimerKind::Expire), (drained, TimerKind::Drain)]
        });
        let own = [
            (self.ours.due(), TimerKind::Retransmit),
            (self.probe_at(), TimerKind::DeadPeerDetection),
            (self.keepalive_at(cx), TimerKind::Keepalive),
            (self.rekey_at.filter(|_| self.may_rekey_ike()), TimerKind::RekeyIke),
            (self.reauth_at(), TimerKind::Reauthenticate),
            (self.displaced_at.filter(|_| self.life == Life::Up), TimerKind::Expire),
            (self.expires_at, TimerKind::Expire),
            (self.farewell.as_ref().map(|farewell| farewell.at), TimerKind::Drain),
            (self.patience_ends, TimerKind::Patience),
            (self.retry_at(), TimerKind::RetryTask),
            (self.session.inbox.deadline(), TimerKind::Reassembly),
            (self.unfinished.as_ref().map(|unfinished| unfinished.expires), TimerKind::HalfOpen),
        ];
        own.into_iter().chain(children).filter_map(|(at, kind)| Some((at?, kind))).min()
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.retransmit(cx, now);
        self.session.inbox.on_timeout(now);
        if is_due(self.patience_ends) {
            self.lose_patience(cx, now);
        }
        if is_due(self.expires_at) {
            self.expire(cx, now);
        }
        if is_due(self.farewell.as_ref().map(|farewell| farewell.at)) {
            self.say_farewell(cx, now);
        }
        if self.is_over() {
            return;
        }
        if is_due(self.keepalive_at(cx)) {
            self.session.last_sent = now;
            cx.keepalive(self.session.path);
        }
        let runs_out = self.ours.is_running_out() && self.rekey_at.is_none();
        if (is_due(self.rekey_at) || runs_out) && self.may_rekey_ike() {
            self.rekey_at = None;
            self.queue(cx, now, Queued::new(Task::RekeyIke { group: None }));
        }
        if is_due(self.reauth_at()) {
            self.origin.reauth_at = None;
            cx.follow_up(FollowUp::Reauthenticate { spi: self.local_spi() });
        }
        if is_due(self.displaced_at) {
            self.displaced_at = None;
            cx.follow_up(FollowUp::Displace { spi: self.local_spi() });
        }
        let children: Vec<ChildSaId> = self.children.keys().copied().collect();
        for child in children {
            self.on_child_timeout(cx, now, child);
        }
        if is_due(self.unfinished.as_ref().map(|unfinished| unfinished.expires)) {
            self.drop_unfinished(cx);
        }
        if is_due(self.probe_at()) {
            self.queue(cx, now, Queued::new(Task::Liveness));
        }
        self.run_tasks(cx, now);
    }

    fn retransmit(&mut self, cx: &mut Context, now: Instant) {
        let policy = self.session.connection.retransmission;
        match self.ours.retransmit(now, &policy) {
            Retransmit::NotDue => {}
            Retransmit::Again(message) => {
                let path = self.session.path;
                let owner = (self.session.connection.name.as_str(), self.session.names.id);
                cx.repeated(owner, (path, true), self.ours.unanswered());
                self.try_detours(cx, &message);
                self.session.send(cx, now, path, message);
            }
            Retransmit::Exhausted => {
                // What was to be deleted is gone either way.
                let reason = match self.life {
                    Life::Up => DownReason::PeerDead,
                    Life::Replaced(_) => DownReason::Replaced,
                    Life::Deleting | Life::Over => self.delete_reason().unwrap_or(DownReason::PeerDead),
                };
                let text = format!("{} does not answer", self.session.path.remote);
                cx.remark(Some(self.connection_name()), RemarkLevel::Info, text);
                self.end(cx, now, reason);
            }
        }
    }

    /// Why we are deleting the SA, if we are.
    pub(super) fn delete_reason(&self) -> Option<DownReason> {
        let running = self.running.iter().map(|running| &running.queued);
        running
            .chain(self.tasks.iter())
            .find_map(|queued| if let Task::DeleteIke { reason } = &queued.task { Some(reason.clone()) } else { None })
    }

    /// The lifetime is over: the SA is used no more (R7296-2.8-2), and the peer is told.
    fn expire(&mut self, cx: &mut Context, now: Instant) {
        self.expires_at = None;
        match self.life {
            // What nobody has use for goes without a word.
            Life::Up if self.is_spare => self.end(cx, now, DownReason::Replaced),
            Life::Up => {
                for child in self.children.values_mut() {
                    child.remove_outbound(cx);
                    child.remove_inbound(cx);
                }
                self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Expired }));
            }
            Life::Replaced(_) => self.end(cx, now, DownReason::Replaced),
            Life::Deleting | Life::Over => {}
        }
    }

    fn on_child_timeout(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Phase::Draining(until) = child.phase {
            if until <= now {
                self.drop_child(cx, now, id, &DownReason::Replaced);
            }
        } else if is_due(child.expires_at) {
            child.expires_at = None;
            // R7296-2.8-2: not a packet more in either direction, whenever the peer answers.
            child.remove_outbound(cx);
            child.remove_inbound(cx);
            let reason = if child.redundant { DownReason::Replaced } else { DownReason::Expired };
            self.queue(cx, now, Queued::new(Task::DeleteChild { child: id, reason }));
        } else if is_due(child.rekey_at) && child.phase == Phase::Up {
            child.rekey_at = None;
            self.queue(cx, now, Queued::new(Task::RekeyChild { child: id, group: None }));
        }
    }

    /// Whether it is in use and not one too many.
    fn may_rekey_ike(&self) -> bool {
        self.life == Life::Up && !self.is_spare
    }

    /// When to see whether the peer is there: after a while of silence, unless a request is outstanding that tells as
    /// well (RFC 7296 §2.4), or the peer waits for us.
    fn probe_at(&self) -> Option<Instant> {
        let dpd = self.session.connection.dpd.filter(|dpd| !dpd.delay.is_zero())?;
        let idle = self.life == Life::Up && self.running.is_none() && self.serving.is_none() && !self.is_spare;
        idle.then(|| self.last_heard + dpd.delay)
    }

    /// When the NAT in front of us must be kept from forgetting (RFC 3948 §4).
    fn keepalive_at(&self, cx: &Context) -> Option<Instant> {
        let interval = cx.settings.keepalive_interval;
        let wanted = self.session.nat.local && !interval.is_zero() && self.life == Life::Up && !self.is_spare;
        wanted.then(|| self.session.last_sent + interval)
    }

    /// When a task that was put off is due; while another one runs it waits for that.
    fn retry_at(&self) -> Option<Instant> {
        self.running.is_none().then(|| self.tasks.next_due()).flatten()
    }
}
