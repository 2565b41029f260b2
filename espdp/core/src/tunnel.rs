//! Tunnels: the headers that an interface puts in front of what comes from its inside, and takes off what comes for it.
//!
//! ```text
//!  inside ─▶ Front ─▶ [IP][tunnel][inner] ─▶ look-up among the interface's policies ─▶ transport: ESP([tunnel][inner])
//!                                                                                   ─▶ tunnel: ESP([IP][tunnel][inner])
//!                                         ─▶ an interface without protection: in clear, routed as any other packet
//! ```

mod front;
mod key;
mod unwrap;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use espdp_api::{
    DfPolicy, DscpPolicy, InterfaceKind, InterfaceName, InterfaceSpec, L2tpSublayer, NextHop, Protection, Refusal,
    TunnelEnds,
};
use tunnel_codec::order::Order;

use crate::packet::Header;
use crate::{DropReason, InterfaceId, ecn};
pub(crate) use front::Front;
pub use front::tunnel_octets;
pub(crate) use key::{Arrival, TunnelKey};
pub(crate) use unwrap::Inner;

/// The tunnel of an interface.
#[derive(Debug)]
pub(crate) struct Tunnel {
    kind: InterfaceKind,
    ends: TunnelEnds,
    protection: Protection,
    /// The longest prefixes first.
    next_hops: Vec<NextHop>,
    /// The sequence number of the next packet, where there are any.
    sequence: u32,
    /// The identification of the next outer IPv4 header.
    identification: u16,
    order: Order,
}

impl Tunnel {
    /// The tunnel that `spec` describes; `None` when its interface puts no header of its own in front: ESP alone does, or
    /// nobody (devices without a tunnel).
    ///
    /// # Errors
    /// [`Refusal::BadInterface`] when something is missing or contradicts itself.
    pub(crate) fn new(spec: &InterfaceSpec) -> Result<Option<Self>, Refusal> {
        let bad = |why: &str| Refusal::BadInterface { interface: spec.name.clone(), reason: why.to_owned() };
        let needs_ends = match spec.kind {
            InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_) => true,
            // Protected IP in IP has its header from the SA: in tunnel mode ESP brings it, in transport mode it is that of ESP.
            InterfaceKind::Ipip => spec.protection == Protection::None,
            InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => false,
        };
        if !needs_ends {
            return Ok(None);
        }
        let ends = spec.ends.ok_or_else(|| bad("the ends of the tunnel are missing"))?;
        let is_multipoint = matches!(spec.kind, InterfaceKind::Gre(_)) && !spec.next_hops.is_empty();
        if ends.remote.is_none() && !is_multipoint {
            return Err(bad("the remote end is missing, and there are no next hops (which only GRE can have)"));
        }
        if ends.remote.is_some() && !spec.next_hops.is_empty() {
            return Err(bad("a tunnel has a remote end or next hops, not both"));
        }
        let remotes = ends.remote.into_iter().chain(spec.next_hops.iter().map(|hop| hop.remote));
        if remotes.into_iter().any(|remote| remote.is_ipv4() != ends.local.is_ipv4()) {
            return Err(bad("the ends of the tunnel are of different families"));
        }
        if let InterfaceKind::L2tpv3(l2tp) = spec.kind
            && (l2tp.session == 0 || l2tp.peer_session == 0)
        {
            return Err(bad("session id 0 is for control messages"));
        }
        if let DscpPolicy::Fixed(64..) = ends.dscp {
            return Err(bad("DSCP is above 63"));
        }
        let mut next_hops = spec.next_hops.clone();
        next_hops.sort_by_key(|hop| std::cmp::Reverse(hop.inner.bits()));
        let order = if matches!(spec.kind, InterfaceKind::L2tpv3(_)) { Order::l2tp() } else { Order::gre() };
        let (kind, protection) = (spec.kind, spec.protection);
        Ok(Some(Self { kind, ends, protection, next_hops, sequence: 0, identification: 0, order }))
    }

    /// As [`Self::new`] describes it, with the numbers of the tunnel that was there before.
    pub(crate) fn continuing(self, old: Option<Self>) -> Self {
        match old {
            Some(Self { kind, sequence, identification, order, .. }) if kind == self.kind => {
                Self { sequence, identification, order, ..self }
            }
            _ => self,
        }
    }

    /// Whether its packets may be in clear on the outside.
    pub(crate) fn is_plain(&self) -> bool {
        self.protection == Protection::None
    }

    /// What packets of this tunnel are known by on arrival.
    pub(crate) fn key(&self) -> TunnelKey {
        TunnelKey::of(self.kind, self.ends.local, self.ends.remote)
    }

    /// The headers for a packet: `inner` is its IP header, if it has one, `frame` the frame that it is, if it is one.
    ///
    /// # Errors
    /// [`DropReason::NoNextHop`].
    pub(crate) fn front(&self, inner: Option<&Header>, frame: &[u8]) -> Result<Front, DropReason> {
        let remote = self.remote(inner).ok_or(DropReason::NoNextHop)?;
        let traffic_class = inner.map_or(0, |inner| inner.traffic_class);
        let dscp = match self.ends.dscp {
            DscpPolicy::Copy => traffic_class & !ecn::MASK,
            DscpPolicy::Fixed(dscp) => dscp << 2,
        };
        // Decapsulators of L2TP do not combine ECN marks, so there must not be any (RFC 6040 §4.1: compatibility mode).
        let ecn = if matches!(self.kind, InterfaceKind::L2tpv3(_)) { 0 } else { ecn::encapsulate(traffic_class) };
        let dont_fragment = match self.ends.df {
            DfPolicy::Copy => inner.is_some_and(|inner| inner.dont_fragment),
            DfPolicy::Set => true,
            DfPolicy::Clear => false,
        };
        let ip = tunnel_codec::ip::IpHeader {
            source: self.ends.local,
            destination: remote,
            protocol: 0,
            hop_limit: self.ends.hop_limit,
            traffic_class: dscp | ecn,
            dont_fragment,
            identification: self.identification,
        };
        let is_ipv4 = inner.is_none_or(Header::is_ipv4);
        Ok(Front::new(self.kind, ip, is_ipv4, frame, self.sequence))
    }

    /// Says that `packets` were wrapped.
    pub(crate) fn advance(&mut self, packets: usize) {
        let packets = packets as u32;
        self.sequence = self.sequence.wrapping_add(packets);
        self.identification = self.identification.wrapping_add(packets as u16);
    }

    /// The outer destination of a packet. Frames that carry no IP packet cannot be told a next hop.
    fn remote(&self, inner: Option<&Header>) -> Option<IpAddr> {
        if let Some(remote) = self.ends.remote {
            return Some(remote);
        }
        let destination = inner?.destination;
        self.next_hops.iter().find(|hop| hop.inner.contains(destination)).map(|hop| hop.remote)
    }

    /// Whether packets may come from this outer address.
    fn is_peer(&self, address: IpAddr) -> bool {
        match self.ends.remote {
            Some(remote) => remote == address,
            None => self.next_hops.iter().any(|hop| hop.remote == address),
        }
    }

    /// Whether sequence numbers keep packets in order.
    fn is_sequenced(&self) -> bool {
        match self.kind {
            InterfaceKind::Gre(gre) => gre.sequence,
            InterfaceKind::L2tpv3(l2tp) => l2tp.sublayer == L2tpSublayer::Sequenced,
            InterfaceKind::Ipsec
            | InterfaceKind::Ipip
            | InterfaceKind::Vxlan(_)
            | InterfaceKind::Tap
            | InterfaceKind::Host
            | InterfaceKind::Memory { .. } => false,
        }
    }
}

