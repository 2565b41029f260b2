//! Packets that are wrapped where the device's driver put them, without being copied.
//!
//! This is the way of nearly all packets, beside the general one and with the same result: whole packets with ports, without
//! options, in tunnel mode, that fit and that no limit has anything to say to. Whatever else comes is copied out and goes the general way.

mod flow;
mod wrapping;

use super::{Filling, Progress, SuperPacket};
use crate::batch::{Arrival, Surroundings};
use crate::packet::Header;
use crate::{Dataplane, InterfaceId, OutboundBatch, VnetHeader};
use wrapping::{Counted, Wrapping};

impl Filling<'_> {
    /// Room for [`OutboundBatch::SPACE`] octets that are read from `interface`, vnet header first, where packets can be wrapped
    /// without being copied; [`Self::arrive`] is next. `None` when the batch is full, or the interface's packets have to be copied
    /// anyway: read them elsewhere, and hand them to [`Self::push`].
    ///
    /// ```no_run
    /// # use espdp_core::{Dataplane, InterfaceId, OutboundBatch, Progress, SuperPacket};
    /// # fn read(_: &mut [u8], _: &mut [u8]) -> usize { 0 }
    /// # fn example(dataplane: &mut Dataplane, id: InterfaceId, batch: &mut OutboundBatch, buffer: &mut [u8], now: std::time::Instant) {
    /// let mut filling = dataplane.fill(now, batch);
    /// if let Some(space) = filling.space(id) {
    ///     let len = read(space, &mut buffer[OutboundBatch::SPACE..]); // first the one, then the other
    ///     if let Some(mut packet) = filling.arrive(id, len, buffer) {
    ///         let progress = filling.push(&mut packet); // a super-packet
    ///     }
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn space(&mut self, interface: InterfaceId) -> Option<&mut [u8]> {
        self.batch.space(self.in_place(interface)?)
    }

    /// Adds the `len` octets that were read into what [`Self::space`] gave last and, beyond that, into `buffer` from
    /// [`OutboundBatch::SPACE`] on. A super-packet cannot stay there: it is made whole in `buffer`, and still to be pushed.
    #[inline]
    pub fn arrive<'b>(&mut self, interface: InterfaceId, len: usize, buffer: &'b mut [u8]) -> Option<SuperPacket<'b>> {
        let around = self.in_place(interface)?;
        let space = self.batch.space(around)?;
        let (vnet, _) = VnetHeader::split_from(space, VnetHeader::LEN)?;
        if vnet.gso_type == VnetHeader::GSO_NONE && len <= OutboundBatch::SPACE {
            self.batch.arrive(interface, around, len);
            return None;
        }
        let first = len.min(OutboundBatch::SPACE);
        buffer.get_mut(..first)?.copy_from_slice(space.get(..first)?);
        let (vnet, packet) = VnetHeader::split_from(buffer.get(..len)?, VnetHeader::LEN)?;
        Some(SuperPacket::new(interface, vnet, packet))
    }

    /// What the packets of an interface will probably need around them.
    #[inline]
    fn in_place(&self, interface: InterfaceId) -> Option<Surroundings> {
        let interface = self.dataplane.interfaces.get(interface)?;
        let is_watched = self.dataplane.tracer.is_armed() || self.dataplane.capturer.is_inside();
        let may_be = interface.tunnel.is_none() && !interface.lacks_tunnel() && !is_watched;
        interface.in_place.filter(|_| may_be)
    }

    /// Wraps all packets that arrived.
    pub(super) fn wrap_arrivals(&mut self) {
        while self.batch.next_arrival().is_some() {
            self.wrap_in_place();
            // What the fast path left, if anything.
            if let Some(arrival) = self.batch.next_arrival()
                && !self.learn(&arrival)
            {
                self.batch.finish_arrival();
                self.push_arrival(arrival);
            }
        }
    }

    /// Looks for the route of a packet; whether that was worth while: it was not known, and leads to an SA.
    #[cold]
    fn learn(&mut self, arrival: &Arrival) -> bool {
        let Arrival { interface, .. } = *arrival;
        let Dataplane { interfaces, policies, outbound, .. } = &mut *self.dataplane;
        let header = Header::parse(self.batch.arrived(arrival)).filter(|header| !header.is_fragment);
        let (Some(header), Some(kind)) = (header, interfaces.get(interface).map(|interface| interface.kind)) else {
            return false;
        };
        !policies.knows_route(interface, &header) && policies.route(interface, kind, &header, outbound).is_ok()
    }

    /// Wraps packets up to the first one that has to go the general way.
    fn wrap_in_place(&mut self) {
        // What is behind must not overtake.
        if self.batch.has_postponed() {
            return;
        }
        let Dataplane { interfaces, policies, outbound, .. } = &mut *self.dataplane;
        let (mut arrivals, mut frames, memory) = self.batch.arrivals();
        let all = arrivals.len();
        let mut wrapping = Wrapping { policies, sas: outbound, memory, now: self.now };
        while let Some(first) = arrivals.first() {
            let Counted { packets, bytes } = wrapping.wrap_some(arrivals, frames);
            if packets == 0 {
                break;
            }
            arrivals = arrivals.get(packets..).unwrap_or_default();
            frames = frames.get_mut(packets..).unwrap_or_default();
            if let Some(interface) = interfaces.get_mut(first.interface) {
                interface.counters.packets_out += packets as u64;
                interface.counters.bytes_out += bytes;
            }
        }
        let wrapped = all - arrivals.len();
        self.batch.finish_wrapped(wrapped);
    }

    /// Copies a packet out and sends it the general way.
    #[cold]
    fn push_arrival(&mut self, arrival: Arrival) {
        let Arrival { interface, vnet, .. } = arrival;
        let mut aside = std::mem::take(&mut self.dataplane.aside);
        aside.clear();
        aside.extend_from_slice(self.batch.arrived(&arrival));
        let progress = if self.batch.has_postponed() {
            Progress::BatchFull
        } else {
            self.push_one(&mut SuperPacket::new(interface, vnet, &aside))
        };
        match progress {
            Progress::Done => {}
            Progress::BatchFull => self.batch.postpone(interface, vnet, &aside),
            Progress::Elsewhere(worker) => self.batch.hand_over(worker, &arrival),
        }
        self.dataplane.aside = aside;
    }
}
