//! The tables `[bridge.NAME]`, and what interfaces say about their place in a domain.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use espdp_api::{
    BridgeName, BridgePort, BridgeSpec, Flood, InterfaceKind, InterfaceName, InterfaceSpec, Layer, MacAddress,
    Neighbour, StaticStation,
};

use super::interface::Interfaces;
use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::source::Complaint;

/// `[bridge.NAME]` while it is read.
#[derive(Default)]
pub(super) struct BridgeDraft {
    learning: Option<bool>,
    flood: Option<Flood>,
    age: Option<Duration>,
    stations: Vec<At<StaticStation>>,
    neighbours: Vec<Neighbour>,
    learn_neighbours: bool,
}

/// A domain, and where its static stations stand.
pub(super) struct Bridge {
    pub(super) spec: BridgeSpec,
    stations: Vec<At<StaticStation>>,
}

/// The keys of `[bridge.NAME]`.
pub(super) const BRIDGE_KEYS: &[Key<BridgeDraft>] = &[
    Key {
        name: "learning",
        also_called: &[],
        takes: "true or false",
        default: "true",
        doc: "Whether it learns behind which port a station is from the frames that the station sends.",
        set: |draft, item| {
            draft.learning = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "flood",
        also_called: &[],
        takes: "`all`, `groups` or `none`",
        default: "\"all\"",
        doc: "Which frames go to all ports: broadcast, multicast and what is for stations that nobody knows; broadcast and multicast \
              only; or none.",
        set: |draft, item| {
            let words = [("all", Flood::All), ("groups", Flood::Groups), ("none", Flood::Nothing)];
            draft.flood = Some(item.choice(&words)?);
            Ok(())
        },
    },
    Key {
        name: "age",
        also_called: &[],
        takes: "duration",
        default: "\"5m\"",
        doc: "How long a learned station or neighbour is remembered after its last frame.",
        set: |draft, item| {
            draft.age = Some(item.duration()?.value);
            Ok(())
        },
    },
    Key {
        name: "static",
        also_called: &[],
        takes: "table of MAC addresses and interfaces",
        default: "none",
        doc: "Stations that are behind a port whatever is learned: `{ \"02:00:5e:00:53:01\" = \"vxlan0\" }`.",
        set: |draft, item| {
            draft.stations = stations(item)?;
            Ok(())
        },
    },
    Key {
        name: "neighbours",
        also_called: &["neighbors"],
        takes: "table of IP and MAC addresses",
        default: "none",
        doc: "Who has which address: ARP requests and IPv6 neighbour solicitations for these are answered at the port where they come \
              in, and cross no tunnel: `{ \"10.9.0.2\" = \"02:00:5e:00:53:02\" }`.",
        set: |draft, item| {
            draft.neighbours = neighbours(item)?;
            Ok(())
        },
    },
    Key {
        name: "learn_neighbours",
        also_called: &["learn_neighbors"],
        takes: "true or false",
        default: "false",
        doc: "Whether neighbours are also learned, from what stations say about themselves.",
        set: |draft, item| {
            draft.learn_neighbours = item.boolean()?;
            Ok(())
        },
    },
];

impl BridgeDraft {
    /// The domain `name`, whose name stands at `span`.
    pub(super) fn finish(self, name: &str, span: Range<usize>) -> Result<Bridge, Complaint> {
        let name = BridgeName::new(name).map_err(|error| Complaint::new(span, error.to_string()))?;
        let spec = BridgeSpec {
            learning: self.learning.unwrap_or(true),
            flood: self.flood.unwrap_or(Flood::All),
            age: self.age.unwrap_or(BridgeSpec::AGE),
            stations: self.stations.iter().map(|at| at.value.clone()).collect(),
            neighbours: self.neighbours,
            learn_neighbours: self.learn_neighbours,
            ..BridgeSpec::new(name)
        };
        Ok(Bridge { spec, stations: self.stations })
    }
}

impl Bridge {
    /// That a static station is behind what is no port of this domain.
    pub(super) fn complaint(&self, interfaces: &Interfaces) -> Option<Complaint> {
        let is_port = |spec: &InterfaceSpec| spec.bridge.as_ref().is_some_and(|port| port.bridge == self.spec.name);
        let stray = |at: &&At<StaticStation>| {
            !interfaces.get(&at.value.interface).is_some_and(|interface| is_port(&interface.value))
        };
        let at = self.stations.iter().find(stray)?;
        let ports = interfaces.values().filter(|at| is_port(&at.value)).map(|at| at.value.name.as_str());
        let message = format!("`{}` is no port of bridge `{}`", at.value.interface, self.spec.name);
        let complaint = Complaint::new(at.span.clone(), message);
        Some(complaint.expected("expected an interface with this bridge").nearest(at.value.interface.as_str(), ports))
    }
}

/// The place of an interface in a domain, from its keys.
pub(super) fn port(
    kind: InterfaceKind,
    bridge: Option<&At<BridgeName>>,
    split_horizon: Option<&At<u8>>,
    span: &Range<usize>,
) -> Result<Option<BridgePort>, Complaint> {
    let Some(bridge) = bridge else {
        if let Some(group) = split_horizon {
            let complaint = Complaint::new(group.span.clone(), "`split_horizon` means nothing without a bridge");
            return Err(complaint.expected("expected `bridge` with it"));
        }
        let is_mere_port = matches!(kind, InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. });
        return if is_mere_port {
            let complaint =
                Complaint::new(span.clone(), "`bridge` is missing: such an interface is nothing but a port of one");
            Err(complaint.expected("expected `bridge` with the name of a table [bridge.NAME]"))
        } else {
            Ok(None)
        };
    };
    if kind.layer() == Layer::Ip {
        let complaint = Complaint::new(bridge.span.clone(), "this interface carries no Ethernet frames");
        return Err(
            complaint.expected("expected kind tap, host, memory, vxlan, l2tpv3, or gre with layer = \"ethernet\"")
        );
    }
    let is_tunnel = matches!(kind, InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_));
    let usual = if is_tunnel { TUNNEL_GROUP } else { 0 };
    Ok(Some(BridgePort { bridge: bridge.value.clone(), split_horizon: split_horizon.map_or(usual, |at| at.value) }))
}

