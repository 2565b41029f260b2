//! Traffic selectors: which packets an SA or a policy is for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A closed range of addresses of one family; any range, not only prefixes (RFC 7296 §3.13.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressRange {
    start: IpAddr,
    end: IpAddr,
}

impl AddressRange {
    /// The range from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`AddressRangeError`] when the families differ or `start` is above `end`.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, AddressRangeError> {
        if start.is_ipv4() != end.is_ipv4() {
            return Err(AddressRangeError::MixedFamilies);
        }
        if start > end {
            return Err(AddressRangeError::Reversed);
        }
        Ok(Self { start, end })
    }

    /// The range that holds just `address`.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        Self { start: address, end: address }
    }

    /// All addresses of IPv4, or of IPv6.
    #[must_use]
    pub fn whole(ipv4: bool) -> Self {
        if ipv4 {
            Self { start: Ipv4Addr::UNSPECIFIED.into(), end: Ipv4Addr::BROADCAST.into() }
        } else {
            Self { start: Ipv6Addr::UNSPECIFIED.into(), end: Ipv6Addr::from_bits(u128::MAX).into() }
        }
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// Last address.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// Whether the range is of IPv4 addresses.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.start.is_ipv4()
    }

    /// The length of the prefix that is exactly this range, if there is one.
    #[must_use]
    pub fn prefix_len(&self) -> Option<u32> {
        prefix_len(self.start, self.end)
    }

    /// Whether `address` is inside; never for the other family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && self.start <= address && address <= self.end
    }

    /// What both ranges have in common.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
            .ok()
            .filter(|_| self.is_ipv4() == other.is_ipv4())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match prefix_len(self.start, self.end) {
            Some(len) => write!(f, "{}/{len}", self.start),
            None => write!(f, "{}..{}", self.start, self.end),
        }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why two addresses do not make a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// One address is IPv4, the other IPv6.
    #[error("the ends of an address range must be of one family")]
    MixedFamilies,
    /// The start is above the end.
    #[error("the start of an address range must not be above its end")]
    Reversed,
}

/// A range of ports, or for ICMP of type and code (type in the high octet, RFC 7296 §3.13.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port; below `start` only in [`Self::OPAQUE`].
    pub end: u16,
}

impl PortRange {
    /// Every port, also where none is visible.
    pub const ANY: Self = Self { start: 0, end: u16::MAX };
    /// Only packets whose ports are not visible (RFC 7296 §3.13.1).
    pub const OPAQUE: Self = Self { start: u16::MAX, end: 0 };

    /// Whether a packet fits; `port` is `None` when it is not visible (non-first fragments, other protocols).
    #[must_use]
    pub fn contains(self, port: Option<u16>) -> bool {
        match port {
            _ if self == Self::ANY => true,
            None => self == Self::OPAQUE,
            Some(port) => self.start <= port && port <= self.end,
        }
    }

    /// What both ranges have in common; [`Self::OPAQUE`] meets only itself and [`Self::ANY`].
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::ANY, other) | (other, Self::ANY) => Some(other),
            (Self::OPAQUE, Self::OPAQUE) => Some(Self::OPAQUE),
            (Self::OPAQUE, _) | (_, Self::OPAQUE) => None,
            _ => {
                let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
                (both.start <= both.end).then_some(both)
            }
        }
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => f.write_str("any"),
            Self::OPAQUE => f.write_str("opaque"),
            Self { start, end } if start == end => write!(f, "{start}"),
            Self { start, end } => write!(f, "{start}-{end}"),
        }
    }
}

/// One side of the traffic an SA carries: addresses, protocol, ports (RFC 7296 §3.13.1, RFC 4301 §4.4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// The addresses.
    pub addresses: AddressRange,
    /// The IP protocol number, 0 for any.
    pub protocol: u8,
    /// The ports, or ICMP type and code.
    pub ports: PortRange,
}

impl TrafficSelector {
    /// All protocols and ports of `addresses`.
    #[must_use]
    pub fn any_protocol(addresses: AddressRange) -> Self {
        Self { addresses, protocol: 0, ports: PortRange::ANY }
    }

