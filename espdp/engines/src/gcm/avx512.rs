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
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_set_epi64x, _mm_shuffle_epi8, _mm_test_all_zeros, _mm_xor_si128,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256, _mm512_add_epi32, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_castsi512_si128, _mm512_castsi512_si256,
    _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64, _mm512_mask_mov_epi64, _mm512_mask_set1_epi64,
    _mm512_mask_xor_epi64, _mm512_maskz_mov_epi8, _mm512_set_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};

use super::key::{POLYNOMIAL, POWERS};
use super::packet::{Head, Packet};
use super::{Job, Key, Refused};
use crate::vector::{Block, first, load128, load512, load512_partial, store128, store512, store512_partial, vector};

/// Octets of a vector.
const VECTOR: usize = 64;
/// Vectors in a group.
const GROUP: usize = 8;

/// Seals a batch in one function, so that the work on one packet begins before that on the last one has ended.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn seal<'k, T>(
    memory: &mut [u8],
    jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    for (job, iv, name) in jobs {
        let result = Packet::of(memory, &job, Some(iv)).map(|Packet { head, body, icv }| {
            let tag = match job.key.rounds() {
                10 => crypt::<10, true>(job.key, &head, body),
                12 => crypt::<12, true>(job.key, &head, body),
                _ => crypt::<14, true>(job.key, &head, body),
            };
            store128(icv, tag);
        });
        done(name, result);
    }
}

/// Opens a batch, like [`seal`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn open<'k, T>(
    memory: &mut [u8],
    jobs: impl Iterator<Item = (Job<'k>, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    for (job, name) in jobs {
        let result = Packet::of(memory, &job, None).and_then(|Packet { head, body, icv }| {
            let tag = match job.key.rounds() {
                10 => crypt::<10, false>(job.key, &head, body),
                12 => crypt::<12, false>(job.key, &head, body),
                _ => crypt::<14, false>(job.key, &head, body),
            };
            // All 128 bits at once: where the first difference is takes no part in it.
            let difference = _mm_xor_si128(tag, load128(icv));
            if _mm_test_all_zeros(difference, difference) == 1 { Ok(()) } else { Err(Refused::Icv) }
        });
        done(name, result);
    }
}

/// What goes on from one group to the next.
struct State {
    /// The next four counters, each block with its lowest octet first.
    counters: __m512i,
    /// GHASH so far.
    hash: __m128i,
    /// What is covered without being encrypted, in the first block.
    covered: __m512i,
    /// The encrypted first counter.
    mask: __m128i,
    /// Ciphertext that was made and is still to be hashed.
    unhashed: [__m512i; GROUP],
    iv: u64,
}

/// Encrypts or decrypts `body`, which is header and payload, and returns its ICV.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn crypt<const ROUNDS: usize, const SEAL: bool>(key: &Key, head: &Head, body: &mut [u8]) -> __m128i {
    let zero = _mm512_setzero_si512();
    let from_first = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
    let mut state = State {
        counters: _mm512_add_epi32(_mm512_broadcast_i32x4(vector(head.counter)), from_first),
        hash: _mm512_castsi512_si128(zero),
        covered: _mm512_zextsi128_si512(vector(head.covered)),
        mask: _mm512_castsi512_si128(zero),
        unhashed: [zero; GROUP],
        iv: head.iv,
    };
    let payload_bits = (body.len() as u64 - 16) * 8;
    let lengths = _mm_set_epi64x(head.covered_bits.cast_signed(), payload_bits.cast_signed());

    // One to eight vectors are left, the last one with one octet at least.
    let groups = (body.len() - 1) / (GROUP * VECTOR);
    let (grouped, left) = body.split_at_mut(groups * (GROUP * VECTOR));
    let (grouped, _) = grouped.as_chunks_mut::<VECTOR>();
    let (groups, _) = grouped.as_chunks_mut::<GROUP>();
    let full = (left.len() - 1) / VECTOR;
    let (full, last) = left.split_at_mut(full * VECTOR);
    let (full, _) = full.as_chunks_mut::<VECTOR>();

    let [first_group, groups @ ..] = groups else {
        return tail_of_any::<ROUNDS, SEAL, true>(key, &mut state, full, last, lengths);
    };
    group::<ROUNDS, SEAL, true>(key, &mut state, first_group);
    for octets in groups {
        group::<ROUNDS, SEAL, false>(key, &mut state, octets);
    }
    tail_of_any::<ROUNDS, SEAL, false>(key, &mut state, full, last, lengths)
}

