//! From a tunnel's packet to what is inside.

use std::ops::Range;

use espdp_api::{InterfaceKind, L2tpCarrier, L2tpSublayer, Layer};
use tunnel_codec::ethernet::{HEADER_LEN, ether_type};
use tunnel_codec::gre::{self, GreHeader};
use tunnel_codec::l2tp::{self, Carrier};
use tunnel_codec::{udp, vxlan};

use super::{Arrival, Tunnel};
use crate::DropReason;
use crate::packet::protocol;

/// What was inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    /// An IP packet of this family; where it stands.
    Packet {
        /// Whether it was announced as IPv4.
        is_ipv4: bool,
        /// Within the payload.
        at: Range<usize>,
    },
    /// An Ethernet frame; where it stands.
    Frame {
        /// Within the payload.
        at: Range<usize>,
    },
}

impl Tunnel {
    /// Takes the tunnel's headers off `payload`, which stands behind the IP header, or with UDP behind the UDP header. Everything
    /// in them must be the tunnel's: ends, ports, key, VNI, session, cookie, and where there are sequence numbers they must go up.
    ///
    /// # Errors
    /// [`DropReason::TunnelEnds`], [`DropReason::TunnelKey`], [`DropReason::TunnelHeader`], [`DropReason::TunnelOrder`].
    pub(crate) fn unwrap(&mut self, arrival: &Arrival, payload: &[u8]) -> Result<Inner, DropReason> {
        if arrival.local != self.ends.local || !self.is_peer(arrival.remote) {
            return Err(DropReason::TunnelEnds);
        }
        match (self.kind, arrival.protocol, arrival.ports) {
            (InterfaceKind::Ipip, protocol::IPV4 | protocol::IPV6, _) => {
                Ok(Inner::Packet { is_ipv4: arrival.protocol == protocol::IPV4, at: 0..payload.len() })
            }
            (InterfaceKind::Gre(_), gre::PROTOCOL, _) => self.unwrap_gre(payload),
            (InterfaceKind::Vxlan(own), udp::PROTOCOL, Some((local_port, _))) if local_port == own.port => {
                let (vni, frame) = vxlan::parse(payload).map_err(|_| DropReason::TunnelHeader)?;
                if vni != own.vni.value() {
                    return Err(DropReason::TunnelKey);
                }
                frame_in(payload, frame)
            }
            (InterfaceKind::L2tpv3(own), l2tp::PROTOCOL, _) if own.carrier == L2tpCarrier::Ip => {
                self.unwrap_l2tp(Carrier::Ip, payload)
            }
            (InterfaceKind::L2tpv3(own), udp::PROTOCOL, Some((local_port, remote_port)))
                if own.carrier == (L2tpCarrier::Udp { local_port, remote_port }) =>
            {
                self.unwrap_l2tp(Carrier::Udp, payload)
            }
            _ => Err(DropReason::TunnelHeader),
        }
    }

    fn unwrap_gre(&mut self, payload: &[u8]) -> Result<Inner, DropReason> {
        let InterfaceKind::Gre(own) = self.kind else { return Err(DropReason::TunnelHeader) };
        let (header, inner) = GreHeader::parse(payload).map_err(|_| DropReason::TunnelHeader)?;
        if header.key != own.key {
            return Err(DropReason::TunnelKey);
        }
        if own.checksum && !header.has_checksum {
            return Err(DropReason::TunnelHeader);
        }
        let found = match (own.layer, header.protocol) {
            (Layer::Ip, ether_type::IPV4 | ether_type::IPV6) => {
                Inner::Packet { is_ipv4: header.protocol == ether_type::IPV4, at: rest_of(payload, inner) }
            }
            (Layer::Ethernet, ether_type::TEB) => frame_in(payload, inner)?,
            _ => return Err(DropReason::TunnelHeader),
        };
        self.check_order(header.sequence)?;
        Ok(found)
    }

    fn unwrap_l2tp(&mut self, carrier: Carrier, payload: &[u8]) -> Result<Inner, DropReason> {
        let InterfaceKind::L2tpv3(own) = self.kind else { return Err(DropReason::TunnelHeader) };
        let (session, rest) = l2tp::session(carrier, payload).map_err(|_| DropReason::TunnelHeader)?;
        if session != own.session {
            return Err(DropReason::TunnelKey);
        }
        let opened = l2tp::open(rest, own.cookie.octets(), own.sublayer != L2tpSublayer::None);
        let (sequence, frame) = opened.map_err(|error| match error {
            l2tp::L2tpError::Cookie => DropReason::TunnelKey,
            l2tp::L2tpError::Short | l2tp::L2tpError::Control | l2tp::L2tpError::Version(_) => DropReason::TunnelHeader,
        })?;
        let found = frame_in(payload, frame)?;
        self.check_order(sequence)?;
        Ok(found)
    }

    /// Packets without a number are in order wherever they come (RFC 2890 §2.2).
    fn check_order(&mut self, sequence: Option<u32>) -> Result<(), DropReason> {
        let is_late = self.is_sequenced() && sequence.is_some_and(|number| !self.order.accept(number));
        if is_late { Err(DropReason::TunnelOrder) } else { Ok(()) }
    }
}

/// A frame with at least its header.
fn frame_in(payload: &[u8], frame: &[u8]) -> Result<Inner, DropReason> {
    if frame.len() < HEADER_LEN {
        return Err(DropReason::TunnelHeader);
    }
    Ok(Inner::Frame { at: rest_of(payload, frame) })
}

/// Where `rest`, which ends with `payload`, stands in it.
fn rest_of(payload: &[u8], rest: &[u8]) -> Range<usize> {
    payload.len() - rest.len()..payload.len()
}
