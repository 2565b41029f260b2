//! What the dataplane wants to know before it starts.

use espdp_api::{CryptoEngine, Workers};

/// How a [`crate::Dataplane`] is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataplaneSettings {
    /// The UDP port for IKE, 500 (RFC 7296 §2).
    pub ike_port: u16,
    /// The UDP port for IKE behind NATs and for ESP in UDP, 4500 (RFC 3948).
    pub nat_port: u16,
    /// The mark (`SO_MARK`) of everything the dataplane sends itself. The routing rules leave packets with this mark out, so a
    /// policy that covers the peer's address does not swallow the packets that carry it.
    pub mark: u32,
    /// The routing table for the routes of policies. The 129 after it are for blackholes, a hundred from the two hundredth on for
    /// steered packets.
    pub table: u32,
    /// The priority of the first of the rules that lead to this table; they take up to 387 in a row, before the main table's 32766.
    /// The hundred before it are for rules that steer packets.
    pub rule_priority: u32,
    /// How many messages to the daemon may wait. When the daemon is too slow, IKE datagrams are dropped and counted
    /// first, then other events; outcomes wait for room.
    pub queue: usize,
    /// How many threads move packets.
    pub workers: Workers,
    /// What may compute ciphers; see [`crate::CryptoReport`].
    pub crypto_engine: CryptoEngine,
}

impl Default for DataplaneSettings {
    fn default() -> Self {
        Self {
            ike_port: 500,
            nat_port: 4500,
            mark: 50,
            table: 4301,
            rule_priority: 4301,
            queue: 4096,
            workers: Workers::ONE,
            crypto_engine: CryptoEngine::Auto,
        }
    }
}

/// Why the dataplane cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system refused something that is needed.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Routing rules could not be read, or not be removed.
    #[error(transparent)]
    Netlink(#[from] tunnels::NetlinkError),
}
