//! `scenario.toml`: what is around the gateways of an example, what is sent, and what has to be seen.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use espdp_api::{IpPrefix, PrefixError};
use ipnet::IpNet;
use serde::Deserialize;

use crate::lab::topology::{Link, LinkEnd, Node, Topology};

/// What `scenario.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// What it shows, in a few words.
    pub(super) title: String,
    /// What happens, in a few sentences.
    pub(super) story: String,
    /// What is connected to what, for people.
    pub(super) picture: String,
    /// The nodes that forward nothing, with the neighbours that their default routes lead through.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    /// The nodes that forward packets, with the neighbours that their default routes lead through.
    routers: BTreeMap<String, Vec<IpAddr>>,
    /// Those of the nodes that run a daemon, in the order in which they are started.
    pub(super) gateways: Vec<String>,
    /// The cables.
    links: Vec<Cable>,
    /// Rules for `nft -f`, by the node where they are loaded.
    #[serde(default)]
    pub(super) nftables: BTreeMap<String, String>,
    /// The names in the certificates that gateways get before they are started, by gateway.
    #[serde(default)]
    pub(super) certificates: BTreeMap<String, String>,
    /// What is brought up, one after the other.
    #[serde(default)]
    pub(super) up: Vec<Up>,
    /// What is sent, one after the other.
    pub(super) traffic: Vec<Traffic>,
    /// Where it is looked at, and what has to be seen.
    pub(super) wire: Wire,
}

/// A cable: two nodes, each with the name of the interface there and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Cable {
    /// In octets.
    #[serde(default = "usual_mtu")]
    mtu: u32,
    #[serde(flatten)]
    ends: BTreeMap<String, BTreeMap<String, Vec<IpNet>>>,
}

/// A Child SA that a daemon is told to bring up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Up {
    /// Whose daemon.
    pub(super) gateway: String,
    /// The child.
    pub(super) child: String,
}

/// Something that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TrafficText")]
pub(super) struct Traffic {
    /// The node that sends.
    pub(super) from: String,
    /// What, and to whom.
    pub(super) kind: TrafficKind,
    /// Whether anybody on the wire may read it.
    pub(super) carried: Carried,
    /// Whether it gets through.
    pub(super) result: Wanted,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TrafficKind {
    /// Echo requests.
    Ping {
        /// Who is asked.
        destination: IpAddr,
        /// Octets of payload.
        size: usize,
    },
    /// A stream of some hundred kilobytes.
    Tcp {
        /// Where the server listens.
        server: SocketAddr,
        /// The node that has this address.
        to: String,
    },
}

/// How something that is sent stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficText {
    from: String,
    ping: Option<IpAddr>,
    size: Option<usize>,
    tcp: Option<IpAddr>,
    to: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    carried: Carried,
    #[serde(default)]
    result: Wanted,
}

impl TryFrom<TrafficText> for Traffic {
    type Error = &'static str;

    fn try_from(text: TrafficText) -> Result<Self, Self::Error> {
        let TrafficText { from, carried, result, .. } = text;
        let kind = match (text.ping, text.tcp, text.to, text.size, text.port) {
            (Some(destination), None, None, size, None) => {
                TrafficKind::Ping { destination, size: size.unwrap_or(USUAL_SIZE) }
            }
            (None, Some(address), Some(to), None, port) => {
                TrafficKind::Tcp { server: SocketAddr::new(address, port.unwrap_or(USUAL_PORT)), to }
            }
            _ => {
                return Err(
                    "traffic is either `ping` (with or without `size`), or `tcp` and `to` (with or without `port`)",
                );
            }
        };
        Ok(Self { from, kind, carried, result })
    }
}

/// What may be seen of something that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Carried {
    /// Nobody on the wire may read it.
    #[default]
    Secret,
    /// It is there to be read.
    Clear,
}

/// What becomes of something that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wanted {
    /// It arrives, and so does the answer.
    #[default]
    Arrives,
    /// Nothing of it arrives.
    Nothing,
}

/// The wire on which everything is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    /// A node at its end.
    pub(super) node: String,
    /// The node's interface.
    pub(super) interface: String,
    /// What has to be seen there in both directions, as protocols one inside the other: `ipv4/esp`. Nothing else may be seen but
    /// IKE, and what finds neighbours.
    pub(super) stacks: Vec<String>,
    /// Networks whose addresses nobody may read there.
    #[serde(default)]
    pub(super) secret: Vec<IpNet>,
}

