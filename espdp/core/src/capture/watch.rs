//! What is copied of the packets of a batch, read off the batch before and after the passes over it: the passes themselves know
//! nothing of captures.

use std::time::{Instant, SystemTime};

use espdp_api::{
    CaptureRemark, CaptureSpec, CapturedPacket, CapturedSa, Direction, Encapsulation, IpsecProtocol, Layer, Mode,
    OuterPath, PolicyId, Viewpoint,
};
use tunnel_codec::{ip, rebuild};

use super::{Armed, CaptureSink, Inner, Open};
use crate::batch::{InboundFrame, OutboundFrame, Span, Stage};
use crate::crypto::ESP_HEADER_LEN;
use crate::inbound::{Place, spi_and_sequence};
use crate::packet::{Header, protocol};
use crate::sa::{InboundSa, SaCore, TRAILER_LEN};
use crate::{Dataplane, DropReason, InterfaceId, Origin, OuterHeader, Sealed};

impl Dataplane {
    /// Copies packets to `sink` from now on, instead of to any other one. `clock` is what the clock on the wall says `now`.
    pub fn capture(&mut self, now: Instant, clock: SystemTime, spec: CaptureSpec, sink: Box<dyn CaptureSink>) {
        self.capturer.arm((now, clock), spec, sink);
    }

    /// Has the packets of other policies captured from now on; `None`: of all.
    pub fn set_captured_policies(&mut self, policies: Option<Vec<PolicyId>>) {
        self.capturer.set_policies(policies);
    }

    /// Ends capturing; the sink is dropped.
    pub fn end_capture(&mut self) {
        self.capturer.disarm();
    }

