//! Message windows: which requests are ours and outstanding, which of the peer's were answered (RFC 7296 §2.1 to §2.3).
//!
//! Our own window has the size 1 whatever the peer allows (R7296-2.3-1): tasks run one after the other. The peer's may be
//! wider.

use std::collections::BTreeMap;
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

/// What nobody has answered, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    pub(super) exchange: ExchangeType,
    pub(super) message_id: u32,
    /// How often it was sent again.
    pub(super) repetitions: u32,
    /// Octets of all its datagrams.
    pub(super) octets: usize,
    /// Octets of the longest of them.
    pub(super) longest: usize,
}

impl Default for Unanswered {
    fn default() -> Self {
        Self { exchange: ExchangeType::IkeSaInit, message_id: 0, repetitions: 0, octets: 0, longest: 0 }
    }
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

    /// The request that waits for its response; of no size when there is none.
    pub(super) fn unanswered(&self) -> Unanswered {
        self.outstanding.as_ref().map_or_else(Unanswered::default, |outstanding| Unanswered {
            exchange: outstanding.exchange,
            message_id: outstanding.message_id,
            repetitions: outstanding.repetitions,
            octets: outstanding.packets.octets(),
            longest: outstanding.packets.longest(),
        })
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

/// The peer's requests: which of them were accepted, and the responses to the last ones.
///
/// Up to [`Self::size`] requests from the first one on that has no response yet may be accepted, in any order; the
/// responses to as many are kept (RFC 7296 §2.3).
#[derive(Debug)]
pub(super) struct TheirWindow {
    size: u32,
    /// The first request without response: all before it are answered. One more than the last number there is, once that
    /// one is answered, too.
    base: u64,
    /// What was accepted, with the responses.
    requests: BTreeMap<u64, Option<Packets>>,
}

/// What a request is by its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A new one: to be carried out.
    New,
    /// One of the last ones again: here is its response (R7296-2.1-1).
    Repeated(Packets),
    /// Being worked on, long answered, or outside of the window: to be ignored (R7296-2.1-3, R7296-2.3-3).
    Ignored,
}

impl TheirWindow {
    /// The window of an SA whose peer's next request has the number `base`. Its size is 1 unless the peer was told
    /// otherwise.
    pub(super) fn starting_at(base: u32, size: u32) -> Self {
        Self { size, base: base.into(), requests: BTreeMap::new() }
    }

    /// Makes room for so many requests at a time, for the peer was told that it may send them. A window never shrinks.
    pub(super) fn widen(&mut self, size: u32) {
        self.size = self.size.max(size);
    }

    /// What the request with this number is. Numbers do not wrap: after the last one nothing is new any more.
    pub(super) fn arrival(&self, message_id: u32) -> Arrival {
        let message_id = u64::from(message_id);
        match self.requests.get(&message_id) {
            Some(Some(response)) => Arrival::Repeated(response.clone()),
            None if (self.base..self.base + u64::from(self.size)).contains(&message_id) => Arrival::New,
            Some(None) | None => Arrival::Ignored,
        }
    }

    /// Notes that a new request is being worked on; its repetitions are ignored until [`Self::answered`]. A peer that
    /// sends it has the responses to those that are a window's size older, so they are forgotten.
    pub(super) fn accept(&mut self, message_id: u32) {
        let (message_id, size) = (u64::from(message_id), u64::from(self.size));
        self.requests.insert(message_id, None);
        self.requests.retain(|&older, response| response.is_none() || older + size > message_id);
    }

    /// Keeps the response to a request that was accepted.
    pub(super) fn answered(&mut self, message_id: u32, response: Packets) {
        self.requests.insert(message_id.into(), Some(response));
        while self.requests.get(&self.base).is_some_and(Option::is_some) {
            self.base += 1;
        }
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

    fn response(octet: u8) -> Packets {
        Packets::whole(vec![octet])
    }

    /// R7296-2.1-1, R7296-2.1-3, R7296-2.3-3.
    #[test]
    fn a_repeated_request_gets_the_cached_response_and_older_ones_nothing() {
        let mut window = TheirWindow::starting_at(1, 1);
        assert_eq!(window.arrival(0), Arrival::Ignored);
        assert_eq!(window.arrival(1), Arrival::New);
        window.accept(1);
        assert_eq!(window.arrival(1), Arrival::Ignored, "no response exists yet");
        assert_eq!(window.arrival(2), Arrival::Ignored, "one at a time");
        window.answered(1, response(9));
        assert_eq!(window.arrival(1), Arrival::Repeated(response(9)));
        assert_eq!(window.arrival(2), Arrival::New);
        window.accept(2);
        assert_eq!(window.arrival(1), Arrival::Ignored);
        assert_eq!(window.arrival(4), Arrival::Ignored);
    }

    #[test]
    fn a_wide_window_takes_requests_in_any_order_and_keeps_as_many_responses() {
        let mut window = TheirWindow::starting_at(0, 1);
        window.widen(3);
        window.widen(2);
        for (message_id, expected) in [(2, Arrival::New), (3, Arrival::Ignored), (0, Arrival::New)] {
            assert_eq!(window.arrival(message_id), expected, "{message_id}, with a size of 3");
        }
        window.accept(2);
        window.answered(2, response(2));
        assert_eq!(window.arrival(3), Arrival::Ignored, "request 0 has no response yet");
        window.accept(0);
        window.accept(1);
        window.answered(1, response(1));
        assert_eq!(window.arrival(3), Arrival::Ignored, "nor is it answered");
        window.answered(0, response(0));
        for octet in 0..3 {
            assert_eq!(window.arrival(octet.into()), Arrival::Repeated(response(octet)));
        }
        for message_id in [3, 4, 5] {
            assert_eq!(window.arrival(message_id), Arrival::New);
        }
        assert_eq!(window.arrival(6), Arrival::Ignored);
        window.accept(4);
        for (message_id, expected) in
            [(0, Arrival::Ignored), (1, Arrival::Ignored), (2, Arrival::Repeated(response(2)))]
        {
            assert_eq!(window.arrival(message_id), expected, "{message_id}: 4 says that the peer has 1 and older ones");
        }
    }

    /// R7296-2.2-1.
    #[test]
    fn the_last_number_there_is_comes_once() {
        for size in [1, 4] {
            let mut window = TheirWindow::starting_at(u32::MAX, size);
            assert_eq!(window.arrival(u32::MAX), Arrival::New);
            window.accept(u32::MAX);
            window.answered(u32::MAX, response(9));
            assert_eq!(window.arrival(u32::MAX), Arrival::Repeated(response(9)));
            assert_eq!(window.arrival(0), Arrival::Ignored);
        }
    }

    #[test]
    fn no_more_responses_are_kept_than_the_window_has() {
        let mut window = TheirWindow::starting_at(0, 4);
        for message_id in 0..1000 {
            assert_eq!(window.arrival(message_id), Arrival::New);
            window.accept(message_id);
            window.answered(message_id, response(1));
            assert!(window.requests.len() <= 4);
        }
    }
}
