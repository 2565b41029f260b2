//! From ESP packets, and packets of tunnels in clear, to what is inside.

mod general;
mod in_order;
mod plain;
mod wrapped;

use std::time::Instant;

use espdp_api::{Event, IpsecProtocol};

pub(crate) use self::plain::LastFlow;
use crate::batch::{Chunk, InboundFrame, Span, Stage};
use crate::coalesce::coalesce;
use crate::crypto::{Authentic, open_batch};
use crate::events::EventQueue;
use crate::interfaces::{InterfaceCounters, InterfaceTable};
use crate::policy::PolicyTable;
use crate::sa::{InboundSa, OutboundTable, Peer};
use crate::{Dataplane, DropReason, InboundBatch, InterfaceId, Offloads, Opened, Origin, ah};

impl Dataplane {
    /// Opens everything in `batch`, in three passes over all packets: SA and replay check, decryption, everything after.
    /// What `offloads` allow is coalesced.
    pub fn open<'a>(&mut self, now: Instant, offloads: Offloads, batch: &'a mut InboundBatch) -> Opened<'a> {
        let mut chunk = batch.chunk();
        self.drops.absorb(chunk.drops);
        chunk.writes.clear();
        chunk.pieces.clear();
        self.admit_all(now, &mut chunk);
        let is_watched = self.is_watched();
        if is_watched {
            self.follow_admitted(now, chunk.memory, chunk.origins, chunk.frames);
            self.capture_admitted(now, chunk.memory, chunk.origins, chunk.frames);
        }
        let sas = &self.inbound;
        open_batch(chunk.frames, chunk.memory, |place| sas.get(place).map(|sa| &sa.core.transform));
        if is_watched {
            self.follow_opened(chunk.memory, chunk.frames);
            self.capture_opened(now, chunk.memory, chunk.frames);
        }
        self.accept_all(now, &mut chunk);
        if is_watched {
            self.follow_delivered(chunk.memory, chunk.frames);
            self.capture_delivered(now, chunk.memory, chunk.frames);
        }
        coalesce(&mut chunk, offloads);
        batch.opened()
    }

    /// The first pass; like the others a function of its own, so that profiles tell them apart.
    #[inline(never)]
    fn admit_all(&mut self, now: Instant, chunk: &mut Chunk<'_>) {
        let mut place = 0;
        while place < chunk.frames.len() {
            place = self.admit_usual(chunk, place);
            if let Some(frame) = chunk.frames.get_mut(place) {
                self.admit(now, chunk.memory, chunk.origins, frame);
                place += 1;
            }
        }
    }

    /// Does as [`Self::admit`] does for ESP packets from `place` on whose SPIs are ours, and says where the first other one stands.
    #[inline]
    fn admit_usual(&self, chunk: &mut Chunk<'_>, mut place: usize) -> usize {
        // The SA of the packet before, which most packets share, and its SPI.
        let mut known: Option<(u32, (u32, &InboundSa))> = None;
        loop {
            if let Some(ahead) = chunk.frames.get(place + AHEAD)
                && let Some((spi, _)) = spi_and_sequence(IpsecProtocol::Esp, ahead.span.of(chunk.memory))
                && known.is_none_or(|(known, _)| known != spi)
            {
                self.inbound.prefetch(spi);
            }
            let Some(frame @ InboundFrame { stage: Stage::Received, protocol: IpsecProtocol::Esp, .. }) =
                chunk.frames.get_mut(place)
            else {
                return place;
            };
            let packet = frame.span.of(chunk.memory);
            let Some((spi, sequence)) = spi_and_sequence(IpsecProtocol::Esp, packet) else { return place };
            let (number, sa) = match known {
                Some((known, found)) if known == spi => found,
                Some(_) | None => {
                    let Some(found) = self.inbound.find_own(spi, IpsecProtocol::Esp) else { return place };
                    known = Some((spi, found));
                    found
                }
            };
            frame.sa = number;
            frame.stage = admitted(sa, sa.framing().allows(packet.len()), sequence);
            place += 1;
        }
    }

    /// Finds the SA, and the sequence number that the packet claims. How the packet came, in UDP or not, does not matter
    /// (R7296-2.23-3).
    #[inline]
    fn admit(&mut self, now: Instant, memory: &[u8], origins: &[Origin], frame: &mut InboundFrame) {
        if !matches!(frame.stage, Stage::Received) {
            // In clear, or opened before and the batch not cleared since.
            if !matches!(frame.stage, Stage::InClear { .. }) {
                frame.stage = Stage::Dropped;
            }
            return;
        }
        let (protocol, packet) = (frame.protocol, frame.span.of(memory));
        let Some((spi, sequence)) = spi_and_sequence(protocol, packet) else {
            frame.stage = Stage::Dropped;
            self.drops.count(DropReason::Short);
            return;
        };
        let Some((place, sa)) = self.inbound.find(spi, protocol) else {
            frame.stage = Stage::Dropped;
            self.note_unknown(now, spi, origins.get(usize::from(frame.origin)));
            return;
        };
        frame.sa = place;
        let is_long_enough = match protocol {
            IpsecProtocol::Esp => sa.framing().allows(packet.len()),
            IpsecProtocol::Ah => {
                ah::Place::find(packet).is_some_and(|place| place.allows(packet, sa.core.layout.icv_len))
            }
        };
        frame.stage = admitted(sa, is_long_enough, sequence);
    }

    /// R4303-3.4.2-1: dropped, and worth a record.
    #[cold]
    fn note_unknown(&mut self, now: Instant, spi: u32, origin: Option<&Origin>) {
        self.drops.count(DropReason::UnknownSpi);
        if let Some(origin) = origin
            && self.unknown_spi.allows(now)
        {
            self.events.push(Event::UnknownSpi { path: origin.path, spi });
        }
    }

    /// Says what becomes of every packet that was opened, refused, or in clear.
    #[inline(never)]
    fn accept_all(&mut self, now: Instant, chunk: &mut Chunk<'_>) {
        let mut counting = Counting::default();
        let mut start = 0;
        while let Some(first) = chunk.frames.get(start) {
            let is_opened = matches!(first.stage, Stage::Opened(_));
            self.prefetch_for_acceptance(chunk.frames, start);
            let end = if is_opened {
                self.accept_run(now, start, chunk, &mut counting)
            } else {
                self.accept_other(start, chunk);
                start + 1
            };
            // In the middle of a run nothing is new.
            for place in (start + 1).max(end.saturating_sub(AHEAD))..end {
                self.prefetch_for_acceptance(chunk.frames, place);
            }
            start = end;
        }
        counting.finish(&mut self.interfaces);
    }

    /// Takes authentic packets from `start` on that are of one SA and from one place, at least one, and says where they end. What
    /// need not be looked at for each of them is looked at once.
    #[inline]
    fn accept_run(&mut self, now: Instant, start: usize, chunk: &mut Chunk<'_>, counting: &mut Counting) -> usize {
        let frames = chunk.frames.get_mut(start..).unwrap_or_default();
        let Some(first) = frames.first_mut() else { return start + 1 };
        let (of, from) = (first.sa, first.origin);
        let (Some(sa), Some(origin)) = (self.inbound.get_mut(of), chunk.origins.get(usize::from(from))) else {
            first.stage = Stage::Dropped;
            return start + 1;
        };
        let mut end = start;
        let run = Run::new(origin, sa, &self.interfaces);
        counting.enter(run.interface, &mut self.interfaces);
        // Only authentic packets show that the peer uses the SA.
        if sa.core.usage.touch(now) {
            self.events.push(Event::FirstPacket { spi: sa.core.spi, policy: sa.core.policy });
        }
        let mut accepting = Accepting {
            sa,
            origin,
            now,
            interfaces: &mut self.interfaces,
            policies: &mut self.policies,
            outbound: &self.outbound,
            events: &mut self.events,
        };
        let is_of_run = |frame: &InboundFrame| (frame.sa, frame.origin) == (of, from);
        let mut left = frames;
        loop {
            // For one alone it is not worth it.
            if left.get(1).is_some_and(is_of_run) {
                let taken = accepting.accept_in_order(left, chunk.memory, &run, is_of_run);
                counting.count(taken.packets, taken.octets);
                end += taken.packets;
                left = left.get_mut(taken.packets..).unwrap_or_default();
            }
            let Some((frame, rest)) = left.split_first_mut().filter(|(frame, _)| is_of_run(frame)) else { break };
            if !matches!(frame.stage, Stage::Opened(_)) {
                break;
            }
            let Stage::Opened(proof) = std::mem::replace(&mut frame.stage, Stage::Dropped) else { break };
            let place = end;
            end += 1;
            left = rest;
            let memory = Memory { octets: chunk.memory, used: chunk.used };
            match accepting.accept(proof, frame, memory, &run) {
                Ok((span, to)) => {
                    counting.count(1, span.len as u64);
                    (frame.span, frame.stage) = (span.into(), Stage::Delivered(to));
                }
                Err(reason) => {
                    accepting.sa.core.drops.count(reason);
                    self.tracer.end_dropped(place, reason);
                    self.capturer.end_dropped(place, reason);
                }
            }
        }
        end
    }

    /// What is not authentic.
    #[cold]
    fn accept_other(&mut self, place: usize, chunk: &mut Chunk<'_>) {
        let Some(frame) = chunk.frames.get_mut(place) else { return };
        let reason = match std::mem::replace(&mut frame.stage, Stage::Dropped) {
            Stage::InClear { protocol } => {
                let Some(origin) = chunk.origins.get(usize::from(frame.origin)) else { return };
                match self.accept_clear(protocol, origin, frame.span.long(), chunk.memory) {
                    Ok((span, to)) => {
                        (frame.span, frame.stage) = (span.into(), Stage::Delivered(to));
                        return;
                    }
                    Err(reason) => {
                        self.drops.count(reason);
                        reason
                    }
                }
            }
            Stage::Refused(reason) => {
                if let Some(sa) = self.inbound.get_mut(frame.sa) {
                    sa.core.drops.count(reason);
                }
                reason
            }
            Stage::Received | Stage::Admitted { .. } | Stage::Opened(_) | Stage::Delivered(_) | Stage::Dropped => {
                return;
            }
        };
        self.tracer.end_dropped(place, reason);
        self.capturer.end_dropped(place, reason);
    }

    /// Has the SA fetched of a packet that is due soon, unless it is that of the one before.
    #[inline]
    fn prefetch_for_acceptance(&self, frames: &[InboundFrame], place: usize) {
        if let Some([before, frame]) = frames.get(place + AHEAD - 1..).and_then(<[_]>::first_chunk)
            && before.sa != frame.sa
            && let Some(sa) = self.inbound.get(frame.sa)
        {
            sa.prefetch_for_acceptance();
        }
    }
}

