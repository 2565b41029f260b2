//! The ports of packets whose fragments pass (RFC 4301 §7.3, §7.4): only the first fragment shows them, and the others follow it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::flows::{bits, mix};
use crate::packet::{Fragment, Header};

/// What the first fragments of packets showed. Its size is fixed: where a set is full, its oldest packet makes way, and what is
/// left of that one is treated as if its first fragment had never come.
#[derive(Debug)]
pub(crate) struct FragmentTable {
    /// Made when the first fragment comes: most gateways see none.
    sets: Box<[[Option<Seen>; Self::WAYS]]>,
}

/// Whose fragments they are: those of one scope never complete those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What an interface sends; its number.
    Outbound(u16),
    /// What came in through the SA with this SPI.
    Inbound(u32),
}

/// A packet in fragments (RFC 791 §3.2: addresses, protocol and identification; RFC 8200 §4.5: addresses and identification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    scope: Scope,
    source: IpAddr,
    destination: IpAddr,
    /// 0 with IPv6, where each fragment may name another header.
    protocol: u8,
    id: u32,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    key: Key,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    at: Instant,
}

impl FragmentTable {
    /// Packets in a set.
    const WAYS: usize = 4;
    const SETS: usize = 1024;
    /// Whoever reassembles gives up after this long (RFC 8200 §4.5), so identifications mean other packets then.
    const LIFE: Duration = Duration::from_secs(60);

    /// An empty table.
    pub(crate) fn new() -> Self {
        Self { sets: Box::default() }
    }

    /// What a header would say if every fragment showed what the first one does: remembers the first, and gives the others its
    /// protocol and ports. Headers of whole packets, and of fragments whose first one is not known, stay as they are.
    pub(crate) fn complete(&mut self, scope: Scope, header: &Header, now: Instant) -> Header {
        let Some(Fragment { id, is_first }) = header.fragment else { return *header };
        let protocol = if header.is_ipv4() { header.protocol } else { 0 };
        let key = Key { scope, source: header.source, destination: header.destination, protocol, id };
        if !is_first {
            let seen = self.find(&key, now);
            return seen.map_or(*header, |seen| Header {
                protocol: seen.protocol,
                source_port: Some(seen.source_port),
                destination_port: Some(seen.destination_port),
                is_completed: true,
                ..*header
            });
        }
        if let (Some(source_port), Some(destination_port)) = (header.source_port, header.destination_port) {
            self.remember(Seen { key, protocol: header.protocol, source_port, destination_port, at: now });
        } else {
            // The identification is used anew, for a packet without ports.
            self.forget(&key);
        }
        *header
    }

    fn find(&self, key: &Key, now: Instant) -> Option<Seen> {
        let seen = self.sets.get(key.set())?.iter().flatten().find(|seen| seen.key == *key)?;
        (now.saturating_duration_since(seen.at) < Self::LIFE).then_some(*seen)
    }

    fn forget(&mut self, key: &Key) {
        for place in self.sets.get_mut(key.set()).into_iter().flatten() {
            if place.is_some_and(|seen| seen.key == *key) {
                *place = None;
            }
        }
    }

    fn remember(&mut self, seen: Seen) {
        if self.sets.is_empty() {
            self.sets = vec![[None; Self::WAYS]; Self::SETS].into_boxed_slice();
        }
        let Some(set) = self.sets.get_mut(seen.key.set()) else { return };
        let same = set.iter().position(|other| other.is_some_and(|other| other.key == seen.key));
        let last = same.unwrap_or(Self::WAYS - 1);
        if let Some(older) = set.get_mut(..=last) {
            older.rotate_right(1);
        }
        let [newest, ..] = set;
        *newest = Some(seen);
    }
}

