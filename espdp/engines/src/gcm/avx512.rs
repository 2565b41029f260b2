//! AES-GCM on vectors of four blocks (AVX-512 with VAES and VPCLMULQDQ).
//!
//! The header stands right before the payload and is as long as a block. So the first vector is taken from the start of the
//! packet: its first block, whose place in the sequence of counters is that of the ICV's, gives what the ICV is encrypted with,
//! and its place in GHASH is that of what is covered without being encrypted.
//!
//! ```text
//!  packet    │ SPI seq IV │ payload   │           │           │  ...
//!  counters  │ 1          │ 2         │ 3         │ 4         │
//!  GHASH     │ SPI high   │ cipher-   │ text      │           │  ...     │ lengths │
//!            │ seq 0      │           │           │           │
//! ```
//!
//! Each full group of eight vectors is reduced once. What is left, one to eight vectors, is hashed together with the lengths.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_shuffle_epi8, _mm_test_all_zeros, _mm_xor_si128, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_xor_si256, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4,
    _mm512_castsi512_si128, _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64,
    _mm512_mask_broadcast_i32x4, _mm512_mask_mov_epi64, _mm512_mask_set1_epi64, _mm512_mask_xor_epi64,
    _mm512_maskz_mov_epi8, _mm512_maskz_set1_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_epi32,
    _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};

use super::key::{OPPOSITE, POLYNOMIAL, POWERS};
use super::packet::Head;

use super::{HEADER_LEN, ICV_LEN, Job, Key, Refused};
use crate::vector::{first, halves, load128, load512, load512_partial, store128, store512, store512_blocks, vector};

/// Octets of a vector.
const VECTOR: usize = 64;
/// Vectors in a group.
const GROUP: usize = 8;

/// Seals a batch in one function, so that the work on one packet begins before that on the last one has ended.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn seal<'k, T>(
    memory: &mut [u8],
    mut jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    let mut next = jobs.next();
    while let Some((job, ..)) = &next {
        next = match job.key.rounds() {
            10 => seal_run::<10, T>(memory, next, &mut jobs, &mut done),
            12 => seal_run::<12, T>(memory, next, &mut jobs, &mut done),
            _ => seal_run::<14, T>(memory, next, &mut jobs, &mut done),
        };
    }
}

