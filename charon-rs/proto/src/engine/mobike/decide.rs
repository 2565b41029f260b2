//! The end that decides which addresses are used: the one that initiated the first IKE SA (RFC 4555 §3.5).

use std::sync::Arc;
use std::time::Instant;

use espdp_api::{AddressRange, IkePath, TrafficSelector};

use super::super::context::Context;
use super::super::established::{Established, Life};
use super::super::failure::Trouble;
use super::super::nat::{Nat, agreed, is_detecting, nat_detection_payloads};
use super::super::task::{ChildWish, Queued, Task};
use super::messages::{nat_not_allowed, new_cookie2, no_nats_allowed, returns_cookie};
use super::{Move, Told};
use crate::config::{Child, ChildSelector};
use crate::io::{ChildSaId, DownReason, RemarkLevel};
use crate::rules::notifies;
use crate::wire::{Notify, NotifyType, Payload};

impl Established {
    /// The way to the peer leads over `path`, as it did, or from another of our addresses now.
    pub(super) fn on_own_address(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        if path != self.session.path {
            self.change_path(cx, now, path);
        } else if self.session.nat.local && self.life == Life::Up {
            // The same address may lead through another NAT now: a probe tells.
            self.queue(cx, now, Queued::new(Task::Liveness));
        }
    }

    /// Goes over to another path: IKE at once, ESP too unless the peer has yet to show that it is there, and the peer is
    /// told to follow. What waits for an answer is sent over the new path right away.
    pub(super) fn change_path(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        let outer = self.session.outer_path(cx.settings.nat_port);
        self.set_path(cx, path);
        if path.remote.ip() == outer.remote {
            self.move_children(cx);
        } else {
            self.session.unconfirmed = Some(outer);
        }
        self.end_detours();
        self.ours.hurry(now, &self.session.connection.retransmission);
        self.queue_update(cx, now);
    }

    /// Tells the peer to send to where we send from. It is told over an SA that was replaced as well: it may not have our
    /// answer yet, and without knowing where we are it can neither get it nor know the SA that took its place.
    fn queue_update(&mut self, cx: &mut Context, now: Instant) {
        if matches!(self.life, Life::Up | Life::Replaced(_)) {
            self.tasks.push_first_of_kind(Queued::new(Task::Move(Move::Update, None)));
            self.run_tasks(cx, now);
        }
    }

    /// An answer came back. When it took another path than the one in use, that one works: from there on it is used.
    pub(in crate::engine) fn on_answered_over(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        let detour = self.mobike.as_ref().filter(|mobike| mobike.decides && mobike.detours.contains(&path));
        if detour.is_some() && path != self.session.path {
            self.change_path(cx, now, path);
        }
        self.end_detours();
    }

    /// The UPDATE_SA_ADDRESSES request for the path in use.
    pub(super) fn update_request(&mut self, cx: &mut Context) -> (Vec<Payload>, Told) {
        let path = self.session.path;
        let mut payloads = vec![Payload::Notify(Notify::new(NotifyType::UpdateSaAddresses))];
        if self.session.nat.traverses {
            payloads.extend(self.nat_detection_payloads(cx));
        } else {
            payloads.push(no_nats_allowed(path));
        }
        let (payload, cookie) = new_cookie2(cx);
        payloads.push(payload);
        payloads.extend(self.additional_addresses(cx));
        (payloads, Told { path, cookie: Some(cookie) })
    }

    /// The NAT_DETECTION notifications for the path in use.
    pub(super) fn nat_detection_payloads(&self, cx: &mut Context) -> Vec<Payload> {
        let encapsulation = self.session.connection.encapsulation;
        nat_detection_payloads(cx, self.session.names.spis(), self.session.path, encapsulation)
    }

    /// The peer has answered UPDATE_SA_ADDRESSES. If the path has changed again since, that says nothing: another request
    /// is under way.
    pub(super) fn on_update_response(&mut self, cx: &mut Context, now: Instant, told: &Told, payloads: &[Payload]) {
        if told.path != self.session.path {
            return;
        }
        if !returns_cookie(told.cookie.as_deref(), notifies(payloads)) {
            return self.close_for_cookie(cx, now);
        }
        let has = |kind| notifies(payloads).any(|notify| notify.kind == kind);
        if has(NotifyType::UnexpectedNatDetected) {
            return self.on_unexpected_nat(cx, now);
        }
        if has(NotifyType::UnacceptableAddresses) {
            return self.on_unacceptable(cx, now);
        }
        if is_detecting(notifies(payloads)) {
            self.look_for_nats(payloads);
        }
        if let Some(mobike) = &mut self.mobike {
            mobike.unexpected_nats = 0;
            mobike.settled = told.path;
        }
        self.move_children(cx);
        self.renew_hosts(cx, now);
    }

