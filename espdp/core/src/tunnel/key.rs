//! What the packets of different tunnels differ in.

use std::net::IpAddr;

use espdp_api::{InterfaceKind, L2tpCarrier};
use tunnel_codec::{gre, l2tp, udp, vxlan};

use crate::DropReason;
use crate::packet::protocol;

/// How a packet of a tunnel came: its outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Our address.
    pub(crate) local: IpAddr,
    /// The peer's address.
    pub(crate) remote: IpAddr,
    /// The IP protocol.
    pub(crate) protocol: u8,
    /// With UDP our port and the peer's.
    pub(crate) ports: Option<(u16, u16)>,
}

/// What a tunnel's packets are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TunnelKey {
    local: IpAddr,
    /// `None` for a tunnel with many peers.
    remote: Option<IpAddr>,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ipip,
    Gre { key: Option<u32> },
    Vxlan { port: u16, vni: u32 },
    L2tp { local_port: Option<u16>, session: u32 },
    Nothing,
}

impl TunnelKey {
    /// The key of a tunnel of this kind.
    pub(crate) fn of(kind: InterfaceKind, local: IpAddr, remote: Option<IpAddr>) -> Self {
        let what = match kind {
            InterfaceKind::Ipip => What::Ipip,
            InterfaceKind::Gre(gre) => What::Gre { key: gre.key },
            InterfaceKind::Vxlan(vxlan) => What::Vxlan { port: vxlan.port, vni: vxlan.vni.value() },
            InterfaceKind::L2tpv3(l2tp) => {
                let local_port = match l2tp.carrier {
                    L2tpCarrier::Ip => None,
                    L2tpCarrier::Udp { local_port, .. } => Some(local_port),
                };
                What::L2tp { local_port, session: l2tp.session }
            }
            InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => {
                What::Nothing
            }
        };
        Self { local, remote, what }
    }

    /// The key of a packet: `payload` stands behind the IP header, or with UDP behind the UDP header. A UDP port is of VXLAN or of
    /// L2TP; which, `is_vxlan` knows.
    ///
    /// # Errors
    /// [`DropReason::TunnelHeader`].
    pub(crate) fn of_packet(
        arrival: &Arrival,
        payload: &[u8],
        is_vxlan: impl Fn(u16) -> bool,
    ) -> Result<Self, DropReason> {
        let wrong = DropReason::TunnelHeader;
        let what = match (arrival.protocol, arrival.ports) {
            (protocol::IPV4 | protocol::IPV6, _) => What::Ipip,
            (gre::PROTOCOL, _) => What::Gre { key: gre::GreHeader::parse(payload).map_err(|_| wrong)?.0.key },
            (l2tp::PROTOCOL, _) => {
                let (session, _) = l2tp::session(l2tp::Carrier::Ip, payload).map_err(|_| wrong)?;
                What::L2tp { local_port: None, session }
            }
            (udp::PROTOCOL, Some((port, _))) if is_vxlan(port) => {
                What::Vxlan { port, vni: vxlan::parse(payload).map_err(|_| wrong)?.0 }
            }
            (udp::PROTOCOL, Some((port, _))) => {
                let (session, _) = l2tp::session(l2tp::Carrier::Udp, payload).map_err(|_| wrong)?;
                What::L2tp { local_port: Some(port), session }
            }
            _ => return Err(wrong),
        };
        Ok(Self { local: arrival.local, remote: Some(arrival.remote), what })
    }

    /// The same key with any remote end.
    pub(crate) fn with_any_peer(self) -> Self {
        Self { remote: None, ..self }
    }

    /// The UDP port of a VXLAN tunnel.
    pub(crate) fn vxlan_port(&self) -> Option<u16> {
        match self.what {
            What::Vxlan { port, .. } => Some(port),
            What::Ipip | What::Gre { .. } | What::L2tp { .. } | What::Nothing => None,
        }
    }
}
