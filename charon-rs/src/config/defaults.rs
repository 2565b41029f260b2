//! What holds when nobody says otherwise, for every front end of the configuration.

use std::time::Duration;

use espdp_api::{GuardMode, HostSpec, InterfaceKind, InterfaceName, InterfaceSpec};
use ike_proto::config::Retransmission;

/// UDP port of IKE_SA_INIT.
pub const IKE_PORT: u16 = 500;
/// UDP port of IKE and ESP through NATs.
pub const NAT_PORT: u16 = 4500;
/// An IKE SA ends after this long.
pub const IKE_LIFETIME: Duration = Duration::from_secs(3 * 3600);
/// A Child SA ends after this long.
pub const CHILD_LIFETIME: Duration = Duration::from_secs(3600);
/// SAs are rekeyed this long before their end, short-lived ones [`MARGIN_PERCENT`] of their life.
pub const MARGIN_TIME: Duration = Duration::from_secs(9 * 60);
/// See [`MARGIN_TIME`].
pub const MARGIN_PERCENT: u32 = 15;
/// The margin is up to this much longer, in percent.
pub const REKEY_FUZZ_PERCENT: u32 = 100;
/// Time without a sign of the peer after which it is probed.
pub const DPD_DELAY: Duration = Duration::from_secs(30);
/// Replay window in packets.
pub const REPLAY_WINDOW: u32 = 1024;
/// When requests are sent again: after 4, 7.2, 13, 23.3 and 42 seconds; given up after 165 seconds.
pub const RETRANSMISSION: Retransmission =
    Retransmission { first: Duration::from_secs(4), factor: 1.8, tries: 5, longest: Duration::from_secs(60) };

/// What a policy covers never passes its tunnel, whatever happens to the daemon.
pub const GUARD: GuardMode = GuardMode::Always;

/// What the host's network stack does when no table says anything.
#[must_use]
pub fn host() -> HostSpec {
    HostSpec { guard: GUARD, ..HostSpec::default() }
}

/// The interface of children that name none.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant that Linux takes")]
pub fn interface() -> InterfaceName {
    InterfaceName::new("ipsec0").expect("a short name")
}

/// [`interface`] when no table describes it.
#[must_use]
pub fn interface_spec() -> InterfaceSpec {
    InterfaceSpec::new(interface(), InterfaceKind::Ipsec)
}
