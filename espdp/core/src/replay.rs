//! The anti-replay window and extended sequence numbers (RFC 4303 §3.4.3, appendix A).

use esp_engines::prefetch;

use crate::DropReason;
use crate::crypto::Authentic;

/// Which sequence numbers an inbound SA has seen: a ring of bits, one for each number in the window.
///
/// ```text
///      too old        │◀────────── size ──────────▶│        new
///  ───────────────────┼────────────────────────────┼──────────────────▶ sequence number
///                     │ seen or not: `words`       newest
/// ```
///
/// A bit of the ring always tells of the latest number that it can stand for, up to the newest: what the window moves over
/// is cleared, at once.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReplayWindow {
    newest: u64,
    /// Numbers in the window; 0 when it is off.
    size: u32,
    extended: bool,
    words: Words,
}

/// The bits: in the SA itself as far as that is enough for most.
#[derive(Debug)]
enum Words {
    Few([u64; ReplayWindow::FEW as usize / 64]),
    /// As many as a power of two.
    Many(Box<[u64]>),
}

impl ReplayWindow {
    /// Most packets a window can hold.
    pub(crate) const MOST: u32 = 65536;
    /// Fewest packets a window can hold when it is on (RFC 4303 §3.4.3 wants 32 and recommends 64, R4303-3.4.3-1).
    pub(crate) const FEWEST: u32 = 64;
    /// Windows for up to this many packets take no memory of their own.
    const FEW: u32 = 1024;

    /// A window for `size` packets, brought into the allowed range and rounded up to a multiple of 64; 0 turns it off.
    pub(crate) fn new(size: u32, extended: bool) -> Self {
        let size = match size {
            0 => 0,
            size => size.clamp(Self::FEWEST, Self::MOST).next_multiple_of(64),
        };
        let words = if size <= Self::FEW {
            Words::Few([0; Self::FEW as usize / 64])
        } else {
            Words::Many(vec![0; (size as usize / 64).next_power_of_two()].into_boxed_slice())
        };
        Self { newest: 0, size, extended, words }
    }

    /// The newest sequence number that was accepted; 0 before the first.
    #[inline]
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Has the processor fetch the bits around the newest number.
    #[inline]
    pub(crate) fn prefetch(&self) {
        let words = self.words.all();
        if let Some(word) = words.get(place(words, self.newest)) {
            prefetch(word);
        }
    }

    /// The whole sequence number for the 32 bits on the wire, if it can still be accepted; to be confirmed by the ICV.
    ///
    /// # Errors
    /// [`DropReason::Replay`], [`DropReason::ReplayTooOld`].
    #[inline]
    pub(crate) fn admit(&self, low: u32) -> Result<u64, DropReason> {
        let sequence = if self.extended { self.infer(low)? } else { u64::from(low) };
        self.check(sequence)?;
        Ok(sequence)
    }

    /// Marks a number as seen. Only a packet whose integrity was verified moves the window (R4303-3.4.3-2).
    ///
    /// # Errors
    /// [`DropReason::Replay`], [`DropReason::ReplayTooOld`]: an earlier packet of the same batch had this number, or moved
    /// the window past it.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used up")]
    #[inline]
    pub(crate) fn commit(&mut self, proof: Authentic) -> Result<(), DropReason> {
        let sequence = proof.sequence();
        self.check(sequence)?;
        if sequence > self.newest {
            self.advance(sequence);
        }
        self.words.set(sequence);
        Ok(())
    }

