//! ESP packets on their way in.

use espdp_api::{Encapsulation, IpsecProtocol, OuterPath};

use super::{ShortSpan, Span};
use crate::crypto::Authentic;
use crate::drops::{DropCounters, DropReason};
use crate::inbound::Place;
use crate::packet::{Header, IPV6_HEADER_LEN, protocol, write_header};
use crate::{InterfaceId, VnetHeader};

/// Where received packets came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The outer addresses and encapsulation as received.
    pub path: OuterPath,
    /// DSCP and ECN of the outer header (`IP_RECVTOS`, `IPV6_RECVTCLASS`); 0 when unknown.
    pub traffic_class: u8,
    /// Time to live or hop limit of the outer header as it arrived (`IP_RECVTTL`, `IPV6_RECVHOPLIMIT`); `None` when unknown.
    pub hop_limit: Option<u8>,
}

/// Received ESP packets. One allocation, made once.
///
/// The shell receives into [`Self::space`] and says with one of the `add_*` methods what arrived, as often as there is
/// space, then has it all opened by [`crate::Dataplane::open`].
#[derive(Debug)]
pub struct InboundBatch {
    memory: Box<[u8]>,
    used: usize,
    /// Receives so far, also those that left nothing to open.
    receives: usize,
    frames: Vec<InboundFrame>,
    origins: Vec<Origin>,
    /// Drops before an SA was known.
    drops: DropCounters,
    writes: Vec<Write>,
    pieces: Vec<ShortSpan>,
}

/// One ESP packet, or what became of it. Two of them share a cache line.
#[derive(Debug)]
pub(crate) struct InboundFrame {
    /// First the packet from the SPI to the ICV, or all of it when it is AH; at last the inner packet.
    pub(crate) span: ShortSpan,
    /// How far it came.
    pub(crate) stage: Stage,
    /// Its place in the table of inbound SAs, once looked up.
    pub(crate) sa: u32,
    /// Index into the batch's origins.
    pub(crate) origin: u16,
    /// Octets right before it, while it is an ESP packet, that are its outer header; 0 when nobody saw that.
    pub(crate) header_len: u8,
    /// What protects it.
    pub(crate) protocol: IpsecProtocol,
}

/// How far a received packet came.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing is known of it.
    Received,
    /// A tunnel's packet in clear, which never sees an SA; the span is what stands behind its IP or UDP header.
    InClear {
        /// The IP protocol.
        protocol: u8,
    },
    /// It has an SA, and a sequence number that the replay window would take.
    Admitted {
        /// The whole sequence number, not yet proven.
        sequence: u64,
    },
    /// Verified and decrypted.
    Opened(Authentic),
    /// Not to be decrypted, or not verified; still to be counted.
    Refused(DropReason),
    /// What was inside is for this interface.
    Delivered(Place),
    /// Counted and gone.
    Dropped,
}

/// One write to a TUN device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) interface: InterfaceId,
    pub(crate) vnet: VnetHeader,
    /// The range of its pieces.
    pub(crate) first_piece: u16,
    pub(crate) pieces: u16,
}

impl Write {
    #[inline]
    fn pieces_of(self, pieces: &[ShortSpan]) -> &[ShortSpan] {
        let rest = pieces.get(usize::from(self.first_piece)..).unwrap_or_default();
        rest.get(..usize::from(self.pieces)).unwrap_or_default()
    }
}

/// The parts of a batch that opening works on.
pub(crate) struct Chunk<'a> {
    pub(crate) memory: &'a mut [u8],
    /// Memory that no packet uses yet starts here.
    pub(crate) used: &'a mut usize,
    pub(crate) frames: &'a mut [InboundFrame],
    pub(crate) origins: &'a [Origin],
    pub(crate) drops: &'a mut DropCounters,
    pub(crate) writes: &'a mut Vec<Write>,
    pub(crate) pieces: &'a mut Vec<ShortSpan>,
}