impl Key {
    fn set(&self) -> usize {
        let scope = match self.scope {
            Scope::Outbound(interface) => u64::from(interface),
            Scope::Inbound(spi) => u64::from(spi) | 1 << 32,
        };
        let (source, destination) = (bits(self.source), bits(self.destination));
        let others = u64::from(self.id) << 8 | u64::from(self.protocol);
        let words =
            [scope, source as u64, (source >> 64) as u64, destination as u64, (destination >> 64) as u64, others];
        words.into_iter().fold(0, mix) as usize % FragmentTable::SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(id: u32, is_first: bool, port: u16) -> Header {
        // An IPv4 header of a UDP packet, of which the ports are seen in the first fragment.
        let mut octets =
            [0x45, 0, 0, 28, 0, 0, 0x20, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];
        octets[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        octets[7] = u8::from(!is_first);
        octets[22..24].copy_from_slice(&port.to_be_bytes());
        Header::parse(&octets).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    const OUT: Scope = Scope::Outbound(1);

    #[test]
    fn later_fragments_follow_the_first_of_their_own_packet_only() {
        let (mut table, now) = (FragmentTable::new(), start());
        let alone = table.complete(OUT, &fragment(7, false, 0), now);
        assert_eq!((alone.destination_port, alone.is_completed), (None, false), "nothing is known yet");
        let first = fragment(7, true, 53);
        assert_eq!(table.complete(OUT, &first, now), first);
        let later = table.complete(OUT, &fragment(7, false, 0), now);
        assert_eq!((later.source_port, later.destination_port, later.is_completed), (Some(1), Some(53), true));
        for (scope, id) in [(OUT, 8), (Scope::Outbound(2), 7), (Scope::Inbound(1), 7)] {
            assert_eq!(table.complete(scope, &fragment(id, false, 0), now).destination_port, None, "{scope:?} {id}");
        }
    }

    #[test]
    fn an_identification_that_is_used_again_means_the_newer_packet() {
        let (mut table, now) = (FragmentTable::new(), start());
        for port in [53, 80] {
            table.complete(OUT, &fragment(7, true, port), now);
            assert_eq!(table.complete(OUT, &fragment(7, false, 0), now).destination_port, Some(port));
        }
    }

    #[test]
    fn an_identification_that_is_used_again_without_ports_says_nothing_of_ports() {
        let (mut table, now) = (FragmentTable::new(), start());
        let without_ports = Header { source_port: None, destination_port: None, ..fragment(7, true, 0) };
        table.complete(OUT, &without_ports, now);
        table.complete(OUT, &fragment(7, true, 53), now);
        table.complete(OUT, &fragment(8, true, 53), now);
        table.complete(OUT, &without_ports, now);
        assert!(!table.complete(OUT, &fragment(7, false, 0), now).is_completed);
        assert!(table.complete(OUT, &fragment(8, false, 0), now).is_completed);
    }

    #[test]
    fn what_was_seen_is_forgotten_when_nobody_reassembles_it_any_more() {
        let (mut table, now) = (FragmentTable::new(), start());
        table.complete(OUT, &fragment(7, true, 53), now);
        let last = now + FragmentTable::LIFE - Duration::from_millis(1);
        assert!(table.complete(OUT, &fragment(7, false, 0), last).is_completed);
        assert!(!table.complete(OUT, &fragment(7, false, 0), now + FragmentTable::LIFE).is_completed);
    }

    #[test]
    fn a_flood_of_first_fragments_takes_no_more_room_and_leaves_the_newest() {
        let (mut table, now) = (FragmentTable::new(), start());
        for id in 0..60_000 {
            table.complete(OUT, &fragment(id, true, 53), now);
        }
        let left = (0..60_000).filter(|id| table.complete(OUT, &fragment(*id, false, 0), now).is_completed).count();
        assert!(left <= FragmentTable::WAYS * FragmentTable::SETS);
        assert!(table.complete(OUT, &fragment(59_999, false, 0), now).is_completed);
    }

    /// RFC 8200 §4.5: the fragments of one packet may name different next headers.
    #[test]
    fn ipv6_fragments_take_the_protocol_of_the_first_one() {
        let packet = |offset: u8, next: u8, rest: &[u8]| {
            let mut octets = vec![0x60, 0, 0, 0, 0, 8 + rest.len() as u8, 44, 64];
            octets.extend([0xfd; 16]);
            octets.extend([0xfe; 16]);
            octets.extend([next, 0, 0, offset, 0, 0, 0, 9]);
            octets.extend(rest);
            Header::parse(&octets).unwrap()
        };
        let (mut table, now) = (FragmentTable::new(), start());
        // Destination options in front of UDP: only the first fragment tells what they end in.
        table.complete(OUT, &packet(1, 60, &[17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 53, 0, 0, 0, 0]), now);
        let later = table.complete(OUT, &packet(16, 60, &[0; 8]), now);
        assert_eq!((later.protocol, later.destination_port, later.is_completed), (17, Some(53), true));
    }
}
