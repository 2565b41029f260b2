//! Tunnels: what stands between an inner packet and the ESP or IP packet that carries it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{DfPolicy, DscpPolicy, IpPrefix};

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// IPv4 and IPv6 packets: the inside is a TUN device.
    #[default]
    Ip,
    /// Ethernet frames: the inside is a TAP device, or a port of a bridge domain.
    Ethernet,
}

/// Generic Routing Encapsulation (RFC 2784, RFC 2890).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gre {
    /// The key, the same in both directions; packets with another one, or none, belong to another tunnel.
    pub key: Option<u32>,
    /// Whether packets are sent with a checksum, and taken only with one.
    pub checksum: bool,
    /// Whether packets are sent with a sequence number, and taken only in order.
    pub sequence: bool,
    /// What is carried.
    pub layer: Layer,
}

/// Virtual eXtensible LAN (RFC 7348).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// The VXLAN network identifier.
    pub vni: Vni,
    /// The UDP port to which both ends send.
    pub port: u16,
}

impl Vxlan {
    /// The port that IANA assigned (RFC 7348 §5).
    pub const PORT: u16 = 4789;
}

/// A VXLAN network identifier: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier.
    pub const MOST: u32 = 0x00ff_ffff;

    /// The number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniTooLarge;

    fn try_from(value: u32) -> Result<Self, VniTooLarge> {
        if value > Self::MOST { Err(VniTooLarge(value)) } else { Ok(Self(value)) }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

/// A number that does not fit in the 24 bits of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} exceeds {most}", most = Vni::MOST)]
pub struct VniTooLarge(pub u32);

/// A static L2TPv3 session that carries Ethernet frames (RFC 3931 §4.1, RFC 4719).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2tpv3 {
    /// Our session id: what the peer writes. 0 is for control messages and names no session.
    pub session: u32,
    /// The peer's session id: what we write.
    pub peer_session: u32,
    /// Our cookie: what the peer writes.
    pub cookie: L2tpCookie,
    /// The peer's cookie: what we write.
    pub peer_cookie: L2tpCookie,
    /// What carries it.
    pub carrier: L2tpCarrier,
    /// Whether packets have the default L2-specific sublayer (RFC 3931 §4.6), and what it is used for.
    pub sublayer: L2tpSublayer,
}

/// What carries L2TPv3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum L2tpCarrier {
    /// IP protocol 115 (RFC 3931 §4.1.1).
    #[default]
    Ip,
    /// UDP (RFC 3931 §4.1.2).
    Udp {
        /// Our port.
        local_port: u16,
        /// The peer's port.
        remote_port: u16,
    },
}

impl L2tpCarrier {
    /// The UDP port that IANA assigned.
    pub const PORT: u16 = 1701;
}

/// The L2-specific sublayer between session header and frame (RFC 3931 §4.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum L2tpSublayer {
    /// There is none.
    #[default]
    None,
    /// The default one, without sequence numbers.
    Default,
    /// The default one; packets are sent with sequence numbers, and those that have one are taken only in order.
    Sequenced,
}

/// The cookie of an L2TPv3 session: it must be in each packet, so that a stray session id does no harm
/// (RFC 3931 §4.1). `Debug` shows only its length.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum L2tpCookie {
    /// No cookie.
    #[default]
    None,
    /// 4 octets as on the wire.
    Four([u8; 4]),
    /// 8 octets as on the wire.
    Eight([u8; 8]),
}

impl L2tpCookie {
    /// The octets on the wire.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Four(octets) => octets,
            Self::Eight(octets) => octets,
        }
    }
}

impl fmt::Debug for L2tpCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L2tpCookie({} octets)", self.octets().len())
    }
}

/// The ends of a tunnel and its outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEnds {
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address, of the same family; `None` for a multipoint tunnel, whose peers are next hops.
    pub remote: Option<IpAddr>,
    /// TTL or hop limit of the outer header.
    pub hop_limit: u8,
    /// DSCP of the outer header.
    pub dscp: DscpPolicy,
    /// Don't Fragment of an outer IPv4 header.
    pub df: DfPolicy,
}

impl TunnelEnds {
    /// The TTL of outer headers unless something else is asked for (RFC 1700).
    pub const HOP_LIMIT: u8 = 64;

    /// The ends with everything else as usual.
    #[must_use]
    pub fn new(local: IpAddr, remote: Option<IpAddr>) -> Self {
        let (dscp, df) = (DscpPolicy::default(), DfPolicy::default());
        Self { local, remote, hop_limit: Self::HOP_LIMIT, dscp, df }
    }
}

/// Whether packets of a tunnel may be in clear on the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// Never: what finds no SA is dropped, and so is what comes in clear.
    #[default]
    Required,
    /// The tunnel's packets leave through the kernel's routing as they are. Other interfaces may still protect them on the way.
    None,
}

/// A static next hop of a multipoint tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The inner destinations; of several that cover a packet the longest counts.
    pub inner: IpPrefix,
    /// The outer address of the peer that they are behind.
    pub remote: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::try_from(Vni::MOST).map(Vni::value), Ok(0x00ff_ffff));
        assert_eq!(Vni::try_from(0x0100_0000), Err(VniTooLarge(0x0100_0000)));
    }

    #[test]
    fn a_cookie_does_not_show_itself() {
        let text = format!("{:?}", L2tpCookie::Four([0xde, 0xad, 0xbe, 0xef]));
        assert_eq!(text, "L2tpCookie(4 octets)");
    }
}
