//! An IKE SA in whatever stage it is, and what stages have in common.

use std::net::IpAddr;
use std::time::Instant;

use espdp_api::{EspSpi, IkePath};

use super::auth::initiator::InitiatorAuth;
use super::auth::refusal::{Refused, Refusing};
use super::auth::responder::ResponderAuth;
use super::child::ChildSa;
use super::context::{Context, Sent};
use super::established::Established;
use super::initiator::{Attempt, Initiating, Locating};
use super::intermediate::Intermediate;
use super::reauth::Succession;
use super::rekey_ike::Estate;
use super::responder::HalfOpen;
use super::task::ChildWish;
use crate::config::Gateway;
use crate::io::{ChildSaId, DownReason, IkeSaId, IkeSpi, ProofRefusal, Signed, Ticket, TimerKind, Verified};
use crate::wire::{Message, Payload, Role};

/// An IKE SA. A handler consumes the stage and returns the next one, or `None` when the SA is gone.
pub(super) enum IkeSa {
    Locating(Box<Locating>),
    Initiating(Box<Initiating>),
    Intermediate(Box<Intermediate>),
    InitiatorAuth(Box<InitiatorAuth>),
    Refusing(Box<Refusing>),
    HalfOpen(Box<HalfOpen>),
    ResponderAuth(Box<ResponderAuth>),
    Refused(Box<Refused>),
    Established(Box<Established>),
}

/// A datagram that was routed to an SA.
pub(super) struct Received<'a> {
    pub(super) path: IkePath,
    /// As it was received, for checksums and signatures.
    pub(super) datagram: &'a [u8],
    pub(super) message: Message,
}

impl Received<'_> {
    /// Writes a message in clear into the journal, with its payloads.
    pub(super) fn trace(&self, cx: &mut Context, owner: Option<(&str, IkeSaId)>, payloads: &[Payload]) {
        let sent = Sent { path: self.path, by_us: false, octets: self.datagram.len(), fragments: None };
        cx.trace(owner, sent, &self.message.header, payloads);
    }
}

/// What the doings of one SA mean for another.
pub(super) enum FollowUp {
    /// A new SA that replaces another.
    Insert(Box<Established>),
    /// The SA with this SPI of ours gets what a replaced one leaves behind.
    Inherit { heir: IkeSpi, estate: Box<Estate> },
    /// The SA is not needed.
    Close { spi: IkeSpi, reason: DownReason },
    /// The SA is for its peer to delete, who will not be waited for without end.
    AwaitDelete { spi: IkeSpi },
    /// A child of the SA was deleted over the SA from which it was inherited.
    ChildDeleted { heir: IkeSpi, spi_out: EspSpi },
    /// A child of the SA was made to send in the place of another one.
    Sends { owner: IkeSpi, child: ChildSaId },
    /// A child that only drains goes to another SA, for its own is gone.
    Drain { heir: IkeSpi, child: Box<ChildSa> },
    /// Nobody waits any more for what is under way to a child that drains.
    Drained { owner: IkeSpi, child: ChildSaId },
    /// The SA is in full use: another one that the peer set up at the same time may be one too many.
    Unique { spi: IkeSpi },
    /// The SA is one too many, unless the other one is gone meanwhile.
    Displace { spi: IkeSpi },
    /// The peer says that it has no SA with us but this one, which it began to set up then.
    InitialContact { spi: IkeSpi, began: Instant },
    /// The peer is to be authenticated anew.
    Reauthenticate { spi: IkeSpi },
    /// The peer of an SA wants us elsewhere.
    Redirected { spi: IkeSpi, gateway: Gateway },
    /// The peer of an attempt wants it elsewhere.
    Elsewhere { attempt: Box<Attempt>, gateway: Gateway },
    /// An attempt to set the SA up anew failed.
    NotReauthenticated { connection: String, succession: Box<Succession>, why: String },
}

impl IkeSa {
    /// Whether a message from the peer in this role and with this SPI is for this SA.
    pub(super) fn expects_from(&self, sender: Role, peer_spi: IkeSpi) -> bool {
        let names = match self {
            Self::Locating(_) => return false,
            // The responder's SPI comes with its answer.
            Self::Initiating(_) => return sender == Role::OriginalResponder,
            Self::Intermediate(intermediate) => &intermediate.keyed.session.names,
            Self::InitiatorAuth(auth) => &auth.handshake.session.names,
            Self::Refusing(refusing) => &refusing.session.names,
            Self::HalfOpen(half_open) => &half_open.session.names,
            Self::ResponderAuth(auth) => &auth.handshake.half_open.session.names,
            Self::Refused(refused) => &refused.session.names,
            Self::Established(sa) => &sa.session.names,
        };
        let expected = match names.role {
            Role::OriginalInitiator => names.responder_spi,
            Role::OriginalResponder => names.initiator_spi,
        };
        sender == names.role.peer() && peer_spi == expected
    }

