//! What selectors see of a packet, and which packets they select.

use std::net::IpAddr;

use espdp_api::{PortRange, TrafficSelector};

use crate::packet::{Header, protocol};

/// The selectors of a policy or an SA: any of ours together with any of the peer's.
#[derive(Clone, Debug)]
pub(crate) struct Selectors {
    local: Box<[TrafficSelector]>,
    remote: Box<[TrafficSelector]>,
    all_ipv4: bool,
    all_ipv6: bool,
}

/// One packet as selectors see it, turned so that `local` is our side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_port: Option<u16>,
    /// Whether the ports are those of another fragment of the packet.
    pub(crate) is_completed: bool,
}

impl Selected {
    /// A packet on its way to the peer.
    pub(crate) fn outbound(header: &Header) -> Self {
        Self {
            local: header.source,
            remote: header.destination,
            protocol: header.protocol,
            local_port: header.source_port,
            remote_port: header.destination_port,
            is_completed: header.is_completed,
        }
    }

    /// A packet that came from the peer.
    pub(crate) fn inbound(header: &Header) -> Self {
        Self {
            local: header.destination,
            remote: header.source,
            protocol: header.protocol,
            local_port: header.destination_port,
            remote_port: header.source_port,
            is_completed: header.is_completed,
        }
    }

    /// What the packet shows by itself.
    pub(super) fn as_it_is(&self) -> Self {
        if self.is_completed { Self { local_port: None, remote_port: None, ..*self } } else { *self }
    }

    /// Whether the packet has ports that cannot be seen: it is a later fragment, or cut off.
    pub(crate) fn hides_ports(&self) -> bool {
        let is_hidden = self.local_port.is_none() && self.remote_port.is_none();
        is_hidden && (protocol::has_ports(self.protocol) || protocol::is_extension_header(self.protocol))
    }

    /// An IP-in-IP packet between the gateways.
    pub(crate) fn ip_in_ip(local: IpAddr, remote: IpAddr, inner_is_ipv4: bool) -> Self {
        let protocol = if inner_is_ipv4 { protocol::IPV4 } else { protocol::IPV6 };
        Self { local, remote, protocol, local_port: None, remote_port: None, is_completed: false }
    }
}

