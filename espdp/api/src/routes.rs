//! Routes that lead the traffic of a child into its interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{AddressRange, IpPrefix, TrafficSelector};

/// Which routes come with a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routes {
    /// One for each prefix of the negotiated remote selectors, except those that cover a whole address family.
    FromSelectors,
    /// Just these.
    Fixed(Vec<IpPrefix>),
}

impl Routes {
    /// The routes of a policy with these remote selectors. Prefixes of a whole address family are left out: a default route
    /// would swallow the tunnel's own packets, so it is set only where it was asked for.
    #[must_use]
    pub fn towards(&self, remote: &[TrafficSelector]) -> Vec<IpPrefix> {
        let mut found = match self {
            Self::Fixed(prefixes) => prefixes.clone(),
            Self::FromSelectors => remote.iter().flat_map(|selector| prefixes_of(&selector.addresses)).collect(),
        };
        if *self == Self::FromSelectors {
            found.retain(|prefix| !prefix.is_default());
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The fewest prefixes that make up exactly this range.
fn prefixes_of(range: &AddressRange) -> Vec<IpPrefix> {
    let (mut low, high, bits) = match (range.start(), range.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (u128::from(start.to_bits()), u128::from(end.to_bits()), 32u32),
        (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits(), end.to_bits(), 128),
        _ => return Vec::new(),
    };
    let mut prefixes = Vec::new();
    loop {
        // The largest block that starts at `low`, by alignment and by what is left.
        let host_bits = (0..=low.trailing_zeros().min(bits))
            .rev()
            .find(|&host_bits| host_mask(host_bits) <= high - low)
            .unwrap_or(0);
        let address = match bits {
            32 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(low).unwrap_or(u32::MAX))),
            _ => IpAddr::V6(Ipv6Addr::from_bits(low)),
        };
        let len = u8::try_from(bits - host_bits).unwrap_or(u8::MAX);
        prefixes.extend(IpPrefix::new(address, len));
        match low.checked_add(host_mask(host_bits)).and_then(|last| last.checked_add(1)) {
            Some(next) if next <= high => low = next,
            _ => return prefixes,
        }
    }
}

/// As many ones at the low end.
fn host_mask(host_bits: u32) -> u128 {
    1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(start: &str, end: &str) -> Vec<String> {
        let range = AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap();
        prefixes_of(&range).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_become_the_fewest_prefixes() {
        assert_eq!(split("10.0.0.0", "10.0.255.255"), ["10.0.0.0/16"]);
        assert_eq!(split("10.0.0.1", "10.0.0.6"), ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]);
        assert_eq!(split("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(split("255.255.255.254", "255.255.255.255"), ["255.255.255.254/31"]);
        assert_eq!(split("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(split("fec3::1", "fec3::1"), ["fec3::1/128"]);
        assert_eq!(split("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").len(), 128);
    }

    #[test]
    fn a_default_route_is_set_only_where_it_was_asked_for() {
        let all = AddressRange::new("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap()).unwrap();
        let selectors = [TrafficSelector::any_protocol(all)];
        assert_eq!(Routes::FromSelectors.towards(&selectors), []);
        let default: IpPrefix = "0.0.0.0/0".parse().unwrap();
        assert_eq!(Routes::Fixed(vec![default]).towards(&selectors), [default]);
    }
}