    pub(super) fn on_message(self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<Self> {
        match self {
            Self::Locating(_) => Some(self),
            Self::Initiating(initiating) => initiating.on_message(cx, now, received),
            Self::Intermediate(intermediate) => intermediate.on_message(cx, now, received),
            Self::InitiatorAuth(auth) => auth.on_message(cx, now, received),
            Self::Refusing(refusing) => refusing.on_message(cx, now, received),
            Self::HalfOpen(half_open) => half_open.on_message(cx, now, received),
            Self::ResponderAuth(auth) => auth.on_message(cx, now, received),
            Self::Refused(refused) => Some(refused.on_message(cx, now, received)),
            Self::Established(mut sa) => {
                sa.on_message(cx, now, received);
                (!sa.is_over()).then_some(Self::Established(sa))
            }
        }
    }

    pub(super) fn on_timeout(self, cx: &mut Context, now: Instant) -> Option<Self> {
        match self {
            Self::Locating(_) => Some(self),
            Self::Initiating(initiating) => initiating.on_timeout(cx, now),
            Self::Intermediate(intermediate) => intermediate.on_timeout(cx, now),
            Self::InitiatorAuth(auth) => auth.on_timeout(cx, now),
            Self::Refusing(refusing) => refusing.on_timeout(cx, now),
            Self::HalfOpen(half_open) => half_open.on_timeout(cx, now),
            Self::ResponderAuth(auth) => auth.on_timeout(cx, now),
            Self::Refused(refused) => refused.on_timeout(now),
            Self::Established(mut sa) => {
                sa.on_timeout(cx, now);
                (!sa.is_over()).then_some(Self::Established(sa))
            }
        }
    }

    /// What is due first.
    pub(super) fn deadline(&self, cx: &Context) -> Option<(Instant, TimerKind)> {
        match self {
            Self::Locating(_) => None,
            Self::Initiating(initiating) => initiating.deadline(),
            Self::Intermediate(intermediate) => intermediate.deadline(),
            Self::InitiatorAuth(auth) => auth.deadline(),
            Self::Refusing(refusing) => refusing.deadline(),
            Self::HalfOpen(half_open) => Some(half_open.deadline()),
            Self::ResponderAuth(auth) => Some(auth.deadline()),
            Self::Refused(refused) => Some(refused.deadline()),
            Self::Established(sa) => sa.deadline(cx),
        }
    }

    // Answers from outside. Those that a stage does not wait for any more are given back or dropped.

    pub(super) fn on_addresses(self, cx: &mut Context, now: Instant, found: Vec<IpAddr>) -> Option<Self> {
        if let Self::Locating(locating) = self { locating.on_addresses(cx, now, found) } else { Some(self) }
    }

    pub(super) fn on_local_address(
        self,
        cx: &mut Context,
        now: Instant,
        local: Result<IpAddr, String>,
    ) -> Option<Self> {
        if let Self::Locating(locating) = self { locating.on_local_address(cx, now, local) } else { Some(self) }
    }

    pub(super) fn on_spi_to_offer(self, cx: &mut Context, now: Instant, spi: Result<EspSpi, String>) -> Option<Self> {
        match self {
            Self::InitiatorAuth(auth) => auth.on_spi(cx, now, spi),
            Self::Established(mut sa) => {
                sa.on_spi_to_offer(cx, now, spi);
                (!sa.is_over()).then_some(Self::Established(sa))
            }
            Self::Locating(_)
            | Self::Initiating(_)
            | Self::Intermediate(_)
            | Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::ResponderAuth(_)
            | Self::Refused(_) => {
                spi.into_iter().for_each(|spi| cx.release_spi(spi));
                Some(self)
            }
        }
    }

    pub(super) fn on_spi_to_answer(self, cx: &mut Context, now: Instant, spi: Result<EspSpi, String>) -> Option<Self> {
        match self {
            Self::Established(mut sa) => {
                sa.on_spi_to_answer(cx, now, spi);
                (!sa.is_over()).then_some(Self::Established(sa))
            }
            Self::Locating(_)
            | Self::Initiating(_)
            | Self::Intermediate(_)
            | Self::InitiatorAuth(_)
            | Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::ResponderAuth(_)
            | Self::Refused(_) => {
                spi.into_iter().for_each(|spi| cx.release_spi(spi));
                Some(self)
            }
        }
    }

    pub(super) fn on_signed(
        self,
        cx: &mut Context,
        now: Instant,
        signed: Result<Signed, Box<ProofRefusal>>,
    ) -> Option<Self> {
        match self {
            Self::InitiatorAuth(auth) => auth.on_signed(cx, now, signed),
            Self::ResponderAuth(auth) => auth.on_signed(cx, now, signed),
            other @ (Self::Locating(_)
            | Self::Initiating(_)
            | Self::Intermediate(_)
            | Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::Refused(_)
            | Self::Established(_)) => Some(other),
        }
    }

    pub(super) fn on_verified(
        self,
        cx: &mut Context,
        now: Instant,
        verified: Result<Verified, Box<ProofRefusal>>,
    ) -> Option<Self> {
        match self {
            Self::InitiatorAuth(auth) => auth.on_verified(cx, now, verified),
            Self::ResponderAuth(auth) => auth.on_verified(cx, now, verified),
            other @ (Self::Locating(_)
            | Self::Initiating(_)
            | Self::Intermediate(_)
            | Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::Refused(_)
            | Self::Established(_)) => Some(other),
        }
    }

    /// The SA, if it is established.
    pub(super) fn established(&self) -> Option<&Established> {
        if let Self::Established(sa) = self { Some(sa) } else { None }
    }

    /// Whether a peer is setting it up.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self, Self::HalfOpen(_) | Self::ResponderAuth(_))
    }

