//! One bridge domain.

use std::time::Instant;

use espdp_api::{BridgeName, BridgeSpec, Flood, InterfaceName, MacAddress, Refusal};

use super::Egress;
use super::neighbours::NeighbourTable;
use super::solicitation::{Announcement, Solicitation};
use super::stations::{Place, StationTable};
use crate::{DropReason, InterfaceId};

/// An Ethernet segment.
///
/// ```text
/// ┌──────────────┬──────────────┬─────────────────────────┬───────────┬─────────
/// │ destination  │ source       │ (VLAN tags: 4 octets    │ EtherType │ payload
/// │ 6 octets     │ 6 octets     │  each, passed as is)    │ 2 octets  │
/// └──────────────┴──────────────┴─────────────────────────┴───────────┴─────────
/// ```
#[derive(Debug)]
pub(crate) struct Domain {
    spec: BridgeSpec,
    ports: Vec<Port>,
    stations: StationTable,
    neighbours: NeighbourTable,
}

/// An interface in a domain.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) interface: InterfaceId,
    pub(crate) name: InterfaceName,
    /// Its split-horizon group; 0 is none.
    group: u8,
}

impl Port {
    /// Whether frames from `self` may leave by `other`.
    fn reaches(&self, other: &Self) -> bool {
        self.interface != other.interface && (self.group == 0 || self.group != other.group)
    }
}

impl Domain {
    pub(crate) fn new(spec: &BridgeSpec) -> Self {
        let mut domain = Self {
            spec: spec.clone(),
            ports: Vec::new(),
            stations: StationTable::new(),
            neighbours: NeighbourTable::new(),
        };
        domain.change(spec);
        domain
    }

    /// Whether the tables have room for the static entries.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub(crate) fn check(spec: &BridgeSpec) -> Result<(), Refusal> {
        if spec.stations.len() > StationTable::MOST_STATIC {
            return Err(Refusal::Full(format!("{} static stations", StationTable::MOST_STATIC)));
        }
        if spec.neighbours.len() > NeighbourTable::MOST_STATIC {
            return Err(Refusal::Full(format!("{} static neighbours", NeighbourTable::MOST_STATIC)));
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &BridgeName {
        &self.spec.name
    }

    /// Takes a new specification over.
    pub(crate) fn change(&mut self, spec: &BridgeSpec) {
        self.spec = spec.clone();
        self.stations.set_static(&spec.stations, &self.ports);
        self.neighbours.set_static(&spec.neighbours);
        if !spec.learning {
            self.stations.forget_learned();
        }
        if !spec.learn_neighbours {
            self.neighbours.forget_learned();
        }
    }

    /// An interface becomes a port, or changes its group.
    pub(crate) fn join(&mut self, interface: InterfaceId, name: &InterfaceName, group: u8) {
        match self.ports.iter_mut().find(|port| port.interface == interface) {
            Some(port) => port.group = group,
            None => {
                self.ports.push(Port { interface, name: name.clone(), group });
                self.stations.join(interface, name);
            }
        }
    }

    /// A port goes.
    pub(crate) fn leave(&mut self, interface: InterfaceId) {
        self.ports.retain(|port| port.interface != interface);
        self.stations.leave(interface);
        self.neighbours.leave(interface);
    }

    /// Says in `egress` where a frame goes that came in by `from`.
    ///
    /// # Errors
    /// The reason why it goes nowhere.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        from: InterfaceId,
        frame: &[u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type0, type1] =
            frame.first_chunk().ok_or(DropReason::Malformed)?;
        let destination = MacAddress::new([d0, d1, d2, d3, d4, d5]);
        let source = MacAddress::new([s0, s1, s2, s3, s4, s5]);
        if !source.is_station() {
            return Err(DropReason::BridgeSource);
        }
        let at = self.ports.iter().position(|port| port.interface == from).ok_or(DropReason::NoBridge)?;
        if !self.stations.note(source, from, now, self.spec.age, self.spec.learning) {
            return Err(DropReason::BridgeSource);
        }
        if is_reserved(destination) {
            return Err(DropReason::BridgeReserved);
        }
        if self.spec.learn_neighbours || !self.neighbours.is_empty() {
            self.serve_neighbours(now, from, u16::from_be_bytes([type0, type1]), frame, egress)?;
            if !egress.answer.is_empty() {
                return Ok(());
            }
        }
        let Some(port) = self.ports.get(at) else { return Err(DropReason::NoBridge) };
        let is_group = destination.is_group();
        if !is_group {
            match self.stations.find(destination, now, self.spec.age) {
                Place::Behind(to) if to == from => return Err(DropReason::BridgeSamePort),
                Place::Behind(to) => {
                    let target = self.ports.iter().find(|port| port.interface == to);
                    if !target.is_some_and(|target| port.reaches(target)) {
                        return Err(DropReason::SplitHorizon);
                    }
                    egress.ports.push(to);
                    return Ok(());
                }
                Place::Absent => return Err(DropReason::BridgeUnknown),
                Place::Unknown => {}
            }
        }
        let floods = match self.spec.flood {
            Flood::All => true,
            Flood::Groups => is_group,
            Flood::Nothing => false,
        };
        if !floods {
            return Err(DropReason::BridgeUnknown);
        }
        egress.ports.extend(self.ports.iter().filter(|other| port.reaches(other)).map(|other| other.interface));
        if egress.ports.is_empty() { Err(DropReason::BridgeUnknown) } else { Ok(()) }
    }

    /// Learns neighbours, and answers a question to all for one that is known.
    fn serve_neighbours(
        &mut self,
        now: Instant,
        from: InterfaceId,
        ether_type: u16,
        frame: &[u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let age = self.spec.age;
        if self.spec.learn_neighbours
            && let Some(announcement) = Announcement::read(ether_type, frame)
        {
            self.neighbours.learn(&announcement, from, now, age);
        }
        let Some(solicitation) = Solicitation::read(ether_type, frame) else { return Ok(()) };
        let Some(neighbour) = self.neighbours.find(solicitation.target(), now, age) else { return Ok(()) };
        if neighbour.mac == solicitation.station() {
            return Ok(()); // It asks whether somebody else has its address (RFC 5227 §2.1.1, RFC 4862 §5.4).
        }
        if self.stations.find(neighbour.mac, now, age) == Place::Behind(from) {
            return Err(DropReason::BridgeSamePort); // It has heard the question itself.
        }
        solicitation.write_answer(neighbour, &mut egress.answer);
        Ok(())
    }

    /// How many stations are learned.
    #[cfg(test)]
    pub(crate) fn learned(&self) -> usize {
        self.stations.learned()
    }
}

/// Addresses that no bridge forwards: what is sent there is for the neighbour on the link (IEEE 802.1Q-2018 §8.6.3, table 8-1).
fn is_reserved(destination: MacAddress) -> bool {
    let [a, b, c, d, e, last] = destination.octets();
    [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && last <= 0x0f
}
