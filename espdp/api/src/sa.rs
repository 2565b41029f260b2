//! Security associations of ESP and AH as the daemon describes them.

use serde::{Deserialize, Serialize};

use crate::{Carries, EspAlgorithms, EspSpi, OuterPath, PacketShape, PolicyId, Secret, TrafficSelector};

/// The direction of an SA, seen from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The peer sends on it.
    Inbound,
    /// We send on it.
    Outbound,
}

/// The protocol that protects packets (RFC 4301 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpsecProtocol {
    /// Encapsulating Security Payload (RFC 4303), IP protocol 50.
    Esp,
    /// Authentication Header (RFC 4302), IP protocol 51: integrity alone, over the outer header as well. The cipher is
    /// [`crate::EspCipher::Null`], the encapsulation [`crate::Encapsulation::Esp`]: no NAT may stand between the peers.
    Ah,
}

/// Tunnel or transport mode (RFC 4303 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The whole inner packet is protected and gets a new outer header.
    Tunnel,
    /// Only the payload is protected; the packet keeps its header.
    Transport,
}

/// How much traffic an SA may carry; time is the daemon's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficLimit {
    /// Octets of inner packets.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
}

/// Soft limits raise an event once, hard limits stop the SA (RFC 4301 §4.4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaLimits {
    /// Rekey is due.
    pub soft: TrafficLimit,
    /// No packet beyond.
    pub hard: TrafficLimit,
}

/// What both halves of a Child SA have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SaSpec {
    /// ESP or AH.
    pub protocol: IpsecProtocol,
    /// The SPI on the wire: ours for an inbound SA, the peer's for an outbound one.
    pub spi: EspSpi,
    /// The policy it serves, and with it the interface.
    pub policy: PolicyId,
    /// Ciphers.
    pub algorithms: EspAlgorithms,
    /// Cipher key, followed by the salt where the cipher has one.
    pub encryption_key: Secret<Vec<u8>>,
    /// Integrity key; empty for an AEAD.
    pub integrity_key: Secret<Vec<u8>>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Outer addresses and encapsulation.
    pub path: OuterPath,
    /// Our side's selectors.
    pub local: Vec<TrafficSelector>,
    /// The peer's side's selectors.
    pub remote: Vec<TrafficSelector>,
    /// Traffic limits.
    pub limits: SaLimits,
}

/// An SA to receive on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InboundSaSpec {
    /// The SA.
    pub sa: SaSpec,
    /// Size of the replay window in packets, 64 to 65536; rounded up to a multiple of 64. 0 turns the check off, which
    /// RFC 4303 §3.4.3 allows only by configuration.
    pub replay_window: u32,
}

/// An SA to send on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutboundSaSpec {
    /// The SA.
    pub sa: SaSpec,
    /// How its packets are shaped.
    pub shape: PacketShape,
    /// What happens when the sequence numbers on the wire are used up.
    pub sequence_end: SequenceEnd,
    /// Our SPI of the half that receives: the same worker has both. `None`: there is none.
    pub inbound: Option<EspSpi>,
    /// Whose packets it carries.
    pub carries: Carries,
}

/// What happens after the last sequence number (RFC 4303 §3.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SequenceEnd {
    /// Nothing is sent any more: the receiver would take it for replayed.
    #[default]
    Stop,
    /// The numbers begin anew. Only where the receiver is known not to look at them, as with keys by hand.
    Wrap,
}

/// How often packets of an SA were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's stable name, for example `replay`.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// The counters of one SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaStatistics {
    /// Which SA.
    pub spi: EspSpi,
    /// Its direction.
    pub direction: Direction,
    /// Octets of inner packets that passed.
    pub bytes: u64,
    /// Packets that passed, dummy packets included.
    pub packets: u64,
    /// Seconds since the last packet passed; `None` when none did.
    pub idle_seconds: Option<u64>,
    /// The newest sequence number sent or accepted.
    pub sequence: u64,
    /// Drops, without reasons that never occurred.
    pub drops: Vec<DropCount>,
}
