//! Route-based interfaces.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BridgePort, Gre, L2tpv3, Layer, MacAddress, NextHop, Protection, TunnelEnds, Vxlan};

/// The name of a network interface: 1 to 15 octets, no slash, no white space (what Linux accepts).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`InterfaceNameError`] when Linux would refuse it, or nftables take it for several.
    pub fn new(name: impl Into<String>) -> Result<Self, InterfaceNameError> {
        let name = name.into();
        // nftables takes an asterisk at the end for all names that begin so.
        let fits = (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.ends_with('*');
        if !fits || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
            return Err(InterfaceNameError(name));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(name: String) -> Result<Self, InterfaceNameError> {
        Self::new(name)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that no interface can have here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no interface name: 1 to 15 characters without `/`, `:` and white space, and no `*` at the end")]
pub struct InterfaceNameError(pub String);

/// An address with a prefix length: an interface address (host bits kept) or a route's destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IpPrefix {
    address: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// `address`/`len`.
    ///
    /// # Errors
    /// [`PrefixError`] when `len` exceeds the family's 32 or 128 bits.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if len > most { Err(PrefixError::Length { len, most }) } else { Ok(Self { address, len }) }
    }

    /// The address, host bits included.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.len
    }

    /// Whether an address lies in the prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether the prefix covers its whole family.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.len == 0
    }
}

impl FromStr for IpPrefix {
    type Err = PrefixError;

    /// Reads `address/len`; a lone address is one host.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Text(text.to_owned()))?;
        match len {
            None => Self::new(address, if address.is_ipv4() { 32 } else { 128 }),
            Some(len) => Self::new(address, len.parse().map_err(|_| PrefixError::Text(text.to_owned()))?),
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text or a pair of numbers is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Longer than the family's addresses.
    #[error("prefix length {len} exceeds {most}")]
    Length {
        /// What was given.
        len: u8,
        /// What the family allows.
        most: u8,
    },
    /// Not of the form `address/length`.
    #[error("`{0}` is not of the form address/length")]
    Text(String),
}

/// What an interface does with a packet before it goes to the SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterfaceKind {
    /// Tunnel-mode ESP, any-to-any.
    Ipsec,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213) protected by transport-mode ESP, or tunnel-mode ESP, which is the same on the wire.
    Ipip,
    /// Generic Routing Encapsulation.
    Gre(Gre),
    /// Virtual eXtensible LAN.
    Vxlan(Vxlan),
    /// Ethernet over L2TPv3.
    L2tpv3(L2tpv3),
    /// A TAP device: an Ethernet device of the kernel whose other end is ours. In a bridge domain and with addresses it is the
    /// gateway's own place on the segment (a bridge virtual interface).
    Tap,
    /// An Ethernet link that exists already, of the interface's name: the frames that come in there, and those sent out there.
    Host,
    /// One end of a link within the process. The other end is the other interface with the same number, of this dataplane or
    /// of another one in the same process.
    Memory {
        /// The number of the link.
        link: u32,
    },
}

impl InterfaceKind {
    /// What the inside of the interface carries.
    #[must_use]
    pub fn layer(self) -> Layer {
        match self {
            Self::Ipsec | Self::Ipip => Layer::Ip,
            Self::Gre(gre) => gre.layer,
            Self::Vxlan(_) | Self::L2tpv3(_) | Self::Tap | Self::Host | Self::Memory { .. } => Layer::Ethernet,
        }
    }
}

/// The MTU of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mtu {
    /// Computed from the SAs behind the interface and the MTU of the route to the peer.
    Automatic,
    /// Given, in octets.
    Fixed(u16),
}

/// An interface that the dataplane makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSpec {
    /// Its name.
    pub name: InterfaceName,
    /// Its kind.
    pub kind: InterfaceKind,
    /// Its addresses; none makes it unnumbered.
    pub addresses: Vec<IpPrefix>,
    /// Its MTU.
    pub mtu: Mtu,
    /// The ends of its tunnel. `None`: those of the SAs behind it.
    pub ends: Option<TunnelEnds>,
    /// Whether the packets of its tunnel may be in clear on the outside.
    pub protection: Protection,
    /// The peers of a multipoint tunnel.
    pub next_hops: Vec<NextHop>,
    /// The bridge domain that it is a port of.
    pub bridge: Option<BridgePort>,
    /// Its Ethernet address, where it has one; `None`: any.
    pub mac: Option<MacAddress>,
    /// The network namespace that its inside is in; `None`: ours.
    pub netns: Option<String>,
    /// An Ethernet link of the host. What its policies cover is read there and sent there past the host's network stack.
    pub host_link: Option<InterfaceName>,
}

impl InterfaceSpec {
    /// An interface with nothing but a name and a kind: unnumbered, its MTU computed, its packets protected.
    #[must_use]
    pub fn new(name: InterfaceName, kind: InterfaceKind) -> Self {
        Self {
            name,
            kind,
            addresses: Vec::new(),
            mtu: Mtu::Automatic,
            ends: None,
            protection: Protection::default(),
            next_hops: Vec::new(),
            bridge: None,
            mac: None,
            netns: None,
            host_link: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_the_addresses_of_its_length_and_family() {
        let contains =
            |prefix: &str, address: &str| prefix.parse::<IpPrefix>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.1.2.3/24", "10.1.2.255") && !contains("10.1.2.3/24", "10.1.3.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "::"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.2"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1") && contains("::/0", "::1"));
    }
}