/// Seals `next` and what follows with keys of the same length; returns the first one that has another.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal_run<'k, const ROUNDS: u32, T>(
    memory: &mut [u8],
    mut next: Option<(Job<'k>, u64, T)>,
    jobs: &mut impl Iterator<Item = (Job<'k>, u64, T)>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) -> Option<(Job<'k>, u64, T)> {
    while let Some((job, iv, name)) = next {
        if job.key.rounds() != ROUNDS {
            return Some((job, iv, name));
        }
        let result = job.packet(memory).and_then(|packet| {
            let tag = crypt::<ROUNDS, true>(job.key, packet, job.high, Some(iv));
            packet.last_chunk_mut().map(|icv| store128(icv, tag)).ok_or(Refused::Span)
        });
        done(name, result);
        next = jobs.next();
    }
    None
}

/// Opens a batch, like [`seal`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn open<'k, T>(
    memory: &mut [u8],
    mut jobs: impl Iterator<Item = (Job<'k>, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    let mut next = jobs.next();
    while let Some((job, ..)) = &next {
        next = match job.key.rounds() {
            10 => open_run::<10, T>(memory, next, &mut jobs, &mut done),
            12 => open_run::<12, T>(memory, next, &mut jobs, &mut done),
            _ => open_run::<14, T>(memory, next, &mut jobs, &mut done),
        };
    }
}

/// Opens `next` and what follows with keys of the same length; returns the first one that has another.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open_run<'k, const ROUNDS: u32, T>(
    memory: &mut [u8],
    mut next: Option<(Job<'k>, T)>,
    jobs: &mut impl Iterator<Item = (Job<'k>, T)>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) -> Option<(Job<'k>, T)> {
    while let Some((job, name)) = next {
        if job.key.rounds() != ROUNDS {
            return Some((job, name));
        }
        let result = job.packet(memory).and_then(|packet| {
            let received = load128(packet.last_chunk().ok_or(Refused::Span)?);
            let tag = crypt::<ROUNDS, false>(job.key, packet, job.high, None);
            // All 128 bits at once: where the first difference is takes no part in it.
            let difference = _mm_xor_si128(tag, received);
            if _mm_test_all_zeros(difference, difference) == 1 { Ok(()) } else { Err(Refused::Icv) }
        });
        done(name, result);
        next = jobs.next();
    }
    None
}

/// What goes on from one group to the next.
struct State {
    counters: Counters,
    /// GHASH so far.
    hash: __m128i,
    /// What is covered without being encrypted, in the first block.
    covered: __m512i,
    /// The encrypted first counter.
    mask: __m128i,
    /// The IV as it lies in memory.
    iv: u64,
}

/// Encrypts or decrypts a packet of 32 octets at least, and returns its ICV. What stood in the place of the ICV is gone then.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn crypt<const ROUNDS: u32, const SEAL: bool>(
    key: &Key,
    packet: &mut [u8],
    high: Option<u32>,
    iv: Option<u64>,
) -> __m128i {
    let head = Head::new(packet, high, iv);
    let zero = _mm512_setzero_si512();
    let mut state = State {
        counters: Counters::new(key, &head),
        hash: _mm512_castsi512_si128(zero),
        covered: _mm512_zextsi128_si512(halves(head.covered.0, head.covered.1)),
        mask: _mm512_castsi512_si128(zero),
        iv: head.iv,
    };
    let body_len = packet.len() - ICV_LEN;
    let lengths = halves(head.covered_bits, (body_len as u64 - HEADER_LEN as u64) * 8);

    // One to eight vectors are left, the last one with one octet at least.
    let groups = (body_len - 1) / (GROUP * VECTOR);
    let (grouped, left) = packet.split_at_mut(groups * (GROUP * VECTOR));
    let (grouped, _) = grouped.as_chunks_mut::<VECTOR>();
    let (groups, _) = grouped.as_chunks_mut::<GROUP>();
    let full = (left.len() - ICV_LEN - 1) / VECTOR;
    let (full, last) = left.split_at_mut(full * VECTOR);
    let (full, _) = full.as_chunks_mut::<VECTOR>();

    let [first_group, groups @ ..] = groups else {
        return tail_of_any::<ROUNDS, SEAL, true>(key, &mut state, [zero; GROUP], full, last, lengths);
    };
    let mut unhashed = group::<ROUNDS, SEAL, true>(key, &mut state, [zero; GROUP], first_group);
    for octets in groups {
        unhashed = group::<ROUNDS, SEAL, false>(key, &mut state, unhashed, octets);
    }
    tail_of_any::<ROUNDS, SEAL, false>(key, &mut state, unhashed, full, last, lengths)
}

/// Eight vectors. Their ciphertext is hashed here when it was received. When it is made here it is returned, to be hashed with the
/// next ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn group<const ROUNDS: u32, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    unhashed: [__m512i; GROUP],
    octets: &mut [[u8; VECTOR]; GROUP],
) -> [__m512i; GROUP] {
    let mut blocks = state.counters.group();
    let received = octets.each_ref().map(|octets| if SEAL { _mm512_setzero_si512() } else { load512(octets) });
    let mut hashed = if SEAL { unhashed } else { received.map(|octets| swapped(octets)) };
    if FIRST {
        hashed[0] = _mm512_mask_mov_epi64(hashed[0], HEADER_LANES, state.covered);
    }
    hashed[0] = _mm512_xor_si512(hashed[0], _mm512_zextsi128_si512(state.hash));
    let mut sum = Sum::zero();
    for (at, hashed) in hashed.iter().enumerate() {
        encrypt_round(key, at + 1, &mut blocks);
        if !(SEAL && FIRST) {
            sum.add(*hashed, powers(key, 4 * (GROUP - at)));
        }
    }
    if !(SEAL && FIRST) {
        state.hash = sum.reduced();
    }
    last_rounds::<ROUNDS, GROUP>(key, &mut blocks);
    let last_key = round_key(key, ROUNDS as usize);
    for (at, octets) in octets.iter_mut().enumerate() {
        let input = if SEAL { load512(octets) } else { received[at] };
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm512_aesenclast_epi128(blocks[0], last_key), input)
        } else {
            _mm512_aesenclast_epi128(blocks[at], _mm512_xor_si512(last_key, input))
        };
        store512(octets, output);
        if SEAL {
            hashed[at] = swapped(output);
        }
    }
    if SEAL && FIRST {
        hashed[0] = _mm512_mask_mov_epi64(hashed[0], HEADER_LANES, state.covered);
    }
    hashed
}

