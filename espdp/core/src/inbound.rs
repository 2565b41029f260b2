//! From ESP packets, and packets of tunnels in clear, to what is inside.

mod general;
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
        if self.tracer.is_armed() {
            self.follow_admitted(now, chunk.memory, chunk.origins, chunk.frames);
        }
        let sas = &self.inbound;
        open_batch(chunk.frames, chunk.memory, |place| sas.get(place).map(|sa| &sa.core.transform));
        if self.tracer.is_armed() {
            self.follow_opened(chunk.memory, chunk.frames);
        }
        self.accept_all(now, &mut chunk);
        if self.tracer.is_armed() {
            self.follow_delivered(chunk.memory, chunk.frames);
        }
        coalesce(&mut chunk, offloads);
        batch.opened()
    }

    /// The first pass; like the others a function of its own, so that profiles tell them apart.
    #[inline(never)]
    fn admit_all(&mut self, now: Instant, chunk: &mut Chunk<'_>) {
        for place in 0..chunk.frames.len() {
            if let Some(ahead) = chunk.frames.get(place + AHEAD)
                && let Some((spi, _)) = spi_and_sequence(IpsecProtocol::Esp, ahead.span.of(chunk.memory))
            {
                self.inbound.prefetch(spi);
            }
            if let Some(frame) = chunk.frames.get_mut(place) {
                self.admit(now, chunk.memory, chunk.origins, frame);
            }
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
        frame.stage = if is_long_enough {
            let admitted = sa.window.admit(sequence);
            admitted.map_or_else(Stage::Refused, |sequence| Stage::Admitted { sequence })
        } else {
            Stage::Refused(DropReason::Short)
        };
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
        let mut run = Run::default();
        for place in 0..chunk.frames.len() {
            self.prefetch_for_acceptance(chunk.frames, place);
            let Some(frame) = chunk.frames.get_mut(place) else { continue };
            let stage = std::mem::replace(&mut frame.stage, Stage::Dropped);
            let Stage::Opened(proof) = stage else {
                self.accept_other(place, stage, chunk);
                continue;
            };
            let origin = chunk.origins.get(usize::from(frame.origin));
            let (Some(sa), Some(origin)) = (self.inbound.get_mut(frame.sa), origin) else { continue };
            run.enter(frame, origin, sa, &mut self.interfaces, &mut self.events, now);
            let mut accepting = Accepting {
                sa,
                origin,
                now,
                interfaces: &mut self.interfaces,
                policies: &mut self.policies,
                outbound: &self.outbound,
                events: &mut self.events,
            };
            let memory = Memory { octets: chunk.memory, used: chunk.used };
            match accepting.accept(proof, frame, memory, &run) {
                Ok((span, to)) => {
                    run.count(span.len);
                    (frame.span, frame.stage) = (span.into(), Stage::Delivered(to));
                }
                Err(reason) => {
                    accepting.sa.core.drops.count(reason);
                    self.follow_dropped(place, reason);
                }
            }
        }
        run.leave(&mut self.interfaces);
    }

    /// What is not authentic.
    #[cold]
    fn accept_other(&mut self, place: usize, stage: Stage, chunk: &mut Chunk<'_>) {
        let Some(frame) = chunk.frames.get_mut(place) else { return };
        let reason = match stage {
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
        self.follow_dropped(place, reason);
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

/// Packets of one SA and from one place that come one after the other: what need not be looked at for each of them.
#[derive(Debug, Default)]
struct Run {
    /// Whose packets they are, and where they came from.
    of: Option<(u32, u16)>,
    /// Where their interface's counters are, and what is to be added to them.
    interface: Option<InterfaceId>,
    counters: InterfaceCounters,
    /// The interface if plain packets may go the short way.
    plain: Option<InterfaceId>,
    /// Whether the peer is elsewhere than its SA says.
    has_moved: bool,
}

impl Run {
    #[inline]
    fn enter(
        &mut self,
        frame: &InboundFrame,
        origin: &Origin,
        sa: &mut InboundSa,
        interfaces: &mut InterfaceTable,
        events: &mut EventQueue,
        now: Instant,
    ) {
        if self.of == Some((frame.sa, frame.origin)) {
            return;
        }
        self.of = Some((frame.sa, frame.origin));
        self.has_moved = Peer::of(&origin.path) != *sa.peer();
        let interface = sa.plain.unwrap_or(sa.core.interface);
        if self.interface != Some(interface) {
            self.leave(interfaces);
            self.interface = Some(interface);
        }
        let has_tunnel = interfaces.get(interface).is_none_or(|interface| interface.tunnel.is_some());
        self.plain = sa.plain.filter(|_| !has_tunnel);
        // Only authentic packets show that the peer uses the SA.
        if sa.core.usage.touch(now) {
            events.push(Event::FirstPacket { spi: sa.core.spi, policy: sa.core.policy });
        }
    }

    fn count(&mut self, octets: usize) {
        self.counters.packets_in += 1;
        self.counters.bytes_in += octets as u64;
    }

    fn leave(&mut self, interfaces: &mut InterfaceTable) {
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