    /// Whether a packet with this address, protocol and port (of this side) is selected.
    #[must_use]
    pub fn matches(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        self.addresses.contains(address)
            && (self.protocol == 0 || self.protocol == protocol)
            && self.ports.contains(port)
    }

    /// What both selectors have in common.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        Some(Self {
            addresses: self.addresses.intersection(&other.addresses)?,
            protocol,
            ports: self.ports.intersection(other.ports)?,
        })
    }

    /// Whether every packet of `other` is also one of this selector.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }
}

impl fmt::Display for TrafficSelector {
    /// `10.1.0.0/16` or `10.1.0.0/16[tcp/443]`; ICMP as type and code: `10.1.0.0/16[icmp/3(4)]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addresses)?;
        if self.protocol == 0 && self.ports == PortRange::ANY {
            return Ok(());
        }
        f.write_str("[")?;
        match self.protocol {
            0 => {}
            1 => f.write_str("icmp")?,
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            47 => f.write_str("gre")?,
            58 => f.write_str("ipv6-icmp")?,
            other => write!(f, "{other}")?,
        }
        match (self.protocol, self.ports) {
            (_, PortRange::ANY) => {}
            (1 | 58, ports) if ports != PortRange::OPAQUE => fmt_icmp(ports, f)?,
            (_, ports) => write!(f, "/{ports:?}")?,
        }
        f.write_str("]")
    }
}

/// A type alone is one with all its codes; what is neither that nor one code is written as the port field would be.
fn fmt_icmp(ports: PortRange, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (ports.start.to_be_bytes(), ports.end.to_be_bytes()) {
        ([first, 0], [last, u8::MAX]) if first == last => write!(f, "/{first}"),
        ([first, 0], [last, u8::MAX]) => write!(f, "/{first}-{last}"),
        ([kind, code], _) if ports.start == ports.end => write!(f, "/{kind}({code})"),
        _ => write!(f, "/{ports:?}"),
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The length of the prefix that is exactly the range from `start` to `end`, if there is one.
fn prefix_len(start: IpAddr, end: IpAddr) -> Option<u32> {
    let (low, high, bits) = match (start, end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (u128::from(start.to_bits()), u128::from(end.to_bits()), 32),
        (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits(), end.to_bits(), 128),
        _ => return None,
    };
    let span = low ^ high;
    let host_bits = u128::BITS - span.leading_zeros();
    let mask = 1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
    (span == mask && low & mask == 0).then(|| bits - host_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> AddressRange {
        AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_print_as_prefixes_where_they_are_some() {
        assert_eq!(range("10.1.0.0", "10.1.255.255").to_string(), "10.1.0.0/16");
        assert_eq!(range("0.0.0.0", "255.255.255.255").to_string(), "0.0.0.0/0");
        assert_eq!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").to_string(), "::/0");
        assert_eq!(range("10.1.0.1", "10.1.0.6").to_string(), "10.1.0.1..10.1.0.6");
        assert_eq!(range("10.1.0.7", "10.1.0.7").to_string(), "10.1.0.7/32");
    }

    #[test]
    fn opaque_ports_are_not_any_ports() {
        assert!(PortRange::ANY.contains(None));
        assert!(PortRange::OPAQUE.contains(None));
        assert!(!PortRange::OPAQUE.contains(Some(80)));
        assert!(!PortRange { start: 80, end: 80 }.contains(None));
        assert_eq!(PortRange::ANY.intersection(PortRange::OPAQUE), Some(PortRange::OPAQUE));
        assert_eq!(PortRange { start: 1, end: 9 }.intersection(PortRange::OPAQUE), None);
    }

    #[test]
    fn ranges_of_two_families_never_meet() {
        let (v4, v6) = (range("0.0.0.0", "255.255.255.255"), range("::", "::ffff"));
        assert_eq!(v4.intersection(&v6), None);
        assert!(!v4.contains("::1".parse().unwrap()));
    }
}
