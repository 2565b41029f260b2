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
mod known;
#[cfg(target_arch = "x86_64")]
mod sha256;

use std::ops::Range;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub use self::key::Key;
pub use crate::gcm::Refused;

/// A way to compute AES-CBC and HMAC-SHA2-256 over many packets that this processor can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    kernel: Kernel,
}

/// Implementations, by what they ask of a processor. A value is proof that the one we run on has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// 32 packets side by side in AES, 16 in SHA-256.
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
    /// The high half of its sequence number, if numbers are extended. It is covered behind the payload (RFC 4303 §2.2.1).
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

/// Octets of the ICV: half of the hash (RFC 4868 §2.6).
pub const ICV_LEN: usize = 16;
/// With fewer packets in a call than this, a library that takes one packet after the other is faster.
pub const WORTHWHILE: usize = 4;

/// Octets of SPI, sequence number and IV.
const HEADER_LEN: usize = 24;

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
            Kernel::Avx512 => "aes-cbc-hmac-sha256-avx512",
        }
    }

    /// Keys AES with 16, 24 or 32 octets, and HMAC. `iv_key` must be independent of both: IVs are sequence numbers encrypted
    /// under it, because an IV must not be predictable (RFC 3602 §2.1). `None` when AES has no keys of that length.
    #[must_use]
    pub fn key(self, encryption: &[u8], integrity: &[u8; 32], iv_key: &[u8; 16]) -> Option<Box<Key>> {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has what keying needs, see `Kernel::detect`.
            Kernel::Avx512 => unsafe { Key::new(encryption, integrity, iv_key) },
        }
    }

    /// Encrypts packets, and fills in IV and ICV. With each job comes the sequence number, which must be used once only under
    /// one key, and what `done` shall know it by; `done` hears of packets in any order.
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
        let aes = has!("aes") && has!("vaes");
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
        (aes && avx512).then_some(Self::Avx512)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests;
