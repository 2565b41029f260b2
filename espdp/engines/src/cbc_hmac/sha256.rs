//! HMAC-SHA2-256 (RFC 2104, FIPS 180-4) of sixteen messages side by side: vector `i` holds word `i` of each.

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, __mmask16, _mm512_add_epi32, _mm512_castsi512_si128, _mm512_cmpgt_epu32_mask, _mm512_mask_add_epi32,
    _mm512_ror_epi32, _mm512_setzero_si512, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
};

use zeroize::Zeroizing;

use super::Key;
use crate::lanes::{WORD_LANES, in_each, swap_words, transpose_words};
use crate::vector::{Block, load512, load512_partial, store128, store512};

/// What is hashed under one key.
#[derive(Clone, Copy)]
pub(super) struct Message<'m> {
    pub(super) key: &'m Key,
    pub(super) octets: &'m [u8],
    /// Four octets behind them.
    pub(super) high: Option<u32>,
}

/// Octets that are hashed at once.
const BLOCK: usize = 64;

/// The first half of the HMAC of each message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn hmac(messages: &[Option<Message<'_>>; WORD_LANES]) -> [Block; WORD_LANES] {
    let mut lanes = [const { Lane::EMPTY }; WORD_LANES];
    let mut states = [_mm512_setzero_si512(); WORD_LANES];
    let mut lengths = [0; BLOCK];
    let mut longest = 0;
    let (length_places, _) = lengths.as_chunks_mut::<4>();
    for (((message, lane), state), length) in messages.iter().zip(&mut lanes).zip(&mut states).zip(length_places) {
        if let Some(message) = message {
            *lane = Lane::new(message);
            *state = load512(message.key.states());
            *length = lane.blocks.to_le_bytes();
            longest = longest.max(lane.blocks);
        }
    }
    transpose_words(&mut states);
    let (mut inner, mut outer) = ([_mm512_setzero_si512(); 8], [_mm512_setzero_si512(); 8]);
    inner.copy_from_slice(&states[..8]);
    outer.copy_from_slice(&states[8..]);
    let lengths = load512(&lengths);
    for at in 0..longest {
        let mut words = [_mm512_setzero_si512(); WORD_LANES];
        for (words, lane) in words.iter_mut().zip(&lanes) {
            *words = swap_words(load512(lane.block(at as usize)));
        }
        transpose_words(&mut words);
        compress(&mut inner, words, _mm512_cmpgt_epu32_mask(lengths, in_each(at)));
    }
    compress(&mut outer, padded(&inner), ALL);
    let mut hashes = [_mm512_setzero_si512(); WORD_LANES];
    hashes[..8].copy_from_slice(&outer);
    transpose_words(&mut hashes);
    let mut halves = [[0; 16]; WORD_LANES];
    for (half, hash) in halves.iter_mut().zip(hashes) {
        store128(half, _mm512_castsi512_si128(swap_words(hash)));
    }
    halves
}

/// The states after the first block of the inner and the outer hash, one behind the other: the key, with each of its octets
/// added to 0x36 or 0x5c (RFC 2104 §2).
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn first_states(key: &[u8; 32], states: &mut [u8; 64]) {
    let mut words = [_mm512_setzero_si512(); WORD_LANES];
    for (pad, words) in [0x36, 0x5c].into_iter().zip(&mut words) {
        let mut padded = Zeroizing::new([pad; BLOCK]);
        for (padded, octet) in padded.iter_mut().zip(key) {
            *padded ^= octet;
        }
        *words = swap_words(load512(&padded));
    }
    transpose_words(&mut words);
    let mut state = INITIAL.map(|word| in_each(word));
    compress(&mut state, words, ALL);
    let mut rows = [_mm512_setzero_si512(); WORD_LANES];
    rows[..8].copy_from_slice(&state);
    transpose_words(&mut rows);
    let mut row = Zeroizing::new([0; 64]);
    for (half, rows) in states.as_chunks_mut::<32>().0.iter_mut().zip(rows) {
        store512(&mut row, rows);
        half.copy_from_slice(&row[..32]);
    }
}

