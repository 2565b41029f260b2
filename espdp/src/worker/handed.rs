//! What a worker does with packets that others handed over.

use std::time::Instant;

use espdp_core::{InterfaceId, Origin, Progress, SuperPacket, VnetHeader};

use super::counters::Loss;
use super::handover::Cargo;
use super::{Worker, answer, hand_over_all, transmit};

impl Worker {
    /// Carries on with what the others handed over, some parcels of each at a time.
    pub(super) fn take_over(&mut self, now: Instant) {
        self.handover.hush();
        for lane in 0..self.handover.lanes() {
            for _ in 0..PARCELS {
                let Some(parcel) = self.handover.next(lane) else { break };
                for (cargo, packet) in parcel.packets() {
                    match cargo {
                        Cargo::Inside { interface, vnet, hops } => self.protect((interface, vnet, hops), packet, now),
                        Cargo::Esp(origin) => self.receive(origin, packet, now),
                    }
                }
                self.handover.give_back(lane, parcel);
            }
        }
        self.seal_and_transmit(now);
        self.open_and_deliver(now);
        if self.handover.has_more() {
            self.handover.come_back();
        }
    }

    /// Puts a packet from the inside in the batch that leaves with [`Self::seal_and_transmit`].
    fn protect(&mut self, (interface, vnet, hops): (InterfaceId, VnetHeader, u8), octets: &[u8], now: Instant) {
        let mut packet = SuperPacket::new(interface, vnet, octets);
        loop {
            match self.core.fill_on(now, &mut self.outbound).push(&mut packet) {
                Progress::Done => return,
                Progress::BatchFull => self.seal_and_transmit(now),
                Progress::Elsewhere(worker) => {
                    // The SA moved while the packet was on its way. It may follow, but not round and round.
                    let cargo = Cargo::Inside { interface, vnet, hops: hops + 1 };
                    if hops >= MOST_HOPS || !self.handover.add(worker, cargo, octets) {
                        self.losses.count(Loss::HandOver, 1);
                    }
                    return;
                }
            }
        }
    }

    fn seal_and_transmit(&mut self, now: Instant) {
        let mut filling = self.core.fill_on(now, &mut self.outbound);
        // Mostly once: more is left only when packets became more than had room.
        while !filling.is_empty() {
            let sealed = filling.seal();
            transmit(&sealed, &mut self.ports, &mut self.losses, &self.reports.too_big);
            hand_over_all(&sealed, &mut self.handover, &mut self.losses);
            for reply in sealed.replies() {
                if let Some(device) = self.devices.get(&reply.interface) {
                    answer(&reply, device, &mut self.losses);
                }
            }
            filling = self.core.fill(now, &mut self.outbound);
        }
    }

    /// Puts an ESP packet in the batch that is opened with [`Self::open_and_deliver`].
    fn receive(&mut self, origin: Origin, packet: &[u8], now: Instant) {
        if self.inbound.space().is_none() {
            // Delivering may need the other batch.
            self.seal_and_transmit(now);
            self.open_and_deliver(now);
        }
        let Some(space) = self.inbound.space().and_then(|space| space.get_mut(..packet.len())) else { return };
        space.copy_from_slice(packet);
        self.inbound.add_udp(packet.len(), packet.len(), origin, |_| {});
    }
}

/// Parcels of one lane before other descriptors have their turn.
const PARCELS: usize = 8;
/// How often a packet may be handed on: once for an SA that moves, and once for one that moves again.
const MOST_HOPS: u8 = 2;
