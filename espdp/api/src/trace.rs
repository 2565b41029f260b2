//! Traces: what happened to single packets on their way through the dataplane, step by step.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    AddressRange, Direction, EspSpi, InterfaceKind, InterfaceName, OuterPath, PacketSummary, PolicyAction, PolicyId,
};

/// Which packets are traced. What is not given takes all packets. What is asked of the inner packet takes none whose inner
/// packet was never seen, because it could not be opened for example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// Only packets that go this way.
    pub direction: Option<Direction>,
    /// Only packets of the SA with this SPI.
    pub spi: Option<EspSpi>,
    /// Only inner packets, also those in Ethernet frames, from or to one of these addresses.
    pub addresses: Option<AddressRange>,
    /// Only inner packets of this IP protocol.
    pub protocol: Option<u8>,
    /// Only inner packets from or to this port.
    pub port: Option<u16>,
    /// Only packets that were dropped.
    pub dropped: bool,
}

impl TraceFilter {
    /// Whether a packet is one of those that are wanted, as far as is known of it.
    #[must_use]
    pub fn takes(&self, trace: &PacketTrace) -> bool {
        let spi = trace.steps.iter().find_map(TraceStep::spi);
        let inner = trace.steps.iter().find_map(TraceStep::inner);
        let of_inner = |wanted: &dyn Fn(PacketSummary) -> bool| inner.is_some_and(wanted);
        self.direction.is_none_or(|direction| direction == trace.direction)
            && self.spi.is_none_or(|wanted| spi == Some(wanted.value()))
            && self.addresses.is_none_or(|addresses| {
                of_inner(&|inner| addresses.contains(inner.source) || addresses.contains(inner.destination))
            })
            && self.protocol.is_none_or(|protocol| of_inner(&|inner| inner.protocol == protocol))
            && self
                .port
                .is_none_or(|port| of_inner(&|inner| [inner.source_port, inner.destination_port].contains(&Some(port))))
            && (!self.dropped || trace.steps.iter().any(|step| matches!(step, TraceStep::Dropped { .. })))
    }
}

/// What happened to one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketTrace {
    /// When it was taken up, since tracing began.
    pub at: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// Its steps, in order.
    pub steps: Vec<TraceStep>,
}

/// One thing that happened to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TraceStep {
    /// It came from the inside.
    FromInside {
        /// Through which interface.
        interface: InterfaceName,
        /// Its octets; of a super-packet, which stands for many, all of them.
        octets: usize,
        /// What it says of itself; nothing for what is no IP packet and has none in its Ethernet frame.
        packet: Option<PacketSummary>,
    },
    /// It stands for this many packets, of which the first is followed.
    Segmented {
        /// How many.
        packets: usize,
    },
    /// A policy selects it.
    Policy {
        /// Which.
        id: PolicyId,
        /// What becomes of it.
        action: PolicyAction,
    },
    /// A tunnel put its headers in front.
    Wrapped {
        /// Which.
        tunnel: InterfaceKind,
    },
    /// An SA carries it, with the next sequence number.
    Sa {
        /// Which, host order.
        spi: u32,
        /// The whole sequence number.
        sequence: u64,
    },
    /// It was encrypted.
    Sealed {
        /// Octets from the SPI to the ICV.
        octets: usize,
    },
    /// It was handed to the kernel for the wire.
    Sent {
        /// From where to where.
        path: OuterPath,
        /// Octets behind the outer headers.
        octets: usize,
    },
    /// It left without protection, as a policy or interface says.
    SentInClear {
        /// Its octets.
        octets: usize,
    },
    /// It came from the wire.
    FromOutside {
        /// `local` is where it arrived, `remote` where it came from.
        path: OuterPath,
        /// Octets behind the outer headers.
        octets: usize,
        /// Its SPI, host order, if it is ESP and long enough for one.
        spi: Option<u32>,
    },
    /// Its SA is known, and the sequence number new to the replay window.
    Admitted {
        /// The whole sequence number.
        sequence: u64,
    },
    /// It is authentic, and was decrypted.
    Opened {
        /// The next header: the IP protocol of what was inside.
        next_header: u8,
    },
    /// A tunnel's headers were taken off.
    Unwrapped {
        /// Which.
        tunnel: InterfaceKind,
    },
    /// The SA's selectors and the policies take what was inside.
    Selected {
        /// The inner packet.
        packet: PacketSummary,
    },
    /// It was handed to the inside.
    ToInside {
        /// Through which interface.
        interface: InterfaceName,
        /// Its octets.
        octets: usize,
    },
    /// It went no further.
    Dropped {
        /// Why: the stable name of the reason, as statistics have it.
        reason: String,
    },
}

