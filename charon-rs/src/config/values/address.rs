//! Addresses of gateways: `left` and `right`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, IpPrefix};
use ike_proto::config::RemoteAddress;

use super::ValueError;

const WANTED: &str =
    "expected an address, a prefix such as 10.0.0.0/8, a range such as 10.0.0.1-10.0.0.9, a host name, or %any";

/// Reads where a peer may be: an address, a prefix, a range, a host name, `%any`, `%any4` or `%any6`.
///
/// # Errors
/// [`ValueError`] when it is none of them.
pub fn remote(text: &str) -> Result<RemoteAddress, ValueError> {
    match text {
        "%any" => return Ok(RemoteAddress::Any),
        "%any4" | "0.0.0.0" => return Ok(RemoteAddress::Range(all_ipv4())),
        "%any6" | "::" => return Ok(RemoteAddress::Range(all_ipv6())),
        _ => {}
    }
    if let Ok(address) = text.parse() {
        return Ok(RemoteAddress::Address(address));
    }
    if text.contains('/') || range_ends(text).is_some() {
        return range(text).map(RemoteAddress::Range);
    }
    if is_host_name(text) {
        return Ok(RemoteAddress::Name(text.to_owned()));
    }
    Err(ValueError::whole(text, format!("`{text}` is neither an address nor a host name"), WANTED))
}

/// Reads one of our own addresses.
///
/// # Errors
/// [`ValueError`] when it is no address.
pub fn local(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::whole(
            text,
            format!("`{text}` is no address"),
            "expected an address of this machine; leave the key out to use the one that leads to the peer",
        )
    })
}

/// Reads a prefix (host bits are ignored, as strongSwan does), a range `first-last`, or one address.
///
/// # Errors
/// [`ValueError`] when it is none of them.
pub fn range(text: &str) -> Result<AddressRange, ValueError> {
    if let Some((first, last)) = range_ends(text) {
        return AddressRange::new(first, last).map_err(|error| {
            ValueError::whole(text, error.to_string(), "expected two addresses of one family, the lower one first")
        });
    }
    let prefix: IpPrefix = text.parse().map_err(|error: espdp_api::PrefixError| {
        ValueError::whole(
            text,
            error.to_string(),
            "expected an address, a prefix such as 10.0.0.0/8, or a range first-last",
        )
    })?;
    let (first, last) = ends(prefix);
    AddressRange::new(first, last).map_err(|error| ValueError::whole(text, error.to_string(), WANTED))
}

/// The first and the last address of a prefix.
#[must_use]
pub fn ends(prefix: IpPrefix) -> (IpAddr, IpAddr) {
    let bits = u32::from(prefix.bits());
    match prefix.address() {
        IpAddr::V4(address) => {
            let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
            (
                Ipv4Addr::from_bits(address.to_bits() & !hosts).into(),
                Ipv4Addr::from_bits(address.to_bits() | hosts).into(),
            )
        }
        IpAddr::V6(address) => {
            let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
            (
                Ipv6Addr::from_bits(address.to_bits() & !hosts).into(),
                Ipv6Addr::from_bits(address.to_bits() | hosts).into(),
            )
        }
    }
}

/// Whether `text` is a host name: letters, digits, `-`, `_`, in labels of 1 to 63, and not just digits and dots.
pub(in crate::config) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    text.len() <= 253
        && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
        && text.bytes().any(|c| !c.is_ascii_digit() && c != b'.')
}

/// The two addresses of `first-last` or `first..last`.
pub(super) fn range_ends(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once("..").or_else(|| text.split_once('-'))?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

fn all_ipv4() -> AddressRange {
    span(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())
}

fn all_ipv6() -> AddressRange {
    span(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from_bits(u128::MAX).into())
}

#[expect(clippy::expect_used, reason = "both callers give the lowest and the highest address of one family")]
fn span(lowest: IpAddr, highest: IpAddr) -> AddressRange {
    AddressRange::new(lowest, highest).expect("lowest and highest of one family")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_given_by_address_range_or_name() {
        assert_eq!(remote("192.0.2.1"), Ok(RemoteAddress::Address("192.0.2.1".parse().unwrap())));
        assert_eq!(remote("%any"), Ok(RemoteAddress::Any));
        assert_eq!(remote("gw-1.example.org"), Ok(RemoteAddress::Name("gw-1.example.org".to_owned())));
        for (text, printed) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("fec3::/16", "fec3::/16"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1..10.0.0.9"),
            ("%any4", "0.0.0.0/0"),
            ("%any6", "::/0"),
        ] {
            let RemoteAddress::Range(range) = remote(text).unwrap() else { panic!("{text} is a range") };
            assert_eq!(range.to_string(), printed);
        }
    }

    #[test]
    fn what_is_neither_address_nor_name_is_refused() {
        for wrong in ["", "192.0.2.300", "192.0.2.1/33", "a b", "-x.org", "10.0.0.9-10.0.0.1", "::1-10.0.0.1", "%anny"]
        {
            assert!(remote(wrong).is_err(), "{wrong}");
        }
    }
}
