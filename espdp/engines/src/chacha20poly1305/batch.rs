//! Putting the packets of a batch side by side.

use std::ops::Range;

use super::chacha20::{GROUP, GROUPS, Part, Stream, apply, one_time_keys};
use super::poly1305::{Message, tags};
use super::{HEADER_LEN, ICV_LEN, Job, Refused};
use crate::gcm::LONGEST;
use crate::lanes::WORD_LANES;
use crate::pending::{Pending, Place, SORTED};
use crate::vector::Block;

/// Where the IV starts.
const IV_AT: usize = 8;

/// A packet whose span is inside the memory, with room for header and ICV.
struct Packet<'k, T> {
    stream: Stream<'k>,
    start: usize,
    end: usize,
    high: Option<u32>,
    name: T,
}

/// Seals a batch; see [`super::Engine::seal`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn seal<'k, T>(
    memory: &mut [u8],
    jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    let mut pending = Pending::new();
    for (job, iv, name) in jobs {
        match Packet::new(memory, job, name) {
            Ok(mut packet) => {
                packet.stream.iv = iv.to_be_bytes();
                if let Some(place) = memory.get_mut(packet.iv()).and_then(|place| place.first_chunk_mut()) {
                    *place = packet.stream.iv;
                }
                pending.push(packet);
            }
            Err(name) => done(name, Err(Refused::Span)),
        }
        if pending.is_full() {
            seal_pending(memory, &mut pending, &mut done);
        }
    }
    seal_pending(memory, &mut pending, &mut done);
}

/// Opens a batch; see [`super::Engine::open`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
pub(super) fn open<'k, T>(
    memory: &mut [u8],
    jobs: impl Iterator<Item = (Job<'k>, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    let mut pending = Pending::new();
    for (job, name) in jobs {
        match Packet::new(memory, job, name) {
            Ok(packet) => pending.push(packet),
            Err(name) => done(name, Err(Refused::Span)),
        }
        if pending.is_full() {
            open_pending(memory, &mut pending, &mut done);
        }
    }
    open_pending(memory, &mut pending, &mut done);
}

/// Encrypts what is pending, and makes the ICVs over that.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn seal_pending<T>(
    memory: &mut [u8],
    pending: &mut Pending<Packet<'_, T>>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) {
    let mut order = [Place::default(); SORTED];
    for group in pending.order(&mut order, Packet::measure).chunks(WORD_LANES) {
        let keys = keys(pending, group);
        encrypt(memory, group.iter().filter_map(|place| pending.get(*place)).map(Packet::payload_under));
        for (place, icv) in group.iter().zip(icvs(memory, pending, group, &keys)) {
            let Some(packet) = pending.take(*place) else { continue };
            if let Some(octets) = memory.get_mut(packet.icv()).and_then(|octets| octets.first_chunk_mut()) {
                *octets = icv;
            }
            done(packet.name, Ok(()));
        }
    }
    pending.clear();
}

/// Verifies what is pending, and decrypts those that are authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn open_pending<T>(
    memory: &mut [u8],
    pending: &mut Pending<Packet<'_, T>>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) {
    let mut order = [Place::default(); SORTED];
    for group in pending.order(&mut order, Packet::measure).chunks(WORD_LANES) {
        let icvs = icvs(memory, pending, group, &keys(pending, group));
        let mut authentic = [const { None }; WORD_LANES];
        for ((place, icv), authentic) in group.iter().zip(icvs).zip(&mut authentic) {
            let Some(packet) = pending.take(*place) else { continue };
            let received = memory.get(packet.icv()).and_then(|octets| octets.first_chunk::<ICV_LEN>());
            // All 128 bits at once: where the first difference is takes no part in it.
            let is_authentic =
                received.is_some_and(|received| u128::from_ne_bytes(*received) ^ u128::from_ne_bytes(icv) == 0);
            *authentic = is_authentic.then(|| packet.payload_under());
            done(packet.name, if is_authentic { Ok(()) } else { Err(Refused::Icv) });
        }
        encrypt(memory, authentic.into_iter().flatten());
    }
    pending.clear();
}

