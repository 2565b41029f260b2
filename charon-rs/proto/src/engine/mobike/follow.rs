//! The end that follows: it serves UPDATE_SA_ADDRESSES, and tells what addresses it has (RFC 4555 §3.5, §3.6).

use std::time::Instant;

use espdp_api::{IkePath, OuterPath};

use super::super::context::Context;
use super::super::established::{Established, Request};
use super::super::nat::{Nat, agreed, is_detecting, nat_detection_payloads};
use super::super::task::{Queued, Task};
use super::messages::{
    lists_addresses, nat_not_allowed, new_cookie2, no_nats_allowed, peer_addresses, returns_cookie, unexpected_nat,
};
use super::{Move, Told};
use crate::config::{Connection, RemoteAddress};
use crate::rules::{Body, notifies};
use crate::wire::{Notify, NotifyType, Payload};

impl Established {
    /// Serves what an INFORMATIONAL request says about addresses. Returns what belongs into the response.
    pub(in crate::engine) fn serve_addresses(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        body: &Body,
    ) -> Vec<Payload> {
        // RFC 4555 §3.7: it goes back as it came.
        let mut answer: Vec<Payload> =
            body.notify(NotifyType::Cookie2).cloned().map(Payload::Notify).into_iter().collect();
        let Some(mobike) = &mut self.mobike else {
            return answer;
        };
        let refused = |kind| Payload::Notify(Notify::new(kind));
        let updates = body.has_notify(NotifyType::UpdateSaAddresses);
        let lists = lists_addresses(body.notifies());
        // RFC 4555 §3.9: what such a message says of addresses is used for nothing.
        if (updates || lists) && unexpected_nat(body.notifies(), request.path) {
            self.report_trouble(cx, nat_not_allowed(), None);
            answer.push(refused(NotifyType::UnexpectedNatDetected));
            return answer;
        }
        // With several requests under way they may arrive in another order.
        let is_newest = mobike.newest_update.is_none_or(|newest| newest < request.message_id);
        if (updates || lists) && is_newest {
            mobike.newest_update = Some(request.message_id);
        }
        if lists && is_newest {
            mobike.peer_addresses = peer_addresses(body.notifies());
        }
        if updates && (mobike.decides || !is_acceptable(&self.session.connection, request.path)) {
            answer.push(refused(NotifyType::UnacceptableAddresses));
            return answer;
        }
        let detects = self.session.nat.traverses && is_detecting(body.notifies());
        if detects {
            // RFC 4555 §3.8: also where they are no part of an update.
            let (encapsulation, spis) = (self.session.connection.encapsulation, self.session.names.spis());
            answer.extend(nat_detection_payloads(cx, spis, request.path, encapsulation));
        }
        if updates && is_newest {
            if detects {
                let encapsulation = agreed(self.session.connection.encapsulation, self.session.nat.fake);
                let spis = self.session.names.spis();
                self.session.nat = Nat::detect(body.notifies(), spis, request.path, encapsulation);
            }
            self.follow_to(cx, now, request.path);
        } else if lists && is_newest {
            self.on_peer_addresses(cx, now, request.path);
        }
        answer
    }

    /// The peer wants to be reached where its request came from. IKE goes there at once; ESP waits until the peer has shown
    /// that it is there, for it might have us flood somebody else (R4555-3.7-1).
    pub(super) fn follow_to(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        let outer = self.session.outer_path(cx.settings.nat_port);
        self.set_path(cx, path);
        self.session.unconfirmed = None;
        if let Some(mobike) = &mut self.mobike {
            mobike.settled = path;
        }
        if path.remote.ip() == outer.remote {
            return self.move_children(cx);
        }
        self.hold_children(cx, OuterPath { local: path.local.ip(), ..outer });
        self.ours.hurry(now, &self.session.connection.retransmission);
        self.tasks.push_first_of_kind(Queued::new(Task::Move(Move::Confirm, None)));
    }

    /// ESP stays where it is, but for our own address, which may be gone.
    fn hold_children(&mut self, cx: &mut Context, outer: OuterPath) {
        self.session.unconfirmed = Some(outer);
        for child in self.children.values_mut() {
            child.move_to(cx, outer);
        }
    }

    /// The request of a return routability check (RFC 4555 §3.7).
    pub(super) fn confirm_request(&self, cx: &mut Context) -> (Vec<Payload>, Told) {
        let (payload, cookie) = new_cookie2(cx);
        (vec![payload], Told { path: self.session.path, cookie: Some(cookie) })
    }

    /// The peer is where it says it is, unless it has moved since: the same request may have gone to both places then, and
    /// another one must tell.
    pub(super) fn on_confirm_response(&mut self, cx: &mut Context, now: Instant, told: &Told, payloads: &[Payload]) {
        if !returns_cookie(told.cookie.as_deref(), notifies(payloads)) {
            return self.close_for_cookie(cx, now);
        }
        if told.path == self.session.path {
            self.move_children(cx);
        } else if self.session.unconfirmed.is_some() {
            self.tasks.push_first_of_kind(Queued::new(Task::Move(Move::Confirm, None)));
        }
    }

    /// Our address is gone, and the peer is told from another one. It is the only change of ESP that is not the peer's to
    /// make (RFC 4555 §3.5).
    pub(super) fn leave_address(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        if path == self.session.path || cx.has_address(self.session.path.local.ip()) {
            return;
        }
        self.set_path(cx, path);
        match self.session.unconfirmed {
            Some(outer) => self.hold_children(cx, OuterPath { local: path.local.ip(), ..outer }),
            None => self.move_children(cx),
        }
        self.ours.hurry(now, &self.session.connection.retransmission);
        self.queue(cx, now, Queued::new(Task::Move(Move::Announce, None)));
    }

    /// The request that lists our addresses (RFC 4555 §3.6).
    pub(super) fn announce_request(&mut self, cx: &mut Context) -> (Vec<Payload>, Told) {
        let path = self.session.path;
        let mut payloads = self.additional_addresses(cx);
        if !self.session.nat.traverses {
            payloads.push(no_nats_allowed(path));
        }
        (payloads, Told { path, cookie: None })
    }
}

/// Whether the configuration lets the peer go there: its own place may be restricted to ranges, ours to addresses. A single
/// address of the peer says where it is found at first, not where it has to stay.
fn is_acceptable(connection: &Connection, path: IkePath) -> bool {
    let is_range = |remote: &RemoteAddress| matches!(remote, RemoteAddress::Range(_));
    let only_ranges = !connection.remote_addresses.is_empty() && connection.remote_addresses.iter().all(is_range);
    let covers = |remote: &RemoteAddress| match remote {
        RemoteAddress::Range(range) => range.contains(path.remote.ip()),
        RemoteAddress::Address(_) | RemoteAddress::Name(_) | RemoteAddress::Any => true,
    };
    let remote = !only_ranges || connection.remote_addresses.iter().any(covers);
    let local = connection.local_addresses.is_empty() || connection.local_addresses.contains(&path.local.ip());
    remote && local
}
