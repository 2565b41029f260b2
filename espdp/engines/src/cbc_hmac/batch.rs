//! Putting the packets of a batch side by side.

use std::ops::Range;

use super::aes_cbc::{Plain, decrypt, encrypt};
use super::sha256::{Message, hmac};
use super::{HEADER_LEN, ICV_LEN, Job, Key, Refused};
use crate::gcm::LONGEST;
use crate::lanes::WORD_LANES;
use crate::pending::{Pending, Place, SORTED};
use crate::vector::Block;

/// Packets that are encrypted side by side at most.
const ENCRYPTED: usize = 32;
/// Octets of a block of AES.
const BLOCK: usize = 16;
/// Where the IV starts.
const IV_AT: usize = 8;

/// A packet whose span is inside the memory, with room for header and ICV, and whole blocks between them.
struct Packet<'k, T> {
    key: &'k Key,
    start: usize,
    end: usize,
    high: Option<u32>,
    name: T,
}

/// Seals a batch; see [`super::Engine::seal`].
#[target_feature(enable = "aes,avx512f,avx512bw,avx512vl,vaes")]
pub(super) fn seal<'k, T>(
    memory: &mut [u8],
    jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
    mut done: impl FnMut(T, Result<(), Refused>),
) {
    let mut pending = Pending::new();
    for (job, sequence, name) in jobs {
        match Packet::new(memory, job, name) {
            Ok(packet) => {
                if let Some(place) = memory.get_mut(packet.iv()).and_then(|place| place.first_chunk_mut()) {
                    *place = packet.key.iv_of(sequence);
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
#[target_feature(enable = "aes,avx512f,avx512bw,avx512vl,vaes")]
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

/// Encrypts what is pending, and makes the ICVs over that (RFC 4303 §3.3.2).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn seal_pending<T>(
    memory: &mut [u8],
    pending: &mut Pending<Packet<'_, T>>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) {
    let mut order = [Place::default(); SORTED];
    let order = pending.order(&mut order, Packet::measure);
    for alike in order.chunk_by(|one, next| one.kind == next.kind) {
        for group in alike.chunks(ENCRYPTED) {
            let Some(first) = group.first().and_then(|place| pending.get(*place)) else { continue };
            let plain: [Plain<'_>; ENCRYPTED] = std::array::from_fn(|lane| {
                let packet = group.get(lane).and_then(|place| pending.get(*place)).unwrap_or(first);
                packet.plain(memory)
            });
            let plain = plain.get(..group.len()).unwrap_or_default();
            if group.len() <= ENCRYPTED / 2 {
                encrypt::<4>(memory, plain);
            } else {
                encrypt::<8>(memory, plain);
            }
            for group in group.chunks(WORD_LANES) {
                for (place, icv) in group.iter().zip(icvs(memory, pending, group)) {
                    let Some(packet) = pending.take(*place) else { continue };
                    if let Some(octets) = memory.get_mut(packet.icv()).and_then(|octets| octets.first_chunk_mut()) {
                        *octets = icv;
                    }
                    done(packet.name, Ok(()));
                }
            }
        }
    }
    pending.clear();
}

/// Verifies what is pending, and decrypts those that are authentic (RFC 4303 §3.4.4.1).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn open_pending<T>(
    memory: &mut [u8],
    pending: &mut Pending<Packet<'_, T>>,
    done: &mut impl FnMut(T, Result<(), Refused>),
) {
    let mut order = [Place::default(); SORTED];
    let order = pending.order(&mut order, Packet::measure);
    for group in order.chunks(WORD_LANES) {
        for (place, icv) in group.iter().zip(icvs(memory, pending, group)) {
            let Some(packet) = pending.take(*place) else { continue };
            let received = memory.get(packet.icv()).and_then(|octets| octets.first_chunk::<ICV_LEN>());
            // All 128 bits at once: where the first difference is takes no part in it.
            let is_authentic =
                received.is_some_and(|received| u128::from_ne_bytes(*received) ^ u128::from_ne_bytes(icv) == 0);
            let result = if is_authentic {
                let iv = packet.plain(memory).iv;
                decrypt(packet.key, &iv, memory.get_mut(packet.payload()).unwrap_or_default());
                Ok(())
            } else {
                Err(Refused::Icv)
            };
            done(packet.name, result);
        }
    }
    pending.clear();
}

/// What the ICVs of up to [`WORD_LANES`] packets have to be.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn icvs<T>(memory: &[u8], pending: &Pending<Packet<'_, T>>, group: &[Place]) -> [Block; WORD_LANES] {
    let messages: [Option<Message<'_>>; WORD_LANES] = std::array::from_fn(|lane| {
        let packet = pending.get(*group.get(lane)?)?;
        let octets = memory.get(packet.start..packet.icv().start)?;
        Some(Message { key: packet.key, octets, high: packet.high })
    });
    hmac(&messages)
}

impl<'k, T> Packet<'k, T> {
    /// # Errors
    /// The name, when this is no packet, or not in this memory.
    #[inline]
    fn new(memory: &[u8], job: Job<'k>, name: T) -> Result<Self, T> {
        let Range { start, end } = job.span;
        let payload = memory.get(start..end).and_then(|octets| octets.len().checked_sub(HEADER_LEN + ICV_LEN));
        match payload {
            Some(len) if len % BLOCK == 0 && len <= LONGEST => {
                Ok(Self { key: job.key, start, end, high: job.high, name })
            }
            _ => Err(name),
        }
    }

    /// AES rounds, and octets.
    fn measure(&self) -> (u8, usize) {
        (self.key.rounds() as u8, self.end - self.start)
    }

    fn iv(&self) -> Range<usize> {
        self.start + IV_AT..self.start + HEADER_LEN
    }

    fn payload(&self) -> Range<usize> {
        self.start + HEADER_LEN..self.end - ICV_LEN
    }

    fn icv(&self) -> Range<usize> {
        self.end - ICV_LEN..self.end
    }

    fn plain(&self, memory: &[u8]) -> Plain<'k> {
        let iv = memory.get(self.iv()).and_then(|iv| iv.first_chunk()).copied().unwrap_or_default();
        Plain { key: self.key, iv, span: self.payload() }
    }
}
