//! Which station has which IP address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{MacAddress, Neighbour};

use super::shares::Shares;
use super::solicitation::Announcement;
use crate::InterfaceId;

/// The neighbours of a domain. Whoever floods it with addresses fills the share of his own port only.
#[derive(Debug)]
pub(crate) struct NeighbourTable {
    neighbours: BTreeMap<IpAddr, Entry>,
    /// Learned neighbours by port.
    learned: Shares,
    /// When neighbours that were silent for too long were last taken out.
    swept: Option<Instant>,
}

/// What is known of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The station that has it.
    pub(crate) mac: MacAddress,
    /// Whether it is a router, where that is known (RFC 4861 §4.4: the R flag).
    pub(crate) is_router: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    known: Known,
    /// By which port it was heard of, and when; `None`: static.
    seen: Option<(InterfaceId, Instant)>,
}

impl NeighbourTable {
    /// Learned neighbours of one port at most.
    pub(crate) const MOST_OF_PORT: usize = 4096;
    /// Learned neighbours at most.
    pub(crate) const MOST_LEARNED: usize = 16_384;
    /// Static neighbours at most.
    pub(crate) const MOST_STATIC: usize = 16_384;

    pub(crate) fn new() -> Self {
        let learned = Shares::new(Self::MOST_OF_PORT, Self::MOST_LEARNED);
        Self { neighbours: BTreeMap::new(), learned, swept: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.neighbours.is_empty()
    }

    /// Sets the static neighbours anew. They count as routers: who believes that of a host loses nothing, but who learns that
    /// its default router is none stops using it (RFC 4861 §7.2.5).
    pub(crate) fn set_static(&mut self, neighbours: &[Neighbour]) {
        self.neighbours.retain(|_, entry| entry.seen.is_some());
        for Neighbour { address, mac } in neighbours {
            let known = Known { mac: *mac, is_router: true };
            if let Some(Entry { seen: Some((port, _)), .. }) =
                self.neighbours.insert(*address, Entry { known, seen: None })
            {
                self.learned.remove(port);
            }
        }
    }

    /// A port has gone: nobody is behind it any more.
    pub(crate) fn leave(&mut self, gone: InterfaceId) {
        self.neighbours.retain(|_, entry| entry.seen.is_none_or(|(port, _)| port != gone));
        self.learned.leave(gone);
    }

    /// Forgets everything that was learned.
    pub(crate) fn forget_learned(&mut self) {
        self.neighbours.retain(|_, entry| entry.seen.is_none());
        self.learned.clear();
    }

    /// Who has this address.
    pub(crate) fn find(&self, address: IpAddr, now: Instant, age: Duration) -> Option<Known> {
        let entry = self.neighbours.get(&address)?;
        let is_young = entry.seen.is_none_or(|(_, seen)| now.saturating_duration_since(seen) <= age);
        is_young.then_some(entry.known)
    }

    /// Takes over what a station behind the port `from` says about itself; static entries stay.
    pub(crate) fn learn(&mut self, announcement: &Announcement, from: InterfaceId, now: Instant, age: Duration) {
        let Announcement { address, mac, is_router } = *announcement;
        let before = self.neighbours.get(&address).copied();
        let port_before = match before {
            Some(Entry { seen: None, .. }) => return,
            Some(Entry { seen: Some((port, _)), .. }) => Some(port),
            None => None,
        };
        if port_before != Some(from) {
            if !self.has_room(from, now, age) {
                return;
            }
            self.learned.add(from);
        }
        let was_router = before.is_some_and(|entry| entry.known.is_router);
        let known = Known { mac, is_router: is_router.unwrap_or(was_router) };
        let replaced = self.neighbours.insert(address, Entry { known, seen: Some((from, now)) });
        // It has moved, unless it was taken out just now, to make room.
        if let Some(Entry { seen: Some((port, _)), .. }) = replaced.filter(|_| port_before != Some(from)) {
            self.learned.remove(port);
        }
    }

    fn has_room(&mut self, port: InterfaceId, now: Instant, age: Duration) -> bool {
        if self.learned.has_room(port) {
            return true;
        }
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        let learned = &mut self.learned;
        self.neighbours.retain(|_, entry| match entry.seen {
            Some((port, seen)) if now.saturating_duration_since(seen) > age => {
                learned.remove(port);
                false
            }
            Some(_) | None => true,
        });
        self.learned.has_room(port)
    }
}

/// The table is looked through for old entries this often at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn announcement(number: u32) -> Announcement {
        let [_, _, a, b] = number.to_be_bytes();
        let mac = MacAddress::new([2, 0, 0, 0, a, b]);
        Announcement { address: Ipv4Addr::from_bits(0x0a00_0000 | number).into(), mac, is_router: None }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn instant() -> Instant {
        Instant::now()
    }

    const PORT: InterfaceId = InterfaceId(1);

    #[test]
    fn learned_neighbours_are_bounded_by_port_and_old_ones_make_room() {
        let (mut table, start, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        let most = u32::try_from(NeighbourTable::MOST_OF_PORT).unwrap();
        for number in 0..most + 100 {
            table.learn(&announcement(number), PORT, start, age);
        }
        assert_eq!(table.neighbours.len(), NeighbourTable::MOST_OF_PORT);
        assert_eq!(table.find(announcement(most).address, start, age), None);
        table.learn(&announcement(most), InterfaceId(2), start, age);
        assert!(table.find(announcement(most).address, start, age).is_some(), "another port has a share of its own");
        let later = start + Duration::from_secs(11);
        table.learn(&announcement(most + 1), PORT, later, age);
        assert_eq!((table.neighbours.len(), table.learned.total()), (1, 1));
        assert!(table.find(announcement(most + 1).address, later, age).is_some());
    }

    #[test]
    fn a_neighbour_that_moves_counts_where_it_is_and_goes_with_its_port() {
        let (mut table, now, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        for port in [1, 2, 2, 3].map(InterfaceId) {
            table.learn(&announcement(1), port, now, age);
            assert_eq!(table.learned.total(), 1);
        }
        table.leave(InterfaceId(1));
        assert!(table.find(announcement(1).address, now, age).is_some());
        table.leave(InterfaceId(3));
        assert_eq!((table.find(announcement(1).address, now, age), table.learned.total()), (None, 0));
    }

    #[test]
    fn a_neighbour_that_becomes_static_counts_no_more() {
        let (mut table, now, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        let Announcement { address, mac, .. } = announcement(1);
        table.learn(&announcement(1), PORT, now, age);
        table.set_static(&[Neighbour { address, mac }]);
        assert_eq!(table.learned.total(), 0);
        table.learn(&announcement(1), PORT, now, age);
        assert_eq!(table.learned.total(), 0);
        table.set_static(&[]);
        assert!(table.is_empty());
    }

    #[test]
    fn a_router_stays_one_until_it_says_otherwise() {
        let (mut table, now, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        let say = |is_router| Announcement { is_router, ..announcement(1) };
        for (said, expected) in [(Some(true), true), (None, true), (Some(false), false), (None, false)] {
            table.learn(&say(said), PORT, now, age);
            assert_eq!(table.find(announcement(1).address, now, age).unwrap().is_router, expected);
        }
    }
}
