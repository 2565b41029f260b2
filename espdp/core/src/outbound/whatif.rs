//! What would become of a packet: the same look-ups as for one that is there, and nothing is sent, counted or asked for.

use espdp_api::{
    Carriage, Encapsulation, Fitting, InboundVerdict, InterfaceKind, IpsecProtocol, Layer, OutboundFate,
    OutboundVerdict, PolicyAction, PolicyId,
};
use tunnel_codec::{ethernet, ip, udp};

use super::envelope::{Envelope, Fit};
use super::inside::{Content, Inside};
use super::{Refused, Verdict, without_route};
use crate::packet::Header;
use crate::policy::{Route, Selected};
use crate::segment::Segmenter;
use crate::{Dataplane, DropReason, InterfaceId, VnetHeader};

/// What was found on the way.
#[derive(Default)]
struct Found {
    tunnel: Option<InterfaceKind>,
    policy: Option<(PolicyId, PolicyAction)>,
}

impl Dataplane {
    /// What would become of an IP packet that came from the inside of an interface; in a frame, where that carries frames. `None`
    /// when there is no such interface.
    #[must_use]
    pub fn what_if_sent(&mut self, id: InterfaceId, packet: &[u8]) -> Option<OutboundVerdict> {
        let interface = self.interfaces.get(id)?.name().clone();
        let mut found = Found::default();
        let fate = self.fate_of(id, packet, &mut found).unwrap_or_else(|Refused { reason, sa }| {
            let spi = sa.and_then(|place| self.outbound.get(place)).map(|sa| sa.core.spi.value());
            OutboundFate::Dropped { reason: reason.name().to_owned(), spi }
        });
        let Found { tunnel, policy } = found;
        Some(OutboundVerdict { interface, tunnel, policy, fate })
    }

    /// What would become of an IP packet that an SA brought, for the inside of an interface. `None` when there is no such interface.
    #[must_use]
    pub fn what_if_received(&mut self, id: InterfaceId, packet: &[u8]) -> Option<InboundVerdict> {
        let of_interface = self.interfaces.get(id)?;
        let (interface, kind) = (of_interface.name().clone(), of_interface.kind);
        let Some(selected) = self.selected_on_arrival(id, packet) else {
            let reason = Some(DropReason::BadInner.name().to_owned());
            return Some(InboundVerdict { interface, policy: None, sas: Vec::new(), reason });
        };
        let (mut sas, mut has_sas) = (Vec::new(), false);
        for sa in self.inbound.iter().filter(|sa| sa.core.interface == id) {
            has_sas = true;
            let (core, peer) = (&sa.core, sa.core.path.remote);
            let selected = match (kind, core.mode) {
                (InterfaceKind::Ipip, espdp_api::Mode::Transport) => {
                    Selected::ip_in_ip(core.path.local, peer, selected.remote.is_ipv4())
                }
                _ => selected,
            };
            let takes = core.selectors.matches(&self.policies.for_sa(&selected, core.policy))
                && self.policies.admit(id, &selected, core.policy, peer, &self.outbound).is_ok();
            if takes {
                sas.push((core.spi.value(), core.policy));
            }
        }
        let policy = self.policies.selecting_inbound(id, &selected);
        let policy = policy.and_then(|policy| Some((policy, self.policies.action(policy)?)));
        let reason = match policy {
            _ if !sas.is_empty() => None,
            None => Some(DropReason::NoPolicy),
            Some((_, PolicyAction::Discard)) => Some(DropReason::Discard),
            Some(_) if has_sas => Some(DropReason::Selectors),
            Some(_) => Some(DropReason::NoSa),
        };
        Some(InboundVerdict { interface, policy, sas, reason: reason.map(|reason| reason.name().to_owned()) })
    }

    /// As [`super::Filling::push`] decides.
    fn fate_of(&mut self, id: InterfaceId, packet: &[u8], found: &mut Found) -> Result<OutboundFate, Refused> {
        let interface = self.interfaces.get(id).ok_or(DropReason::NoPolicy)?;
        let (kind, vnet) = (interface.kind, VnetHeader::default());
        if interface.lacks_tunnel() {
            return Err(DropReason::NoTunnel.into());
        }
        let Some(tunnel) = interface.tunnel.as_deref() else {
            let header = Header::parse(packet).ok_or(DropReason::Malformed)?;
            let content = Segmenter::new(&vnet, packet, &header)?;
            return self.fate_among_policies(id, kind, &header, &content, found);
        };
        found.tunnel = Some(kind);
        let framed = framed(kind.layer(), packet);
        let inside = Inside::new(kind.layer(), vnet, &framed)?;
        let front = tunnel.front(inside.ip(), &framed)?;
        let wrapped = inside.wrap(front, 0)?;
        if tunnel.is_plain() {
            return Ok(OutboundFate::InClear);
        }
        self.fate_among_policies(id, kind, &front.header(wrapped.len(0)), &wrapped, found)
    }

