//! Links, routes and rules as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, InterfaceName, IpPrefix, StaticRoute};

/// A part of the kernel's network configuration: what we have put there, or want to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// The links that we made. Making and removing a link is for whoever holds its file descriptor; here it is set up.
    pub links: BTreeMap<InterfaceName, Link>,
    /// Where destinations go.
    pub routes: BTreeMap<RouteKey, RouteTarget>,
    /// The rules that lead to routing tables.
    pub rules: BTreeSet<Rule>,
    /// Destinations whose packets are dropped when no other route of the table takes them. They depend on no link, so they stay
    /// when a link vanishes.
    pub blackholes: BTreeSet<RouteKey>,
    /// Routes that were asked for.
    pub static_routes: BTreeSet<StaticRoute>,
    /// The rules that lead marked packets to routing tables.
    pub mark_rules: BTreeSet<MarkRule>,
}

impl NetworkState {
    /// Takes out the routes that were asked for by their gateways alone. The kernel takes those through a link away with it, and does
    /// not say which they were.
    pub fn forget_routes_by_gateway(&mut self) {
        self.static_routes.retain(|route| route.interface.is_some());
    }

    /// Takes out a link with its addresses and the routes into it.
    pub fn forget_link(&mut self, name: &InterfaceName) {
        self.links.remove(name);
        self.routes.retain(|_, target| target.interface != *name);
        self.static_routes.retain(|route| route.interface.as_ref() != Some(name));
    }
}

/// How a link is set up; it is always up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its MTU in octets.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: BTreeSet<IpPrefix>,
}

/// What the kernel tells routes apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// The routing table.
    pub table: u32,
    /// The destination, without host bits.
    pub destination: IpPrefix,
}

impl RouteKey {
    /// The route to `destination` in `table`; host bits are cut off, since the kernel refuses them.
    #[must_use]
    pub fn new(table: u32, destination: IpPrefix) -> Self {
        Self { table, destination: network(destination) }
    }
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// Out of this interface.
    pub interface: InterfaceName,
    /// The source address of packets that the gateway itself sends there; `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The length of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Which packets look into which table (`ip rule add not fwmark MARK lookup TABLE suppress_prefixlength BITS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The family whose packets it is for.
    pub family: Family,
    /// Its place among the rules; the lowest is asked first.
    pub priority: u32,
    /// The table.
    pub table: u32,
    /// Packets with this mark are left out.
    pub except_mark: u32,
    /// Only routes whose prefix is longer than this count; `None`: all.
    pub longer_than: Option<u8>,
}

/// Which marked packets look into which table (`ip rule add fwmark MARK lookup TABLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRule {
    /// The family whose packets it is for.
    pub family: Family,
    /// Its place among the rules; the lowest is asked first.
    pub priority: u32,
    /// The table.
    pub table: u32,
    /// The mark.
    pub mark: u32,
}

/// `prefix` without its host bits.
#[must_use]
pub fn network(prefix: IpPrefix) -> IpPrefix {
    let bits = u32::from(prefix.bits());
    let address = match prefix.address() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::BITS.saturating_sub(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    };
    IpPrefix::new(address, prefix.bits()).unwrap_or(prefix)
}

/// The prefix of all addresses of a family.
pub(crate) fn everything(family: Family) -> IpPrefix {
    let prefix = match family {
        Family::V4 => IpPrefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Family::V6 => IpPrefix::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    };
    #[expect(clippy::expect_used, reason = "no family is shorter than zero bits")]
    prefix.expect("a prefix without bits")
}

/// All addresses of `prefix`.
#[must_use]
pub fn range(prefix: IpPrefix) -> AddressRange {
    let start = network(prefix).address();
    let host_bits = u32::from(Family::from(start).bits().saturating_sub(prefix.bits()));
    let end = match start {
        IpAddr::V4(start) => {
            let host = 1_u32.checked_shl(host_bits).map_or(u32::MAX, |bit| bit.saturating_sub(1));
            IpAddr::V4(Ipv4Addr::from_bits(start.to_bits() | host))
        }
        IpAddr::V6(start) => {
            let host = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit.saturating_sub(1));
            IpAddr::V6(Ipv6Addr::from_bits(start.to_bits() | host))
        }
    };
    AddressRange::new(start, end).unwrap_or_else(|_| AddressRange::single(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_by_gateway_are_forgotten_apart_from_those_by_link() {
        let route = |interface: Option<&str>| StaticRoute {
            destination: "10.9.0.0/16".parse().unwrap(),
            via: Some("192.0.2.9".parse().unwrap()),
            interface: interface.map(|name| InterfaceName::new(name).unwrap()),
            metric: 0,
            table: 254,
        };
        let mut state = NetworkState { static_routes: [route(None), route(Some("eth0"))].into(), ..Default::default() };
        state.forget_routes_by_gateway();
        assert_eq!(state.static_routes, [route(Some("eth0"))].into());
    }

    #[test]
    fn host_bits_are_cut_off_at_every_length() {
        for (prefix, expected) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fec3::1/16", "fec3::/16"),
            ("fec3::1/128", "fec3::1/128"),
            ("fec3::1/0", "::/0"),
        ] {
            assert_eq!(network(prefix.parse().unwrap()), expected.parse().unwrap(), "{prefix}");
        }
    }

    #[test]
    fn a_prefix_is_a_range_of_addresses() {
        for (prefix, expected) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fec3::1/16", "fec3::/16"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(range(prefix.parse().unwrap()).to_string(), expected);
        }
    }
}
