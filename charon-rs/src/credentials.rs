//! Certificates and private keys: what the engine's `Ask::Sign` and `Ask::Verify` are answered with.
//!
//! ```text
//! ipsec.toml, secrets ──▶ Layer ─┐
//!                                ├─▶ Store ──▶ Desk: sign │ verify ──▶ revocation ──▶ answers for the engine
//! VICI                ──▶ Layer ─┘             on threads of its own     (fetches)
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | `layer` | what one front end told: keys, certificates, CRLs |
//! | `demand` | what the configuration says about our proof and about the peer's |
//! | `store` | all layers together |
//! | `names` | identities of IKE as names in certificates |
//! | `desk` | work that must not keep the engine waiting |
//! | `sign` | our proof |
//! | `verify`, `proof`, `refusal` | the peer's proof, and why it does not count |
//! | `revocation` | whether a certificate was revoked |

mod demand;
mod desk;
mod layer;
pub(crate) mod names;
mod proof;
mod refusal;
mod revocation;
mod sign;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

pub use demand::{ConstraintError, Constraints, Demand, Signer};
pub(crate) use desk::Desk;
pub use layer::{Layer, OwnKey, Places};
pub use revocation::FetchLimits;
pub(crate) use store::Store;

use std::time::SystemTime;

use pki::time::UnixTime;

/// What certificates are measured against.
fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Randomness for blinding and salts.
pub(crate) fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}
