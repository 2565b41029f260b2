//! Pools of virtual addresses: what is in them, and what goes with their addresses.

use std::net::IpAddr;

use espdp_api::{AddressRange, IpPrefix};
use ike_proto::wire::ConfigurationAttribute;

use super::ValueError;
use super::address::{ends, range_ends};

const WANTED: &str = "expected a network such as 10.3.0.0/24, a range such as 10.3.0.1-10.3.0.9, or an address";

/// The addresses of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolAddresses {
    /// What people know it by: the network, or the first address.
    pub base: IpAddr,
    /// The addresses that are given.
    pub addresses: AddressRange,
}

/// Reads the addresses of a pool, as strongSwan does: of a network with more than two addresses the first and the last are not
/// given, and one with host bits begins there.
///
/// # Errors
/// [`ValueError`] when it is neither a network nor a range.
pub fn addresses(text: &str) -> Result<PoolAddresses, ValueError> {
    let wrong = |why: String| ValueError::whole(text, why, WANTED);
    if let Some((first, last)) = range_ends(text) {
        let addresses = AddressRange::new(first, last).map_err(|error| wrong(error.to_string()))?;
        return Ok(PoolAddresses { base: first, addresses });
    }
    let prefix: IpPrefix = text.parse().map_err(|error: espdp_api::PrefixError| wrong(error.to_string()))?;
    let (base, (first, last)) = (prefix.address(), ends(prefix));
    let has_more_than_two = prefix.bits() < bits_of(base) - 1;
    let start = if has_more_than_two && base == first { next(first, 1) } else { base };
    let end = if has_more_than_two { next(last, -1) } else { last };
    let addresses = AddressRange::new(start, end).map_err(|error| wrong(error.to_string()))?;
    Ok(PoolAddresses { base, addresses })
}

/// What `kind` of a pool says with one of its values, for the peer: `dns`, `nbns`, `dhcp`, `netmask`, `server`, `subnet`,
/// `split_include`, `split_exclude`, `domain`, or the number of an attribute. `None` if there is no such kind.
///
/// # Errors
/// What is wrong with the value.
pub fn attribute(kind: &str, text: &str) -> Option<Result<ConfigurationAttribute, ValueError>> {
    if kind == DOMAIN {
        let wanted = "expected a domain such as corp.example, in ASCII";
        let wrong = || ValueError::whole(text, format!("`{text}` is no domain"), wanted);
        return Some(ConfigurationAttribute::of_domain(text).ok_or_else(wrong));
    }
    if let Ok(number) = kind.parse::<u16>() {
        let value = address_octets(text).or_else(|| network_octets(text)).unwrap_or_else(|| text.as_bytes().to_vec());
        return (number < 1 << 15).then_some(Ok(ConfigurationAttribute::Other { kind: number, value }));
    }
    let Kind { of_ipv4, of_ipv6, is_network, .. } = KINDS.iter().find(|known| known.name == kind)?;
    Some(valued(text, *is_network, (*of_ipv4, *of_ipv6)))
}

/// All kinds that have names.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name).chain([DOMAIN])
}

/// A kind of attribute, with its numbers for the two families.
struct Kind {
    name: &'static str,
    of_ipv4: u16,
    of_ipv6: Option<u16>,
    /// Whether its values are networks.
    is_network: bool,
}

const fn kind(name: &'static str, of_ipv4: u16, of_ipv6: Option<u16>, is_network: bool) -> Kind {
    Kind { name, of_ipv4, of_ipv6, is_network }
}

/// RFC 7296 §3.15.1, and what strongSwan has beside it.
const KINDS: [Kind; 8] = [
    kind("dns", 3, Some(10), false),
    kind("nbns", 4, Some(11), false),
    kind("dhcp", 6, Some(12), false),
    kind("netmask", 2, None, false),
    kind("server", 23_456, Some(23_457), false),
    kind("subnet", 13, Some(15), true),
    kind("split_include", 28_676, None, true),
    kind("split_exclude", 28_678, None, true),
];

/// RFC 8598.
const DOMAIN: &str = "domain";

fn valued(
    text: &str,
    is_network: bool,
    (of_ipv4, of_ipv6): (u16, Option<u16>),
) -> Result<ConfigurationAttribute, ValueError> {
    let wanted = if is_network { "expected a network such as 10.2.0.0/16" } else { "expected an address" };
    let wrong = || ValueError::whole(text, format!("`{text}` is not one that could be told"), wanted);
    let value = if is_network { network_octets(text) } else { address_octets(text) };
    let value = value.ok_or_else(wrong)?;
    // Those of IPv4 are 4 octets, with a mask 8; those of IPv6 are 16, with a length 17.
    let kind = if value.len() <= 8 { Some(of_ipv4) } else { of_ipv6 };
    let kind = kind.ok_or_else(wrong)?;
    Ok(match (kind, text.parse()) {
        (3, Ok(IpAddr::V4(address))) => ConfigurationAttribute::Ip4Dns(Some(address)),
        (10, Ok(IpAddr::V6(address))) => ConfigurationAttribute::Ip6Dns(Some(address)),
        _ => ConfigurationAttribute::Other { kind, value },
    })
}

