//! What the host's own network stack does beside our interfaces: the guard, address translation, filters and routes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{AddressRange, InterfaceName, IpPrefix, PolicySpec};

/// Everything that the dataplane keeps in the host's network stack beside interfaces and the routes of policies. It is
/// replaced as a whole: what is not here any more goes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Whether, and for how long, packets are kept from passing the tunnels by.
    pub guard: GuardMode,
    /// The policies of the configuration, whether they are set now or not; their ids mean nothing. Policies that are set
    /// and not covered by these are guarded, too, for as long as they are set.
    pub guarded: Vec<PolicySpec>,
    /// Address translation, the first rule that fits a flow counts.
    pub nat: Vec<NatRule>,
    /// Filters of interfaces, the first rule that fits a packet counts.
    pub filter: Vec<FilterRule>,
    /// Routes.
    pub routes: Vec<StaticRoute>,
    /// Which packets take another way than their destination says; the first that fits counts.
    pub steering: Vec<SteeringRule>,
}

/// How long the guard is in force: rules of the host's packet filter that drop what a policy covers and does not pass its
/// tunnel, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardMode {
    /// There is none.
    #[default]
    Off,
    /// Until the dataplane is stopped; it outlives a crash.
    WhileRunning,
    /// Until somebody takes it away.
    Always,
}

/// Which packets a rule is for. What is empty or `None` fits every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketMatch {
    /// Interfaces that they come from.
    pub from_interfaces: Vec<InterfaceName>,
    /// Interfaces that they leave through.
    pub to_interfaces: Vec<InterfaceName>,
    /// Sources.
    pub sources: Vec<AddressRange>,
    /// Destinations.
    pub destinations: Vec<AddressRange>,
    /// Protocol numbers.
    pub protocols: Vec<u8>,
    /// Destination ports, first and last.
    pub ports: Vec<(u16, u16)>,
    /// Differentiated services code points.
    pub dscp: Vec<u8>,
}

/// Translates addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRule {
    /// The name people know it by.
    pub name: String,
    /// The first packets of which flows.
    pub packets: PacketMatch,
    /// What becomes of them.
    pub action: NatAction,
}

/// How addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatAction {
    /// The source becomes the address of the interface that they leave through.
    Masquerade,
    /// The source becomes this one.
    Source(IpAddr),
    /// The destination becomes this one; the port stays without a new one.
    Destination(IpAddr, Option<u16>),
}

/// Lets packets pass, or not. Packets of flows that were let pass always pass. Of an interface that any rule names, packets
/// in that direction that no rule fits are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// The name people know it by.
    pub name: String,
    /// Which packets.
    pub packets: PacketMatch,
    /// Whether they pass.
    pub accept: bool,
    /// Whether the kernel's log tells of them.
    pub log: bool,
}

/// A route that was asked for, independent of any policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StaticRoute {
    /// The destination.
    pub destination: IpPrefix,
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The interface.
    pub interface: Option<InterfaceName>,
    /// Its place among routes to the same destination; the lowest is taken.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
}

/// Leads packets to an interface whatever their destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeringRule {
    /// The name people know it by.
    pub name: String,
    /// Which packets.
    pub packets: PacketMatch,
    /// Where to. While the interface is not there, they are dropped.
    pub interface: InterfaceName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_from_passing_unless_asked_for() {
        assert_eq!(HostSpec::default().guard, GuardMode::Off);
        assert!(HostSpec::default().guarded.is_empty());
    }
}
