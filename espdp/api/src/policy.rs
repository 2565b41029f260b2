//! Policies: what becomes of which traffic of an interface, and which SA carries what is protected.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, IpPrefix, TrafficSelector};

/// Names a policy; chosen by the daemon, never reused while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId(pub u64);

/// What becomes of the packets that a policy selects (RFC 4301 §4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAction {
    /// They travel in an SA of the policy. A policy outlives its SAs: rekeying replaces the SA that sends, and while there is
    /// none, packets of the policy are dropped, never sent in clear.
    Protect {
        /// Whether a packet that finds no SA raises [`crate::Event::Acquire`].
        acquire: bool,
    },
    /// They leave in clear.
    Bypass,
    /// They are dropped.
    Discard,
}

impl fmt::Display for PolicyAction {
    /// The word that configurations have for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protect { .. } => "protect",
            Self::Bypass => "bypass",
            Self::Discard => "discard",
        })
    }
}

/// The directions in which a policy is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyDirections {
    /// For what leaves and for what comes in.
    #[default]
    Both,
    /// For what leaves.
    Outbound,
    /// For what comes in.
    Inbound,
}

/// An entry of the security policy database of an interface (RFC 4301 §4.4.1). A packet that no entry selects is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The policy's name.
    pub id: PolicyId,
    /// The interface whose traffic it selects.
    pub interface: InterfaceName,
    /// What becomes of what it selects.
    pub action: PolicyAction,
    /// The place in the order: of the policies that select a packet, that with the lowest number takes it; of several with
    /// this number the narrowest, and of equally narrow ones that with the lowest id.
    pub priority: u32,
    /// When it is asked.
    pub directions: PolicyDirections,
    /// Our side's selectors: sources on the way out.
    pub local: Vec<TrafficSelector>,
    /// The peer's side: destinations on the way out.
    pub remote: Vec<TrafficSelector>,
    /// Whether fragments of a packet but the first may travel in SAs that are for certain ports: both ends have to agree
    /// (RFC 4301 §7.3). SAs for any port carry them anyway.
    pub later_fragments: bool,
    /// Virtual addresses that the interface has for as long as the policy exists: its own traffic comes from there.
    pub addresses: Vec<IpAddr>,
    /// The routes that lead traffic into the interface for as long as the policy exists.
    pub routes: Vec<IpPrefix>,
}

impl PolicySpec {
    /// The priority of policies that nobody gave one, those of IKE among them: there is room before and behind.
    pub const DEFAULT_PRIORITY: u32 = 1000;

    /// A policy that protects what `local` and `remote` select in both directions, without routes, and without asking for an SA.
    ///
    /// ```
    /// use espdp_api::{InterfaceName, PolicyAction, PolicyId, PolicySpec};
    /// let policy = PolicySpec::protect(PolicyId(1), InterfaceName::new("ipsec0").unwrap(), vec![], vec![]);
    /// let trap = PolicySpec { action: PolicyAction::Protect { acquire: true }, ..policy };
    /// assert_eq!(trap.priority, PolicySpec::DEFAULT_PRIORITY);
    /// ```
    #[must_use]
    pub fn protect(
        id: PolicyId,
        interface: InterfaceName,
        local: Vec<TrafficSelector>,
        remote: Vec<TrafficSelector>,
    ) -> Self {
        Self {
            id,
            interface,
            action: PolicyAction::Protect { acquire: false },
            priority: Self::DEFAULT_PRIORITY,
            directions: PolicyDirections::Both,
            local,
            remote,
            later_fragments: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }
}
