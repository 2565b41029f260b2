//! From inner packets to ESP packets.

use std::time::Instant;

use espdp_api::{Direction, Event, InterfaceKind, Mode};

use crate::batch::OutboundFrame;
use crate::crypto::{ESP_HEADER_LEN, seal_batch};
use crate::events::EventQueue;
use crate::limits::Charge;
use crate::packet::{Header, protocol};
use crate::policy::Miss;
use crate::sa::{OutboundSa, TRAILER_LEN};
use crate::segment::Segmenter;
use crate::{Dataplane, DropReason, InterfaceId, OutboundBatch, Run, Sealed, VnetHeader};

/// A packet from a TUN device: plain, or a super-packet that stands for many segments.
#[derive(Debug)]
pub struct SuperPacket<'a> {
    interface: InterfaceId,
    vnet: VnetHeader,
    packet: &'a [u8],
    /// Segments that are already in a batch.
    taken: usize,
}

impl<'a> SuperPacket<'a> {
    /// A packet that came from `interface` with this vnet header.
    #[must_use]
    pub fn new(interface: InterfaceId, vnet: VnetHeader, packet: &'a [u8]) -> Self {
        Self { interface, vnet, packet, taken: 0 }
    }
}

/// Whether a [`SuperPacket`] is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All of it is in the batch, or was dropped and counted.
    Done,
    /// The batch is full: seal and send it, then push the same packet into the next one.
    BatchFull,
}

/// A batch that is being filled with packets for the wire. They are in clear until [`Filling::seal`].
#[derive(Debug)]
pub struct Filling<'a> {
    dataplane: &'a mut Dataplane,
    batch: &'a mut OutboundBatch,
    now: Instant,
}

impl Dataplane {
    /// Starts to fill `batch`, which is emptied first.
    ///
    /// ```no_run
    /// # use espdp_core::{Dataplane, OutboundBatch, Progress, Run, SuperPacket};
    /// # fn send(_: Run<'_>) {}
    /// # fn example(dataplane: &mut Dataplane, batch: &mut OutboundBatch, mut packet: SuperPacket<'_>, now: std::time::Instant) {
    /// loop {
    ///     let mut filling = dataplane.fill(now, batch);
    ///     let progress = filling.push(&mut packet); // or many packets
    ///     for run in filling.seal().runs() {
    ///         send(run);
    ///     }
    ///     if progress == Progress::Done {
    ///         break;
    ///     }
    /// }
    /// # }
    /// ```
    pub fn fill<'a>(&'a mut self, now: Instant, batch: &'a mut OutboundBatch) -> Filling<'a> {
        batch.clear();
        Filling { dataplane: self, batch, now }
    }
}

impl<'a> Filling<'a> {
    /// Adds the segments of `packet` to the batch, each with its ESP header and trailer.
    pub fn push(&mut self, packet: &mut SuperPacket<'_>) -> Progress {
        match self.encapsulate(packet) {
            Ok(progress) => progress,
            Err(Refused { reason, sa }) => {
                let sa = sa.and_then(|place| self.dataplane.outbound.get_mut(place));
                sa.map_or(&mut self.dataplane.drops, |sa| &mut sa.core.drops).count(reason);
                if let Some(interface) = self.dataplane.interfaces.get_mut(packet.interface) {
                    interface.counters.packets_out += 1;
                    interface.counters.bytes_out += packet.packet.len() as u64;
                }
                Progress::Done
            }
        }
    }

    /// Encrypts everything and says what to send.
    #[must_use]
    pub fn seal(self) -> Sealed<'a> {
        let Self { dataplane, batch, .. } = self;
        let sas = &mut dataplane.outbound;
        let (frames, memory) = batch.parts();
        seal_batch(frames, memory, |place| sas.get(place).map(|sa| &sa.core.transform));
        for frame in frames.iter().filter(|frame| !frame.is_sealed) {
            if let Some(sa) = sas.get_mut(frame.sa) {
                sa.core.drops.count(DropReason::Crypto);
            }
        }
        batch.gather(|place| sas.get(place).map(OutboundSa::path));
        batch.sealed()
    }

    fn encapsulate(&mut self, packet: &mut SuperPacket<'_>) -> Result<Progress, Refused> {
        let header = Header::parse(packet.packet).ok_or(DropReason::Malformed)?;
        let segments = Segmenter::new(&packet.vnet, packet.packet, &header)?;
        let place = self.route(packet.interface, &header)?;
        let refused_by_sa = |reason| Refused { reason, sa: Some(place) };

        let Dataplane { interfaces, outbound, events, .. } = &mut *self.dataplane;
        let interface = interfaces.get_mut(packet.interface).ok_or(DropReason::NoPolicy)?;
        let sa = outbound.get_mut(place).ok_or(DropReason::NoSa)?;
        let envelope = Envelope::new(sa, interface.kind, &header).map_err(refused_by_sa)?;
        let count = segments.count();
        while packet.taken < count {
            let inner_len = segments.len(packet.taken);
            let len = envelope.esp_len(sa, inner_len);
            if len > Run::OCTETS {
                return Err(refused_by_sa(DropReason::TooBig));
            }
            if !self.batch.has_room(len) {
                return Ok(Progress::BatchFull);
            }
            let (charge, sequence) = sa.admit(inner_len);
            raise_limit_event(charge, sa, events);
            if matches!(charge, Charge::Stop | Charge::StopAtHardLimit) {
                return Err(refused_by_sa(DropReason::HardLimit));
            }
            let (span, octets) = self.batch.next(len);
            envelope.write(sa, sequence, &segments, packet.taken, octets).map_err(refused_by_sa)?;
            let Envelope { traffic_class, dont_fragment, .. } = envelope;
            self.batch.add(OutboundFrame { span, sa: place, sequence, traffic_class, dont_fragment, is_sealed: false });
            sa.core.usage.touch(self.now);
            interface.counters.packets_out += 1;
            interface.counters.bytes_out += inner_len as u64;
            packet.taken += 1;
        }
        Ok(Progress::Done)
    }

    /// The SA for a packet.
    fn route(&mut self, interface: InterfaceId, header: &Header) -> Result<u32, Refused> {
        let Dataplane { interfaces, policies, outbound, events, .. } = &mut *self.dataplane;
        let kind = interfaces.get(interface).ok_or(DropReason::NoPolicy)?.kind;
        policies.route(interface, kind, header, outbound).map_err(|miss| match miss {
            Miss::NoPolicy => DropReason::NoPolicy.into(),
            Miss::Discard => DropReason::Discard.into(),
            Miss::OutsideSa(place) => Refused { reason: DropReason::OutsideSa, sa: Some(place) },
            Miss::NoSa(policy) => {
                if policies.may_acquire(policy, self.now) {
                    events.push(Event::Acquire { policy, packet: header.summary() });
                }
                DropReason::NoSa.into()
            }
        })
    }
}

