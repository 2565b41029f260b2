//! What an SA is keyed with: AES round keys for both directions and for IVs, and the first states of HMAC.

use std::arch::x86_64::{_mm_aesenc_si128, _mm_aesenclast_si128, _mm_aesimc_si128, _mm_xor_si128};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::sha256;
use crate::aes::{expand, rounds};
use crate::vector::{Block, load128, store128, vector};

/// Keys of one direction of one SA. Made by [`super::Engine::key`].
///
/// ```text
///    0                64                     304                    544                720
///   ┌────────────────┬──────────────────────┬──────────────────────┬──────────────────┬────────┐
///   │ inner, outer   │ round keys, to       │ round keys, to       │ round keys of    │ rounds │
///   │ state of HMAC  │ encrypt              │ decrypt              │ AES-128 for IVs  │        │
///   └────────────────┴──────────────────────┴──────────────────────┴──────────────────┴────────┘
/// ```
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key {
    /// SHA-256 after the key with each pad (RFC 2104 §2, §4), in words as they lie in memory.
    states: [u8; 64],
    encryption: [Block; 15],
    decryption: [Block; 15],
    iv: [Block; 11],
    rounds: u32,
}

impl Key {
    /// `None` when AES has no keys of that length.
    #[target_feature(enable = "aes,avx512f,avx512bw,avx512vl")]
    pub(super) fn new(encryption: &[u8], integrity: &[u8; 32], iv_key: &[u8; 16]) -> Option<Box<Self>> {
        let rounds = rounds(encryption.len())?;
        // In its final place from the start, so that no copy stays behind.
        let mut made = Box::new(Self {
            states: [0; 64],
            encryption: [[0; 16]; 15],
            decryption: [[0; 16]; 15],
            iv: [[0; 16]; 11],
            rounds,
        });
        let rounds = rounds as usize;
        expand(encryption, &mut made.encryption, rounds);
        let Self { encryption, decryption, .. } = &mut *made;
        invert(&encryption[..=rounds], decryption);
        let mut iv = Zeroizing::new([[0; 16]; 15]);
        expand(iv_key, &mut iv, IV_ROUNDS);
        made.iv.copy_from_slice(&iv[..=IV_ROUNDS]);
        sha256::first_states(integrity, &mut made.states);
        Some(made)
    }

    /// AES rounds: 10, 12 or 14.
    #[inline]
    pub(super) fn rounds(&self) -> usize {
        // The bound says nothing new, but the compiler learns of it.
        (self.rounds as usize).min(14)
    }

    /// Round keys to encrypt with; those behind [`Self::rounds`] are zero.
    #[inline]
    pub(super) fn encryption(&self) -> &[Block; 15] {
        &self.encryption
    }

    /// Round keys to decrypt with, in the order of their use.
    #[inline]
    pub(super) fn decryption(&self) -> &[Block; 15] {
        &self.decryption
    }

    /// The states that the inner and the outer hash go on from, eight words each.
    #[inline]
    pub(super) fn states(&self) -> &[u8; 64] {
        &self.states
    }

    /// The IV of the packet with this sequence number.
    #[inline]
    #[target_feature(enable = "aes")]
    pub(super) fn iv_of(&self, sequence: u64) -> Block {
        let mut state = vector(u128::from(sequence).swap_bytes());
        let [first, between @ .., last] = &self.iv;
        state = _mm_xor_si128(state, load128(first));
        for round_key in between {
            state = _mm_aesenc_si128(state, load128(round_key));
        }
        let mut iv = [0; 16];
        store128(&mut iv, _mm_aesenclast_si128(state, load128(last)));
        iv
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

/// Rounds of AES-128.
const IV_ROUNDS: usize = 10;

/// The round keys of the equivalent inverse cipher (FIPS 197 §5.3.5).
#[target_feature(enable = "aes")]
fn invert(encryption: &[Block], decryption: &mut [Block; 15]) {
    for (at, (to, from)) in decryption.iter_mut().zip(encryption.iter().rev()).enumerate() {
        if at == 0 || at + 1 == encryption.len() {
            *to = *from;
        } else {
            store128(to, _mm_aesimc_si128(load128(from)));
        }
    }
}
