//! Buffers for many packets, allocated once and used again and again.

mod inbound;
mod outbound;

pub(crate) use inbound::{Chunk, InboundFrame, Stage, Write};
pub use inbound::{Delivery, InboundBatch, Opened, Origin};
pub(crate) use outbound::OutboundFrame;
pub use outbound::{ClearPacket, Exit, OutboundBatch, OuterHeader, Reply, Run, Sealed};

/// Octets `offset..offset + len` of a batch's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Span {
    /// The octets; empty when the span lies outside, which no span of the batch's own does.
    pub(crate) fn of(self, memory: &[u8]) -> &[u8] {
        memory.get(self.offset..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }

    /// As [`Self::of`], to be written.
    pub(crate) fn of_mut(self, memory: &mut [u8]) -> &mut [u8] {
        memory.get_mut(self.offset..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }
}
