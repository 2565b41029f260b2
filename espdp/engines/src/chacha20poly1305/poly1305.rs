//! Poly1305 (RFC 8439 §2.5) of sixteen messages side by side, two vectors with eight each.
//!
//! Numbers modulo 2¹³⁰ - 5 are kept in three limbs of 44, 44 and 42 bits, a vector for each limb. Products of limbs have up to 94 bits;
//! the instructions give the lower 52 of them and those above apart.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpgt_epu64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_slli_epi64, _mm512_srli_epi64,
};

use crate::lanes::{NUMBER_LANES, WORD_LANES, transpose_numbers};
use crate::vector::{Block, load512, load512_partial, store512};

/// What an ICV is made over.
#[derive(Clone, Copy, Default)]
pub(super) struct Message<'m> {
    /// The one-time key: r and s.
    pub(super) key: [u8; 32],
    /// Associated data, with zeros behind up to a block.
    pub(super) covered: Block,
    pub(super) ciphertext: &'m [u8],
    /// Octets of associated data without the zeros, and of ciphertext.
    pub(super) lengths: Block,
}

/// The tag of each message (RFC 8439 §2.8).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn tags(messages: &[Message<'_>; WORD_LANES]) -> [Block; WORD_LANES] {
    let mut lanes = [Lanes::new(&messages[..NUMBER_LANES]), Lanes::new(&messages[NUMBER_LANES..])];
    let strides = messages.iter().map(|message| message.ciphertext.len().div_ceil(STRIDE)).max().unwrap_or(0);
    for stride in 0..strides {
        let loaded = [lanes[0].load(stride), lanes[1].load(stride)];
        for block in 0..STRIDE / 16 {
            for (lanes, loaded) in lanes.iter_mut().zip(&loaded) {
                let active = lanes.active(stride * (STRIDE / 16) + block);
                lanes.take(loaded[2 * block], loaded[2 * block + 1], active);
            }
        }
    }
    let mut tags = [[0; 16]; WORD_LANES];
    for (lanes, tags) in lanes.iter_mut().zip(tags.as_chunks_mut::<NUMBER_LANES>().0) {
        *tags = lanes.finish();
    }
    tags
}

/// Octets of each message that are loaded at once.
const STRIDE: usize = 64;

/// Eight messages.
struct Lanes<'m, 'a> {
    messages: &'a [Message<'m>],
    /// Limbs of r, and of r₁ and r₂ times 20: 2¹³² is 20 modulo 2¹³⁰ - 5.
    r: [__m512i; 3],
    r_20: [__m512i; 2],
    /// The sum so far. Limbs may have some bits more than theirs.
    sum: [__m512i; 3],
    /// Blocks of ciphertext in each message.
    blocks: __m512i,
}

impl<'m, 'a> Lanes<'m, 'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
    fn new(messages: &'a [Message<'m>]) -> Self {
        let zero = _mm512_setzero_si512();
        let (mut keys, mut covered, mut blocks) = ([zero; NUMBER_LANES], [zero; NUMBER_LANES], [0; 8 * NUMBER_LANES]);
        let places = keys.iter_mut().zip(&mut covered).zip(blocks.as_chunks_mut::<8>().0);
        for (message, ((key, covered), blocks)) in messages.iter().zip(places) {
            *key = load512_partial(&message.key);
            *covered = load512_partial(&message.covered);
            *blocks = (message.ciphertext.len().div_ceil(16) as u64).to_le_bytes();
        }
        transpose_numbers(&mut keys);
        transpose_numbers(&mut covered);
        // RFC 8439 §2.5: some bits of r must be zero.
        let low = _mm512_and_si512(keys[0], each(0x0fff_fffc_0fff_ffff));
        let high = _mm512_and_si512(keys[1], each(0x0fff_fffc_0fff_fffc));
        let r = limbs(low, high);
        let times_20 = |limb| {
            let four = _mm512_slli_epi64::<2>(limb);
            _mm512_add_epi64(_mm512_slli_epi64::<2>(four), four)
        };
        let r_20 = [times_20(r[1]), times_20(r[2])];
        let mut made = Self { messages, r, r_20, sum: [zero; 3], blocks: load512(&blocks) };
        made.take(covered[0], covered[1], ALL);
        made
    }

    /// Four blocks of each message: numbers 2i and 2i + 1 are the halves of block i.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(&self, stride: usize) -> [__m512i; NUMBER_LANES] {
        let mut rows = [_mm512_setzero_si512(); NUMBER_LANES];
        for (row, message) in rows.iter_mut().zip(self.messages) {
            let rest = message.ciphertext.get(stride * STRIDE..).unwrap_or_default();
            *row = match rest.first_chunk() {
                Some(octets) => load512(octets),
                None => load512_partial(rest),
            };
        }
        transpose_numbers(&mut rows);
        rows
    }

    /// Lanes whose ciphertext has a block of that number.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn active(&self, block: usize) -> __mmask8 {
        _mm512_cmpgt_epu64_mask(self.blocks, each(block as u64))
    }

    /// Adds a block, with a bit behind it, and multiplies by r, where lanes are active.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn take(&mut self, low: __m512i, high: __m512i, active: __mmask8) {
        let [b0, b1, b2] = limbs(low, high);
        let h0 = _mm512_add_epi64(self.sum[0], b0);
        let h1 = _mm512_add_epi64(self.sum[1], b1);
        let h2 = _mm512_add_epi64(self.sum[2], _mm512_or_si512(b2, each(1 << 40)));
        let ([r0, r1, r2], [r1_20, r2_20]) = (self.r, self.r_20);
        let product = carried([
            limb_of_product([h0, h1, h2], [r0, r2_20, r1_20]),
            limb_of_product([h0, h1, h2], [r1, r0, r2_20]),
            limb_of_product([h0, h1, h2], [r2, r1, r0]),
        ]);
        for (sum, limb) in self.sum.iter_mut().zip(product) {
            *sum = _mm512_mask_mov_epi64(*sum, active, limb);
        }
    }

    /// Takes the lengths, and adds s.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
    fn finish(&mut self) -> [Block; NUMBER_LANES] {
        let mut lengths = [_mm512_setzero_si512(); NUMBER_LANES];
        for (lengths, message) in lengths.iter_mut().zip(self.messages) {
            *lengths = load512_partial(&message.lengths);
        }
        transpose_numbers(&mut lengths);
        self.take(lengths[0], lengths[1], ALL);
        let mut limbs = [[0; STRIDE]; 3];
        for (octets, limb) in limbs.iter_mut().zip(self.sum) {
            store512(octets, limb);
        }
        let mut tags = [[0; 16]; NUMBER_LANES];
        for (lane, (tag, message)) in tags.iter_mut().zip(self.messages).enumerate() {
            let limb = |which: usize| {
                let octets = limbs[which].as_chunks::<8>().0[lane];
                u128::from(u64::from_le_bytes(octets))
            };
            let s = message.key.last_chunk().map_or(0, |s| u128::from_le_bytes(*s));
            *tag = tag_of([limb(0), limb(1), limb(2)], s).to_le_bytes();
        }
        tags
    }
}

