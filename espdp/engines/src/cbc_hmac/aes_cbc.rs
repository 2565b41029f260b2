//! AES-CBC (RFC 3602): encryption of many packets side by side, and decryption of many blocks of one packet.

#![expect(unsafe_code, reason = "lanes are read and written through offsets that were checked once")]

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_alignr_epi64, _mm512_broadcast_i32x4, _mm512_castsi128_si512,
    _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_mask_broadcast_i32x4, _mm512_setzero_si512,
    _mm512_ternarylogic_epi64, _mm512_xor_si512,
};
use std::hint::black_box;
use std::ops::Range;

use super::Key;
use crate::lanes::transpose_blocks;
use crate::vector::{Block, load128, load512, load512_partial, store512, store512_blocks};

/// What is to be encrypted under one key.
#[derive(Clone, Debug)]
pub(super) struct Plain<'k> {
    pub(super) key: &'k Key,
    pub(super) iv: Block,
    /// Whole blocks of the batch's memory.
    pub(super) span: Range<usize>,
}

/// Packets side by side in one vector.
const QUAD: usize = 4;
/// Octets of a vector.
const VECTOR: usize = 64;
/// Octets of a block.
const BLOCK: usize = 16;

/// Encrypts up to `QUADS * 4` packets, one at least, whose keys have the same number of rounds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
pub(super) fn encrypt<const QUADS: usize>(memory: &mut [u8], plain: &[Plain<'_>]) {
    let Some(first) = plain.first() else { return };
    let mut lanes = Lanes::<QUADS>::new(memory, plain, first);
    let mut keys = Keys::<QUADS>::new(plain, first);
    let mut chain = first_chain(plain, first);
    for block in 0..lanes.shortest {
        for (quad, chain) in chain.iter_mut().enumerate() {
            *chain = xor3(*chain, lanes.gather(quad, block), keys.first(quad));
        }
        keys.encrypt(&mut chain);
        for (quad, chain) in chain.iter().enumerate() {
            lanes.scatter(quad, block, *chain);
        }
    }
    let mut at = BLOCK * lanes.shortest;
    while at < lanes.longest {
        lanes.finish(at, &keys, &mut chain);
        at += VECTOR;
    }
    keys.wipe();
}

/// Where packets stand that are encrypted side by side.
struct Lanes<'m, const QUADS: usize> {
    memory: &'m mut [u8],
    /// Where each starts. The first [`Self::shortest`] blocks from there are inside the memory.
    starts: [[usize; QUAD]; QUADS],
    /// Octets of each.
    lens: [[usize; QUAD]; QUADS],
    /// Blocks that all have.
    shortest: usize,
    /// Octets of the longest.
    longest: usize,
}

