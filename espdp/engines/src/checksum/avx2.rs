//! Sums of eight words at once.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_extract_epi64, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_srli_epi64,
};

use super::of_tail;
use crate::vector::{load256, store256};

#[target_feature(enable = "avx2")]
pub(super) fn sum(data: &[u8]) -> u64 {
    let (blocks, rest) = data.as_chunks();
    let mut sum = Sum::zero();
    for block in blocks {
        sum.add(load256(block));
    }
    sum.total().wrapping_add(of_tail(rest))
}

/// Both are as long as each other.
#[target_feature(enable = "avx2")]
pub(super) fn copy(from: &[u8], to: &mut [u8]) -> u64 {
    let ((blocks, rest), (places, last)) = (from.as_chunks(), to.as_chunks_mut());
    let mut sum = Sum::zero();
    for (block, place) in blocks.iter().zip(places) {
        let block = load256(block);
        store256(place, block);
        sum.add(block);
    }
    for (octet, place) in rest.iter().zip(last) {
        *place = *octet;
    }
    sum.total().wrapping_add(of_tail(rest))
}

/// Words with even numbers, and those with odd ones.
struct Sum {
    even: __m256i,
    odd: __m256i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero() -> Self {
        Self { even: _mm256_setzero_si256(), odd: _mm256_setzero_si256() }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, words: __m256i) {
        let even = _mm256_and_si256(words, _mm256_set1_epi64x(0xffff_ffff));
        self.even = _mm256_add_epi64(self.even, even);
        self.odd = _mm256_add_epi64(self.odd, _mm256_srli_epi64::<32>(words));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total(&self) -> u64 {
        let sum = _mm256_add_epi64(self.even, self.odd);
        let lanes = [
            _mm256_extract_epi64::<0>(sum),
            _mm256_extract_epi64::<1>(sum),
            _mm256_extract_epi64::<2>(sum),
            _mm256_extract_epi64::<3>(sum),
        ];
        lanes.into_iter().map(i64::cast_unsigned).fold(0, u64::wrapping_add)
    }
}
