//! Message windows: which requests are ours and outstanding, which of the peer's were answered (RFC 7296 §2.1 to §2.3).
//!
//! Both windows have the size 1, so that each side has at most one request outstanding (R7296-2.3-1).

use std::time::{Duration, Instant};

use super::packets::Packets;
use crate::config::Retransmission;
use crate::wire::ExchangeType;

/// Our requests: the number of the next one, and the one that waits for its response.
#[derive(Debug, Default)]
pub(super) struct OurWindow {
    next: u32,
    outstanding: Option<Outstanding>,
}

/// A request that was sent and not answered yet.
#[derive(Debug)]
struct Outstanding {
    message_id: u32,
    exchange: ExchangeType,
    packets: Packets,
    repetitions: u32,
    wait: Duration,
    due: Instant,
}

/// What is to be done about the outstanding request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retransmit {
    /// Nothing yet.
    NotDue,
    /// Send these again, the same as before (R7296-2.1-2).
    Again(Packets),
    /// All tries were in vain.
    Exhausted,
}

impl OurWindow {
    /// The window of an SA whose next request has the number `next`.
    pub(super) fn starting_at(next: u32) -> Self {
        Self { next, outstanding: None }
    }

    /// The number of the next request, if there may be one: none is outstanding and the numbers are not used up. They
    /// never wrap (R7296-2.2-1).
    pub(super) fn free_id(&self) -> Option<u32> {
        (self.outstanding.is_none() && self.next < u32::MAX).then_some(self.next)
    }

    /// Whether so many numbers are used that the SA should be replaced.
    pub(super) fn is_running_out(&self) -> bool {
        self.next >= MESSAGE_IDS_BEFORE_REKEY
    }

    /// The number of the request that waits for its response.
    pub(super) fn outstanding_id(&self) -> Option<u32> {
        self.outstanding.as_ref().map(|outstanding| outstanding.message_id)
    }

    /// Notes that `packets` were sent as request number [`Self::free_id`] (R7296-2.1-4).
    pub(super) fn sent(&mut self, now: Instant, exchange: ExchangeType, packets: Packets, policy: &Retransmission) {
        let message_id = self.next;
        self.next = self.next.saturating_add(1);
        let due = now + policy.first;
        self.outstanding = Some(Outstanding { message_id, exchange, packets, repetitions: 0, wait: policy.first, due });
    }

    /// Puts another message in the place of the outstanding one, with the same number: for the second IKE_SA_INIT, with a
    /// cookie or another group.
    pub(super) fn replace(&mut self, now: Instant, packets: Packets, policy: &Retransmission) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.packets = packets;
            outstanding.repetitions = 0;
            outstanding.wait = policy.first;
            outstanding.due = now + policy.first;
        }
    }

    /// Whether a response with this number and exchange is for the outstanding request.
    pub(super) fn expects(&self, message_id: u32, exchange: ExchangeType) -> bool {
        self.outstanding
            .as_ref()
            .is_some_and(|outstanding| outstanding.message_id == message_id && outstanding.exchange == exchange)
    }

    /// Notes that the outstanding request is answered, or that nobody waits for its answer any more.
    pub(super) fn close(&mut self) {
        self.outstanding = None;
    }

    /// When the outstanding request is due again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.due)
    }

    /// Has the outstanding request sent again at once, as often as if it were new: there is hope on another path.
    pub(super) fn hurry(&mut self, now: Instant, policy: &Retransmission) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.repetitions = 0;
            outstanding.wait = policy.first;
            outstanding.due = now;
        }
    }

    /// What is due now. Each wait is longer than the one before (R7296-2.4-3).
    pub(super) fn retransmit(&mut self, now: Instant, policy: &Retransmission) -> Retransmit {
        let Some(outstanding) = self.outstanding.as_mut().filter(|outstanding| outstanding.due <= now) else {
            return Retransmit::NotDue;
        };
        if outstanding.repetitions >= policy.tries {
            return Retransmit::Exhausted;
        }
        outstanding.repetitions += 1;
        let longer = outstanding.wait.as_secs_f64() * policy.factor.max(1.0);
        outstanding.wait = Duration::try_from_secs_f64(longer).map_or(policy.longest, |wait| wait.min(policy.longest));
        outstanding.due = now + outstanding.wait;
        Retransmit::Again(outstanding.packets.clone())
    }
}

/// The peer's requests: the number of the next one, and the response to the last one.
#[derive(Debug, Default)]
pub(super) struct TheirWindow {
    /// One more than the last number there is, once that one has come.
    expected: u64,
    /// The one before it is not answered yet.
    is_busy: bool,
    response: Option<Packets>,
}

