//! The interfaces whose traffic is protected.

use espdp_api::{InterfaceKind, InterfaceName, Refusal};

use crate::batch::Surroundings;
use crate::tunnel::Tunnel;

/// Names an interface inside a [`crate::Dataplane`]; small and dense, so that the shell can index its devices by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

/// What passed an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets from the inside, after segmentation; what is dropped counts too, a super-packet dropped whole as one.
    pub packets_out: u64,
    /// Their octets.
    pub bytes_out: u64,
    /// Packets handed to the inside, before coalescing.
    pub packets_in: u64,
    /// Their octets.
    pub bytes_in: u64,
}

impl InterfaceCounters {
    /// Adds what another worker counted.
    pub fn add(&mut self, other: Self) {
        for (count, more) in [
            (&mut self.packets_out, other.packets_out),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.packets_in, other.packets_in),
            (&mut self.bytes_in, other.bytes_in),
        ] {
            *count = count.saturating_add(more);
        }
    }
}

/// One interface.
#[derive(Debug)]
pub(crate) struct Interface {
    name: InterfaceName,
    pub(crate) kind: InterfaceKind,
    pub(crate) tunnel: Option<Box<Tunnel>>,
    /// What packets from its inside probably need around them: what the last ones needed that were not wrapped in place. `None`
    /// when they cannot be wrapped in place.
    pub(crate) in_place: Option<Surroundings>,
    pub(crate) counters: InterfaceCounters,
}

impl Interface {
    /// Whether its packets stand in a tunnel's headers, and it has not been told which.
    pub(crate) fn lacks_tunnel(&self) -> bool {
        let needs_tunnel =
            matches!(self.kind, InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_));
        needs_tunnel && self.tunnel.is_none()
    }

    /// Whether it is nothing but a device, so that frames that a bridge forwards are all that passes it.
    pub(crate) fn is_device(&self) -> bool {
        match self.kind {
            InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => true,
            InterfaceKind::Ipsec
            | InterfaceKind::Ipip
            | InterfaceKind::Gre(_)
            | InterfaceKind::Vxlan(_)
            | InterfaceKind::L2tpv3(_) => false,
        }
    }
}

/// All interfaces by their ids.
#[derive(Debug, Default)]
pub(crate) struct InterfaceTable(Vec<Option<Interface>>);

impl Interface {
    pub(crate) fn name(&self) -> &InterfaceName {
        &self.name
    }
}

impl InterfaceTable {
    /// Most interfaces.
    const MOST: usize = 4096;

    #[inline]
    pub(crate) fn get(&self, id: InterfaceId) -> Option<&Interface> {
        self.0.get(usize::from(id.0))?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: InterfaceId) -> Option<&mut Interface> {
        self.0.get_mut(usize::from(id.0))?.as_mut()
    }

    pub(crate) fn find(&self, name: &InterfaceName) -> Option<InterfaceId> {
        let index = self.0.iter().position(|interface| interface.as_ref().is_some_and(|it| it.name == *name))?;
        u16::try_from(index).ok().map(InterfaceId)
    }

    /// Adds an interface that is not there yet.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub(crate) fn add(&mut self, name: &InterfaceName, kind: InterfaceKind) -> Result<InterfaceId, Refusal> {
        let interface = Some(Interface {
            name: name.clone(),
            kind,
            tunnel: None,
            in_place: Some(Surroundings::USUAL),
            counters: InterfaceCounters::default(),
        });
        let full = || Refusal::Full(format!("{} interfaces", Self::MOST));
        let index = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if index >= Self::MOST {
            return Err(full());
        }
        match self.0.get_mut(index) {
            Some(place) => *place = interface,
            None => self.0.push(interface),
        }
        u16::try_from(index).map(InterfaceId).map_err(|_| full())
    }

    pub(crate) fn remove(&mut self, id: InterfaceId) {
        if let Some(place) = self.0.get_mut(usize::from(id.0)) {
            *place = None;
        }
    }
}
