//! Packets in the memory of a batch, taken apart for a kernel.

use std::ops::Range;

use super::{HEADER_LEN, ICV_LEN, Job, Key, LONGEST, Refused};
use crate::vector::Block;

/// A packet, taken apart.
pub(super) struct Packet<'p> {
    pub(super) head: Head,
    /// Header and payload, [`HEADER_LEN`] octets at least.
    pub(super) body: &'p mut [u8],
    pub(super) icv: &'p mut Block,
}

/// What a kernel computes from a packet's header. Numbers are those that the octets make in network byte order.
pub(super) struct Head {
    /// Salt, IV, and 1: what the ICV is encrypted with. The payload has the counters that follow.
    pub(super) counter: u128,
    /// What is covered without being encrypted, with zeros behind.
    pub(super) covered: u128,
    /// Bits of that.
    pub(super) covered_bits: u64,
    /// The IV.
    pub(super) iv: u64,
}

impl<'p> Packet<'p> {
    /// Finds the packet of a job. Without `iv`, the IV is what stands in the packet.
    ///
    /// # Errors
    /// [`Refused::Span`].
    #[inline]
    pub(super) fn of(memory: &'p mut [u8], job: &Job<'_>, iv: Option<u64>) -> Result<Self, Refused> {
        let Range { start, end } = job.span;
        let octets = memory.get_mut(start..end).filter(|octets| octets.len() <= LONGEST).ok_or(Refused::Span)?;
        let (body, icv) = octets.split_last_chunk_mut::<ICV_LEN>().ok_or(Refused::Span)?;
        let header = body.first_chunk::<HEADER_LEN>().ok_or(Refused::Span)?;
        let head = Head::new(job.key, u128::from_be_bytes(*header), job.high, iv);
        Ok(Self { head, body, icv })
    }
}

impl Head {
    #[inline]
    fn new(key: &Key, header: u128, high: Option<u32>, iv: Option<u64>) -> Self {
        let (spi, sequence, in_packet) = ((header >> 96) as u32, (header >> 64) as u32, header as u64);
        let iv = iv.unwrap_or(in_packet);
        let spi = u128::from(spi) << 96;
        let (covered, covered_bits) = match high {
            None => (spi | u128::from(sequence) << 64, 64),
            Some(high) => (spi | u128::from(high) << 64 | u128::from(sequence) << 32, 96),
        };
        Self { counter: u128::from(key.salt()) << 96 | u128::from(iv) << 32 | 1, covered, covered_bits, iv }
    }
}
