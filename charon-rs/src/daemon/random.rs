//! The operating system's randomness for the engine.

use ike_proto::SecureRandom;

/// Draws both streams from the kernel. Its generator is a one-way function of its state, so what is on the wire tells
/// nothing about what is secret, even though the source is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsRandom;

impl SecureRandom for OsRandom {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        fill(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        fill(buffer);
    }
}

#[expect(clippy::expect_used, reason = "without randomness no key may be made; there is nothing to go on with")]
fn fill(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("Linux gives randomness once it has started");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        let (mut first, mut second, mut third) = ([0; 32], [0; 32], [0; 32]);
        OsRandom.fill_public(&mut first);
        OsRandom.fill_secret(&mut second);
        OsRandom.fill_secret(&mut third);
        assert!(first != second && second != third && first != [0; 32]);
    }
}
