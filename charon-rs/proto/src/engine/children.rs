//! The Child SAs of an established IKE SA: coming up, taking over from each other, going down.

use std::time::Instant;

use espdp_api::{Direction, EspSpi, PolicyId, Refusal};

use super::child::{ChildSa, Half, InstallStep, Phase};
use super::collision::{Survivor, survivor};
use super::context::Context;
use super::established::Established;
use super::ike_sa::FollowUp;
use super::initiator::can_initiate;
use super::run::REKEY_AGAIN;
use super::task::{Queued, Task};
use crate::config::{CloseAction, DpdAction};
use crate::io::{ChildSaId, ChildSaReport, DownReason, Notice, RemarkLevel};

impl Established {
    pub(super) fn child_by_spi_out(&self, spi: EspSpi) -> Option<&ChildSa> {
        self.children.values().find(|child| child.spi_out == spi && !matches!(child.phase, Phase::Draining(_)))
    }

    fn child_by_spi_in(&self, spi: EspSpi) -> Option<ChildSaId> {
        self.children.values().find(|child| child.spi_in == spi).map(|child| child.id)
    }

    /// Whether another child took this one's place.
    pub(super) fn is_replaced(&self, id: ChildSaId) -> bool {
        self.successor_of(id).is_some()
    }

    /// The child that took this one's place.
    fn successor_of(&self, id: ChildSaId) -> Option<ChildSaId> {
        let is_successor = |child: &&ChildSa| child.replaces == Some(id) && child.phase == Phase::Up;
        self.children.values().filter(|child| !child.redundant).find(is_successor).map(|child| child.id)
    }

    /// Whether a child other than `but` took this one's place.
    pub(super) fn is_replaced_by_other(&self, id: ChildSaId, but: ChildSaId) -> bool {
        let is_other = |child: &ChildSa| child.replaces == Some(id) && child.id != but;
        self.children.values().any(|child| is_other(child) && child.phase == Phase::Up && !child.redundant)
    }

    /// Two rekeyings met, and this is not the child that stays: it only receives until it is deleted.
    pub(super) fn make_redundant(&mut self, cx: &mut Context, id: ChildSaId) {
        if let Some(child) = self.children.get_mut(&id) {
            child.redundant = true;
            child.rekey_at = None;
            child.remove_outbound(cx);
        }
    }

    /// The outcome of one installing step.
    pub(super) fn on_install(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (id, step): (ChildSaId, InstallStep),
        outcome: Result<(), Refusal>,
    ) {
        let owner = self.local_spi();
        let Some(child) = self.children.get_mut(&id) else {
            // It was given up meanwhile. Its halves are removed, but what was refused is still reserved.
            if let (InstallStep::Inbound(spi), Err(_)) = (step, outcome) {
                cx.release_spi(spi);
            }
            return;
        };
        let Some(result) = child.on_installed(cx, owner, step, outcome) else {
            return;
        };
        if self.is_serving(id) {
            self.on_served(cx, now, id, result);
            self.run_tasks(cx, now);
        } else {
            self.on_offer_installed(cx, now, id, result);
        }
    }

    /// Tells everybody that a child is there, in the place of `old` if there was one.
    pub(super) fn announce(&mut self, cx: &mut Context, id: ChildSaId, old: Option<ChildSaId>) {
        let sa = Box::new(self.report());
        let old = old.and_then(|old| self.children.get_mut(&old)).filter(|old| old.announced && !old.superseded);
        let old = old.map(|old| {
            old.rekey_at = None;
            old.superseded = true;
            Box::new(old.report(false))
        });
        let (connection, local_spi) = (self.session.connection.name.clone(), self.local_spi());
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        child.announced = true;
        let report = Box::new(child.report(false));
        cx.reconciler.came_up(&connection, &child.child.name);
        cx.follow_up(FollowUp::Unique { spi: local_spi });
        cx.notice(match old {
            Some(old) => Notice::ChildRekeyed { sa, old, new: report },
            None => Notice::ChildUp { sa, child: report },
        });
    }