/// That an interface names a domain that there is not.
pub(super) fn unknown<'n>(
    bridge: &At<BridgeName>,
    known: impl Iterator<Item = &'n BridgeName> + Clone,
) -> Option<Complaint> {
    if known.clone().any(|name| *name == bridge.value) {
        return None;
    }
    let message = format!("there is no bridge `{}`", bridge.value);
    let complaint = Complaint::new(bridge.span.clone(), message).expected("expected the name of a table [bridge.NAME]");
    Some(complaint.nearest(bridge.value.as_str(), known.map(BridgeName::as_str)))
}

/// The split-horizon group of tunnels unless they are given one.
const TUNNEL_GROUP: u8 = 1;

/// An Ethernet address of one station.
pub(super) fn mac(item: Item<'_>) -> Result<MacAddress, Complaint> {
    let text = item.text("a MAC address")?;
    let mac = text.as_str().parse().map_err(|error: espdp_api::MacAddressError| text.complain(error.to_string()))?;
    station(mac).map_err(|what| text.complain(what))
}

fn station(mac: MacAddress) -> Result<MacAddress, String> {
    if mac.is_station() { Ok(mac) } else { Err(format!("{mac} is no address of one station")) }
}

fn stations(item: Item<'_>) -> Result<Vec<At<StaticStation>>, Complaints> {
    collect(item.pairs("a table such as { \"02:00:5e:00:53:01\" = \"vxlan0\" }")?.into_iter().map(|(key, value)| {
        let mac = key.value.parse().map_err(|error: espdp_api::MacAddressError| error.to_string());
        let mac = mac.and_then(station).map_err(|what| Complaint::new(key.span, what))?;
        let text = value.text("the name of an interface")?;
        let interface = InterfaceName::new(text.as_str()).map_err(|error| text.complain(error.to_string()))?;
        Ok(value.at(StaticStation { mac, interface }))
    }))
}

fn neighbours(item: Item<'_>) -> Result<Vec<Neighbour>, Complaints> {
    collect(item.pairs("a table such as { \"10.9.0.2\" = \"02:00:5e:00:53:02\" }")?.into_iter().map(|(key, value)| {
        let address: IpAddr = key.value.parse().map_err(|_| {
            Complaint::new(key.span, format!("`{}` is no IP address", key.value))
                .expected("expected an IPv4 or IPv6 address")
        })?;
        Ok(Neighbour { address, mac: mac(value)? })
    }))
}

/// The name of a domain.
pub(super) fn name(item: Item<'_>) -> Result<At<BridgeName>, Complaint> {
    let text = item.text("the name of a bridge")?;
    BridgeName::new(text.as_str()).map(|name| item.at(name)).map_err(|error| text.complain(error.to_string()))
}
