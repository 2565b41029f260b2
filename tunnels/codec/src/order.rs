//! Sequence numbers that keep packets in order (RFC 2890 §2.2, RFC 3931 appendix C): what comes too late is dropped, nothing is
//! put back in order.

/// Watches the sequence numbers of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The number that follows the newest one that was taken.
    next: u32,
    /// The largest number.
    mask: u32,
    /// The last number that came too late, and how many came in a row, each one more than the one before.
    late: Option<(u32, u32)>,
}

impl Order {
    /// This many late packets in a row, in order among themselves, are no stragglers: the peer has started anew.
    const RESTART: u32 = 5;

    /// The 32-bit numbers of GRE, from 0 on.
    #[must_use]
    pub fn gre() -> Self {
        Self { next: 0, mask: u32::MAX, late: None }
    }

    /// The 24-bit numbers of L2TPv3, from 0 on.
    #[must_use]
    pub fn l2tp() -> Self {
        Self { next: 0, mask: 0x00ff_ffff, late: None }
    }

    /// Whether the packet with this number may pass. It may when it is newer than all before: less than half of all numbers
    /// ahead of the last one. Gaps are let be. A peer that starts again at 0 is believed after a few packets.
    pub fn accept(&mut self, number: u32) -> bool {
        let number = number & self.mask;
        let ahead = number.wrapping_sub(self.next) & self.mask;
        let is_late = ahead > self.mask >> 1;
        if is_late {
            let follows = |(last, count): (u32, u32)| {
                (number == last.wrapping_add(1) & self.mask).then_some(count.saturating_add(1))
            };
            let count = self.late.and_then(follows).unwrap_or(1);
            self.late = Some((number, count));
            if count < Self::RESTART {
                return false;
            }
        }
        self.late = None;
        self.next = number.wrapping_add(1) & self.mask;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R2890-2.2-1, R3931-4.6-1.
    #[test]
    fn late_and_repeated_packets_are_dropped_and_gaps_let_be() {
        for mut order in [Order::gre(), Order::l2tp()] {
            let accepted: Vec<bool> = [0, 1, 1, 5, 4, 6, 0].into_iter().map(|number| order.accept(number)).collect();
            assert_eq!(accepted, [true, true, false, true, false, true, false]);
        }
    }

    /// R2890-2.2-1, R3931-4.6-1.
    #[test]
    fn numbers_go_round() {
        for (mut order, last) in [(Order::gre(), u32::MAX), (Order::l2tp(), 0x00ff_ffff)] {
            assert!(order.accept(last / 2), "half of all numbers ahead");
            assert!(order.accept(last - 1) && order.accept(last) && order.accept(0));
            assert!(!order.accept(last), "it is behind now");
        }
    }

    #[test]
    fn a_peer_that_starts_anew_is_believed_after_five_packets() {
        let mut order = Order::gre();
        assert!(order.accept(1000));
        let accepted: Vec<bool> = (0..7).map(|number| order.accept(number)).collect();
        assert_eq!(accepted, [false, false, false, false, true, true, true]);
    }

    #[test]
    fn stragglers_are_no_restart() {
        let mut order = Order::gre();
        assert!(order.accept(1000));
        for number in [1, 2, 3, 4, 900, 901, 902, 903] {
            assert!(!order.accept(number), "{number}");
        }
        assert!(order.accept(1001));
        assert!(!order.accept(904), "a packet in order ends the row");
    }
}
