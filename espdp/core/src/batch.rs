//! Buffers for many packets, allocated once and used again and again.

mod arrivals;
mod inbound;
mod outbound;
mod outer;

pub use arrivals::Elsewhere;
pub(crate) use arrivals::{Arrival, Surroundings};
pub(crate) use inbound::{Chunk, InboundFrame, Stage, Write};
pub use inbound::{Delivery, InboundBatch, Opened, Origin};
pub use outbound::{ClearPacket, Exit, OutboundBatch, Reply, Run, Sealed};
pub(crate) use outbound::{Free, OutboundFrame};
pub use outer::OuterHeader;
pub(crate) use outer::PackedOuter;

/// Octets `offset..offset + len` of a batch's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Span {
    /// The numbers of the octets.
    #[inline]
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// The octets; empty when the span lies outside, which no span of the batch's own does.
    #[inline]
    pub(crate) fn of(self, memory: &[u8]) -> &[u8] {
        memory.get(self.offset..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }

    /// As [`Self::of`], to be written.
    #[inline]
    pub(crate) fn of_mut(self, memory: &mut [u8]) -> &mut [u8] {
        memory.get_mut(self.offset..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }
}

/// A [`Span`] in half the room, for what there is one of per packet: a batch's memory is far shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortSpan {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl ShortSpan {
    /// See [`Span::of`].
    #[inline]
    pub(crate) fn of(self, memory: &[u8]) -> &[u8] {
        self.long().of(memory)
    }

    /// See [`Span::of_mut`].
    #[inline]
    pub(crate) fn of_mut(self, memory: &mut [u8]) -> &mut [u8] {
        self.long().of_mut(memory)
    }

    /// The same octets.
    #[inline]
    pub(crate) fn long(self) -> Span {
        Span { offset: self.offset as usize, len: self.len as usize }
    }
}

impl From<Span> for ShortSpan {
    #[inline]
    fn from(span: Span) -> Self {
        // What a batch does not have is outside of its memory then, too.
        let short = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        Self { offset: short(span.offset), len: short(span.len) }
    }
}
