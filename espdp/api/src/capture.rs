//! Captures: packets as they pass the dataplane, copied for somebody who looks on.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{Direction, InterfaceName, Layer, PolicyId};

/// Which packets are captured, and how much of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSpec {
    /// Packets on the inside of interfaces: as they come from there, and as they are handed there.
    pub inside: bool,
    /// Packets on the outside: protected, and those that pass in clear.
    pub outside: bool,
    /// Octets of each packet that are kept at most.
    pub snaplen: usize,
    /// Only packets of these policies, as far as it is known whose they are; `None`: all.
    pub policies: Option<Vec<PolicyId>>,
    /// Packets a second that one worker copies at most; the others are counted as lost.
    pub most_per_second: u32,
}

/// Where a packet was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Viewpoint {
    /// On the inside of an interface.
    Inside(InterfaceName),
    /// On the outside of the gateway.
    Outside,
    /// Within the daemon: an IKE message as if nobody had encrypted it.
    IkePlain,
}

/// The SA of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedSa {
    /// Its SPI, host order.
    pub spi: u32,
    /// The policy that it serves.
    pub policy: PolicyId,
}

/// What is worth a remark about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureRemark {
    /// It went no further; the stable name of the reason, as statistics have it.
    Dropped(String),
    /// It left, or came, without protection.
    InClear,
    /// The dataplane made it itself, to answer the sender of another packet.
    Answer,
}

/// A packet that was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// When.
    pub at: SystemTime,
    /// Where.
    pub viewpoint: Viewpoint,
    /// What it begins with: an IP or an Ethernet header. Outer headers that the kernel writes, or takes away, are put together
    /// again from what is known of them.
    pub layer: Layer,
    /// Which way it goes: outbound is from the inside to the outside.
    pub direction: Direction,
    /// Its first octets.
    pub octets: Vec<u8>,
    /// How many it had. A super-packet, which stands for many, is one packet on the inside.
    pub len: usize,
    /// Its SA, if one is known.
    pub sa: Option<CapturedSa>,
    /// What else is to be said.
    pub remark: Option<CaptureRemark>,
}