/// Which tunnel a packet belongs to that comes in clear.
#[derive(Debug, Default)]
pub(crate) struct TunnelIndex {
    interfaces: BTreeMap<TunnelKey, InterfaceId>,
    /// The UDP ports of VXLAN tunnels.
    vxlan_ports: BTreeSet<u16>,
}

impl TunnelIndex {
    /// Looks whether a tunnel with this key could be entered for the interface `id`, or for one that has none yet.
    ///
    /// # Errors
    /// [`Refusal::BadInterface`] when another one has the same key: nobody could tell their packets apart.
    pub(crate) fn check(
        &self,
        id: Option<InterfaceId>,
        name: &InterfaceName,
        key: Option<TunnelKey>,
    ) -> Result<(), Refusal> {
        if let Some(key) = key
            && self.interfaces.get(&key).is_some_and(|other| Some(*other) != id)
        {
            let reason = "another interface has the same ends and the same key, VNI or session".to_owned();
            return Err(Refusal::BadInterface { interface: name.clone(), reason });
        }
        Ok(())
    }

    /// Enters the tunnel of an interface, or takes it out.
    ///
    /// # Errors
    /// See [`Self::check`].
    pub(crate) fn set(&mut self, id: InterfaceId, name: &InterfaceName, key: Option<TunnelKey>) -> Result<(), Refusal> {
        self.check(Some(id), name, key)?;
        self.interfaces.retain(|_, other| *other != id);
        self.interfaces.extend(key.map(|key| (key, id)));
        self.vxlan_ports = self.interfaces.keys().filter_map(TunnelKey::vxlan_port).collect();
        Ok(())
    }

    /// Whether there is a VXLAN tunnel on this UDP port.
    pub(crate) fn has_vxlan_on(&self, port: u16) -> bool {
        self.vxlan_ports.contains(&port)
    }

    /// The interface that a packet is for: one with this remote end before one with next hops.
    pub(crate) fn find(&self, key: TunnelKey) -> Option<InterfaceId> {
        self.interfaces.get(&key).or_else(|| self.interfaces.get(&key.with_any_peer())).copied()
    }
}
