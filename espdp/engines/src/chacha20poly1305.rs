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
#[cfg(target_arch = "x86_64")]
mod key;
mod known;
#[cfg(target_arch = "x86_64")]
mod poly1305;

use std::ops::Range;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub use self::key::Key;
pub use crate::gcm::Refused;

/// A way to compute ChaCha20-Poly1305 over many packets that this processor can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    kernel: Kernel,
}

/// Implementations, by what they ask of a processor. A value is proof that the one we run on has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// With products of 52 bits for Poly1305 (AVX512-IFMA).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Keys of one direction of one SA, which there are none of without an engine.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug)]
pub enum Key {}

/// One packet in the memory of a batch.
#[derive(Clone, Debug)]
pub struct Job<'k> {
    /// What its SA is keyed with.
    pub key: &'k Key,
    /// Where it stands, from the SPI to the end of the ICV.
    pub span: Range<usize>,
    /// The high half of its sequence number, if numbers are extended.
    pub high: Option<u32>,
}

/// What there is to seal and open with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The engine to use; without one, a library does the work.
    pub engine: Option<Engine>,
    /// An engine that computes wrong answers on this processor. Somebody should be told.
    pub wrong: Option<Engine>,
}

/// Octets of the ICV.
pub const ICV_LEN: usize = 16;
/// With fewer packets in a call than this, a library that takes one packet after the other is faster.
pub const WORTHWHILE: usize = 4;

/// Octets of SPI, sequence number and IV.
const HEADER_LEN: usize = 16;

impl Engine {
    /// The engine of this processor, if it computes known answers right. They are computed once in a process.
    #[must_use]
    pub fn detect() -> Detected {
        static DETECTED: OnceLock<Detected> = OnceLock::new();
        *DETECTED.get_or_init(|| match Self::all().next() {
            Some(engine) if engine.knows_answers() => Detected { engine: Some(engine), wrong: None },
            wrong => Detected { engine: None, wrong },
        })
    }

    /// All engines of this processor, whether their answers are right or not.
    pub fn all() -> impl Iterator<Item = Self> {
        Kernel::detect().map(|kernel| Self { kernel }).into_iter()
    }

    /// What an administrator knows the engine by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => "chacha20-poly1305-avx512",
        }
    }

    /// Notes key and salt.
    #[must_use]
    pub fn key(self, key: &[u8; 32], salt: [u8; 4]) -> Box<Key> {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => Key::new(key, salt),
        }
    }

    /// Encrypts packets, and fills in IV and ICV. With each job comes the IV, which must be used once only under one key, and
    /// what `done` shall know it by; `done` hears of packets in any order.
    pub fn seal<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has what `seal` is compiled for.
            Kernel::Avx512 => unsafe { batch::seal(memory, jobs, done) },
        }
    }

    /// Verifies packets, and decrypts those whose ICV is right. `done` hears of packets in any order.
    pub fn open<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has what `open` is compiled for.
            Kernel::Avx512 => unsafe { batch::open(memory, jobs, done) },
        }
    }
}

impl Kernel {
    #[cfg(target_arch = "x86_64")]
    fn detect() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512ifma");
        avx512.then_some(Self::Avx512)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests;
