//! Links of the host whose packets reach an interface past the host's network stack, and those of the interface them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use espdp_api::MacAddress;
use espdp_core::{Delivery, InterfaceId, Progress, SuperPacket, VnetHeader};
use rustix::event::epoll;
use tunnels::{Neighbour, Taken};

use super::counters::Loss;
use super::{BUDGET, PACKETS, Token, Worker, answer_all, hand_over, hand_over_all, transmit};
use crate::io::ring::PacketRing;

/// A link beside the device of an interface. What it takes from the link, the host's stack drops; what it cannot send there, it
/// leaves to the device, and with it to the stack.
#[derive(Debug)]
pub(super) struct Link {
    ring: PacketRing,
    taken: Taken,
    neighbours: BTreeMap<IpAddr, Station>,
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug)]
struct Station {
    mac: MacAddress,
    /// When the stack shall send something there and so ask whether it still is; `None`: it knows.
    ask_at: Option<Instant>,
}

impl Link {
    /// Sends a packet to its neighbour. `false` when the neighbour is not known, or the stack knows better what to do with
    /// the packet: it has reached its last hop, or is too long for the link.
    pub(super) fn deliver(&mut self, delivery: &Delivery<'_>, now: Instant) -> io::Result<bool> {
        let mut pieces = delivery.pieces();
        let Some(first) = pieces.next() else { return Ok(true) };
        let Some((fixed, rest)) = IpHeader::split_from(first).filter(|(header, _)| header.hops() > 1) else {
            return Ok(false);
        };
        let Some(station) = self.neighbours.get_mut(&fixed.destination()) else { return Ok(false) };
        if let Some(due) = &mut station.ask_at
            && *due <= now
        {
            *due = now + ASK_AGAIN;
            return Ok(false);
        }
        let mut head = [0; ETHERNET_LEN + IpHeader::MOST];
        let head = fixed.framed(station.mac, self.ring.mac(), &mut head);
        let vnet = on_ethernet(&delivery.vnet).encode();
        let mut all = [IoSlice::new(&[]); Delivery::PIECES + 2];
        all[0] = IoSlice::new(&vnet[..VnetHeader::LEN]);
        all[1] = IoSlice::new(head);
        all[2] = IoSlice::new(rest);
        let mut used = 3;
        for (slot, piece) in all[3..].iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        match self.ring.write(&all[..used]) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Worker {
    /// Takes a link into service beside the device of an interface, or none any more. Nothing is taken from it yet.
    pub(crate) fn set_link(&mut self, id: InterfaceId, ring: Option<PacketRing>) -> io::Result<()> {
        let taken = self.links.remove(&id).map(|link| link.taken).unwrap_or_default();
        if let Some(ring) = ring {
            epoll::add(&self.epoll, &ring, Token::Link(id).into(), epoll::EventFlags::IN)?;
            self.links.insert(id, Link { ring, taken, neighbours: BTreeMap::new() });
        }
        Ok(())
    }

    /// Says what an interface takes from its link.
    pub(crate) fn set_taken(&mut self, id: InterfaceId, taken: Taken) {
        if let Some(link) = self.links.get_mut(&id) {
            link.taken = taken;
        }
    }

    /// Notes where a neighbour is.
    pub(crate) fn set_neighbour(&mut self, neighbour: &Neighbour, now: Instant) {
        for link in self.links.values_mut().filter(|link| link.ring.index() == neighbour.link) {
            match neighbour.station {
                Some(station) => {
                    let ask_at = station.is_stale.then_some(now);
                    link.neighbours.insert(neighbour.address, Station { mac: station.mac, ask_at });
                }
                None => {
                    link.neighbours.remove(&neighbour.address);
                }
            }
        }
    }

    /// From a link to the peers.
    pub(super) fn send_from_link(&mut self, id: InterfaceId, now: Instant) {
        let Some(Link { ring, taken, .. }) = self.links.get_mut(&id) else { return };
        let device = self.devices.get(&id);
        let mut filling = self.core.fill(now, &mut self.outbound);
        let mut left = PACKETS;
        while left > 0 {
            let Some(mut frame) = ring.next() else { break };
            left = left.saturating_sub(if frame.is_long() { PACKETS / BUDGET } else { 1 });
            let Ok(for_us) = frame.for_us(&mut self.buffer) else {
                self.losses.count(Loss::Device, 1);
                continue;
            };
            let Some((vnet, packet)) = for_us.and_then(|(vnet, octets)| take(taken, &vnet, octets)) else { continue };
            let mut packet = SuperPacket::new(id, vnet, packet);
            loop {
                match filling.push(&mut packet) {
                    Progress::Done => break,
                    Progress::Elsewhere(worker) => {
                        hand_over(&packet.going_to(worker), &mut self.handover, &mut self.losses);
                        break;
                    }
                    Progress::BatchFull => {
                        let sealed = filling.seal();
                        transmit(&sealed, &mut self.ports, &mut self.losses, &self.reports.too_big);
                        device.iter().for_each(|device| answer_all(&sealed, device, &mut self.losses));
                        hand_over_all(&sealed, &mut self.handover, &mut self.losses);
                        filling = self.core.fill(now, &mut self.outbound);
                    }
                }
            }
        }
        while !filling.is_empty() {
            let sealed = filling.seal();
            transmit(&sealed, &mut self.ports, &mut self.losses, &self.reports.too_big);
            device.iter().for_each(|device| answer_all(&sealed, device, &mut self.losses));
            hand_over_all(&sealed, &mut self.handover, &mut self.losses);
            filling = self.core.fill(now, &mut self.outbound);
        }
        // Without frames something else woke us. When the link is set up again it is opened again.
        if left == PACKETS
            && let Some(error) = ring.take_error()
        {
            tracing::debug!(%error, "a link gives no packets at the moment");
            self.losses.count(Loss::Device, 1);
        }
    }
}

/// The packet of a frame, one hop further, if it is one that is taken.
fn take<'a>(taken: &Taken, vnet: &VnetHeader, frame: &'a mut [u8]) -> Option<(VnetHeader, &'a mut [u8])> {
    let (ethernet, packet) = frame.split_at_mut_checked(ETHERNET_LEN)?;
    let (header, _) = IpHeader::split_from(packet)?;
    let is_taken = ethernet.ends_with(&header.ether_type())
        && header.hops() > 1
        && header.is_intact(packet)
        && taken.covers(header.source(), header.destination());
    if !is_taken {
        return None;
    }
    header.one_hop_further().write(packet)?;
    let offset = |at: u16| at.saturating_sub(ETHERNET_LEN as u16);
    let vnet = VnetHeader { hdr_len: offset(vnet.hdr_len), csum_start: offset(vnet.csum_start), ..*vnet };
    Some((vnet, packet))
}

/// What stands in front of a packet, when an Ethernet header comes in between.
fn on_ethernet(vnet: &VnetHeader) -> VnetHeader {
    let offset = |at: u16| if at == 0 { 0 } else { at.saturating_add(ETHERNET_LEN as u16) };
    let csum_start = match vnet.flags & VnetHeader::NEEDS_CSUM {
        0 => vnet.csum_start,
        _ => vnet.csum_start.saturating_add(ETHERNET_LEN as u16),
    };
    VnetHeader { hdr_len: offset(vnet.hdr_len), csum_start, ..*vnet }
}

/// The fixed header of an IP packet, as far as forwarding looks at it.
///
/// ```text
///  IPv4:  version and length │ class │ total length │ … │ 8: TTL │ protocol │ 10: checksum │ 12: source │ 16: destination
///  IPv6:  version, class, flow label │ length │ next header │ 7: hop limit │ 8: source │ 24: destination
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpHeader {
    V4([u8; 20]),
    V6([u8; 40]),
}

impl IpHeader {
    /// Octets of the longer one.
    const MOST: usize = 40;

