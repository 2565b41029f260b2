//! Several IKE SAs of the same two identities: which of them stay (RFC 7296 §2.4, and `uniqueids`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::context::Context;
use super::established::{Established, Life};
use super::failure::{Incompatible, Trouble};
use super::task::{Queued, Task};
use super::twins::UNTIL_PEER_IS_READY;
use crate::config::{Connection, Uniqueness};
use crate::identity::Identity;
use crate::io::{DownReason, FailureCode, IkeSpi};
use crate::wire::{NotifyType, Role};

impl Engine {
    /// Two ends that begin at the same time make two IKE SAs where one will do. Both know both: the one with the higher
    /// initiator's SPI is one too many, and its initiator deletes it when the peer surely knows the other one.
    pub(super) fn end_duplicates(&mut self, now: Instant, spi: IkeSpi) {
        let Some(sa) = self.established_sa(spi).filter(|sa| sa.is_in_use()) else {
            return;
        };
        if sa.session.connection.uniqueness == Uniqueness::Never {
            return;
        }
        let all = self.cx.contacts.same_as(spi);
        let twins = all.into_iter().filter_map(|other| self.established_sa(other)).filter(|other| sa.met(other));
        let twins = twins.filter(|other| other.children.values().any(|child| child.is_useful()));
        let pairs =
            twins.map(|twin| if twin.session.names.initiator_spi > sa.session.names.initiator_spi { twin } else { sa });
        let ours: Vec<IkeSpi> = pairs
            .filter(|redundant| redundant.session.names.role == Role::OriginalInitiator)
            .map(Established::local_spi)
            .collect();
        for redundant in ours {
            self.with_established(redundant, |sa, _| {
                sa.displaced_at.get_or_insert(now + UNTIL_PEER_IS_READY);
            });
        }
    }

    /// The peer set up another IKE SA, and only the newest is to stay. A peer at the same address is probably about to
    /// delete the old one itself, when it has all that it needs of the new one (RFC 7296 §2.8.3); it gets the time.
    pub(super) fn displace_older(&mut self, now: Instant, spi: IkeSpi) {
        let Some(sa) = self.established_sa(spi).filter(|sa| sa.is_in_use()) else {
            return;
        };
        if sa.session.connection.uniqueness != Uniqueness::Replace || sa.origin.role != Role::OriginalResponder {
            return;
        }
        let address = sa.session.path.remote.ip();
        let age = |sa: &Established| (sa.origin.since, sa.session.names.id);
        let is_older = |other: &&Established| other.is_in_use() && age(other) < age(sa) && !sa.met(other);
        let others = self.cx.contacts.same_as(spi);
        let older = others.into_iter().filter_map(|other| self.established_sa(other)).filter(is_older);
        let older: Vec<_> = older.map(|other| (other.local_spi(), other.session.path.remote.ip() == address)).collect();
        for (other, is_near) in older {
            self.with_established(other, |sa, cx| match is_near {
                true => {
                    sa.displaced_at.get_or_insert(now + UNTIL_PEER_DELETES);
                }
                false => sa.displace(cx, now),
            });
        }
    }

    /// An SA has had its time beside another one. If that is gone meanwhile, this one is needed after all.
    pub(super) fn displace_one_too_many(&mut self, now: Instant, spi: IkeSpi) {
        let Some(sa) = self.established_sa(spi).filter(|sa| sa.is_in_use()) else {
            return;
        };
        let is_enough = |other: &Established| other.is_in_use() && (other.has_any_child() || !sa.has_any_child());
        let others = self.cx.contacts.same_as(spi);
        if others.into_iter().filter_map(|other| self.established_sa(other)).any(is_enough) {
            self.with_established(spi, |sa, cx| sa.displace(cx, now));
        }
    }
}

impl Established {
    /// Whether it is neither on its way out nor one too many.
    pub(super) fn is_in_use(&self) -> bool {
        self.life == Life::Up && !self.is_spare
    }

    /// Whether each end began one of the two before it knew of the other's. Who begins with an SA at hand wants another
    /// one: it authenticates anew.
    fn met(&self, other: &Self) -> bool {
        let (one, another) = (self.origin, other.origin);
        let (older, newer) = if one.since <= another.since { (one, another) } else { (another, one) };
        other.is_in_use() && older.role != newer.role && newer.began <= older.since
    }

    /// A newer IKE SA with the same peer is to be the only one.
    pub(super) fn displace(&mut self, cx: &mut Context, now: Instant) {
        if self.life == Life::Up {
            self.drop_children(cx, now, &DownReason::Replaced);
            self.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Replaced }));
        }
    }

    /// A new IKE SA of the same identities, which the peer began to set up at `began`, claims to be the only one
    /// (R7296-2.4-4).
    ///
    /// A peer that began when this one had been there for long has forgotten it, and there is nobody to tell that it goes.
    /// If two SAs only met, the peer may have learned of this one later: then deleting it brings both ends in step.
    pub(super) fn on_initial_contact(&mut self, cx: &mut Context, now: Instant, began: Instant) {
        if self.session.connection.uniqueness == Uniqueness::Never || self.is_over() {
            return;
        }
        if self.origin.since < began {
            self.end(cx, now, DownReason::Replaced);
        } else {
            self.displace(cx, now);
        }
    }
}

/// Whether a peer may set up an IKE SA although there is one: not if the oldest is to stay, unless it comes from where the
/// old one leads to, for then it may be about to authenticate anew; or unless it has forgotten the old one.
pub(super) fn admit_newcomer(
    cx: &Context,
    connection: &Arc<Connection>,
    (local, remote): (&Identity, &Identity),
    address: IpAddr,
    is_initial_contact: bool,
) -> Result<(), Trouble> {
    if connection.uniqueness != Uniqueness::Keep || is_initial_contact {
        return Ok(());
    }
    let addresses = cx.contacts.addresses(&connection.name, local, remote);
    if addresses.is_empty() || addresses.contains(&address) {
        return Ok(());
    }
    Err(Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::PeerNotUnique,
        notify: NotifyType::AuthenticationFailed,
        what: format!("there is an IKE SA with `{remote}` already, and the oldest stays"),
        ours: addresses.iter().map(|address| format!("an IKE SA with `{remote}` at {address}")).collect(),
        theirs: vec![format!("another one from {address}")],
        hint: Some("`uniqueids = \"replace\"` would have the newest stay, `\"no\"` both".to_owned()),
        cure: None,
    })))
}

/// A peer that authenticates anew deletes the old SA within this.
const UNTIL_PEER_DELETES: Duration = Duration::from_secs(10);
