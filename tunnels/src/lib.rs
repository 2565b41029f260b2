//! Tunnel interfaces: what they should look like, the steps that lead there, and the netlink that takes them.
//!
//! [`NetworkState`] is a plain description of links, routes and rules; [`plan()`] compares two of them and knows nothing of the
//! kernel; [`Netlink`] takes the steps. Only what a state holds is ever touched, so what an administrator adds stays.

mod link_watch;
mod longest_match;
mod netlink;
mod network_watch;
mod plan;
mod source;
mod state;

pub use link_watch::LinkWatch;
pub use longest_match::LongestMatch;
pub use netlink::{KnownFrom, LocalAddress, Netlink, NetlinkError, PathToPeer};
pub use network_watch::NetworkWatch;
pub use plan::{Step, plan};
pub use source::preferred_source;
pub use state::{Family, Link, NetworkState, RouteKey, RouteTarget, Rule, network};