    /// The header, and what follows it.
    fn split_from(packet: &[u8]) -> Option<(Self, &[u8])> {
        match packet.first()? >> 4 {
            4 => packet.split_first_chunk().map(|(header, rest)| (Self::V4(*header), rest)),
            6 => packet.split_first_chunk().map(|(header, rest)| (Self::V6(*header), rest)),
            _ => None,
        }
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }

    fn ether_type(&self) -> [u8; 2] {
        match self {
            Self::V4(_) => [0x08, 0x00],
            Self::V6(_) => [0x86, 0xdd],
        }
    }

    fn hops(&self) -> u8 {
        match self {
            Self::V4([_, _, _, _, _, _, _, _, hops, ..]) | Self::V6([_, _, _, _, _, _, _, hops, ..]) => *hops,
        }
    }

    fn source(&self) -> IpAddr {
        match self {
            Self::V4([.., a, b, c, d, _, _, _, _]) => Ipv4Addr::new(*a, *b, *c, *d).into(),
            Self::V6(octets) => ipv6(octets.get(8..24)),
        }
    }

    fn destination(&self) -> IpAddr {
        match self {
            Self::V4([.., a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).into(),
            Self::V6(octets) => ipv6(octets.get(24..40)),
        }
    }

    /// RFC 1812 §5.2.2: whether the checksum of the whole header of `packet` is right.
    fn is_intact(&self, packet: &[u8]) -> bool {
        let Self::V4([first, ..]) = self else { return true };
        let Some(header) = packet.get(..usize::from(first & 0xf) * 4).filter(|header| header.len() >= 20) else {
            return false;
        };
        let (words, _) = header.as_chunks::<2>();
        let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    /// With one hop less to go, its checksum changed with it (RFC 1624 §3).
    fn one_hop_further(self) -> Self {
        match self {
            Self::V4(mut octets) => {
                let [_, _, _, _, _, _, _, _, hops, _, high, low, ..] = &mut octets;
                *hops = hops.saturating_sub(1);
                let (sum, carry) = u16::from_be_bytes([*high, *low]).overflowing_add(0x0100);
                [*high, *low] = (sum + u16::from(carry)).to_be_bytes();
                Self::V4(octets)
            }
            Self::V6(mut octets) => {
                let [_, _, _, _, _, _, _, hops, ..] = &mut octets;
                *hops = hops.saturating_sub(1);
                Self::V6(octets)
            }
        }
    }

    /// Writes it to the start of its packet.
    fn write(&self, packet: &mut [u8]) -> Option<()> {
        packet.get_mut(..self.octets().len())?.copy_from_slice(self.octets());
        Some(())
    }

    /// The header, one hop further, behind an Ethernet header.
    fn framed<'a>(&self, to: MacAddress, from: MacAddress, space: &'a mut [u8; ETHERNET_LEN + Self::MOST]) -> &'a [u8] {
        let next = self.one_hop_further();
        let len = ETHERNET_LEN + next.octets().len();
        space[..6].copy_from_slice(&to.octets());
        space[6..12].copy_from_slice(&from.octets());
        space[12..14].copy_from_slice(&next.ether_type());
        space[ETHERNET_LEN..len].copy_from_slice(next.octets());
        &space[..len]
    }
}

fn ipv6(octets: Option<&[u8]>) -> IpAddr {
    let octets: [u8; 16] = octets.and_then(|octets| octets.try_into().ok()).unwrap_or_default();
    Ipv6Addr::from(octets).into()
}

/// Octets of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// Between two packets that are left to the stack so that it asks for a neighbour that it has not heard of for a while.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use espdp_api::{InterfaceName, PolicyId, PolicySpec, TrafficSelector};