    // Attempts.

    /// The attempt to set the SA up as its initiator, as long as it is one.
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Locating(locating) => Some(&locating.attempt),
            Self::Initiating(initiating) => Some(&initiating.attempt),
            Self::Intermediate(intermediate) => Some(&intermediate.keyed.attempt),
            Self::InitiatorAuth(auth) => Some(&auth.handshake.attempt),
            Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::ResponderAuth(_)
            | Self::Refused(_)
            | Self::Established(_) => None,
        }
    }

    /// Adds a child to the attempt, and those who wait for the IKE SA itself.
    pub(super) fn wish(&mut self, wish: Option<ChildWish>, tickets: Vec<Ticket>) {
        let attempt = match self {
            Self::Locating(locating) => &mut locating.attempt,
            Self::Initiating(initiating) => &mut initiating.attempt,
            Self::Intermediate(intermediate) => &mut intermediate.keyed.attempt,
            Self::InitiatorAuth(auth) => return auth.wish(wish, tickets),
            Self::Refusing(_)
            | Self::HalfOpen(_)
            | Self::ResponderAuth(_)
            | Self::Refused(_)
            | Self::Established(_) => return,
        };
        attempt.tickets.extend(tickets);
        wish.into_iter().for_each(|wish| attempt.wish(wish));
    }

    /// Stops an attempt, or forgets a stranger. Established SAs are deleted otherwise.
    pub(super) fn stop(self, cx: &mut Context, now: Instant) -> Option<Self> {
        match self {
            Self::Locating(locating) => locating.attempt.stop(cx),
            Self::Initiating(initiating) => initiating.attempt.stop(cx),
            Self::Intermediate(intermediate) => intermediate.keyed.attempt.stop(cx),
            Self::InitiatorAuth(auth) => return auth.stop(cx, now),
            Self::Refusing(_) | Self::HalfOpen(_) | Self::ResponderAuth(_) | Self::Refused(_) => {}
            Self::Established(_) => return Some(self),
        }
        None
    }

    /// Its number for people.
    pub(super) fn id(&self) -> IkeSaId {
        match self {
            Self::Locating(locating) => locating.attempt.id,
            Self::Initiating(initiating) => initiating.attempt.id,
            Self::Intermediate(intermediate) => intermediate.keyed.attempt.id,
            Self::InitiatorAuth(auth) => auth.handshake.attempt.id,
            Self::Refusing(refusing) => refusing.session.names.id,
            Self::HalfOpen(half_open) => half_open.session.names.id,
            Self::ResponderAuth(auth) => auth.handshake.half_open.session.names.id,
            Self::Refused(refused) => refused.session.names.id,
            Self::Established(sa) => sa.session.names.id,
        }
    }

    pub(super) fn connection_name(&self) -> &str {
        match self {
            Self::Locating(locating) => &locating.attempt.connection.name,
            Self::Initiating(initiating) => &initiating.attempt.connection.name,
            Self::Intermediate(intermediate) => &intermediate.keyed.attempt.connection.name,
            Self::InitiatorAuth(auth) => &auth.handshake.attempt.connection.name,
            Self::Refusing(refusing) => &refusing.session.connection.name,
            Self::HalfOpen(half_open) => &half_open.session.connection.name,
            Self::ResponderAuth(auth) => &auth.handshake.half_open.session.connection.name,
            Self::Refused(refused) => &refused.session.connection.name,
            Self::Established(sa) => &sa.session.connection.name,
        }
    }
}
