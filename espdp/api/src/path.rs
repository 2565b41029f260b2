//! Where datagrams travel: addresses and encapsulation of the outside.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The two ends of an IKE datagram as our socket sees them. Port 4500 (or the configured NAT-T port) on our side means
/// that the dataplane adds and strips the non-ESP marker (RFC 7296 §2, RFC 3948 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IkePath {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// How ESP packets travel between the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encapsulation {
    /// IP protocol 50 (RFC 4303).
    Esp,
    /// Inside UDP (RFC 3948).
    Udp {
        /// Our port, usually 4500.
        local_port: u16,
        /// The peer's port; whatever a NAT made of 4500.
        remote_port: u16,
    },
}

/// The outer addresses and encapsulation of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OuterPath {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// Native or in UDP.
    pub encapsulation: Encapsulation,
}
