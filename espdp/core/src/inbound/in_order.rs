//! The shortest way: plain packets of the flow that the SA carried last, without a gap in their numbers. What would be counted and
//! marked for each of them is counted and marked once for all, and whether their headers are right is one comparison.

use super::plain::{Flow, may_be_syn, read_trailer};
use super::{Accepting, Place, Run};
use crate::InterfaceId;
use crate::batch::{InboundFrame, Span, Stage};
use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::{Origin, ecn};

/// Packets that went the shortest way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) packets: usize,
    /// Octets of what was inside.
    pub(super) octets: u64,
}

impl Accepting<'_> {
    /// Takes packets from the first one of `frames` on, up to one that is not of the run, or of which there is more to be said.
    pub(super) fn accept_in_order(
        &mut self,
        frames: &mut [InboundFrame],
        memory: &[u8],
        run: &Run,
        is_of_run: impl Fn(&InboundFrame) -> bool,
    ) -> Taken {
        let Some(interface) = run.plain.filter(|_| !run.has_moved) else { return Taken::default() };
        let Some(flow) = self.sa.flow.at(self.policies.revision()) else { return Taken::default() };
        if flow.version == 4 {
            self.accept_known(frames, memory, interface, &Ipv4Header::new(&flow, self.origin), is_of_run)
        } else {
            self.accept_known(frames, memory, interface, &Ipv6Header::new(&flow, self.origin), is_of_run)
        }
    }

    #[inline(never)]
    fn accept_known<H: KnownHeader>(
        &mut self,
        frames: &mut [InboundFrame],
        memory: &[u8],
        interface: InterfaceId,
        header: &H,
        is_of_run: impl Fn(&InboundFrame) -> bool,
    ) -> Taken {
        let (calm_packets, calm_octets) = self.sa.core.usage.calm();
        let heeds_mss = self.heeds_mss() && header.protocol() == protocol::TCP;
        let framing = self.sa.framing();
        let mut in_order = self.sa.window.in_order();
        let mut taken = Taken::default();
        for frame in frames {
            let Stage::Opened(proof) = &frame.stage else { break };
            if !is_of_run(frame) || !in_order.is_next(proof.sequence()) || taken.packets as u64 >= calm_packets {
                break;
            }
            let Some(encrypted) = framing.encrypted(frame.span.long()) else { break };
            let packet = encrypted.of(memory);
            let Some(len) = header.len_of(packet) else { break };
            if read_trailer(packet)
                .is_none_or(|trailer| trailer.next_header != H::NEXT_HEADER || len > trailer.payload_len)
            {
                break;
            }
            let octets = taken.octets + len as u64;
            if octets > calm_octets || heeds_mss && may_be_syn(packet, H::LEN) {
                break;
            }
            frame.span = Span { len, ..encrypted }.into();
            let delivered = Stage::Delivered(Place::Packet(interface));
            let Stage::Opened(proof) = std::mem::replace(&mut frame.stage, delivered) else { break };
            in_order.take(proof);
            taken.packets += 1;
            taken.octets = octets;
        }
        in_order.commit();
        self.sa.core.usage.count_calm(taken.packets as u64, taken.octets);
        taken
    }
}

/// What the headers of all packets of a flow have in common, where they come from one place.
trait KnownHeader {
    /// What ESP calls such packets.
    const NEXT_HEADER: u8;
    /// Octets of the IP header.
    const LEN: usize;

    /// What is behind the IP header.
    fn protocol(&self) -> u8;

    /// Octets of a packet as its header says, if that is one of these and the packet has room for ports; of the same ECN mark as the
    /// outer header unless that has none (RFC 6040 §4.2: the mark stays as it is).
    fn len_of(&self, packet: &[u8]) -> Option<usize>;
}

/// The first 24 octets in three words, the first octet highest.
#[derive(Clone, Copy, Debug)]
struct Ipv4Header {
    words: [u64; 3],
    /// What of the first one counts: version and length of the header, and that there is no fragment.
    mask: u64,
}

impl Ipv4Header {
    /// Protocol and source.
    const SECOND: u64 = 0x00ff_0000_ffff_ffff;

    fn new(flow: &Flow, origin: &Origin) -> Self {
        let [addresses, ..] = flow.addresses;
        let mark = mark_of(origin);
        Self {
            words: [
                0x45 << 56 | mark << 48,
                u64::from(flow.protocol) << 48 | addresses >> 32,
                addresses << 32 | u64::from(flow.ports),
            ],
            mask: 0xff00_0000_0000_3fff | mask_of(mark) << 48,
        }
    }
}

impl KnownHeader for Ipv4Header {
    const NEXT_HEADER: u8 = protocol::IPV4;
    const LEN: usize = IPV4_HEADER_LEN;

    #[inline]
    fn protocol(&self) -> u8 {
        let [_, second, _] = self.words;
        (second >> 48) as u8
    }

    #[inline(always)]
    fn len_of(&self, packet: &[u8]) -> Option<usize> {
        let (words, _) = packet.first_chunk::<24>()?.as_chunks::<8>();
        let &[first, second, third] = words.first_chunk()?;
        let [first, second, third] = [first, second, third].map(u64::from_be_bytes);
        let [known_first, known_second, known_third] = self.words;
        let differs =
            (first ^ known_first) & self.mask | (second ^ known_second) & Self::SECOND | (third ^ known_third);
        let len = (first >> 32) as usize & 0xffff;
        (differs == 0 && len >= 24).then_some(len)
    }
}

/// The first 44 octets in words, the first octet highest.
#[derive(Clone, Copy, Debug)]
struct Ipv6Header {
    first: u64,
    addresses: [u64; 4],
    ports: u32,
    /// What of the first word counts: version and next header.
    mask: u64,
}

impl Ipv6Header {
    fn new(flow: &Flow, origin: &Origin) -> Self {
        let mark = mark_of(origin);
        Self {
            first: 6 << 60 | mark << 52 | u64::from(flow.protocol) << 8,
            addresses: flow.addresses,
            ports: flow.ports,
            mask: 0xf000_0000_0000_ff00 | mask_of(mark) << 52,
        }
    }
}

impl KnownHeader for Ipv6Header {
    const NEXT_HEADER: u8 = protocol::IPV6;
    const LEN: usize = IPV6_HEADER_LEN;

    #[inline]
    fn protocol(&self) -> u8 {
        (self.first >> 8) as u8
    }

    #[inline(always)]
    fn len_of(&self, packet: &[u8]) -> Option<usize> {
        let head: &[u8; 44] = packet.first_chunk()?;
        let (words, _) = head.as_chunks::<8>();
        let &[first, a, b, c, d] = words.first_chunk()?;
        let [first, a, b, c, d] = [first, a, b, c, d].map(u64::from_be_bytes);
        let [known_a, known_b, known_c, known_d] = self.addresses;
        let ports = u32::from_be_bytes(*head.last_chunk()?);
        let differs = (first ^ self.first) & self.mask
            | (a ^ known_a)
            | (b ^ known_b)
            | (c ^ known_c)
            | (d ^ known_d)
            | u64::from(ports ^ self.ports);
        let len = ((first >> 16) as usize & 0xffff) + IPV6_HEADER_LEN;
        (differs == 0 && len >= head.len()).then_some(len)
    }
}

/// The ECN mark of the outer header.
fn mark_of(origin: &Origin) -> u64 {
    u64::from(origin.traffic_class & ecn::MASK)
}

/// What has to be the same of the inner one.
fn mask_of(mark: u64) -> u64 {
    if mark == 0 { 0 } else { u64::from(ecn::MASK) }
}
