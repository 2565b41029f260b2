//! The border between the IKE daemon and the ESP dataplane: plain, serialisable types.
//!
//! The daemon sends [`Command`]s, each with a [`RequestId`]; the dataplane answers every one of them with an
//! [`Outcome`] and reports what it sees on its own as [`Event`]s. Nothing here does I/O, so the two sides can
//! live in one process and talk over a channel, or in two and talk over a socket.

mod algorithms;
mod bridge;
mod capture;
mod host;
mod interface;
mod mac;
mod message;
mod mtu;
mod path;
mod policy;
mod routes;
mod sa;
mod secret;
mod selector;
mod shape;
mod spi;
mod trace;
mod tunnel;
mod whatif;
mod workers;

pub use algorithms::{CryptoEngine, EspAlgorithms, EspCipher, EspIntegrity};
pub use bridge::{BridgeName, BridgeNameError, BridgePort, BridgeSpec, Flood, Neighbour, StaticStation};
pub use capture::{CaptureRemark, CaptureSpec, CapturedPacket, CapturedSa, Viewpoint};
pub use host::{FilterRule, GuardMode, HostSpec, NatAction, NatRule, PacketMatch, StaticRoute, SteeringRule};
pub use interface::{InterfaceKind, InterfaceName, InterfaceNameError, InterfaceSpec, IpPrefix, Mtu, PrefixError};
pub use mac::{MacAddress, MacAddressError};
pub use message::{
    Command, Done, Event, FromDataplane, InterfaceReport, Outcome, PacketSummary, Refusal, RequestId, ToDataplane,
};
pub use mtu::{MtuReport, MtuTerm, PathMtuSource};
pub use path::{Encapsulation, IkePath, OuterPath};
pub use policy::{PolicyAction, PolicyDirections, PolicyId, PolicySpec};
pub use routes::Routes;
pub use sa::{
    Direction, DropCount, InboundSaSpec, IpsecProtocol, Mode, OutboundSaSpec, SaLimits, SaSpec, SaStatistics,
    SequenceEnd, TrafficLimit,
};
pub use secret::Secret;
pub use selector::{AddressRange, AddressRangeError, PortRange, TrafficSelector};
pub use shape::{
    DfPolicy, DscpPolicy, FlowLabelPolicy, FragmentPolicy, HopLimitPolicy, MssPolicy, PacketShape, PaddingPolicy,
    PathMtuPolicy,
};
pub use spi::{EspSpi, ReservedSpi};
pub use trace::{PacketTrace, TraceFilter, TraceStep};
pub use tunnel::{
    Gre, L2tpCarrier, L2tpCookie, L2tpSublayer, L2tpv3, Layer, NextHop, Protection, TunnelEnds, Vni, VniTooLarge, Vxlan,
};
pub use whatif::{Carriage, Fitting, InboundVerdict, OutboundFate, OutboundVerdict, Question, WhatIf};
pub use workers::{Carries, SpiWish, WorkerId, Workers};