/// [`tail`] for as many full vectors as there are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tail_of_any<const ROUNDS: u32, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    unhashed: [__m512i; GROUP],
    full: &mut [[u8; VECTOR]],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    macro_rules! tail {
        ($full:literal) => {
            if let Ok(full) = <&mut [[u8; VECTOR]; $full]>::try_from(&mut *full) {
                return tail::<ROUNDS, SEAL, FIRST, $full>(key, state, unhashed, full, last, lengths);
            }
        };
    }
    tail!(0);
    tail!(1);
    tail!(2);
    tail!(3);
    tail!(4);
    tail!(5);
    tail!(6);
    tail!(7);
    unreachable!("groups leave less than {GROUP} full vectors")
}

/// The last vectors: full ones, and one of 1 to 64 octets, with the place of the ICV behind it. Returns the ICV.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tail<const ROUNDS: u32, const SEAL: bool, const FIRST: bool, const FULL: usize>(
    key: &Key,
    state: &mut State,
    unhashed: [__m512i; GROUP],
    full: &mut [[u8; VECTOR]; FULL],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    let (mut blocks, mut last_block) = state.counters.some::<FULL>();
    let last_len = (last.len() - ICV_LEN).min(VECTOR);
    let inputs = full.each_ref().map(|octets| load512(octets));
    let last_input = load512_partial(&last[..last_len]);

    // The last block of the payload is multiplied by H², the lengths by H.
    let last_blocks = last_len.div_ceil(16);
    let highest = 4 * FULL + last_blocks + 1;
    let last_powers = load512_partial(key.powers()[POWERS - last_blocks - 1..].as_flattened());
    let mut before = Sum::zero();
    for (at, unhashed) in unhashed.into_iter().enumerate() {
        encrypt_round(key, at + 1, &mut blocks);
        last_block = _mm512_aesenc_epi128(last_block, round_key(key, at + 1));
        if SEAL && !FIRST {
            let hash = if at == 0 { _mm512_zextsi128_si512(state.hash) } else { _mm512_setzero_si512() };
            before.add(_mm512_xor_si512(unhashed, hash), powers(key, 4 * (GROUP - at)));
        }
    }
    if SEAL && !FIRST {
        state.hash = before.reduced();
    }
    last_rounds::<ROUNDS, FULL>(key, &mut blocks);
    let [last_key_stream] = {
        let mut last_block = [last_block];
        last_rounds::<ROUNDS, 1>(key, &mut last_block);
        last_block
    };
    let last_key = round_key(key, ROUNDS as usize);
    let mut hashed = inputs.map(|input| swapped(input));
    for (at, octets) in full.iter_mut().enumerate() {
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm512_aesenclast_epi128(blocks[0], last_key), inputs[0])
        } else {
            _mm512_aesenclast_epi128(blocks[at], _mm512_xor_si512(last_key, inputs[at]))
        };
        store512(octets, output);
        if SEAL {
            hashed[at] = swapped(output);
        }
    }
    let last_output = if FIRST && FULL == 0 {
        first_output::<SEAL>(state, _mm512_aesenclast_epi128(last_key_stream, last_key), last_input)
    } else {
        _mm512_aesenclast_epi128(last_key_stream, _mm512_xor_si512(last_key, last_input))
    };
    let last_output = _mm512_maskz_mov_epi8(first(last_len), last_output);
    store512_blocks(&mut last[..16 * last_blocks], last_output);

    let mut last_hashed = swapped(if SEAL { last_output } else { last_input });
    let start = hashed.first_mut().unwrap_or(&mut last_hashed);
    if FIRST {
        *start = _mm512_mask_mov_epi64(*start, HEADER_LANES, state.covered);
    }
    *start = _mm512_xor_si512(*start, _mm512_zextsi128_si512(state.hash));
    let mut sum = Sum::zero();
    for (at, hashed) in hashed.into_iter().enumerate() {
        sum.add(hashed, powers(key, highest - 4 * at));
    }
    // The lengths take the place behind the last block, or a vector of their own where there is none.
    let behind = ((0xf_u32 << (4 * last_blocks)) & 0xffff) as u16;
    sum.add(_mm512_mask_broadcast_i32x4(last_hashed, behind, lengths), last_powers);
    if last_blocks == 4 {
        sum.add_one(lengths, load128(&key.powers()[POWERS - 1]));
    }
    _mm_xor_si128(swapped128(sum.reduced()), state.mask)
}

