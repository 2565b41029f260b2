//! Telling a peer that nothing comes of an SA (RFC 7296 §2.21.2).

use std::time::Instant;

use crate::engine::context::Context;
use crate::engine::ike_sa::{IkeSa, Received};
use crate::engine::responder::HalfOpen;
use crate::engine::session::{Opened, Session};
use crate::engine::window::{Arrival, OurWindow, Retransmit, TheirWindow};
use crate::io::TimerKind;
use crate::wire::{Delete, ExchangeType, MessageKind, Payload, PayloadType};

/// The responder failed to authenticate itself, or nobody wants the SA any more. The responder is told until it confirms.
pub(in crate::engine) struct Refusing {
    pub(in crate::engine) session: Session,
    window: OurWindow,
}

impl Refusing {
    /// The responder may believe in the SA: it is told by the INFORMATIONAL request that follows IKE_AUTH.
    pub(super) fn begin(
        cx: &mut Context,
        now: Instant,
        mut session: Session,
        mut window: OurWindow,
        payload: Payload,
    ) -> Option<IkeSa> {
        tell(cx, now, &mut session, &mut window, payload)?;
        Some(IkeSa::Refusing(Box::new(Self { session, window })))
    }

    /// The response to IKE_AUTH is still to come: it will show whether the responder has an SA that nobody wants.
    pub(super) fn when_answered(session: Session, window: OurWindow) -> IkeSa {
        IkeSa::Refusing(Box::new(Self { session, window }))
    }

    pub(in crate::engine) fn on_message(
        mut self,
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
    ) -> Option<IkeSa> {
        let header = &received.message.header;
        let expected = header.kind == MessageKind::Response && self.window.expects(header.message_id, header.exchange);
        let opened = if expected { self.session.open(cx, now, received) } else { None };
        let Some(Ok(Opened { payloads, .. })) = opened else {
            return Some(IkeSa::Refusing(Box::new(self)));
        };
        self.window.close();
        let accepts = |payload: &Payload| {
            matches!(payload.kind(), PayloadType::Authentication | PayloadType::SecurityAssociation)
        };
        if header.exchange != ExchangeType::IkeAuth || !payloads.iter().any(accepts) {
            return None;
        }
        Self::begin(cx, now, self.session, self.window, Payload::Delete(Delete::IkeSa))
    }

    pub(in crate::engine) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let policy = self.session.connection.retransmission;
        match self.window.retransmit(now, &policy) {
            Retransmit::NotDue => {}
            Retransmit::Again(message) => {
                let path = self.session.path;
                self.session.send(cx, now, path, message);
            }
            Retransmit::Exhausted => return None,
        }
        Some(IkeSa::Refusing(Box::new(self)))
    }

    pub(in crate::engine) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        self.window.due().map(|due| (due, TimerKind::Retransmit))
    }
}

fn tell(cx: &mut Context, now: Instant, session: &mut Session, window: &mut OurWindow, payload: Payload) -> Option<()> {
    let (exchange, path, message_id) = (ExchangeType::Informational, session.path, window.free_id()?);
    let message = session.seal(cx, (exchange, MessageKind::Request, message_id), path, &[payload]).ok()?;
    window.sent(now, exchange, message.clone(), &session.connection.retransmission);
    session.send(cx, now, path, message);
    Some(())
}

/// An IKE_AUTH request was refused. The refusal is kept for a while, in case it got lost.
pub(in crate::engine) struct Refused {
    pub(in crate::engine) session: Session,
    theirs: TheirWindow,
    expires: Instant,
}

impl Refused {
    /// Keeps the refusal with which the last request was answered.
    pub(in crate::engine) fn keep(half_open: HalfOpen) -> IkeSa {
        let HalfOpen { session, theirs, expires, .. } = half_open;
        IkeSa::Refused(Box::new(Self { session, theirs, expires }))
    }

    pub(in crate::engine) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> IkeSa {
        let header = received.message.header;
        if header.kind == MessageKind::Request
            && let Arrival::Repeated(response) = self.theirs.arrival(header.message_id)
            && self.session.is_repetition(received)
        {
            self.session.send(cx, now, received.path, response);
        }
        IkeSa::Refused(Box::new(self))
    }

    pub(in crate::engine) fn on_timeout(self, now: Instant) -> Option<IkeSa> {
        (self.expires > now).then(|| IkeSa::Refused(Box::new(self)))
    }

    pub(in crate::engine) fn deadline(&self) -> (Instant, TimerKind) {
        (self.expires, TimerKind::HalfOpen)
    }
}
