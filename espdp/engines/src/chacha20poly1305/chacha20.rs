//! ChaCha20 (RFC 8439 §2.3, §2.4). A vector holds one row of the state of four blocks:
//!
//! ```text
//!  row 0 │ constants            │ constants            │ constants            │ constants            │
//!  row 1 │ key, first half      │ ...                  │                      │                      │
//!  row 2 │ key, second half     │ ...                  │                      │                      │
//!  row 3 │ counter, nonce       │ counter + 1, nonce   │ counter + 2, nonce   │ counter + 3, nonce   │
//! ```

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_rol_epi32, _mm512_set_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi32, _mm512_xor_si512,
};

use super::Key;
use crate::lanes::{WORD_LANES, transpose_blocks};
use crate::vector::{Block, load128, load512, load512_partial, store512, store512_partial, vector};

/// Vectors of four blocks that are made next to each other: a processor finds enough to do then while results are awaited.
pub(super) const GROUPS: usize = 4;
/// Octets of a block.
const BLOCK: usize = 64;
/// Octets that a group encrypts.
pub(super) const GROUP: usize = 4 * BLOCK;

/// What a key stream is made of.
#[derive(Clone, Copy)]
pub(super) struct Stream<'k> {
    pub(super) key: &'k Key,
    pub(super) iv: [u8; 8],
}

/// The rows of four blocks.
type Rows = [__m512i; 4];

impl Stream<'_> {
    /// The last row: counter, then the nonce.
    #[inline]
    fn last_row(&self, counter: u32) -> Block {
        let ([c0, c1, c2, c3], [s0, s1, s2, s3]) = (counter.to_le_bytes(), self.key.salt());
        let [i0, i1, i2, i3, i4, i5, i6, i7] = self.iv;
        [c0, c1, c2, c3, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
    }

    /// The state of four blocks that follow each other.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rows(&self, counter: u32) -> Rows {
        let [first, second] = self.key.rows();
        let following = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
        [
            _mm512_broadcast_i32x4(vector(CONSTANTS)),
            _mm512_broadcast_i32x4(load128(first)),
            _mm512_broadcast_i32x4(load128(second)),
            _mm512_add_epi32(_mm512_broadcast_i32x4(load128(&self.last_row(counter))), following),
        ]
    }
}

/// The key of Poly1305 for each packet: half of the block with counter 0 (RFC 8439 §2.6). Four packets share a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn one_time_keys(streams: &[Stream<'_>; WORD_LANES]) -> [[u8; 32]; WORD_LANES] {
    let mut states = [[_mm512_setzero_si512(); 4]; GROUPS];
    for (state, four) in states.iter_mut().zip(streams.as_chunks::<4>().0) {
        let (mut firsts, mut seconds, mut lasts) = ([[0; 16]; 4], [[0; 16]; 4], [[0; 16]; 4]);
        for (lane, stream) in four.iter().enumerate() {
            [firsts[lane], seconds[lane]] = *stream.key.rows();
            lasts[lane] = stream.last_row(0);
        }
        *state = [_mm512_broadcast_i32x4(vector(CONSTANTS)), load_row(&firsts), load_row(&seconds), load_row(&lasts)];
    }
    let made = blocks(&states);
    let mut keys = [[0; 32]; WORD_LANES];
    for (keys, made) in keys.as_chunks_mut::<4>().0.iter_mut().zip(made) {
        for (key, block) in keys.iter_mut().zip(made) {
            let mut octets = [0; BLOCK];
            store512(&mut octets, block);
            key.copy_from_slice(&octets[..32]);
        }
    }
    keys
}

/// Encrypts or decrypts: adds the key streams to parts of packets. Each comes with its first counter, and has [`GROUP`] octets or
/// less.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn apply(memory: &mut [u8], parts: &[Part<'_>; GROUPS]) {
    let mut states = [[_mm512_setzero_si512(); 4]; GROUPS];
    for (state, part) in states.iter_mut().zip(parts) {
        *state = part.stream.rows(part.counter);
    }
    for (made, part) in blocks(&states).into_iter().zip(parts) {
        let Some(octets) = memory.get_mut(part.start..part.start + part.len) else { continue };
        for (octets, block) in octets.chunks_mut(BLOCK).zip(made) {
            match octets.first_chunk_mut() {
                Some(all) => store512(all, _mm512_xor_si512(load512(all), block)),
                None => {
                    let sum = _mm512_xor_si512(load512_partial(octets), block);
                    store512_partial(octets, sum);
                }
            }
        }
    }
}

/// Where a group's key stream goes.
#[derive(Clone, Copy)]
pub(super) struct Part<'k> {
    pub(super) stream: Stream<'k>,
    /// Of the first block.
    pub(super) counter: u32,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// The four blocks of each group.
#[inline]
#[target_feature(enable = "avx512f")]
fn blocks(states: &[Rows; GROUPS]) -> [Rows; GROUPS] {
    let mut now = *states;
    for _ in 0..10 {
        // First along columns, then along diagonals, which are columns once rows have been turned.
        for rows in &mut now {
            quarter_rounds(rows);
            turn::<0b00_11_10_01, 0b01_00_11_10, 0b10_01_00_11>(rows);
        }
        for rows in &mut now {
            quarter_rounds(rows);
            turn::<0b10_01_00_11, 0b01_00_11_10, 0b00_11_10_01>(rows);
        }
    }
    for (now, state) in now.iter_mut().zip(states) {
        for (row, first) in now.iter_mut().zip(state) {
            *row = _mm512_add_epi32(*row, *first);
        }
        // Each block has 16 octets of each row.
        *now = transpose_blocks(*now);
    }
    now
}

/// RFC 8439 §2.1, on all columns at once.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds([a, b, c, d]: &mut Rows) {
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
}

/// Turns rows 1 to 3 of each block by so many words; the numbers say which word comes where.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn<const ONE: i32, const TWO: i32, const THREE: i32>([_, b, c, d]: &mut Rows) {
    *b = _mm512_shuffle_epi32::<ONE>(*b);
    *c = _mm512_shuffle_epi32::<TWO>(*c);
    *d = _mm512_shuffle_epi32::<THREE>(*d);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_row(blocks: &[Block; 4]) -> __m512i {
    blocks.as_flattened().first_chunk().map_or(_mm512_setzero_si512(), |octets| load512(octets))
}

/// "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: u128 = u128::from_le_bytes(*b"expand 32-byte k");
