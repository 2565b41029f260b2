//! AES-GCM with an ICV of 16 octets, as ESP uses it (RFC 4106).
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
//! extended number that is not sent between the two (RFC 4106 §5).

#![expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod key;
mod known;
#[cfg(target_arch = "x86_64")]
mod packet;

use std::ops::Range;
use std::sync::OnceLock;

pub use self::key::Key;

/// A way to compute AES-GCM that this processor can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    kernel: Kernel,
}

/// Implementations, by what they ask of a processor. A value is proof that the one we run on has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// 64 octets at once.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 32 octets at once.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The engine to use; without one, a library does the work.
    pub engine: Option<Engine>,
    /// Engines that compute wrong answers on this processor. Somebody should be told.
    pub wrong: Vec<Engine>,
}

/// Why a packet was left as it is, or must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The span reaches out of the memory, has no room for header, IV and ICV, or is longer than [`LONGEST`].
    #[error("no span of a packet in this memory")]
    Span,
    /// The ICV is wrong. The content is undefined now, and must not be used.
    #[error("the ICV is wrong")]
    Icv,
}

/// Octets of the longest packet. No IP packet is longer, and counters are far from wrapping.
pub const LONGEST: usize = 65_536;
/// Octets of the ICV.
pub const ICV_LEN: usize = 16;
/// Octets of SPI, sequence number and IV.
const HEADER_LEN: usize = 16;

impl Engine {
    /// The fastest engine of this processor that computes known answers right. They are computed once in a process.
    #[must_use]
    pub fn detect() -> &'static Detected {
        static DETECTED: OnceLock<Detected> = OnceLock::new();
        DETECTED.get_or_init(|| {
            let (right, wrong): (Vec<_>, Vec<_>) = Self::all().partition(|engine| engine.knows_answers());
            Detected { engine: right.first().copied(), wrong }
        })
    }

    /// All engines of this processor, the fastest first, whether their answers are right or not.
    pub fn all() -> impl Iterator<Item = Self> {
        Kernel::all().map(|kernel| Self { kernel })
    }

    /// What an administrator knows the engine by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => "aes-gcm-avx512",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => "aes-gcm-avx2",
        }
    }

    /// Keys AES with 16, 24 or 32 octets, and notes the salt. `None` for other lengths.
    #[must_use]
    pub fn key(self, key: &[u8], salt: [u8; 4]) -> Option<Box<Key>> {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has AES and PCLMULQDQ, see `Kernel::all`.
            Kernel::Avx512 | Kernel::Avx2 => unsafe { Key::new(key, salt) },
        }
    }

    /// Encrypts packets, and fills in IV and ICV. With each job comes the IV, which must be used once only under one key, and
    /// what `done` shall know it by.
    pub fn seal<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, u64, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has what `seal` is compiled for.
            Kernel::Avx512 => unsafe { avx512::seal(memory, jobs, done) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { avx2::seal(memory, jobs, done) },
        }
    }

    /// Verifies packets and decrypts them.
    pub fn open<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k>, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the kernel's value proves that the processor has what `open` is compiled for.
            Kernel::Avx512 => unsafe { avx512::open(memory, jobs, done) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { avx2::open(memory, jobs, done) },
        }
    }
}

impl Kernel {
    /// Those that the processor has all instructions for.
    #[cfg(target_arch = "x86_64")]
    fn all() -> impl Iterator<Item = Self> {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("aes") && has!("pclmulqdq") && has!("avx2") && has!("vaes") && has!("vpclmulqdq");
        let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl");
        avx512.then_some(Self::Avx512).into_iter().chain(avx2.then_some(Self::Avx2))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn all() -> impl Iterator<Item = Self> {
        std::iter::empty()
    }
}

#[cfg(test)]
mod tests;