/// So many packets ahead an SA is fetched: enough for the slowest cache.
const AHEAD: usize = 8;

/// What the length of an SA's packet and the number on it lead to.
#[inline]
fn admitted(sa: &InboundSa, is_long_enough: bool, sequence: u32) -> Stage {
    if !is_long_enough {
        return Stage::Refused(DropReason::Short);
    }
    sa.window.admit(sequence).map_or_else(Stage::Refused, |sequence| Stage::Admitted { sequence })
}

/// What is the same for packets of one SA and from one place that come one after the other.
#[derive(Debug)]
struct Run {
    /// Where their interface's counters are.
    interface: InterfaceId,
    /// The interface if plain packets may go the short way.
    plain: Option<InterfaceId>,
    /// Whether the peer is elsewhere than its SA says.
    has_moved: bool,
}

impl Run {
    #[inline]
    fn new(origin: &Origin, sa: &InboundSa, interfaces: &InterfaceTable) -> Self {
        let interface = sa.plain.unwrap_or(sa.core.interface);
        let has_tunnel = interfaces.get(interface).is_none_or(|interface| interface.tunnel.is_some());
        let has_moved = Peer::of(&origin.path) != *sa.peer();
        Self { interface, plain: sa.plain.filter(|_| !has_tunnel), has_moved }
    }
}

