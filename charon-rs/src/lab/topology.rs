//! Networks to try things in, as data: nodes, the links between them, addresses and routes.
//!
//! ```no_run
//! use charon_rs::lab::topology::{Network, Topology};
//!
//! let topology = Topology::new()
//!     .router("left")
//!     .router("right")
//!     .link(1500, ("left", "wan0", &["192.0.2.1/24"]), ("right", "wan0", &["192.0.2.2/24"]))
//!     .expect("the addresses are well-formed");
//! let network = Network::build(&topology).expect("we are root");
//! network.namespace("left").expect("it was just built").run(|| println!("hello from the left")).expect("it can be entered");
//! ```

use std::net::IpAddr;

use espdp_api::{IpPrefix, PrefixError};

use super::netns::{Namespace, NetnsError};
use super::rtnl::{self, RtnlError, VethEnd};

/// A network to build: every node becomes a network namespace, every link a pair of virtual Ethernet interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The nodes; names are unique.
    pub nodes: Vec<Node>,
    /// The links.
    pub links: Vec<Link>,
    /// Routes that do not come from the addresses of links.
    pub routes: Vec<Route>,
}

/// A host or router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it forwards packets that are not for it.
    pub forwards: bool,
}

/// A cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its two ends.
    pub ends: [LinkEnd; 2],
    /// The MTU of both ends, in octets.
    pub mtu: u32,
}

/// Where a cable ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEnd {
    /// The node.
    pub node: String,
    /// The interface there.
    pub interface: String,
    /// The interface's addresses, with the prefix lengths of the link.
    pub addresses: Vec<IpPrefix>,
}

/// A route through a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The node that has it.
    pub node: String,
    /// Where it leads.
    pub destination: IpPrefix,
    /// The neighbour.
    pub gateway: IpAddr,
}

impl Topology {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Two gateways with one network behind each, which know nothing of each other's networks until a tunnel tells them:
    ///
    /// ```text
    ///  client ───── initiator ═══════ responder ───── server
    ///    192.168.5.0/24   192.168.10.0/24    192.168.3.0/24
    ///       fec5::/16       fd10::/64           fec3::/16
    ///    .2     eth0 lan0 .1   wan0 wan0 .2    lan0 eth0   .2
    /// ```
    ///
    /// # Errors
    /// None in practice: the addresses are well-formed.
    pub fn two_gateways() -> Result<Self, PrefixError> {
        Self::new()
            .host(CLIENT)
            .router(INITIATOR)
            .router(RESPONDER)
            .host(SERVER)
            .link(
                OUTER_MTU,
                (CLIENT, HOST_INTERFACE, &["192.168.5.2/24", "fec5::2/16"]),
                (INITIATOR, LAN_INTERFACE, &["192.168.5.1/24", "fec5::1/16"]),
            )?
            .link(
                OUTER_MTU,
                (INITIATOR, WAN_INTERFACE, &["192.168.10.1/24", "fd10::1/64"]),
                (RESPONDER, WAN_INTERFACE, &["192.168.10.2/24", "fd10::2/64"]),
            )?
            .link(
                OUTER_MTU,
                (RESPONDER, LAN_INTERFACE, &["192.168.3.1/24", "fec3::1/16"]),
                (SERVER, HOST_INTERFACE, &["192.168.3.2/24", "fec3::2/16"]),
            )?
            .default_routes(CLIENT, ["192.168.5.1", "fec5::1"])?
            .default_routes(SERVER, ["192.168.3.1", "fec3::1"])
    }