/// 128 bits in limbs.
#[inline]
#[target_feature(enable = "avx512f")]
fn limbs(low: __m512i, high: __m512i) -> [__m512i; 3] {
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [_mm512_and_si512(low, each(BITS_44)), _mm512_and_si512(middle, each(BITS_44)), _mm512_srli_epi64::<24>(high)]
}

/// The sum of three products: its lower 52 bits, and those above, each not yet carried.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn limb_of_product([h0, h1, h2]: [__m512i; 3], [r0, r1, r2]: [__m512i; 3]) -> [__m512i; 2] {
    let zero = _mm512_setzero_si512();
    let low = _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, h0, r0), h1, r1);
    let high = _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, h0, r0), h1, r1);
    [_mm512_madd52lo_epu64(low, h2, r2), _mm512_madd52hi_epu64(high, h2, r2)]
}

/// Limbs of little more than 44, 44 and 42 bits out of sums of products. Bit 52 of a limb is bit 8 of the next one; bit 52 of the
/// last one, 2¹⁴⁰, is 5 · 2¹⁰.
#[inline]
#[target_feature(enable = "avx512f")]
fn carried([[d0, high0], [d1, high1], [d2, high2]]: [[__m512i; 2]; 3]) -> [__m512i; 3] {
    let d1 = _mm512_add_epi64(d1, _mm512_slli_epi64::<8>(high0));
    let d2 = _mm512_add_epi64(d2, _mm512_slli_epi64::<8>(high1));
    let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
    let d2 = _mm512_add_epi64(d2, _mm512_srli_epi64::<44>(d1));
    let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(high2), _mm512_srli_epi64::<42>(d2));
    let times_5 = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
    let h0 = _mm512_add_epi64(_mm512_and_si512(d0, each(BITS_44)), times_5);
    let h1 = _mm512_add_epi64(_mm512_and_si512(d1, each(BITS_44)), _mm512_srli_epi64::<44>(h0));
    [_mm512_and_si512(h0, each(BITS_44)), h1, _mm512_and_si512(d2, each(BITS_42))]
}

/// The whole number modulo 2¹³⁰ - 5, and s added to its lower 128 bits. Nothing here depends on a branch.
fn tag_of([h0, h1, h2]: [u128; 3], s: u128) -> u128 {
    // Up to here a limb may have some bits more than its own.
    let h1 = h1 + (h0 >> 44);
    let h2 = h2 + (h1 >> 44);
    let h0 = (h0 & u128::from(BITS_44)) + 5 * (h2 >> 42);
    let h1 = (h1 & u128::from(BITS_44)) + (h0 >> 44);
    let h2 = (h2 & u128::from(BITS_42)) + (h1 >> 44);
    let (h0, h1) = (h0 & u128::from(BITS_44), h1 & u128::from(BITS_44));
    // Less than 2¹³⁰ and a bit: if it is 2¹³⁰ - 5 or more, that is taken off by adding 5 and leaving bit 130 out.
    let low = h0 | h1 << 44;
    let plus = low + 5;
    let top = (h2 + (plus >> 88)) >> 42;
    let number = low.wrapping_add(h2 << 88).wrapping_add(5 * top);
    number.wrapping_add(s)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn each(number: u64) -> __m512i {
    _mm512_set1_epi64(number.cast_signed())
}

const BITS_44: u64 = (1 << 44) - 1;
const BITS_42: u64 = (1 << 42) - 1;
/// All lanes.
const ALL: __mmask8 = 0xff;
