//! Bridge domains: which ports an Ethernet frame leaves by.
//!
//! A domain is one Ethernet segment. Its ports are interfaces: TAP devices, links of the host, tunnels that carry frames. It
//! learns behind which port a station is, sends what is for everybody or for nobody known to all other ports, and answers
//! for stations whose addresses it knows. Frames pass as they are, VLAN tags included; stations are told apart by their address
//! alone, whatever the tag.

mod domain;
mod neighbours;
mod shares;
mod solicitation;
mod stations;

use std::time::Instant;

use espdp_api::{BridgeName, BridgePort, BridgeSpec, InterfaceName, Refusal};

use crate::{DropReason, InterfaceId};
use domain::Domain;

/// Where a frame goes. Made once and used for every frame.
#[derive(Debug, Default)]
pub struct Egress {
    ports: Vec<InterfaceId>,
    answer: Vec<u8>,
}

impl Egress {
    /// The ports that the frame leaves by: never the one by which it came.
    #[must_use]
    pub fn ports(&self) -> &[InterfaceId] {
        &self.ports
    }

    /// A frame that answers the one that came, for the port by which that came.
    #[must_use]
    pub fn answer(&self) -> Option<&[u8]> {
        (!self.answer.is_empty()).then_some(&self.answer)
    }

    fn clear(&mut self) {
        self.ports.clear();
        self.answer.clear();
    }
}

/// All domains of a dataplane and which interface is a port of which.
#[derive(Debug, Default)]
pub(crate) struct BridgeTable {
    domains: Vec<Option<Domain>>,
    /// By interface: the index of its domain.
    port_of: Vec<Option<usize>>,
}

impl BridgeTable {
    /// Most domains.
    const MOST: usize = 1024;

    /// Makes a domain, or changes the one of this name; its ports and what it has learned stay.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub(crate) fn set(&mut self, spec: &BridgeSpec) -> Result<(), Refusal> {
        Domain::check(spec)?;
        if let Some(domain) = self.find(&spec.name).and_then(|at| self.domains.get_mut(at)?.as_mut()) {
            domain.change(spec);
            return Ok(());
        }
        let domain = Some(Domain::new(spec));
        let free = self.domains.iter().position(Option::is_none).unwrap_or(self.domains.len());
        if free >= Self::MOST {
            return Err(Refusal::Full(format!("{} bridge domains", Self::MOST)));
        }
        match self.domains.get_mut(free) {
            Some(place) => *place = domain,
            None => self.domains.push(domain),
        }
        Ok(())
    }

    /// Forgets a domain without ports.
    ///
    /// # Errors
    /// [`Refusal::UnknownBridge`], [`Refusal::BridgeInUse`].
    pub(crate) fn remove(&mut self, name: &BridgeName) -> Result<(), Refusal> {
        let at = self.find(name).ok_or_else(|| Refusal::UnknownBridge(name.clone()))?;
        if self.port_of.contains(&Some(at)) {
            return Err(Refusal::BridgeInUse(name.clone()));
        }
        if let Some(place) = self.domains.get_mut(at) {
            *place = None;
        }
        Ok(())
    }

    /// Makes an interface a port of a domain, of another one than before, or of none.
    ///
    /// # Errors
    /// [`Refusal::UnknownBridge`]: then nothing has changed.
    pub(crate) fn set_port(
        &mut self,
        interface: InterfaceId,
        name: &InterfaceName,
        port: Option<&BridgePort>,
    ) -> Result<(), Refusal> {
        let unknown = |port: &BridgePort| Refusal::UnknownBridge(port.bridge.clone());
        let new = match port {
            Some(port) => Some((self.find(&port.bridge).ok_or_else(|| unknown(port))?, port.split_horizon)),
            None => None,
        };
        let old = self.index(interface);
        if let Some(old) = old.filter(|old| new.is_none_or(|(new, _)| new != *old))
            && let Some(Some(domain)) = self.domains.get_mut(old)
        {
            domain.leave(interface);
        }
        if let Some((at, group)) = new
            && let Some(Some(domain)) = self.domains.get_mut(at)
        {
            domain.join(interface, name, group);
        }
        let place = usize::from(interface.0);
        if self.port_of.len() <= place {
            self.port_of.resize(place.saturating_add(1), None);
        }
        if let Some(port_of) = self.port_of.get_mut(place) {
            *port_of = new.map(|(at, _)| at);
        }
        Ok(())
    }

    /// Whether an interface is a port of a domain.
    #[inline]
    pub(crate) fn has_port(&self, interface: InterfaceId) -> bool {
        self.index(interface).is_some()
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
        egress.clear();
        let domain = self.index(from).and_then(|at| self.domains.get_mut(at)?.as_mut());
        domain.ok_or(DropReason::NoBridge)?.forward(now, from, frame, egress)
    }

    fn find(&self, name: &BridgeName) -> Option<usize> {
        self.domains.iter().position(|domain| domain.as_ref().is_some_and(|domain| domain.name() == name))
    }

    #[inline]
    fn index(&self, interface: InterfaceId) -> Option<usize> {
        *self.port_of.get(usize::from(interface.0))?
    }
}

#[cfg(test)]
mod tests;
