//! What the passes over a batch did to the packets that are followed, read off the batch after each of them: the passes
//! themselves know nothing of traces.

use std::time::Instant;

use espdp_api::{
    Direction, InterfaceKind, IpsecProtocol, Layer, Mode, PacketSummary, PacketTrace, PolicyAction, TraceFilter,
    TraceStep,
};

use crate::batch::{InboundFrame, OutboundFrame, Stage};
use crate::inbound::{Place, spi_and_sequence};
use crate::packet::Header;
use crate::sa::TRAILER_LEN;
use crate::{Dataplane, DropReason, InterfaceId, Origin, ah};

impl Dataplane {
    /// Traces the next `packets` that `filter` takes, at most 1000, and forgets what was traced before; with 0 it ends.
    pub fn trace(&mut self, now: Instant, packets: usize, filter: TraceFilter) {
        self.tracer.arm(now, packets, filter);
    }

    /// The packets that were traced, oldest first.
    #[must_use]
    pub fn traces(&self) -> &[PacketTrace] {
        self.tracer.kept()
    }

    /// Takes a packet from the inside up, whose first ESP packet will have the place `place` in the batch.
    pub(crate) fn follow_outbound(&mut self, now: Instant, place: usize, interface: InterfaceId, packet: &[u8]) {
        let Some(interface) = self.interfaces.get(interface) else { return };
        self.tracer.begin(now, Direction::Outbound, place, || TraceStep::FromInside {
            interface: interface.name().clone(),
            octets: packet.len(),
            packet: summary(interface.kind.layer(), packet),
        });
    }

    /// Says of the packet at `place` that it became ESP packets, of which `frame` is the first.
    pub(crate) fn follow_protected(&mut self, place: usize, frame: &OutboundFrame, packets: usize) {
        let Some(sa) = self.outbound.get(frame.sa) else { return };
        let (id, spi, tunnel) = (sa.core.policy, sa.core.spi.value(), self.headers(sa.core.interface, sa.core.mode));
        if packets > 1 {
            self.tracer.step(place, || TraceStep::Segmented { packets });
        }
        if let Some(tunnel) = tunnel {
            self.tracer.step(place, || TraceStep::Wrapped { tunnel });
        }
        self.tracer.step(place, || TraceStep::Policy { id, action: PolicyAction::Protect { acquire: false } });
        self.tracer.step(place, || TraceStep::Sa { spi, sequence: frame.sequence });
    }

    /// Says of the packet at `place` that it left without protection.
    pub(crate) fn follow_cleared(&mut self, place: usize, interface: InterfaceId, octets: usize) {
        if let Some(tunnel) = self.headers(interface, Mode::Transport) {
            self.tracer.step(place, || TraceStep::Wrapped { tunnel });
        }
        self.tracer.end(place, || TraceStep::SentInClear { octets });
    }

    /// Says of the packets of a batch whether they were sealed, and ends their traces.
    pub(crate) fn follow_sealed(&mut self, frames: &[OutboundFrame]) {
        for (place, frame) in frames.iter().enumerate() {
            let Some(sa) = self.outbound.get(frame.sa) else { continue };
            let (octets, path) = (usize::from(frame.len), sa.path());
            if frame.is_sealed {
                self.tracer.step(place, || TraceStep::Sealed { octets });
                self.tracer.end(place, || TraceStep::Sent { path, octets });
            } else {
                self.follow_dropped(place, DropReason::Crypto);
            }
        }
        self.tracer.forget_open();
    }

    /// Says why the packet at `place` goes no further.
    pub(crate) fn follow_dropped(&mut self, place: usize, reason: DropReason) {
        self.tracer.end_dropped(place, reason);
    }