impl<'m, const QUADS: usize> Lanes<'m, QUADS> {
    /// Lanes that are left repeat the first packet as long as all lanes go on: they read and write the same there. After that
    /// they have no octets.
    fn new(memory: &'m mut [u8], plain: &[Plain<'_>], first: &Plain<'_>) -> Self {
        let (mut starts, mut lens) = ([[first.span.start; QUAD]; QUADS], [[0; QUAD]; QUADS]);
        let places = starts.as_flattened_mut().iter_mut().zip(lens.as_flattened_mut());
        for (plain, (start, len)) in plain.iter().zip(places) {
            (*start, *len) = (plain.span.start, plain.span.len());
        }
        let used = || plain.iter().take(QUAD * QUADS).map(|plain| plain.span.clone());
        let is_inside = used().all(|span| span.start <= span.end && span.end <= memory.len());
        let shortest = if is_inside { used().map(|span| span.len() / BLOCK).min().unwrap_or(0) } else { 0 };
        let longest = used().map(|span| span.len()).max().unwrap_or(0);
        Self { memory, starts, lens, shortest, longest }
    }

    /// A block of each packet of a quad. `block` is less than [`Self::shortest`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn gather(&self, quad: usize, block: usize) -> __m512i {
        if block >= self.shortest {
            return _mm512_setzero_si512();
        }
        let [one, two, three, four] = self.starts[quad].map(|start| {
            // SAFETY: `new` saw that the first `shortest` blocks from each start are inside the memory, and `block` is one of them.
            unsafe { _mm_loadu_si128(self.memory.as_ptr().add(start + BLOCK * block).cast()) }
        });
        let gathered = _mm512_castsi128_si512(one);
        let gathered = _mm512_mask_broadcast_i32x4(gathered, 0x00f0, two);
        let gathered = _mm512_mask_broadcast_i32x4(gathered, 0x0f00, three);
        _mm512_mask_broadcast_i32x4(gathered, 0xf000, four)
    }

    /// Puts blocks where [`Self::gather`] takes them from.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn scatter(&mut self, quad: usize, block: usize, value: __m512i) {
        if block >= self.shortest {
            return;
        }
        let blocks = [
            _mm512_castsi512_si128(value),
            _mm512_extracti32x4_epi32::<1>(value),
            _mm512_extracti32x4_epi32::<2>(value),
            _mm512_extracti32x4_epi32::<3>(value),
        ];
        for (start, value) in self.starts[quad].into_iter().zip(blocks) {
            // SAFETY: as in `gather`; the memory is borrowed mutably.
            unsafe { _mm_storeu_si128(self.memory.as_mut_ptr().add(start + BLOCK * block).cast(), value) };
        }
    }

    /// Encrypts four blocks, or as many as there are, of those lanes that reach beyond octet `at` of their packets.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
    #[expect(clippy::needless_range_loop, reason = "a quad is a place in all four arrays")]
    fn finish(&mut self, at: usize, keys: &Keys<QUADS>, chain: &mut [__m512i; QUADS]) {
        let mut blocks = [[_mm512_setzero_si512(); QUADS]; QUAD];
        for quad in 0..QUADS {
            let mut rows = [_mm512_setzero_si512(); QUAD];
            for (lane, row) in rows.iter_mut().enumerate() {
                *row = load512_partial(self.rest(quad, lane, at));
            }
            for (blocks, turned) in blocks.iter_mut().zip(transpose_blocks(rows)) {
                blocks[quad] = turned;
            }
        }
        for blocks in &mut blocks {
            for (quad, (chain, block)) in chain.iter_mut().zip(blocks.iter()).enumerate() {
                *chain = xor3(*chain, *block, keys.first(quad));
            }
            keys.encrypt(chain);
            *blocks = *chain;
        }
        for quad in 0..QUADS {
            let rows = transpose_blocks([blocks[0][quad], blocks[1][quad], blocks[2][quad], blocks[3][quad]]);
            for (lane, row) in rows.into_iter().enumerate() {
                store512_blocks(self.rest(quad, lane, at), row);
            }
        }
    }

    /// The octets of a lane from `at` on, a vector at most.
    fn rest(&mut self, quad: usize, lane: usize, at: usize) -> &mut [u8] {
        let (start, len) = (self.starts[quad][lane] + at, self.lens[quad][lane].saturating_sub(at).min(VECTOR));
        self.memory.get_mut(start..start + len).unwrap_or_default()
    }
}

/// Round keys of packets side by side.
#[repr(C, align(64))]
struct Keys<const QUADS: usize> {
    round_keys: [[[Block; QUAD]; QUADS]; 15],
    rounds: usize,
}

impl<const QUADS: usize> Keys<QUADS> {
    /// The rounds are those of the first key.
    #[inline]
    fn new(plain: &[Plain<'_>], first: &Plain<'_>) -> Self {
        let mut keys = Self { round_keys: [[[[0; BLOCK]; QUAD]; QUADS]; 15], rounds: first.key.rounds() };
        for lane in 0..QUAD * QUADS {
            let from = plain.get(lane).unwrap_or(first).key.encryption();
            for (to, from) in keys.round_keys.iter_mut().zip(from).take(keys.rounds + 1) {
                to.as_flattened_mut()[lane] = *from;
            }
        }
        keys
    }

    /// What is added before the first round.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn first(&self, quad: usize) -> __m512i {
        load_quad(&self.round_keys[0][quad])
    }