/// What is to be added to the counters of an interface, whose packets most often come one after the other.
#[derive(Debug, Default)]
struct Counting {
    interface: Option<InterfaceId>,
    counters: InterfaceCounters,
}

impl Counting {
    #[inline]
    fn enter(&mut self, interface: InterfaceId, interfaces: &mut InterfaceTable) {
        if self.interface != Some(interface) {
            self.finish(interfaces);
            self.interface = Some(interface);
        }
    }

    #[inline]
    fn count(&mut self, packets: usize, octets: u64) {
        self.counters.packets_in += packets as u64;
        self.counters.bytes_in += octets;
    }

    fn finish(&mut self, interfaces: &mut InterfaceTable) {
        let counters = std::mem::take(&mut self.counters);
        if let Some(interface) = self.interface.and_then(|id| interfaces.get_mut(id)) {
            interface.counters.packets_in += counters.packets_in;
            interface.counters.bytes_in += counters.bytes_in;
        }
    }
}

/// The memory of a batch, of which `used` octets are taken.
struct Memory<'a> {
    octets: &'a mut [u8],
    used: &'a mut usize,
}

/// Where what was inside goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An IP packet, which may be joined with others.
    Packet(InterfaceId),
    /// An Ethernet frame.
    Frame(InterfaceId),
}

