//! AES-GCM on vectors of two blocks (AVX2 with VAES and VPCLMULQDQ), for processors without AVX-512.
//!
//! Packets are taken as in the kernel for AVX-512: the header is the first block, whose counter is that of the ICV. There are no
//! loads or stores of a part of a vector here, nor are any needed: behind the payload stands the ICV, so that all blocks of header and
//! payload can be loaded and stored whole. Of the last one, what belongs to the ICV is made zero before it is hashed.
//!
//! Each group of four vectors is reduced once. What is left, up to three vectors and one or two blocks, is hashed together with the
//! lengths.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_setzero_si128, _mm_shuffle_epi8, _mm_test_all_zeros, _mm_xor_si128, _mm256_aesenc_epi128,
    _mm256_aesenclast_epi128, _mm256_and_si256, _mm256_blend_epi32, _mm256_broadcastsi128_si256,
    _mm256_castsi256_si128, _mm256_clmulepi64_epi128, _mm256_extracti128_si256, _mm256_insert_epi64,
    _mm256_inserti128_si256, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_shuffle_epi32,
    _mm256_xor_si256, _mm256_zextsi128_si256,
};

use super::key::{OPPOSITE, POLYNOMIAL, POWERS};
use super::packet::Head;
use super::{HEADER_LEN, ICV_LEN, Job, Key, Refused};
use crate::vector::{Block, halves, load128, load256, store128, store256, vector};

/// Octets of a vector.
const VECTOR: usize = 32;
/// Vectors in a group.
const GROUP: usize = 4;

/// Seals a batch in one function, so that the work on one packet begins before that on the last one has ended.
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
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
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
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
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
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
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
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
    covered: __m256i,
    /// The encrypted first counter.
    mask: __m128i,
    /// The IV as it lies in memory.
    iv: u64,
}

/// Encrypts or decrypts a packet of 32 octets at least, and returns its ICV. What stood in the place of the ICV is gone then.
#[inline]
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
fn crypt<const ROUNDS: u32, const SEAL: bool>(
    key: &Key,
    packet: &mut [u8],
    high: Option<u32>,
    iv: Option<u64>,
) -> __m128i {
    let head = Head::new(packet, high, iv);
    let zero = _mm256_setzero_si256();
    let mut state = State {
        counters: Counters::new(key, &head),
        hash: _mm_setzero_si128(),
        covered: _mm256_zextsi128_si256(halves(head.covered.0, head.covered.1)),
        mask: _mm_setzero_si128(),
        iv: head.iv,
    };
    let body_len = packet.len() - ICV_LEN;
    let lengths = halves(head.covered_bits, (body_len as u64 - HEADER_LEN as u64) * 8);

    // One to four vectors are left, the last one with one octet at least.
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

/// Four vectors. Their ciphertext is hashed here when it was received. When it is made here it is returned, to be hashed with the
/// next ones.
#[inline]
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
fn group<const ROUNDS: u32, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    unhashed: [__m256i; GROUP],
    octets: &mut [[u8; VECTOR]; GROUP],
) -> [__m256i; GROUP] {
    let mut blocks = state.counters.group();
    let mut hashed = if SEAL { unhashed } else { octets.each_ref().map(|octets| swapped(load256(octets))) };
    if FIRST {
        hashed[0] = _mm256_blend_epi32(hashed[0], state.covered, FIRST_LANES);
    }
    hashed[0] = _mm256_xor_si256(hashed[0], _mm256_zextsi128_si256(state.hash));
    let mut sum = Sum::zero();
    for round in 1..=2 * GROUP {
        encrypt_round(key, round, &mut blocks);
        if !(SEAL && FIRST) && round % 2 == 0 {
            let at = round / 2 - 1;
            sum.add(hashed[at], powers(key, 2 * (GROUP - at)));
        }
    }
    if !(SEAL && FIRST) {
        state.hash = sum.reduced();
    }
    last_rounds::<ROUNDS, GROUP>(key, &mut blocks);
    let last_key = round_key(key, ROUNDS as usize);
    for (at, octets) in octets.iter_mut().enumerate() {
        let input = load256(octets);
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm256_aesenclast_epi128(blocks[0], last_key), input)
        } else {
            _mm256_aesenclast_epi128(blocks[at], _mm256_xor_si256(last_key, input))
        };
        store256(octets, output);
        if SEAL {
            hashed[at] = swapped(output);
        }
    }
    if SEAL && FIRST {
        hashed[0] = _mm256_blend_epi32(hashed[0], state.covered, FIRST_LANES);
    }
    hashed
}