/// Eight vectors. Their ciphertext is hashed here when it was received, and with the next ones when it is made here.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn group<const ROUNDS: usize, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    octets: &mut [[u8; VECTOR]; GROUP],
) {
    let mut blocks = counters::<GROUP>(key, &mut state.counters);
    let received = octets.each_ref().map(|octets| if SEAL { _mm512_setzero_si512() } else { load512(octets) });
    let mut hashed = if SEAL { state.unhashed } else { received.map(|octets| swapped(octets)) };
    let is_hashing = !(SEAL && FIRST);
    if FIRST {
        hashed[0] = _mm512_mask_mov_epi64(hashed[0], HEADER_LANES, state.covered);
    }
    hashed[0] = _mm512_xor_si512(hashed[0], _mm512_zextsi128_si512(state.hash));
    let mut sum = Sum::zero();
    for round in 1..ROUNDS {
        let round_key = broadcast(&key.round_keys()[round]);
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, round_key);
        }
        if is_hashing && round <= GROUP {
            sum.add(hashed[round - 1], powers(key, 4 * (GROUP + 1 - round)));
        }
        if is_hashing && round == GROUP + 1 {
            state.hash = sum.reduced();
        }
    }
    let last_key = broadcast(&key.round_keys()[ROUNDS]);
    for (at, octets) in octets.iter_mut().enumerate() {
        let input = if SEAL { load512(octets) } else { received[at] };
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm512_aesenclast_epi128(blocks[0], last_key), input)
        } else {
            _mm512_aesenclast_epi128(blocks[at], _mm512_xor_si512(last_key, input))
        };
        store512(octets, output);
        if SEAL {
            state.unhashed[at] = swapped(output);
        }
    }
    if SEAL && FIRST {
        state.unhashed[0] = _mm512_mask_mov_epi64(state.unhashed[0], HEADER_LANES, state.covered);
    }
}

/// [`tail`] for as many full vectors as there are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tail_of_any<const ROUNDS: usize, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    full: &mut [[u8; VECTOR]],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    macro_rules! tail {
        ($full:literal) => {
            if let Ok(full) = <&mut [[u8; VECTOR]; $full]>::try_from(&mut *full) {
                return tail::<ROUNDS, SEAL, FIRST, $full>(key, state, full, last, lengths);
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

/// The last vectors: full ones, and one of 1 to 64 octets. Returns the ICV.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tail<const ROUNDS: usize, const SEAL: bool, const FIRST: bool, const FULL: usize>(
    key: &Key,
    state: &mut State,
    full: &mut [[u8; VECTOR]; FULL],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    let mut blocks = counters::<FULL>(key, &mut state.counters);
    let [mut last_block] = counters::<1>(key, &mut state.counters);
    let inputs = full.each_ref().map(|octets| load512(octets));
    let last_input = load512_partial(last);

    // The last block of the payload is multiplied by H², the lengths by H.
    let last_blocks = last.len().div_ceil(16).min(4);
    let highest = 4 * FULL + last_blocks + 1;
    let last_powers = load512_partial(key.powers()[POWERS - last_blocks - 1..].as_flattened());
    let mut sum = Sum::of_lengths(lengths, load128(&key.powers()[POWERS - 1]));
    let mut hashed = inputs.map(|input| swapped(input));
    let mut last_hashed = swapped(last_input);
    if !SEAL {
        if FIRST {
            let header = hashed.first_mut().unwrap_or(&mut last_hashed);
            *header = _mm512_mask_mov_epi64(*header, HEADER_LANES, state.covered);
        }
        let start = hashed.first_mut().unwrap_or(&mut last_hashed);
        *start = _mm512_xor_si512(*start, _mm512_zextsi128_si512(state.hash));
        if FULL == 0 {
            sum.add(last_hashed, last_powers);
        }
    }
    let mut before = Sum::zero();
    for round in 1..ROUNDS {
        let round_key = broadcast(&key.round_keys()[round]);
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, round_key);
        }
        last_block = _mm512_aesenc_epi128(last_block, round_key);
        if SEAL && !FIRST && round <= GROUP {
            let mut unhashed = state.unhashed[round - 1];
            if round == 1 {
                unhashed = _mm512_xor_si512(unhashed, _mm512_zextsi128_si512(state.hash));
            }
            before.add(unhashed, powers(key, 4 * (GROUP + 1 - round)));
        }
        if SEAL && !FIRST && round == GROUP + 1 {
            state.hash = before.reduced();
        }
        if !SEAL && round <= FULL {
            sum.add(hashed[round - 1], powers(key, highest - 4 * (round - 1)));
            if round == FULL {
                sum.add(last_hashed, last_powers);
            }
        }
    }
    let last_key = broadcast(&key.round_keys()[ROUNDS]);
    for (at, octets) in full.iter_mut().enumerate() {
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm512_aesenclast_epi128(blocks[0], last_key), inputs[0])
        } else {
            _mm512_aesenclast_epi128(blocks[at], _mm512_xor_si512(last_key, inputs[at]))
        };
        store512(octets, output);
        hashed[at] = swapped(output);
    }
    let last_output = if FIRST && FULL == 0 {
        first_output::<SEAL>(state, _mm512_aesenclast_epi128(last_block, last_key), last_input)
    } else {
        _mm512_aesenclast_epi128(last_block, _mm512_xor_si512(last_key, last_input))
    };
    store512_partial(last, last_output);
    if SEAL {
        last_hashed = swapped(_mm512_maskz_mov_epi8(first(last.len()), last_output));
        let start = hashed.first_mut().unwrap_or(&mut last_hashed);
        if FIRST {
            *start = _mm512_mask_mov_epi64(*start, HEADER_LANES, state.covered);
        }
        *start = _mm512_xor_si512(*start, _mm512_zextsi128_si512(state.hash));
        for (at, hashed) in hashed.into_iter().enumerate() {
            sum.add(hashed, powers(key, highest - 4 * at));
        }
        sum.add(last_hashed, last_powers);
    }
    _mm_xor_si128(swapped128(sum.reduced()), state.mask)
}

