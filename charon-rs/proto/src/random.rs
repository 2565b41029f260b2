//! Randomness from outside.

/// A source of random octets. What is seen on the wire and what must stay secret come from two streams, so that the one
/// tells nothing about the other.
pub trait SecureRandom {
    /// Fills `buffer` with octets that a peer will see: SPIs, nonces, IVs.
    fn fill_public(&mut self, buffer: &mut [u8]);

    /// Fills `buffer` with octets that nobody may see: private keys of key exchanges.
    fn fill_secret(&mut self, buffer: &mut [u8]);
}