/// What one authentic packet is judged with.
struct Accepting<'a> {
    sa: &'a mut InboundSa,
    origin: &'a Origin,
    now: Instant,
    interfaces: &'a mut InterfaceTable,
    policies: &'a mut PolicyTable,
    outbound: &'a OutboundTable,
    events: &'a mut EventQueue,
}

impl Accepting<'_> {
    /// Takes an authentic packet apart and says where its inner packet stands and where it goes.
    #[inline]
    fn accept(
        &mut self,
        proof: Authentic,
        frame: &InboundFrame,
        memory: Memory<'_>,
        run: &Run,
    ) -> Result<(Span, Place), DropReason> {
        let is_newest = proof.sequence() > self.sa.window.newest();
        self.sa.window.commit(proof)?;
        // A packet that was overtaken says where the peer was, not where it is.
        if is_newest && run.has_moved {
            self.note_move();
        }
        if let Some(interface) = run.plain
            && let Some(judged) = self.accept_plain(frame.span.long(), memory.octets)
        {
            return judged.map(|inner| (inner, Place::Packet(interface)));
        }
        self.accept_any(frame, memory)
    }

    #[cold]
    fn note_move(&mut self) {
        let (spi, policy) = (self.sa.core.spi, self.sa.core.policy);
        if self.sa.moved.allows(self.now) {
            self.events.push(Event::PeerMoved { spi, policy, path: self.origin.path });
        }
    }
}

/// What a packet says of itself: its SPI and the low half of its sequence number.
#[inline]
pub(crate) fn spi_and_sequence(protocol: IpsecProtocol, packet: &[u8]) -> Option<(u32, u32)> {
    match protocol {
        IpsecProtocol::Esp => {
            let &[s0, s1, s2, s3, n0, n1, n2, n3] = packet.first_chunk()?;
            Some((u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3])))
        }
        IpsecProtocol::Ah => ah::Place::find(packet)?.spi_and_sequence(packet),
    }
}

#[cfg(test)]
mod tests;
