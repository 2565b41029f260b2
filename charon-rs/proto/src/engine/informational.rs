//! INFORMATIONAL exchanges: deleting, being deleted, being asked whether we live (RFC 7296 §1.4).

use std::time::{Duration, Instant};

use espdp_api::{EspSpi, IpsecProtocol};

use super::child::Phase;
use super::collision::{DeleteVerdict, judge_delete};
use super::context::Context;
use super::established::{Established, Life, Request};
use super::failure::Trouble;
use super::ike_sa::FollowUp;
use super::task::{Queued, Task};
use crate::io::{DownReason, RemarkLevel};
use crate::rules::INFORMATIONAL;
use crate::wire::{Delete, NotifyType, Payload};

impl Established {
    /// Every request gets an answer, even an empty one (R7296-1.4-2).
    pub(super) fn on_informational_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: Vec<Payload>,
    ) -> Result<(), Trouble> {
        let body = INFORMATIONAL.check(payloads)?;
        for kind in body.notifies().map(|notify| notify.kind) {
            if ENDS_THE_SA.contains(&kind) {
                self.answer(cx, now, request, Vec::new());
                self.report_trouble(cx, Trouble::Refused(kind), None);
                self.end(cx, now, DownReason::PeerDeleted);
                return Ok(());
            }
            cx.remark(Some(self.connection_name()), RemarkLevel::Debug, format!("the peer notes: {kind}"));
        }
        if let Some(notify) = body.notify(NotifyType::InvalidSpi) {
            self.on_spi_lost(cx, now, notify);
        }
        if let Some(gateway) = self.redirected(&body) {
            cx.follow_up(FollowUp::Redirected { spi: self.local_spi(), gateway });
        }
        if let Some(notify) = body.notify(NotifyType::AuthLifetime) {
            self.on_authentication_lifetime(cx, now, notify);
        }
        let mut answer = self.serve_addresses(cx, now, request, &body);
        if body.deletes().any(|delete| *delete == Delete::IkeSa) {
            self.answer_farewell(cx, now);
            self.farewell = Some(Farewell { request, answer, at: now + UNDER_WAY });
            if !self.send_elsewhere(cx) {
                self.say_farewell(cx, now);
            } else if self.life == Life::Up {
                self.life = Life::Deleting;
            }
            return Ok(());
        }
        for protocol in [IpsecProtocol::Esp, IpsecProtocol::Ah] {
            let spis: Vec<EspSpi> = body.deletes().flat_map(|delete| delete.spis(protocol)).copied().collect();
            let ours = self.on_children_deleted(cx, now, protocol, &spis);
            if !ours.is_empty() {
                answer.push(Payload::Delete(Delete::children(protocol, ours)));
            }
        }
        self.answer(cx, now, request, answer);
        Ok(())
    }

    /// The peer may receive on none of the children once it has our answer: others send from now on, if there are any and
    /// the children do not go over to another SA.
    fn send_elsewhere(&self, cx: &mut Context) -> bool {
        let has_heir = self.rival.as_ref().is_some_and(|rival| cx.has_ike_spi(rival.spi));
        let children = self.children.values().filter(|_| !has_heir);
        children.filter(|child| cx.pass_on_sending(child.policy, child.id)).count() > 0
    }

    /// Agrees to the peer's deletion, and is gone.
    pub(super) fn say_farewell(&mut self, cx: &mut Context, now: Instant) {
        self.answer_farewell(cx, now);
        self.on_ike_deleted(cx, now);
    }

    /// Answers the peer's deletion, if that still waits.
    pub(super) fn answer_farewell(&mut self, cx: &mut Context, now: Instant) {
        if let Some(Farewell { request, answer, .. }) = self.farewell.take() {
            self.answer(cx, now, request, answer);
        }
    }

    /// The peer deleted the SA. If it has replaced it while our own request to do so was on its way, it did not notice
    /// that, and what it made stays (RFC 7296 §2.8.2).
    fn on_ike_deleted(&mut self, cx: &mut Context, now: Instant) {
        if let Some(rival) = self.take_rival(cx) {
            self.bequeath(cx, now, rival.spi);
        }
        // Both ends may want it: ours is done as well then (RFC 7296 §2.25.2).
        let reason = self.delete_reason().unwrap_or(DownReason::PeerDeleted);
        self.end(cx, now, reason);
    }

    /// The peer deleted these children: the SPIs of our halves that the response has to name (R7296-1.4.1-1).
    fn on_children_deleted(
        &mut self,
        cx: &mut Context,
        now: Instant,
        protocol: IpsecProtocol,
        spis: &[EspSpi],
    ) -> Vec<EspSpi> {
        let mut ours = Vec::new();
        for &spi in spis {
            let found = self.child_by_spi_out(spi).filter(|child| child.suite.protocol == protocol);
            let found = found.map(|child| (child.id, child.spi_in, child.phase));
            let delete_sent = matches!(found, Some((_, _, Phase::Deleting)));
            match (judge_delete(found.is_some(), delete_sent), found) {
                (DeleteVerdict::DeleteBoth, Some((id, spi_in, _))) => {
                    ours.push(spi_in);
                    self.note_lost_collision(id);
                    self.retire_child(cx, now, id, &DownReason::PeerDeleted);
                }
                (DeleteVerdict::DeleteSilently, Some((id, _, _))) => {
                    // R7296-1.4.1-2: the half that sends goes now, the other one with the response to our request.
                    if let Some(child) = self.children.get_mut(&id) {
                        child.remove_outbound(cx);
                    }
                }
                _ => {
                    self.note_deleted(spi);
                    if self.is_spare && self.deleted_early.len() < MAX_DELETED_EARLY {
                        self.deleted_early.push(spi);
                    }
                    if let Life::Replaced(heir) = self.life {
                        // The child has moved on before the peer knew.
                        cx.follow_up(FollowUp::ChildDeleted { heir, spi_out: spi });
                    }
                }
            }
        }
        ours
    }

    /// The peer deleted a child over the SA from which this one inherited it.
    pub(super) fn on_inherited_child_deleted(&mut self, cx: &mut Context, now: Instant, spi_out: EspSpi) {
        if let Some(id) = self.child_by_spi_out(spi_out).map(|child| child.id) {
            self.retire_child(cx, now, id, &DownReason::PeerDeleted);
        }
    }

    /// The peer has answered one of our requests, and with that the task is done; errors change nothing about it.
    pub(super) fn on_informational_response(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        payloads: &[Payload],
    ) {
        match &queued.task {
            Task::DeleteChild { child, reason } => {
                let (child, reason) = (*child, reason.clone());
                self.retire_child(cx, now, child, &reason);
            }
            Task::DeleteIke { reason } => {
                let reason = reason.clone();
                self.finish(cx, queued, &Ok(()));
                return self.end(cx, now, reason);
            }
            Task::Liveness => self.on_probe_response(cx, now, payloads),
            Task::Redirect(_) => self.await_departure(now),
            Task::ReportSpi(_) => {}
            Task::Move(wanted, Some(told)) => self.on_move_response(cx, now, (*wanted, told), payloads),
            Task::CreateChild(_)
            | Task::RekeyChild { .. }
            | Task::RekeyIke { .. }
            | Task::Discard(..)
            | Task::Move(_, None) => {}
        }
        self.finish(cx, queued, &Ok(()));
    }
}

/// The answer to the peer's deletion of the IKE SA, which waits until what was sent on its children is there.
#[derive(Debug)]
pub(super) struct Farewell {
    request: Request,
    answer: Vec<Payload>,
    pub(super) at: Instant,
}

/// So long the last packets on an SA may be under way, in the network and in a peer that has other threads for them than for
/// IKE. Peers that wait for an answer repeat their request after seconds.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// Children that a peer may delete before we know that they belong to this SA: it has no more (see `serve`).
const MAX_DELETED_EARLY: usize = 1024;

/// RFC 7296 §2.21.2: these end the SA without a Delete payload.
const ENDS_THE_SA: [NotifyType; 3] =
    [NotifyType::AuthenticationFailed, NotifyType::InvalidSyntax, NotifyType::UnsupportedCriticalPayload];
