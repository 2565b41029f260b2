//! Tasks: what we want to do over an established IKE SA, one after the other.
//!
//! A task is a value that waits in a queue until it is its turn, then turns into a request, and sees the response. The
//! peer's requests are served meanwhile (R7296-2.3-2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use espdp_api::{EspSpi, IpsecProtocol, PacketSummary, WorkerId};

use super::create_child::ChildOffer;
use super::followup::Following;
use super::mobike::{Move, Told};
use super::rekey_ike::IkeOffer;
use super::resources::Sibling;
use crate::config::{Child, Gateway};
use crate::io::{ChildSaId, DownReason, Ticket};

/// A child that somebody wants up.
#[derive(Clone, Debug)]
pub(super) struct ChildWish {
    pub(super) child: Arc<Child>,
    /// The packet that wants to travel, if one does.
    pub(super) packet: Option<PacketSummary>,
    /// Whose commands end with it.
    pub(super) tickets: Vec<Ticket>,
    /// The group of the key exchange, once the peer has asked for one (RFC 7296 §1.3).
    pub(super) group: Option<u16>,
    /// What it is like, if it is for a single worker (RFC 9611).
    pub(super) sibling: Option<Box<Sibling>>,
}

impl ChildWish {
    pub(super) fn new(child: Arc<Child>) -> Self {
        Self { child, packet: None, tickets: Vec::new(), group: None, sibling: None }
    }
}

impl ChildWish {
    /// The worker that it is for, if it is for one alone.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        self.sibling.as_ref().map(|sibling| sibling.worker)
    }
}

/// Something to do.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Make a Child SA.
    CreateChild(ChildWish),
    /// Replace a Child SA; with the group that the peer asked for, if it did.
    RekeyChild { child: ChildSaId, group: Option<u16> },
    /// Replace the IKE SA; with the group that the peer asked for, if it did.
    RekeyIke { group: Option<u16> },
    /// Delete a Child SA.
    DeleteChild { child: ChildSaId, reason: DownReason },
    /// Tell the peer that there is no Child SA with this SPI of ours, although it was agreed on.
    Discard(IpsecProtocol, EspSpi),
    /// Delete the IKE SA.
    DeleteIke { reason: DownReason },
    /// See whether the peer is there.
    Liveness,
    /// Send the peer to another gateway.
    Redirect(Gateway),
    /// Tell the peer that we have no SA with the SPI on which it sends.
    ReportSpi(u32),
    /// Change addresses; with what the request said, once it is sent.
    Move(Move, Option<Told>),
}

impl Task {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::CreateChild(_) => "CHILD_CREATE",
            Self::RekeyChild { .. } => "CHILD_REKEY",
            Self::RekeyIke { .. } => "IKE_REKEY",
            Self::DeleteChild { .. } | Self::Discard(..) => "CHILD_DELETE",
            Self::DeleteIke { .. } => "IKE_DELETE",
            Self::Liveness => "IKE_DPD",
            Self::Redirect(_) => "IKE_REDIRECT",
            Self::ReportSpi(_) => "IKE_INVALID_SPI",
            Self::Move(..) => "IKE_MOBIKE",
        }
    }

    /// Whether both do the same, so that one of them is enough.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::CreateChild(a), Self::CreateChild(b)) => a.child.name == b.child.name && a.worker() == b.worker(),
            (Self::RekeyChild { child: a, .. }, Self::RekeyChild { child: b, .. })
            | (Self::DeleteChild { child: a, .. }, Self::DeleteChild { child: b, .. }) => a == b,
            (Self::Discard(a, one), Self::Discard(b, other)) => (a, one) == (b, other),
            (Self::Redirect(a), Self::Redirect(b)) => a == b,
            (Self::ReportSpi(a), Self::ReportSpi(b)) => a == b,
            (Self::Move(a, _), Self::Move(b, _)) => a == b,
            (Self::RekeyIke { .. }, Self::RekeyIke { .. })
            | (Self::DeleteIke { .. }, Self::DeleteIke { .. })
            | (Self::Liveness, Self::Liveness) => true,
            _ => false,
        }
    }
}

/// A task with its history.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) task: Task,
    /// Whose commands end with it, beside those of a [`ChildWish`].
    pub(super) tickets: Vec<Ticket>,
    /// Not before then.
    pub(super) not_before: Option<Instant>,
    /// How often the peer put it off, and since when.
    put_off: u32,
    put_off_since: Option<Instant>,
}

impl Queued {
    pub(super) fn new(task: Task) -> Self {
        Self { task, tickets: Vec::new(), not_before: None, put_off: 0, put_off_since: None }
    }

    pub(super) fn with_ticket(mut self, ticket: Ticket) -> Self {
        self.tickets.push(ticket);
        self
    }

    /// All tickets that end with the task.
    pub(super) fn take_tickets(&mut self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.tickets);
        if let Task::CreateChild(wish) = &mut self.task {
            tickets.append(&mut wish.tickets);
        }
        tickets
    }

    /// Puts the task off because the peer cannot do it now: each time for longer (R7296-2.25-1), and by a random part more
    /// so that two tasks that met do not meet again; `random` is between 0 and 1. `None` when that has gone on for so long
    /// that the two ends must have different ideas of what exists (RFC 7296 §2.25).
    pub(super) fn put_off(mut self, now: Instant, random: f64) -> Option<Self> {
        let since = *self.put_off_since.get_or_insert(now);
        if now.saturating_duration_since(since) > PUT_OFF_LIMIT {
            return None;
        }
        let wait = PUT_OFF_FIRST.saturating_mul(1 << self.put_off.min(16)).min(PUT_OFF_LONGEST);
        self.put_off += 1;
        self.not_before = Some(now + wait.mul_f64(1.0 + random / 2.0));
        Some(self)
    }
}

