//! What was seen on the wire, summed up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::frame::{self, Frame, Leak};
use super::stack::stack;

/// The sum of all frames.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Frames in all.
    pub frames: u64,
    /// IKE messages.
    pub ike: u64,
    /// NAT keepalives.
    pub keepalives: u64,
    /// ESP by sender and SPI.
    pub esp: Vec<EspFlow>,
    /// Frames with an address or the [`MARKER`] of a protected network in clear.
    pub leaks: u64,
    /// What the first of them were, for people.
    pub examples: Vec<String>,
    /// Anything else.
    pub other: u64,
    /// Frames by their protocols, see [`stack()`].
    pub stacks: BTreeMap<String, StackCount>,
    /// Frames with the [`READABLE`] payload in clear.
    pub readable: u64,
    #[serde(skip)]
    flows: BTreeMap<(IpAddr, u32), usize>,
}

/// Frames with the same protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StackCount {
    /// How many were seen.
    pub frames: u64,
    /// The Ethernet addresses that sent them; of the first 16 of them.
    #[serde(skip)]
    pub senders: BTreeSet<[u8; 6]>,
}

/// The ESP packets of one sender with one SPI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EspFlow {
    /// Who sent them.
    pub source: IpAddr,
    /// Their SPI.
    #[serde(serialize_with = "as_hex")]
    pub spi: u32,
    /// How many were seen.
    pub packets: u64,
    /// Octets of their IP packets.
    pub octets: u64,
    /// How many of them travelled in UDP.
    pub in_udp: u64,
    /// The highest sequence number (its low half): how many were sent, seen or not.
    pub highest_sequence: u32,
}

impl Tally {
    /// Adds an Ethernet frame.
    pub fn add(&mut self, octets: &[u8], protected: &[IpNet]) {
        self.frames = self.frames.saturating_add(1);
        let frame = frame::classify(octets, protected);
        if let Frame::Leak(leak) = &frame {
            self.leak(describe(leak));
        } else if contains(octets, MARKER) {
            self.leak("the lab's own payload".to_owned());
        }
        if contains(octets, READABLE) {
            self.readable = self.readable.saturating_add(1);
        }
        self.add_stack(octets);
        match frame {
            Frame::Esp(packet) => self.add_esp(&packet),
            Frame::Ike { .. } => self.ike = self.ike.saturating_add(1),
            Frame::Keepalive => self.keepalives = self.keepalives.saturating_add(1),
            Frame::Leak(_) => {}
            Frame::Other => self.other = self.other.saturating_add(1),
        }
    }

    fn add_stack(&mut self, octets: &[u8]) {
        let mut name = stack(octets);
        if self.stacks.len() >= STACKS && !self.stacks.contains_key(&name) {
            "more".clone_into(&mut name);
        }
        let count = self.stacks.entry(name).or_default();
        count.frames = count.frames.saturating_add(1);
        let sender = octets.get(MAC_ADDRESS..).and_then(<[u8]>::first_chunk::<MAC_ADDRESS>);
        if count.senders.len() < SENDERS {
            count.senders.extend(sender);
        }
    }

    fn add_esp(&mut self, packet: &frame::EspPacket) {
        let next = self.esp.len();
        let &frame::EspPacket { source, spi, .. } = packet;
        let at = *self.flows.entry((source, spi)).or_insert(next);
        if at == next {
            self.esp.push(EspFlow { source, spi, packets: 0, octets: 0, in_udp: 0, highest_sequence: 0 });
        }
        if let Some(flow) = self.esp.get_mut(at) {
            flow.add(packet);
        }
    }

    /// The ESP packets with `spi` from `source`.
    #[must_use]
    pub fn flow(&self, source: IpAddr, spi: u32) -> Option<&EspFlow> {
        self.flows.get(&(source, spi)).and_then(|&at| self.esp.get(at))
    }

    /// ESP packets in all.
    #[must_use]
    pub fn esp_packets(&self) -> u64 {
        self.esp.iter().map(|flow| flow.packets).sum()
    }

    fn leak(&mut self, what: String) {
        self.leaks = self.leaks.saturating_add(1);
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }
}

impl EspFlow {
    fn add(&mut self, packet: &frame::EspPacket) {
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(u64::try_from(packet.octets).unwrap_or(u64::MAX));
        self.in_udp = self.in_udp.saturating_add(u64::from(packet.in_udp));
        self.highest_sequence = self.highest_sequence.max(packet.sequence);
    }
}