impl InboundBatch {
    /// Packets in one batch at most: five receives of the most packets.
    pub const FRAMES: usize = 5 * Self::GRO_PACKETS;
    /// Octets that [`Self::space`] has: what one receive with `UDP_GRO` can fill.
    pub const SPACE: usize = 65536;

    /// Datagrams that the kernel puts in one receive at most (`UDP_GRO_CNT_MAX`).
    const GRO_PACKETS: usize = 64;
    /// Receives of the longest kind in one batch.
    const RECEIVES: usize = 6;
    /// Where space for receiving ends. The other half takes packets that transport mode rebuilds, which get longer by less
    /// than an IP header, of which the longest is IPv4's with all options.
    const RECEIVE_END: usize = Self::RECEIVES * Self::SPACE;
    const OCTETS: usize = 2 * Self::RECEIVE_END + Self::FRAMES * 60;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            memory: vec![0; Self::OCTETS].into_boxed_slice(),
            used: 0,
            receives: 0,
            frames: Vec::with_capacity(Self::FRAMES),
            origins: Vec::with_capacity(Self::FRAMES),
            drops: DropCounters::default(),
            writes: Vec::with_capacity(Self::FRAMES),
            pieces: Vec::with_capacity(Self::FRAMES),
        }
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.used = 0;
        self.receives = 0;
        self.frames.clear();
        self.origins.clear();
        self.writes.clear();
        self.pieces.clear();
    }

    /// Whether nothing was received since the last [`Self::clear`], not even what was no ESP.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receives == 0
    }

    /// Where the next receive goes: [`Self::SPACE`] octets, or `None` when the batch is full and must be opened and cleared
    /// first. Receives are limited too, so that a flood of empty datagrams cannot keep the shell here.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        let end = self.used.checked_add(Self::SPACE).filter(|end| *end <= Self::RECEIVE_END)?;
        if self.frames.len() + Self::GRO_PACKETS > Self::FRAMES || self.receives >= Self::FRAMES {
            return None;
        }
        self.memory.get_mut(self.used..end)
    }

    /// Adds `len` octets that a UDP socket with `UDP_GRO` put in [`Self::space`]: datagrams of `stride` octets each, the
    /// last one perhaps shorter (0: just one). IKE messages (behind four zero octets, RFC 3948 §2.2) are handed to `on_ike` without
    /// the marker, keepalives (RFC 3948 §2.3) are ignored, the rest is taken as ESP (R7296-2-2, R3948-4-1).
    pub fn add_udp(&mut self, len: usize, stride: usize, origin: Origin, mut on_ike: impl FnMut(&[u8])) {
        let received = self.take(len);
        let origin = self.origin(origin);
        let stride = if stride == 0 { len } else { stride };
        let mut offset = received.offset;
        let end = received.offset + received.len;
        while offset < end {
            let datagram = Span { offset, len: stride.min(end - offset) };
            offset += datagram.len;
            match datagram.of(&self.memory) {
                [0, 0, 0, 0, message @ ..] => on_ike(message),
                [KEEPALIVE] => {}
                _ => self.push(datagram, 0, origin, Stage::Received),
            }
        }
    }

    /// Adds `len` octets that a raw IPv4 socket put in [`Self::space`]: one packet with its IPv4 header, from which
    /// addresses and traffic class are taken. Linux hands over whole packets only; a fragment (R4303-3.4.1-1) is dropped.
    pub fn add_ipv4(&mut self, len: usize) {
        let received = self.take(len);
        match Header::parse(received.of(&self.memory)) {
            Some(header) if header.is_fragment => self.drops.count(DropReason::Fragment),
            Some(header) if header.is_ipv4() && header.protocol == protocol::ESP => {
                let path =
                    OuterPath { local: header.destination, remote: header.source, encapsulation: Encapsulation::Esp };
                let Header { traffic_class, hop_limit, transport_at, .. } = header;
                let origin = Origin { path, traffic_class, hop_limit: Some(hop_limit) };
                let offset = received.offset + transport_at;
                let span = Span { offset, len: header.total_len - transport_at };
                let (header_len, origin) = (u8::try_from(transport_at).unwrap_or(0), self.origin(origin));
                self.push(span, header_len, origin, Stage::Received);
            }
            _ => self.drops.count(DropReason::Short),
        }
    }

    /// Adds `len` octets that a raw IPv6 socket put in [`Self::space`]: one packet from the SPI on.
    pub fn add_esp(&mut self, len: usize, origin: Origin) {
        let (received, origin) = (self.take(len), self.origin(origin));
        self.push(received, 0, origin, Stage::Received);
    }

    /// Adds `len` octets that a raw socket for AH put in [`Self::space`]: over IPv4 with the IP header, whose addresses and traffic class
    /// count then. Over IPv6 the header is written here: what AH covers of it follows from `origin` and `len`. Extension headers in
    /// front of AH, which the socket takes away, are missing then, and the ICV of a packet that had some will be wrong.
    pub fn add_ah(&mut self, len: usize, origin: Origin) {
        let OuterPath { local, remote, .. } = origin.path;
        if remote.is_ipv6() {
            let received = self.take(len + IPV6_HEADER_LEN);
            let packet = received.of_mut(&mut self.memory);
            let payload_len = received.len.saturating_sub(IPV6_HEADER_LEN);
            packet.copy_within(..payload_len, received.len - payload_len);
            match write_header(packet, remote, local, protocol::AH, origin.traffic_class, payload_len) {
                Some(()) => self.push_ah(received, origin),
                None => self.drops.count(DropReason::Short),
            }
            return;
        }
        let received = self.take(len);
        match Header::parse(received.of(&self.memory)) {
            Some(header) if header.is_fragment => self.drops.count(DropReason::Fragment),
            Some(header) if header.is_ipv4() && header.protocol == protocol::AH => {
                let (local, remote) = (header.destination, header.source);
                let path = OuterPath { local, remote, encapsulation: Encapsulation::Esp };
                let Header { traffic_class, hop_limit, .. } = header;
                let origin = Origin { path, traffic_class, hop_limit: Some(hop_limit) };
                self.push_ah(Span { len: header.total_len, ..received }, origin);
            }
            _ => self.drops.count(DropReason::Short),
        }
    }

    /// Adds `len` octets that a raw socket for a tunnel's protocol put in [`Self::space`]: over IPv4 with the IP header, whose
    /// addresses count then, over IPv6 what stands behind it.
    pub fn add_raw_tunnel(&mut self, len: usize, protocol: u8, origin: Origin) {
        let received = self.take(len);
        if !origin.path.remote.is_ipv4() {
            let origin = self.origin(origin);
            self.push(received, 0, origin, Stage::InClear { protocol });
            return;
        }
        match Header::parse(received.of(&self.memory)) {
            Some(header) if header.is_ipv4() && !header.is_fragment && header.protocol == protocol => {
                let (local, remote) = (header.destination, header.source);
                let path = OuterPath { local, remote, encapsulation: Encapsulation::Esp };
                let Header { traffic_class, hop_limit, .. } = header;
                let origin = Origin { path, traffic_class, hop_limit: Some(hop_limit) };
                let offset = received.offset + header.transport_at;
                let span = Span { offset, len: header.total_len - header.transport_at };
                let origin = self.origin(origin);
                self.push(span, 0, origin, Stage::InClear { protocol });
            }
            _ => self.drops.count(DropReason::TunnelHeader),
        }
    }

    /// Adds `len` octets that a tunnel's UDP socket with `UDP_GRO` put in [`Self::space`], as [`Self::add_udp`] takes them; the ports are
    /// those of `origin`.
    pub fn add_udp_tunnel(&mut self, len: usize, stride: usize, origin: Origin) {
        let (received, origin) = (self.take(len), self.origin(origin));
        let stride = if stride == 0 { len } else { stride };
        let end = received.offset + received.len;
        let mut offset = received.offset;
        while offset < end {
            let datagram = Span { offset, len: stride.min(end - offset) };
            offset += datagram.len;
            self.push(datagram, 0, origin, Stage::InClear { protocol: protocol::UDP });
        }
    }

    /// What opening works on.
    pub(crate) fn chunk(&mut self) -> Chunk<'_> {
        Chunk {
            memory: &mut self.memory,
            used: &mut self.used,
            frames: &mut self.frames,
            origins: &self.origins,
            drops: &mut self.drops,
            writes: &mut self.writes,
            pieces: &mut self.pieces,
        }
    }

    /// The batch, now that everything in its writes is authentic.
    pub(crate) fn opened(&self) -> Opened<'_> {
        Opened { batch: self }
    }

    fn take(&mut self, len: usize) -> Span {
        let span = Span { offset: self.used, len: len.min(Self::SPACE).min(Self::RECEIVE_END - self.used) };
        self.used += span.len;
        self.receives += 1;
        span
    }

    /// The index of an origin; what comes from one place most often comes one after the other.
    fn origin(&mut self, origin: Origin) -> u16 {
        // An origin that left nothing to open makes way.
        let in_use = self.frames.last().map_or(0, |frame| usize::from(frame.origin) + 1);
        self.origins.truncate(in_use);
        if self.origins.last() != Some(&origin) {
            self.origins.push(origin);
        }
        // There are never more origins than frames and one.
        u16::try_from(self.origins.len() - 1).unwrap_or(u16::MAX)
    }

    fn push(&mut self, span: Span, header_len: u8, origin: u16, stage: Stage) {
        if self.frames.len() >= Self::FRAMES {
            self.drops.count(DropReason::Overflow);
            return;
        }
        let (span, protocol) = (span.into(), IpsecProtocol::Esp);
        self.frames.push(InboundFrame { span, protocol, header_len, origin, sa: 0, stage });
    }

    fn push_ah(&mut self, span: Span, origin: Origin) {
        let origin = self.origin(origin);
        self.push(span, 0, origin, Stage::Received);
        if let Some(frame) = self.frames.last_mut().filter(|frame| frame.span == span.into()) {
            frame.protocol = IpsecProtocol::Ah;
        }
    }
}

