//! What would become of a packet, if there were one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{InterfaceKind, InterfaceName, IpsecProtocol, Mode, OuterPath, PolicyAction, PolicyId, WorkerId};

/// A packet that nobody sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The interface from whose inside it would come, and to whose inside it would go; `None`: where the kernel's routes lead, and
    /// any.
    pub interface: Option<InterfaceName>,
    /// Where it would go.
    pub destination: IpAddr,
    /// The whole IP packet.
    pub packet: Vec<u8>,
}

/// What would become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIf {
    /// The link that the kernel would send it to, where nobody said an interface.
    pub link: Option<String>,
    /// If it came from the inside; nothing when that link is none of ours.
    pub outbound: Option<OutboundVerdict>,
    /// If a peer sent it through a tunnel, for each interface.
    pub inbound: Vec<InboundVerdict>,
}

/// What becomes of a packet from the inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundVerdict {
    /// The interface.
    pub interface: InterfaceName,
    /// The tunnel whose headers are put in front.
    pub tunnel: Option<InterfaceKind>,
    /// The policy that decides, and what it says.
    pub policy: Option<(PolicyId, PolicyAction)>,
    /// What becomes of it.
    pub fate: OutboundFate,
}

/// What becomes of a packet from the inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboundFate {
    /// An SA carries it.
    Protected(Carriage),
    /// It leaves without protection.
    InClear,
    /// It goes no further.
    Dropped {
        /// Why: the stable name of the reason, as statistics have it.
        reason: String,
        /// The SA that refuses it, host order.
        spi: Option<u32>,
    },
    /// Another worker decides.
    Elsewhere(WorkerId),
}

/// How an SA carries a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carriage {
    /// The SA, host order.
    pub spi: u32,
    /// What protects.
    pub protocol: IpsecProtocol,
    /// What is protected.
    pub mode: Mode,
    /// From where to where.
    pub path: OuterPath,
    /// Octets of the packet on the wire, the outer IP header included, as long as nobody cuts it.
    pub wire_octets: usize,
    /// Octets that the path carries; `None` while nobody knows.
    pub path_mtu: Option<usize>,
    /// The longest packet from the inside that needs not be cut; `None` while nobody knows.
    pub longest: Option<usize>,
    /// Whether it fits.
    pub fit: Fitting,
}

/// Whether a packet fits through its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fitting {
    /// It does.
    Whole,
    /// It is protected, and then cut.
    CutOutside,
    /// It is cut, and each fragment is protected.
    CutInside,
    /// It is refused, and its sender told to send none longer than this, in octets.
    TooBig(usize),
}

/// What becomes of a packet that an SA brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundVerdict {
    /// The interface.
    pub interface: InterfaceName,
    /// The first policy that selects it, and what that says.
    pub policy: Option<(PolicyId, PolicyAction)>,
    /// The SAs that may bring it: SPI, host order, and policy of each.
    pub sas: Vec<(u32, PolicyId)>,
    /// Why nobody may bring it, if so: the stable name of the reason.
    pub reason: Option<String>,
}
