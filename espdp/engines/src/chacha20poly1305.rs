//! ChaCha20-Poly1305, as ESP uses it (RFC 7634).
//!
//! ```text
//!  0       4       8        16                                       len - 16    len
//! ┌───────┬───────┬────────┬──────────────────────────────────────────┬───────────┐
//! │ SPI   │ seq   │ IV     │ payload, padding, pad length, next header│ ICV       │
//! └───────┴───────┴────────┴──────────────────────────────────────────┴───────────┘
//!                          └──────────────── encrypted ───────────────┘
//! ```
//!
//! The nonce is the SA's salt followed by the IV; covered, but not encrypted, are SPI and sequence number, with the half of an
//! extended number that is not sent between the two (RFC 7634 §2.1).
//!
//! ChaCha20 makes four blocks at once, and four such groups next to each other, of one packet or of several. Poly1305 goes from
//! block to block, with a packet in each lane: no powers of a key that is used for one packet only are needed.

#![expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")]

#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod chacha20;
mod key;
#[cfg(target_arch = "x86_64")]
mod poly1305;

#[cfg(not(target_arch = "x86_64"))]
use crate::side_by_side::absent as batch;
use std::sync::OnceLock;

pub use self::key::Key;
pub use crate::gcm::Refused;
pub use crate::side_by_side::ICV_LEN;
use crate::side_by_side::{self, Known, KnownAnswer, Suite};

/// ChaCha20-Poly1305 with AVX-512, and products of 52 bits (AVX512-IFMA) for Poly1305.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChaCha20Poly1305;

/// A way to compute ChaCha20-Poly1305 over many packets that this processor can go. The number that comes with a packet is its IV.
pub type Engine = side_by_side::Engine<ChaCha20Poly1305>;

/// One packet in the memory of a batch.
pub type Job<'k> = side_by_side::Job<'k, Key>;

/// Octets of SPI, sequence number and IV.
const HEADER_LEN: usize = 16;

impl Engine {
    /// Notes key and salt.
    #[must_use]
    pub fn key(self, key: &[u8; 32], salt: [u8; 4]) -> Box<Key> {
        Key::new(key, salt)
    }
}

impl Suite for ChaCha20Poly1305 {
    type Key = Key;

    const NAME: &'static str = "chacha20-poly1305-avx512";

    fn fits_processor() -> bool {
        processor_has!("avx512f", "avx512bw", "avx512vl", "avx512ifma")
    }

    unsafe fn seal<'k, T>(
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        // SAFETY: the caller's.
        unsafe { batch::seal(memory, jobs, done) }
    }

    unsafe fn open<'k, T>(
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        // SAFETY: the caller's.
        unsafe { batch::open(memory, jobs, done) }
    }

    fn detected() -> &'static OnceLock<side_by_side::Detected<Self>> {
        static DETECTED: OnceLock<side_by_side::Detected<ChaCha20Poly1305>> = OnceLock::new();
        &DETECTED
    }
}

impl KnownAnswer for ChaCha20Poly1305 {
    const HEADER_LEN: usize = HEADER_LEN;
    const ANSWER: [u8; ICV_LEN] = 0x74a7_443a_2045_416e_5508_2442_b12a_6a09_u128.to_be_bytes();

    /// Up to 700 octets, which end at each place in a block and in a group of blocks.
    fn payload_len(number: usize) -> usize {
        number * 37 % 701
    }

    fn known_key(engine: Engine, known: &Known) -> Option<Box<Key>> {
        Some(engine.key(&known.octets(0), known.octets(40)))
    }
}

#[cfg(test)]
mod tests;
