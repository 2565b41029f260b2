//! The same Child SA made twice: both ends may ask for it at the same time, and each carries out what the other asks for.
//!
//! No RFC says what then. Both ends know both Child SAs in the end, and so the rule for rekeyings that meet
//! (RFC 7296 §2.8.1) does here as well: the one from the exchange with the lowest nonce goes, by who made it.

use std::time::{Duration, Instant};

use super::child::{ChildSa, Maker, Phase};
use super::collision::{Survivor, survivor};
use super::context::Context;
use super::established::Established;
use super::task::{Queued, Task};
use crate::io::{ChildSaId, DownReason};

impl Established {
    /// A child that replaces nothing is installed: it takes up its work, unless the other end has made the same at the
    /// same time and that one stays.
    pub(super) fn settle_creation(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let Some(new) = self.children.get(&id) else {
            return;
        };
        let maker = new.maker;
        let Some(twin) = self.children.values().find(|other| is_twin(new, other)) else {
            return self.take_up_work(cx, id, None);
        };
        let twin_id = twin.id;
        let [a, b] = &new.nonces;
        let [c, d] = &twin.nonces;
        match survivor([a, b], [c, d]) {
            Survivor::Ours => {
                self.take_up_work(cx, id, Some(twin_id));
                self.give_way(now, twin_id);
            }
            Survivor::Theirs => {
                self.give_way(now, id);
                if maker == Maker::We {
                    let delete = Task::DeleteChild { child: id, reason: DownReason::Replaced };
                    self.queue(cx, now, Queued::new(delete));
                }
            }
        }
    }

    /// What we made sends at once, for its peer has it; what the peer made waits until the peer is known to have it, if
    /// there is anything else to send on.
    fn take_up_work(&mut self, cx: &mut Context, id: ChildSaId, twin: Option<ChildSaId>) {
        let waits = self.children.get(&id).is_some_and(|new| {
            new.maker == Maker::Peer && cx.policies.has_sender(new.policy) && !cx.policies.is_sender(new.policy, id)
        });
        if twin.is_some() || waits {
            self.announce(cx, id, twin);
        }
        if !waits {
            self.switch_to(cx, id);
        }
    }

    /// This child goes, by its maker. It sends until the one that stays does; if its maker does not see that it is one too
    /// many, we delete it later.
    fn give_way(&mut self, now: Instant, id: ChildSaId) {
        if let Some(child) = self.children.get_mut(&id) {
            child.redundant = true;
            child.rekey_at = None;
            let wait = if child.maker == Maker::We { UNTIL_PEER_IS_READY } else { UNTIL_MAKER_NOTICES };
            child.expires_at = Some(now + wait);
        }
    }
}

/// Whether both ends made the same.
fn is_twin(new: &ChildSa, other: &ChildSa) -> bool {
    other.id != new.id
        && other.policy == new.policy
        && other.maker != new.maker
        && other.phase == Phase::Up
        && !other.redundant
        && other.replaces.is_none()
        && new.replaces.is_none()
        && [new, other].iter().all(|child| child.resource.worker().is_none())
}

/// The peer, which made the one that stays, has our answer in less, or else sends nothing that could be lost.
pub(super) const UNTIL_PEER_IS_READY: Duration = Duration::from_secs(5);

/// Long enough for a maker that waits as long as [`UNTIL_PEER_IS_READY`], and for repetitions.
const UNTIL_MAKER_NOTICES: Duration = Duration::from_secs(20);