/// [`tail`] for as many full vectors as there are.
#[inline]
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
fn tail_of_any<const ROUNDS: u32, const SEAL: bool, const FIRST: bool>(
    key: &Key,
    state: &mut State,
    unhashed: [__m256i; GROUP],
    full: &mut [[u8; VECTOR]],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    match full {
        [] => tail::<ROUNDS, SEAL, FIRST, 0>(key, state, unhashed, &mut [], last, lengths),
        [one] => tail::<ROUNDS, SEAL, FIRST, 1>(key, state, unhashed, std::array::from_mut(one), last, lengths),
        _ => {
            if let Ok(two) = full.try_into() {
                return tail::<ROUNDS, SEAL, FIRST, 2>(key, state, unhashed, two, last, lengths);
            }
            let Ok(three) = full.try_into() else { unreachable!("groups leave less than {GROUP} full vectors") };
            tail::<ROUNDS, SEAL, FIRST, 3>(key, state, unhashed, three, last, lengths)
        }
    }
}

/// The last vectors: full ones, and one of 1 to 32 octets, with the place of the ICV behind it. Returns the ICV.
#[inline]
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
fn tail<const ROUNDS: u32, const SEAL: bool, const FIRST: bool, const FULL: usize>(
    key: &Key,
    state: &mut State,
    unhashed: [__m256i; GROUP],
    full: &mut [[u8; VECTOR]; FULL],
    last: &mut [u8],
    lengths: __m128i,
) -> __m128i {
    let (mut blocks, last_block) = state.counters.some::<FULL>();
    let mut last_block = [last_block];
    let last_len = (last.len() - ICV_LEN).min(VECTOR);
    let (last_blocks, _) = last.as_chunks_mut::<16>();
    let last_blocks = &mut last_blocks[..last_len.div_ceil(16)];
    let payload = load256_at(&PAYLOAD, VECTOR - last_len);
    let last_input = _mm256_and_si256(load_blocks(last_blocks), payload);

    let mut before = Sum::zero();
    for round in 1..=2 * GROUP {
        encrypt_round(key, round, &mut blocks);
        encrypt_round(key, round, &mut last_block);
        if SEAL && !FIRST && round % 2 == 0 {
            let at = round / 2 - 1;
            let hash = if at == 0 { _mm256_zextsi128_si256(state.hash) } else { _mm256_setzero_si256() };
            before.add(_mm256_xor_si256(unhashed[at], hash), powers(key, 2 * (GROUP - at)));
        }
    }
    if SEAL && !FIRST {
        state.hash = before.reduced();
    }
    last_rounds::<ROUNDS, FULL>(key, &mut blocks);
    last_rounds::<ROUNDS, 1>(key, &mut last_block);
    let last_key = round_key(key, ROUNDS as usize);
    let mut hashed = [_mm256_setzero_si256(); FULL];
    for (at, octets) in full.iter_mut().enumerate() {
        let input = load256(octets);
        let output = if FIRST && at == 0 {
            first_output::<SEAL>(state, _mm256_aesenclast_epi128(blocks[0], last_key), input)
        } else {
            _mm256_aesenclast_epi128(blocks[at], _mm256_xor_si256(last_key, input))
        };
        store256(octets, output);
        hashed[at] = swapped(if SEAL { output } else { input });
    }
    let last_key_stream = _mm256_aesenclast_epi128(last_block[0], last_key);
    let last_output = if FIRST && FULL == 0 {
        first_output::<SEAL>(state, last_key_stream, last_input)
    } else {
        _mm256_xor_si256(last_key_stream, last_input)
    };
    let last_output = _mm256_and_si256(last_output, payload);
    store_blocks(last_blocks, last_output);

    let mut last_hashed = swapped(if SEAL { last_output } else { last_input });
    let start = hashed.first_mut().unwrap_or(&mut last_hashed);
    if FIRST {
        *start = _mm256_blend_epi32(*start, state.covered, FIRST_LANES);
    }
    *start = _mm256_xor_si256(*start, _mm256_zextsi128_si256(state.hash));
    // The last block of the payload is multiplied by H², the lengths by H. They take the place behind the last block, or a vector of
    // their own where there is none.
    let highest = 2 * FULL + last_blocks.len() + 1;
    let mut sum = Sum::zero();
    for (at, hashed) in hashed.into_iter().enumerate() {
        sum.add(hashed, powers(key, highest - 2 * at));
    }
    if last_blocks.len() == 1 {
        last_hashed = _mm256_inserti128_si256(last_hashed, lengths, 1);
    } else {
        sum.add(_mm256_zextsi128_si256(lengths), _mm256_zextsi128_si256(load128(&key.powers()[POWERS - 1])));
    }
    sum.add(last_hashed, powers(key, highest - 2 * FULL));
    _mm_xor_si128(swapped128(sum.reduced()), state.mask)
}

