//! From policies to the traffic that the guard keeps from passing the tunnels by.
//!
//! Packets reach a policy only when a route leads them into its interface. So what is guarded is what the policy's selectors
//! *and* the routes into its interface cover. That keeps a policy for any traffic (route-based tunnels) from closing the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, PolicySpec, PortRange, TrafficSelector};

use crate::Family;
use crate::state::{everything, range};

/// Traffic between our side and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) remote: AddressRange,
    pub(super) local: AddressRange,
    /// First and last protocol number.
    pub(super) protocol: (u8, u8),
    pub(super) ports: Ports,
}

/// Which packets of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ports {
    /// All.
    Any,
    /// Those with these ports, first and last.
    Pair { local: (u16, u16), remote: (u16, u16) },
    /// ICMP with these types (high octet) and codes, first and last.
    TypeAndCode((u16, u16)),
    /// Those whose ports cannot be seen: fragments but the first.
    Hidden,
}

impl Flow {
    /// Whether any packet is of both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            (Ports::Pair { local, remote }, Ports::Pair { local: others, remote: other }) => {
                meet(local, others) && meet(remote, other)
            }
            (Ports::TypeAndCode(own), Ports::TypeAndCode(other)) => meet(own, other),
            _ => true,
        };
        ports
            && meet(self.protocol, other.protocol)
            && self.remote.intersection(&other.remote).is_some()
            && self.local.intersection(&other.local).is_some()
    }

    /// Whether every packet of `other` is also of this one; both of the same kind of [`Ports`].
    pub(super) fn covers(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            (Ports::Pair { local, remote }, Ports::Pair { local: others, remote: other }) => {
                holds(local, others) && holds(remote, other)
            }
            (Ports::TypeAndCode(own), Ports::TypeAndCode(other)) => holds(own, other),
            (own, other) => own == other,
        };
        ports
            && holds(self.protocol, other.protocol)
            && self.remote.intersection(&other.remote) == Some(other.remote)
            && self.local.intersection(&other.local) == Some(other.local)
    }
}

/// What is guarded for `policy`, when the routes into its interface lead to `routes`. What can only be said roughly is said
/// broadly: rather a packet too many is dropped than one too few.
pub(super) fn guarded(policy: &PolicySpec, routes: &[AddressRange]) -> Vec<Flow> {
    if speaks_of_wrapped_packets(policy) {
        let everything = |route: &AddressRange| Flow {
            remote: *route,
            local: whole_family(route.start()),
            protocol: ANY_PROTOCOL,
            ports: Ports::Any,
        };
        return policy.routes.iter().map(|route| everything(&range(*route))).collect();
    }
    pairs(policy, routes, |local, remote| {
        let mut ports = visible(local, remote);
        if ports.iter().any(|(_, ports)| *ports != Ports::Any) || is_opaque(local, remote) {
            let protocol = protocol_of(local, remote).map_or(ANY_PROTOCOL, |protocol| (protocol, protocol));
            ports.push((protocol, Ports::Hidden));
        }
        ports
    })
}

/// What is let pass for a policy that lets packets pass in clear. What can only be said roughly is left out.
pub(super) fn exempt(policy: &PolicySpec, routes: &[AddressRange]) -> Vec<Flow> {
    pairs(policy, routes, |local, remote| {
        let is_mobility = protocol_of(local, remote) == Some(MOBILITY);
        if is_mobility && !(local.ports == PortRange::ANY && remote.ports == PortRange::ANY) {
            return Vec::new();
        }
        let mut visible = visible(local, remote);
        visible.retain(|(protocol, ports)| *protocol != (MOBILITY, MOBILITY) || *ports != Ports::Any || is_mobility);
        visible
    })
}

/// Selectors of IP in IP in transport mode tell the ends of the tunnel, not what is inside.
fn speaks_of_wrapped_packets(policy: &PolicySpec) -> bool {
    let is_led_in = |remote: &TrafficSelector| {
        policy.routes.iter().any(|route| range(*route).intersection(&remote.addresses).is_some())
    };
    !policy.routes.is_empty() && !policy.remote.iter().any(is_led_in)
}

/// Every pair of selectors, with what of the peer's side the routes lead to.
fn pairs(
    policy: &PolicySpec,
    routes: &[AddressRange],
    ports: impl Fn(&TrafficSelector, &TrafficSelector) -> Vec<((u8, u8), Ports)>,
) -> Vec<Flow> {
    let mut flows = Vec::new();
    for local in &policy.local {
        for remote in &policy.remote {
            let ports = ports(local, remote);
            let led_in = routes.iter().filter_map(|route| route.intersection(&remote.addresses));
            for led_in in led_in.filter(|led_in| led_in.is_ipv4() == local.addresses.is_ipv4()) {
                for piece in beyond(led_in, local.addresses) {
                    let flow = |(protocol, ports)| Flow { remote: piece, local: local.addresses, protocol, ports };
                    flows.extend(ports.iter().copied().map(flow));
                }
            }
        }
    }
    flows
}

