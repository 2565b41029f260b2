//! The datagrams of one message.

use espdp_api::IkePath;

use super::context::Context;

/// A message as it goes on the wire: one datagram, or several if it is fragmented. They are kept as they are, so that
/// all that is sent again is the same as before (R7296-2.1-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packets(Vec<Vec<u8>>);

impl Packets {
    /// A message that is not fragmented.
    pub(super) fn whole(message: Vec<u8>) -> Self {
        Self(vec![message])
    }

    /// A message in fragments.
    pub(super) fn fragments(fragments: Vec<Vec<u8>>) -> Self {
        Self(fragments)
    }

    /// Octets of all datagrams.
    pub(super) fn octets(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Octets of the longest datagram.
    pub(super) fn longest(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or_default()
    }

    /// Sends all of them.
    pub(super) fn transmit(self, cx: &mut Context, path: IkePath) {
        for packet in self.0 {
            cx.transmit(path, packet);
        }
    }

    /// The one datagram of a message that is not fragmented.
    #[cfg(test)]
    pub(super) fn only(mut self) -> Vec<u8> {
        assert_eq!(self.0.len(), 1, "the message is in fragments");
        self.0.remove(0)
    }
}
