//! Moving octets between memory and vector registers. All that is `unsafe` in a kernel stands here, in functions that are safe
//! to call: each takes the memory as a slice or array, and moves no octet outside of it.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_set_epi64x, _mm_storeu_si128,
    _mm256_castsi256_si128, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_castsi512_si256, _mm512_extracti64x4_epi64,
    _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_storeu_si512,
};

/// Sixteen octets as they lie in memory.
pub(crate) type Block = [u8; 16];

/// The number as a vector, the lowest octet first.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn vector(number: u128) -> __m128i {
    halves((number >> 64) as u64, number as u64)
}

/// The upper and the lower eight octets of a vector.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn halves(high: u64, low: u64) -> __m128i {
    _mm_set_epi64x(high.cast_signed(), low.cast_signed())
}

/// What [`vector`] made a vector of.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn number(vector: __m128i) -> u128 {
    let mut octets = [0; 16];
    store128(&mut octets, vector);
    u128::from_le_bytes(octets)
}

/// Sixteen octets.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn load128(octets: &Block) -> __m128i {
    // SAFETY: the array has the 16 octets that are read, and any alignment will do.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

/// Sixteen octets.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn store128(octets: &mut Block, value: __m128i) {
    // SAFETY: the array has the 16 octets that are written, and any alignment will do.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), value) }
}

/// 64 octets.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load512(octets: &[u8; 64]) -> __m512i {
    // SAFETY: the array has the 64 octets that are read, and any alignment will do.
    unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) }
}

/// 64 octets.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store512(octets: &mut [u8; 64], value: __m512i) {
    // SAFETY: the array has the 64 octets that are written, and any alignment will do.
    unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), value) }
}

/// Up to 64 octets, and zeros behind.
#[inline]
#[target_feature(enable = "avx512bw")]
pub(crate) fn load512_partial(octets: &[u8]) -> __m512i {
    // SAFETY: only octets whose bit is set are read, which are the first 64 of the slice, or as many as it has; the processor
    // takes no fault for the others.
    unsafe { _mm512_maskz_loadu_epi8(first(octets.len()), octets.as_ptr().cast()) }
}

/// As many whole blocks as `octets` has, four at most. Without a mask: a processor that looks only at where a store begins lets
/// whatever is loaded behind it wait, and behind a packet stands the header of the next.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(crate) fn store512_blocks(octets: &mut [u8], value: __m512i) {
    if let Some(all) = octets.first_chunk_mut() {
        return store512(all, value);
    }
    let (rest, blocks) = match octets.split_first_chunk_mut() {
        Some((two, rest)) => {
            store256(two, _mm512_castsi512_si256(value));
            (rest, _mm512_extracti64x4_epi64(value, 1))
        }
        None => (octets, _mm512_castsi512_si256(value)),
    };
    if let Some(one) = rest.first_chunk_mut() {
        store128(one, _mm256_castsi256_si128(blocks));
    }
}

/// As many octets as `octets` has, 64 at most. Loads of what stands right behind may have to wait for it, see [`store512_blocks`].
#[inline]
#[target_feature(enable = "avx512bw")]
pub(crate) fn store512_partial(octets: &mut [u8], value: __m512i) {
    let mask = first(octets.len());
    // SAFETY: only octets whose bit is set are written, which are the first 64 of the slice, or as many as it has; the
    // processor takes no fault for the others.
    unsafe { _mm512_mask_storeu_epi8(octets.as_mut_ptr().cast(), mask, value) }
}

/// 32 octets.
#[inline]
#[target_feature(enable = "avx")]
pub(crate) fn load256(octets: &[u8; 32]) -> __m256i {
    // SAFETY: the array has the 32 octets that are read, and any alignment will do.
    unsafe { _mm256_loadu_si256(octets.as_ptr().cast()) }
}

/// 32 octets.
#[inline]
#[target_feature(enable = "avx")]
pub(crate) fn store256(octets: &mut [u8; 32], value: __m256i) {
    // SAFETY: the array has the 32 octets that are written, and any alignment will do.
    unsafe { _mm256_storeu_si256(octets.as_mut_ptr().cast(), value) }
}

/// Has the processor fetch the cache line in which the block begins.
#[inline]
pub(crate) fn prefetch(block: &Block) {
    // SAFETY: a prefetch changes nothing but what is in the caches, wherever it points. SSE is part of x86-64.
    unsafe { _mm_prefetch(block.as_ptr().cast(), _MM_HINT_T0) }
}

/// A mask of the first `octets` octets of 64.
#[inline]
pub(crate) fn first(octets: usize) -> u64 {
    if octets < 64 { (1 << octets) - 1 } else { u64::MAX }
}
