//! The environment that strongSwan's `updown` scripts expect.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, Encapsulation, InterfaceName, IpsecProtocol, TrafficSelector};
use ike_proto::io::{ChildSaReport, IkeSaReport};

/// A variable and its value.
pub(super) type Variable = (Cow<'static, str>, String);

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
        ("PLUTO_VERSION".into(), "1.1".to_owned()),
        ("PLUTO_VERB".into(), format!("{verb}-{side}{family}")),
        ("PLUTO_CONNECTION".into(), child.name.clone()),
        ("PLUTO_INTERFACE".into(), interface.map_or_else(|| "unknown".to_owned(), ToString::to_string)),
        ("PLUTO_REQID".into(), child.policy.0.to_string()),
        (
            "PLUTO_PROTO".into(),
            match child.protocol {
                IpsecProtocol::Esp => "esp",
                IpsecProtocol::Ah => "ah",
            }
            .to_owned(),
        ),
        ("PLUTO_UNIQUEID".into(), sa.id.0.to_string()),
        ("PLUTO_ME".into(), me.to_string()),
        ("PLUTO_MY_ID".into(), sa.local_id.clone().unwrap_or_default()),
        ("PLUTO_MY_CLIENT".into(), network(ours.addresses)),
        ("PLUTO_MY_PORT".into(), port(ours)),
        ("PLUTO_MY_PROTOCOL".into(), ours.protocol.to_string()),
        ("PLUTO_PEER".into(), child.path.remote.to_string()),
        ("PLUTO_PEER_ID".into(), sa.remote_id.clone().unwrap_or_default()),
        ("PLUTO_PEER_CLIENT".into(), network(theirs.addresses)),
        ("PLUTO_PEER_PORT".into(), port(theirs)),
        ("PLUTO_PEER_PROTOCOL".into(), theirs.protocol.to_string()),
    ];
    variables.extend(source_addresses("MY", &sa.local_virtual));
    variables.extend(source_addresses("PEER", &sa.remote_virtual));
    variables.extend(numbered("PLUTO_DNS", &sa.name_servers));
    if !sa.domains.is_empty() {
        variables.push(("PLUTO_DNS_DOMAINS".into(), sa.domains.join(" ")));
    }
    if let Encapsulation::Udp { remote_port, .. } = child.path.encapsulation {
        variables.push(("PLUTO_UDP_ENC".into(), remote_port.to_string()));
    }
    variables
}

/// The virtual addresses of one end: the first one by itself, as older scripts want it, and all by family and number.
fn source_addresses(end: &str, addresses: &[IpAddr]) -> Vec<Variable> {
    let name = format!("PLUTO_{end}_SOURCEIP");
    let first = addresses.first().map(|address| (Cow::from(name.clone()), address.to_string()));
    first.into_iter().chain(numbered(&name, addresses)).collect()
}

/// `NAME4_1`, `NAME4_2`, `NAME6_1`.
fn numbered(name: &str, addresses: &[IpAddr]) -> Vec<Variable> {
    let of_family = |ipv4: bool| addresses.iter().filter(move |address| address.is_ipv4() == ipv4).zip(1..);
    let variable = |family: u8| {
        move |(address, number): (&IpAddr, u32)| (Cow::from(format!("{name}{family}_{number}")), address.to_string())
    };
    of_family(true).map(variable(4)).chain(of_family(false).map(variable(6))).collect()
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
            let value = |call: &Vec<Variable>| call.iter().find(|(own, _)| own == name).unwrap().1.clone();
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

    #[test]
    fn virtual_addresses_and_name_servers_are_numbered_by_family() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mut sa = testing::ike_sa();
        (sa.local_virtual, sa.name_servers) = (ips(&["10.3.0.1", "fec3::1"]), ips(&["10.2.0.53", "10.2.0.54"]));
        sa.domains = vec!["corp.example".to_owned(), "lab.example".to_owned()];
        let child = sa.children.first().unwrap().clone();
        let calls = of(&sa, &child, None, true);
        let value = |name: &str| calls[0].iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        for (name, expected) in [
            ("PLUTO_MY_SOURCEIP", Some("10.3.0.1")),
            ("PLUTO_MY_SOURCEIP4_1", Some("10.3.0.1")),
            ("PLUTO_MY_SOURCEIP6_1", Some("fec3::1")),
            ("PLUTO_PEER_SOURCEIP", None),
            ("PLUTO_DNS4_1", Some("10.2.0.53")),
            ("PLUTO_DNS4_2", Some("10.2.0.54")),
            ("PLUTO_DNS6_1", None),
            ("PLUTO_DNS_DOMAINS", Some("corp.example lab.example")),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
    }
}
