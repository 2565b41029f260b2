//! Packets of one SA that are written one behind the other: the segments of a super-packet, about which nothing has to be decided
//! one by one. It gives the same results as wrapping each by itself, which takes what is left.

use std::time::Instant;

use super::envelope::Envelope;
use super::inside::Content;
use super::{Filling, trailer};
use crate::batch::{Free, OutboundFrame, PackedOuter, Surroundings};
use crate::sa::Admitting;
use crate::{Run, SuperPacket};

/// How packets of one SA are wrapped in tunnel mode.
#[derive(Clone, Copy, Debug)]
struct Wrapping {
    around: Surroundings,
    outer: PackedOuter,
    next_header: u8,
    sa: u32,
    spi: u32,
}

/// Packets that were added.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    packets: usize,
    /// Octets of the batch's memory.
    octets: usize,
    /// Octets as they came from the inside.
    inside: u64,
}

impl Filling<'_> {
    /// Adds packets of `content`, none of which is longer than the first, as long as they go this way and there is room.
    pub(super) fn protect_together(
        &mut self,
        packet: &mut SuperPacket<'_>,
        content: &impl Content,
        place: u32,
        envelope: &Envelope,
    ) {
        let count = content.count().saturating_sub(packet.taken);
        // One is not worth it.
        if count < 2 {
            return;
        }
        let Some(interface) = self.dataplane.interfaces.get_mut(packet.interface) else { return };
        let Some(sa) = self.dataplane.outbound.get_mut(place) else { return };
        let Some(around) = sa.surroundings(interface.kind).filter(|_| envelope.is_around_whole()) else { return };
        let spi = sa.core.spi.value();
        let wrapping =
            Wrapping { around, outer: envelope.outer.into(), next_header: envelope.next_header(), sa: place, spi };
        let longest = content.len(packet.taken);
        if wrapping.len(longest) > Run::OCTETS {
            return;
        }
        let free = self.batch.free();
        let count = count.min(free.frames.len()).min(free.memory.len() / wrapping.len(longest));
        let Some(admitting) = sa.admit_many(count, count * longest) else { return };
        let added = wrapping.add_all(content, packet.taken..packet.taken + count, free, admitting, self.now);
        self.batch.add_together(added.packets, added.octets);
        interface.counters.packets_out += added.packets as u64;
        interface.counters.bytes_out += added.inside;
        packet.taken += added.packets;
    }
}

impl Wrapping {
    /// Octets of the ESP packet around one of `len` octets.
    #[inline]
    fn len(&self, len: usize) -> usize {
        self.around.header_len() + len + self.around.tail_len(len)
    }

    /// Writes packets up to the first one that cannot be written.
    fn add_all(
        &self,
        content: &impl Content,
        packets: std::ops::Range<usize>,
        free: Free<'_>,
        mut admitting: Admitting<'_>,
        now: Instant,
    ) -> Added {
        let mut added = Added::default();
        for (index, frame) in packets.zip(free.frames) {
            let inner_len = content.len(index);
            let octets = free.memory.get_mut(added.octets..).and_then(|rest| rest.get_mut(..self.len(inner_len)));
            let written = octets.and_then(|octets| self.write(content, index, inner_len, octets, &mut admitting));
            let Some(sequence) = written else { break };
            *frame = OutboundFrame {
                sequence,
                outer: self.outer,
                sa: self.sa,
                // No batch has so many octets, no run so long a packet.
                offset: (free.offset + added.octets) as u32,
                len: self.len(inner_len) as u16,
                own_header: 0,
                is_whole: false,
                is_sealed: false,
            };
            added.packets += 1;
            added.octets += self.len(inner_len);
            added.inside += content.inside_len(index) as u64;
        }
        admitting.finish(now);
        added
    }

    /// Writes everything but IV and ICV of one packet, and returns its sequence number. A packet that cannot be written takes none.
    #[inline]
    fn write(
        &self,
        content: &impl Content,
        index: usize,
        inner_len: usize,
        octets: &mut [u8],
        admitting: &mut Admitting<'_>,
    ) -> Option<u64> {
        let (header, rest) = octets.split_at_mut_checked(self.around.header_len())?;
        let (inner, behind) = rest.split_at_mut_checked(inner_len)?;
        content.write(index, 0, inner).ok()?;
        trailer::write(behind, self.around.padding(inner_len), self.next_header);
        let header = header.first_chunk_mut()?;
        let sequence = admitting.admit(inner_len);
        *header = (u64::from(self.spi) << 32 | sequence & u64::from(u32::MAX)).to_be_bytes();
        Some(sequence)
    }
}
