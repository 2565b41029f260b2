//! What an SA is keyed with: AES round keys, the salt, and powers of the GHASH key.

use std::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_clmulepi64_si128, _mm_shuffle_epi32, _mm_xor_si128,
};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aes::{expand, rounds};
use crate::vector::{Block, load128, number, prefetch, vector};

/// AES-GCM keys of one direction of one SA. Made by [`super::Engine::key`].
///
/// Starts on a cache line; short packets touch the four lines of the round keys and the last ones.
///
/// ```text
///    0                        240    244     248    256                                        832
///   ┌────────────────────────┬──────┬───────┬──────┬──────────────────────────────────────────┐
///   │ round keys 0 to 14     │ salt │ rounds│      │ H³⁶, H³⁵, ..., H², H (x · H, reflected)  │
///   └────────────────────────┴──────┴───────┴──────┴──────────────────────────────────────────┘
/// ```
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key {
    /// The first one more than [`Self::rounds`] are used.
    round_keys: [Block; 15],
    salt: [u8; 4],
    rounds: u32,
    unused: [u8; 8],
    /// Powers of H in falling order. Each is multiplied by x and bit-reflected, in little-endian order: what a carry-less
    /// multiplication of reflected operands needs.
    powers: [Block; POWERS],
}

/// Blocks in a cache line.
const LINE: usize = 4;

/// How many powers of H there are: for eight vectors of four blocks, and the block of lengths.
pub(super) const POWERS: usize = 36;

impl Key {
    /// Keys AES with 16, 24 or 32 octets. `None` for other lengths.
    #[target_feature(enable = "aes,pclmulqdq")]
    pub(super) fn new(key: &[u8], salt: [u8; 4]) -> Option<Box<Self>> {
        let rounds = rounds(key.len())?;
        // In its final place from the start, so that no copy stays behind.
        let mut made =
            Box::new(Self { round_keys: [[0; 16]; 15], salt, rounds, unused: [0; 8], powers: [[0; 16]; POWERS] });
        expand(key, &mut made.round_keys, rounds as usize);
        fill_powers(&made.round_keys, rounds as usize, &mut made.powers);
        Some(made)
    }

    /// Has the processor fetch what a packet of `octets` octets needs of the key, and goes on meanwhile.
    #[inline]
    pub fn prefetch(&self, octets: usize) {
        // Round keys, and as many powers as the packet has blocks, and one for the lengths; the first ones come last.
        let powers = (octets / 16 + 1).min(POWERS);
        self.round_keys.iter().step_by(LINE).for_each(prefetch);
        self.powers[POWERS - powers..].iter().step_by(LINE).for_each(prefetch);
        self.powers.last().into_iter().for_each(prefetch);
    }

    /// AES rounds: 10, 12 or 14.
    #[inline]
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The salt as it lies in memory, the first octet lowest.
    #[inline]
    pub(super) fn salt(&self) -> u32 {
        u32::from_le_bytes(self.salt)
    }

    /// The round keys; those behind the last one of the key's length are zero.
    #[inline]
    pub(super) fn round_keys(&self) -> &[Block; 15] {
        &self.round_keys
    }

    /// Powers from [`POWERS`] down to 1.
    #[inline]
    pub(super) fn powers(&self) -> &[Block; POWERS] {
        &self.powers
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

/// H is the encrypted block of zeros (NIST SP 800-38D §7.1 step 1).
#[target_feature(enable = "aes,pclmulqdq")]
fn fill_powers(round_keys: &[Block; 15], rounds: usize, powers: &mut [Block; POWERS]) {
    let mut state = load128(&round_keys[0]);
    for round_key in &round_keys[1..rounds] {
        state = _mm_aesenc_si128(state, load128(round_key));
    }
    state = _mm_aesenclast_si128(state, load128(&round_keys[rounds]));
    let h = number(state).swap_bytes();
    // Times x: in the reflected order a shift to the left, and the polynomial where a bit falls out. No branch: H is secret.
    let first = (h << 1) ^ (POLYNOMIAL & (h >> 127).wrapping_neg());
    let mut power = Zeroizing::new(first);
    for place in powers.iter_mut().rev() {
        *place = power.to_le_bytes();
        *power = product(*power, first);
    }
}

/// x¹²⁸ + x⁷ + x² + x + 1, reflected, times x.
pub(super) const POLYNOMIAL: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;

/// Octet numbers 15, 14, ..., 0: the order in which blocks are multiplied.
pub(super) const OPPOSITE: u128 = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f;

/// The product of two elements of GHASH's field, reflected, the second one multiplied by x already.
#[target_feature(enable = "pclmulqdq")]
fn product(one: u128, other: u128) -> u128 {
    let (one, other) = (vector(one), vector(other));
    let low = _mm_clmulepi64_si128(one, other, 0x00);
    let middle = _mm_xor_si128(_mm_clmulepi64_si128(one, other, 0x01), _mm_clmulepi64_si128(one, other, 0x10));
    let high = _mm_clmulepi64_si128(one, other, 0x11);
    // Two foldings of 64 bits each.
    let polynomial = vector(POLYNOMIAL);
    let fold = |sum: __m128i| {
        let folded = _mm_clmulepi64_si128(polynomial, sum, 0x01);
        _mm_xor_si128(folded, _mm_shuffle_epi32(sum, 0x4e))
    };
    let middle = _mm_xor_si128(middle, fold(low));
    number(_mm_xor_si128(high, fold(middle)))
}