    /// Adds a node that forwards nothing.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.nodes.push(Node { name: name.to_owned(), forwards: false });
        self
    }

    /// Adds a node that forwards IPv4 and IPv6.
    #[must_use]
    pub fn router(mut self, name: &str) -> Self {
        self.nodes.push(Node { name: name.to_owned(), forwards: true });
        self
    }

    /// Adds a link. An end is a node, an interface and its addresses (`address/length`).
    ///
    /// # Errors
    /// [`PrefixError`] when an address is malformed.
    pub fn link(
        mut self,
        mtu: u32,
        one: (&str, &str, &[&str]),
        other: (&str, &str, &[&str]),
    ) -> Result<Self, PrefixError> {
        let end = |(node, interface, addresses): (&str, &str, &[&str])| {
            let addresses = addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
            Ok(LinkEnd { node: node.to_owned(), interface: interface.to_owned(), addresses })
        };
        self.links.push(Link { ends: [end(one)?, end(other)?], mtu });
        Ok(self)
    }

    /// Gives `node` a default route for each family of `gateways`.
    ///
    /// # Errors
    /// [`PrefixError`] when a gateway is no address.
    pub fn default_routes<'a>(
        mut self,
        node: &str,
        gateways: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PrefixError> {
        for gateway in gateways {
            let gateway: IpAddr = gateway.parse().map_err(|_| PrefixError::Text(gateway.to_owned()))?;
            let destination = IpPrefix::new(if gateway.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0)?;
            self.routes.push(Route { node: node.to_owned(), destination, gateway });
        }
        Ok(self)
    }
}

/// A network that was built. It is gone when this value, and every process in it, is.
#[derive(Debug)]
pub struct Network {
    namespaces: Vec<Namespace>,
}

impl Network {
    /// Builds `topology`: addresses are usable at once (no duplicate address detection), routers forward, nothing filters
    /// by reverse path, and no router advertisement changes anything.
    ///
    /// # Errors
    /// [`TopologyError`]: not allowed to, or the topology contradicts itself. Nothing is left behind.
    pub fn build(topology: &Topology) -> Result<Self, TopologyError> {
        let namespaces = topology.nodes.iter().map(|node| Namespace::new(&node.name)).collect::<Result<Vec<_>, _>>()?;
        let network = Self { namespaces };
        for node in &topology.nodes {
            let namespace = network.namespace(&node.name)?;
            namespace.run(|| rtnl::prepare(node.forwards))?.map_err(|source| at(&node.name, source))?;
        }
        for (link, index) in topology.links.iter().zip((FIRST_INDEX..).step_by(2)) {
            network.connect(link, index)?;
        }
        for route in &topology.routes {
            let namespace = network.namespace(&route.node)?;
            namespace
                .run(|| rtnl::add_route(route.destination, route.gateway))?
                .map_err(|source| at(&route.node, source))?;
        }
        Ok(network)
    }

    /// The namespace of a node.
    ///
    /// # Errors
    /// [`TopologyError::UnknownNode`] when there is no such node.
    pub fn namespace(&self, node: &str) -> Result<&Namespace, TopologyError> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.name() == node)
            .ok_or_else(|| TopologyError::UnknownNode(node.to_owned()))
    }

    /// All namespaces, in the order of the topology's nodes.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// Plugs a cable in, whose ends get the interface numbers `index` and the one after.
    fn connect(&self, link: &Link, index: u32) -> Result<(), TopologyError> {
        let [one, other] = &link.ends;
        let (here, there) = (self.namespace(&one.node)?, self.namespace(&other.node)?);
        let this_end = VethEnd { name: &one.interface, index };
        let that_end = VethEnd { name: &other.interface, index: index.saturating_add(1) };
        here.run(|| rtnl::add_veth(this_end, that_end, there, link.mtu))?.map_err(|source| at(&one.node, source))?;
        for (end, namespace) in [(one, here), (other, there)] {
            namespace
                .run(|| rtnl::configure(&end.interface, &end.addresses, link.mtu))?
                .map_err(|source| at(&end.node, source))?;
        }
        Ok(())
    }
}

/// Why a network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A namespace could not be made or entered.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// Something inside a namespace failed.
    #[error("in `{node}`")]
    Node {
        /// Where.
        node: String,
        /// What.
        source: RtnlError,
    },
    /// A link, a route or the caller names a node that does not exist.
    #[error("the topology has no node `{0}`")]
    UnknownNode(String),
}

fn at(node: &str, source: RtnlError) -> TopologyError {
    TopologyError::Node { node: node.to_owned(), source }
}

