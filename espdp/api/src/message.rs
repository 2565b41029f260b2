//! Commands, outcomes and events.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    BridgeName, BridgeSpec, Direction, DropCount, EspSpi, HostSpec, IkePath, InboundSaSpec, InterfaceName,
    InterfaceSpec, MtuReport, OutboundSaSpec, OuterPath, PacketTrace, PolicyId, PolicySpec, Question, SaStatistics,
    SpiWish, TraceFilter, WhatIf,
};

/// Pairs an [`Outcome`] with its [`Command`]; chosen by the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Everything the daemon says to the dataplane.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToDataplane {
    /// A command that wants an outcome.
    Request(RequestId, Command),
    /// An IKE datagram to send; like any datagram it may be lost, so nothing confirms it. It overtakes commands, but for
    /// [`Command::Activate`]: packets that follow it go over what was activated before.
    SendIke {
        /// From where to where.
        path: IkePath,
        /// The IKE message without the non-ESP marker.
        message: Vec<u8>,
    },
    /// A NAT keepalive: one octet 0xFF on the NAT-T port (RFC 3948 §2.3).
    SendKeepalive {
        /// From where to where.
        path: IkePath,
    },
}

/// Everything the dataplane says to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromDataplane {
    /// The answer to a request.
    Outcome(RequestId, Outcome),
    /// Something happened.
    Event(Event),
}

/// What the daemon wants done. Commands are carried out in the order in which they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sets a fresh random inbound SPI aside. Answer: [`Done::Spi`].
    ReserveSpi(SpiWish),
    /// Sets this inbound SPI aside, which a peer was told by hand.
    ClaimSpi(EspSpi),
    /// Gives a reserved or claimed SPI back that was never installed.
    ReleaseSpi(EspSpi),
    /// Installs a receiving SA. Packets are accepted from the moment of the answer.
    InstallInbound(Box<InboundSaSpec>),
    /// Installs a sending SA. It does not send before [`Command::Activate`].
    InstallOutbound(Box<OutboundSaSpec>),
    /// Makes an installed outbound SA the one its policy sends on.
    Activate {
        /// The policy.
        policy: PolicyId,
        /// The SA.
        spi: EspSpi,
    },
    /// Removes an SA. Answer: [`Done::Removed`].
    RemoveSa {
        /// Which half.
        direction: Direction,
        /// Its SPI; for outbound SAs the policy tells apart equal SPIs of two peers.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
    },
    /// Changes the outer addresses of an SA, as NATs and MOBIKE ask for. Counters and windows go on.
    MoveSa {
        /// Which half.
        direction: Direction,
        /// Its SPI.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
        /// The new path.
        path: OuterPath,
    },
    /// Sets a policy, or changes the one with this id: its place in the order and its SAs stay.
    SetPolicy(Box<PolicySpec>),
    /// Removes a policy, its routes and every SA left in it.
    RemovePolicy(PolicyId),
    /// Makes an interface, or changes the one of this name.
    SetInterface(Box<InterfaceSpec>),
    /// Removes an interface that has no policies any more.
    RemoveInterface(InterfaceName),
    /// Makes a bridge domain, or changes the one of this name; its ports and what it has learned stay.
    SetBridge(Box<BridgeSpec>),
    /// Removes a bridge domain that has no ports any more.
    RemoveBridge(BridgeName),
    /// Sets what the host's network stack does beside our interfaces.
    SetHost(Box<HostSpec>),
    /// Asks which steps [`Command::SetHost`] would take. Answer: [`Done::Plan`].
    PlanHost(Box<HostSpec>),
    /// Asks which local address the kernel would use towards `remote`. Answer: [`Done::LocalAddress`].
    LocalAddress {
        /// The peer.
        remote: IpAddr,
    },
    /// Asks for counters of all SAs. Answer: [`Done::Statistics`].
    Statistics,
    /// Asks where the octets of the paths go. Answer: [`Done::Mtus`].
    ReadMtus,
    /// Has the next packets traced that `filter` takes, and forgets those that were traced before.
    Trace {
        /// How many, at most 1000; 0 ends it.
        packets: usize,
        /// Which.
        filter: TraceFilter,
    },
    /// Asks for the packets that were traced. Answer: [`Done::Traces`].
    ReadTraces,
    /// Asks what would become of a packet. Answer: [`Done::WhatIf`].
    WhatIf(Box<Question>),
}

/// What became of a command.
pub type Outcome = Result<Done, Refusal>;

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Nothing to add.
    Ok,
    /// A fresh SPI.
    Spi(EspSpi),
    /// The last counters of a removed SA.
    Removed(Box<SaStatistics>),
    /// A local address.
    LocalAddress(IpAddr),
    /// One entry for each SA that sends and whose path is known.
    Mtus(Vec<MtuReport>),
    /// What would change: a line for each step, and for rules of the packet filter those that come (`+`) and go (`-`).
    Plan(Vec<String>),
    /// The counters of everything.
    Statistics {
        /// One entry for each SA.
        sas: Vec<SaStatistics>,
        /// One entry for each interface.
        interfaces: Vec<InterfaceReport>,
        /// Drops that belong to no SA.
        drops: Vec<DropCount>,
    },
    /// The packets that were traced, oldest first.
    Traces(Vec<PacketTrace>),
    /// What would become of a packet.
    WhatIf(Box<WhatIf>),
}