    /// Sends on this child from now on, and not on the one that it replaces (R7296-2.8.1-2).
    pub(super) fn switch_to(&mut self, cx: &mut Context, id: ChildSaId) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        child.activate(cx);
        let (old, announced) = (child.replaces, child.announced);
        if !announced {
            self.announce(cx, id, old);
        }
        if let Some(old) = old.and_then(|old| self.children.get_mut(&old)) {
            old.remove_outbound(cx);
            old.rekey_at = None;
            if old.phase == Phase::Up {
                old.phase = Phase::Replaced;
            }
        }
    }

    /// Our rekeying of a child is carried out: the new one takes over, unless the peer replaced the old one at the same
    /// time and its new one stays (RFC 7296 §2.8.1). `theirs` are the nonces of its exchange.
    pub(super) fn take_over(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (new, old): (ChildSaId, ChildSaId),
        theirs: Option<&[Vec<u8>; 2]>,
    ) {
        let ours = self.children.get(&new).map(|child| &child.nonces);
        let verdict = match (ours, theirs) {
            (Some(ours), Some(theirs)) => survivor([&ours[0], &ours[1]], [&theirs[0], &theirs[1]]),
            _ => Survivor::Ours,
        };
        let is_rival = |child: &&ChildSa| child.id != new && child.replaces == Some(old) && child.phase == Phase::Up;
        let rival = self.children.values().find(is_rival).map(|child| child.id);
        match verdict {
            Survivor::Ours => {
                let theirs = rival.and_then(|rival| self.children.get(&rival));
                let before = theirs.filter(|theirs| theirs.announced).map_or(old, |theirs| theirs.id);
                if let Some(rival) = rival {
                    self.make_redundant(cx, rival);
                }
                self.announce(cx, new, Some(before));
                self.switch_to(cx, new);
                let delete = Task::DeleteChild { child: old, reason: DownReason::Replaced };
                if self.children.contains_key(&old) {
                    self.queue_first(Queued::new(delete));
                }
            }
            Survivor::Theirs => {
                self.make_redundant(cx, new);
                let delete = Task::DeleteChild { child: new, reason: DownReason::Replaced };
                self.queue(cx, now, Queued::new(delete));
            }
        }
    }

    /// The peer deletes what it made to replace a child that we are replacing as well: ours stays, although we do not
    /// have the response yet that would tell us so.
    pub(super) fn note_lost_collision(&mut self, id: ChildSaId) {
        let old = self.children.get(&id).and_then(|child| child.replaces);
        if old.is_some_and(|old| self.is_rekeying(old))
            && let Some(child) = self.children.get_mut(&id).filter(|child| !child.announced)
        {
            child.redundant = true;
        }
    }

    /// A packet came in on an SA: the peer sends on it, so it is ready to receive, too (RFC 7296 §2.8).
    pub(super) fn on_first_packet(&mut self, cx: &mut Context, now: Instant, spi: EspSpi) {
        self.last_heard = now;
        let Some(id) = self.child_by_spi_in(spi) else {
            return;
        };
        let waits = self
            .children
            .get(&id)
            .is_some_and(|child| child.phase == Phase::Up && child.outbound == Half::Ready && !child.redundant);
        if waits {
            self.switch_to(cx, id);
        }
    }

    /// A traffic limit is reached: the soft one asks for a new SA, the hard one ends the old one.
    pub(super) fn on_limit(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (direction, spi, policy): (Direction, EspSpi, PolicyId),
        hard: bool,
    ) {
        let found = self.children.values().find(|child| {
            let own = if direction == Direction::Inbound { child.spi_in } else { child.spi_out };
            child.policy == policy && own == spi
        });
        let Some(child) = found.filter(|child| child.phase == Phase::Up && !child.redundant) else {
            return;
        };
        let id = child.id;
        let task = if hard {
            Task::DeleteChild { child: id, reason: DownReason::Expired }
        } else {
            Task::RekeyChild { child: id, group: None }
        };
        self.queue(cx, now, Queued::new(task));
    }

    /// The child is deleted by both ends. What replaced it takes over now at the latest, and what is still under way may
    /// come in for a while.
    pub(super) fn retire_child(&mut self, cx: &mut Context, now: Instant, id: ChildSaId, reason: &DownReason) {
        let successor = self.successor_of(id);
        let waits = |successor: &ChildSaId| {
            self.children.get(successor).is_some_and(|child| child.outbound == Half::Ready || !child.announced)
        };
        if let Some(successor) = successor.filter(waits) {
            self.switch_to(cx, successor);
        }
        let Some(child) = self.children.get(&id).filter(|child| child.inbound == Half::Ready) else {
            return self.drop_child(cx, now, id, reason);
        };
        let goes_back = self.is_replaced_in_vain(child);
        if successor.is_none() && (goes_back || !cx.policies.is_shared(child.policy, id)) {
            return self.drop_child(cx, now, id, reason);
        }
        if successor.is_none() && child.is_known() {
            let (sa, report) = (Box::new(self.report()), Box::new(child.report(false)));
            cx.notice(Notice::ChildDown { sa, child: report, reason: reason.clone() });
        }
        self.drain_child(cx, now, id);
    }

    /// Whether this child was to replace one that can go on.
    fn is_replaced_in_vain(&self, child: &ChildSa) -> bool {
        let old = child.replaces.and_then(|old| self.children.get(&old));
        old.is_some_and(can_go_on)
    }

    fn drain_child(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        if let Some(child) = self.children.get_mut(&id) {
            child.drain(cx, now);
        }
    }

    /// Removes a child from here and from the dataplane, with its policy if no other child needs that.
    pub(super) fn drop_child(&mut self, cx: &mut Context, now: Instant, id: ChildSaId, reason: &DownReason) {
        let sa = self.report();
        let Some(child) = self.children.remove(&id) else {
            return;
        };
        self.abandon_installing(cx, id, reason);
        self.abandon_serving(cx, now, id);
        let report = child.report(false);
        let was_up = child.is_known();
        let (name, replaces) = (child.child.name.clone(), child.replaces);
        let again = self.wants_again(&child, reason);
        self.dispose_of(cx, now, child, reason);
        if was_up && !self.revive_replaced(cx, now, (replaces, &report)) {
            cx.notice(Notice::ChildDown { sa: Box::new(sa), child: Box::new(report), reason: reason.clone() });
            let connection = &self.session.connection;
            if again == Some(Again::AtOnce) && can_initiate(connection) {
                cx.reconciler.want_once(now, &connection.name, &name);
            } else if *reason != DownReason::Command {
                cx.reconnect_later(now, &connection.name);
            }
        }
    }

    /// Takes a child out of the dataplane. If another IKE SA has taken its place over, what is still under way may come
    /// in for a while.
    fn dispose_of(&mut self, cx: &mut Context, now: Instant, mut child: ChildSa, reason: &DownReason) {
        child.remove_outbound(cx);
        let is_drained = matches!(child.phase, Phase::Draining(until) if until <= now);
        let may_drain = matches!(reason, DownReason::Replaced | DownReason::PeerDeleted | DownReason::Command);
        let heir = cx.policies.other_owner(child.policy, self.local_spi());
        if let Some(heir) = heir.filter(|_| may_drain && !is_drained && child.inbound == Half::Ready) {
            child.drain(cx, now);
            cx.follow_up(FollowUp::Drain { heir, child: Box::new(child) });
            return;
        }
        child.remove_inbound(cx);
        if !child.is_draining() && !cx.policies.is_shared(child.policy, child.id) {
            self.hold_policy(cx, &child, reason);
        }
        cx.leave_policy(child.policy, child.id);
    }

    /// Takes a child of another IKE SA over that only drains.
    pub(super) fn adopt_draining(&mut self, cx: &mut Context, child: ChildSa) {
        cx.policies.hand_over(child.policy, child.id, self.local_spi());
        self.children.insert(child.id, child);
    }

    /// What replaced a child is gone before we sent on it, for the peer could not use it: the old one goes on, and
    /// everybody learns that. Returns whether there is one.
    fn revive_replaced(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (replaces, gone): (Option<ChildSaId>, &ChildSaReport),
    ) -> bool {
        let old = replaces.and_then(|old| self.children.get_mut(&old));
        let Some(old) = old.filter(|old| can_go_on(old)) else {
            return false;
        };
        old.superseded = false;
        old.rekey_at = old.child.lifetime.rekey_after.map(|_| now + REKEY_AGAIN);
        let new = Box::new(old.report(false));
        cx.notice(Notice::ChildRekeyed { sa: Box::new(self.report()), old: Box::new(gone.clone()), new });
        true
    }

    /// Whether a child that falls for this reason is to come up again, as the configuration has it now.
    fn wants_again(&self, child: &ChildSa, reason: &DownReason) -> Option<Again> {
        let connection = &self.session.connection;
        let configured = connection.children.iter().find(|other| other.name == child.child.name)?;
        if *reason == DownReason::PeerDead {
            // Without probes nobody asked to look for dead peers, but one that answers no request is dead all the same.
            return match configured.dpd.or(connection.dpd.map(|dpd| dpd.action))? {
                DpdAction::Restart => Some(Again::AtOnce),
                DpdAction::Hold => Some(Again::WithAPacket),
                DpdAction::Clear => None,
            };
        }
        match configured.close {
            CloseAction::Start if *reason == DownReason::PeerDeleted => Some(Again::AtOnce),
            CloseAction::Trap if *reason == DownReason::PeerDeleted => Some(Again::WithAPacket),
            CloseAction::None | CloseAction::Trap | CloseAction::Start => None,
        }
    }

    /// The policy of a child that fell stays and waits for a packet, if that is what is wanted.
    fn hold_policy(&mut self, cx: &mut Context, child: &ChildSa, reason: &DownReason) {
        let holds = self.wants_again(child, reason) == Some(Again::WithAPacket);
        if let Some(connection) = cx.connections.get(self.connection_name()).filter(|_| holds)
            && let Some(child) = connection.children.iter().find(|other| other.name == child.child.name)
        {
            match cx.policies.trap(connection, child) {
                Ok(command) => command.into_iter().for_each(|command| cx.command("set a trap", command)),
                Err(error) => cx.remark(Some(self.connection_name()), RemarkLevel::Warn, error.to_string()),
            }
        }
    }

    /// A child of ours was made to send in the place of one that went.
    pub(super) fn on_sends(&mut self, id: ChildSaId) {
        if let Some(child) = self.children.get_mut(&id).filter(|child| child.outbound == Half::Ready) {
            child.outbound = Half::Active;
        }
    }
}

/// When a child that fell comes up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    AtOnce,
    WithAPacket,
}

/// Whether a child that was replaced can take the place of what replaced it again.
fn can_go_on(old: &ChildSa) -> bool {
    old.superseded && old.phase == Phase::Up && matches!(old.outbound, Half::Ready | Half::Active)
}
