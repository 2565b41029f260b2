//! Engines for ciphers that go from block to block, so that only many packets at once make them fast: each packet of a batch has a
//! lane in every vector, with the keys of its own SA.

#![expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")]

mod known;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

#[cfg(test)]
pub(crate) use self::known::expect_answer_of_library;
pub(crate) use self::known::{Known, KnownAnswer};
use crate::gcm::Refused;

/// What protects packets, and the instructions that compute it.
#[expect(private_bounds, reason = "suites are those of this crate")]
pub trait Suite: KnownAnswer + Copy + Debug + Eq + Send + Sync + 'static {
    /// Keys of one direction of one SA.
    type Key: Debug + Send + Sync + 'static;

    /// What an administrator knows the engine by.
    const NAME: &'static str;

    /// Whether the processor has the instructions.
    fn fits_processor() -> bool;

    /// See [`Engine::seal`].
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn seal<'k, T>(
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k, Self::Key>, u64, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    );

    /// See [`Engine::open`].
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn open<'k, T>(
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k, Self::Key>, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    );

    /// Where the outcome of [`Engine::detect`] is kept.
    fn detected() -> &'static OnceLock<Detected<Self>>;
}

/// A way to compute a suite over many packets. A value is proof that the processor has the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine<S> {
    suite: PhantomData<S>,
}

/// One packet in the memory of a batch.
#[derive(Clone, Debug)]
pub struct Job<'k, K> {
    /// What its SA is keyed with.
    pub key: &'k K,
    /// Where it stands, from the SPI to the end of the ICV.
    pub span: Range<usize>,
    /// The high half of its sequence number, if numbers are extended.
    pub high: Option<u32>,
}

/// What there is to seal and open with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected<S> {
    /// The engine to use; without one, a library does the work.
    pub engine: Option<Engine<S>>,
    /// An engine that computes wrong answers on this processor. Somebody should be told.
    pub wrong: Option<Engine<S>>,
}

/// Stands for batches where no engine runs.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) mod absent {
    pub(crate) unsafe fn seal<J, D>(_memory: &mut [u8], _jobs: J, _done: D) {}

    pub(crate) unsafe fn open<J, D>(_memory: &mut [u8], _jobs: J, _done: D) {}
}

/// Octets of the ICV.
pub const ICV_LEN: usize = 16;
/// With fewer packets in a call than this, a library that takes one packet after the other is faster.
pub const WORTHWHILE: usize = 4;

impl<S: Suite> Engine<S> {
    /// The engine of this processor, if it computes known answers right. They are computed once in a process.
    #[must_use]
    pub fn detect() -> Detected<S> {
        *S::detected().get_or_init(|| match Self::all().next() {
            Some(engine) if engine.knows_answers() => Detected { engine: Some(engine), wrong: None },
            wrong => Detected { engine: None, wrong },
        })
    }

    /// All engines of this processor, whether their answers are right or not.
    pub fn all() -> impl Iterator<Item = Self> {
        S::fits_processor().then_some(Self { suite: PhantomData }).into_iter()
    }

    /// What an administrator knows the engine by.
    #[must_use]
    pub fn name(self) -> &'static str {
        S::NAME
    }

    /// Encrypts packets, and fills in IV and ICV. With each job comes a number from which the IV follows and which must be used
    /// once only under one key, and what `done` shall know it by; `done` hears of packets in any order.
    pub fn seal<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k, S::Key>, u64, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        // SAFETY: an engine exists only where the processor has the instructions, see `Self::all`.
        unsafe { S::seal(memory, jobs, done) }
    }

    /// Verifies packets, and decrypts those whose ICV is right. `done` hears of packets in any order.
    pub fn open<'k, T>(
        self,
        memory: &mut [u8],
        jobs: impl Iterator<Item = (Job<'k, S::Key>, T)>,
        done: impl FnMut(T, Result<(), Refused>),
    ) {
        // SAFETY: as above.
        unsafe { S::open(memory, jobs, done) }
    }
}