/// The peer's side without ours: traffic among our own hosts stays at home, where the longer route leads it. Where all
/// addresses of a family are on both sides nobody can tell, and the routes alone decide.
pub(crate) fn beyond(remote: AddressRange, local: AddressRange) -> Vec<AddressRange> {
    let Some(both) = remote.intersection(&local) else { return vec![remote] };
    if both == remote {
        return if remote == whole_family(remote.start()) { Vec::new() } else { vec![remote] };
    }
    let before = previous(both.start()).and_then(|end| AddressRange::new(remote.start(), end).ok());
    let after = next(both.end()).and_then(|start| AddressRange::new(start, remote.end()).ok());
    before.into_iter().chain(after).collect()
}

/// The packets of two selectors whose ports can be seen, or of which no port is asked.
fn visible(local: &TrafficSelector, remote: &TrafficSelector) -> Vec<((u8, u8), Ports)> {
    let any = local.ports == PortRange::ANY && remote.ports == PortRange::ANY;
    let protocol = match (local.protocol, remote.protocol) {
        (0, protocol) | (protocol, 0) => protocol,
        (ours, theirs) if ours == theirs => ours,
        _ => return Vec::new(),
    };
    if any {
        return vec![(if protocol == 0 { ANY_PROTOCOL } else { (protocol, protocol) }, Ports::Any)];
    }
    if is_opaque(local, remote) {
        return Vec::new();
    }
    let icmp = if local.addresses.is_ipv4() { ICMP } else { ICMPV6 };
    let candidates = WITH_PORTS.into_iter().chain([icmp, MOBILITY]).filter(|known| [0, *known].contains(&protocol));
    candidates.filter_map(|known| Some(((known, known), ports_of(known, local.ports, remote.ports)?))).collect()
}

fn ports_of(protocol: u8, local: PortRange, remote: PortRange) -> Option<Ports> {
    match protocol {
        // One octet in the middle of the header: said broadly.
        MOBILITY => Some(Ports::Any),
        ICMP | ICMPV6 => local.intersection(remote).map(|both| Ports::TypeAndCode((both.start, both.end))),
        _ => Some(Ports::Pair { local: (local.start, local.end), remote: (remote.start, remote.end) }),
    }
}

fn is_opaque(local: &TrafficSelector, remote: &TrafficSelector) -> bool {
    local.ports == PortRange::OPAQUE || remote.ports == PortRange::OPAQUE
}

/// The protocol of both; `None` for any.
fn protocol_of(local: &TrafficSelector, remote: &TrafficSelector) -> Option<u8> {
    [local.protocol, remote.protocol].into_iter().find(|protocol| *protocol != 0)
}