/// The first vector: its first block stays the header, with the IV where that is made here, and gives the mask of the ICV.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn first_output<const SEAL: bool>(state: &mut State, key_stream: __m512i, input: __m512i) -> __m512i {
    state.mask = _mm512_castsi512_si128(key_stream);
    let output = _mm512_mask_xor_epi64(input, !HEADER_LANES, input, key_stream);
    if SEAL { _mm512_mask_set1_epi64(output, IV_LANE, state.iv.cast_signed()) } else { output }
}

/// The quadwords of the first block.
const HEADER_LANES: u8 = 0b11;
/// The quadword of the IV.
const IV_LANE: u8 = 0b10;

/// Counter blocks, with the first round key added.
///
/// Groups have 32 counters, and begin with 1: all but the last one of a group have the upper 27 bits of the counter in common, and
/// differ in the lower five, which are constants.
struct Counters {
    /// Salt and IV, and zero as counter.
    nonce: __m512i,
    /// The same with the upper bits of this group's counters.
    base: __m512i,
    /// The upper bits of this group's counters.
    upper: u32,
}

impl Counters {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new(key: &Key, head: &Head) -> Self {
        let nonce = _mm512_broadcast_i32x4(halves(head.iv >> 32, head.iv << 32 | u64::from(key.salt())));
        let nonce = _mm512_xor_si512(nonce, round_key(key, 0));
        Self { nonce, base: nonce, upper: 0 }
    }

    /// What a group that begins with the counter `upper | 1` starts from.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn base_of(&self, upper: u32) -> __m512i {
        _mm512_xor_si512(self.nonce, _mm512_maskz_set1_epi32(COUNTER_LANES, upper.to_be().cast_signed()))
    }

    /// The counters of a vector of this group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn vector(&self, at: usize) -> __m512i {
        let base = if at == GROUP - 1 {
            _mm512_mask_mov_epi64(self.base, LAST_LANES, self.base_of(self.upper + GROUP as u32 * 4))
        } else {
            self.base
        };
        _mm512_xor_si512(base, load512(&LOWER[at]))
    }

    /// The counters of a whole group; the next one follows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn group(&mut self) -> [__m512i; GROUP] {
        let mut vectors = [_mm512_setzero_si512(); GROUP];
        for (at, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(at);
        }
        self.upper += GROUP as u32 * 4;
        self.base = self.base_of(self.upper);
        vectors
    }

    /// The first counters of the group, and those of one vector more.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn some<const VECTORS: usize>(&self) -> ([__m512i; VECTORS], __m512i) {
        let mut vectors = [_mm512_setzero_si512(); VECTORS];
        for (at, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(at);
        }
        (vectors, self.vector(VECTORS))
    }
}

