//! What tests of the engine need, here and in other crates (feature `testing`).

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::random::SecureRandom;

/// Randomness that is the same for the same seed. For tests only: whoever knows the seed knows all keys.
pub struct SeededRandom {
    public: ChaCha20Rng,
    secret: ChaCha20Rng,
}

impl SeededRandom {
    /// Two streams, public and secret, that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let public = ChaCha20Rng::seed_from_u64(seed);
        let mut secret = public.clone();
        secret.set_stream(1);
        Self { public, secret }
    }
}

impl SecureRandom for SeededRandom {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        self.public.fill_bytes(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        self.secret.fill_bytes(buffer);
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededRandom").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_octets_and_the_streams_differ() {
        let (mut one, mut two) = (SeededRandom::new(7), SeededRandom::new(7));
        let (mut a, mut b, mut secret) = ([0; 32], [0; 32], [0; 32]);
        one.fill_public(&mut a);
        two.fill_secret(&mut secret);
        two.fill_public(&mut b);
        assert_eq!(a, b);
        assert_ne!(a, secret);
        SeededRandom::new(8).fill_public(&mut b);
        assert_ne!(a, b);
    }
}