    /// What the policies say to a packet with this header, and whether it fits then.
    fn fate_among_policies(
        &mut self,
        id: InterfaceId,
        kind: InterfaceKind,
        header: &Header,
        content: &impl Content,
        found: &mut Found,
    ) -> Result<OutboundFate, Refused> {
        let policy = self.policies.selecting(id, kind, header, &self.outbound);
        found.policy = policy.and_then(|policy| Some((policy, self.policies.action(policy)?)));
        let place = match self.policies.route(id, kind, header, &self.outbound) {
            Ok(Route::Protect(place)) => place,
            Ok(Route::Bypass) => return Ok(OutboundFate::InClear),
            Err(miss) => match without_route(miss)? {
                Verdict::HandOver(worker) => return Ok(OutboundFate::Elsewhere(worker)),
                Verdict::Protect(place) => place,
                Verdict::Clear(_) => return Ok(OutboundFate::InClear),
            },
        };
        let sa = self.outbound.get(place).ok_or(DropReason::NoSa)?;
        let refused_by_sa = |reason| Refused { reason, sa: Some(place) };
        let envelope = Envelope::new(sa, kind, header).map_err(refused_by_sa)?;
        let (len, path) = (content.len(0), sa.path());
        let brings_header = envelope.own_header() > 0 || sa.core.protocol == IpsecProtocol::Ah;
        let outer = match (brings_header, path.remote.is_ipv6()) {
            (true, _) => 0,
            (false, false) => ip::V4_LEN,
            (false, true) => ip::V6_LEN,
        };
        let in_udp = if path.encapsulation == Encapsulation::Esp { 0 } else { udp::LEN };
        let of_tunnel = len.saturating_sub(content.inside_len(0));
        let most = envelope.most();
        Ok(OutboundFate::Protected(Carriage {
            spi: sa.core.spi.value(),
            protocol: sa.core.protocol,
            mode: sa.core.mode,
            path,
            wire_octets: envelope.len(sa, len) + outer + in_udp,
            path_mtu: sa.path_mtu(),
            longest: (most != usize::MAX).then(|| most.saturating_sub(of_tunnel)),
            fit: match envelope.fit(sa, content, 0) {
                Fit::Whole => Fitting::Whole,
                Fit::CutOutside => Fitting::CutOutside,
                Fit::CutInside => Fitting::CutInside,
                Fit::TooBig(mtu) => Fitting::TooBig(mtu),
            },
        }))
    }

    /// The packet as policies see it when it arrives: in the headers of its interface's tunnel, if there is one.
    fn selected_on_arrival(&self, id: InterfaceId, packet: &[u8]) -> Option<Selected> {
        let interface = self.interfaces.get(id)?;
        let Some(tunnel) = interface.tunnel.as_deref() else {
            return Header::parse(packet).map(|header| Selected::inbound(&header));
        };
        // What we would send back, seen from the other end, is what comes.
        let back = framed(interface.kind.layer(), &turned(packet)?);
        let inside = Inside::new(interface.kind.layer(), VnetHeader::default(), &back).ok()?;
        let sent = Selected::outbound(&tunnel.front(inside.ip(), &back).ok()?.header(back.len()));
        if matches!(interface.kind, InterfaceKind::Vxlan(_)) {
            // RFC 7348 §5: both ends send to the same port, from any one.
            return Some(Selected { local_port: sent.remote_port, remote_port: sent.local_port, ..sent });
        }
        Some(sent)
    }
}

/// The packet with its addresses changed for each other.
fn turned(packet: &[u8]) -> Option<Vec<u8>> {
    let mut turned = packet.to_vec();
    let is_ipv4 = packet.first()? >> 4 == 4;
    let addresses = if is_ipv4 { turned.get_mut(12..20)? } else { turned.get_mut(8..40)? };
    addresses.rotate_left(addresses.len() / 2);
    Some(turned)
}

/// A packet as the inside of an interface of this layer gives it.
fn framed(layer: Layer, packet: &[u8]) -> Vec<u8> {
    if layer == Layer::Ip {
        return packet.to_vec();
    }
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let kind = if is_ipv4 { ethernet::ether_type::IPV4 } else { ethernet::ether_type::IPV6 };
    [&[0; 12][..], &kind.to_be_bytes(), packet].concat()
}
