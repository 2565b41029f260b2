//! Buffers for many packets, allocated once and used again and again.

use espdp_api::OuterPath;

use crate::{InterfaceId, VnetHeader};

/// ESP packets for the wire. One allocation, made once; filled by [`crate::Dataplane::fill`].
///
/// The packets stand one directly behind the other, so that a run of them is one contiguous send.
#[derive(Debug, Default)]
pub struct OutboundBatch {}

impl OutboundBatch {
    /// Packets in one batch at most.
    pub const FRAMES: usize = 256;
    /// Octets in one batch at most.
    pub const OCTETS: usize = 256 * 1024;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Forgets all packets.
    pub(crate) fn clear(&mut self) {}
}

/// A batch whose packets are all encrypted.
#[derive(Debug)]
pub struct Sealed<'a> {
    batch: &'a OutboundBatch,
}

impl<'a> Sealed<'a> {
    /// What to send, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run<'a>> + use<'a> {
        let _ = self.batch;
        std::iter::empty()
    }
}

/// Consecutive ESP packets with the same outer header: one `UDP_SEGMENT` send, or one raw send for each.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Outer addresses and encapsulation.
    pub path: OuterPath,
    /// DSCP and ECN for the outer header (`IP_TOS`, `IPV6_TCLASS`).
    pub traffic_class: u8,
    /// Whether an outer IPv4 header has Don't Fragment.
    pub dont_fragment: bool,
    /// Octets of each packet (what `UDP_SEGMENT` takes); the last one may be shorter.
    pub segment_len: usize,
    /// The packets, from SPI to ICV, without gaps.
    pub octets: &'a [u8],
}

impl<'a> Run<'a> {
    /// Packets in one run at most: what Linux accepts in a `UDP_SEGMENT` send.
    pub const PACKETS: usize = 64;
    /// Octets in one run at most: what fits in one UDP datagram over IPv4.
    pub const OCTETS: usize = 65507;

    /// The packets, one by one.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        self.octets.chunks(self.segment_len.max(1))
    }
}

/// Where received packets came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The outer addresses and encapsulation as received.
    pub path: OuterPath,
    /// DSCP and ECN of the outer header (`IP_RECVTOS`, `IPV6_RECVTCLASS`); 0 when unknown.
    pub traffic_class: u8,
}

/// Received ESP packets. One allocation, made once.
///
/// The shell receives into [`Self::space`] and says with one of the `add_*` methods what arrived, as often as there is
/// space, then has it all opened by [`crate::Dataplane::open`].
#[derive(Debug, Default)]
pub struct InboundBatch {}

impl InboundBatch {
    /// Octets that [`Self::space`] has: what one receive with `UDP_GRO` can fill.
    pub const SPACE: usize = 65536;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {}

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Where the next receive goes: [`Self::SPACE`] octets, or `None` when the batch is full and must be opened first.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        unimplemented!()
    }

    /// Adds `len` octets that a UDP socket with `UDP_GRO` put in [`Self::space`]: datagrams of `stride` octets each, the
    /// last one perhaps shorter. IKE messages (behind four zero octets, RFC 3948 §2.2) are handed to `on_ike` without
    /// the marker, keepalives (RFC 3948 §2.3) are ignored, the rest is taken as ESP.
    pub fn add_udp(&mut self, _len: usize, _stride: usize, _origin: Origin, _on_ike: impl FnMut(&[u8])) {
        unimplemented!()
    }

    /// Adds `len` octets that a raw IPv4 socket put in [`Self::space`]: one packet with its IPv4 header, from which
    /// addresses and traffic class are taken.
    pub fn add_ipv4(&mut self, _len: usize) {
        unimplemented!()
    }

    /// Adds `len` octets that a raw IPv6 socket put in [`Self::space`]: one packet from the SPI on.
    pub fn add_esp(&mut self, _len: usize, _origin: Origin) {
        unimplemented!()
    }
}

/// A batch that was opened: authentic packets for the inside.
#[derive(Debug)]
pub struct Opened<'a> {
    batch: &'a InboundBatch,
}

impl<'a> Opened<'a> {
    /// What to write to the TUN devices, in order.
    pub fn deliveries(&self) -> impl Iterator<Item = Delivery<'a>> + use<'a> {
        let _ = self.batch;
        std::iter::empty()
    }
}

/// One write to a TUN device: the vnet header, then all pieces.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Which device.
    pub interface: InterfaceId,
    /// Goes in front.
    pub vnet: VnetHeader,
    arena: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Pieces in one delivery at most.
    pub const PIECES: usize = 64;

    /// The packet: in one piece, or a super-packet as the first packet followed by the payloads of the others.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        std::iter::once(self.arena)
    }
}
