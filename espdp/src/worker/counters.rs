//! What gets lost between the kernel and the core.

use espdp_api::DropCount;

/// Why something was lost outside of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A packet was too long even for fragments.
    SendTooBig,
    /// The socket or the device behind it had no room.
    SendFull,
    /// The kernel refused to send, for example for lack of a route.
    SendFailed,
    /// No socket of the packet's family.
    NoPort,
    /// A receive failed.
    ReceiveFailed,
    /// A TUN device took no packet, or gave none.
    Device,
    /// The daemon was too slow for an event or an IKE datagram.
    QueueFull,
    /// Another worker was too slow for a packet of its SA, or the SA moved while the packet was on its way.
    HandOver,
}

/// One counter for each [`Loss`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses([u64; 8]);

impl Losses {
    const NAMES: [&'static str; 8] =
        ["send_too_big", "send_full", "send_failed", "no_port", "receive_failed", "device", "queue_full", "hand_over"];

    /// Counts `packets` lost.
    pub(crate) fn count(&mut self, loss: Loss, packets: usize) {
        if let Some(counter) = self.0.get_mut(loss as usize) {
            *counter = counter.saturating_add(packets as u64);
        }
    }

    /// The losses that occurred.
    pub(crate) fn report(&self) -> impl Iterator<Item = DropCount> {
        let counted = Self::NAMES.iter().zip(self.0).filter(|(_, packets)| *packets > 0);
        counted.map(|(reason, packets)| DropCount { reason: (*reason).to_owned(), packets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_losses_that_occurred_are_reported() {
        let mut losses = Losses::default();
        losses.count(Loss::QueueFull, 2);
        losses.count(Loss::SendTooBig, 1);
        let report: Vec<_> = losses.report().map(|count| (count.reason, count.packets)).collect();
        assert_eq!(report, [("send_too_big".to_owned(), 1), ("queue_full".to_owned(), 2)]);
    }
}