/// The host behind the initiator.
pub const CLIENT: &str = "client";
/// The gateway that starts.
pub const INITIATOR: &str = "initiator";
/// The gateway that answers.
pub const RESPONDER: &str = "responder";
/// The host behind the responder.
pub const SERVER: &str = "server";
/// The interface of hosts.
pub const HOST_INTERFACE: &str = "eth0";
/// The gateways' interface towards their hosts.
pub const LAN_INTERFACE: &str = "lan0";
/// The gateways' interface towards each other.
pub const WAN_INTERFACE: &str = "wan0";

const OUTER_MTU: u32 = 1500;

/// Above the numbers that the kernel gives to the interfaces which every namespace has.
const FIRST_INDEX: u32 = 100;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// Builds, or says why not where the machine gives no privileges.
    fn build(topology: &Topology) -> Option<Network> {
        match Network::build(topology) {
            Ok(network) => Some(network),
            Err(TopologyError::Namespace(error)) if error.is_permission() => {
                crate::lab::netns::skipped(&error);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn reaches(network: &Network, from: &str, to: &str, address: &str) -> bool {
        let server = network.namespace(to).unwrap().run(|| TcpListener::bind((address, 7000))).unwrap().unwrap();
        let reached = network.namespace(from).unwrap().run(|| TcpStream::connect((address, 7000)).is_ok()).unwrap();
        drop(server);
        reached
    }

    #[test]
    fn neighbours_reach_each_other_at_once_in_both_families() {
        let Some(network) = build(&Topology::two_gateways().unwrap()) else { return };
        for (from, to, address) in [
            (CLIENT, INITIATOR, "192.168.5.1"),
            (CLIENT, INITIATOR, "fec5::1"),
            (INITIATOR, RESPONDER, "192.168.10.2"),
            (RESPONDER, INITIATOR, "fd10::1"),
            (SERVER, RESPONDER, "fec3::1"),
        ] {
            assert!(reaches(&network, from, to, address), "{from} to {address}");
        }
    }

    #[test]
    fn gateways_do_not_know_each_others_networks() {
        let Some(network) = build(&Topology::two_gateways().unwrap()) else { return };
        let route = |address| {
            let socket = UdpSocket::bind(if str::contains(address, ':') { "[::]:0" } else { "0.0.0.0:0" })?;
            socket.connect((address, 9))
        };
        let gateway = network.namespace(INITIATOR).unwrap();
        assert!(gateway.run(|| route("192.168.3.2")).unwrap().is_err());
        assert!(gateway.run(|| route("fec3::2")).unwrap().is_err());
        assert!(gateway.run(|| route("192.168.10.2")).unwrap().is_ok());
    }

    #[test]
    fn routers_forward_between_their_links() {
        let topology = Topology::new()
            .host("a")
            .router("r")
            .host("b")
            .link(1500, ("a", "eth0", &["10.0.1.2/24", "fd01::2/64"]), ("r", "one", &["10.0.1.1/24", "fd01::1/64"]))
            .and_then(|topology| {
                topology.link(
                    1400,
                    ("r", "two", &["10.0.2.1/24", "fd02::1/64"]),
                    ("b", "eth0", &["10.0.2.2/24", "fd02::2/64"]),
                )
            })
            .and_then(|topology| topology.default_routes("a", ["10.0.1.1", "fd01::1"]))
            .and_then(|topology| topology.default_routes("b", ["10.0.2.1", "fd02::1"]))
            .unwrap();
        let Some(network) = build(&topology) else { return };
        assert!(reaches(&network, "a", "b", "10.0.2.2"));
        assert!(reaches(&network, "b", "a", "fd01::2"));
    }

    #[test]
    fn a_link_to_nowhere_is_refused() {
        let topology = Topology::new().host("a").link(1500, ("a", "x", &[]), ("b", "x", &[])).unwrap();
        match Network::build(&topology) {
            Err(TopologyError::UnknownNode(node)) => assert_eq!(node, "b"),
            Err(TopologyError::Namespace(error)) if error.is_permission() => crate::lab::netns::skipped(&error),
            other => panic!("{other:?}"),
        }
    }
}
