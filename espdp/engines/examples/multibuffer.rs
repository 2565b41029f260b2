//! Engines that put packets side by side, compared with two libraries for as many packets as there is time for.
//!
//! `cargo run --release -p esp-engines --example multibuffer -- 1000000 [seed]`
//!
//! Batches of all sizes with packets of all lengths up to 2100 octets, and longer ones, of many SAs, at all places; sealed, then
//! opened, some with one wrong bit.

#[path = "../tests/support/cbc_hmac.rs"]
mod cbc_hmac;
#[path = "../tests/support/chacha20poly1305.rs"]
mod chacha20poly1305;
#[path = "../tests/support/random.rs"]
mod random;

use std::time::Instant;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let packets: usize = arguments.next().context("how many packets?")?.parse().context("a number of packets")?;
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse()).context("a seed")?;
    for engine in esp_engines::cbc_hmac::Engine::all() {
        let start = now();
        cbc_hmac::compare(engine, seed, packets - packets / 32, 0..132);
        cbc_hmac::compare(engine, seed + 1, packets / 32, 132..570);
        println!("{}: {packets} packets in {:?}", engine.name(), start.elapsed());
    }
    for engine in esp_engines::chacha20poly1305::Engine::all() {
        let start = now();
        chacha20poly1305::compare(engine, seed, packets - packets / 32, 0..2101);
        chacha20poly1305::compare(engine, seed + 1, packets / 32, 2101..9001);
        println!("{}: {packets} packets in {:?}", engine.name(), start.elapsed());
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it says how long it took")]
fn now() -> Instant {
    Instant::now()
}