/// A message in blocks.
struct Lane<'m> {
    full: &'m [[u8; BLOCK]],
    /// What is left of it, and padding.
    tail: [[u8; BLOCK]; 2],
    /// How many blocks that is in all.
    blocks: u32,
}

impl<'m> Lane<'m> {
    const EMPTY: Self = Self { full: &[], tail: [[0; BLOCK]; 2], blocks: 0 };

    /// FIPS 180-4 §5.1.1: behind the message a bit, zeros, and its length in bits, with the block of the key counted.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(message: &Message<'m>) -> Self {
        let (full, rest) = message.octets.as_chunks::<BLOCK>();
        let mut tail = [[0; BLOCK]; 2];
        store512(&mut tail[0], load512_partial(rest));
        let octets = tail.as_flattened_mut();
        let mut end = rest.len();
        if let Some(high) = message.high {
            octets[end..end + 4].copy_from_slice(&high.to_be_bytes());
            end += 4;
        }
        octets[end] = 0x80;
        let bits = 8 * (BLOCK + BLOCK * full.len() + end) as u64;
        let tail_blocks = if end + 1 + 8 <= BLOCK { 1 } else { 2 };
        octets[BLOCK * tail_blocks - 8..][..8].copy_from_slice(&bits.to_be_bytes());
        Self { full, tail, blocks: (full.len() + tail_blocks) as u32 }
    }

    /// The block with this number, or any block where there are not so many.
    #[inline]
    fn block(&self, at: usize) -> &[u8; BLOCK] {
        self.full.get(at).unwrap_or(&self.tail[usize::from(at > self.full.len())])
    }
}

/// The only block that the outer hash has behind its key: a hash and its padding.
#[inline]
#[target_feature(enable = "avx512f")]
fn padded(hash: &[__m512i; 8]) -> [__m512i; WORD_LANES] {
    let mut words = [_mm512_setzero_si512(); WORD_LANES];
    words[..8].copy_from_slice(hash);
    words[8] = in_each(0x8000_0000);
    words[15] = in_each(8 * (BLOCK as u32 + 32));
    words
}

/// One round (FIPS 180-4 §6.2.2 step 3). Instead of moving eight variables on, names are.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $word:expr, $constant:expr) => {
        let sum = grouped(_mm512_add_epi32($h, _mm512_add_epi32($word, in_each($constant))));
        let sum = grouped(_mm512_add_epi32(sum, _mm512_ternarylogic_epi32::<CHOICE>($e, $f, $g)));
        let turned = xor3(_mm512_ror_epi32::<6>($e), _mm512_ror_epi32::<11>($e), _mm512_ror_epi32::<25>($e));
        // The way from one `e` to the next is what takes time: only the last addition waits for `turned`.
        $d = _mm512_add_epi32(grouped(_mm512_add_epi32($d, sum)), turned);
        let first = grouped(_mm512_add_epi32(sum, turned));
        let turned = xor3(_mm512_ror_epi32::<2>($a), _mm512_ror_epi32::<13>($a), _mm512_ror_epi32::<22>($a));
        let second = grouped(_mm512_add_epi32(turned, _mm512_ternarylogic_epi32::<MAJORITY>($a, $b, $c)));
        $h = _mm512_add_epi32(first, second);
    };
}

/// Makes word 16 places on out of the one at `$at` and those 1, 9 and 14 places behind it (FIPS 180-4 §6.2.2 step 1).
macro_rules! extend {
    ($words:ident, $at:literal $one:literal $nine:literal $fourteen:literal) => {
        let old = $words[$one];
        let new = $words[$fourteen];
        let old = xor3(_mm512_ror_epi32::<7>(old), _mm512_ror_epi32::<18>(old), _mm512_srli_epi32::<3>(old));
        let new = xor3(_mm512_ror_epi32::<17>(new), _mm512_ror_epi32::<19>(new), _mm512_srli_epi32::<10>(new));
        let sum = _mm512_add_epi32(_mm512_add_epi32($words[$at], $words[$nine]), old);
        $words[$at] = _mm512_add_epi32(grouped(sum), new);
    };
}