impl Description {
    /// Reads a `scenario.toml`.
    ///
    /// # Errors
    /// [`DescriptionError`] when it is none, or names a node that it does not have.
    pub(super) fn parse(text: &str) -> Result<Self, DescriptionError> {
        let description: Self = toml::from_str(text)?;
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<(), DescriptionError> {
        let traffic = self.traffic.iter().flat_map(|traffic| match &traffic.kind {
            TrafficKind::Ping { .. } => vec![&traffic.from],
            TrafficKind::Tcp { to, .. } => vec![&traffic.from, to],
        });
        let ends = self.links.iter().flat_map(|link| link.ends.keys());
        let others = self.nftables.keys().chain(self.certificates.keys()).chain([&self.wire.node]);
        for node in self.gateways.iter().chain(ends).chain(traffic).chain(others) {
            if !self.hosts.contains_key(node) && !self.routers.contains_key(node) {
                return Err(DescriptionError::UnknownNode(node.clone()));
            }
        }
        for Up { gateway, .. } in &self.up {
            if !self.gateways.contains(gateway) {
                return Err(DescriptionError::NoGateway(gateway.clone()));
            }
        }
        self.links.iter().try_for_each(|link| match link.ends.len() {
            2 => Ok(()),
            ends => Err(DescriptionError::Ends(ends)),
        })
    }

    /// The network to build.
    ///
    /// # Errors
    /// [`PrefixError`] when an address of an interface stands with bits that it cannot have.
    pub(super) fn topology(&self) -> Result<Topology, PrefixError> {
        let mut topology = Topology::new();
        for (forwards, nodes) in [(false, &self.hosts), (true, &self.routers)] {
            topology.nodes.extend(nodes.keys().map(|name| Node { name: name.clone(), forwards }));
        }
        for cable in &self.links {
            let mut ends = Vec::new();
            for (node, interfaces) in &cable.ends {
                for (interface, addresses) in interfaces {
                    let addresses = addresses.iter().map(|net| IpPrefix::new(net.addr(), net.prefix_len()));
                    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
                    ends.push(LinkEnd { node: node.clone(), interface: interface.clone(), addresses });
                }
            }
            if let Ok(ends) = <[LinkEnd; 2]>::try_from(ends) {
                topology.links.push(Link { ends, mtu: cable.mtu });
            }
        }
        let nodes = self.hosts.iter().chain(&self.routers);
        nodes.into_iter().try_fold(topology, |topology, (node, gateways)| {
            let gateways: Vec<String> = gateways.iter().map(ToString::to_string).collect();
            topology.default_routes(node, gateways.iter().map(String::as_str))
        })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TrafficKind::Ping { destination, size } => {
                write!(f, "{} pings {destination}", self.from)?;
                if *size == USUAL_SIZE { Ok(()) } else { write!(f, " with {size} octets") }
            }
            TrafficKind::Tcp { server, to } => {
                write!(f, "{} sends to {to} at {}", self.from, server.ip())?;
                if server.port() == USUAL_PORT { Ok(()) } else { write!(f, " port {}", server.port()) }
            }
        }
    }
}

/// What is wrong with a `scenario.toml`.
#[derive(Debug, thiserror::Error)]
pub(super) enum DescriptionError {
    /// It does not read.
    #[error("scenario.toml: {0}")]
    Toml(#[from] toml::de::Error),
    /// A name that nobody has.
    #[error("scenario.toml: `{0}` stands neither in `hosts` nor in `routers`")]
    UnknownNode(String),
    /// Somebody without a daemon.
    #[error("scenario.toml: `{0}` does not stand in `gateways`, so it has no daemon to bring anything up")]
    NoGateway(String),
    /// A cable has two ends.
    #[error("scenario.toml: a link has {0} ends instead of two")]
    Ends(usize),
}

const fn usual_mtu() -> u32 {
    1500
}

/// Twice the text that echo requests carry, so that it is there as a whole wherever a packet is cut.
const USUAL_SIZE: usize = 104;
const USUAL_PORT: u16 = 5001;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        title = "A title"
        story = "A story."
        picture = "a -- b"
        hosts = { a = ["10.0.0.1"] }
        routers = { b = [] }
        gateways = ["b"]
        links = [{ a = { eth0 = ["10.0.0.2/24"] }, b = { lan0 = ["10.0.0.1/24", "fd00::1/64"] }, mtu = 1400 }]
        up = [{ gateway = "b", child = "net" }]
        traffic = [
            { from = "a", ping = "10.0.0.1", carried = "clear" },
            { from = "a", tcp = "10.0.0.1", to = "b", result = "nothing" },
        ]
        [wire]
        node = "b"
        interface = "lan0"
        stacks = ["ipv4/icmp"]
    "#;

    #[test]
    fn a_description_becomes_a_topology() {
        let description = Description::parse(TEXT).unwrap();
        let topology = description.topology().unwrap();
        assert_eq!(
            topology.nodes.iter().map(|node| (node.name.as_str(), node.forwards)).collect::<Vec<_>>(),
            [("a", false), ("b", true)]
        );
        assert_eq!((topology.links[0].mtu, topology.links[0].ends[1].addresses.len()), (1400, 2));
        assert_eq!(topology.routes[0].gateway.to_string(), "10.0.0.1");
    }

    #[test]
    fn traffic_reads_as_a_sentence() {
        let description = Description::parse(TEXT).unwrap();
        let sentences: Vec<String> = description.traffic.iter().map(ToString::to_string).collect();
        assert_eq!(sentences, ["a pings 10.0.0.1", "a sends to b at 10.0.0.1"]);
        assert_eq!(description.traffic[0].carried, Carried::Clear);
        assert_eq!(description.traffic[1].result, Wanted::Nothing);
    }

    #[test]
    fn a_name_that_nobody_has_is_found() {
        for (good, bad, said) in [
            ("gateways = [\"b\"]", "gateways = [\"c\"]", "`c` stands neither"),
            ("gateway = \"b\"", "gateway = \"a\"", "`a` does not stand in `gateways`"),
            ("to = \"b\"", "to = \"bob\"", "`bob` stands neither"),
            ("mtu = 1400", "c = {}", "`c` stands neither"),
            ("title", "tittle", "tittle"),
            ("carried", "carrried", "carrried"),
            ("tcp = \"10.0.0.1\"", "ping = \"10.0.0.1\"", "either `ping`"),
        ] {
            let error = Description::parse(&TEXT.replace(good, bad)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