/// The keys that ICVs are made with.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn keys<T>(pending: &Pending<Packet<'_, T>>, group: &[Place]) -> [[u8; 32]; WORD_LANES] {
    let stream = |place: &Place| pending.get(*place).map(|packet| packet.stream);
    let Some(first) = group.first().and_then(stream) else { return [[0; 32]; WORD_LANES] };
    let streams = std::array::from_fn(|lane| group.get(lane).and_then(stream).unwrap_or(first));
    one_time_keys(&streams)
}

/// What the ICVs of packets have to be.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn icvs<T>(
    memory: &[u8],
    pending: &Pending<Packet<'_, T>>,
    group: &[Place],
    keys: &[[u8; 32]; WORD_LANES],
) -> [Block; WORD_LANES] {
    let mut messages = [Message::default(); WORD_LANES];
    for ((message, place), key) in messages.iter_mut().zip(group).zip(keys) {
        let Some(packet) = pending.get(*place) else { continue };
        let (covered, covered_len) = packet.covered(memory);
        let ciphertext = memory.get(packet.payload()).unwrap_or_default();
        let lengths = u128::from(covered_len) | (ciphertext.len() as u128) << 64;
        *message = Message { key: *key, covered, ciphertext, lengths: lengths.to_le_bytes() };
    }
    tags(&messages)
}

/// Adds the key streams to octets of packets, several parts at a time, of one packet or of several.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn encrypt<'k>(memory: &mut [u8], packets: impl Iterator<Item = (Stream<'k>, Range<usize>)>) {
    let mut parts = packets.flat_map(|(stream, octets)| {
        octets.clone().step_by(GROUP).zip((1..).step_by(GROUP / 64)).map(move |(start, counter)| Part {
            stream,
            counter,
            start,
            len: (octets.end - start).min(GROUP),
        })
    });
    while let Some(first) = parts.next() {
        // Where there are no more, an empty part keeps the others company.
        let empty = Part { len: 0, ..first };
        let mut some = [first; GROUPS];
        for part in some.iter_mut().skip(1) {
            *part = parts.next().unwrap_or(empty);
        }
        apply(memory, &some);
    }
}

impl<'k, T> Packet<'k, T> {
    /// # Errors
    /// The name, when this is no packet, or not in this memory.
    #[inline]
    fn new(memory: &[u8], job: Job<'k>, name: T) -> Result<Self, T> {
        let Range { start, end } = job.span;
        let octets = memory.get(start..end).filter(|octets| octets.len() <= LONGEST);
        match octets.and_then(|octets| octets.first_chunk::<{ HEADER_LEN + ICV_LEN }>()) {
            Some([_, _, _, _, _, _, _, _, i0, i1, i2, i3, i4, i5, i6, i7, ..]) => {
                let iv = [*i0, *i1, *i2, *i3, *i4, *i5, *i6, *i7];
                Ok(Self { stream: Stream { key: job.key, iv }, start, end, high: job.high, name })
            }
            None => Err(name),
        }
    }

    /// All go together; octets.
    fn measure(&self) -> (u8, usize) {
        (0, self.end - self.start)
    }

    fn iv(&self) -> Range<usize> {
        self.start + IV_AT..self.start + HEADER_LEN
    }

    fn payload(&self) -> Range<usize> {
        self.start + HEADER_LEN..self.end - ICV_LEN
    }

    fn payload_under(&self) -> (Stream<'k>, Range<usize>) {
        (self.stream, self.payload())
    }

    fn icv(&self) -> Range<usize> {
        self.end - ICV_LEN..self.end
    }

    /// Associated data, with zeros behind, and its octets.
    fn covered(&self, memory: &[u8]) -> (Block, u8) {
        let header = memory.get(self.start..).and_then(|octets| octets.first_chunk::<8>());
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *header.unwrap_or(&[0; 8]);
        match self.high.map(u32::to_be_bytes) {
            Some([h0, h1, h2, h3]) => ([s0, s1, s2, s3, h0, h1, h2, h3, n0, n1, n2, n3, 0, 0, 0, 0], 12),
            None => ([s0, s1, s2, s3, n0, n1, n2, n3, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        }
    }
}
