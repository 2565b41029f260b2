//! Engines beside two libraries, for as many packets as there is time for.
//!
//! `cargo run --release -p esp-engines --example differential -- 10000000 [seed]`
//!
//! Every length up to 2100 octets at every place in a cache line, with each key length, with and without extended sequence
//! numbers, and longer ones; sealed, then opened, some with one wrong bit.

#![expect(clippy::unwrap_used, reason = "a check whose setting fails has nothing to check")]

#[path = "../tests/support/cases.rs"]
#[expect(unreachable_pub, reason = "shared with the test")]
mod cases;

use std::time::Instant;

use anyhow::Context;
use esp_engines::gcm::Engine;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let packets = arguments.next().context("how many packets?")?.parse().context("a number of packets")?;
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse()).context("a seed")?;
    for engine in Engine::all() {
        #[expect(clippy::disallowed_methods, reason = "it says how long it took")]
        let start = Instant::now();
        cases::check(engine, packets, seed);
        println!(
            "{}: {packets} packets, each length, place and setting {} times, in {:?}",
            engine.name(),
            packets / cases::round(),
            start.elapsed()
        );
    }
    Ok(())
}
