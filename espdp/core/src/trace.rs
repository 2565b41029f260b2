//! Follows single packets through the batches, while somebody asked for it.

mod follow;

use std::time::Instant;

use espdp_api::{Direction, PacketTrace, TraceFilter, TraceStep};

use crate::DropReason;

/// Traces packets while it is armed; otherwise every call is one branch.
///
/// A packet is named by its place in its batch, since that is all that a batch remembers of it. So only one batch is open at a
/// time, and whatever is still open when the next one begins is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tracer(Option<Box<Armed>>);

#[derive(Debug)]
struct Armed {
    filter: TraceFilter,
    since: Instant,
    /// How many are kept at most.
    wanted: usize,
    kept: Vec<PacketTrace>,
    /// Packets of the batch that is under way, with their places in it.
    open: Vec<(usize, PacketTrace)>,
}

impl Tracer {
    /// Most packets that are kept.
    const MOST: usize = 1000;

    /// Traces the next `packets` that `filter` takes, and forgets what was traced before; with 0 it ends.
    pub(crate) fn arm(&mut self, now: Instant, packets: usize, filter: TraceFilter) {
        let wanted = packets.min(Self::MOST);
        let armed = Armed { filter, since: now, wanted, kept: Vec::new(), open: Vec::new() };
        self.0 = (wanted > 0).then(|| Box::new(armed));
    }

    /// What was traced so far, oldest first.
    pub(crate) fn kept(&self) -> &[PacketTrace] {
        self.0.as_ref().map_or(&[], |armed| &armed.kept)
    }

    /// Whether packets are wanted still.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.0.as_ref().is_some_and(|armed| armed.kept.len() < armed.wanted)
    }

    /// Takes the packet at `place` of a batch up.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant, direction: Direction, place: usize, step: impl FnOnce() -> TraceStep) {
        if let Some(armed) = self.active() {
            armed.open.retain(|(other, _)| *other != place);
            let at = now.saturating_duration_since(armed.since);
            armed.open.push((place, PacketTrace { at, direction, steps: vec![step()] }));
        }
    }

    /// Adds a step of the packet at `place`, if it is followed.
    #[inline]
    pub(crate) fn step(&mut self, place: usize, step: impl FnOnce() -> TraceStep) {
        if let Some(trace) = self.open(place) {
            trace.steps.push(step());
        }
    }

    /// Adds the last step of the packet at `place`, if it is followed, and keeps it if it is wanted.
    #[inline]
    pub(crate) fn end(&mut self, place: usize, step: impl FnOnce() -> TraceStep) {
        let Some(armed) = self.active() else { return };
        let Some(at) = armed.open.iter().position(|(other, _)| *other == place) else { return };
        let (_, mut trace) = armed.open.remove(at);
        trace.steps.push(step());
        if armed.filter.takes(&trace) {
            armed.kept.push(trace);
        }
    }

    /// Says why the packet at `place` goes no further.
    #[inline]
    pub(crate) fn end_dropped(&mut self, place: usize, reason: DropReason) {
        self.end(place, || TraceStep::Dropped { reason: reason.name().to_owned() });
    }

    /// Forgets the packets that are followed and did not end: their batch is over.
    #[inline]
    pub(crate) fn forget_open(&mut self) {
        if let Some(armed) = self.active() {
            armed.open.clear();
        }
    }

    #[inline]
    fn active(&mut self) -> Option<&mut Armed> {
        self.0.as_deref_mut().filter(|armed| armed.kept.len() < armed.wanted)
    }

    #[inline]
    fn open(&mut self, place: usize) -> Option<&mut PacketTrace> {
        self.active()?.open.iter_mut().find(|(other, _)| *other == place).map(|(_, trace)| trace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn dropped() -> TraceStep {
        TraceStep::Dropped { reason: "test".to_owned() }
    }

    fn opened() -> TraceStep {
        TraceStep::Opened { next_header: 4 }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn armed(packets: usize, filter: TraceFilter) -> (Tracer, Instant) {
        let (mut tracer, now) = (Tracer::default(), Instant::now());
        tracer.arm(now, packets, filter);
        (tracer, now)
    }

    #[test]
    fn without_being_armed_no_step_is_even_made() {
        let (mut tracer, now) = armed(0, TraceFilter::default());
        tracer.begin(now, Direction::Inbound, 0, || panic!("nobody asked"));
        tracer.step(0, || panic!("nobody asked"));
        tracer.end(0, || panic!("nobody asked"));
        assert!(!tracer.is_armed() && tracer.kept().is_empty());
    }

    #[test]
    fn packets_of_a_batch_are_told_apart_and_kept_as_they_end() {
        let (mut tracer, start) = armed(9, TraceFilter::default());
        let now = start + Duration::from_millis(5);
        tracer.begin(now, Direction::Outbound, 0, opened);
        tracer.begin(now, Direction::Outbound, 1, opened);
        tracer.step(0, opened);
        tracer.end(1, dropped);
        tracer.end(0, dropped);
        tracer.end(7, || panic!("nobody follows it"));
        let steps: Vec<usize> = tracer.kept().iter().map(|trace| trace.steps.len()).collect();
        assert_eq!((steps, tracer.kept()[0].at), (vec![2, 3], Duration::from_millis(5)));
    }

    #[test]
    fn it_ends_when_there_are_enough_and_keeps_them_until_it_is_armed_again() {
        let (mut tracer, now) = armed(2, TraceFilter::default());
        for place in 0..5 {
            tracer.begin(now, Direction::Inbound, place, opened);
            tracer.end(place, dropped);
        }
        assert!(!tracer.is_armed());
        assert_eq!(tracer.kept().len(), 2);
        tracer.arm(now, usize::MAX, TraceFilter::default());
        assert!(tracer.is_armed() && tracer.kept().is_empty());
        for place in 0..2 * Tracer::MOST {
            tracer.begin(now, Direction::Inbound, place, opened);
            tracer.end(place, dropped);
        }
        assert_eq!(tracer.kept().len(), Tracer::MOST);
    }

    #[test]
    fn what_the_filter_does_not_take_does_not_count() {
        let filter = TraceFilter { direction: Some(Direction::Outbound), ..TraceFilter::default() };
        let (mut tracer, now) = armed(1, filter);
        tracer.begin(now, Direction::Inbound, 0, opened);
        tracer.end(0, dropped);
        tracer.begin(now, Direction::Outbound, 0, opened);
        tracer.end(0, dropped);
        assert_eq!(tracer.kept().len(), 1);
        assert_eq!(tracer.kept()[0].direction, Direction::Outbound);
    }

    #[test]
    fn what_does_not_end_with_its_batch_is_forgotten() {
        let (mut tracer, now) = armed(9, TraceFilter::default());
        tracer.begin(now, Direction::Inbound, 0, opened);
        tracer.forget_open();
        tracer.end(0, || panic!("it is forgotten"));
        assert!(tracer.kept().is_empty());
        tracer.begin(now, Direction::Inbound, 3, opened);
        tracer.begin(now, Direction::Outbound, 3, opened);
        tracer.end(3, dropped);
        assert_eq!(tracer.kept()[0].direction, Direction::Outbound, "the later packet has the place");
    }
}