/// Ones for the octets of the payload, zeros behind.
const PAYLOAD: [u8; 2 * VECTOR] = {
    let mut mask = [0; 2 * VECTOR];
    let mut at = 0;
    while at < VECTOR {
        mask[at] = 0xff;
        at += 1;
    }
    mask
};

/// A vector of the mask from `at` on, up to [`VECTOR`].
#[inline]
#[target_feature(enable = "avx2")]
fn load256_at(mask: &[u8; 2 * VECTOR], at: usize) -> __m256i {
    mask.get(at..).and_then(|octets| octets.first_chunk()).map_or(_mm256_setzero_si256(), |octets| load256(octets))
}

/// One or two blocks; zeros where the second one would be.
#[inline]
#[target_feature(enable = "avx2")]
fn load_blocks(blocks: &[Block]) -> __m256i {
    match (blocks.as_flattened().first_chunk(), blocks) {
        (Some(two), _) => load256(two),
        (None, [one, ..]) => _mm256_zextsi128_si256(load128(one)),
        (None, []) => _mm256_setzero_si256(),
    }
}

/// One or two blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn store_blocks(blocks: &mut [Block], value: __m256i) {
    match blocks {
        [one] => store128(one, _mm256_castsi256_si128(value)),
        more => {
            if let Some(two) = more.as_flattened_mut().first_chunk_mut() {
                store256(two, value);
            }
        }
    }
}

/// The first vector: its first block stays the header, with the IV where that is made here, and gives the mask of the ICV.
#[inline]
#[target_feature(enable = "avx2,vaes,vpclmulqdq")]
fn first_output<const SEAL: bool>(state: &mut State, key_stream: __m256i, input: __m256i) -> __m256i {
    state.mask = _mm256_castsi256_si128(key_stream);
    let output = _mm256_blend_epi32(_mm256_xor_si256(input, key_stream), input, FIRST_LANES);
    if SEAL { _mm256_insert_epi64(output, state.iv.cast_signed(), IV_LANE) } else { output }
}

/// The doublewords of the first block.
const FIRST_LANES: i32 = 0b1111;
/// The quadword of the IV.
const IV_LANE: i32 = 1;

/// Counter blocks, with the first round key added.
///
/// Groups have 8 counters, and begin with 1: all but the last one of a group have the upper 29 bits of the counter in common, and
/// differ in the lower three, which are constants.
struct Counters {
    /// Salt and IV, and zero as counter.
    nonce: __m256i,
    /// The same with the upper bits of this group's counters.
    base: __m256i,
    /// The upper bits of this group's counters.
    upper: u32,
}

impl Counters {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(key: &Key, head: &Head) -> Self {
        let nonce = halves(head.iv >> 32, head.iv << 32 | u64::from(key.salt()));
        let nonce = _mm256_xor_si256(_mm256_broadcastsi128_si256(nonce), round_key(key, 0));
        Self { nonce, base: nonce, upper: 0 }
    }

    /// What a group that begins with the counter `upper | 1` starts from.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn base_of(&self, upper: u32) -> __m256i {
        let upper = _mm256_set1_epi32(upper.to_be().cast_signed());
        _mm256_xor_si256(self.nonce, _mm256_blend_epi32(_mm256_setzero_si256(), upper, COUNTER_LANES))
    }

    /// The counters of a vector of this group.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn vector(&self, at: usize) -> __m256i {
        let base = if at == GROUP - 1 {
            _mm256_blend_epi32(self.base, self.base_of(self.upper + GROUP as u32 * 2), LAST_LANES)
        } else {
            self.base
        };
        _mm256_xor_si256(base, load256(&LOWER[at]))
    }

    /// The counters of a whole group; the next one follows.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn group(&mut self) -> [__m256i; GROUP] {
        let mut vectors = [_mm256_setzero_si256(); GROUP];
        for (at, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(at);
        }
        self.upper += GROUP as u32 * 2;
        self.base = self.base_of(self.upper);
        vectors
    }

    /// The first counters of the group, and those of one vector more.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn some<const VECTORS: usize>(&self) -> ([__m256i; VECTORS], __m256i) {
        let mut vectors = [_mm256_setzero_si256(); VECTORS];
        for (at, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(at);
        }
        (vectors, self.vector(VECTORS))
    }
}

