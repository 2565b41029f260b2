//! Which station has which IP address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{MacAddress, Neighbour};

use super::solicitation::Announcement;

/// The neighbours of a domain.
#[derive(Debug)]
pub(crate) struct NeighbourTable {
    neighbours: BTreeMap<IpAddr, Entry>,
    /// How many of them are learned.
    learned: usize,
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
    /// `None`: static.
    seen: Option<Instant>,
}

impl NeighbourTable {
    /// Learned neighbours at most.
    pub(crate) const MOST_LEARNED: usize = 16_384;
    /// Static neighbours at most.
    pub(crate) const MOST_STATIC: usize = 16_384;

    pub(crate) fn new() -> Self {
        Self { neighbours: BTreeMap::new(), learned: 0, swept: None }
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
            self.neighbours.insert(*address, Entry { known, seen: None });
        }
        self.count();
    }

    /// Forgets everything that was learned.
    pub(crate) fn forget_learned(&mut self) {
        self.neighbours.retain(|_, entry| entry.seen.is_none());
        self.learned = 0;
    }

    /// Who has this address.
    pub(crate) fn find(&self, address: IpAddr, now: Instant, age: Duration) -> Option<Known> {
        let entry = self.neighbours.get(&address)?;
        let is_young = entry.seen.is_none_or(|seen| now.saturating_duration_since(seen) <= age);
        is_young.then_some(entry.known)
    }

    /// Takes over what a station says about itself; static entries stay.
    pub(crate) fn learn(&mut self, announcement: &Announcement, now: Instant, age: Duration) {
        let Announcement { address, mac, is_router } = *announcement;
        if let Some(entry) = self.neighbours.get_mut(&address) {
            if entry.seen.is_some() {
                let is_router = is_router.unwrap_or(entry.known.is_router);
                *entry = Entry { known: Known { mac, is_router }, seen: Some(now) };
            }
            return;
        }
        if self.has_room(now, age) {
            let known = Known { mac, is_router: is_router.unwrap_or(false) };
            self.neighbours.insert(address, Entry { known, seen: Some(now) });
            self.learned = self.learned.saturating_add(1);
        }
    }

    fn has_room(&mut self, now: Instant, age: Duration) -> bool {
        if self.learned < Self::MOST_LEARNED {
            return true;
        }
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        self.neighbours.retain(|_, entry| entry.seen.is_none_or(|seen| now.saturating_duration_since(seen) <= age));
        self.count();
        self.learned < Self::MOST_LEARNED
    }

    fn count(&mut self) {
        self.learned = self.neighbours.values().filter(|entry| entry.seen.is_some()).count();
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

    #[test]
    fn learned_neighbours_are_bounded_and_old_ones_make_room() {
        let (mut table, start, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        let most = u32::try_from(NeighbourTable::MOST_LEARNED).unwrap();
        for number in 0..most + 100 {
            table.learn(&announcement(number), start, age);
        }
        assert_eq!(table.neighbours.len(), NeighbourTable::MOST_LEARNED);
        assert_eq!(table.find(announcement(most).address, start, age), None);
        let later = start + Duration::from_secs(11);
        table.learn(&announcement(most), later, age);
        assert_eq!(table.neighbours.len(), 1);
        assert!(table.find(announcement(most).address, later, age).is_some());
    }

    #[test]
    fn a_router_stays_one_until_it_says_otherwise() {
        let (mut table, now, age) = (NeighbourTable::new(), instant(), Duration::from_secs(10));
        let say = |is_router| Announcement { is_router, ..announcement(1) };
        for (said, expected) in [(Some(true), true), (None, true), (Some(false), false), (None, false)] {
            table.learn(&say(said), now, age);
            assert_eq!(table.find(announcement(1).address, now, age).unwrap().is_router, expected);
        }
    }
}