fn address_octets(text: &str) -> Option<Vec<u8>> {
    Some(match text.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}

/// RFC 7296 §3.15.1: an IPv4 network is an address and a mask, one of IPv6 an address and the length of its prefix.
fn network_octets(text: &str) -> Option<Vec<u8>> {
    let prefix: IpPrefix = text.parse().ok().filter(|_| text.contains('/'))?;
    Some(match ends(prefix) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            [first.octets(), (!(first.to_bits() ^ last.to_bits())).to_be_bytes()].concat()
        }
        (IpAddr::V6(first), _) => [&first.octets()[..], &[prefix.bits()]].concat(),
        (IpAddr::V4(_), IpAddr::V6(_)) => return None,
    })
}

fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address `by` further on, in a network that has it.
fn next(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().wrapping_add_signed(by.into()).into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().wrapping_add_signed(by.into()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As strongSwan 5.9.8 lists them.
    #[test]
    fn networks_have_no_first_and_last_address_unless_they_are_tiny() {
        for (text, base, first, last) in [
            ("10.3.0.0/24", "10.3.0.0", "10.3.0.1", "10.3.0.254"),
            ("10.4.0.5-10.4.0.9", "10.4.0.5", "10.4.0.5", "10.4.0.9"),
            ("fec3::/120", "fec3::", "fec3::1", "fec3::fe"),
            ("10.5.0.0/30", "10.5.0.0", "10.5.0.1", "10.5.0.2"),
            ("10.6.0.1/32", "10.6.0.1", "10.6.0.1", "10.6.0.1"),
            ("10.7.0.10/24", "10.7.0.10", "10.7.0.10", "10.7.0.254"),
            ("10.8.0.0/31", "10.8.0.0", "10.8.0.0", "10.8.0.1"),
            ("10.9.0.1", "10.9.0.1", "10.9.0.1", "10.9.0.1"),
        ] {
            let found = addresses(text).unwrap();
            let ends = [found.addresses.start(), found.addresses.end()].map(|address| address.to_string());
            assert_eq!((found.base.to_string().as_str(), ends), (base, [first.to_owned(), last.to_owned()]), "{text}");
        }
        for wrong in ["", "nonsense", "10.3.0.0/33", "10.4.0.9-10.4.0.5", "10.3.0.1-fec3::1"] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }

    fn other(kind: u16, value: &[u8]) -> ConfigurationAttribute {
        ConfigurationAttribute::Other { kind, value: value.to_vec() }
    }

    #[test]
    fn attributes_are_what_goes_over_the_wire() {
        let read = |kind: &str, text: &str| attribute(kind, text).unwrap().unwrap();
        assert_eq!(read("dns", "10.2.0.53"), ConfigurationAttribute::Ip4Dns(Some([10, 2, 0, 53].into())));
        assert_eq!(read("dns", "fec2::53"), ConfigurationAttribute::Ip6Dns(Some("fec2::53".parse().unwrap())));
        assert_eq!(read("nbns", "10.2.0.54"), other(4, &[10, 2, 0, 54]));
        assert_eq!(read("subnet", "10.2.3.4/16"), other(13, &[10, 2, 0, 0, 255, 255, 0, 0]));
        let Some(Ok(ConfigurationAttribute::Other { kind: 15, value })) = attribute("subnet", "fec2::/16") else {
            panic!("a network of IPv6")
        };
        assert_eq!((value.len(), value.last()), (17, Some(&16)));
        assert_eq!(read("netmask", "255.255.0.0"), other(2, &[255, 255, 0, 0]));
        assert_eq!(read("28675", "hello"), other(28_675, b"hello"));
        assert_eq!(read("20", "10.2.0.9"), other(20, &[10, 2, 0, 9]));
        assert_eq!(read("domain", "corp.example"), ConfigurationAttribute::of_domain("corp.example").unwrap());
    }

    #[test]
    fn values_that_are_none_and_kinds_that_there_are_not_are_refused() {
        for (kind, text) in [("dns", "foo"), ("subnet", "10.2.0.0"), ("netmask", "fec3::"), ("domain", "a b")] {
            assert!(attribute(kind, text).unwrap().is_err(), "{kind} = {text}");
        }
        for kind in ["nonsense", "32768", "addrs", ""] {
            assert!(attribute(kind, "10.2.0.1").is_none(), "{kind}");
        }
    }
}
