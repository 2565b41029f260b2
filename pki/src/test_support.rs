//! What the unit tests share: keys that are made once, and octets from hexadecimal.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::key::{Curve, KeyType, PrivateKey};

/// The same random numbers for the same seed.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A key of each type; RSA with 2048 and 3072 bits.
pub(crate) fn key(key_type: KeyType) -> &'static PrivateKey {
    static KEYS: [OnceLock<PrivateKey>; 6] = [const { OnceLock::new() }; 6];
    let index = match key_type {
        KeyType::Rsa { bits: ..=2048 } => 0,
        KeyType::Rsa { .. } => 1,
        KeyType::Ecdsa(Curve::P256) => 2,
        KeyType::Ecdsa(Curve::P384) => 3,
        KeyType::Ecdsa(Curve::P521) => 4,
        KeyType::Ed25519 => 5,
    };
    KEYS[index].get_or_init(|| PrivateKey::generate(key_type, &mut rng(7)).unwrap())
}

/// Octets written in hexadecimal, in which white space does not count.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}
