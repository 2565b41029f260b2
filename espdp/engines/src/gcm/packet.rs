//! Packets in the memory of a batch, and what a kernel computes from their headers.

use std::ops::Range;

use super::{HEADER_LEN, ICV_LEN, Job, LONGEST, Refused};

impl Job<'_> {
    /// The packet: header, payload and ICV, 32 octets at least.
    ///
    /// # Errors
    /// [`Refused::Span`].
    #[inline]
    pub(super) fn packet<'m>(&self, memory: &'m mut [u8]) -> Result<&'m mut [u8], Refused> {
        let Range { start, end } = self.span;
        let packet = memory.get_mut(start..end).filter(|packet| packet.len() <= LONGEST);
        packet.filter(|packet| packet.len() >= HEADER_LEN + ICV_LEN).ok_or(Refused::Span)
    }
}

/// What a kernel needs of a packet's header. To be made where it is used: what is stored in halves and loaded as a whole makes the
/// processor wait.
pub(super) struct Head {
    /// What is covered without being encrypted, with zeros behind: the numbers that the first and the last eight octets make in
    /// network byte order.
    pub(super) covered: (u64, u64),
    /// Bits of that.
    pub(super) covered_bits: u64,
    /// The IV as it lies in memory, the first octet lowest.
    pub(super) iv: u64,
}

impl Head {
    /// Of a packet of 16 octets at least. Without `iv`, the IV is what stands in it.
    #[inline]
    pub(super) fn new(packet: &[u8], high: Option<u32>, iv: Option<u64>) -> Self {
        let octets = |at: usize| packet.get(at..).and_then(|octets| octets.first_chunk()).copied().unwrap_or_default();
        let first = u64::from_be_bytes(octets(0));
        let iv = iv.map_or_else(|| u64::from_le_bytes(octets(8)), u64::to_be);
        let (covered, covered_bits) = match high {
            None => ((first, 0), 64),
            Some(high) => ((first & !LOW_HALF | u64::from(high), first << 32), 96),
        };
        Self { covered, covered_bits, iv }
    }
}

const LOW_HALF: u64 = 0xffff_ffff;