/// The first vector: its first block stays the header, with the IV where that is made here, and gives the mask of the ICV.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn first_output<const SEAL: bool>(state: &mut State, key_stream: __m512i, input: __m512i) -> __m512i {
    state.mask = _mm512_castsi512_si128(key_stream);
    let output = _mm512_mask_xor_epi64(input, !HEADER_LANES, input, key_stream);
    if SEAL { _mm512_mask_set1_epi64(output, IV_LANE, state.iv.to_be().cast_signed()) } else { output }
}

/// The quadwords of the first block.
const HEADER_LANES: u8 = 0b11;
/// The quadword of the IV.
const IV_LANE: u8 = 0b10;

/// Takes the next counters, and adds the first round key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn counters<const VECTORS: usize>(key: &Key, next: &mut __m512i) -> [__m512i; VECTORS] {
    let first_key = broadcast(&key.round_keys()[0]);
    let four = _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
    let mut blocks = [_mm512_setzero_si512(); VECTORS];
    for block in &mut blocks {
        *block = _mm512_xor_si512(swapped(*next), first_key);
        *next = _mm512_add_epi32(*next, four);
    }
    blocks
}

/// A sum of products in GHASH's field, before reduction: 128 low bits, 128 high ones, and 128 that overlap both.
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    /// The last block times H, in the first place.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn of_lengths(lengths: __m128i, h: __m128i) -> Self {
        let low = _mm_clmulepi64_si128(lengths, h, 0x00);
        let middle = _mm_xor_si128(_mm_clmulepi64_si128(lengths, h, 0x01), _mm_clmulepi64_si128(lengths, h, 0x10));
        let high = _mm_clmulepi64_si128(lengths, h, 0x11);
        let [low, middle, high] = [low, middle, high].map(|product| _mm512_zextsi128_si512(product));
        Self { low, middle, high }
    }

    /// Adds four products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn add(&mut self, blocks: __m512i, powers: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128(blocks, powers, 0x00));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128(blocks, powers, 0x11));
        let crossed = _mm512_clmulepi64_epi128(blocks, powers, 0x01);
        self.middle = _mm512_ternarylogic_epi64(
            self.middle,
            crossed,
            _mm512_clmulepi64_epi128(blocks, powers, 0x10),
            XOR_OF_THREE,
        );
    }

    /// The element of the field: two foldings of 64 bits, then all four blocks added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn reduced(&self) -> __m128i {
        let polynomial = _mm512_broadcast_i32x4(vector(POLYNOMIAL));
        let folded = _mm512_clmulepi64_epi128(polynomial, self.low, 0x01);
        let turned = _mm512_shuffle_epi32(self.low, TURNED);
        let middle = _mm512_ternarylogic_epi64(self.middle, folded, turned, XOR_OF_THREE);
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

/// A round key in each block.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(block: &Block) -> __m512i {
    _mm512_broadcast_i32x4(load128(block))
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

/// Octet numbers 15, 14, ..., 0.
const OPPOSITE: u128 = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f;