impl TraceStep {
    /// The stable name of this kind of step, for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FromInside { .. } => "from_inside",
            Self::Segmented { .. } => "segmented",
            Self::Policy { .. } => "policy",
            Self::Wrapped { .. } => "wrapped",
            Self::Sa { .. } => "sa",
            Self::Sealed { .. } => "sealed",
            Self::Sent { .. } => "sent",
            Self::SentInClear { .. } => "sent_in_clear",
            Self::FromOutside { .. } => "from_outside",
            Self::Admitted { .. } => "admitted",
            Self::Opened { .. } => "opened",
            Self::Unwrapped { .. } => "unwrapped",
            Self::Selected { .. } => "selected",
            Self::ToInside { .. } => "to_inside",
            Self::Dropped { .. } => "dropped",
        }
    }

    fn spi(&self) -> Option<u32> {
        match self {
            Self::Sa { spi, .. } => Some(*spi),
            Self::FromOutside { spi, .. } => *spi,
            Self::FromInside { .. }
            | Self::Segmented { .. }
            | Self::Policy { .. }
            | Self::Wrapped { .. }
            | Self::Sealed { .. }
            | Self::Sent { .. }
            | Self::SentInClear { .. }
            | Self::Admitted { .. }
            | Self::Opened { .. }
            | Self::Unwrapped { .. }
            | Self::Selected { .. }
            | Self::ToInside { .. }
            | Self::Dropped { .. } => None,
        }
    }

    fn inner(&self) -> Option<PacketSummary> {
        match self {
            Self::FromInside { packet, .. } => *packet,
            Self::Selected { packet } => Some(*packet),
            Self::Segmented { .. }
            | Self::Policy { .. }
            | Self::Wrapped { .. }
            | Self::Sa { .. }
            | Self::Sealed { .. }
            | Self::Sent { .. }
            | Self::SentInClear { .. }
            | Self::FromOutside { .. }
            | Self::Admitted { .. }
            | Self::Opened { .. }
            | Self::Unwrapped { .. }
            | Self::ToInside { .. }
            | Self::Dropped { .. } => None,
        }
    }
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromInside { interface, octets, packet: Some(packet) } => {
                write!(f, "from {interface}: {packet}, {octets} octets")
            }
            Self::FromInside { interface, octets, packet: None } => write!(f, "from {interface}: {octets} octets"),
            Self::Segmented { packets } => write!(f, "stands for {packets} packets; this is the first"),
            Self::Policy { id: PolicyId(id), action } => write!(f, "policy {id} says {action}"),
            Self::Wrapped { tunnel } => write!(f, "{} in front", headers(*tunnel)),
            Self::Sa { spi, sequence } => write!(f, "SA {spi:08x}, sequence number {sequence}"),
            Self::Sealed { octets } => write!(f, "sealed: {octets} octets from SPI to ICV"),
            Self::Sent { path, octets } => {
                write!(f, "sent {} to {}{}: {octets} octets", path.local, path.remote, in_udp(path))
            }
            Self::SentInClear { octets } => write!(f, "sent in clear: {octets} octets"),
            Self::FromOutside { path, octets, spi } => {
                write!(f, "from {} at {}{}: {octets} octets", path.remote, path.local, in_udp(path))?;
                spi.map_or(Ok(()), |spi| write!(f, ", SPI {spi:08x}"))
            }
            Self::Admitted { sequence } => write!(f, "SA found, sequence number {sequence} is new"),
            Self::Opened { next_header } => write!(f, "authentic, decrypted: protocol {next_header} inside"),
            Self::Unwrapped { tunnel } => write!(f, "{} taken off", headers(*tunnel)),
            Self::Selected { packet } => write!(f, "selectors take {packet}"),
            Self::ToInside { interface, octets } => write!(f, "to {interface}: {octets} octets"),
            Self::Dropped { reason } => write!(f, "dropped: {reason}"),
        }
    }
}

