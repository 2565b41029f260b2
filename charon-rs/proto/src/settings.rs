//! Settings of an engine as a whole.

use std::time::Duration;

use espdp_api::Workers;

/// What holds for all connections of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our port for IKE in the clear path, usually 500.
    pub ike_port: u16,
    /// Our port for IKE and ESP through NATs, usually 4500.
    pub nat_port: u16,
    /// Whether [`crate::io::Notice::IkeKeys`] and [`crate::io::Notice::ChildKeys`] are raised. Off unless somebody asked for it.
    pub export_keys: bool,
    /// Time between NAT keepalives while nothing else is sent (RFC 3948 §4); zero turns them off.
    pub keepalive_interval: Duration,
    /// A responder's half-open SA is forgotten after this long.
    pub half_open_timeout: Duration,
    /// Above this many half-open SAs, initiators must return a cookie (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open SAs from one address above which its further requests are dropped.
    pub half_open_per_address: usize,
    /// Half-open SAs in all above which further requests are dropped.
    pub half_open_limit: usize,
    /// How long the inbound half of a replaced Child SA still receives.
    pub drain_time: Duration,
    /// How many requests a peer may have outstanding (RFC 7296 §2.3), 1 or more. Peers are told if it is more than 1. The
    /// responses to as many are kept with each IKE SA.
    pub window_size: u32,
    /// How many workers the dataplane has.
    pub workers: Workers,
    /// First wait before a connection that should be up is tried again; doubled each time, up to `reconnect_longest`.
    pub reconnect_first: Duration,
    /// Longest wait before a connection that should be up is tried again.
    pub reconnect_longest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ike_port: 500,
            nat_port: 4500,
            export_keys: false,
            keepalive_interval: Duration::from_secs(20),
            half_open_timeout: Duration::from_secs(30),
            cookie_threshold: 30,
            half_open_per_address: 50,
            half_open_limit: 1000,
            drain_time: Duration::from_secs(5),
            window_size: 1,
            workers: Workers::ONE,
            reconnect_first: Duration::from_secs(1),
            reconnect_longest: Duration::from_secs(120),
        }
    }
}