    /// Children whose selectors are the addresses that have changed protect nothing any more: they are made anew.
    fn renew_hosts(&mut self, cx: &mut Context, now: Instant) {
        let hosts = self.session.hosts();
        let is_stale = |selectors: &[TrafficSelector], configured: &[ChildSelector], hosts: &[AddressRange]| {
            configured.iter().any(|selector| selector.fixed().is_none())
                && !selectors.iter().any(|selector| hosts.iter().any(|host| selector.addresses.contains(host.start())))
        };
        let stale = self.children.values().filter(|sa| {
            sa.is_useful()
                && (is_stale(&sa.local, &sa.child.local_selectors, &hosts.local)
                    || is_stale(&sa.remote, &sa.child.remote_selectors, &hosts.remote))
        });
        let stale: Vec<(ChildSaId, Arc<Child>)> = stale.map(|sa| (sa.id, sa.child.clone())).collect();
        for (id, child) in stale {
            let text = format!("child `{}` is for an address that is gone, and is made anew", child.name);
            cx.remark(Some(self.connection_name()), RemarkLevel::Info, text);
            self.queue(cx, now, Queued::new(Task::DeleteChild { child: id, reason: DownReason::Replaced }));
            self.queue(cx, now, Queued::new(Task::CreateChild(ChildWish::new(child))));
        }
    }

    /// Reads the NAT_DETECTION notifications of a response on the path in use.
    fn look_for_nats(&mut self, payloads: &[Payload]) {
        let (path, spis) = (self.session.path, self.session.names.spis());
        let encapsulation = agreed(self.session.connection.encapsulation, self.session.nat.fake);
        self.session.nat = Nat::detect(notifies(payloads), spis, path, encapsulation);
        if let Some(mobike) = &mut self.mobike {
            mobike.seen_as = seen_as(payloads).cloned();
        }
    }

    /// What belongs into a probe: behind a NAT it also shows whether that has forgotten us (RFC 4555 §3.8).
    pub(in crate::engine) fn probe_payloads(&self, cx: &mut Context) -> Vec<Payload> {
        let decides = self.mobike.as_ref().is_some_and(|mobike| mobike.decides);
        if decides && self.session.nat.local { self.nat_detection_payloads(cx) } else { Vec::new() }
    }

    /// The peer has answered a probe; if it sees us elsewhere than before, it is told to send there.
    pub(in crate::engine) fn on_probe_response(&mut self, cx: &mut Context, now: Instant, payloads: &[Payload]) {
        let Some(mobike) = self.mobike.as_mut().filter(|mobike| mobike.decides) else {
            return;
        };
        if let Some(seen_as) = seen_as(payloads)
            && mobike.seen_as.as_ref() != Some(seen_as)
        {
            mobike.seen_as = Some(seen_as.clone());
            self.queue_update(cx, now);
        }
    }

    /// The peer has told where it is. If that is not where we send to any more, we go where the message came from.
    pub(super) fn on_peer_addresses(&mut self, cx: &mut Context, now: Instant, source: IkePath) {
        let current = self.session.path.remote.ip();
        let left = self.mobike.as_ref().is_some_and(|mobike| {
            mobike.decides && current != source.remote.ip() && !mobike.peer_addresses.contains(&current)
        });
        if left {
            self.change_path(cx, now, source);
        }
    }

    /// RFC 4555 §3.9: somebody may have meddled with one message, so that it is tried again, with a new one each time.
    fn on_unexpected_nat(&mut self, cx: &mut Context, now: Instant) {
        let tries = self.session.connection.retransmission.tries;
        let Some(mobike) = &mut self.mobike else {
            return;
        };
        mobike.unexpected_nats += 1;
        if mobike.unexpected_nats <= tries {
            return self.queue_update(cx, now);
        }
        mobike.unexpected_nats = 0;
        self.report_trouble(cx, nat_not_allowed(), None);
        self.go_back(cx, now);
    }

    fn on_unacceptable(&mut self, cx: &mut Context, now: Instant) {
        self.report_trouble(cx, Trouble::Refused(NotifyType::UnacceptableAddresses), None);
        self.go_back(cx, now);
    }

    /// The peer does not follow: back to where both ends were, if that is still possible; else it is over.
    fn go_back(&mut self, cx: &mut Context, now: Instant) {
        let settled = self.mobike.as_ref().map(|mobike| mobike.settled);
        match settled.filter(|settled| cx.has_address(settled.local.ip())) {
            Some(settled) => {
                self.set_path(cx, settled);
                self.move_children(cx);
            }
            None => self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Failed })),
        }
    }

    /// RFC 4555 §3.7: an answer without the COOKIE2 of the request ends the IKE SA.
    pub(super) fn close_for_cookie(&mut self, cx: &mut Context, now: Instant) {
        self.report_trouble(cx, Trouble::NotOffered("the answer has not the COOKIE2 of the request".to_owned()), None);
        self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Failed }));
    }
}

/// The hash of our address and port as the peer sees them.
fn seen_as(payloads: &[Payload]) -> Option<&Vec<u8>> {
    notifies(payloads).find(|notify| notify.kind == NotifyType::NatDetectionDestinationIp).map(|notify| &notify.data)
}