/// Stands in everything that the lab sends through the tunnel; whoever reads it on the wire reads clear text.
pub const MARKER: &[u8] = b"charon-rs lab: nobody on the outside may read this. ";

/// Stands in what the lab sends outside of any protection, and must be readable on the wire.
pub const READABLE: &[u8] = b"charon-rs lab: anybody may read this on the wire. ";

/// More kinds of frames than these are counted together.
const STACKS: usize = 64;

/// More senders than these on one wire say nothing new.
const SENDERS: usize = 16;

/// Octets of an Ethernet address, of which a frame begins with two: to whom and from whom.
const MAC_ADDRESS: usize = 6;

/// More leaks than these say nothing new.
const EXAMPLES: usize = 5;

fn describe(leak: &Leak) -> String {
    let Leak { source, destination, protocol } = leak;
    match protocol {
        0 => format!("{source} asks for {destination}"),
        _ => format!("{source} to {destination}, protocol {protocol}"),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Eight hexadecimal digits, as SPIs are written.
pub(super) fn as_hex<S: Serializer>(spi: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{spi:08x}"))
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{ESP, ethernet, ip, protected, udp};
    use super::*;

    const OUTER: [&str; 2] = ["192.168.10.1", "192.168.10.2"];

    fn tally(packets: &[Vec<u8>]) -> Tally {
        let mut tally = Tally::default();
        for packet in packets {
            tally.add(&ethernet(packet), &protected());
        }
        tally
    }

    #[test]
    fn esp_is_summed_by_sender_and_spi() {
        let mut later = ESP;
        later[7] = 9;
        let back = ["192.168.10.2", "192.168.10.1"];
        let tally = tally(&[ip(OUTER, 50, &later), ip(OUTER, 50, &ESP), ip(back, 17, &udp(4500, &ESP))]);
        let flow = tally.flow(OUTER[0].parse().unwrap(), 0xc000_0001).unwrap();
        assert_eq!((flow.packets, flow.octets, flow.in_udp, flow.highest_sequence), (2, 64, 0, 9));
        let flow = tally.flow(OUTER[1].parse().unwrap(), 0xc000_0001).unwrap();
        assert_eq!((flow.packets, flow.in_udp, flow.highest_sequence), (1, 1, 7));
        assert_eq!((tally.esp_packets(), tally.leaks, tally.frames), (3, 0, 3));
        assert_eq!(tally.flow(OUTER[0].parse().unwrap(), 1), None);
    }

    #[test]
    fn a_payload_that_can_be_read_is_a_leak_even_in_esp() {
        let tally = tally(&[ip(OUTER, 50, &[&ESP[..], b"..", MARKER, b".."].concat())]);
        assert_eq!((tally.leaks, tally.esp_packets()), (1, 1));
    }

    #[test]
    fn protocols_and_their_senders_are_counted() {
        let tally = tally(&[ip(OUTER, 50, &ESP), ip(OUTER, 50, &ESP), ip(OUTER, 1, READABLE)]);
        let esp = &tally.stacks["ipv4/esp"];
        assert_eq!((esp.frames, esp.senders.len()), (2, 1));
        assert_eq!((tally.stacks["ipv4/icmp"].frames, tally.readable, tally.leaks), (1, 1, 0));
    }

    #[test]
    fn many_kinds_of_frames_are_bounded() {
        let mut tally = Tally::default();
        // Every depth of nesting, and each once more with another innermost protocol.
        for (inner, depth) in [1, 6, 17, 50, 58, 89, 115].into_iter().flat_map(|inner| (0..11).map(move |d| (inner, d)))
        {
            let innermost = ip(OUTER, inner, &ESP);
            let packet = (0..depth).fold(innermost, |packet, _| ip(OUTER, 4, &packet));
            tally.add(&ethernet(&packet), &[]);
        }
        assert_eq!(tally.stacks.len(), STACKS + 1);
        assert_eq!(tally.stacks.values().map(|count| count.frames).sum::<u64>(), 77);
    }

    #[test]
    fn only_the_first_leaks_are_described() {
        let clear = ip(["192.168.5.2", "192.168.3.2"], 6, &[0; 20]);
        let tally = tally(&vec![clear; EXAMPLES + 3]);
        assert_eq!((tally.leaks, tally.examples.len()), (8, EXAMPLES));
        assert_eq!(tally.examples[0], "192.168.5.2 to 192.168.3.2, protocol 6");
    }
}
