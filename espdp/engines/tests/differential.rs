//! Engines beside two libraries: a part of what the example of the same name does.

#![expect(clippy::unwrap_used, reason = "shared with the example")]

#[path = "support/cases.rs"]
#[expect(unreachable_pub, dead_code, reason = "shared with the example")]
mod cases;

use esp_engines::gcm::Engine;

#[test]
fn engines_and_libraries_make_the_same_packets() {
    for (engine, seed) in Engine::all().zip(1..) {
        cases::check(engine, 200_000, seed);
    }
}