/// The doublewords of the counters.
const COUNTER_LANES: u16 = 0x8888;
/// The quadwords of the last block.
const LAST_LANES: u8 = 0b1100_0000;
/// The lower five bits of the counters of a group: 1 to 31, and 0.
const LOWER: [[u8; VECTOR]; GROUP] = {
    let mut lower = [[0; VECTOR]; GROUP];
    let mut block = 0;
    while block < 4 * GROUP {
        lower[block / 4][block % 4 * 16 + 15] = (block as u8 + 1) % (4 * GROUP as u8);
        block += 1;
    }
    lower
};

/// One round of AES on all of `blocks`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn encrypt_round<const VECTORS: usize>(key: &Key, round: usize, blocks: &mut [__m512i; VECTORS]) {
    let round_key = round_key(key, round);
    for block in blocks {
        *block = _mm512_aesenc_epi128(*block, round_key);
    }
}

/// The rounds behind the eighth, but for the last one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn last_rounds<const ROUNDS: u32, const VECTORS: usize>(key: &Key, blocks: &mut [__m512i; VECTORS]) {
    for round in GROUP + 1..ROUNDS as usize {
        encrypt_round(key, round, blocks);
    }
}

/// A round key in each block.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_key(key: &Key, round: usize) -> __m512i {
    _mm512_broadcast_i32x4(load128(&key.round_keys()[round]))
}

/// A sum of products in GHASH's field, before reduction, by Karatsuba's way: a multiplication takes the processor longer than all that
/// saves one.
struct Sum {
    /// Products of the lower halves.
    low: __m512i,
    /// Products of the sums of both halves.
    middle: __m512i,
    /// Products of the upper halves.
    high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds four products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn add(&mut self, blocks: __m512i, powers: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128(blocks, powers, 0x00));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128(blocks, powers, 0x11));
        let blocks = _mm512_xor_si512(blocks, _mm512_shuffle_epi32(blocks, TURNED));
        let powers = _mm512_xor_si512(powers, _mm512_shuffle_epi32(powers, TURNED));
        self.middle = _mm512_xor_si512(self.middle, _mm512_clmulepi64_epi128(blocks, powers, 0x00));
    }

    /// Adds one product, in the first block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn add_one(&mut self, block: __m128i, power: __m128i) {
        self.add(_mm512_zextsi128_si512(block), _mm512_zextsi128_si512(power));
    }

    /// The element of the field: two foldings of 64 bits, then all four blocks added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn reduced(&self) -> __m128i {
        let polynomial = _mm512_broadcast_i32x4(vector(POLYNOMIAL));
        let crossed = _mm512_ternarylogic_epi64(self.middle, self.low, self.high, XOR_OF_THREE);
        let folded = _mm512_clmulepi64_epi128(polynomial, self.low, 0x01);
        let turned = _mm512_shuffle_epi32(self.low, TURNED);
        let middle = _mm512_ternarylogic_epi64(crossed, folded, turned, XOR_OF_THREE);
        let folded = _mm512_clmulepi64_epi128(polynomial, middle, 0x01);
        let turned = _mm512_shuffle_epi32(middle, TURNED);
        let all = _mm512_ternarylogic_epi64(self.high, folded, turned, XOR_OF_THREE);
        let two = _mm256_xor_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
        _mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1))
    }
}

/// The truth table of `a ^ b ^ c`.
const XOR_OF_THREE: i32 = 0x96;
/// The order of doublewords that exchanges the halves of each block.
const TURNED: i32 = 0x4e;

/// Four powers of H, from `highest` down.
#[inline]
#[target_feature(enable = "avx512f")]
fn powers(key: &Key, highest: usize) -> __m512i {
    key.powers()[POWERS - highest..]
        .as_flattened()
        .first_chunk()
        .map_or(_mm512_setzero_si512(), |powers| load512(powers))
}

/// Each block with its octets in the opposite order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swapped(blocks: __m512i) -> __m512i {
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(vector(OPPOSITE)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swapped128(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, vector(OPPOSITE))
}