    /// All rounds. Their number stays a variable: in a loop that is written out, the compiler would put all rounds of one quad before
    /// those of the next, and the processor waits for the result of each then.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    fn encrypt(&self, chain: &mut [__m512i; QUADS]) {
        let [_, between @ .., last] = self.round_keys.get(..=self.rounds).unwrap_or_default() else { return };
        for round_key in between {
            for (chain, key) in chain.iter_mut().zip(round_key) {
                *chain = _mm512_aesenc_epi128(*chain, load_quad(key));
            }
        }
        for (chain, key) in chain.iter_mut().zip(last) {
            *chain = _mm512_aesenclast_epi128(*chain, load_quad(key));
        }
    }

    /// Overwrites the copies of the keys. Whoever reads them through the black box must find zeros.
    fn wipe(&mut self) {
        self.round_keys = [[[[0; BLOCK]; QUAD]; QUADS]; 15];
        black_box(self);
    }
}

/// The IVs, which the first blocks are added to.
#[inline]
#[target_feature(enable = "avx512f")]
fn first_chain<const QUADS: usize>(plain: &[Plain<'_>], first: &Plain<'_>) -> [__m512i; QUADS] {
    let mut ivs = [[[0; BLOCK]; QUAD]; QUADS];
    for (lane, iv) in ivs.as_flattened_mut().iter_mut().enumerate() {
        *iv = plain.get(lane).unwrap_or(first).iv;
    }
    let mut chain = [_mm512_setzero_si512(); QUADS];
    for (chain, ivs) in chain.iter_mut().zip(&ivs) {
        *chain = load_quad(ivs);
    }
    chain
}

/// Decrypts all blocks of a packet, `PARALLEL * 4` at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
pub(super) fn decrypt(key: &Key, iv: &Block, blocks: &mut [u8]) {
    // The last block of ciphertext stands in the highest place, whence the next vector takes it.
    let mut before = _mm512_broadcast_i32x4(load128(iv));
    let (groups, rest) = blocks.as_chunks_mut::<{ VECTOR * PARALLEL }>();
    for group in groups {
        let mut received = [_mm512_setzero_si512(); PARALLEL];
        for (received, octets) in received.iter_mut().zip(group.as_chunks().0) {
            *received = load512(octets);
        }
        let opened = decrypt_vectors(key, &received, &mut before);
        for (opened, octets) in opened.iter().zip(group.as_chunks_mut().0) {
            store512(octets, *opened);
        }
    }
    let mut received = [_mm512_setzero_si512(); PARALLEL];
    for (received, octets) in received.iter_mut().zip(rest.chunks(VECTOR)) {
        *received = load512_partial(octets);
    }
    let opened = decrypt_vectors(key, &received, &mut before);
    for (opened, octets) in opened.iter().zip(rest.chunks_mut(VECTOR)) {
        store512_blocks(octets, *opened);
    }
}

/// Vectors whose blocks [`decrypt`] works on at the same time.
const PARALLEL: usize = 8;

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn decrypt_vectors(key: &Key, received: &[__m512i; PARALLEL], before: &mut __m512i) -> [__m512i; PARALLEL] {
    let mut blocks = *received;
    let round_keys = key.decryption().get(..=key.rounds()).unwrap_or_default();
    let [first, between @ .., last] = round_keys else { return blocks };
    let round_key = _mm512_broadcast_i32x4(load128(first));
    for block in &mut blocks {
        *block = _mm512_xor_si512(*block, round_key);
    }
    for round_key in between {
        let round_key = _mm512_broadcast_i32x4(load128(round_key));
        for block in &mut blocks {
            *block = _mm512_aesdec_epi128(*block, round_key);
        }
    }
    let round_key = _mm512_broadcast_i32x4(load128(last));
    for (block, received) in blocks.iter_mut().zip(received) {
        let previous = _mm512_alignr_epi64::<6>(*received, *before);
        *block = _mm512_xor_si512(_mm512_aesdeclast_epi128(*block, round_key), previous);
        *before = *received;
    }
    blocks
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_quad(blocks: &[Block; QUAD]) -> __m512i {
    blocks.as_flattened().first_chunk().map_or(_mm512_setzero_si512(), |octets| load512(octets))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<XOR_OF_THREE>(a, b, c)
}

/// The truth table of `a ^ b ^ c`.
const XOR_OF_THREE: i32 = 0x96;