impl Selectors {
    pub(crate) fn new(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Self {
        let all = |ipv4| {
            let covers = |selectors: &[TrafficSelector]| selectors.iter().any(|selector| covers_family(selector, ipv4));
            covers(local) && covers(remote)
        };
        Self { local: local.into(), remote: remote.into(), all_ipv4: all(true), all_ipv6: all(false) }
    }

    /// Whether a packet is selected (R4301-7.1-1, R4301-7.3-1).
    #[inline]
    pub(crate) fn matches(&self, packet: &Selected) -> bool {
        if self.matches_all(packet.remote.is_ipv4()) {
            return true;
        }
        let &Selected { local, remote, protocol, local_port, remote_port, .. } = packet;
        self.local.iter().any(|selector| selector.matches(local, protocol, local_port))
            && self.remote.iter().any(|selector| selector.matches(remote, protocol, remote_port))
    }

    /// Whether IP in IP between one host and another is selected.
    pub(super) fn name_ip_in_ip(&self, inner_is_ipv4: bool) -> bool {
        let host = |selectors: &[TrafficSelector]| {
            let is_host = |selector: &&TrafficSelector| selector.addresses.start() == selector.addresses.end();
            selectors.iter().find(is_host).map(|selector| selector.addresses.start())
        };
        let pair = host(&self.local).zip(host(&self.remote));
        pair.is_some_and(|(local, remote)| self.matches(&Selected::ip_in_ip(local, remote, inner_is_ipv4)))
    }

    /// Our side's selectors.
    pub(super) fn local(&self) -> &[TrafficSelector] {
        &self.local
    }

    /// The peer's side's selectors.
    pub(super) fn remote(&self) -> &[TrafficSelector] {
        &self.remote
    }

    /// Whether a packet whose ports, and with some extension headers whose protocol, cannot be seen might be selected.
    pub(super) fn may_match(&self, packet: &Selected) -> bool {
        let unknown = protocol::is_extension_header(packet.protocol);
        let may_match = |selector: &TrafficSelector, address: IpAddr| {
            let is_protocol = selector.protocol == 0 || selector.protocol == packet.protocol || unknown;
            selector.addresses.contains(address) && is_protocol
        };
        self.local.iter().any(|selector| may_match(selector, packet.local))
            && self.remote.iter().any(|selector| may_match(selector, packet.remote))
    }

    /// Whether ports make a difference.
    pub(super) fn name_ports(&self) -> bool {
        self.local.iter().chain(&self.remote).any(|selector| selector.ports != PortRange::ANY)
    }

    /// Whether the packet, whose ports cannot be seen, is selected because that was asked for (RFC 4301 §7.2).
    pub(super) fn wants_hidden_ports(&self, packet: &Selected) -> bool {
        let opaque =
            |selectors: &[TrafficSelector]| selectors.iter().any(|selector| selector.ports == PortRange::OPAQUE);
        (opaque(&self.local) || opaque(&self.remote)) && self.matches(packet)
    }

    /// How much of its family the widest selector takes, on the peer's side and on ours.
    pub(super) fn breadth(&self) -> Breadth {
        let widest = |selectors: &[TrafficSelector]| selectors.iter().map(breadth).max().unwrap_or_default();
        Breadth { remote: widest(&self.remote), local: widest(&self.local) }
    }

    /// Whether every packet of a family is selected, without looking.
    fn matches_all(&self, ipv4: bool) -> bool {
        if ipv4 { self.all_ipv4 } else { self.all_ipv6 }
    }
}

/// Of two policies that select the same packet, the one with less breadth is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Breadth {
    remote: (u128, u16, bool),
    local: (u128, u16, bool),
}

/// The number of addresses less one, in parts of the family so that IPv4 and IPv6 compare; the number of ports less one;
/// whether any protocol will do. What a selector covers is never broader than itself.
fn breadth(selector: &TrafficSelector) -> (u128, u16, bool) {
    let addresses = match (selector.addresses.start(), selector.addresses.end()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())) << 96,
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    (addresses, selector.ports.end.saturating_sub(selector.ports.start), selector.protocol == 0)
}

/// Whether a selector takes all packets of a family.
fn covers_family(selector: &TrafficSelector, ipv4: bool) -> bool {
    let (first, last) = (selector.addresses.start(), selector.addresses.end());
    let whole = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => ipv4 && first.to_bits() == 0 && last.to_bits() == u32::MAX,
        (IpAddr::V6(first), IpAddr::V6(last)) => !ipv4 && first.to_bits() == 0 && last.to_bits() == u128::MAX,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    whole && selector.protocol == 0 && selector.ports == PortRange::ANY
}

#[cfg(test)]
mod tests {
    use espdp_api::AddressRange;

    use super::*;

    #[test]
    fn only_whole_families_without_protocol_and_ports_are_everything() {
        let range = |first: &str, last: &str| {
            TrafficSelector::any_protocol(AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap())
        };
        let all = range("0.0.0.0", "255.255.255.255");
        assert!(covers_family(&all, true) && !covers_family(&all, false));
        assert!(covers_family(&range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), false));
        assert!(!covers_family(&range("0.0.0.1", "255.255.255.255"), true));
        assert!(!covers_family(&TrafficSelector { protocol: 6, ..all }, true));
        assert!(!covers_family(&TrafficSelector { ports: PortRange::OPAQUE, ..all }, true));
        let one_sided = Selectors::new(&[all], &[range("10.0.0.0", "10.0.0.255")]);
        assert!(!one_sided.matches_all(true));
    }
}
