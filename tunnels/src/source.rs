//! Which of our own addresses a route prefers.

use std::net::IpAddr;

use espdp_api::{IpPrefix, TrafficSelector};

/// The address that the gateway itself uses towards `destination`: one of its own that the policy's `local` selectors cover, so
/// that its packets fit the SA. `addresses` are tried in their order; loopback, link-local and multicast addresses never fit.
#[must_use]
pub fn preferred_source(destination: IpPrefix, local: &[TrafficSelector], addresses: &[IpAddr]) -> Option<IpAddr> {
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

#[cfg(test)]
mod tests {
    use espdp_api::AddressRange;

    use super::*;

    fn selector(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector::any_protocol(AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap())
    }

    fn source(destination: &str, local: &[TrafficSelector], addresses: &[&str]) -> Option<IpAddr> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        preferred_source(destination.parse().unwrap(), local, &addresses)
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
        let everything = [selector("0.0.0.0", "255.255.255.255"), selector("::", "ffff::")];
        assert_eq!(source("10.2.0.0/16", &everything, &["127.0.0.1", "169.254.1.1"]), None);
        assert_eq!(source("fec3::/16", &everything, &["::1", "fe80::1"]), None);
    }
}