    use super::*;

    fn packet4(hops: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 24, 0, 1, 0x40, 0, hops, 17, 0, 0, 10, 1, 0, 9, 10, 2, 0, 9, 1, 2, 3, 4];
        let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn frame(ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ether_type, packet].concat()
    }

    fn taken() -> Taken {
        let side = |text: &str| {
            let prefix: espdp_api::IpPrefix = text.parse().unwrap();
            vec![TrafficSelector::any_protocol(tunnels::range(prefix))]
        };
        let name = InterfaceName::new("ipsec0").unwrap();
        let sides = [("10.1.0.0/16", "10.2.0.0/16"), ("fd01::/16", "fd02::/16")];
        let policy = |(local, remote): (&str, &str)| PolicySpec {
            routes: vec![remote.parse().unwrap()],
            ..PolicySpec::protect(PolicyId(1), name.clone(), side(local), side(remote))
        };
        Taken::of(sides.map(policy).iter(), &[])
    }

    #[test]
    fn a_packet_is_taken_one_hop_further_and_its_checksum_stays_right() {
        for hops in [2, 64, 255] {
            let mut octets = frame([8, 0], &packet4(hops));
            let vnet = VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, hdr_len: 42, ..VnetHeader::default() };
            let (vnet, packet) = take(&taken(), &vnet, &mut octets).unwrap();
            assert_eq!((vnet.csum_start, vnet.hdr_len), (20, 28));
            assert_eq!(packet, packet4(hops - 1));
        }
        let mut six = vec![0; 44];
        (six[0], six[7]) = (0x60, 9);
        six[8..10].copy_from_slice(&[0xfd, 1]);
        six[24..26].copy_from_slice(&[0xfd, 2]);
        let mut octets = frame([0x86, 0xdd], &six);
        let (_, packet) = take(&taken(), &VnetHeader::default(), &mut octets).unwrap();
        assert_eq!((packet[7], &packet[8..]), (8, &six[8..]));
    }

    #[test]
    fn what_the_stack_keeps_is_not_taken() {
        let refused = |octets: Vec<u8>| take(&taken(), &VnetHeader::default(), &mut octets.clone()).is_none();
        assert!(refused(frame([8, 0], &packet4(1))), "the stack says that its time is over");
        assert!(refused(frame([0x86, 0xdd], &packet4(9))), "another protocol");
        assert!(refused(frame([8, 6], &[0; 28])), "ARP");
        let mut broken = packet4(9);
        broken[11] ^= 1;
        assert!(refused(frame([8, 0], &broken)), "a wrong checksum");
        let mut elsewhere = packet4(9);
        elsewhere.swap(13, 17);
        assert!(refused(frame([8, 0], &elsewhere)), "other addresses");
        for len in 0..34 {
            assert!(refused(frame([8, 0], &packet4(9))[..len].to_vec()), "{len} octets");
        }
    }

    #[test]
    fn an_offset_from_the_packet_is_one_from_the_frame_after_its_header() {
        let vnet = VnetHeader { flags: 1, gso_type: 1, hdr_len: 40, gso_size: 1400, csum_start: 20, csum_offset: 16 };
        assert_eq!(on_ethernet(&vnet), VnetHeader { hdr_len: 54, csum_start: 34, ..vnet });
        assert_eq!(on_ethernet(&VnetHeader::default()), VnetHeader::default());
    }
}