/// What a tunnel puts in front.
fn headers(tunnel: InterfaceKind) -> &'static str {
    match tunnel {
        InterfaceKind::Ipip => "IP header",
        InterfaceKind::Gre(_) => "IP and GRE headers",
        InterfaceKind::Vxlan(_) => "IP, UDP and VXLAN headers",
        InterfaceKind::L2tpv3(_) => "IP and L2TPv3 headers",
        InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => "no header",
    }
}

fn in_udp(path: &OuterPath) -> &'static str {
    match path.encapsulation {
        crate::Encapsulation::Esp => "",
        crate::Encapsulation::Udp { .. } => " in UDP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> PacketSummary {
        PacketSummary {
            source: [10, 1, 0, 10].into(),
            destination: [10, 2, 0, 10].into(),
            protocol: 6,
            source_port: Some(40000),
            destination_port: Some(443),
        }
    }

    fn trace(steps: Vec<TraceStep>) -> PacketTrace {
        PacketTrace { at: Duration::ZERO, direction: Direction::Outbound, steps }
    }

    fn sent() -> PacketTrace {
        let interface = InterfaceName::new("ipsec0").unwrap();
        trace(vec![
            TraceStep::FromInside { interface, octets: 60, packet: Some(packet()) },
            TraceStep::Sa { spi: 0xc000_0001, sequence: 7 },
        ])
    }

    fn bob() -> Option<AddressRange> {
        Some(AddressRange::single([10, 2, 0, 10].into()))
    }

    #[test]
    fn a_filter_asks_for_all_that_it_says() {
        assert!(TraceFilter::default().takes(&sent()));
        for wanted in [
            TraceFilter { direction: Some(Direction::Outbound), ..TraceFilter::default() },
            TraceFilter { spi: EspSpi::from_wire([0xc0, 0, 0, 1]).ok(), ..TraceFilter::default() },
            TraceFilter { addresses: bob(), protocol: Some(6), port: Some(443), ..TraceFilter::default() },
        ] {
            assert!(wanted.takes(&sent()), "{wanted:?}");
        }
        for unwanted in [
            TraceFilter { direction: Some(Direction::Inbound), ..TraceFilter::default() },
            TraceFilter { spi: EspSpi::from_wire([0xc0, 0, 0, 2]).ok(), ..TraceFilter::default() },
            TraceFilter { addresses: Some(AddressRange::single([10, 3, 0, 10].into())), ..TraceFilter::default() },
            TraceFilter { protocol: Some(17), ..TraceFilter::default() },
            TraceFilter { port: Some(80), ..TraceFilter::default() },
            TraceFilter { dropped: true, ..TraceFilter::default() },
        ] {
            assert!(!unwanted.takes(&sent()), "{unwanted:?}");
        }
    }

    #[test]
    fn what_was_never_opened_has_no_inner_packet_to_ask_about() {
        let unknown = trace(vec![TraceStep::Dropped { reason: "unknown_spi".to_owned() }]);
        assert!(TraceFilter { dropped: true, ..TraceFilter::default() }.takes(&unknown));
        assert!(!TraceFilter { protocol: Some(6), ..TraceFilter::default() }.takes(&unknown));
    }

    #[test]
    fn steps_read_as_lines() {
        let lines: Vec<String> = sent().steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "from ipsec0: 10.1.0.10 port 40000 to 10.2.0.10 port 443, TCP, 60 octets",
                "SA c0000001, sequence number 7",
            ]
        );
    }
}
