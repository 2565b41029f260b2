//! Dummy packets (RFC 4303 §2.6): they hide that there is nothing to say.

use std::time::Instant;

use super::envelope::Envelope;
use super::{Filling, Progress};
use crate::Dataplane;

impl Dataplane {
    /// Whether any SA sends dummy packets.
    #[must_use]
    pub fn sends_dummies(&self) -> bool {
        !self.dummy_senders.is_empty()
    }
}

impl Filling<'_> {
    /// Adds a dummy packet for each SA that has been silent for as long as it may, and says when to look again; `None` when no SA
    /// sends any. Whoever receives one drops it (R4303-2.6-1), but on the way it looks like any other.
    pub fn push_dummies(&mut self) -> Option<Instant> {
        let senders = std::mem::take(&mut self.dataplane.dummy_senders);
        let next = senders.iter().filter_map(|place| self.push_dummy(*place)).min();
        self.dataplane.dummy_senders = senders;
        next
    }

    /// When the SA at `place` may have been silent for too long.
    fn push_dummy(&mut self, place: u32) -> Option<Instant> {
        let sa = self.dataplane.outbound.get(place)?;
        let (idle, longest) = sa.silence(self.now)?;
        let left = longest.saturating_sub(idle.unwrap_or(longest));
        if !left.is_zero() {
            return self.now.checked_add(left);
        }
        let is_active = self.dataplane.policies.get(sa.core.policy).is_some_and(|policy| policy.active == Some(place));
        if is_active {
            let envelope = Envelope::of_dummy(sa);
            let len = DUMMY_LEN.min(envelope.most());
            let write = |_, out: &mut [u8]| {
                out.fill(0);
                Ok(())
            };
            match self.seal_in(place, &envelope, len, write) {
                // The others have their turn when there is room again.
                Ok(Progress::BatchFull) => return Some(self.now),
                Ok(Progress::Done | Progress::Elsewhere(_)) => {}
                Err(refused) => self.count(refused),
            }
        }
        self.now.checked_add(longest)
    }
}

/// Octets of a dummy packet that is not filled up: no less than any packet that ends a TCP connection.
const DUMMY_LEN: usize = 64;