/// All addresses of this one's family.
fn whole_family(of: IpAddr) -> AddressRange {
    range(everything(Family::from(of)))
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn meet<T: Ord + Copy>((start, end): (T, T), (others_start, others_end): (T, T)) -> bool {
    start <= others_end && others_start <= end
}

fn holds<T: Ord + Copy>((start, end): (T, T), (others_start, others_end): (T, T)) -> bool {
    start <= others_start && others_end <= end
}

const ANY_PROTOCOL: (u8, u8) = (0, u8::MAX);
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Mobile IPv6 (RFC 6275), whose message type stands where selectors speak of ports (RFC 4301 §4.4.1.1).
const MOBILITY: u8 = 135;
/// TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

#[cfg(test)]
mod tests {
    use espdp_api::{InterfaceName, PolicyId};

    use super::*;

    fn addresses(text: &str) -> AddressRange {
        range(text.parse().unwrap())
    }

    fn selector(text: &str, protocol: u8, ports: PortRange) -> TrafficSelector {
        TrafficSelector { addresses: addresses(text), protocol, ports }
    }

    fn any(text: &str) -> TrafficSelector {
        TrafficSelector::any_protocol(addresses(text))
    }

    fn policy(local: TrafficSelector, remote: TrafficSelector, routes: &[&str]) -> PolicySpec {
        let interface = InterfaceName::new("ipsec0").unwrap();
        let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        PolicySpec { routes, ..PolicySpec::protect(PolicyId(1), interface, vec![local], vec![remote]) }
    }

    fn flows(policy: &PolicySpec) -> Vec<String> {
        let routes: Vec<AddressRange> = policy.routes.iter().map(|route| range(*route)).collect();
        guarded(policy, &routes).iter().map(text).collect()
    }

    fn text(flow: &Flow) -> String {
        format!("{} to {} {:?} {:?}", flow.local, flow.remote, flow.protocol, flow.ports)
    }

    #[test]
    fn only_what_a_route_leads_into_the_tunnel_is_guarded() {
        let everything = policy(any("0.0.0.0/0"), any("0.0.0.0/0"), &["10.2.0.0/16"]);
        assert_eq!(flows(&everything), ["0.0.0.0/0 to 10.2.0.0/16 (0, 255) Any"]);
        assert!(flows(&policy(any("0.0.0.0/0"), any("0.0.0.0/0"), &[])).is_empty());
        assert!(flows(&policy(any("0.0.0.0/0"), any("0.0.0.0/0"), &["0.0.0.0/0"])).is_empty());
    }

    #[test]
    fn traffic_among_our_own_hosts_is_not_guarded() {
        let to_the_world = policy(any("10.1.0.0/16"), any("0.0.0.0/0"), &["0.0.0.0/0"]);
        assert_eq!(
            flows(&to_the_world),
            [
                "10.1.0.0/16 to 0.0.0.0..10.0.255.255 (0, 255) Any",
                "10.1.0.0/16 to 10.2.0.0..255.255.255.255 (0, 255) Any"
            ]
        );
    }

    #[test]
    fn the_inside_of_wrapped_packets_is_guarded_by_its_routes() {
        let ends = policy(selector("192.0.2.1", 4, PortRange::ANY), any("192.0.2.2"), &["10.2.0.0/16", "fd02::/16"]);
        assert_eq!(flows(&ends), ["0.0.0.0/0 to 10.2.0.0/16 (0, 255) Any", "::/0 to fd02::/16 (0, 255) Any"]);
    }

    #[test]
    fn with_ports_the_later_fragments_are_guarded_as_well() {
        let web = selector("10.2.0.0/16", 6, PortRange { start: 80, end: 81 });
        assert_eq!(
            flows(&policy(any("10.1.0.0/16"), web, &["10.2.0.0/16"])),
            [
                "10.1.0.0/16 to 10.2.0.0/16 (6, 6) Pair { local: (0, 65535), remote: (80, 81) }",
                "10.1.0.0/16 to 10.2.0.0/16 (6, 6) Hidden"
            ]
        );
        let opaque = selector("10.2.0.0/16", 17, PortRange::OPAQUE);
        assert_eq!(
            flows(&policy(any("10.1.0.0/16"), opaque, &["10.2.0.0/16"])),
            ["10.1.0.0/16 to 10.2.0.0/16 (17, 17) Hidden"]
        );
    }

    #[test]
    fn types_and_codes_of_icmp_are_in_both_selectors() {
        let echo = selector("10.2.0.0/16", 1, PortRange { start: 0x0800, end: 0x08ff });
        assert_eq!(
            flows(&policy(any("10.1.0.0/16"), echo, &["10.2.0.0/16"])).first().unwrap(),
            "10.1.0.0/16 to 10.2.0.0/16 (1, 1) TypeAndCode((2048, 2303))"
        );
    }

    #[test]
    fn selectors_of_different_protocols_or_families_select_nothing() {
        let (tcp, udp) = (selector("10.1.0.0/16", 6, PortRange::ANY), selector("10.2.0.0/16", 17, PortRange::ANY));
        assert!(flows(&policy(tcp, udp, &["10.2.0.0/16"])).is_empty());
        assert!(flows(&policy(any("fd01::/16"), any("10.2.0.0/16"), &["10.2.0.0/16"])).is_empty());
    }

    #[test]
    fn exemptions_are_never_broader_than_the_policy() {
        let (all, mobility) = (any("fd01::/16"), selector("fd02::/16", MOBILITY, PortRange { start: 256, end: 511 }));
        let routes = [addresses("fd02::/16")];
        assert!(exempt(&policy(all, mobility, &["fd02::/16"]), &routes).is_empty());
        let web = selector("fd02::/16", 0, PortRange { start: 80, end: 80 });
        let found = exempt(&policy(all, web, &["fd02::/16"]), &routes);
        assert!(found.iter().all(|flow| !matches!(flow.ports, Ports::Any | Ports::Hidden)), "{found:?}");
        assert_eq!(found.len(), WITH_PORTS.len() + 1);
    }
}
