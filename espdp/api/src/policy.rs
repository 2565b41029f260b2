//! Policies: which traffic of an interface is protected, and which SA carries it now.

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, IpPrefix, TrafficSelector};

/// Names a policy; chosen by the daemon, never reused while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId(pub u64);

/// Traffic that must be protected (RFC 4301 §4.4.1). A policy outlives its SAs: rekeying replaces the SA that sends, and
/// while there is none, packets of the policy are dropped, never sent in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The policy's name.
    pub id: PolicyId,
    /// The interface whose traffic it selects. Of its policies that select a packet, the narrowest takes it; of equally
    /// narrow ones, that with the lowest id.
    pub interface: InterfaceName,
    /// Our side's selectors: sources on the way out.
    pub local: Vec<TrafficSelector>,
    /// The peer's side: destinations on the way out.
    pub remote: Vec<TrafficSelector>,
    /// The routes that lead traffic into the interface for as long as the policy exists.
    pub routes: Vec<IpPrefix>,
    /// Whether a packet that finds no SA raises [`crate::Event::Acquire`].
    pub acquire: bool,
}

/// Which routes a connection installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routes {
    /// One for each prefix of the negotiated remote selectors, except those that cover a whole address family.
    FromSelectors,
    /// Just these.
    Fixed(Vec<IpPrefix>),
}
