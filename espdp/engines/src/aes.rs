//! AES's key expansion, for all engines that use AES.

use std::arch::x86_64::{_mm_aesenclast_si128, _mm_cvtsi128_si32, _mm_set1_epi32, _mm_setzero_si128};

use zeroize::Zeroizing;

use crate::vector::Block;

/// Rounds of AES with a key of so many octets. `None` where there is no such AES.
pub(crate) fn rounds(key_len: usize) -> Option<u32> {
    match key_len {
        16 => Some(10),
        24 => Some(12),
        32 => Some(14),
        _ => None,
    }
}

/// The key expansion of FIPS 197 §5.2, without tables.
#[target_feature(enable = "aes")]
pub(crate) fn expand(key: &[u8], round_keys: &mut [Block; 15], rounds: usize) {
    let (key, _) = key.as_chunks::<4>();
    let mut words = Zeroizing::new([0u32; 60]);
    for (word, octets) in words.iter_mut().zip(key) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut round_constant = 1u32;
    for at in key.len()..4 * (rounds + 1) {
        let mut word = words[at - 1];
        if at % key.len() == 0 {
            word = substituted(word.rotate_right(8)) ^ round_constant;
            // Doubling in AES's field; the constants are public.
            round_constant = if round_constant == 0x80 { 0x1b } else { round_constant << 1 };
        } else if key.len() == 8 && at % 8 == 4 {
            word = substituted(word);
        }
        words[at] = words[at - key.len()] ^ word;
    }
    for (round_key, words) in round_keys.iter_mut().zip(words.as_chunks::<4>().0) {
        for (octets, word) in round_key.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *octets = word.to_le_bytes();
        }
    }
}

/// AES's S-box on each octet: the last round without a key. All columns are the same, so that shifting rows changes nothing.
#[target_feature(enable = "aes")]
fn substituted(word: u32) -> u32 {
    let columns = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_keys_are_those_of_fips_197() {
        // FIPS 197 appendix A: the last round key of each example.
        let octets = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        for (key, last) in [
            ("2b7e151628aed2a6abf7158809cf4f3c", "d014f9a8c9ee2589e13f0cc8b6630ca6"),
            ("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "e98ba06f448c773c8ecc720401002202"),
            ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "fe4890d1e6188d0b046df344706c631e"),
        ] {
            let (key, mut round_keys) = (octets(key), [[0; 16]; 15]);
            let rounds = rounds(key.len()).unwrap() as usize;
            assert!(std::arch::is_x86_feature_detected!("aes"), "no processor that the test can run on");
            #[expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")]
            // SAFETY: the processor has AES, as was just seen.
            unsafe {
                expand(&key, &mut round_keys, rounds);
            }
            assert_eq!(round_keys[rounds][..], octets(last));
        }
        assert_eq!(rounds(20), None);
    }
}
