//! Copies packets as they pass, while somebody asked for it.

mod watch;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use espdp_api::{CaptureRemark, CaptureSpec, CapturedPacket, CapturedSa, PolicyId, Viewpoint};

/// Where captured packets go. None of this may wait.
pub trait CaptureSink: fmt::Debug + Send {
    /// Whether there is room for a packet of so many octets.
    fn has_room(&self, octets: usize) -> bool;

    /// Takes a packet.
    fn put(&mut self, packet: CapturedPacket);

    /// Counts a packet that was seen there and for which there was no room, or no time.
    fn lose(&mut self, viewpoint: Viewpoint);
}

/// Copies packets while it is armed; otherwise every call is one branch.
#[derive(Debug, Default)]
pub(crate) struct Capturer(Option<Box<Armed>>);

#[derive(Debug)]
pub(crate) struct Armed {
    spec: CaptureSpec,
    sink: Box<dyn CaptureSink>,
    /// An instant, and what the clock on the wall said then.
    epoch: (Instant, SystemTime),
    budget: Budget,
    /// Packets from the wire whose batch is under way, by place.
    open: Vec<Open>,
}

/// A packet from the wire of which it is not known yet what becomes of it.
#[derive(Debug)]
struct Open {
    place: usize,
    sa: Option<CapturedSa>,
    outer: Option<CapturedPacket>,
    inner: Inner,
}

/// What was inside of a packet from the wire, in case that it goes no further.
#[derive(Debug)]
enum Inner {
    /// It is not seen before it goes further.
    Unseen,
    /// There was no room for it, or no time, and that was counted.
    Lost,
    Copied(CapturedPacket),
}

impl Inner {
    fn copied(&mut self) -> Option<&mut CapturedPacket> {
        if let Self::Copied(packet) = self { Some(packet) } else { None }
    }
}

impl Capturer {
    /// Copies what `spec` asks for to `sink`. `clock` is what the clock on the wall says `now`.
    pub(crate) fn arm(&mut self, (now, clock): (Instant, SystemTime), spec: CaptureSpec, sink: Box<dyn CaptureSink>) {
        let budget = Budget::new(now, spec.most_per_second);
        self.0 = Some(Box::new(Armed { spec, sink, epoch: (now, clock), budget, open: Vec::new() }));
    }

    /// Copies no more.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }

    /// Has it copy packets of other policies from now on.
    pub(crate) fn set_policies(&mut self, policies: Option<Vec<PolicyId>>) {
        if let Some(armed) = &mut self.0 {
            armed.spec.policies = policies;
        }
    }

    /// Whether anything is copied.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.0.is_some()
    }

    /// Whether packets on the inside are.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.0.as_ref().is_some_and(|armed| armed.spec.inside)
    }

    /// Says why the packet at `place`, which came from the wire, goes no further.
    #[inline]
    pub(crate) fn end_dropped(&mut self, place: usize, reason: crate::DropReason) {
        if let Some(armed) = &mut self.0 {
            armed.end_dropped(place, reason);
        }
    }

    #[inline]
    fn armed(&mut self) -> Option<&mut Armed> {
        self.0.as_deref_mut()
    }
}

impl Armed {
    /// Whether packets seen there are wanted that are a policy's, or of which nobody knows whose they are.
    fn wants(&self, viewpoint: &Viewpoint, policy: Option<PolicyId>) -> bool {
        let is_seen = match viewpoint {
            Viewpoint::Inside(_) => self.spec.inside,
            Viewpoint::Outside => self.spec.outside,
            Viewpoint::IkePlain => false,
        };
        let is_wanted = |wanted: &Vec<PolicyId>| policy.is_some_and(|policy| wanted.contains(&policy));
        is_seen && self.spec.policies.as_ref().is_none_or(is_wanted)
    }

    /// Has a packet of `len` octets copied, if there are room and time for that: `copy` is told when it is, and how much is kept.
    fn copy(
        &mut self,
        now: Instant,
        viewpoint: &Viewpoint,
        len: usize,
        copy: impl FnOnce(SystemTime, usize) -> Option<CapturedPacket>,
    ) -> Option<CapturedPacket> {
        if !self.budget.allows(now) || !self.sink.has_room(len.min(self.spec.snaplen)) {
            self.sink.lose(viewpoint.clone());
            return None;
        }
        copy(self.clock(now), self.spec.snaplen)
    }

    /// What the clock on the wall says.
    fn clock(&self, now: Instant) -> SystemTime {
        let (epoch, clock) = self.epoch;
        clock.checked_add(now.saturating_duration_since(epoch)).unwrap_or(clock)
    }

    fn end_dropped(&mut self, place: usize, reason: crate::DropReason) {
        let Ok(found) = self.open.binary_search_by_key(&place, |open| open.place) else { return };
        let Some(open) = self.open.get_mut(found) else { return };
        for packet in [open.outer.as_mut(), open.inner.copied()].into_iter().flatten() {
            packet.remark = Some(CaptureRemark::Dropped(reason.name().to_owned()));
        }
    }
}

/// So many packets in each second.
#[derive(Debug)]
struct Budget {
    each_second: u32,
    left: u32,
    until: Instant,
}

impl Budget {
    fn new(now: Instant, each_second: u32) -> Self {
        Self { each_second, left: each_second, until: now + Duration::from_secs(1) }
    }

    fn allows(&mut self, now: Instant) -> bool {
        if now >= self.until {
            *self = Self::new(now, self.each_second);
        }
        let allows = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_packets_and_the_next_as_many() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut budget = Budget::new(start, 3);
        let passed = |budget: &mut Budget, millis| {
            (0..9).filter(|_| budget.allows(start + Duration::from_millis(millis))).count()
        };
        assert_eq!((passed(&mut budget, 0), passed(&mut budget, 999), passed(&mut budget, 1000)), (3, 0, 3));
    }
}