/// The tasks of an SA that wait.
#[derive(Debug, Default)]
pub(super) struct TaskQueue {
    queue: VecDeque<Queued>,
}

impl TaskQueue {
    /// Appends a task; if the same is queued already, that one takes over the tickets. The tickets of a task that is more
    /// than the limit are given back.
    pub(super) fn push(&mut self, mut queued: Queued) -> Result<(), Vec<Ticket>> {
        if let Some(same) = self.queue.iter_mut().find(|waiting| waiting.task.is_same(&queued.task)) {
            let tickets = queued.take_tickets();
            same.tickets.extend(tickets);
            return Ok(());
        }
        if self.queue.len() >= MAX_TASKS {
            return Err(queued.take_tickets());
        }
        self.queue.push_back(queued);
        Ok(())
    }

    /// Puts a task in front of all others.
    pub(super) fn push_first(&mut self, queued: Queued) {
        self.queue.push_front(queued);
    }

    /// Puts a task in front of all others, unless the same is queued already.
    pub(super) fn push_first_of_kind(&mut self, queued: Queued) {
        if !self.queue.iter().any(|waiting| waiting.task.is_same(&queued.task)) {
            self.queue.push_front(queued);
        }
    }

    /// Appends a task that was queued before.
    pub(super) fn push_last(&mut self, queued: Queued) {
        self.queue.push_back(queued);
    }

    /// Takes the first task that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Queued> {
        let position = self.queue.iter().position(|queued| queued.not_before.is_none_or(|due| due <= now))?;
        self.queue.remove(position)
    }

    /// When the first task that was put off is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.iter().filter_map(|queued| queued.not_before).min()
    }

    /// Takes all tasks out.
    pub(super) fn drain(&mut self) -> VecDeque<Queued> {
        std::mem::take(&mut self.queue)
    }

    /// Takes those out that are of a kind.
    pub(super) fn take_where(&mut self, is_it: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let (taken, left): (Vec<_>, Vec<_>) = self.drain().into_iter().partition(is_it);
        self.queue = left.into();
        taken
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.queue.iter_mut()
    }
}

/// The task whose turn it is.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) queued: Queued,
    pub(super) progress: Progress,
    /// The nonces of the exchange with which the peer replaced the child that we are replacing. They decide whose child
    /// stays, even if the peer's has been replaced again before our answer comes.
    pub(super) rival: Option<[Vec<u8>; 2]>,
}

impl Running {
    pub(super) fn new(queued: Queued, progress: Progress) -> Self {
        Self { queued, progress, rival: None }
    }

    /// The child that was offered and is not made yet.
    pub(super) fn child_offer(&mut self) -> Option<&mut ChildOffer> {
        match &mut self.progress {
            Progress::ChildOffered(offer) => Some(offer),
            Progress::Following(following) => following.child_offer(),
            Progress::AwaitingSpi | Progress::Installing(_) | Progress::IkeOffered(_) | Progress::Requested => None,
        }
    }
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Progress {
    /// The dataplane was asked for an SPI.
    AwaitingSpi,
    /// A child was offered to the peer.
    ChildOffered(Box<ChildOffer>),
    /// The peer agreed, the dataplane installs the child.
    Installing(ChildSaId),
    /// A new IKE SA was offered to the peer.
    IkeOffered(Box<IkeOffer>),
    /// The peer agreed to the one or the other, and more key exchanges follow.
    Following(Box<Following>),
    /// The request says it all.
    Requested,
}

/// Tasks of one SA: more than its children's tasks and a few commands cannot be of use.
const MAX_TASKS: usize = 1024;

/// RFC 7296 §2.25 wants a wait so that the peer may complete what it is doing: a few round trips.
const PUT_OFF_FIRST: Duration = Duration::from_secs(2);

const PUT_OFF_LONGEST: Duration = Duration::from_secs(60);

/// "Several minutes" of RFC 7296 §2.25, after which the SA is closed.
const PUT_OFF_LIMIT: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testbed::start_of_time;

    /// R7296-2.25-1.
    #[test]
    fn a_task_that_is_put_off_waits_longer_each_time_and_not_for_ever() {
        let start = start_of_time();
        let (mut now, mut waits) = (start, Vec::new());
        let mut queued = Queued::new(Task::RekeyIke { group: None });
        while let Some(again) = queued.put_off(now, 0.0) {
            let due = again.not_before.unwrap();
            waits.push((due - now).as_secs());
            (queued, now) = (again, due);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn the_same_task_is_queued_once_and_keeps_all_tickets() {
        let mut queue = TaskQueue::default();
        queue.push(Queued::new(Task::Liveness).with_ticket(Ticket(1))).unwrap();
        queue.push(Queued::new(Task::Liveness).with_ticket(Ticket(2))).unwrap();
        let mut queued = queue.pop_due(start_of_time()).unwrap();
        assert_eq!(queued.take_tickets(), [Ticket(1), Ticket(2)]);
        assert!(queue.pop_due(start_of_time()).is_none());
    }

    #[test]
    fn tasks_that_wait_let_others_pass() {
        let now = start_of_time();
        let mut queue = TaskQueue::default();
        queue.push_first(Queued::new(Task::RekeyIke { group: None }).put_off(now, 0.0).unwrap());
        queue.push(Queued::new(Task::Liveness)).unwrap();
        assert_eq!(queue.pop_due(now).unwrap().task.name(), "IKE_DPD");
        assert!(queue.pop_due(now).is_none());
        assert_eq!(queue.next_due(), Some(now + PUT_OFF_FIRST));
        assert!(queue.pop_due(now + PUT_OFF_FIRST).is_some());
    }
}
