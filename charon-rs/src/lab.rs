//! The lab: two gateways, a client and a server in network namespaces of their own, to try it all.

pub mod capture;
pub mod frame;
pub mod netns;
pub mod ping;
pub mod rtnl;
pub mod tally;
pub mod topology;
pub mod transfer;