/// The doublewords of the counters.
const COUNTER_LANES: i32 = 0b1000_1000;
/// The doublewords of the last block.
const LAST_LANES: i32 = 0b1111_0000;
/// The lower three bits of the counters of a group: 1 to 7, and 0.
const LOWER: [[u8; VECTOR]; GROUP] = {
    let mut lower = [[0; VECTOR]; GROUP];
    let mut block = 0;
    while block < 2 * GROUP {
        lower[block / 2][block % 2 * 16 + 15] = (block as u8 + 1) % (2 * GROUP as u8);
        block += 1;
    }
    lower
};

/// One round of AES on all of `blocks`.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn encrypt_round<const VECTORS: usize>(key: &Key, round: usize, blocks: &mut [__m256i; VECTORS]) {
    let round_key = round_key(key, round);
    for block in blocks {
        *block = _mm256_aesenc_epi128(*block, round_key);
    }
}

/// The rounds behind the eighth, but for the last one.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn last_rounds<const ROUNDS: u32, const VECTORS: usize>(key: &Key, blocks: &mut [__m256i; VECTORS]) {
    for round in 2 * GROUP + 1..ROUNDS as usize {
        encrypt_round(key, round, blocks);
    }
}

/// A round key in each block.
#[inline]
#[target_feature(enable = "avx2")]
fn round_key(key: &Key, round: usize) -> __m256i {
    _mm256_broadcastsi128_si256(load128(&key.round_keys()[round]))
}

/// A sum of products in GHASH's field, before reduction, by Karatsuba's way.
struct Sum {
    /// Products of the lower halves.
    low: __m256i,
    /// Products of the sums of both halves.
    middle: __m256i,
    /// Products of the upper halves.
    high: __m256i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn zero() -> Self {
        let zero = _mm256_setzero_si256();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds two products.
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn add(&mut self, blocks: __m256i, powers: __m256i) {
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128(blocks, powers, 0x00));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128(blocks, powers, 0x11));
        let blocks = _mm256_xor_si256(blocks, _mm256_shuffle_epi32(blocks, TURNED));
        let powers = _mm256_xor_si256(powers, _mm256_shuffle_epi32(powers, TURNED));
        self.middle = _mm256_xor_si256(self.middle, _mm256_clmulepi64_epi128(blocks, powers, 0x00));
    }

    /// The element of the field: two foldings of 64 bits, then both blocks added.
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn reduced(&self) -> __m128i {
        let polynomial = _mm256_broadcastsi128_si256(vector(POLYNOMIAL));
        let fold = |above, below| {
            let folded = _mm256_clmulepi64_epi128(polynomial, below, 0x01);
            _mm256_xor_si256(above, _mm256_xor_si256(folded, _mm256_shuffle_epi32(below, TURNED)))
        };
        let crossed = _mm256_xor_si256(self.middle, _mm256_xor_si256(self.low, self.high));
        let all = fold(self.high, fold(crossed, self.low));
        _mm_xor_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1))
    }
}

/// The order of doublewords that exchanges the halves of each block.
const TURNED: i32 = 0x4e;

/// Two powers of H, from `highest` down.
#[inline]
#[target_feature(enable = "avx2")]
fn powers(key: &Key, highest: usize) -> __m256i {
    key.powers()[POWERS - highest..]
        .as_flattened()
        .first_chunk()
        .map_or(_mm256_setzero_si256(), |powers| load256(powers))
}

/// Each block with its octets in the opposite order.
#[inline]
#[target_feature(enable = "avx2")]
fn swapped(blocks: __m256i) -> __m256i {
    _mm256_shuffle_epi8(blocks, _mm256_broadcastsi128_si256(vector(OPPOSITE)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn swapped128(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, vector(OPPOSITE))
}
