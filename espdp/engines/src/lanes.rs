//! Turning octets of several packets, one packet to a row, into lanes of vectors, and back.

use std::arch::x86_64::{
    __m512i, _mm512_broadcast_i32x4, _mm512_set1_epi32, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::vector::vector;

/// Packets in the lanes of a vector of 32-bit words.
pub(crate) const WORD_LANES: usize = 16;

/// Packets in the lanes of a vector of 64-bit numbers.
pub(crate) const NUMBER_LANES: usize = 8;

/// Word `i` of row `j` becomes word `j` of row `i`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_words(rows: &mut [__m512i; WORD_LANES]) {
    // First within each block of 16 octets, four rows at a time.
    for quad in rows.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *quad;
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *quad = [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    for at in 0..4 {
        let turned = transpose_blocks([rows[at], rows[4 + at], rows[8 + at], rows[12 + at]]);
        [rows[at], rows[4 + at], rows[8 + at], rows[12 + at]] = turned;
    }
}

/// Block `i` of row `j` becomes block `j` of row `i`; a block has 16 octets.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_blocks([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<LOW_HALVES>(a, b), _mm512_shuffle_i32x4::<HIGH_HALVES>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<LOW_HALVES>(c, d), _mm512_shuffle_i32x4::<HIGH_HALVES>(c, d));
    [
        _mm512_shuffle_i32x4::<EVEN_BLOCKS>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<ODD_BLOCKS>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<EVEN_BLOCKS>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<ODD_BLOCKS>(ab_high, cd_high),
    ]
}

/// Number `i` of row `j` becomes number `j` of row `i`; a number has 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_numbers(rows: &mut [__m512i; NUMBER_LANES]) {
    // First within each block of 16 octets, two rows at a time; then whole blocks, of rows with even and with odd numbers.
    for pair in rows.as_chunks_mut::<2>().0 {
        *pair = [_mm512_unpacklo_epi64(pair[0], pair[1]), _mm512_unpackhi_epi64(pair[0], pair[1])];
    }
    let even = transpose_blocks([rows[0], rows[2], rows[4], rows[6]]);
    let odd = transpose_blocks([rows[1], rows[3], rows[5], rows[7]]);
    for ((pair, even), odd) in rows.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
        *pair = [even, odd];
    }
}

/// Each 32-bit word with its octets in the opposite order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn swap_words(words: __m512i) -> __m512i {
    _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(vector(WORDS_SWAPPED)))
}

/// The number in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn in_each(number: u32) -> __m512i {
    _mm512_set1_epi32(number.cast_signed())
}

/// Which two blocks of the first vector and of the second one make up a vector.
const LOW_HALVES: i32 = 0b01_00_01_00;
const HIGH_HALVES: i32 = 0b11_10_11_10;
const EVEN_BLOCKS: i32 = 0b10_00_10_00;
const ODD_BLOCKS: i32 = 0b11_01_11_01;
/// Octet numbers 3, 2, 1, 0, 7, 6, ...
const WORDS_SWAPPED: u128 = 0x0c0d_0e0f_0809_0a0b_0405_0607_0001_0203;