impl Default for InboundBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 3948 §2.3.
const KEEPALIVE: u8 = 0xff;

/// A batch that was opened: authentic packets for the inside.
#[derive(Debug)]
pub struct Opened<'a> {
    batch: &'a InboundBatch,
}

impl<'a> Opened<'a> {
    /// What to write to the TUN devices, in order.
    pub fn deliveries(&self) -> impl ExactSizeIterator<Item = Delivery<'a>> + use<'a> {
        let InboundBatch { memory, writes, pieces, .. } = self.batch;
        writes.iter().map(|write| Delivery {
            interface: write.interface,
            vnet: write.vnet,
            memory,
            pieces: write.pieces_of(pieces),
        })
    }
}

/// One write to a TUN device: the vnet header, then all pieces.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Which device.
    pub interface: InterfaceId,
    /// Goes in front.
    pub vnet: VnetHeader,
    memory: &'a [u8],
    pieces: &'a [ShortSpan],
}

impl<'a> Delivery<'a> {
    /// Pieces in one delivery at most.
    pub const PIECES: usize = 64;

    /// The packet: in one piece, or a super-packet as the first packet followed by the payloads of the others.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let memory = self.memory;
        self.pieces.iter().map(move |piece| piece.of(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        let path = OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), encapsulation };
        Origin { path, traffic_class: 2, hop_limit: None }
    }

    fn receive(batch: &mut InboundBatch, octets: &[u8]) {
        batch.space().unwrap()[..octets.len()].copy_from_slice(octets);
    }

    #[test]
    fn two_packets_share_a_cache_line() {
        assert_eq!(size_of::<InboundFrame>(), 32);
    }

    /// R7296-2-2, R3948-4-1.
    #[test]
    fn one_receive_can_mix_ike_keepalives_and_esp() {
        let mut batch = InboundBatch::new();
        let datagrams = [[0, 0, 1, 0, 7, 7], [0, 0, 0, 0, 8, 9], [0, 0, 1, 0, 6, 6]].concat();
        receive(&mut batch, &datagrams);
        let mut ike = Vec::new();
        batch.add_udp(datagrams.len(), 6, origin(), |message| ike.push(message.to_vec()));
        receive(&mut batch, &[0xff]);
        batch.add_udp(1, 1, origin(), |_| panic!("a keepalive is no message"));
        assert_eq!(ike, [[8, 9]]);
        let spans: Vec<_> = batch.frames.iter().map(|frame| frame.span.long()).collect();
        assert_eq!(spans, [Span { offset: 0, len: 6 }, Span { offset: 12, len: 6 }]);
        assert_eq!(batch.origins.len(), 1);
    }

    #[test]
    fn a_short_last_datagram_and_a_wrong_stride_stay_within_what_was_received() {
        let mut batch = InboundBatch::new();
        batch.add_udp(10, 4, origin(), |_| {});
        batch.add_udp(10, usize::MAX, origin(), |_| {});
        batch.add_udp(3, 0, origin(), |_| {});
        batch.add_udp(0, 0, origin(), |_| {});
        let lens: Vec<_> = batch.frames.iter().map(|frame| frame.span.len).collect();
        // All of it is zeros: what is long enough for a marker was taken as IKE.
        assert_eq!(lens, [2, 3]);
        assert_eq!(batch.used, 23);
    }

    #[test]
    fn a_batch_is_full_before_a_receive_could_overflow_it() {
        let mut batch = InboundBatch::new();
        let mut receives = 0;
        while batch.space().is_some() {
            batch.add_esp(InboundBatch::SPACE, origin());
            receives += 1;
        }
        assert_eq!(receives, InboundBatch::RECEIVES);
        batch.clear();
        for _ in 0..InboundBatch::FRAMES {
            batch.add_esp(1, origin());
        }
        assert!(batch.space().is_none());
        batch.add_esp(1, origin());
        assert_eq!(batch.drops.report()[0].reason, "overflow");
    }

    #[test]
    fn a_flood_of_what_is_no_esp_ends_a_batch_too() {
        for len in [0, 4] {
            let mut batch = InboundBatch::new();
            assert!(batch.is_empty());
            let mut port = 0;
            while batch.space().is_some() {
                port += 1;
                let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: port };
                let path = OuterPath { encapsulation, ..origin().path };
                batch.add_udp(len, 0, Origin { path, traffic_class: 0, hop_limit: None }, |_| {});
                assert!(!batch.is_empty(), "whoever clears only what is not empty must get here");
            }
            assert_eq!(usize::from(port), InboundBatch::FRAMES);
            assert!(batch.frames.is_empty() && batch.origins.len() <= 1);
            batch.clear();
            assert!(batch.space().is_some());
        }
    }

    /// R4303-3.4.1-1.
    #[test]
    fn raw_ipv4_packets_lose_their_header_and_keep_what_it_said() {
        let mut batch = InboundBatch::new();
        let mut packet = [0u8; 36];
        let (peer, us) = ([192, 0, 2, 2].into(), [192, 0, 2, 1].into());
        crate::packet::write_header(&mut packet, peer, us, protocol::ESP, 3, 10).unwrap();
        receive(&mut batch, &packet);
        batch.add_ipv4(packet.len());
        assert_eq!(batch.frames[0].span.long(), Span { offset: 20, len: 10 });
        let path = OuterPath { encapsulation: Encapsulation::Esp, ..origin().path };
        assert_eq!(batch.origins, [Origin { path, traffic_class: 3, hop_limit: Some(64) }]);
        packet[6] = 0x20;
        receive(&mut batch, &packet);
        batch.add_ipv4(packet.len());
        receive(&mut batch, &packet[..19]);
        batch.add_ipv4(19);
        assert_eq!(batch.frames.len(), 1);
        let drops: Vec<_> = batch.drops.report().into_iter().map(|drop| drop.reason).collect();
        assert_eq!(drops, ["short", "fragment"]);
    }
}
