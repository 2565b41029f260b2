//! Tunnel interfaces: what they should look like, the steps that lead there, and the netlink that takes them.
//!
//! [`NetworkState`] is a plain description of links, routes and rules; [`plan()`] compares two of them and knows nothing of the
//! kernel; [`Netlink`] takes the steps. Only what a state holds is ever touched, so what an administrator adds stays.
//!
//! [`host_table`] writes our table of nftables, the [`guard()`] of policies among it, as plain values ([`nft`]); [`nft::Nft`] puts it
//! into the kernel as a whole.

mod firewall;
mod guard;
mod link_watch;
mod longest_match;
mod neighbour_watch;
mod netlink;
mod network_watch;
pub mod nft;
mod plan;
mod source;
mod state;
mod taken;

pub use firewall::{SteeringNumbers, SteeringPlaces, TABLE, asked_routes, host_table};
pub use guard::{GuardContext, guard, is_covered};
pub use link_watch::LinkWatch;
pub use longest_match::LongestMatch;
pub use neighbour_watch::{Neighbour, NeighbourWatch, Station};
pub use netlink::{KnownFrom, LocalAddress, Netlink, NetlinkError, PathToPeer};
pub use network_watch::NetworkWatch;
pub use plan::{Step, plan};
pub use source::preferred_source;
pub use state::{Family, Link, MarkRule, NetworkState, RouteKey, RouteTarget, Rule, network, range};
pub use taken::Taken;
