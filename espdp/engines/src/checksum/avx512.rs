//! Sums of sixteen words at once.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_reduce_add_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_srli_epi64,
};

use crate::vector::{load512, load512_partial, store512, store512_partial};

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn sum(data: &[u8]) -> u64 {
    let (blocks, rest) = data.as_chunks();
    let mut sum = Sum::zero();
    for block in blocks {
        sum.add(load512(block));
    }
    sum.add(load512_partial(rest));
    sum.total()
}

/// Both are as long as each other.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn copy(from: &[u8], to: &mut [u8]) -> u64 {
    let ((blocks, rest), (places, last)) = (from.as_chunks(), to.as_chunks_mut());
    let mut sum = Sum::zero();
    for (block, place) in blocks.iter().zip(places) {
        let block = load512(block);
        store512(place, block);
        sum.add(block);
    }
    let rest = load512_partial(rest);
    store512_partial(last, rest);
    sum.add(rest);
    sum.total()
}

/// Words with even numbers, and those with odd ones.
struct Sum {
    even: __m512i,
    odd: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero() -> Self {
        Self { even: _mm512_setzero_si512(), odd: _mm512_setzero_si512() }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, words: __m512i) {
        let even = _mm512_and_si512(words, _mm512_set1_epi64(0xffff_ffff));
        self.even = _mm512_add_epi64(self.even, even);
        self.odd = _mm512_add_epi64(self.odd, _mm512_srli_epi64::<32>(words));
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn total(&self) -> u64 {
        _mm512_reduce_add_epi64(_mm512_add_epi64(self.even, self.odd)).cast_unsigned()
    }
}
