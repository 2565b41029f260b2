//! AES-CBC with HMAC-SHA2-256-128, as ESP uses them (RFC 3602, RFC 4868).
//!
//! ```text
//!  0       4       8        24                                       len - 16    len
//! ┌───────┬───────┬────────┬──────────────────────────────────────────┬───────────┐
//! │ SPI   │ seq   │ IV     │ payload, padding, pad length, next header│ ICV       │
//! └───────┴───────┴────────┴──────────────────────────────────────────┴───────────┘
//!                          └──────────────── encrypted ───────────────┘
//! └─────────────────────────────── covered by the ICV ────────────────┘
//! ```
//!
//! Both algorithms go from block to block and cannot be made faster for one packet, but many packets can go side by side: each
//! has a lane in every vector, with the keys of its own SA. Packets of a batch are put in order of length first, so that those
//! side by side end at about the same time.

#![expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")]

#[cfg(target_arch = "x86_64")]
mod aes_cbc;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod key;
#[cfg(target_arch = "x86_64")]
mod sha256;

#[cfg(not(target_arch = "x86_64"))]
use crate::side_by_side::absent as batch;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub use self::key::Key;
pub use crate::gcm::Refused;
pub use crate::side_by_side::ICV_LEN;
use crate::side_by_side::{self, Known, KnownAnswer, Suite};

/// AES-CBC with HMAC-SHA2-256-128: 32 packets side by side in AES, 16 in SHA-256, with AVX-512 and VAES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CbcHmac;

/// A way to compute AES-CBC and HMAC-SHA2-256 over many packets that this processor can go. What the IV of a packet follows from
/// is its sequence number; the high half of that is covered behind the payload if numbers are extended (RFC 4303 §2.2.1).
pub type Engine = side_by_side::Engine<CbcHmac>;

/// One packet in the memory of a batch.
pub type Job<'k> = side_by_side::Job<'k, Key>;

/// Keys of one direction of one SA, which there are none of without an engine.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug)]
pub enum Key {}

/// Octets of SPI, sequence number and IV.
const HEADER_LEN: usize = 24;

impl Engine {
    /// Keys AES with 16, 24 or 32 octets, and HMAC. `iv_key` must be independent of both: IVs are sequence numbers encrypted
    /// under it, because an IV must not be predictable (RFC 3602 §2.1). `None` when AES has no keys of that length.
    #[must_use]
    pub fn key(self, encryption: &[u8], integrity: &[u8; 32], iv_key: &[u8; 16]) -> Option<Box<Key>> {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an engine is proof that the processor has what keying needs.
        return unsafe { Key::new(encryption, integrity, iv_key) };
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }
}

impl Suite for CbcHmac {
    type Key = Key;

    const NAME: &'static str = "aes-cbc-hmac-sha256-avx512";

    fn fits_processor() -> bool {
        processor_has!("aes", "vaes", "avx512f", "avx512bw", "avx512vl")
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
        static DETECTED: OnceLock<side_by_side::Detected<CbcHmac>> = OnceLock::new();
        &DETECTED
    }
}

impl KnownAnswer for CbcHmac {
    const HEADER_LEN: usize = HEADER_LEN;
    const ANSWER: [u8; ICV_LEN] = 0x027b_7987_a93d_b021_31ca_887a_a27c_2faf_u128.to_be_bytes();

    /// Up to 40 blocks, so that hashes end at each place in a block, and decryption takes all its ways.
    fn payload_len(number: usize) -> usize {
        16 * (number * 7 % 41)
    }

    fn known_key(engine: Engine, known: &Known) -> Option<Box<Key>> {
        engine.key(&known_encryption_key(known), &known.octets(40), &known.octets(80))
    }
}

/// Keys of all lengths, in turn.
fn known_encryption_key(known: &Known) -> Vec<u8> {
    known.octets::<32>(0).into_iter().take(16 + known.number % 3 * 8).collect()
}

#[cfg(test)]
mod tests;
