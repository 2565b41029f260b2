//! Connections and their children: the one model that every configuration front end fills.

use std::net::IpAddr;
use std::time::Duration;

use espdp_api::{
    AddressRange, DfPolicy, DscpPolicy, InterfaceName, Mode, Routes, Secret, TrafficLimit, TrafficSelector,
};

use crate::identity::{Identity, IdentityPattern};
use crate::proposal::{EspProposal, IkeProposal};

/// How to reach, authenticate and protect one peer (or, with wildcards, a class of peers).
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its name, unique.
    pub name: String,
    /// Our addresses in order of preference; empty means whatever the route to the peer says.
    pub local_addresses: Vec<IpAddr>,
    /// Where the peer may be.
    pub remote_addresses: Vec<RemoteAddress>,
    /// Our port for IKE_SA_INIT, usually 500.
    pub local_port: u16,
    /// The peer's port for IKE_SA_INIT, usually 500.
    pub remote_port: u16,
    /// How we authenticate ourselves.
    pub local: LocalAuth,
    /// How the peer must authenticate itself.
    pub remote: RemoteAuth,
    /// IKE proposals in order of preference; never empty.
    pub ike_proposals: Vec<IkeProposal>,
    /// When the IKE SA is rekeyed and when it ends.
    pub ike_lifetime: Lifetime,
    /// Dead peer detection; `None` turns it off.
    pub dpd: Option<Dpd>,
    /// How requests are retransmitted.
    pub retransmission: Retransmission,
    /// Pretend that there is a NAT, so that ESP always travels in UDP.
    pub force_encapsulation: bool,
    /// The Child SAs of the connection. The first goes with IKE_AUTH when no other is asked for.
    pub children: Vec<Child>,
}

/// Where a peer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAddress {
    /// One address.
    Address(IpAddr),
    /// Anywhere in a range; for responders.
    Range(AddressRange),
    /// A name, resolved anew for each attempt.
    Name(String),
    /// Anywhere; for responders.
    Any,
}

/// How we authenticate.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalAuth {
    /// Our identity; `None` means our address.
    pub identity: Option<Identity>,
    /// The method.
    pub method: AuthMethod,
}

/// How the peer must authenticate.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteAuth {
    /// Which identities are accepted.
    pub identity: IdentityPattern,
    /// The method.
    pub method: AuthMethod,
}

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthMethod {
    /// A pre-shared key (RFC 7296 §2.15), found in the engine's secrets by the two identities.
    PreSharedKey,
}

/// A pre-shared key and whose it is.
#[derive(Clone, Debug)]
pub struct SharedSecret {
    /// Names it for replacement; unique.
    pub name: String,
    /// The identities it is for: none means everybody, one means any pair with that one, more mean any pair among them.
    pub owners: Vec<Identity>,
    /// The key, up to any length, no NUL added.
    pub secret: Secret<Vec<u8>>,
}

/// When to replace an SA and when to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Rekey after this long; `None` never.
    pub rekey_after: Option<Duration>,
    /// Up to this much sooner, drawn anew for each SA, so that two ends do not rekey at once.
    pub jitter: Duration,
    /// End the SA after this long if it was not replaced; `None` never.
    pub expire_after: Option<Duration>,
}

/// Dead peer detection (RFC 7296 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpd {
    /// Probe when nothing came from the peer for this long.
    pub delay: Duration,
    /// What to do about a dead peer.
    pub action: DpdAction,
}

/// What to do about a dead peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpdAction {
    /// Remove the SAs.
    Clear,
    /// Remove the SAs and keep the policies, so that the next packet brings the tunnel back.
    Hold,
    /// Set the connection up anew at once, and keep trying.
    Restart,
}

/// When requests are sent again (RFC 7296 §2.1): after `first`, then each time `factor` later than before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retransmission {
    /// Until the first repetition.
    pub first: Duration,
    /// By how much each wait is longer than the one before; at least 1.
    pub factor: f64,
    /// Repetitions before the peer is given up.
    pub tries: u32,
    /// No wait is longer than this.
    pub longest: Duration,
}

/// A Child SA to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name, unique in the connection.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What we protect on our side; empty means our address of the IKE SA.
    pub local_selectors: Vec<TrafficSelector>,
    /// What we protect on the peer's side; empty means the peer's address of the IKE SA.
    pub remote_selectors: Vec<TrafficSelector>,
    /// ESP proposals in order of preference; never empty.
    pub esp_proposals: Vec<EspProposal>,
    /// When it is rekeyed and when it ends.
    pub lifetime: Lifetime,
    /// Traffic after which it is rekeyed.
    pub rekey_after_traffic: TrafficLimit,
    /// Traffic after which it ends.
    pub expire_after_traffic: TrafficLimit,
    /// Replay window in packets.
    pub replay_window: u32,
    /// The interface its traffic goes through.
    pub interface: InterfaceName,
    /// The routes that come and go with it.
    pub routes: Routes,
    /// Don't Fragment of the outer header.
    pub df: DfPolicy,
    /// DSCP of the outer header.
    pub dscp: DscpPolicy,
    /// What happens when the connection is loaded.
    pub start: StartAction,
}

/// What happens to a child when its connection is loaded (`auto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAction {
    /// Nothing: it waits for the peer or for a command.
    None,
    /// Its policy is set; the first packet brings it up.
    Trap,
    /// It is brought up, and brought up again whenever it falls.
    Start,
}