    /// Whether somebody looks at packets one by one.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.tracer.is_armed() || self.capturer.is_armed()
    }

    /// Copies a packet that came from the inside: what became of it says `remark`, and which SA took or refused it `sa`.
    pub(crate) fn capture_inside(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        packet: &[u8],
        sa: Option<u32>,
        remark: Option<CaptureRemark>,
    ) {
        let Some(of_interface) = self.interfaces.get(interface) else { return };
        let (name, kind) = (of_interface.name(), of_interface.kind);
        let Some(armed) = self.capturer.armed().filter(|armed| armed.spec.inside) else { return };
        let sa = sa.and_then(|place| self.outbound.get(place)).map(|sa| captured_sa(&sa.core));
        let policy = match (&armed.spec.policies, sa) {
            (None, _) => None,
            (Some(_), Some(sa)) => Some(sa.policy),
            // What policies select of a tunnel's packets is not what came from the inside.
            (Some(_), None) => Header::parse(packet)
                .filter(|_| of_interface.tunnel.is_none())
                .and_then(|header| self.policies.selecting(interface, kind, &header, &self.outbound)),
        };
        let viewpoint = Viewpoint::Inside(name.clone());
        if armed.wants(&viewpoint, policy) {
            let seen = Seen { layer: kind.layer(), direction: Direction::Outbound, sa, remark };
            armed.take(now, viewpoint, packet, seen);
        }
    }

    /// Copies what was protected. What could not be is still in clear, and shows no more than its ESP header.
    pub(crate) fn capture_sealed(&mut self, now: Instant, frames: &[OutboundFrame], memory: &[u8]) {
        let Some(armed) = self.capturer.armed().filter(|armed| armed.spec.outside) else { return };
        for frame in frames {
            let Some(sa) = self.outbound.get(frame.sa) else { continue };
            let (path, sa) = (sa.path(), captured_sa(&sa.core));
            if !armed.wants(&Viewpoint::Outside, Some(sa.policy)) {
                continue;
            }
            let octets = frame.whole().of(memory);
            let copy = armed.copy(now, &Viewpoint::Outside, octets.len(), |at, most| {
                let (mut octets, len) = if frame.is_whole || frame.own_header > 0 {
                    (start_of(octets, most), octets.len())
                } else {
                    rebuild::packet(&sent(&path, frame.outer.into()), sent_ports(&path), octets, most)?
                };
                let remark = (!frame.is_sealed).then(|| dropped(DropReason::Crypto));
                if remark.is_some() {
                    octets.truncate(len.saturating_sub(frame.span().len).saturating_add(ESP_HEADER_LEN));
                }
                let seen = Seen { layer: Layer::Ip, direction: Direction::Outbound, sa: Some(sa), remark };
                Some(seen.packet(at, Viewpoint::Outside, octets, len))
            });
            armed.put(copy);
        }
    }

    /// Copies what leaves in clear, and answers that go back to the inside.
    pub(crate) fn capture_unprotected(&mut self, now: Instant, sealed: &Sealed<'_>) {
        let Some(armed) = self.capturer.armed() else { return };
        let seen = |direction, remark| Seen { layer: Layer::Ip, direction, sa: None, remark: Some(remark) };
        if armed.wants(&Viewpoint::Outside, None) {
            for packet in sealed.clear() {
                let seen = seen(Direction::Outbound, CaptureRemark::InClear);
                armed.take(now, Viewpoint::Outside, packet.octets, seen);
            }
        }
        for reply in sealed.replies() {
            let Some(interface) = self.interfaces.get(reply.interface) else { continue };
            let viewpoint = Viewpoint::Inside(interface.name().clone());
            if armed.wants(&viewpoint, None) {
                armed.take(now, viewpoint, reply.octets, seen(Direction::Inbound, CaptureRemark::Answer));
            }
        }
    }

    /// Copies what came from the wire, before it is opened.
    pub(crate) fn capture_admitted(
        &mut self,
        now: Instant,
        memory: &[u8],
        origins: &[Origin],
        frames: &[InboundFrame],
    ) {
        let Some(armed) = self.capturer.armed() else { return };
        armed.open.clear();
        for (place, frame) in frames.iter().enumerate() {
            let Some(origin) = origins.get(usize::from(frame.origin)) else { continue };
            let in_clear = if let Stage::InClear { protocol } = frame.stage { Some(protocol) } else { None };
            let octets = frame.span.of(memory);
            let spi = spi_and_sequence(frame.protocol, octets).filter(|_| in_clear.is_none()).map(|(spi, _)| spi);
            // What has no SA has the place of some other.
            let sa = self.inbound.get(frame.sa).filter(|sa| Some(sa.core.spi.value()) == spi);
            let sa = sa.map(|sa| captured_sa(&sa.core));
            let remark = match (&frame.stage, spi) {
                (Stage::InClear { .. }, _) => Some(CaptureRemark::InClear),
                (Stage::Dropped, None) => Some(dropped(DropReason::Short)),
                (Stage::Dropped, Some(_)) => Some(dropped(DropReason::UnknownSpi)),
                _ => None,
            };
            let mut outer = None;
            if armed.wants(&Viewpoint::Outside, sa.map(|sa| sa.policy)) {
                outer = armed.copy(now, &Viewpoint::Outside, octets.len(), |at, most| {
                    let (octets, len) = received(frame, origin, in_clear, memory, most)?;
                    let seen = Seen { layer: Layer::Ip, direction: Direction::Inbound, sa, remark };
                    Some(seen.packet(at, Viewpoint::Outside, octets, len))
                });
            }
            armed.open.push(Open { place, sa, outer, inner: Inner::Unseen });
        }
    }

    /// Copies what is inside of packets in tunnel mode, in case that it goes no further.
    pub(crate) fn capture_opened(&mut self, now: Instant, memory: &[u8], frames: &[InboundFrame]) {
        let Some(armed) = self.capturer.armed().filter(|armed| armed.spec.inside) else { return };
        let mut all = std::mem::take(&mut armed.open);
        for open in &mut all {
            let Some(frame @ InboundFrame { stage: Stage::Opened(_), .. }) = frames.get(open.place) else { continue };
            let Some(sa) = self.inbound.get(frame.sa) else { continue };
            let Some(interface) = self.interfaces.get(sa.core.interface) else { continue };
            let viewpoint = Viewpoint::Inside(interface.name().clone());
            if !armed.wants(&viewpoint, Some(sa.core.policy)) {
                continue;
            }
            let Some(packet) = inside_of(frame, sa, memory) else { continue };
            let seen = Seen { layer: Layer::Ip, direction: Direction::Inbound, sa: open.sa, remark: None };
            open.inner = armed.copy_whole(now, viewpoint, packet, seen).map_or(Inner::Lost, Inner::Copied);
        }
        armed.open = all;
    }

    /// Hands over what came from the wire, now that it is known what became of it, and copies what goes to the inside.
    pub(crate) fn capture_delivered(&mut self, now: Instant, memory: &[u8], frames: &[InboundFrame]) {
        let Some(armed) = self.capturer.armed() else { return };
        for Open { place, sa, outer, inner } in std::mem::take(&mut armed.open) {
            armed.put(outer);
            let (id, layer, packet) = match frames.get(place) {
                Some(InboundFrame { stage: Stage::Delivered(Place::Packet(id)), span, .. }) => (id, Layer::Ip, span),
                Some(InboundFrame { stage: Stage::Delivered(Place::Frame(id)), span, .. }) => {
                    (id, Layer::Ethernet, span)
                }
                _ => {
                    if let Inner::Copied(inner) = inner {
                        armed.put(Some(inner).filter(|inner| inner.remark.is_some()));
                    }
                    continue;
                }
            };
            let Some(interface) = self.interfaces.get(*id) else { continue };
            let viewpoint = Viewpoint::Inside(interface.name().clone());
            if armed.wants(&viewpoint, sa.map(|sa| sa.policy)) {
                let seen = Seen { layer, direction: Direction::Inbound, sa, remark: None };
                let (at, most, packet) = (armed.clock(now), armed.spec.snaplen, packet.of(memory));
                match inner {
                    Inner::Unseen => armed.take(now, viewpoint, packet, seen),
                    Inner::Lost => {}
                    // Counted when it was opened.
                    Inner::Copied(_) => {
                        armed.put(Some(seen.packet(at, viewpoint, start_of(packet, most), packet.len())));
                    }
                }
            }
        }
    }
}

