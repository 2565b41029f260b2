//! IKE engines against each other in virtual time.
//!
//! A [`World`] holds hosts (an engine with a dataplane that only keeps books), a network that loses, repeats, delays and
//! reorders IKE datagrams, NATs, and a clock that jumps from event to event. Everything follows from one seed, so a
//! failure is a number: [`for_seeds`] prints it.

mod config;
mod dataplane;
mod host;
mod network;
mod rng;
mod world;

pub use config::{address, connection, secret};
pub use dataplane::{Books, Packet, Verdict};
pub use host::Host;
pub use network::{Faults, Nat};
pub use rng::Rng;
pub use world::{HostId, Survey, Tapped, Traffic, World};

/// Runs `test` for seeds 0, 1, 2 …: as many as the environment variable `SIM_SEEDS` says, else `usual`. A failing seed is
/// printed; `SIM_SEED=N` runs just that one.
///
/// # Panics
/// When `test` does.
pub fn for_seeds(usual: u64, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number("SIM_SEEDS").unwrap_or(usual),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| test(seed)) {
            eprintln!("the failing seed is {seed}: run it alone with SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
