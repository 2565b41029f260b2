//! Moving octets between memory and vector registers. All that is `unsafe` in a kernel stands here, in functions that are safe
//! to call: each takes the memory as a slice or array, and moves no octet outside of it.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_storeu_si512,
};

/// Sixteen octets as they lie in memory.
pub(crate) type Block = [u8; 16];

/// The number as a vector, the lowest octet first.
#[inline]
pub(crate) fn vector(number: u128) -> __m128i {
    load128(&number.to_le_bytes())
}

/// What [`vector`] made a vector of.
#[inline]
pub(crate) fn number(vector: __m128i) -> u128 {
    let mut octets = [0; 16];
    store128(&mut octets, vector);
    u128::from_le_bytes(octets)
}

/// Sixteen octets.
#[inline]
pub(crate) fn load128(octets: &Block) -> __m128i {
    // SAFETY: the array has the 16 octets that are read, and any alignment will do. SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

/// Sixteen octets.
#[inline]
pub(crate) fn store128(octets: &mut Block, value: __m128i) {
    // SAFETY: the array has the 16 octets that are written, and any alignment will do. SSE2 is part of x86-64.
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

/// As many octets as `octets` has, 64 at most.
#[inline]
#[target_feature(enable = "avx512bw")]
pub(crate) fn store512_partial(octets: &mut [u8], value: __m512i) {
    let mask = first(octets.len());
    // SAFETY: only octets whose bit is set are written, which are the first 64 of the slice, or as many as it has; the
    // processor takes no fault for the others.
    unsafe { _mm512_mask_storeu_epi8(octets.as_mut_ptr().cast(), mask, value) }
}

/// A mask of the first `octets` octets of 64.
#[inline]
pub(crate) fn first(octets: usize) -> u64 {
    if octets < 64 { (1 << octets) - 1 } else { u64::MAX }
}
