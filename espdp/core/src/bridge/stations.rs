//! Behind which port the stations of a domain are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use espdp_api::{InterfaceName, MacAddress, StaticStation};

use super::domain::Port;
use super::shares::Shares;
use crate::InterfaceId;

/// The stations of a domain. Whoever floods it with addresses fills the share of his own port only.
#[derive(Debug)]
pub(crate) struct StationTable {
    stations: BTreeMap<MacAddress, Station>,
    /// Learned stations by port.
    learned: Shares,
    /// When stations that were silent for too long were last taken out.
    swept: Option<Instant>,
}

/// What is known of a station.
#[derive(Clone, Debug)]
enum Station {
    /// As configured; `port` while the interface is a port of the domain.
    Static { interface: InterfaceName, port: Option<InterfaceId> },
    /// It was seen there.
    Learned { port: InterfaceId, seen: Instant },
}

/// Where a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind this port.
    Behind(InterfaceId),
    /// Behind an interface that is no port now.
    Absent,
    /// Nobody knows.
    Unknown,
}

impl StationTable {
    /// Learned stations of one port at most.
    pub(crate) const MOST_OF_PORT: usize = 8192;
    /// Learned stations at most.
    pub(crate) const MOST: usize = 32_768;
    /// Static stations at most.
    pub(crate) const MOST_STATIC: usize = 16_384;

    pub(crate) fn new() -> Self {
        let learned = Shares::new(Self::MOST_OF_PORT, Self::MOST);
        Self { stations: BTreeMap::new(), learned, swept: None }
    }

    /// Sets the static stations anew. A station that is no longer static is unknown.
    pub(crate) fn set_static(&mut self, stations: &[StaticStation], ports: &[Port]) {
        self.stations.retain(|_, station| matches!(station, Station::Learned { .. }));
        for StaticStation { mac, interface } in stations {
            let port = ports.iter().find(|port| port.name == *interface).map(|port| port.interface);
            let station = Station::Static { interface: interface.clone(), port };
            if let Some(Station::Learned { port, .. }) = self.stations.insert(*mac, station) {
                self.learned.remove(port);
            }
        }
    }

    /// An interface has become a port.
    pub(crate) fn join(&mut self, joined: InterfaceId, name: &InterfaceName) {
        for station in self.stations.values_mut() {
            if let Station::Static { interface, port } = station
                && interface == name
            {
                *port = Some(joined);
            }
        }
    }

    /// A port has gone: nobody is behind it any more.
    pub(crate) fn leave(&mut self, gone: InterfaceId) {
        self.stations.retain(|_, station| !matches!(station, Station::Learned { port, .. } if *port == gone));
        self.learned.leave(gone);
        for station in self.stations.values_mut() {
            if let Station::Static { port, .. } = station
                && *port == Some(gone)
            {
                *port = None;
            }
        }
    }

    /// Forgets everything that was learned.
    pub(crate) fn forget_learned(&mut self) {
        self.stations.retain(|_, station| matches!(station, Station::Static { .. }));
        self.learned.clear();
    }

    /// Where a station is.
    #[inline]
    pub(crate) fn find(&self, mac: MacAddress, now: Instant, age: Duration) -> Place {
        match self.stations.get(&mac) {
            Some(Station::Static { port: Some(port), .. }) => Place::Behind(*port),
            Some(Station::Static { port: None, .. }) => Place::Absent,
            Some(Station::Learned { port, seen }) if now.saturating_duration_since(*seen) <= age => {
                Place::Behind(*port)
            }
            Some(Station::Learned { .. }) | None => Place::Unknown,
        }
    }

    /// Notes that a frame of the station came in by `from`; says whether it may have come from there: a static station is
    /// nowhere else than it was said to be.
    pub(crate) fn note(
        &mut self,
        mac: MacAddress,
        from: InterfaceId,
        now: Instant,
        age: Duration,
        learn: bool,
    ) -> bool {
        match self.stations.get_mut(&mac) {
            Some(Station::Static { port, .. }) => return *port == Some(from),
            Some(Station::Learned { port, seen }) if *port == from => {
                *seen = now;
                return true;
            }
            Some(Station::Learned { .. }) | None => {}
        }
        if learn && self.has_room(from, now, age) {
            let station = Station::Learned { port: from, seen: now };
            self.learned.add(from);
            if let Some(Station::Learned { port, .. }) = self.stations.insert(mac, station) {
                self.learned.remove(port); // It has moved.
            }
        }
        true
    }

    /// How many stations are learned.
    #[cfg(test)]
    pub(crate) fn learned(&self) -> usize {
        let counted = self.learned.total();
        assert_eq!(counted, self.stations.values().filter(|it| matches!(it, Station::Learned { .. })).count());
        counted
    }

    fn has_room(&mut self, port: InterfaceId, now: Instant, age: Duration) -> bool {
        if self.learned.has_room(port) {
            return true;
        }
        // Looking at all of them costs; a flood of addresses must not make it happen for every frame.
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        let learned = &mut self.learned;
        self.stations.retain(|_, station| match station {
            Station::Learned { port, seen } if now.saturating_duration_since(*seen) > age => {
                learned.remove(*port);
                false
            }
            Station::Learned { .. } | Station::Static { .. } => true,
        });
        self.learned.has_room(port)
    }
}

/// The table is looked through for stations that were silent for too long this often at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