    /// Begins to take the numbers that follow the newest one without a gap.
    #[inline]
    pub(crate) fn in_order(&mut self) -> InOrder<'_> {
        InOrder { last: self.newest, window: self }
    }

    #[inline]
    fn check(&self, sequence: u64) -> Result<(), DropReason> {
        if sequence > self.newest {
            return Ok(());
        }
        // R4303-2.2-1: the first packet is number 1.
        if sequence == 0 || (self.size != 0 && self.newest - sequence >= u64::from(self.size)) {
            return Err(DropReason::ReplayTooOld);
        }
        if self.size != 0 && self.words.has(sequence) { Err(DropReason::Replay) } else { Ok(()) }
    }

    /// Moves the window, forgetting what the numbers that it moves over stood for before; `sequence` itself is set at once.
    #[inline]
    fn advance(&mut self, sequence: u64) {
        if sequence - self.newest > 1 {
            self.words.clear_between(self.newest, sequence);
        }
        self.newest = sequence;
    }

    /// The whole number that the sender most likely meant: the one with this low half that lies in the 2³² numbers from the
    /// bottom of the window on, which is what both cases of RFC 4303 appendix A2.2 come to.
    #[inline]
    fn infer(&self, low: u32) -> Result<u64, DropReason> {
        let behind = i64::from(if self.size == 0 { UNCHECKED_SPAN } else { self.size }) - 1;
        let [.., n0, n1, n2, n3] = self.newest.to_be_bytes();
        let newest_low = u32::from_be_bytes([n0, n1, n2, n3]);
        let above_newest = i64::from(low.wrapping_sub(newest_low).wrapping_add(behind as u32)) - behind;
        // There are no numbers from before the start, and none of more than 64 bits.
        self.newest.checked_add_signed(above_newest).ok_or(DropReason::ReplayTooOld)
    }
}

/// Numbers that follow the newest one of a window without a gap, as most do. They are marked together, in the end.
#[derive(Debug)]
#[must_use]
pub(crate) struct InOrder<'a> {
    window: &'a mut ReplayWindow,
    /// The last one of them, or the newest of the window where there are none.
    last: u64,
}

impl InOrder<'_> {
    /// Whether a number is the next one.
    #[inline]
    pub(crate) fn is_next(&self, sequence: u64) -> bool {
        self.last.checked_add(1) == Some(sequence)
    }

    /// Takes a packet whose number is the next one; others do not count.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used up")]
    #[inline]
    pub(crate) fn take(&mut self, proof: Authentic) {
        if self.is_next(proof.sequence()) {
            self.last = proof.sequence();
        }
    }

    /// Marks them as seen.
    #[inline]
    pub(crate) fn commit(self) {
        self.window.words.set_all(self.window.newest, self.last);
        self.window.newest = self.last;
    }
}

impl Words {
    fn all(&self) -> &[u64] {
        match self {
            Self::Few(words) => words,
            Self::Many(words) => words,
        }
    }

    fn all_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Few(words) => words,
            Self::Many(words) => words,
        }
    }

    #[inline]
    fn has(&self, sequence: u64) -> bool {
        let words = self.all();
        words.get(place(words, sequence)).is_some_and(|word| word & bit(sequence) != 0)
    }

    #[inline]
    fn set(&mut self, sequence: u64) {
        let words = self.all_mut();
        if let Some(word) = words.get_mut(place(words, sequence)) {
            *word |= bit(sequence);
        }
    }

    /// Sets what stands for the numbers after `newest` up to `last`.
    #[inline]
    fn set_all(&mut self, newest: u64, last: u64) {
        self.change_between(newest, last, |word, numbers| *word |= numbers);
        if last > newest {
            self.set(last);
        }
    }

    /// Clears what stands for the numbers after `newest` and before `sequence`.
    fn clear_between(&mut self, newest: u64, sequence: u64) {
        let words = self.all_mut();
        if (sequence - newest) / 64 >= words.len() as u64 {
            words.fill(0);
            return;
        }
        self.change_between(newest, sequence, |word, numbers| *word &= !numbers);
    }

    /// Calls `change` with each word that stands for numbers after `newest` and before `sequence`, and their bits.
    #[inline]
    fn change_between(&mut self, newest: u64, sequence: u64, change: impl Fn(&mut u64, u64)) {
        let words = self.all_mut();
        let mut from = newest.saturating_add(1);
        while from < sequence {
            let of_next_word = (from | 63).saturating_add(1);
            let end = of_next_word.min(sequence);
            // The bits of `from` up to `end`, of which there are 1 to 64.
            let numbers = u64::MAX >> (64 - (end - from)) << (from % 64);
            if let Some(word) = words.get_mut(place(words, from)) {
                change(word, numbers);
            }
            from = end;
        }
    }
}