    /// Takes the packets of a batch up that came from the wire, after their SAs were looked up.
    pub(crate) fn follow_admitted(&mut self, now: Instant, memory: &[u8], origins: &[Origin], frames: &[InboundFrame]) {
        self.tracer.forget_open();
        for (place, frame) in frames.iter().enumerate() {
            let Some(origin) = origins.get(usize::from(frame.origin)) else { continue };
            let octets = frame.span.of(memory);
            let is_protected = !matches!(frame.stage, Stage::InClear { .. });
            let spi = spi_and_sequence(frame.protocol, octets).filter(|_| is_protected).map(|(spi, _)| spi);
            let step = || TraceStep::FromOutside { path: origin.path, octets: octets.len(), spi };
            self.tracer.begin(now, Direction::Inbound, place, step);
            match frame.stage {
                Stage::Admitted { sequence } => self.tracer.step(place, || TraceStep::Admitted { sequence }),
                Stage::Dropped if spi.is_none() => self.follow_dropped(place, DropReason::Short),
                Stage::Dropped => self.follow_dropped(place, DropReason::UnknownSpi),
                Stage::InClear { .. }
                | Stage::Received
                | Stage::Opened(_)
                | Stage::Refused(_)
                | Stage::Delivered(_) => {}
            }
        }
    }

    /// Says which packets are authentic.
    pub(crate) fn follow_opened(&mut self, memory: &[u8], frames: &[InboundFrame]) {
        for (place, frame) in frames.iter().enumerate() {
            let (Stage::Opened(_), Some(sa)) = (&frame.stage, self.inbound.get(frame.sa)) else { continue };
            let octets = frame.span.of(memory);
            let next_header = match frame.protocol {
                IpsecProtocol::Esp => {
                    let end = octets.len().checked_sub(sa.core.layout.icv_len);
                    let trailer = end.and_then(|end| octets.get(..end)?.last_chunk::<TRAILER_LEN>());
                    trailer.map(|&[_, next_header]| next_header)
                }
                IpsecProtocol::Ah => ah::Place::find(octets).and_then(|place| place.next_header(octets)),
            };
            let Some(next_header) = next_header else { continue };
            self.tracer.step(place, || TraceStep::Opened { next_header });
        }
    }

    /// Says which packets go to the inside, and ends all traces.
    pub(crate) fn follow_delivered(&mut self, memory: &[u8], frames: &[InboundFrame]) {
        for (place, frame) in frames.iter().enumerate() {
            let Stage::Delivered(to) = frame.stage else { continue };
            let (id, layer) = match to {
                Place::Packet(id) => (id, Layer::Ip),
                Place::Frame(id) => (id, Layer::Ethernet),
            };
            let mode = self.inbound.get(frame.sa).map_or(Mode::Transport, |sa| sa.core.mode);
            if let Some(tunnel) = self.headers(id, mode) {
                self.tracer.step(place, || TraceStep::Unwrapped { tunnel });
            }
            let packet = frame.span.of(memory);
            if let Some(packet) = summary(layer, packet) {
                self.tracer.step(place, || TraceStep::Selected { packet });
            }
            let Some(interface) = self.interfaces.get(id) else { continue };
            let interface = interface.name().clone();
            self.tracer.end(place, || TraceStep::ToInside { interface, octets: packet.len() });
        }
        self.tracer.forget_open();
    }

    /// The tunnel whose headers stand in front of what an interface carries. The header of IP in IP is that of ESP itself in
    /// tunnel mode.
    fn headers(&self, interface: InterfaceId, mode: Mode) -> Option<InterfaceKind> {
        let kind = self.interfaces.get(interface)?.kind;
        let has_headers = match kind {
            InterfaceKind::Ipip => mode == Mode::Transport,
            InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_) => true,
            InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => false,
        };
        has_headers.then_some(kind)
    }
}

/// What a packet says of itself, or the packet in a frame.
fn summary(layer: Layer, octets: &[u8]) -> Option<PacketSummary> {
    let packet = match layer {
        Layer::Ip => octets,
        Layer::Ethernet => octets.get(ETHERNET_HEADER..)?,
    };
    Header::parse(packet).map(|header| header.summary())
}

/// Addresses and type of an Ethernet frame without tag.
const ETHERNET_HEADER: usize = 14;
