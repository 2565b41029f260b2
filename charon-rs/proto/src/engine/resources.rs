//! Child SAs for single workers of the dataplane, beside one for all of them (RFC 9611).
//!
//! ```text
//!  the SA that comes first            one more for each other worker, each with keys of its own
//! ┌──────────────────────────┐       ┌────────────┐ ┌────────────┐
//! │ for all that have none   │       │ worker 1   │ │ worker 2   │ …
//! └──────────────────────────┘       └────────────┘ └────────────┘
//! ```
//!
//! Whoever makes the first one makes the others at once; both ends say by SA_RESOURCE_INFO that they know what that means. An SA that
//! the peer refuses or deletes is not made again: its worker uses the one for all.

use std::time::Instant;

use espdp_api::{Carries, TrafficSelector, WorkerId, Workers};

use super::child::{ChildSa, Maker, Phase};
use super::context::Context;
use super::create_child::ChildAnswer;
use super::established::Established;
use super::failure::Trouble;
use super::task::{ChildWish, Queued, Task};
use crate::config::Child;
use crate::io::{ChildSaId, RemarkLevel};
use crate::proposal::EspSuite;
use crate::rules::Body;
use crate::wire::{Notify, NotifyType};

/// Whose packets a Child SA carries, as two peers agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resource {
    /// Everybody's; nothing was said about others.
    #[default]
    Unsaid,
    /// Those of all workers that have none of their own.
    Any,
    /// Those of this worker of ours.
    One(WorkerId),
}

impl Resource {
    /// What the first SA of a child is, if the peer says what we say (R9611-3-3).
    pub(super) fn of_first(child: &Child, theirs: &Body) -> Self {
        let both = child.per_resource && theirs.has_notify(NotifyType::SaResourceInfo);
        if both { Self::Any } else { Self::Unsaid }
    }

    /// The worker, if it is for one alone.
    pub(super) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::One(worker) => Some(worker),
            Self::Unsaid | Self::Any => None,
        }
    }

    /// The same in the words of the dataplane.
    pub(super) fn carries(self) -> Carries {
        match self {
            Self::Unsaid | Self::Any => Carries::All,
            Self::One(_) => Carries::OwnWorker,
        }
    }

    /// R9611-5.1-1: neither protocol nor SPI; the data names the SA among its like, for people who look for faults.
    pub(super) fn notify(self) -> Option<Notify> {
        match self {
            Self::Unsaid => None,
            Self::Any => Some(Notify::new(NotifyType::SaResourceInfo)),
            Self::One(WorkerId(number)) => Some(Notify::with_data(NotifyType::SaResourceInfo, vec![number])),
        }
    }
}

/// What an SA for one worker has in common with the one for all.
#[derive(Clone, Debug)]
pub(super) struct Sibling {
    pub(super) worker: WorkerId,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    suite: EspSuite,
}

impl Sibling {
    fn of(first: &ChildSa, worker: WorkerId) -> Self {
        Self { worker, local: first.local.clone(), remote: first.remote.clone(), suite: first.suite }
    }

    /// R9611-3-1: whether an SA with these properties is one of its like.
    pub(super) fn is_like(&self, suite: &EspSuite, local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
        is_like(&self.suite, suite) && self.local == local && self.remote == remote
    }
}

impl Established {
    /// Has an SA made for each worker that has none, once the first one of a child is up that we made.
    pub(super) fn make_siblings(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let Some(first) = self.children.get(&id).filter(|child| child.maker == Maker::We && is_first(child)) else {
            return;
        };
        let own = cx.settings.workers.of_spi(first.spi_in.value());
        let others = cx.settings.workers.ids().filter(|worker| *worker != own);
        let wishes: Vec<ChildWish> = others
            .map(|worker| {
                let sibling = Some(Box::new(Sibling::of(first, worker)));
                ChildWish { sibling, ..ChildWish::new(first.child.clone()) }
            })
            .collect();
        for wish in wishes {
            self.queue(cx, now, Queued::new(Task::CreateChild(wish)));
        }
    }

    /// Whether what a wish wants is there already, or makes no sense any more.
    pub(super) fn is_superfluous(&self, wish: &ChildWish) -> bool {
        let Some(sibling) = &wish.sibling else { return self.has_child(&wish.child.name) };
        let mut named = self.children.values().filter(|child| child.child.name == wish.child.name);
        let has_it = named.clone().any(|child| child.is_useful() && child.resource == Resource::One(sibling.worker));
        has_it || !named.any(is_first)
    }

    /// The peer makes no more of them (R9611-3-2): what we have is enough, and it is not asked again.
    pub(super) fn give_siblings_up(&mut self, cx: &mut Context, mut refused: Queued, child: &Child) {
        let text = format!("the peer makes no more SAs for single workers of child `{}`", child.name);
        cx.remark(Some(self.connection_name()), RemarkLevel::Info, text);
        let is_sibling = |queued: &Queued| matches!(&queued.task, Task::CreateChild(wish) if wish.sibling.is_some() && wish.child.name == child.name);
        let mut tickets = refused.take_tickets();
        tickets.extend(self.tasks.take_where(is_sibling).into_iter().flat_map(|mut queued| queued.take_tickets()));
        cx.settle(tickets, &Ok(()));
    }

    /// Says whose packets an SA is to carry that the peer wants.
    ///
    /// # Errors
    /// [`Trouble::TooManyQueues`] (R9611-3-2).
    pub(super) fn assign_resource(
        &self,
        workers: Workers,
        answer: &mut ChildAnswer,
        body: &Body,
    ) -> Result<(), Trouble> {
        if answer.replaces.is_some() || answer.resource != Resource::Any || !body.has_notify(NotifyType::SaResourceInfo)
        {
            return Ok(());
        }
        let named = self.children.values().filter(|child| child.child.name == answer.child.name);
        let first = named.clone().find(|child| is_first(child) && answer.is_like(child));
        if first.is_none() {
            return Ok(());
        }
        if named.clone().filter(|child| child.resource.worker().is_some()).count() >= most(workers) {
            return Err(Trouble::TooManyQueues(answer.child.name.clone()));
        }
        // RFC 9611 §4: the worker with the fewest of them.
        let load = |worker: &WorkerId| {
            let has = |child: &&ChildSa| child.is_useful() && workers.of_spi(child.spi_in.value()) == *worker;
            named.clone().filter(has).count()
        };
        let least = workers.ids().min_by_key(load).unwrap_or_default();
        answer.resource = Resource::One(least);
        Ok(())
    }
}

/// Whether an SA is the one for all, beside which there may be others.
fn is_first(child: &ChildSa) -> bool {
    child.resource == Resource::Any && child.is_useful() && child.phase == Phase::Up
}

/// An SA of IKE_AUTH has no key exchange of its own, so that does not count.
pub(super) fn is_like(a: &EspSuite, b: &EspSuite) -> bool {
    (a.protocol, a.algorithms) == (b.protocol, b.algorithms)
}

/// SAs of one child for single workers at most. RFC 9611 §6: more than there are workers, since those that are replaced count for a
/// while, and since the peer may have more workers.
fn most(workers: Workers) -> usize {
    2 * usize::from(workers.count()) + 8
}
