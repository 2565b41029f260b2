//! The environment that strongSwan's `updown` scripts expect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, Encapsulation, InterfaceName, IpsecProtocol, TrafficSelector};
use ike_proto::io::{ChildSaReport, IkeSaReport};

/// A variable and its value.
pub(super) type Variable = (&'static str, String);

/// The environments of the calls for a child: one for each pair of selectors of one family.
pub(super) fn of(
    sa: &IkeSaReport,
    child: &ChildSaReport,
    interface: Option<&InterfaceName>,
    is_up: bool,
) -> Vec<Vec<Variable>> {
    let pairs = child.local.iter().flat_map(|ours| child.remote.iter().map(move |theirs| (ours, theirs)));
    pairs
        .filter(|(ours, theirs)| ours.addresses.is_ipv4() == theirs.addresses.is_ipv4())
        .map(|(ours, theirs)| of_pair(sa, child, interface, is_up, ours, theirs))
        .collect()
}

fn of_pair(
    sa: &IkeSaReport,
    child: &ChildSaReport,
    interface: Option<&InterfaceName>,
    is_up: bool,
    ours: &TrafficSelector,
    theirs: &TrafficSelector,
) -> Vec<Variable> {
    let me = child.path.local;
    let verb = if is_up { "up" } else { "down" };
    let side = if ours.addresses == AddressRange::single(me) { "host" } else { "client" };
    let family = if ours.addresses.is_ipv4() { "" } else { "-v6" };
    let mut variables = vec![
        ("PLUTO_VERSION", "1.1".to_owned()),
        ("PLUTO_VERB", format!("{verb}-{side}{family}")),
        ("PLUTO_CONNECTION", child.name.clone()),
        ("PLUTO_INTERFACE", interface.map_or_else(|| "unknown".to_owned(), ToString::to_string)),
        ("PLUTO_REQID", child.policy.0.to_string()),
        (
            "PLUTO_PROTO",
            match child.protocol {
                IpsecProtocol::Esp => "esp",
                IpsecProtocol::Ah => "ah",
            }
            .to_owned(),
        ),
        ("PLUTO_UNIQUEID", sa.id.0.to_string()),
        ("PLUTO_ME", me.to_string()),
        ("PLUTO_MY_ID", sa.local_id.clone().unwrap_or_default()),
        ("PLUTO_MY_CLIENT", network(ours.addresses)),
        ("PLUTO_MY_PORT", port(ours)),
        ("PLUTO_MY_PROTOCOL", ours.protocol.to_string()),
        ("PLUTO_PEER", child.path.remote.to_string()),
        ("PLUTO_PEER_ID", sa.remote_id.clone().unwrap_or_default()),
        ("PLUTO_PEER_CLIENT", network(theirs.addresses)),
        ("PLUTO_PEER_PORT", port(theirs)),
        ("PLUTO_PEER_PROTOCOL", theirs.protocol.to_string()),
    ];
    if let Encapsulation::Udp { remote_port, .. } = child.path.encapsulation {
        variables.push(("PLUTO_UDP_ENC", remote_port.to_string()));
    }
    variables
}

/// The single port, or 0 for any and for a range.
fn port(selector: &TrafficSelector) -> String {
    let ports = selector.ports;
    if ports.start == ports.end { ports.start.to_string() } else { "0".to_owned() }
}

/// The smallest network that has all of a range.
fn network(range: AddressRange) -> String {
    let (first, last) = (bits(range.start()), bits(range.end()));
    let differing = u128::BITS - (first ^ last).leading_zeros();
    let hosts = u128::MAX.checked_shr(u128::BITS - differing).unwrap_or(0);
    match range.start() {
        IpAddr::V4(_) => format!("{}/{}", Ipv4Addr::from_bits((first & !hosts) as u32), Ipv4Addr::BITS - differing),
        IpAddr::V6(_) => format!("{}/{}", Ipv6Addr::from_bits(first & !hosts), Ipv6Addr::BITS - differing),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::PortRange;

    use super::*;
    use crate::daemon::testing;

    fn range(start: &str, end: &str) -> AddressRange {
        AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_become_the_networks_around_them() {
        for (start, end, expected) in [
            ("10.1.0.0", "10.1.0.255", "10.1.0.0/24"),
            ("10.1.0.7", "10.1.0.7", "10.1.0.7/32"),
            ("10.1.0.1", "10.1.0.9", "10.1.0.0/28"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            ("2001:db8::", "2001:db8::ffff", "2001:db8::/112"),
        ] {
            assert_eq!(network(range(start, end)), expected);
        }
    }

    #[test]
    fn there_is_one_call_for_each_pair_of_selectors_of_one_family() {
        let sa = testing::ike_sa();
        let mut child = sa.children.first().unwrap().clone();
        let of_host = TrafficSelector::any_protocol(AddressRange::single(child.path.local));
        let ports = PortRange { start: 443, end: 443 };
        child.local.push(TrafficSelector { protocol: 6, ports, ..of_host });
        child.local.push(TrafficSelector::any_protocol(range("2001:db8::", "2001:db8::ffff")));
        child.remote.push(TrafficSelector::any_protocol(range("2001:db8:1::", "2001:db8:1::ffff")));
        let interface = InterfaceName::new("ipsec0").unwrap();
        let calls = of(&sa, &child, Some(&interface), true);
        let values = |name: &str| -> Vec<String> {
            let value = |call: &Vec<Variable>| call.iter().find(|(own, _)| *own == name).unwrap().1.clone();
            calls.iter().map(value).collect()
        };
        assert_eq!(values("PLUTO_VERB"), ["up-client", "up-host", "up-client-v6"]);
        assert_eq!(values("PLUTO_MY_CLIENT"), ["10.1.0.0/24", "192.168.0.1/32", "2001:db8::/112"]);
        assert_eq!(values("PLUTO_MY_PORT"), ["0", "443", "0"]);
        assert_eq!(values("PLUTO_MY_PROTOCOL"), ["0", "6", "0"]);
        assert_eq!(values("PLUTO_PEER_CLIENT"), ["10.2.0.0/24", "10.2.0.0/24", "2001:db8:1::/112"]);
        assert_eq!(values("PLUTO_PEER_ID"), ["sun.strongswan.org"; 3]);
        assert_eq!(values("PLUTO_UDP_ENC"), ["4500"; 3]);
    }
}