/// A packet that is not sent, and the SA that refused it.
struct Refused {
    reason: DropReason,
    sa: Option<u32>,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self { reason, sa: None }
    }
}

/// How the packets of a flow are wrapped.
#[derive(Clone, Copy, Debug)]
struct Envelope {
    /// Octets at the start of the inner packet that do not stand inside.
    skip: usize,
    next_header: u8,
    traffic_class: u8,
    dont_fragment: bool,
}

impl Envelope {
    fn new(sa: &OutboundSa, kind: InterfaceKind, header: &Header) -> Result<Self, DropReason> {
        if sa.core.mode == Mode::Tunnel || kind == InterfaceKind::Ipip {
            return Ok(Self {
                skip: 0,
                next_header: if header.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 },
                traffic_class: sa.tunnel_traffic_class(header),
                dont_fragment: sa.tunnel_dont_fragment(header),
            });
        }
        // Transport mode is between the two ends of the SA (RFC 4301 §4.1): the header that goes out, and the one that the
        // peer rebuilds, have their addresses, whatever addresses the selectors would allow.
        let path = sa.path();
        if header.source != path.local || header.destination != path.remote {
            return Err(DropReason::OutsideSa);
        }
        // The outer header is the kernel's own, so nothing but the fixed header can be kept; and transport mode is for
        // whole packets (RFC 4303 §3.3.4).
        if header.is_fragment || header.has_outer_options {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self {
            skip: header.fixed_len(),
            next_header: header.first_next_header,
            traffic_class: header.traffic_class,
            dont_fragment: header.dont_fragment,
        })
    }

    /// Octets from the SPI to the ICV for an inner packet of `inner_len` octets.
    fn esp_len(&self, sa: &OutboundSa, inner_len: usize) -> usize {
        let layout = sa.core.layout;
        let payload_len = inner_len.saturating_sub(self.skip);
        layout.header_len + payload_len + layout.padding(payload_len) + TRAILER_LEN + layout.icv_len
    }

    /// Writes everything but IV and ICV.
    fn write(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        segments: &Segmenter<'_>,
        index: usize,
        octets: &mut [u8],
    ) -> Result<(), DropReason> {
        let layout = sa.core.layout;
        let payload_len = segments.len(index).saturating_sub(self.skip);
        let malformed = DropReason::Malformed;
        let (esp, rest) = octets.split_first_chunk_mut::<ESP_HEADER_LEN>().ok_or(malformed)?;
        let (spi, low) = esp.split_at_mut(4);
        spi.copy_from_slice(&sa.core.spi.to_wire());
        low.copy_from_slice(&(sequence as u32).to_be_bytes());
        let rest = rest.get_mut(layout.header_len - ESP_HEADER_LEN..).ok_or(malformed)?;
        let (payload, rest) = rest.split_at_mut_checked(payload_len).ok_or(malformed)?;
        segments.write(index, self.skip, payload)?;
        let (padding, trailer) = rest.split_at_mut_checked(layout.padding(payload_len)).ok_or(malformed)?;
        // RFC 4303 §2.4: 1, 2, 3 …; there are never more than 15.
        for (octet, value) in padding.iter_mut().zip(1u8..) {
            *octet = value;
        }
        *trailer.first_chunk_mut().ok_or(malformed)? = [padding.len() as u8, self.next_header];
        Ok(())
    }
}

fn raise_limit_event(charge: Charge, sa: &OutboundSa, events: &mut EventQueue) {
    let (direction, spi, policy) = (Direction::Outbound, sa.core.spi, sa.core.policy);
    match charge {
        Charge::PassAtSoftLimit => events.push(Event::SoftLimit { direction, spi, policy }),
        Charge::StopAtHardLimit => events.push(Event::HardLimit { direction, spi, policy }),
        Charge::Pass | Charge::Stop => {}
    }
}

#[cfg(test)]
mod tests;