/// Does not extend.
macro_rules! keep {
    ($words:ident, $at:literal $one:literal $nine:literal $fourteen:literal) => {};
}

/// Sixteen rounds. Written out, because vectors stay in registers only where their numbers are constant.
macro_rules! sixteen_rounds {
    ($state:ident, $words:ident, $constants:expr, $then:ident) => {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = $state;
        round!(a b c d e f g h, $words[0], $constants[0]);
        $then!($words, 0 1 9 14);
        round!(h a b c d e f g, $words[1], $constants[1]);
        $then!($words, 1 2 10 15);
        round!(g h a b c d e f, $words[2], $constants[2]);
        $then!($words, 2 3 11 0);
        round!(f g h a b c d e, $words[3], $constants[3]);
        $then!($words, 3 4 12 1);
        round!(e f g h a b c d, $words[4], $constants[4]);
        $then!($words, 4 5 13 2);
        round!(d e f g h a b c, $words[5], $constants[5]);
        $then!($words, 5 6 14 3);
        round!(c d e f g h a b, $words[6], $constants[6]);
        $then!($words, 6 7 15 4);
        round!(b c d e f g h a, $words[7], $constants[7]);
        $then!($words, 7 8 0 5);
        round!(a b c d e f g h, $words[8], $constants[8]);
        $then!($words, 8 9 1 6);
        round!(h a b c d e f g, $words[9], $constants[9]);
        $then!($words, 9 10 2 7);
        round!(g h a b c d e f, $words[10], $constants[10]);
        $then!($words, 10 11 3 8);
        round!(f g h a b c d e, $words[11], $constants[11]);
        $then!($words, 11 12 4 9);
        round!(e f g h a b c d, $words[12], $constants[12]);
        $then!($words, 12 13 5 10);
        round!(d e f g h a b c, $words[13], $constants[13]);
        $then!($words, 13 14 6 11);
        round!(c d e f g h a b, $words[14], $constants[14]);
        $then!($words, 14 15 7 12);
        round!(b c d e f g h a, $words[15], $constants[15]);
        $then!($words, 15 0 8 13);
        $state = [a, b, c, d, e, f, g, h];
    };
}

/// Hashes a block of each lane in `active`; the others keep their state.
#[target_feature(enable = "avx512f")]
fn compress(state: &mut [__m512i; 8], mut words: [__m512i; WORD_LANES], active: __mmask16) {
    let mut now = *state;
    let [first, second, third, last] = &CONSTANTS;
    for constants in [first, second, third] {
        sixteen_rounds!(now, words, constants, extend);
    }
    sixteen_rounds!(now, words, last, keep);
    for (state, now) in state.iter_mut().zip(now) {
        *state = _mm512_mask_add_epi32(*state, active, *state, now);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<XOR_OF_THREE>(a, b, c)
}

/// Keeps a sum as it was put together: the compiler orders additions anew otherwise, without a look at which one comes last.
#[inline]
#[target_feature(enable = "avx512f")]
fn grouped(mut sum: __m512i) -> __m512i {
    // SAFETY: there is no instruction in it.
    unsafe { asm!("/* {0} */", inout(zmm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

/// Truth tables of `a ^ b ^ c`, `if a { b } else { c }`, and what two of three say.
const XOR_OF_THREE: i32 = 0x96;
const CHOICE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;
/// All lanes.
const ALL: __mmask16 = 0xffff;

/// FIPS 180-4 §5.3.3.
#[rustfmt::skip]
const INITIAL: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// FIPS 180-4 §4.2.2.
#[rustfmt::skip]
static CONSTANTS: [[u32; 16]; 4] = [
    [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    ],
    [
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    ],
    [
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    ],
    [
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ],
];