/// What an interface looks like now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: InterfaceName,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Packets that came from the inside.
    pub packets_out: u64,
    /// Their octets.
    pub bytes_out: u64,
    /// Packets handed to the inside.
    pub packets_in: u64,
    /// Their octets.
    pub bytes_in: u64,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No SA with this SPI.
    #[error("no SA with SPI {0}")]
    UnknownSa(EspSpi),
    /// The SPI was not reserved, or is already installed.
    #[error("SPI {0} is not reserved or already in use")]
    SpiNotReserved(EspSpi),
    /// The SPI that was claimed belongs to somebody else.
    #[error("SPI {0} is in use by another SA")]
    SpiInUse(EspSpi),
    /// No policy with this id.
    #[error("no policy {0:?}")]
    UnknownPolicy(PolicyId),
    /// No interface of this name.
    #[error("no interface `{0}`")]
    UnknownInterface(InterfaceName),
    /// Policies still use the interface.
    #[error("interface `{0}` is in use")]
    InterfaceInUse(InterfaceName),
    /// No bridge domain of this name.
    #[error("no bridge domain `{0}`")]
    UnknownBridge(BridgeName),
    /// Interfaces are still ports of the bridge domain.
    #[error("bridge domain `{0}` has ports")]
    BridgeInUse(BridgeName),
    /// The dataplane cannot make such an interface.
    #[error("interface `{interface}` cannot be made: {reason}")]
    BadInterface {
        /// Its name.
        interface: InterfaceName,
        /// What is wrong.
        reason: String,
    },
    /// The algorithms or keys do not fit together.
    #[error("the SA cannot be built: {0}")]
    BadSa(String),
    /// The limit on SAs, policies or interfaces is reached.
    #[error("the dataplane is full: {0}")]
    Full(String),
    /// The operating system refused.
    #[error("{operation}: {reason}")]
    System {
        /// What was tried.
        operation: String,
        /// What the system said.
        reason: String,
    },
}

/// The selectors of a packet, for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSummary {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port, or ICMP type and code (type in the high octet), where visible.
    pub source_port: Option<u16>,
    /// Destination port, where visible.
    pub destination_port: Option<u16>,
}

impl fmt::Display for PacketSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, source_port, destination_port } = *self;
        let (name, is_icmp) = match protocol {
            1 => ("ICMP", true),
            6 => ("TCP", false),
            17 => ("UDP", false),
            58 => ("ICMPv6", true),
            _ => ("", false),
        };
        match source_port {
            Some(both) if is_icmp => {
                let [kind, code] = both.to_be_bytes();
                return write!(f, "{source} to {destination}, {name} type {kind} code {code}");
            }
            Some(port) => write!(f, "{source} port {port} to {destination}")?,
            None => write!(f, "{source} to {destination}")?,
        }
        destination_port.map_or(Ok(()), |port| write!(f, " port {port}"))?;
        if name.is_empty() { write!(f, ", protocol {protocol}") } else { write!(f, ", {name}") }
    }
}

/// What the dataplane saw on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An IKE datagram came in, the non-ESP marker stripped.
    Ike {
        /// `local` is where it arrived, `remote` where it came from.
        path: IkePath,
        /// The datagram.
        message: Vec<u8>,
    },
    /// A packet of a policy found no SA to send it. Raised at most once a second for a policy.
    Acquire {
        /// The policy.
        policy: PolicyId,
        /// The packet.
        packet: PacketSummary,
    },
    /// A soft limit is reached, once for each SA.
    SoftLimit {
        /// Which half.
        direction: Direction,
        /// Its SPI.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
    },
    /// A hard limit or the end of the sequence numbers is reached; the SA passes no more packets.
    HardLimit {
        /// Which half.
        direction: Direction,
        /// Its SPI.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
    },
    /// The first packet passed on an inbound SA: the peer sends on it, so an older one may be drained.
    FirstPacket {
        /// The inbound SPI.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
    },
    /// An authentic ESP packet came from another address or port than the SA's (RFC 7296 §2.23). At most once a second for an SA.
    PeerMoved {
        /// The inbound SPI.
        spi: EspSpi,
        /// The policy it serves.
        policy: PolicyId,
        /// Where it came from now.
        path: OuterPath,
    },
    /// The addresses or routes of the host have changed, or the dataplane has just begun to watch them.
    NetworkChanged {
        /// All addresses that can be used to reach other hosts now, those of the dataplane's own interfaces left out.
        addresses: Vec<IpAddr>,
    },
    /// ESP for an SPI that nobody has (RFC 4303 §3.4.2). Sampled: at most once a second in all.
    UnknownSpi {
        /// Its outer path.
        path: OuterPath,
        /// The SPI on the wire, host order.
        spi: u32,
    },
    /// The dataplane cannot go on; the daemon must end.
    Fatal {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_read_as_people_say_them() {
        let packet = |protocol, source_port, destination_port| PacketSummary {
            source: [10, 1, 0, 10].into(),
            destination: [10, 2, 0, 10].into(),
            protocol,
            source_port,
            destination_port,
        };
        for (packet, expected) in [
            (packet(6, Some(40000), Some(443)), "10.1.0.10 port 40000 to 10.2.0.10 port 443, TCP"),
            (packet(17, None, None), "10.1.0.10 to 10.2.0.10, UDP"),
            (packet(1, Some(0x0800), None), "10.1.0.10 to 10.2.0.10, ICMP type 8 code 0"),
            (packet(47, None, None), "10.1.0.10 to 10.2.0.10, protocol 47"),
        ] {
            assert_eq!(packet.to_string(), expected);
        }
    }
}
