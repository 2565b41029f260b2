//! What is known about the room that tunnels leave.

use serde::{Deserialize, Serialize};

use crate::{EspSpi, InterfaceName, OuterPath, PolicyId};

/// How it is known what the path to a peer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMtuSource {
    /// It is what the first link carries.
    Link,
    /// The route says so.
    Route,
    /// An ICMP message said so.
    Message,
    /// An ICMP message said less than may be believed, so it is the least that is.
    Bound,
    /// The configuration says so.
    Configuration,
}

/// Where the octets of the path go that an SA sends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuReport {
    /// The interface that the SA is behind.
    pub interface: InterfaceName,
    /// The MTU that the interface has now, in octets.
    pub interface_mtu: u32,
    /// Whether the configuration gave it.
    pub interface_is_fixed: bool,
    /// The policy that the SA serves.
    pub policy: PolicyId,
    /// The SA.
    pub spi: EspSpi,
    /// Its path.
    pub path: OuterPath,
    /// What the path carries, in octets with the outer IP header.
    pub path_mtu: u32,
    /// How that is known.
    pub known_from: PathMtuSource,
    /// What stands around an inner packet, from the outside to the inside and back.
    pub terms: Vec<MtuTerm>,
    /// The longest inner packet, in octets.
    pub inner_mtu: u32,
    /// The largest TCP segment in IPv4 packets, in octets.
    pub mss_ipv4: u32,
    /// The largest TCP segment in IPv6 packets, in octets.
    pub mss_ipv6: u32,
}

/// A part of what stands around an inner packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuTerm {
    /// What it is, for people.
    pub name: String,
    /// How long it is.
    pub octets: u32,
}
