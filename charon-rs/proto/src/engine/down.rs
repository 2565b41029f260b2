//! Taking SAs down when somebody here wants it, whatever the peer thinks of it.

use std::time::Instant;

use super::Engine;
use super::commands::Object;
use super::context::Context;
use super::established::Established;
use super::task::{Queued, Task};
use crate::io::{ChildSaId, DownReason, Target, Ticket};
use crate::wire::{Delete, ExchangeType, Payload};

impl Engine {
    /// Takes SAs down without waiting for anybody: the peer is told once.
    pub(super) fn terminate_at_once(&mut self, now: Instant, ticket: Ticket, target: &Target) {
        let objects = self.find_down(target);
        self.suspend(target);
        self.cx.open_ticket(ticket, objects.len(), "no SA matches");
        for object in objects {
            match object {
                Object::Ike(spi) => {
                    self.suspend_all(spi);
                    self.with_established(spi, |sa, cx| sa.leave(cx, now));
                    self.with_sa(spi, |sa, cx| sa.stop(cx, now));
                }
                Object::Child(spi, child) => self.with_established(spi, |sa, cx| sa.abandon_child(cx, now, child)),
            }
            self.cx.settle([ticket], &Ok(()));
        }
    }
}

impl Established {
    /// Ends the SA here and now. The peer is told once, if a request may be sent now (R7296-2.3-1).
    fn leave(&mut self, cx: &mut Context, now: Instant) {
        if self.ours.free_id().is_some() {
            // Whether it could be sent makes no difference any more.
            drop(self.request(cx, now, ExchangeType::Informational, &[Payload::Delete(Delete::IkeSa)]));
        }
        self.end(cx, now, DownReason::Command);
    }

    /// Drops a child here and now. The peer is told when it is its turn.
    fn abandon_child(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let Some(child) = self.children.get(&id) else {
            return;
        };
        let (protocol, spi, name) = (child.suite.protocol, child.spi_in, child.child.name.clone());
        cx.reconciler.suspend(self.connection_name(), Some(&name));
        self.drop_child(cx, now, id, &DownReason::Command);
        self.queue(cx, now, Queued::new(Task::Discard(protocol, spi)));
    }

    /// Notes that somebody waits for a deletion: not for longer than a peer that lives takes to answer.
    pub(super) fn expect_patience(&mut self, now: Instant) {
        self.patience_ends = Some(now + self.session.connection.retransmission.first);
    }

    /// Nobody is kept waiting for a peer that does not answer: what was to go is gone here, and the peer goes on being told.
    pub(super) fn lose_patience(&mut self, cx: &mut Context, now: Instant) {
        self.patience_ends = None;
        let running = self.running.iter_mut().map(|running| &mut running.queued);
        let mut tickets = Vec::new();
        let mut children = Vec::new();
        for queued in running.chain(self.tasks.iter_mut()) {
            if let Task::DeleteChild { child, reason: DownReason::Command } = &queued.task {
                children.push(*child);
                tickets.append(&mut queued.tickets);
            } else if let Task::DeleteIke { .. } = &queued.task {
                tickets.append(&mut queued.tickets);
            }
        }
        for child in children {
            let sa = self.children.get(&child).map(|child| (child.suite.protocol, child.spi_in));
            let is_told = self.running.as_ref().is_some_and(
                |running| matches!(running.queued.task, Task::DeleteChild { child: told, .. } if told == child),
            );
            self.drop_child(cx, now, child, &DownReason::Command);
            if let Some((protocol, spi)) = sa.filter(|_| !is_told) {
                self.queue(cx, now, Queued::new(Task::Discard(protocol, spi)));
            }
        }
        cx.settle(tickets, &Ok(()));
    }
}
