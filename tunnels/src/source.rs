//! Which of our own addresses a route prefers.

use std::net::IpAddr;

use espdp_api::{IpPrefix, TrafficSelector};

use crate::network;

/// The address that the gateway itself uses towards `destination`: one of its own that the policy's `local` selectors cover, so
/// that its packets fit the SA. `addresses` are tried in their order; loopback, link-local and multicast addresses never fit.
///
/// `None` also when `destination` has nothing to do with the `remote` selectors: those of IP in IP in transport mode speak of the
/// wrapped packets and say nothing about what is inside.
#[must_use]
pub fn preferred_source(
    destination: IpPrefix,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    addresses: &[IpAddr],
) -> Option<IpAddr> {
    if !remote.iter().any(|selector| overlap(destination, selector)) {
        return None;
    }
    let usable = |address: &IpAddr| {
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
    };
    let same_family = |address: &IpAddr| address.is_ipv4() == destination.address().is_ipv4();
    let covered = |address: &IpAddr| local.iter().any(|selector| selector.addresses.contains(*address));
    addresses.iter().copied().find(|address| usable(address) && same_family(address) && covered(address))
}

fn overlap(destination: IpPrefix, selector: &TrafficSelector) -> bool {
    let destination = network(destination);
    let start = selector.addresses.start();
    let starts_inside = IpPrefix::new(start, destination.bits()).is_ok_and(|prefix| network(prefix) == destination);
    starts_inside || selector.addresses.contains(destination.address())
}

#[cfg(test)]
mod tests {
    use espdp_api::AddressRange;

    use super::*;

    fn selector(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector::any_protocol(AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap())
    }

    fn everything() -> [TrafficSelector; 2] {
        [selector("0.0.0.0", "255.255.255.255"), selector("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    }

    fn source(destination: &str, local: &[TrafficSelector], addresses: &[&str]) -> Option<IpAddr> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        preferred_source(destination.parse().unwrap(), local, &everything(), &addresses)
    }

    #[test]
    fn the_first_covered_address_of_the_destinations_family_is_taken() {
        let local = [selector("10.1.0.0", "10.1.255.255"), selector("fec5::", "fec5::ffff")];
        let ours = ["127.0.0.1", "192.0.2.1", "fec5::1", "10.1.0.1", "10.1.0.2"];
        assert_eq!(source("10.2.0.0/16", &local, &ours), Some("10.1.0.1".parse().unwrap()));
        assert_eq!(source("fec3::/16", &local, &ours), Some("fec5::1".parse().unwrap()));
    }

    #[test]
    fn no_covered_address_leaves_the_choice_to_the_kernel() {
        assert_eq!(source("10.2.0.0/16", &[selector("10.1.0.0", "10.1.255.255")], &["192.0.2.1"]), None);
    }

    #[test]
    fn a_selector_for_everything_does_not_pick_loopback_or_link_local() {
        assert_eq!(source("10.2.0.0/16", &everything(), &["127.0.0.1", "169.254.1.1"]), None);
        assert_eq!(source("fec3::/16", &everything(), &["::1", "fe80::1"]), None);
    }

    #[test]
    fn selectors_of_wrapped_packets_do_not_choose_the_source_of_what_is_inside() {
        let hosts = [selector("192.0.2.1", "192.0.2.1"), selector("192.0.2.2", "192.0.2.2")];
        let ours = ["192.0.2.1".parse().unwrap()];
        let source =
            |destination: &str| preferred_source(destination.parse().unwrap(), &hosts[..1], &hosts[1..], &ours);
        assert_eq!(source("10.2.0.0/16"), None);
        assert_eq!(source("192.0.2.2/32"), Some(ours[0]));
        assert_eq!(source("192.0.0.0/16"), Some(ours[0]));
        assert_eq!(source("192.0.2.1/32"), None);
    }
}
