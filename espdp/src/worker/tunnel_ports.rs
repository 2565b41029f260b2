//! The sockets that receive packets of tunnels in clear. They are open for as long as an interface needs them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use espdp_api::{Encapsulation, InterfaceKind, InterfaceSpec, L2tpCarrier, OuterPath, Protection};
use espdp_core::Origin;
use rustix::event::epoll;
use tunnels::Family;

use super::counters::Loss;
use super::{BUDGET, Token, Worker};
use crate::StartError;
use crate::io::port::Port;

/// Which packets a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TunnelPortId {
    family: Family,
    carrier: Carrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Carrier {
    /// An IP protocol.
    Protocol(u8),
    /// A UDP port.
    Udp(u16),
}

impl TunnelPortId {
    /// What an interface needs: nothing unless its packets may come in clear.
    pub(crate) fn of(spec: &InterfaceSpec) -> Vec<Self> {
        let (Some(ends), Protection::None) = (spec.ends, spec.protection) else { return Vec::new() };
        let carriers = match spec.kind {
            InterfaceKind::Ipip => {
                vec![Carrier::Protocol(IP_IN_IP), Carrier::Protocol(IPV6_IN_IP)]
            }
            InterfaceKind::Gre(_) => vec![Carrier::Protocol(tunnel_codec::gre::PROTOCOL)],
            InterfaceKind::Vxlan(vxlan) => vec![Carrier::Udp(vxlan.port)],
            InterfaceKind::L2tpv3(l2tp) => match l2tp.carrier {
                L2tpCarrier::Ip => vec![Carrier::Protocol(tunnel_codec::l2tp::PROTOCOL)],
                L2tpCarrier::Udp { local_port, .. } => vec![Carrier::Udp(local_port)],
            },
            InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => {
                Vec::new()
            }
        };
        let family = ends.local.into();
        carriers.into_iter().map(|carrier| Self { family, carrier }).collect()
    }

    /// Opens the socket in the network namespace of the calling thread.
    pub(crate) fn open(self) -> Result<Port, StartError> {
        match self.carrier {
            Carrier::Protocol(protocol) => Port::tunnel(self.family, protocol),
            Carrier::Udp(port) => Port::udp_tunnel(self.family, port),
        }
    }
}

/// IP in IP: RFC 2003, RFC 2473.
const IP_IN_IP: u8 = 4;
/// IPv6 in IP: RFC 4213, RFC 2473.
const IPV6_IN_IP: u8 = 41;

/// All of them; each keeps its place for as long as it is open.
#[derive(Debug, Default)]
pub(super) struct TunnelPorts(Vec<Option<(TunnelPortId, Port)>>);

impl Worker {
    /// Closes all sockets for tunnels but those that are still wanted, and takes new ones into service.
    pub(crate) fn set_tunnel_ports(
        &mut self,
        wanted: &BTreeSet<TunnelPortId>,
        opened: Vec<(TunnelPortId, Port)>,
    ) -> io::Result<()> {
        let places = &mut self.tunnel_ports.0;
        for place in places.iter_mut() {
            if place.as_ref().is_some_and(|(id, _)| !wanted.contains(id)) {
                *place = None;
            }
        }
        for (id, port) in opened {
            let free = places.iter().position(Option::is_none).unwrap_or(places.len());
            let index = u16::try_from(free).map_err(io::Error::other)?;
            epoll::add(&self.epoll, &port, Token::TunnelPort(index).into(), epoll::EventFlags::IN)?;
            match places.get_mut(free) {
                Some(place) => *place = Some((id, port)),
                None => places.push(Some((id, port))),
            }
        }
        Ok(())
    }

    /// The sockets for tunnels that are open.
    pub(crate) fn tunnel_ports(&self) -> BTreeSet<TunnelPortId> {
        self.tunnel_ports.0.iter().flatten().map(|(id, _)| *id).collect()
    }

    /// From other ends of tunnels to the inside.
    pub(super) fn receive_tunnel(&mut self, index: u16, now: Instant) {
        for _ in 0..BUDGET {
            let Some(Some((id, port))) = self.tunnel_ports.0.get_mut(usize::from(index)) else { return };
            let mut drained = false;
            while let Some(space) = self.inbound.space() {
                let (len, source, about) = match port.receive(space) {
                    Ok(Some(received)) => received,
                    Ok(None) => {
                        drained = true;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%error, ?id, "a receive failed");
                        self.losses.count(Loss::ReceiveFailed, 1);
                        drained = true;
                        break;
                    }
                };
                let Some(local) = about.local else { continue };
                let origin = |remote: IpAddr, encapsulation| Origin {
                    path: OuterPath { local, remote, encapsulation },
                    traffic_class: about.traffic_class,
                    hop_limit: about.hop_limit,
                };
                match id.carrier {
                    Carrier::Protocol(protocol) => {
                        self.inbound.add_raw_tunnel(len, protocol, origin(source.ip(), Encapsulation::Esp));
                    }
                    Carrier::Udp(local_port) => {
                        let udp = Encapsulation::Udp { local_port, remote_port: source.port() };
                        self.inbound.add_udp_tunnel(len, about.segment.unwrap_or(len), origin(source.ip(), udp));
                    }
                }
            }
            self.open_and_deliver(now);
            if drained {
                break;
            }
        }
    }
}