impl Armed {
    /// Copies a packet as it stands there to the sink.
    fn take(&mut self, now: Instant, viewpoint: Viewpoint, packet: &[u8], seen: Seen) {
        let copy = self.copy_whole(now, viewpoint, packet, seen);
        self.put(copy);
    }

    /// Copies a packet as it stands there, if there are room and time.
    fn copy_whole(&mut self, now: Instant, viewpoint: Viewpoint, packet: &[u8], seen: Seen) -> Option<CapturedPacket> {
        let of = viewpoint.clone();
        self.copy(now, &viewpoint, packet.len(), |at, most| {
            Some(seen.packet(at, of, start_of(packet, most), packet.len()))
        })
    }

    fn put(&mut self, packet: Option<CapturedPacket>) {
        if let Some(packet) = packet {
            self.sink.put(packet);
        }
    }
}

/// What is known of a packet besides its octets.
struct Seen {
    layer: Layer,
    direction: Direction,
    sa: Option<CapturedSa>,
    remark: Option<CaptureRemark>,
}

impl Seen {
    fn packet(self, at: SystemTime, viewpoint: Viewpoint, octets: Vec<u8>, len: usize) -> CapturedPacket {
        let Self { layer, direction, sa, remark } = self;
        CapturedPacket { at, viewpoint, layer, direction, octets, len, sa, remark }
    }
}

fn captured_sa(core: &SaCore) -> CapturedSa {
    CapturedSa { spi: core.spi.value(), policy: core.policy }
}

fn dropped(reason: DropReason) -> CaptureRemark {
    CaptureRemark::Dropped(reason.name().to_owned())
}

fn start_of(octets: &[u8], most: usize) -> Vec<u8> {
    octets.get(..most).unwrap_or(octets).to_vec()
}

/// The outer IP header of an ESP packet that the kernel will write.
fn sent(path: &OuterPath, outer: OuterHeader) -> ip::IpHeader {
    let protocol = match path.encapsulation {
        Encapsulation::Esp => protocol::ESP,
        Encapsulation::Udp { .. } => protocol::UDP,
    };
    ip::IpHeader {
        source: path.local,
        destination: path.remote,
        protocol,
        hop_limit: if outer.hop_limit == 0 { USUAL_HOP_LIMIT } else { outer.hop_limit },
        traffic_class: outer.traffic_class,
        dont_fragment: outer.dont_fragment,
        identification: 0,
    }
}

fn sent_ports(path: &OuterPath) -> Option<(u16, u16)> {
    match path.encapsulation {
        Encapsulation::Esp => None,
        Encapsulation::Udp { local_port, remote_port } => Some((local_port, remote_port)),
    }
}

/// The start of a packet that came from the wire, with the outer headers that it had, and how long it was. `in_clear` is the protocol
/// of what is no IPsec.
fn received(
    frame: &InboundFrame,
    origin: &Origin,
    in_clear: Option<u8>,
    memory: &[u8],
    most: usize,
) -> Option<(Vec<u8>, usize)> {
    let Span { offset, len } = frame.span.long();
    let header_len = usize::from(frame.header_len);
    let has_header = header_len > 0 || frame.protocol == IpsecProtocol::Ah;
    if has_header && in_clear.is_none() {
        let whole = Span { offset: offset.saturating_sub(header_len), len: len + header_len };
        return Some((start_of(whole.of(memory), most), whole.len));
    }
    let OuterPath { local, remote, .. } = origin.path;
    let ports = sent_ports(&origin.path).map(|(local, remote)| (remote, local));
    let protocol = in_clear.unwrap_or(if ports.is_some() { protocol::UDP } else { protocol::ESP });
    let header = ip::IpHeader {
        source: remote,
        destination: local,
        protocol,
        hop_limit: origin.hop_limit.unwrap_or(USUAL_HOP_LIMIT),
        traffic_class: origin.traffic_class,
        dont_fragment: false,
        identification: 0,
    };
    rebuild::packet(&header, ports, frame.span.of(memory), most)
}

/// The packet inside of an ESP packet in tunnel mode that was decrypted.
fn inside_of<'a>(frame: &InboundFrame, sa: &InboundSa, memory: &'a [u8]) -> Option<&'a [u8]> {
    if frame.protocol != IpsecProtocol::Esp || sa.core.mode != Mode::Tunnel {
        return None;
    }
    let octets = frame.span.of(memory);
    let encrypted = octets.get(sa.core.layout.header_len..octets.len().checked_sub(sa.core.layout.icv_len)?)?;
    let (rest, &[pad_len, _]) = encrypted.split_last_chunk::<TRAILER_LEN>()?;
    let packet = rest.get(..rest.len().checked_sub(usize::from(pad_len))?)?;
    // What is no packet cannot be shown as one.
    Header::parse(packet).map(|_| packet)
}

/// What stands in headers whose hop limit is not known.
const USUAL_HOP_LIMIT: u8 = 64;