/// Without a window a number may lie this far behind the newest before it counts as one of the next 2³² numbers.
const UNCHECKED_SPAN: u32 = 1 << 31;

/// The word that stands for `sequence`.
#[inline]
fn place(words: &[u64], sequence: u64) -> usize {
    // The number of words is a power of two, and what is cut off the number of the word does not reach into the mask.
    (sequence / 64) as usize & (words.len() - 1)
}

#[inline]
fn bit(sequence: u64) -> u64 {
    1 << (sequence % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    impl ReplayWindow {
        fn offer(&mut self, sequence: u64) -> Result<(), DropReason> {
            let admitted = self.admit((sequence & 0xffff_ffff) as u32)?;
            assert_eq!(admitted, sequence, "the high half was inferred wrongly");
            self.commit(Authentic::forged(admitted))
        }
    }

    const ALL_ESN: bool = true;

    #[test]
    fn numbers_in_order_are_marked_together_as_they_are_one_by_one() {
        for (size, start, count) in
            [(64, 0, 70), (128, 60, 5), (0, 7, 3), (1024, 1000, 300), (4096, 63, 1), (64, 64, 0)]
        {
            let [mut together, mut one_by_one] = [0, 1].map(|_| {
                let mut window = ReplayWindow::new(size, ALL_ESN);
                // What stands in the ring from an earlier round.
                window.offer(start.max(1)).unwrap();
                window
            });
            let newest = one_by_one.newest();
            let mut in_order = together.in_order();
            assert!(!in_order.is_next(newest) && !in_order.is_next(newest + 2));
            in_order.take(Authentic::forged(newest + 2));
            for sequence in newest + 1..=newest + count {
                assert!(in_order.is_next(sequence));
                in_order.take(Authentic::forged(sequence));
                one_by_one.offer(sequence).unwrap();
            }
            in_order.commit();
            assert_eq!((together.newest, together.words.all()), (one_by_one.newest, one_by_one.words.all()));
        }
    }

    #[test]
    fn duplicates_and_old_numbers_are_refused() {
        let mut window = ReplayWindow::new(64, !ALL_ESN);
        assert_eq!(window.offer(0), Err(DropReason::ReplayTooOld));
        assert_eq!(window.offer(1), Ok(()));
        assert_eq!(window.offer(1), Err(DropReason::Replay));
        assert_eq!(window.offer(64), Ok(()));
        assert_eq!(window.offer(2), Ok(()));
        assert_eq!(window.offer(65), Ok(()));
        assert_eq!(window.offer(1), Err(DropReason::ReplayTooOld));
        assert_eq!(window.offer(2), Err(DropReason::Replay));
        assert_eq!(window.offer(3), Ok(()));
    }

    #[test]
    fn only_an_authentic_packet_moves_the_window() {
        // R4303-3.4.3-2: looking at a forged number far ahead changes nothing.
        let mut window = ReplayWindow::new(64, !ALL_ESN);
        window.offer(10).unwrap();
        assert_eq!(window.admit(4_000_000_000), Ok(4_000_000_000));
        assert_eq!(window.newest(), 10);
        assert_eq!(window.offer(9), Ok(()));
    }

    #[test]
    fn without_extension_the_numbers_end_at_32_bits() {
        let mut window = ReplayWindow::new(64, !ALL_ESN);
        window.offer(u64::from(u32::MAX)).unwrap();
        assert_eq!(window.admit(1), Err(DropReason::ReplayTooOld));
    }

    #[test]
    fn extended_numbers_cross_the_32_bit_border_both_ways() {
        let mut window = ReplayWindow::new(128, ALL_ESN);
        let border = 1u64 << 32;
        window.newest = border - 3;
        for sequence in [border - 2, border + 1, border - 1, border, border + 2, border - 10] {
            assert_eq!(window.offer(sequence), Ok(()), "{sequence:x}");
            assert_eq!(window.offer(sequence), Err(DropReason::Replay), "{sequence:x}");
        }
    }

    #[test]
    fn a_fresh_extended_window_refuses_numbers_from_before_the_start() {
        let window = ReplayWindow::new(64, ALL_ESN);
        assert_eq!(window.admit(u32::MAX), Err(DropReason::ReplayTooOld));
        assert_eq!(window.admit(1), Ok(1));
        assert_eq!(window.admit(1 << 31), Ok(1 << 31));
    }

    #[test]
    fn extended_numbers_end_at_64_bits() {
        let mut window = ReplayWindow::new(64, ALL_ESN);
        window.newest = u64::MAX - 1;
        assert_eq!(window.offer(u64::MAX), Ok(()));
        assert_eq!(window.admit(0), Err(DropReason::ReplayTooOld));
        assert_eq!(window.admit(5), Err(DropReason::ReplayTooOld));
    }

    #[test]
    fn a_window_of_zero_accepts_everything_but_number_zero() {
        let mut window = ReplayWindow::new(0, !ALL_ESN);
        for sequence in [5, 5, 1, 4_000_000_000, 5] {
            assert_eq!(window.offer(sequence), Ok(()));
        }
        assert_eq!(window.admit(0), Err(DropReason::ReplayTooOld));
        let mut window = ReplayWindow::new(0, ALL_ESN);
        for sequence in [5, u64::from(u32::MAX) / 2 + 1, u64::from(u32::MAX), (1 << 32) + 7, 5 + (1 << 32)] {
            assert_eq!(window.offer(sequence), Ok(()));
        }
    }

    /// R4303-3.4.3-1.
    #[test]
    fn sizes_are_rounded_into_the_allowed_range() {
        for (asked, given) in [(1, 64), (64, 64), (65, 128), (1024, 1024), (65536, 65536), (u32::MAX, 65536), (0, 0)] {
            assert_eq!(ReplayWindow::new(asked, ALL_ESN).size, given);
        }
    }

    /// What RFC 4303 asks for, without any cleverness.
    struct Naive {
        seen: BTreeSet<u64>,
        size: u64,
        newest: u64,
    }

    impl Naive {
        fn offer(&mut self, sequence: u64) -> Result<(), DropReason> {
            if sequence + self.size <= self.newest {
                return Err(DropReason::ReplayTooOld);
            }
            if !self.seen.insert(sequence) {
                return Err(DropReason::Replay);
            }
            self.newest = self.newest.max(sequence);
            Ok(())
        }
    }

    /// The two cases of RFC 4303 appendix A2.1, with the window's edges spelled out: `newest` is T, the number on the wire
    /// Seql, and what is meant is Seqh and Seql in one.
    #[test]
    fn the_high_half_is_found_by_the_tables_of_the_rfc() {
        const HALF: u64 = 1 << 32;
        for size in [64u32, 128, 1024, 65536] {
            let width = u64::from(size);
            // Case A: T is at least W - 1 into its subspace. B is its lowest number at that border, or anywhere above.
            for top in [5 * HALF + width - 1, 5 * HALF + width, 5 * HALF + HALF / 2, 6 * HALF - 1] {
                let mut window = ReplayWindow::new(size, ALL_ESN);
                window.newest = top;
                let bottom = top - width + 1;
                for (low, meant) in [
                    (bottom, Some(bottom)),
                    (top, Some(top)),
                    (top + 1, Some(top + 1)),
                    // Below the window's bottom: the next subspace.
                    (bottom.wrapping_sub(1), (bottom % HALF > 0).then_some(bottom - 1 + HALF)),
                    (5 * HALF, (bottom % HALF > 0).then_some(6 * HALF)),
                ] {
                    let Some(meant) = meant else { continue };
                    assert_eq!(window.admit((low % HALF) as u32), Ok(meant), "A: {size}, {top:x}, {low:x}");
                }
            }
            // Case B: the window reaches back into the subspace before.
            for top in [7 * HALF, 7 * HALF + 1, 7 * HALF + width - 2] {
                let mut window = ReplayWindow::new(size, ALL_ESN);
                window.newest = top;
                let bottom = top - width + 1;
                for (low, meant) in [
                    (bottom, bottom),
                    (7 * HALF - 1, 7 * HALF - 1),
                    (7 * HALF, 7 * HALF),
                    (top, top),
                    (top + 1, top + 1),
                    // Below the window's bottom, which is of the subspace before: the subspace of T, far ahead.
                    (bottom - 1, bottom - 1 + HALF),
                ] {
                    assert_eq!(window.admit((low % HALF) as u32), Ok(meant), "B: {size}, {top:x}, {low:x}");
                }
            }
        }
    }

    /// RFC 4303 §3.4.3 around 2³²: what is seen stays seen, what falls out of the window is too old, with numbers of both
    /// lengths and windows of every size.
    #[test]
    fn windows_of_every_size_cross_the_32_bit_border() {
        for size in [64u32, 128, 192, 1024, 4096, 65536] {
            let width = u64::from(size);
            for extended in [ALL_ESN, !ALL_ESN] {
                let last = if extended { (1 << 32) + width / 2 } else { u64::from(u32::MAX) };
                let mut window = ReplayWindow::new(size, extended);
                window.newest = last - 2 * width;
                // Every other number, and at the end some of those that were left out.
                for sequence in (last - 2 * width + 2..=last).step_by(2) {
                    assert_eq!(window.offer(sequence), Ok(()), "{size} {sequence:x}");
                }
                let newest = window.newest();
                let bottom = newest - width + 1;
                for sequence in bottom..=newest {
                    let was_seen = (newest - sequence).is_multiple_of(2);
                    let expected = if was_seen { Err(DropReason::Replay) } else { Ok(()) };
                    assert_eq!(window.offer(sequence), expected, "{size} {sequence:x}");
                    assert_eq!(window.offer(sequence), Err(DropReason::Replay), "{size} {sequence:x}");
                }
                let below = window.admit(((bottom - 1) & 0xffff_ffff) as u32);
                if extended {
                    // On the wire it looks like a number of the next subspace, which its ICV will not bear out.
                    assert_eq!(below, Ok(bottom - 1 + (1 << 32)));
                } else {
                    assert_eq!(below, Err(DropReason::ReplayTooOld));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_ring_agrees_with_a_naive_model(
            size in prop_oneof![Just(64u32), Just(128), Just(192), Just(1024), Just(4096)],
            start in prop_oneof![Just(1u64 << 20), Just((1 << 32) - 200), Just(7 << 32)],
            steps in proptest::collection::vec(prop_oneof![8 => -200i64..200, 1 => -5000i64..20000, 1 => Just(64), 1 => Just(0)], 1..400),
        ) {
            let mut window = ReplayWindow::new(size, ALL_ESN);
            window.newest = start;
            let mut naive = Naive { seen: BTreeSet::new(), size: u64::from(size), newest: start };
            for step in steps {
                let sequence = naive.newest.saturating_add_signed(step);
                let expected = naive.offer(sequence);
                // What is too old on a 64-bit scale may be taken for one of the next 2³² numbers: the ICV refuses that.
                let found = window.admit((sequence & 0xffff_ffff) as u32);
                match expected {
                    Err(DropReason::ReplayTooOld) => prop_assert_ne!(found, Ok(sequence)),
                    expected => {
                        prop_assert_eq!(found.map(drop), expected);
                        if let Ok(admitted) = found {
                            prop_assert_eq!(admitted, sequence);
                            prop_assert_eq!(window.commit(Authentic::forged(admitted)), Ok(()));
                        }
                    }
                }
                prop_assert_eq!(window.newest(), naive.newest);
            }
        }
    }
}