/// What a request is by its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one: to be carried out.
    New,
    /// The last one again: here is its response (R7296-2.1-1).
    Repeated(Packets),
    /// Being worked on, long answered, or not due before the last one is answered: to be ignored (R7296-2.1-3,
    /// R7296-2.3-3).
    Ignored,
}

impl TheirWindow {
    /// The window of an SA whose peer's next request has the number `expected`.
    pub(super) fn starting_at(expected: u32) -> Self {
        Self { expected: expected.into(), ..Self::default() }
    }

    /// What the request with this number is.
    pub(super) fn arrival(&self, message_id: u32) -> Arrival {
        let message_id = u64::from(message_id);
        if message_id == self.expected && !self.is_busy {
            return Arrival::New;
        }
        match &self.response {
            Some(response) if message_id + 1 == self.expected => Arrival::Repeated(response.clone()),
            _ => Arrival::Ignored,
        }
    }

    /// Notes that the next request is being worked on; its repetitions, and those that come after it, are ignored until
    /// [`Self::answered`]. Numbers do not wrap: after the last one nothing is new any more.
    pub(super) fn accept(&mut self) {
        self.expected = self.expected.saturating_add(1);
        self.is_busy = true;
        self.response = None;
    }

    /// Keeps the response to the request that was accepted last.
    pub(super) fn answered(&mut self, response: Packets) {
        self.is_busy = false;
        self.response = Some(response);
    }
}

/// With a quarter of the numbers left there is ample time to replace the SA.
const MESSAGE_IDS_BEFORE_REKEY: u32 = u32::MAX / 4 * 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testbed::start_of_time;

    const POLICY: Retransmission =
        Retransmission { first: Duration::from_secs(2), factor: 2.0, tries: 3, longest: Duration::from_secs(7) };

    /// R7296-2.4-3.
    #[test]
    fn waits_grow_up_to_the_longest_and_the_octets_stay_the_same() {
        let start = start_of_time();
        let mut window = OurWindow::default();
        window.sent(start, ExchangeType::Informational, Packets::whole(vec![7; 3]), &POLICY);
        let mut waits = Vec::new();
        let mut now = start;
        while let Some(due) = window.due() {
            waits.push((due - now).as_secs());
            now = due;
            match window.retransmit(now, &POLICY) {
                Retransmit::Again(packet) => assert_eq!(packet, Packets::whole(vec![7; 3])),
                Retransmit::Exhausted => break,
                Retransmit::NotDue => panic!("the deadline was announced for now"),
            }
        }
        assert_eq!(waits, [2, 4, 7, 7]);
    }

    /// R7296-2.2-1, R7296-2.3-1.
    #[test]
    fn only_one_request_is_outstanding_and_numbers_never_wrap() {
        let now = start_of_time();
        let mut window = OurWindow::starting_at(u32::MAX - 1);
        assert_eq!(window.free_id(), Some(u32::MAX - 1));
        window.sent(now, ExchangeType::Informational, Packets::whole(Vec::new()), &POLICY);
        assert_eq!(window.free_id(), None);
        assert!(window.expects(u32::MAX - 1, ExchangeType::Informational));
        assert!(!window.expects(u32::MAX - 1, ExchangeType::CreateChildSa));
        window.close();
        assert_eq!(window.free_id(), None);
        assert!(window.is_running_out());
    }

    /// R7296-2.1-1, R7296-2.1-3, R7296-2.3-3.
    #[test]
    fn a_repeated_request_gets_the_cached_response_and_older_ones_nothing() {
        let mut window = TheirWindow::starting_at(1);
        assert_eq!(window.arrival(0), Arrival::Ignored);
        assert_eq!(window.arrival(1), Arrival::New);
        window.accept();
        assert_eq!(window.arrival(1), Arrival::Ignored, "no response exists yet");
        assert_eq!(window.arrival(2), Arrival::Ignored, "one at a time");
        window.answered(Packets::whole(vec![9]));
        assert_eq!(window.arrival(1), Arrival::Repeated(Packets::whole(vec![9])));
        window.accept();
        assert_eq!(window.arrival(1), Arrival::Ignored);
        assert_eq!(window.arrival(4), Arrival::Ignored);
    }

    /// R7296-2.2-1.
    #[test]
    fn the_last_number_there_is_comes_once() {
        let mut window = TheirWindow::starting_at(u32::MAX);
        assert_eq!(window.arrival(u32::MAX), Arrival::New);
        window.accept();
        window.answered(Packets::whole(vec![9]));
        assert_eq!(window.arrival(u32::MAX), Arrival::Repeated(Packets::whole(vec![9])));
        assert_eq!(window.arrival(0), Arrival::Ignored);
    }
}
