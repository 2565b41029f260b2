//! How packets are shaped for the way between the gateways.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything about the packets of an SA that the two gateways need not agree on: what the outer header says, what is added
/// to hide lengths and silence, and what happens to packets that are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketShape {
    /// Don't Fragment of the outer header, in tunnel mode.
    pub df: DfPolicy,
    /// DSCP of the outer header, in tunnel mode.
    pub dscp: DscpPolicy,
    /// Time to live or hop limit of the outer header, in tunnel mode.
    pub hop_limit: HopLimitPolicy,
    /// Flow label of an outer IPv6 header, in tunnel mode.
    pub flow_label: FlowLabelPolicy,
    /// What is added to hide the length of packets.
    pub padding: PaddingPolicy,
    /// After how long without packets a dummy packet is sent (RFC 4303 §2.6); `None` never.
    pub dummy_interval: Option<Duration>,
    /// What becomes of the maximum segment size in the SYNs of TCP, in both directions.
    pub mss: MssPolicy,
    /// Where packets that are too long for the path are fragmented.
    pub fragment: FragmentPolicy,
    /// What is believed about the path to the peer.
    pub path_mtu: PathMtuPolicy,
}

/// What becomes of the Don't Fragment bit of the outer header (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DfPolicy {
    /// As in the inner packet.
    Copy,
    /// Always set: the default, since the interface MTU is exact.
    #[default]
    Set,
    /// Never set.
    Clear,
}

/// What becomes of the DSCP of the outer header (RFC 4301 §5.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DscpPolicy {
    /// As in the inner packet.
    #[default]
    Copy,
    /// Always this value, 0 to 63.
    Fixed(u8),
}

/// What the outer header has as time to live (IPv4) or hop limit (IPv6) (RFC 4301 §5.1.2.1, note 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HopLimitPolicy {
    /// As in the inner packet, so that the hops outside count inside, too.
    Copy,
    /// Always this value, 1 to 255.
    Fixed(u8),
}

impl Default for HopLimitPolicy {
    /// RFC 1700 recommends 64.
    fn default() -> Self {
        Self::Fixed(64)
    }
}

/// What an outer IPv6 header has as flow label (RFC 4301 §5.1.2.1, RFC 6438).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowLabelPolicy {
    /// Zero: routers that spread flows over several paths see one flow, and learn nothing about the inner ones.
    #[default]
    Zero,
    /// As in the inner packet; zero around IPv4.
    Copy,
    /// A hash of the inner flow, so that the flows of a tunnel can take different paths (RFC 6438 §3).
    Hash,
}

/// What is added to hide the length of packets (RFC 4303 §2.7), in tunnel mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaddingPolicy {
    /// Nothing but what the cipher needs.
    #[default]
    None,
    /// Shorter inner packets are filled up to this many octets.
    To(u16),
    /// All packets are as long as the path carries.
    ToPathMtu,
}

/// What becomes of the maximum segment size that TCP announces in its SYN (RFC 9293 §3.7.1). It is only ever lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MssPolicy {
    /// To what the path carries.
    #[default]
    Automatic,
    /// It stays.
    Keep,
    /// To this many octets at most.
    AtMost(u16),
}

/// Where packets that are too long for the path are fragmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FragmentPolicy {
    /// Inside, before encryption, where the packet allows it: the host that receives it reassembles. Others are refused with
    /// an ICMP message that says what fits.
    #[default]
    Before,
    /// Outside, after encryption (RFC 4303 §3.3.4): the peer reassembles.
    After,
}

/// What is believed about the path to the peer (RFC 4301 §6.1.1, §8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMtuPolicy {
    /// What the kernel learns from ICMP messages, which nobody signs.
    #[default]
    Learn,
    /// Only what the route or its link says.
    Ignore,
    /// The path carries this many octets, outer IP header included.
    Fixed(u16),
}
