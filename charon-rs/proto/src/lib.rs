//! A sans-IO IKEv2 engine (RFC 7296).
//!
//! The engine is told what happened (`handle_*`, each with the time) and says what to do about it through one ordered
//! queue (`poll_output`) and one deadline (`poll_timeout`). It opens no socket, reads no clock and draws randomness only
//! from the [`SecureRandom`] that it was given, so two engines can be run against each other in virtual time.
//!
//! | module | what lives there |
//! |---|---|
//! | [`wire`] | messages and payloads: bytes to types and back |
//! | [`crypto`] | PRFs, key exchange, ciphers, the key schedule |
//! | [`proposal`] | proposal strings, the wire form, negotiation with reasons |
//! | [`selectors`] | narrowing of traffic selectors |
//! | [`Engine`] | SAs, exchanges, tasks, timers |
//! | [`config`] | connections and children as the engine wants them |
//! | [`identity`] | identities and patterns for them |
//! | [`io`] | what goes in and out of the engine |

pub mod config;
pub mod crypto;
mod describe;
mod engine;
pub mod identity;
pub mod io;
pub mod proposal;
mod random;
mod rules;
pub mod selectors;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

pub use describe::{describe, describe_group};
pub use engine::{Engine, configured_policy};
pub use random::SecureRandom;
pub use settings::Settings;
